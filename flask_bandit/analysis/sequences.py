"""What the logged probabilities tell of the arms, valid however often one looks.

Sums of g_a = q_a + 1[A = a] (r - q_a) / p_a, whose mean is the arm's whatever the policy does,
and a normal mixture's boundary around them. Pure; must not import Flask or a storage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..model import FloatArray
from .digest import OFFERED, REWARDS, ArmRow, Span, moment

LEAST_CHANCE = 0.05
"""No sequence where an arm was ever less probable: its sums would hang on a few decisions."""
FEWEST_REWARDS = 20
"""Nothing is decided before each arm has so many: the boundary is for sums near to normal."""
RHO_DECISIONS = 2000.0
"""Where the boundary is narrowest, in decisions that each add their mean square to V."""

_MOMENTS = [moment(i, j) for i in range(3) for j in range(3)]


@dataclass(frozen=True, slots=True)
class Sequence:
    """The sums of K arms over a number of decisions.

    :param decisions: of any arm, with known probabilities
    :param sums: S_a, the sum of g_a, shape (K,)
    :param squares: W_a, the sum of 1[A = a] (r - q_a)^2 / p_a^2, shape (K,)
    :param gain: sum of Y = r - mean of all g_a, what was earned beyond an equal split
    :param gain_sq: sum of Y^2
    :param rewards: rewards counted for each arm, shape (K,)
    :param rho: of the boundary
    """

    decisions: int
    sums: FloatArray
    squares: FloatArray
    gain: float
    gain_sq: float
    rewards: FloatArray
    rho: float

    @property
    def is_ripe(self) -> bool:
        """True if each arm has enough rewards for the boundary to hold."""
        return bool(self.decisions) and self.rewards.min() >= FEWEST_REWARDS

    def difference(self, one: int, other: int, alpha: float) -> tuple[float, float]:
        """Return how much more an arm earns per decision than another, and how far off it may be.

        :param alpha: probability that the truth is ever further off
        """
        variance = float(self.squares[one] + self.squares[other])
        reach = float(boundary(variance, self.rho, alpha))
        return float(self.sums[one] - self.sums[other]) / self.decisions, reach / self.decisions

    def decides(self, alpha: float, scale: float = 1.0) -> int | None:
        """Return which arm is the best by the test, if it tells.

        A wrong arm beats the best one in one of K - 1 pairs, each with a two-sided boundary, so
        that alpha / (K - 1) for a pair is enough for all.

        :param scale: as if there were so many times as many decisions, all like those there are
        """
        best, k = int(self.sums.argmax()), self.sums.size
        if not self.decisions or scale * float(self.rewards.min()) < FEWEST_REWARDS:
            return None
        others = np.arange(k) != best
        ahead = scale * (self.sums[best] - self.sums[others])
        variance = scale * (self.squares[best] + self.squares[others])
        is_ahead = ahead > boundary(variance, self.rho, alpha / (k - 1))
        return best if is_ahead.all() else None


def boundary(variance: FloatArray | float, rho: float, alpha: float) -> FloatArray:
    """Return what a sum's error ever exceeds with a probability of about alpha.

    Two-sided normal mixture: Robbins 1970, "Statistical methods related to the law of the
    iterated logarithm"; Howard et al. 2021, "Time-uniform, nonparametric, nonasymptotic confidence
    sequences", with an empirical variance.

    :param variance: V, the sum of squares
    """
    total = np.asarray(variance) + rho
    result: FloatArray = np.sqrt(total * np.log(total / (rho * alpha * alpha)))
    return result


def is_offered(span: Span, arms: Iterable[str]) -> bool:
    """Tell whether each arm had a probability that is large enough, all the time of a span."""
    rows = (span.arms.get(arm) for arm in arms)
    return all(
        row is not None and row.sums[OFFERED] >= span.vectors and row.least >= LEAST_CHANCE - 1e-9
        for row in rows
    )


def mature(spans: Iterable[Span], window: float | None) -> list[Span]:
    """Return the spans whose decisions can earn nothing more, all those without a window."""
    return [s for s in spans if window is None or s.end + window <= s.read_at]


def sequence(spans: list[Span], arms: tuple[str, ...]) -> Sequence:
    """Add up the spans, in order of time.

    q_a is the arm's mean of the spans before, the mean of all arms where it has none, and 0 in
    the first span: known before the decision, so that the mean of g_a is the arm's.
    """
    cells = np.zeros((len(spans), len(arms), 9))
    # Of arms that are gone, only what they earned: they take no part in an equal split.
    gone = np.zeros((len(spans), 3))
    rewards = np.zeros(len(arms))
    known = np.array([span.known for span in spans], dtype=np.float64)
    for t, span in enumerate(spans):
        for arm, row in span.arms.items():
            if arm in arms:
                cells[t, arms.index(arm)] = _moments(row)
                rewards[arms.index(arm)] += row.sums[REWARDS]
            else:
                gone[t] += _moments(row)[[0, 3, 6]]
    m = np.moveaxis(cells.reshape(len(spans), len(arms), 3, 3), (2, 3), (0, 1))
    q = _means_before(m[0, 0], m[1, 0])
    squares = m[2, 2] - 2.0 * q * m[1, 2] + q * q * m[0, 2]
    gain, gain_sq = _gains(m, q, gone)
    mean_square = (float(m[2, 0].sum()) + float(gone[:, 2].sum())) / max(known.sum(), 1.0)
    return Sequence(
        decisions=int(known.sum()),
        sums=(known[:, None] * q + m[1, 1] - q * m[0, 1]).sum(axis=0),
        squares=np.maximum(squares.sum(axis=0), 0.0),
        gain=gain,
        gain_sq=max(gain_sq, 0.0),
        rewards=rewards,
        rho=max(RHO_DECISIONS * mean_square, math.ulp(0.0)),
    )


def _moments(row: ArmRow) -> FloatArray:
    return np.array([row.sums[place] for place in _MOMENTS])


def _means_before(pulls: FloatArray, reward: FloatArray) -> FloatArray:
    """Return each arm's mean over the spans before each span, shape (T, K)."""
    n, r = np.cumsum(pulls, axis=0) - pulls, np.cumsum(reward, axis=0) - reward
    pooled = r.sum(axis=1, keepdims=True) / np.maximum(n.sum(axis=1, keepdims=True), 1.0)
    result: FloatArray = np.where(n > 0.0, r / np.maximum(n, 1.0), pooled)
    return result


def _gains(m: FloatArray, q: FloatArray, gone: FloatArray) -> tuple[float, float]:
    """Return the sums of Y = r (1 - 1 / (K p)) - mean q + q_A / (K p) and of its square."""
    k = q.shape[1]
    # Inverse probabilities come with the share that an equal split gives to an arm.
    w = m / np.array([1.0, k, k * k])[:, None, None]
    mean = q.mean(axis=1, keepdims=True)
    total = w[1, 0] - w[1, 1] - mean * w[0, 0] + q * w[0, 1]
    square = w[2, 0] - 2.0 * w[2, 1] + w[2, 2]
    cross = -mean * w[1, 0] + (q + mean) * w[1, 1] - q * w[1, 2]
    rest = mean * mean * w[0, 0] - 2.0 * mean * q * w[0, 1] + q * q * w[0, 2]
    n, reward, reward_sq = gone.T
    base = mean[:, 0]
    gone_sq = reward_sq - 2.0 * base * reward + base * base * n
    return (
        float(total.sum() + (reward - base * n).sum()),
        float((square + 2.0 * cross + rest).sum() + gone_sq.sum()),
    )
