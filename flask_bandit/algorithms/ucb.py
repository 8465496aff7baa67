"""Upper confidence bounds: the arm that could be best, judged by what is known of it.

All three show each arm once before they judge. Between two updates they always choose the same
arm, so they suffer where rewards come late.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import ConfigurationError
from ..model import FloatArray, Stats
from .base import Policy, argmax_ties

_FEW = 12
_TINY = 1e-15


class _UpperBoundPolicy(Policy):
    """Probability 1 on the largest upper bound, ties shared; arms without a pull come first."""

    reward_range = (0.0, 1.0)

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return 1 for the arm with the largest upper bound."""
        if np.minimum.reduce(stats.pulls) <= 0:
            return argmax_ties((stats.pulls <= 0).astype(np.float64))
        pulls = stats.pulls.astype(np.float64)
        return argmax_ties(self._scores(stats, pulls, math.log(max(1.0, np.add.reduce(pulls)))))

    def upper_bounds(self, stats: Stats, pulls: FloatArray, log_t: float) -> FloatArray:
        """Return the bounds, shape (K,).

        :param pulls: the arms' pulls as floats, each above 0
        :param log_t: logarithm of their sum, at least 0: discounted pulls may sum to less than 1
        """
        raise NotImplementedError

    def _scores(self, stats: Stats, pulls: FloatArray, log_t: float) -> FloatArray:
        """Return the bounds; those that are not the largest may be rough, but not larger."""
        return self.upper_bounds(stats, pulls, log_t)


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
        result: FloatArray = mean + np.sqrt(per_pull * np.minimum(np.maximum(variance, 0.0), 0.25))
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
        mean = np.minimum(np.maximum(stats.reward / pulls, 0.0), 1.0)
        return kl_upper_bound(mean, self._budget(log_t) / pulls)

    def _scores(self, stats: Stats, pulls: FloatArray, log_t: float) -> FloatArray:
        budget = self._budget(log_t)
        if pulls.size <= _FEW:  # plain floats are faster than arrays so short
            sums = zip(stats.reward.tolist(), pulls.tolist(), strict=True)
            return _scores_of_few((reward / n, budget / n) for reward, n in sums)
        mean = np.minimum(np.maximum(stats.reward / pulls, 0.0), 1.0)
        divergence = budget / pulls
        bounds = _simple_bound(mean, divergence)
        first = int(bounds.argmax())
        exact = _kl_upper_bound(float(mean[first]), float(divergence[first]), 0.0)
        (rows,) = (bounds >= exact).nonzero()
        mean, divergence = mean[rows], divergence[rows]
        if rows.size <= _FEW:
            pairs = zip(mean.tolist(), divergence.tolist(), strict=True)
            bounds[rows] = _scores_of_few(pairs)
        else:
            bounds[rows] = kl_upper_bound(mean, divergence)
        return bounds

    def _budget(self, log_t: float) -> float:
        return log_t + self.c * math.log(max(log_t, 1.0))


def kl_upper_bound(mean: FloatArray, divergence: FloatArray) -> FloatArray:
    """Return the largest q in [mean, 1] with kl(mean, q) <= divergence, shape (K,).

    Newton's method on a convex function, from above: each step stays above the root and nearer.
    """
    p = np.minimum(np.maximum(mean, _TINY), 1.0 - _TINY)
    entropy = p * np.log(p) + (1.0 - p) * np.log1p(-p)
    near_one = -np.expm1((entropy - divergence) / (1.0 - p))
    q = np.minimum(np.minimum(_simple_bound(p, divergence), near_one), 1.0 - _TINY)
    for _ in range(50):
        excess = entropy - p * np.log(q) - (1.0 - p) * np.log1p(-q) - divergence
        # At q = p the slope is 0 and so is the excess.
        step = excess * q * (1.0 - q) / np.maximum(q - p, 1e-300)
        q = np.maximum(q - np.maximum(step, 0.0), p)
        if np.maximum.reduce(step) < 1e-9:
            break
    return np.maximum(q, mean)


def _scores_of_few(pairs: Iterable[tuple[float, float]]) -> FloatArray:
    """Return the bounds of (mean, divergence); those that are not the largest may be rough."""
    bounds, best = [], 0.0
    for mean, divergence in pairs:
        bounds.append(_kl_upper_bound(min(max(mean, 0.0), 1.0), divergence, best))
        best = max(best, bounds[-1])
    return np.array(bounds)


def _kl_upper_bound(mean: float, divergence: float, best: float) -> float:
    """Return the same for one arm, or a limit of it that is already below ``best``."""
    low_rates = divergence + math.sqrt(divergence * (divergence + 2.0 * mean))
    q = mean + min(math.sqrt(0.5 * divergence), low_rates)
    if q < best:
        return q
    p = min(max(mean, _TINY), 1.0 - _TINY)
    rest = 1.0 - p
    entropy = p * math.log(p) + rest * math.log1p(-p) - divergence
    q = min(q, -math.expm1(entropy / rest), 1.0 - _TINY)
    for _ in range(50):
        if not p < q >= best:
            break
        step = (entropy - p * math.log(q) - rest * math.log1p(-q)) * q * (1.0 - q) / (q - p)
        q -= max(step, 0.0)
        if step < 1e-9:
            break
    return max(q, mean)


def _simple_bound(mean: FloatArray, divergence: FloatArray) -> FloatArray:
    """Return a q that is not below the bound, since kl(p, q) >= max(2 (q - p)^2, (q - p)^2 / 2q).

    The first is Pinsker's inequality, the second is sharp where rates are low.
    """
    low_rates = divergence + np.sqrt(divergence * (divergence + 2.0 * mean))
    result: FloatArray = mean + np.minimum(np.sqrt(0.5 * divergence), low_rates)
    return result
