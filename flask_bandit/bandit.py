"""What every bandit is: named arms and a policy. It works with no Flask and no storage at all.

Inside an app the engine keeps the counts in a storage; a bandit used by itself keeps its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from .algorithms import PolicyProtocol, UniformPolicy
from .algorithms.base import Prepared, plain_propensities, with_floor
from .counting import learned_sums
from .drawing import BURN_IN, FLOOR, POLICY, WEIGHTS, DrawTable, burnt_in, floored, weighted
from .errors import ConfigurationError, UnknownArmError
from .features import Features
from .model import (
    Arm,
    ArmArrays,
    ArmCounts,
    ArmStats,
    Decision,
    FloatArray,
    Stats,
    StatsDelta,
    add_counts,
    add_terms,
)
from .options import BanditOptions, Options, is_clean

if TYPE_CHECKING:
    from typing_extensions import Unpack

FEW_ARMS = 12
"""Up to so many, plain floats are faster than arrays."""

_NO_SUMS: Mapping[str, float] = {}
MAX_ARM_ID = 200
MAX_REWARD = 1e150
"""Its square is still a number, and so is the sum of many."""


Chances: TypeAlias = Callable[[tuple[str, ...]], Sequence[float]]
"""Eligible arms -> the policy's probabilities, before weights and floor."""


class RandomSource(Protocol):
    """Anything with ``random()`` in [0, 1): ``random.Random``, or numpy's ``Generator``."""

    def random(self) -> float:
        """Return the next number."""
        ...


