"""Softmax: probabilities that grow with the mean reward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ConfigurationError
from ..model import FloatArray, Stats
from .base import Policy, means


def softmax(values: FloatArray, inverse_tau: float) -> FloatArray:
    """Return exp(values / tau), normalised; the largest is subtracted first."""
    # The differences are at most 0, so what overflows is -inf, whose weight is 0.
    with np.errstate(over="ignore"):
        weights = np.exp((values - values.max()) * inverse_tau)
    result: FloatArray = weights / weights.sum()
    return result


class SoftmaxPolicy(Policy):
    """p proportional to exp(mean / tau): nearly as good arms get nearly as much traffic.

    tau is in units of the reward: differences far below it are ignored, and of those far above it
    the best arm takes all. No regret bound for a fixed tau. Sutton and Barto 2018, section 2.8.

    :param tau: temperature, above 0
    :raises ConfigurationError: tau is not above 0
    """

    name = "softmax"

    def __init__(self, tau: float = 0.1) -> None:
        if not isinstance(tau, (int, float)) or not 1e-300 < tau < math.inf:
            raise ConfigurationError(f"tau is {tau!r}; write a number above 0, at least 1e-300")
        self.tau = float(tau)

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return the softmax of the means."""
        return softmax(means(stats), 1.0 / self.tau)


class AnnealingSoftmaxPolicy(Policy):
    """Softmax that cools down: tau = 1 / log(t + 1e-7), t one more than the decisions so far.

    White 2012, "Bandit Algorithms for Website Optimization", chapter 4. No regret bound: with
    this schedule p_best grows only as a power of t.
    """

    name = "annealing_softmax"

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return the softmax of the means at the present temperature."""
        inverse_tau = math.log(1.0 + max(int(stats.pulls.sum()), 0) + 1e-7)
        return softmax(means(stats), inverse_tau)
