"""What the logged probabilities tell of the arms, valid however often one looks.

Sums of g_a = q_a + 1[A = a] (r - q_a) / p_a, whose mean is the arm's whatever the policy does,
and a normal mixture's boundary around them. Pure; must not import Flask or a storage.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..model import FloatArray
from .digest import CHANCE, OFFERED, REWARDS, Span

LEAST_CHANCE = 0.05
"""Where an arm was ever less probable, sums without weights would hang on a few decisions."""
FEWEST_REWARDS = 20
"""Nothing is decided before each arm has so many: the boundary is for sums near to normal."""
PAIR_RHO, GAIN_RHO = 150.0, 2000.0
"""Where the boundaries are narrowest: times the mean square of a reward, they are V."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """What decisions with known probabilities say about K arms.

    Decisions count with a weight w = p_i p_j / (p_i + p_j), from the mean probabilities of the span
    before: much where both arms of the pair were shown often. So no single decision counts for
    many, however improbable, and for rates that are steady none of the evidence is lost.

    :param ahead: X_ij = sum of w (g_i - g_j), shape (K, K)
    :param squares: V_ij = sum of w^2 (g_i - g_j - q_i + q_j)^2, shape (K, K)
    :param weights: sum of w, shape (K, K)
    :param rewards: rewards counted for each arm, shape (K,)
    :param gain: sum of Y = r - mean of all g_a, what was earned beyond an equal split
    :param gain_sq: sum of Y^2
    :param is_floored: no arm was ever less probable than :data:`LEAST_CHANCE`
    :param mean_square: of a decision's reward
    """

    ahead: FloatArray
    squares: FloatArray
    weights: FloatArray
    rewards: FloatArray
    gain: float
    gain_sq: float
    is_floored: bool
    mean_square: float

    @property
    def is_ripe(self) -> bool:
        """True if each arm has enough rewards for the boundary to hold."""
        return bool(self.rewards.min() >= FEWEST_REWARDS)

    def difference(self, one: int, other: int, alpha: float) -> tuple[float, float]:
        """Return how much more an arm earns per decision than another, and how far off it may be.

        The mean over time by the weights w; for steady rates, simply the difference.

        :param alpha: probability that the truth is ever further off
        """
        reach = boundary(self.squares[one, other], PAIR_RHO * self.mean_square, alpha)
        weight = float(self.weights[one, other])
        return float(self.ahead[one, other]) / weight, float(reach) / weight

    def gained(self, alpha: float) -> tuple[float, float]:
        """Return the gain over an equal split, and how far off it may be."""
        return self.gain, float(boundary(self.gain_sq, GAIN_RHO * self.mean_square, alpha))

    def decides(self, alpha: float, scale: float = 1.0) -> int | None:
        """Return which arm is the best by the test, if it tells.

        If an arm that was never better than the best one is said to be best, then it beats that
        one in one of K - 1 pairs, each with a two-sided boundary: alpha / (K - 1) for a pair is
        enough for all.

        :param scale: as if there were so many times as many decisions, all like those there are
        """
        k = self.rewards.size
        if scale * float(self.rewards.min()) < FEWEST_REWARDS:
            return None
        reach = boundary(scale * self.squares, PAIR_RHO * self.mean_square, alpha / (k - 1))
        is_ahead = (scale * self.ahead > reach) | np.eye(k, dtype=bool)
        best = np.flatnonzero(is_ahead.all(axis=1))
        return int(best[0]) if best.size else None


def boundary(variance: FloatArray | float, rho: FloatArray | float, alpha: float) -> FloatArray:
    """Return what a sum's error ever exceeds with a probability of about alpha.

    Two-sided normal mixture: Robbins 1970, "Statistical methods related to the law of the
    iterated logarithm"; Howard et al. 2021, "Time-uniform, nonparametric, nonasymptotic confidence
    sequences", with an empirical variance.

    :param variance: V, the sum of squares
    """
    total = np.asarray(variance) + rho
    result: FloatArray = np.sqrt(total * np.log(total / (rho * alpha * alpha)))
    return result


def mature(spans: Iterable[Span], window: float | None) -> list[Span]:
    """Return the spans whose decisions can earn nothing more, all those without a window."""
    return [s for s in spans if window is None or s.end + window <= s.read_at]


def sequence(spans: list[Span], arms: tuple[str, ...]) -> Sequence | None:
    """Add up the spans, in order of time.

    q_a is the arm's mean of the spans before, the mean of all arms where it has none, and 0 in
    the first span. It is known before the decision, so that the mean of g_a is the arm's. A pair
    is compared in spans that offered both arms to everybody.

    :return: ``None`` where a pair of arms was never offered together
    """
    chances, is_offered, is_floored = _offers(spans, arms)
    weights = _weights(chances, is_offered)
    known = np.array([span.known for span in spans], dtype=np.float64)
    total = np.einsum("t,tij->ij", known, weights)
    if not total[~np.eye(len(arms), dtype=bool)].all():
        return None
    m, gone = _moments(spans, arms)
    q = _means_before(m[0, 0], m[1, 0])
    sums = known[:, None] * q + m[1, 1] - q * m[0, 1]
    squares = np.maximum(m[2, 2] - 2.0 * q * m[1, 2] + q * q * m[0, 2], 0.0)
    gain, gain_sq = _gains(m, q, gone)
    rows = [[span.arms.get(arm) for arm in arms] for span in spans]
    return Sequence(
        ahead=(weights * (sums[:, :, None] - sums[:, None, :])).sum(axis=0),
        squares=(weights**2 * (squares[:, :, None] + squares[:, None, :])).sum(axis=0),
        weights=total,
        rewards=np.array([[r.sums[REWARDS] if r else 0.0 for r in row] for row in rows]).sum(0),
        gain=gain,
        gain_sq=max(gain_sq, 0.0),
        is_floored=is_floored,
        mean_square=max(float(m[2, 0].sum() + gone[2].sum()) / float(known.sum()), 1e-300),
    )


def _offers(
    spans: list[Span], arms: tuple[str, ...]
) -> tuple[FloatArray, npt.NDArray[np.bool_], bool]:
    """Return mean probabilities, and where an arm was offered to everybody, each (T, K).

    And whether all arms were, always with a probability that is large enough.
    """
    chances = np.zeros((len(spans), len(arms)))
    least = np.zeros((len(spans), len(arms)))
    for t, span in enumerate(spans):
        for place, arm in enumerate(arms):
            row = span.arms.get(arm)
            if row and span.vectors:
                chances[t, place] = row.sums[CHANCE] / span.vectors
                least[t, place] = row.least if row.sums[OFFERED] >= span.vectors else 0.0
    return chances, least > 0.0, bool((least >= LEAST_CHANCE - 1e-9).all())


def _weights(chances: FloatArray, is_offered: npt.NDArray[np.bool_]) -> FloatArray:
    """Return p_i p_j / (p_i + p_j) by the span before, shape (T, K, K); equal chances at first."""
    before = np.roll(chances, 1, axis=0)
    before[:1] = 1.0 / chances.shape[1]
    # A new arm had no probability yet, and one that was not logged is not known.
    before[before <= 0.0] = 1.0 / chances.shape[1]
    one, other = before[:, :, None], before[:, None, :]
    both = is_offered[:, :, None] & is_offered[:, None, :]
    return np.where(both, one * other / (one + other), 0.0)


def _moments(spans: list[Span], arms: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
    """Return the sums of r^i / p^j, shape (3, 3, T, K), and those of r^i for all other arms."""
    cells = np.zeros((3, 3, len(spans), len(arms)))
    gone = np.zeros((3, len(spans)))
    for t, span in enumerate(spans):
        for arm, row in span.arms.items():
            values = np.array([[row.moment(i, j) for j in range(3)] for i in range(3)])
            if arm in arms:
                cells[:, :, t, arms.index(arm)] = values
            else:
                gone[:, t] += values[:, 0]
    return cells, gone


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
    # Those who saw an arm that is gone earned something, and it takes no part in an equal split.
    n, reward, reward_sq = gone
    base = mean[:, 0]
    gone_sq = reward_sq - 2.0 * base * reward + base * base * n
    return (
        float(total.sum() + (reward - base * n).sum()),
        float((square + 2.0 * cross + rest).sum() + gone_sq.sum()),
    )
