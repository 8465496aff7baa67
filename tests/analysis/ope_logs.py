"""Simulated logs whose truth is known, as arrays and as entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flask_bandit.analysis.logged import Logged
from flask_bandit.model import Decision, FloatArray, LogEntry, Reward


def batch(
    arm: Sequence[int],
    reward: Sequence[float] | npt.NDArray[Any],
    propensities: FloatArray,
    *,
    contexts: Sequence[Mapping[str, Any] | None] | None = None,
    subjects: Sequence[str] | None = None,
    version: Sequence[int] | None = None,
    eligible: Any = None,
) -> Logged:
    """Return decisions as arrays; by default of anonymous visitors, at which all arms could be."""
    chosen = np.array(arm, dtype=np.int64)
    n, k = propensities.shape
    ids = [f"d{number}" for number in range(n)]
    return Logged(
        arms=tuple(f"arm{place}" for place in range(k)),
        arm=chosen,
        reward=np.array(reward, dtype=np.float64),
        propensity=propensities[np.arange(n), chosen],
        propensities=propensities,
        eligible=np.ones((n, k), dtype=bool) if eligible is None else np.array(eligible),
        contexts=[None] * n if contexts is None else contexts,
        clusters=ids if subjects is None else subjects,
        alone=np.full(n, subjects is None),
        at=np.arange(n, dtype=np.float64),
        version=np.ones(n, dtype=np.int64) if version is None else np.array(version),
        ids=ids,
    )


def part(whole: Logged, places: slice) -> Logged:
    """Return some of the decisions."""
    return Logged(whole.arms, *(getattr(whole, name)[places] for name in list(vars(whole))[1:]))


@dataclass(frozen=True)
class World:
    """Visitors with one feature x in [-1, 1], and two arms: one is good for x > 0, one for x < 0.

    :param floor: smallest probability of the logged policy
    """

    floor: float = 0.1

    def log(self, n: int, rng: np.random.Generator) -> Logged:
        """Return decisions of a policy that likes the worse arm better."""
        x = rng.uniform(-1.0, 1.0, n)
        first = self.floor + (1.0 - 2.0 * self.floor) / (1.0 + np.exp(2.0 * x))
        propensities = np.column_stack([first, 1.0 - first])
        arm = (rng.random(n) >= first).astype(np.int64)
        reward = (rng.random(n) < rates(x)[np.arange(n), arm]).astype(np.float64)
        contexts = [{"x": value} for value in x.tolist()]
        return batch(arm.tolist(), reward, propensities, contexts=contexts)


TRUTH = 0.5 + 0.4 * 0.5 * (2.0 * 0.9 - 1.0)
"""What :func:`target` earns: .5 + .4 (.9 - .1) times the mean of the size of x, which is .5."""


def target(logged: Logged) -> FloatArray:
    """Return the probabilities of the policy that takes the better arm nine times out of ten."""
    x = np.array([context["x"] for context in logged.contexts if context is not None])
    first = np.where(x > 0.0, 0.9, 0.1)
    return np.column_stack([first, 1.0 - first])


def rates(x: FloatArray) -> FloatArray:
    """Return the chance of a reward by arm: .5 + .4 x and .5 - .4 x."""
    return np.column_stack([0.5 + 0.4 * x, 0.5 - 0.4 * x])


class Slope:
    """Encodes x as it is."""

    dimension = 1

    def encode(self, context: Mapping[str, Any] | None) -> FloatArray:
        return np.array([0.0 if context is None else context["x"]])


def entry(
    number: int, arm: str, chances: Mapping[str, float] | None, earned: float = 0.0, **details: Any
) -> LogEntry:
    """Return a decision of the bandit ``b`` at the second ``number``."""
    given = {"policy_version": "p", "at": float(number), **details}
    decision = Decision(f"d{number}", "b", given.pop("version", 1), arm, chances, **given)
    if not earned:
        return LogEntry(decision)
    reward = Reward(f"r{number}", decision.id, "b", 1, arm, earned, decision.at + 5.0)
    return LogEntry(decision, (reward,))
