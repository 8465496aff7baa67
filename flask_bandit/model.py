"""The theory on one screen: what is decided, what is rewarded, and what is added up.

Frozen dataclasses without behaviour of their own; this module knows neither Flask nor a storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
ArmCounts: TypeAlias = Mapping[str, Mapping[str, float]]
"""Arm id -> name of a sum -> its value. ``pulls`` and ``rewards`` are ints."""

ArmArrays: TypeAlias = Mapping[str, Mapping[str, FloatArray]]
"""Arm id -> name of an array of sums -> the array, of shape (n,)."""

DEFAULT_GOAL = "reward"
HELD_OUT = "-h"
"""How the ids of decisions end whose visitor is held out."""
MERGED = "merged:"
"""How the policy version begins of a decision that stands for another one, whose id follows."""


class BanditKey(NamedTuple):
    """What counts are kept by: a bandit's name and its version (a reset starts a new one)."""

    bandit: str
    version: int


Counts: TypeAlias = Mapping[BanditKey, ArmCounts]
Arrays: TypeAlias = Mapping[BanditKey, ArmArrays]


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant: an id that is stored, and a value, any Python object, that never is."""

    id: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class ArmStats:
    """What is known of one arm.

    :param pulls: decisions for this arm
    :param rewards: rewards counted, one per (decision, goal)
    :param reward: sum of their values
    :param reward_sq: sum of the squares of their values
    """

    pulls: int = 0
    rewards: int = 0
    reward: float = 0.0
    reward_sq: float = 0.0

    @property
    def mean(self) -> float:
        """Reward per pull, 0.0 for an arm that was never pulled."""
        return self.reward / self.pulls if self.pulls else 0.0

    @classmethod
    def from_counts(cls, counts: Mapping[str, float]) -> ArmStats:
        """Read one arm's sums; a name that is missing is zero."""
        return cls(
            pulls=int(counts.get("pulls", 0)),
            rewards=int(counts.get("rewards", 0)),
            reward=float(counts.get("reward", 0.0)),
            reward_sq=float(counts.get("reward_sq", 0.0)),
        )


