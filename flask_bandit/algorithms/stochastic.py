"""Naive stochastic: traffic in proportion to the mean reward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..model import FloatArray, Stats
from .base import Policy, means, uniform


class NaiveStochasticPolicy(Policy):
    """p proportional to the mean reward; uniform while there is none.

    Easy to explain and slow: with rates of 5 % and 10 % the worse arm keeps a third of the traffic
    for ever, so the regret is linear; and an arm that has earned nothing gets no more than the
    floor once another has. Kept for those who come from Flask-MAB.
    """

    name = "naive_stochastic"
    reward_range = (0.0, math.inf)

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return the means divided by their sum."""
        weights = np.maximum(means(stats), 0.0)
        largest = weights.max()
        if largest <= 0.0:
            return uniform(len(stats.arms))
        weights = weights / largest  # the sum of huge means must not overflow
        result: FloatArray = weights / weights.sum()
        return result
