"""Upper confidence bounds: the arm that could be best, judged by what is known of it.

All three show each arm once before they judge. Between two updates they always choose the same
arm, so they suffer where rewards come late.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ConfigurationError
from ..model import FloatArray, Stats
from .base import Policy, argmax_ties


class _UpperBoundPolicy(Policy):
    """Probability 1 on the largest upper bound, ties shared; arms without a pull come first."""

    reward_range = (0.0, 1.0)

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return 1 for the arm with the largest upper bound."""
        unseen = stats.pulls <= 0
        if unseen.any():
            return argmax_ties(unseen.astype(np.float64))
        pulls = stats.pulls.astype(np.float64)
        return argmax_ties(self.upper_bounds(stats, pulls, math.log(pulls.sum())))

    def upper_bounds(self, stats: Stats, pulls: FloatArray, log_t: float) -> FloatArray:
        """Return the bounds, shape (K,).

        :param pulls: the arms' pulls as floats, each at least 1
        :param log_t: logarithm of their sum
        """
        raise NotImplementedError


class UCB1Policy(_UpperBoundPolicy):
    """mean + sqrt(2 ln t / n), for rewards in [0, 1].

    Regret at most 8 sum(ln T / gap) + O(K); in practice it explores far too much at click rates.
    Auer, Cesa-Bianchi and Fischer 2002, "Finite-time analysis of the multiarmed bandit problem",
    figure 1.
    """

    name = "ucb1"

    def upper_bounds(self, stats: Stats, pulls: FloatArray, log_t: float) -> FloatArray:
        """Return mean + sqrt(2 ln t / n)."""
        result: FloatArray = stats.reward / pulls + np.sqrt(2.0 * log_t / pulls)
        return result


class UCBTunedPolicy(_UpperBoundPolicy):
    """mean + sqrt(ln t / n min(1/4, variance + sqrt(2 ln t / n))), for rewards in [0, 1].

    Knows that a rate near 0 varies little, and is much better than UCB1 in practice; no regret
    bound is proven. Auer, Cesa-Bianchi and Fischer 2002, section 4.
    """

    name = "ucb_tuned"

    def upper_bounds(self, stats: Stats, pulls: FloatArray, log_t: float) -> FloatArray:
        """Return the bounds with the arms' own variance."""
        mean = stats.reward / pulls
        per_pull = log_t / pulls
        variance = stats.reward_sq / pulls - mean * mean + np.sqrt(2.0 * per_pull)
        result: FloatArray = mean + np.sqrt(per_pull * np.clip(variance, 0.0, 0.25))
        return result


class KLUCBPolicy(_UpperBoundPolicy):
    """The largest q with n kl(mean, q) <= ln t + c ln ln t, for rewards in [0, 1].

    kl is the relative entropy of two Bernoulli distributions. Regret asymptotically optimal for
    0/1 rewards: sum(gap ln T / kl). Garivier and Cappe 2011, "The KL-UCB algorithm for bounded
    stochastic bandits and beyond"; c = 3 in the proof, 0 recommended in practice.

    :param c: weight of the second term, at least 0
    :raises ConfigurationError: c is below 0
    """

    name = "kl_ucb"

    def __init__(self, c: float = 0.0) -> None:
        if not isinstance(c, (int, float)) or not 0.0 <= c < math.inf:
            raise ConfigurationError(f"c is {c!r}; write a number that is at least 0")
        self.c = float(c)

    def upper_bounds(self, stats: Stats, pulls: FloatArray, log_t: float) -> FloatArray:
        """Return the bounds, exact to 1e-9."""
        budget = log_t + self.c * math.log(max(log_t, 1.0))
        return kl_upper_bound(np.clip(stats.reward / pulls, 0.0, 1.0), budget / pulls)


def kl_upper_bound(mean: FloatArray, divergence: FloatArray) -> FloatArray:
    """Return the largest q in [mean, 1] with kl(mean, q) <= divergence, shape (K,).

    Newton's method on a convex function, from above: each step stays above the root and nearer.
    It starts at the smaller of two bounds, Pinsker's and one that is sharp near q = 1.
    """
    p = np.clip(mean, 1e-15, 1.0 - 1e-15)
    entropy = p * np.log(p) + (1.0 - p) * np.log1p(-p)
    q = np.minimum(
        p + np.sqrt(0.5 * divergence),
        -np.expm1((entropy - divergence) / (1.0 - p)),
    )
    q = np.minimum(q, 1.0 - 1e-15)
    for _ in range(50):
        excess = entropy - p * np.log(q) - (1.0 - p) * np.log1p(-q) - divergence
        # At q = p the slope is 0 and so is the excess.
        step = excess * q * (1.0 - q) / np.maximum(q - p, 1e-300)
        q = np.maximum(q - np.maximum(step, 0.0), p)
        if step.max() < 1e-9:
            break
    return np.maximum(q, mean)