@dataclass(frozen=True)
class Stats:
    """What a policy sees: the sums of K arms as arrays of shape (K,), in the order of ``arms``.

    :param pulls: ints; floats where old decisions weigh less
    :param rewards: likewise
    :param extra: a policy's own sums by name, each of shape (K,)
    :param arrays: what a contextual policy has learned, a row per arm: each of shape (K, n)
    """

    arms: tuple[str, ...]
    pulls: IntArray
    rewards: IntArray
    reward: FloatArray
    reward_sq: FloatArray
    extra: Mapping[str, FloatArray] = field(default_factory=dict)
    arrays: Mapping[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def from_counts(
        cls, arms: tuple[str, ...], counts: ArmCounts, extra: tuple[str, ...] = ()
    ) -> Stats:
        """Line up stored sums with ``arms``; an arm without counts is zero.

        :param extra: names of the policy's own sums to read
        """
        rows = [counts.get(arm, {}) for arm in arms]
        return cls(
            arms=arms,
            pulls=cast(IntArray, np.array([row.get("pulls", 0) for row in rows])),
            rewards=cast(IntArray, np.array([row.get("rewards", 0) for row in rows])),
            reward=np.array([row.get("reward", 0.0) for row in rows], dtype=np.float64),
            reward_sq=np.array([row.get("reward_sq", 0.0) for row in rows], dtype=np.float64),
            extra={
                name: np.array([row.get(name, 0.0) for row in rows], dtype=np.float64)
                for name in extra
            },
        )


class Term(NamedTuple):
    """What is added to one array of sums, written short.

    :param name: of the array
    :param vector: what is added element by element; or, with ``outer``, a vector whose product
        with itself is added, the upper triangle by rows: n numbers stand for n (n + 1) / 2
    """

    arm: str
    name: str
    vector: tuple[float, ...]
    outer: bool = False

    def expanded(self) -> FloatArray:
        """Return what is added, element by element."""
        vector = np.array(self.vector, dtype=np.float64)
        if not self.outer:
            return vector
        product: FloatArray = np.outer(vector, vector)[np.triu_indices(vector.size)]
        return product


@dataclass(frozen=True, slots=True)
class StatsDelta:
    """An increment of stored sums.

    :param counts: arm id -> name of the sum -> what to add
    :param terms: what to add to arrays of sums
    """

    counts: ArmCounts
    terms: tuple[Term, ...] = ()

    def __add__(self, other: StatsDelta) -> StatsDelta:
        """Add two increments; addition commutes, so order never matters."""
        total: dict[str, dict[str, float]] = {a: dict(row) for a, row in self.counts.items()}
        add_counts(total, other)
        return StatsDelta(total, self.terms + other.terms)


def add_counts(total: dict[str, dict[str, float]], delta: StatsDelta) -> None:
    """Add ``delta`` to ``total`` in place."""
    for arm, row in delta.counts.items():
        mine = total.setdefault(arm, {})
        for name, value in row.items():
            mine[name] = mine.get(name, 0) + value


def add_terms(total: dict[str, dict[str, FloatArray]], terms: Iterable[Term]) -> None:
    """Add terms to arrays in place; the arrays themselves are replaced, not changed.

    :raises ValueError: an array of that name has another length
    """
    for term in terms:
        mine, added = total.setdefault(term.arm, {}), term.expanded()
        old = mine.get(term.name)
        if old is not None and old.shape != added.shape:
            raise ValueError(
                f"the array {term.name!r} of arm {term.arm!r} has {old.size} numbers, and "
                f"{added.size} were to be added"
            )
        mine[term.name] = added if old is None else old + added


@dataclass(frozen=True, slots=True)
class Decision:
    """One logged choice of an arm.

    :param id: hash of (visitor or subject, bandit, version), so a replay has the same id
    :param propensities: arm id -> probability at the draw, over all eligible arms; ``None`` where
        it is unknown. A decision that was first shown by a prefetch knows its own arm's only.
    :param policy_version: name and parameters of the policy that gave the probabilities; empty
        where the decision's details were pruned
    :param at: seconds since the epoch, UTC
    :param context: the features that the arm was chosen by, as the app gave them; ``None`` where
        the bandit has no features, or the context was erased or pruned
    """

    id: str
    bandit: str
    version: int
    arm: str
    propensities: Mapping[str, float] | None
    policy_version: str
    at: float
    context: Mapping[str, Any] | None = None
    subject: str | None = None

    @property
    def key(self) -> BanditKey:
        """Where this decision is counted."""
        return BanditKey(self.bandit, self.version)

    @property
    def is_held_out(self) -> bool:
        """True for a visitor who always gets the control, whatever the policy says."""
        return self.is_id_held_out(self.id)

    @staticmethod
    def is_id_held_out(decision_id: str) -> bool:
        """Tell by its id alone whether a decision is of the holdout: a reward knows no more."""
        return decision_id.endswith(HELD_OUT)

    @property
    def stands_for(self) -> str | None:
        """The id of another decision, if this one only says that a subject goes on with it.

        Such a decision counts nothing, is in no log, and is never pruned. Rewards are for the
        other one.
        """
        if not self.policy_version.startswith(MERGED):
            return None
        return self.policy_version.removeprefix(MERGED)

    @property
    def is_pruned(self) -> bool:
        """True if only what counting needs is left: id, bandit, version, arm and time."""
        return not self.policy_version

    def pruned(self) -> Decision:
        """Return this decision without what only a reader of the log needs."""
        return Decision(self.id, self.bandit, self.version, self.arm, None, "", self.at)


@dataclass(frozen=True, slots=True)
class Reward:
    """The value that a decision earned for one goal.

    :param id: unique per (decision, goal); a replay has the same id and counts once
    :param arm: the decision's arm, as far as the sender knows
    """

    id: str
    decision_id: str
    bandit: str
    version: int
    arm: str
    value: float
    at: float
    goal: str = DEFAULT_GOAL

    @property
    def key(self) -> BanditKey:
        """Where this reward is counted."""
        return BanditKey(self.bandit, self.version)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A decision with the rewards that were joined to it."""

    decision: Decision
    rewards: tuple[Reward, ...] = ()
