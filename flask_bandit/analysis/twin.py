"""What one arm for everybody would have earned, from decisions that were made by context.

An arm is shown to those who like it, so what it earned says little about all others: each decision
counts one over its probability instead. Pure; must not import Flask or a storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..model import FloatArray
from .digest import PULLS, REWARDS, Span
from .distributions import normal_quantile
from .posteriors import NormalPosterior
from .results import WEIGHTED, Interval, Twin
from .sequences import FEWEST_REWARDS

if TYPE_CHECKING:
    from .reading import Question

_TINY = 1e-300


@dataclass(frozen=True)
class Weighted:
    """What decisions of known probability say about K arms, each shown to everybody.

    For a decision with the arm a, the probability p and the reward r ::

        V_a     = sum of r / p, divided by sum of 1 / p
        error^2 = sum of (r - V_a)^2 / p^2, divided by (sum of 1 / p)^2

    which are the self-normalised estimate and its delta-method error (Owen 2013, "Monte Carlo
    theory, methods and examples", section 9.2). No decision is for two arms, so the estimates of
    two arms are all but independent. Approximations: estimates are taken for normal, and decisions
    for independent, so that visitors who come very often make the errors too small; where rates
    drift, V_a is a mean over the times when the arm could be shown.

    :param arms: the K arms
    :param moments: sums of r^i / p^j, shape (3, 3, K)
    :param counts: decisions and rewards of each arm, shape (2, K)
    :param whole: number, sum and sum of squares of the rewards of all decisions, also for arms
        that are gone, shape (3,)
    """

    arms: tuple[str, ...]
    moments: FloatArray
    counts: FloatArray
    whole: FloatArray

    @classmethod
    def of(cls, spans: list[Span], arms: tuple[str, ...]) -> Weighted:
        """Add up spans whose decisions can earn nothing more."""
        moments, counts = np.zeros((3, 3, len(arms))), np.zeros((2, len(arms)))
        whole = np.zeros(3)
        for span in spans:
            for arm, row in span.arms.items():
                cell = np.array([[row.moment(i, j) for j in range(3)] for i in range(3)])
                whole += cell[:, 0]
                if arm in arms:
                    place = arms.index(arm)
                    moments[:, :, place] += cell
                    counts[:, place] += row.sums[PULLS], row.sums[REWARDS]
        return cls(arms, moments, counts, whole)

    @cached_property
    def mean(self) -> FloatArray:
        """V_a, shape (K,); 0 where an arm has no decision."""
        return self._per_weight(self.moments[1, 1])

    @cached_property
    def error(self) -> FloatArray:
        """The standard error of V_a, shape (K,)."""
        result: FloatArray = np.sqrt(np.maximum(self._squares, 0.0))
        return result

    @property
    def earned(self) -> float:
        """Reward per decision, as it was."""
        return float(self.whole[1] / max(self.whole[0], 1.0))

    @property
    def rewards(self) -> FloatArray:
        """How many rewards of unweighted decisions would say as much, shape (K,).

        Those of the arm, times the effective share of its decisions (Kish 1965).
        """
        pulls, rewards = self.counts
        effective = self.moments[0, 1] ** 2 / np.maximum(self.moments[0, 2], _TINY)
        result: FloatArray = rewards * effective / np.maximum(pulls, 1.0)
        return result

    @property
    def is_ripe(self) -> npt.NDArray[np.bool_]:
        """Where an arm has enough rewards for its estimate to be near to normal."""
        result: npt.NDArray[np.bool_] = (self.rewards >= FEWEST_REWARDS) & (self.error > 0.0)
        return result

    def ripe(self) -> Weighted:
        """Return the same without the arms that have too few rewards."""
        kept = self.is_ripe
        return Weighted(
            tuple(arm for arm, is_kept in zip(self.arms, kept, strict=True) if is_kept),
            self.moments[:, :, kept],
            self.counts[:, kept],
            self.whole,
        )

    def lacking(self) -> str:
        """Say which arm has too few rewards; empty if none has."""
        if self.is_ripe.all():
            return ""
        poorest = int(np.where(self.is_ripe, np.inf, self.rewards).argmin())
        return (
            f"{self.arms[poorest]} has the weight of {int(self.rewards[poorest])} of the "
            f"{FEWEST_REWARDS} rewards that it needs"
        )

    def posterior(self) -> NormalPosterior:
        """Return what is believed of the arms, all of them ripe."""
        return NormalPosterior(self.mean, self.error)

    def beyond(self, shares: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return how much more was earned per decision than with fixed shares, and its error.

        A decision takes part in both sides, which the error allows for.

        :param shares: of the arms, each row summing to 1, shape (N, K)
        :return: two of shape (N,)
        """
        n, earned, mean, m = max(self.whole[0], 1.0), self.earned, self.mean, self.moments
        own = float(self.whole[2] - n * earned * earned) / n**2
        product = m[2, 1] - (earned + mean) * m[1, 1] + earned * mean * m[0, 1]
        both = self._per_weight(product) / n
        variance = own - 2.0 * shares @ both + shares**2 @ self._squares
        return earned - shares @ mean, np.sqrt(np.maximum(variance, 0.0))

    @cached_property
    def _squares(self) -> FloatArray:
        m, mean = self.moments, self.mean
        return self._per_weight(
            self._per_weight(m[2, 2] - 2.0 * mean * m[1, 2] + mean * mean * m[0, 2])
        )

    def _per_weight(self, sums: FloatArray) -> FloatArray:
        result: FloatArray = sums / np.maximum(self.moments[0, 1], _TINY)
        return result


def compare(
    weighted: Weighted | None, question: Question, is_binary: bool
) -> tuple[Twin | None, str]:
    """Return the non-contextual twin, or else why it is not known.

    Its value is the sum of P_a V_a, P_a being the probability that V_a is the largest. Which arm
    is best was looked for in the same decisions, so the intervals are not around that sum: the
    best arm's mean is at most the largest of the upper ends that hold for one arm, and at least
    the largest of the lower ends that hold for all arms together (Bonferroni), and likewise for
    the difference. So they miss the truth in at most 5 % of all cases, as far as the estimates are
    normal, and in fewer where several arms are alike.

    :param weighted: ``None`` for a bandit without contexts
    """
    if weighted is None:
        return None, ""
    if not weighted.whole[0]:
        return None, "Not known yet: no decision with a known probability can earn nothing more."
    found = weighted.ripe()
    if not found.arms:
        return None, f"Not known yet: {weighted.lacking()}."
    chances = found.posterior().chances()
    value = float(chances @ found.mean)
    level, k = question.confidence, len(found.arms)
    one, all_ = normal_quantile(1.0 - question.alpha / np.array([2.0, 2.0 * k]))
    low, high = found.mean - all_ * found.error, found.mean + one * found.error
    apart, error = found.beyond(np.eye(k))
    least, most = (apart - one * error).min(), (apart + all_ * error).min()
    best = found.arms[int(chances.argmax())]
    twin = _interval(value, low.max(), high.max(), level)
    difference = _interval(found.earned - value, least, most, level)
    left_out = tuple(arm for arm in weighted.arms if arm not in found.arms)
    sentence = _sentence(best, found.earned, twin, difference, is_binary)
    if left_out:
        sentence += f" Left out, with too few rewards: {', '.join(left_out)}."
    return Twin(best, found.earned, twin, difference, left_out, sentence), ""


def _interval(estimate: float, low: float, high: float, level: float) -> Interval:
    """Return an interval that holds its estimate too."""
    low, high = min(float(low), estimate), max(float(high), estimate)
    return Interval(estimate, low, high, level, WEIGHTED)


def _sentence(
    best: str, earned: float, value: Interval, difference: Interval, is_binary: bool
) -> str:
    def write(rate: float) -> str:
        return f"{100.0 * rate:.3g} %" if is_binary else f"{rate:.4g}"

    it, other = write(earned), write(value.estimate)
    if difference.low > 0.0:
        return (
            f"Choosing by context is worth it: it earned {it} per decision, and {best} for "
            f"everybody would have earned {other}."
        )
    if difference.high < 0.0:
        return (
            f"{best} for everybody would have earned more than choosing by context did: {other} "
            f"per decision, and not {it}."
        )
    most = f"{difference.high:.2g}"
    if is_binary:
        most = f"{100.0 * difference.high:.2g} percentage points"
    return (
        f"{best} for everybody does as well as choosing by context, as far as can be told: {other} "
        f"per decision, against {it}. By context it may be up to {most} more."
    )