class Bandit:
    """Named arms and the policy that shares the traffic between them.

    By itself it is the control: every arm with the same probability.

    :param policy: any object with the four methods of a policy; uniform if left out
    :param options: keyword arguments, see :class:`~flask_bandit.options.Options`: ``floor``,
        ``min_propensity``, ``burn_in``, ``holdout``, ``goal``, ``goals``, ``reward_window``,
        ``half_life``, ``group``, ``targeting``, ``features``, ``context``, ``private``,
        ``sticky`` and ``evaluation``
    :raises ConfigurationError: something that is no policy, or an option that cannot be meant
    """

    def __init__(
        self, policy: PolicyProtocol | None = None, **options: Unpack[BanditOptions]
    ) -> None:
        policy = UniformPolicy() if policy is None else policy
        if not isinstance(policy, PolicyProtocol):
            raise ConfigurationError(
                f"{policy!r} is no policy: it needs propensities, on_decision, on_reward and "
                "on_mature"
            )
        self.policy = policy
        self.options = Options.parse(options).for_policy(policy)
        self.features: Features | None = self.options.features
        """What is known at a choice; ``None`` for a bandit without contexts."""
        # Attributes, since each request asks for them.
        self.is_contextual = bool(getattr(policy, "contextual", False))
        """Whether the policy's probabilities depend on the context."""
        sticky = self.options.sticky
        self.is_sticky = not self.is_contextual if sticky is None else sticky
        """Whether visitors keep their arm; else each request makes a choice of its own."""
        self._has_own = type(self).propensities is not Bandit.propensities
        self._of_few = None if self._has_own else plain_propensities(policy)
        self._arms: dict[str, Arm] = {}
        self._is_frozen = False
        self._counts: dict[str, dict[str, float]] = {}
        self._arrays: dict[str, dict[str, FloatArray]] = {}
        self._prepared: Prepared | None = None
        self._last: dict[str, Decision] = {}

    def add_arm(self, arm_id: str, value: Any = None) -> None:
        """Add an arm.

        :param arm_id: what is stored and shown: a text without control characters
        :param value: what a view receives: any object; it is never stored
        :raises ConfigurationError: the id is taken or cannot be one, or the bandit is in use
        """
        if not isinstance(arm_id, str) or not 0 < len(arm_id) <= MAX_ARM_ID or not is_clean(arm_id):
            raise ConfigurationError(
                f"{arm_id!r} cannot be an arm's id: write a text of 1 to {MAX_ARM_ID} characters "
                "without control characters"
            )
        if arm_id in self._arms:
            raise ConfigurationError(
                f"the arm {arm_id!r} is there already; give each arm its own id"
            )
        if self._is_frozen:
            raise ConfigurationError(
                f"the arm {arm_id!r} comes too late: add arms while the app is made, so that all "
                "workers agree on them"
            )
        self._arms[arm_id] = Arm(arm_id, value)
        self._prepared = None

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms, in the order in which they were added; the first is the control."""
        return tuple(self._arms.values())

    @property
    def arm_ids(self) -> tuple[str, ...]:
        """The ids of the arms, in the same order."""
        return tuple(self._arms)

    @property
    def floor(self) -> float:
        """The share of the traffic that is spread evenly."""
        return self.options.share(len(self._arms))

    @property
    def policy_version(self) -> str:
        """Name and parameters of the policy, as logged with each decision."""
        return str(getattr(self.policy, "version", type(self.policy).__name__))

    @property
    def stats(self) -> dict[str, ArmStats]:
        """What this object was told by :meth:`pull_arm` and :meth:`reward_arm`, by arm id."""
        return {arm: ArmStats.from_counts(self._counts.get(arm, {})) for arm in self._arms}

    def value_of(self, arm: str) -> Any:
        """Return an arm's value.

        :raises UnknownArmError: no such arm
        """
        return self._arm(arm).value

    def check(self) -> None:
        """Raise :class:`ConfigurationError` if the bandit cannot work yet."""
        if not self._arms:
            raise ConfigurationError("it has no arms; give it some with add_arm(id, value)")
        if self.floor > 1.0:
            raise ConfigurationError(
                f"min_propensity is {self.options.min_propensity:g}, which {len(self._arms)} arms "
                f"cannot all have; write at most {1 / len(self._arms):g}"
            )

    def check_reward(self, value: float, goal: str | None = None) -> float:
        """Return a reward as a float.

        :param goal: one that the bandit does not learn from takes any number
        :raises ValueError: not a finite number, or outside what the policy can learn from
        """
        if not isinstance(value, Real) or not abs(value) <= MAX_REWARD:
            raise ValueError(
                f"the reward is {value!r}; write a finite number, at most {MAX_REWARD:g} in size"
            )
        is_learned = goal is None or goal == self.options.goal
        allowed = getattr(self.policy, "reward_range", None) if is_learned else None
        if allowed is not None and not allowed[0] <= value <= allowed[1]:
            raise ValueError(
                f"the reward is {value!r}, and {self.policy_version} learns from rewards of "
                f"{allowed[0]:g} to {allowed[1]:g}; scale it, or take a bandit for any number, "
                "such as GaussianThompsonBandit"
            )
        return float(value)

    def freeze(self) -> None:
        """Let no more arms be added."""
        self._is_frozen = True

    def stats_from(self, counts: ArmCounts) -> Stats:
        """Line up stored sums with the arms, as the policy reads them."""
        return Stats.from_counts(self.arm_ids, counts, getattr(self.policy, "extra", ()))

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return one probability per arm, shape (K,): the policy's, then the floor.

        :raises ConfigurationError: what the policy returned are no probabilities
        """
        return with_floor(self._checked(stats, context), self.options.share(len(stats.arms)))

    def _checked(self, stats: Stats, context: Mapping[str, Any] | None) -> FloatArray:
        return self.checked(self.policy.propensities(stats, context), stats.arms)

    def checked(self, values: FloatArray, arms: tuple[str, ...]) -> FloatArray:
        """Return what a policy gave for some arms, if it is a probability vector.

        :raises ConfigurationError: it is none
        """
        # Written so that a NaN fails.
        if values.shape != (len(arms),) or not (
            np.minimum.reduce(values) >= 0.0 and abs(np.add.reduce(values) - 1.0) < 1e-6
        ):
            raise ConfigurationError(
                f"{self.policy_version} returned {values!r}, which are not {len(arms)} "
                "probabilities that sum to 1; test the policy with PolicySuite"
            )
        return values

    def plain(self, values: FloatArray, arms: tuple[str, ...]) -> list[float]:
        """Return the same as :meth:`checked`, as plain floats."""
        plain: list[float] = self.checked(values, arms).tolist()
        return plain

    def prepare(self, arms: tuple[str, ...], sums: ArmCounts, arrays: ArmArrays) -> Prepared:
        """Let a contextual policy work out once what it needs for each choice.

        :param arms: the eligible ones
        :param sums: those that the policy learns from
        :param arrays: likewise
        """
        policy: Any = self.policy
        rows = [arrays.get(arm, {}) for arm in arms]
        stats = replace(
            Stats.from_counts(arms, sums, policy.extra),
            arrays={
                name: np.array([row.get(name, np.zeros(size)) for row in rows])
                for name, size in policy.arrays
            },
        )
        prepared: Prepared = policy.prepare(stats)
        return prepared

    def draw_table(
        self,
        counts: ArmCounts,
        *,
        drawing: Mapping[str, float] | None = None,
        now: float = 0.0,
        chances: Chances | None = None,
    ) -> DrawTable:
        """Return the probabilities that follow from stored sums, ready to draw from.

        In this order: eligible arms, policy, weights, burn-in, floor; the table's ``stages`` tell.

        :param drawing: eligible arm -> weight; all arms with equal weights if left out
        :param now: seconds since the epoch, for bandits with a half-life
        :param chances: eligible arms -> probabilities, in place of what the policy makes of the
            sums
        """
        if chances is not None:
            return self._table(counts, chances, drawing)
        sums = learned_sums(self.options, counts, now)

        def own(arms: tuple[str, ...]) -> Sequence[float]:
            return self._policy_values(arms, sums)

        return self._table(counts, own, drawing, is_floored=self._has_own)

    def _table(
        self,
        counts: ArmCounts,
        chances: Chances,
        drawing: Mapping[str, float] | None = None,
        *,
        is_floored: bool = False,
    ) -> DrawTable:
        arms, options = self.arm_ids if drawing is None else tuple(drawing), self.options
        values = chances(arms)
        stages = {POLICY: values}
        if drawing is not None:
            values = stages[WEIGHTS] = weighted(values, drawing.values())
        if options.burn_in:
            pulls = [counts.get(arm, _NO_SUMS).get("pulls", 0) for arm in arms]
            values = stages[BURN_IN] = burnt_in(values, pulls, options.burn_in)
        if not is_floored:
            values = stages[FLOOR] = floored(values, options.share(len(arms)))
        return DrawTable.of(arms, values, stages)

    def _policy_values(self, arms: tuple[str, ...], sums: ArmCounts) -> Sequence[float]:
        """Return the policy's probabilities, or those of a subclass that has its own."""
        if self._of_few is not None and len(arms) <= FEW_ARMS:
            values = self._of_few([sums.get(arm, _NO_SUMS) for arm in arms])
            # Where this fails, the arrays tell why.
            if min(values) >= 0.0 and abs(sum(values) - 1.0) < 1e-6:
                return values
        stats = Stats.from_counts(arms, sums, getattr(self.policy, "extra", ()))
        own = self.propensities if self._has_own else self._checked
        values_of_all: list[float] = own(stats, None).tolist()
        return values_of_all

    def suggest_arm(
        self, rng: RandomSource | None = None, context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Draw an arm from what this object knows; counts nothing, see :meth:`pull_arm`.

        :param rng: for the draw only; Python's own generator if left out
        :param context: features of the choice, for a contextual bandit
        :return: ``id``, ``value``, ``pulls``, ``reward`` and ``propensity``
        :raises ConfigurationError: the bandit has no arms, or a feature is not declared
        """
        self.check()
        if context is not None and self.features is not None:
            context = self.features.clean(context)

        # Nobody closes windows here, and nothing has a date: it learns at once and forgets nothing.
        def chances(arms: tuple[str, ...]) -> Sequence[float]:
            if not self.is_contextual:
                return self._policy_values(arms, self._counts)
            if self._prepared is None:
                self._prepared = self.prepare(arms, self._counts, self._arrays)
            return self.plain(self._prepared.propensities(context), arms)

        table = self._table(
            self._counts, chances, is_floored=self._has_own and not self.is_contextual
        )
        arm = table.draw((random if rng is None else rng).random())
        self._last[arm] = self._decision(arm, table.propensities, context)
        return {**self[arm], "propensity": table.propensities[arm]}

    def pull_arm(self, arm_id: str) -> None:
        """Count one decision for an arm.

        :raises UnknownArmError: no such arm
        """
        self._arm(arm_id)
        self._add(self.policy.on_decision(self._last.get(arm_id) or self._decision(arm_id, None)))

    def reward_arm(self, arm_id: str, reward: float) -> None:
        """Count one reward for an arm, for its last suggestion.

        :raises UnknownArmError: no such arm
        :raises ValueError: a reward that the policy cannot learn from
        """
        self._arm(arm_id)
        value = self.check_reward(reward)
        self._add(
            self.policy.on_reward(self._last.get(arm_id) or self._decision(arm_id, None), value)
        )

    def __getitem__(self, arm_id: str) -> dict[str, Any]:
        arm, stats = self._arm(arm_id), ArmStats.from_counts(self._counts.get(arm_id, {}))
        return {"id": arm_id, "value": arm.value, "pulls": stats.pulls, "reward": stats.reward}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.policy_version} arms={list(self._arms)}>"

    def _arm(self, arm_id: str) -> Arm:
        try:
            return self._arms[arm_id]
        except KeyError:
            raise UnknownArmError(
                f"there is no arm {arm_id!r}; known: {list(self._arms)}"
            ) from None

    def _add(self, delta: StatsDelta) -> None:
        add_counts(self._counts, delta)
        add_terms(self._arrays, delta.terms)
        learn = getattr(self._prepared, "learn", None)
        if learn is None:
            self._prepared = None
        else:
            learn(delta)

    def _decision(
        self,
        arm: str,
        propensities: Mapping[str, float] | None,
        context: Mapping[str, Any] | None = None,
    ) -> Decision:
        return Decision("", "", 0, arm, propensities, self.policy_version, 0.0, context)
