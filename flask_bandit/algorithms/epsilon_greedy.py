"""Epsilon-greedy: mostly the best mean so far, sometimes any arm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError
from ..model import FloatArray, Stats
from .base import (
    ArmSums,
    Policy,
    argmax_ties,
    few_argmax_ties,
    few_means,
    means,
    with_floor,
)


class EpsilonGreedyPolicy(Policy):
    """The best mean with probability 1 - epsilon, and uniform with probability epsilon.

    p = (1 - epsilon) [arm has the largest mean, ties shared] + epsilon / K. Simple and hard to
    break; it never stops exploring, so its regret grows linearly, by about epsilon times the mean
    gap per decision. Sutton and Barto 2018, section 2.2.

    :param epsilon: share of the traffic that explores, in [0, 1]
    :raises ConfigurationError: epsilon is outside [0, 1]
    """

    name = "epsilon_greedy"

    def __init__(self, epsilon: float = 0.1) -> None:
        if not isinstance(epsilon, (int, float)) or not 0.0 <= epsilon <= 1.0:
            raise ConfigurationError(f"epsilon is {epsilon!r}; write a share from 0 to 1")
        self.epsilon = float(epsilon)

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return the mixture of the best arm and the uniform one."""
        return with_floor(argmax_ties(means(stats)), self.epsilon)

    def propensities_of_few(self, rows: list[ArmSums]) -> list[float]:
        """Return the same from plain sums."""
        return few_argmax_ties(few_means(rows), self.epsilon)


class AnnealingEpsilonGreedyPolicy(Policy):
    """Epsilon-greedy that explores less and less: epsilon = min(1, 1 / log(t + 1e-7)).

    t is one more than the number of decisions so far. White 2012, "Bandit Algorithms for Website
    Optimization", chapter 3. Its regret is not known to be logarithmic; Auer et al. 2002 prove
    that for epsilon of order 1/t.
    """

    name = "annealing_epsilon_greedy"

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return the mixture of the best arm and the uniform one."""
        return with_floor(argmax_ties(means(stats)), self._epsilon(int(stats.pulls.sum())))

    def propensities_of_few(self, rows: list[ArmSums]) -> list[float]:
        """Return the same from plain sums."""
        pulls = sum(int(row.get("pulls", 0)) for row in rows)
        return few_argmax_ties(few_means(rows), self._epsilon(pulls))

    def _epsilon(self, pulls: int) -> float:
        return min(1.0, 1.0 / math.log(1.0 + max(pulls, 0) + 1e-7))
