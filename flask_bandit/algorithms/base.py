"""What a policy is. Policies are pure: no I/O, no clock, no randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np

from ..model import Decision, FloatArray, Stats, StatsDelta

ArmSums: TypeAlias = Mapping[str, float]
"""One arm's stored sums by name; a name that is missing is zero."""


@runtime_checkable
class PolicyProtocol(Protocol):
    """The four methods that make any object a policy; :class:`Policy` has all but the first."""

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return one probability per arm, shape (K,), summing to 1."""
        ...

    def on_decision(self, decision: Decision) -> StatsDelta:
        """Return what a decision adds."""
        ...

    def on_reward(self, decision: Decision, value: float) -> StatsDelta:
        """Return what a reward adds."""
        ...

    def on_mature(self, decision: Decision, total: float) -> StatsDelta:
        """Return what a decision whose reward window closed adds, pull and reward together."""
        ...


class Prepared(Protocol):
    """A contextual policy that has worked out what it needs for each choice."""

    def propensities(self, context: Mapping[str, Any] | None) -> FloatArray:
        """Return one probability per arm, shape (K,), summing to 1."""
        ...


class Policy:
    """Base class: a policy maps statistics to probabilities, and learning is addition.

    A subclass gives :meth:`propensities`, and sums of its own by extending :meth:`on_reward`.
    """

    name: ClassVar[str]
    """The family's snake_case name, used in configuration and in the log."""

    extra: ClassVar[tuple[str, ...]] = ()
    """Names of the policy's own sums; they arrive as ``stats.extra[name]``."""

    reward_range: ClassVar[tuple[float, float] | None] = None
    """Smallest and largest reward that the policy can learn from; ``None``: any finite number."""

    contextual: ClassVar[bool] = False
    """True where the probabilities depend on the context; see ``prepare`` of such a policy."""

    reward_needs_decision: ClassVar[bool] = False
    """True where :meth:`on_reward` reads the stored decision's propensities or context."""

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return one probability per arm; a deterministic function of its arguments.

        :param stats: sums of the K arms that are eligible, K >= 1
        :param context: features of the decision, for contextual policies
        :return: shape (K,), each in [0, 1], summing to 1
        """
        raise NotImplementedError

    def on_decision(self, decision: Decision) -> StatsDelta:
        """Return what a decision adds: one pull of its arm."""
        return StatsDelta({decision.arm: {"pulls": 1}})

    def on_reward(self, decision: Decision, value: float) -> StatsDelta:
        """Return what a reward adds: one reward, its value and its square."""
        return StatsDelta(
            {decision.arm: {"rewards": 1, "reward": value, "reward_sq": value * value}}
        )

    def on_mature(self, decision: Decision, total: float) -> StatsDelta:
        """Return what a decision whose window closed adds: pull and reward at once.

        :param total: sum of the rewards that came within the window
        """
        pull = self.on_decision(decision)
        return pull + self.on_reward(decision, total) if total else pull

    def params(self) -> dict[str, Any]:
        """Return the constructor's parameters, for the log and for messages."""
        return dict(vars(self))

    @property
    def version(self) -> str:
        """Name and parameters, as logged with each decision."""
        params = ",".join(f"{k}={v!r}" for k, v in sorted(self.params().items()))
        return f"{self.name}({params})"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.version}>"


def uniform(k: int) -> FloatArray:
    """Return K equal probabilities."""
    return np.full(k, 1.0 / k)


def means(stats: Stats) -> FloatArray:
    """Return reward per pull, shape (K,); an arm without pulls is taken to have one."""
    result: FloatArray = stats.reward / np.maximum(stats.pulls, 1)
    return result


def plain_propensities(policy: PolicyProtocol) -> Callable[..., list[float]] | None:
    """Return the policy's ``propensities_of_few``, the same probabilities from plain sums.

    It is for few arms, where arrays cost more, and optional: ``None`` if there is none, or if it
    belongs to another ``propensities`` than the policy's.
    """
    if "propensities" in getattr(policy, "__dict__", ()):
        return None
    for cls in type(policy).__mro__:
        if "propensities" in vars(cls):
            plain: Any = policy
            return plain.propensities_of_few if "propensities_of_few" in vars(cls) else None
    return None


def few_means(rows: list[ArmSums]) -> list[float]:
    """Return the same from plain sums, a row per arm."""
    return [row.get("reward", 0.0) / max(row.get("pulls", 0), 1) for row in rows]


def few_argmax_ties(scores: list[float], epsilon: float) -> list[float]:
    """Return what :func:`argmax_ties` and :func:`with_floor` make of plain scores."""
    best = max(scores)
    share, rest = (1.0 - epsilon) * (1.0 / scores.count(best)), epsilon / len(scores)
    return [share + rest if score == best else rest for score in scores]


def argmax_ties(scores: FloatArray) -> FloatArray:
    """Return probability 1 shared equally by all maxima of ``scores``, shape (K,)."""
    best = scores == np.maximum.reduce(scores)
    result: FloatArray = best / np.count_nonzero(best)
    return result


def with_floor(propensities: FloatArray, floor: float) -> FloatArray:
    """Mix with uniform, p' = (1 - F) p + F / K, so that no arm's probability is below F / K."""
    return (1.0 - floor) * propensities + floor / propensities.size
