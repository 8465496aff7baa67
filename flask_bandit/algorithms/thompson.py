"""Thompson sampling, with the exact probabilities that its random draws would have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ConfigurationError
from ..model import FloatArray, IntArray, Stats
from .base import Policy, uniform
from .winning import Posteriors, winning_probabilities

_LOG_2PI = math.log(2.0 * math.pi)
_HALF = 0.5 * _LOG_2PI


class ThompsonPolicy(Policy):
    """Each arm with the probability that it is the best one, for rewards in [0, 1].

    Posterior of an arm's rate: Beta(a + rewards, b + pulls - rewards), with the prior Beta(a, b).
    Recommended for most experiments: it needs no tuning, and late rewards do it little harm.

    Regret O(log T) (Kaufmann, Korda and Munos 2012). Thompson 1933, "On the likelihood that one
    unknown probability exceeds another in view of the evidence of two samples".

    :param prior: (a, b), both above 0; (1, 1) is uniform over all rates
    :raises ConfigurationError: the prior is not a pair of positive numbers
    """

    name = "thompson"
    reward_range = (0.0, 1.0)

    def __init__(self, prior: tuple[float, float] = (1.0, 1.0)) -> None:
        try:
            a, b = (float(part) for part in prior)
        except (TypeError, ValueError):
            a = b = math.nan
        if not (0.0 < a < math.inf and 0.0 < b < math.inf):
            raise ConfigurationError(
                f"prior is {prior!r}; write two numbers above 0, such as (1.0, 1.0)"
            )
        self.prior = (a, b)

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return each arm's probability of being the best, exact to 1e-3 and mostly far better."""
        if len(stats.arms) == 1:
            return uniform(1)
        reward = np.maximum(stats.reward, 0.0)
        failures = np.maximum(stats.pulls - reward, 0.0)
        a, b = self.prior
        return winning_probabilities(_beta_posteriors(a + reward, b + failures))


class GaussianThompsonPolicy(Policy):
    """Thompson sampling for rewards of any size, such as revenue.

    Posterior of an arm's mean: normal. Prior mean and variance are those of all pulls together,
    the noise is the variance within arms, so that the unit of the reward does not matter. A pull
    without a reward is an observation of 0.

    Regret O(log T) for a known variance (Agrawal and Goyal 2013, "Further optimal regret bounds
    for Thompson sampling").
    """

    name = "gaussian_thompson"

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return each arm's probability of having the largest mean."""
        k = len(stats.arms)
        pulls = stats.pulls.astype(np.float64)
        total = pulls.sum()
        if k == 1 or total == 0.0:
            return uniform(k)
        # In units of the largest magnitude, so that no square overflows or vanishes.
        unit = max(math.sqrt(float(stats.reward_sq.max())), float(np.abs(stats.reward).max()))
        if not 0.0 < unit < math.inf:
            return uniform(k)
        reward, squares = stats.reward / unit, stats.reward_sq / unit / unit
        pooled = reward.sum() / total
        spread = squares.sum() / total - pooled * pooled
        if spread <= 1e-12 * max(pooled * pooled, squares.sum() / total):
            return uniform(k)
        within = np.maximum(squares - reward * reward / np.maximum(pulls, 1.0), 0.0).sum()
        # One more observation with the pooled spread: a few equal rewards are no certainty.
        noise = (within + spread) / (total - np.count_nonzero(pulls) + 1.0)
        noise = max(noise, 1e-12 * spread)
        precision = 1.0 / spread + pulls / noise
        mean = (pooled / spread + reward / noise) / precision
        return winning_probabilities(_normal_posteriors(mean, 1.0 / np.sqrt(precision)))


def _beta_posteriors(a: FloatArray, b: FloatArray) -> Posteriors:
    """Return Beta(a, b) on the axis t = log(x / (1 - x)), where it is smooth up to its ends."""
    n = a + b
    odds = a / b
    mode = np.log(odds)
    mode_softplus = np.log1p(odds)
    scale = np.sqrt(n / (a * b))
    log_peak = _stirling_errors(a, b, n) - np.log(scale)

    def log_density(rows: IntArray, points: FloatArray, floor: float) -> FloatArray:
        # log f = log peak + a (t - mode) - n (softplus(t) - softplus(mode)), as one matrix
        # product; relative to the floor, which keeps the terms small and so the digits.
        softplus = np.logaddexp(0.0, points)
        floor_softplus = math.log1p(math.exp(-abs(floor))) + max(floor, 0.0)
        constant = log_peak + a * (floor - mode) - n * (floor_softplus - mode_softplus)
        terms = np.array((a, -n, constant))[:, rows].T
        basis = np.array((points - floor, softplus - floor_softplus, np.ones_like(points)))
        result: FloatArray = terms @ basis
        return result

    # Normal in the middle, exponential with rates a and b at the ends.
    reach = 4.5 * scale
    return Posteriors(scale, mode - (reach + 12.0 / a), mode + (reach + 12.0 / b), log_density)


def _normal_posteriors(mean: FloatArray, scale: FloatArray) -> Posteriors:
    def log_density(rows: IntArray, points: FloatArray, floor: float) -> FloatArray:
        precision = scale[rows] ** -2.0
        distance = floor - mean[rows]
        constant = -0.5 * (precision * distance * distance + _LOG_2PI) - np.log(scale[rows])
        shifted = points - floor
        terms = np.array((-0.5 * precision, -precision * distance, constant)).T
        result: FloatArray = terms @ np.array((shifted * shifted, shifted, np.ones_like(points)))
        return result

    reach = 5.0 * scale
    return Posteriors(scale, mean - reach, mean + reach, log_density)


def _stirling_errors(a: FloatArray, b: FloatArray, n: FloatArray) -> FloatArray:
    """Return what Stirling's formula leaves of log(Gamma(n) / Gamma(a) / Gamma(b) / sqrt(2 pi)).

    Unlike a difference of log Gammas it loses no digits at large counts.
    """
    if n.size <= 32:  # plain floats are faster than arrays this short
        rows = zip(a.tolist(), b.tolist(), n.tolist(), strict=True)
        return np.array([_stirling(z) - _stirling(x) - _stirling(y) - _HALF for x, y, z in rows])
    errors = _stirling_series(np.concatenate((n, a, b))).reshape(3, -1)
    result: FloatArray = errors[0] - errors[1] - errors[2] - _HALF
    return result


def _stirling(x: float) -> float:
    if x < 16.0:
        return math.lgamma(x) - (x - 0.5) * math.log(x) + x - _HALF
    square = 1.0 / (x * x)
    return (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0)) / x


def _stirling_series(x: FloatArray) -> FloatArray:
    """Two steps of the recurrence, then the series (Abramowitz and Stegun 1964, 6.1.40)."""
    up = x + 1.0
    steps = (x + 0.5) * np.log1p(1.0 / x) + (up + 0.5) * np.log1p(1.0 / up) - 2.0
    inverse = 1.0 / (up + 1.0)
    square = inverse * inverse
    result: FloatArray = steps + inverse * (
        1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0))
    )
    return result
