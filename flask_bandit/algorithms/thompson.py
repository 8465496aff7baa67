"""Thompson sampling, with the exact probabilities that its random draws would have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import ConfigurationError
from ..model import FloatArray, Stats
from .base import Policy, uniform
from .winning import Posteriors, normal_posteriors, winning_probabilities

_HALF = 0.5 * math.log(2.0 * math.pi)
_FEW = 12


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
        noise = (within + spread) / (max(total - np.count_nonzero(pulls), 0.0) + 1.0)
        noise = max(noise, 1e-12 * spread)
        precision = 1.0 / spread + pulls / noise
        mean = (pooled / spread + reward / noise) / precision
        return winning_probabilities(normal_posteriors(mean, 1.0 / np.sqrt(precision)))


def _beta_posteriors(a: FloatArray, b: FloatArray) -> Posteriors:
    """Return Beta(a, b) on the axis t = log(x / (1 - x)), where it is smooth up to its ends."""
    scale, low, high, *peak = _per_arm(_beta_shape, a, b)

    def log_density(points: FloatArray, floor: float) -> tuple[FloatArray, FloatArray]:
        # log f = log peak + a (t - mode) - n (softplus(t) - softplus(mode)); relative to the
        # floor, which keeps the terms small and so the digits.
        softplus = math.log1p(math.exp(-abs(floor))) + max(floor, 0.0)
        basis = np.empty((3, points.size))
        np.subtract(points, floor, out=basis[0])
        np.subtract(np.logaddexp(0.0, points), softplus, out=basis[1])
        basis[2] = 1.0

        def terms(_: Any, a: Any, b: Any, mode: Any, mode_softplus: Any, log_peak: Any) -> Any:
            n = a + b
            constant = log_peak + a * (floor - mode) - n * (softplus - mode_softplus)
            return a, -n, constant

        return basis.T, _per_arm(terms, a, b, *peak)

    return Posteriors(scale, low, high, log_density)


def _beta_shape(m: Any, a: Any, b: Any) -> tuple[Any, ...]:
    """Return standard deviation, low and high end, mode, softplus(mode) and log peak."""
    n, odds = a + b, a / b
    mode = m.log(odds)
    scale = m.sqrt(n / a / b)
    # Normal in the middle, exponential with rates a and b at the ends.
    low, high = mode - 4.5 * scale - 12.0 / a, mode + 4.5 * scale + 12.0 / b
    # Of Gamma(n) / Gamma(a) / Gamma(b), what Stirling's formula leaves: no digits are lost.
    log_peak = _stirling(m, n) - _stirling(m, a) - _stirling(m, b) - _HALF - m.log(scale)
    return scale, low, high, mode, m.log1p(odds), log_peak


def _stirling(m: Any, x: Any) -> Any:
    """Return the logarithm of Gamma(x) / (sqrt(2 pi / x) (x / e)^x).

    Two steps of the recurrence, then the series (Abramowitz and Stegun 1964, 6.1.40).
    """
    up = x + 1.0
    inverse = 1.0 / (x + 2.0)
    square = inverse * inverse
    series = 1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0))
    steps = (x + 0.5) * m.log1p(1.0 / x) + (up + 0.5) * m.log1p(1.0 / up) - 2.0
    return steps + inverse * series


def _per_arm(formula: Callable[..., tuple[Any, ...]], *columns: FloatArray) -> FloatArray:
    """Apply a formula to all arms; its first argument is the module that has log and sqrt.

    Arm by arm in plain floats where they are few, since that is faster than arrays so short.
    """
    if columns[0].size > _FEW:
        rows = formula(np, *columns)
    else:
        arms = zip(*(column.tolist() for column in columns), strict=True)
        rows = tuple(zip(*(formula(math, *arm) for arm in arms), strict=True))
    return np.array(rows)
