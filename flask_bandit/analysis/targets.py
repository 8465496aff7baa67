"""Target policies: what would have been chosen at logged decisions, with which probabilities.

Pure; must not import Flask or a storage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..model import FloatArray, Stats
from .logged import Logged

Target: TypeAlias = Callable[[Logged], FloatArray]
"""Returns the probability of each of K arms at each of n decisions, shape (n, K)."""


class Fitted(Protocol):
    """A policy that learns no more, such as a model."""

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return one probability per arm of ``stats.arms``, which are the eligible ones."""
        ...


def logged_target(batch: Logged) -> FloatArray:
    """Return what was logged: the target is the policy that was in charge."""
    return batch.propensities


def constant_target(probabilities: Sequence[float] | FloatArray) -> Target:
    """Return the target that chooses with the same probabilities at each decision.

    :param probabilities: of the K arms
    """
    values = np.asarray(probabilities, dtype=np.float64)
    return lambda batch: np.broadcast_to(values, (len(batch), values.size))


def fitted_target(fitted: Fitted) -> Target:
    """Return the target that chooses as a fitted policy does between the eligible arms.

    It is asked with statistics that are all zero, since it has learned what it knows.
    """
    known: dict[tuple[str, ...], Stats] = {}

    def target(batch: Logged) -> FloatArray:
        result = np.zeros(batch.eligible.shape)
        for row, (allowed, context) in enumerate(zip(batch.eligible, batch.contexts, strict=True)):
            arms = tuple(batch.arms[place] for place in np.flatnonzero(allowed).tolist())
            if arms not in known:
                known[arms] = Stats.from_counts(arms, {})
            result[row, allowed] = fitted.propensities(known[arms], context)
        return result

    return target
