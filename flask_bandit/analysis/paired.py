"""Is a candidate better than the champion? Both are judged on the same logged decisions.

The doubly robust difference of each decision, so that what both have in common falls out. Pure;
must not import Flask or a storage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..model import FloatArray
from .clustered import ClusterSums, Estimate, quantile
from .estimators import ONE, over_strata
from .logged import Logged
from .ope import NO_DIFFERENCE, Strata, Stratum, checked_model, estimand
from .overlap import Overlap
from .reward_models import Model
from .targets import Target, logged_target

DIFFERENCE, CANDIDATE, CHAMPION, W, REWARD, APART, SURPRISE = range(1, 8)
SPREAD = 10.5
"""Mean square of the difference of two policies' weights: that of two which seldom agree, with five
arms logged uniformly."""


@dataclass(frozen=True)
class Paired:
    """A candidate against the champion, doubly robust, in reward per decision.

    :param decisions: that were used
    :param clusters: subjects, and decisions of anonymous visitors
    :param candidate: what it would have earned; ``None`` where it is refused
    :param champion: likewise
    :param difference: candidate - champion, with a two-sided 95 % interval; its error is at least
        what the spread of all rewards makes it, since an arm that was taken a few times and earned
        nothing would seem to be exactly known
    :param lower: one-sided bound: the difference is above it with probability 1 - alpha
    :param alpha: chance of an error that is allowed
    :param effective: effective sample size of the candidate, by clusters
    :param strata: the largest first
    :param estimand: what is estimated, in words
    :param warnings: what to be careful about
    :param refusals: why there is no estimate, and what to do
    """

    decisions: int
    clusters: int
    candidate: Estimate | None
    champion: Estimate | None
    difference: Estimate | None
    lower: float
    alpha: float
    effective: float
    strata: tuple[Stratum, ...]
    estimand: str
    warnings: tuple[str, ...]
    refusals: tuple[str, ...]

    def is_better(self, margin: float = 0.0) -> bool:
        """Return whether the candidate earns more by at least ``margin`` per decision."""
        return self.lower > margin

    def power(self, gain: float, margin: float = 0.0) -> float:
        """Return how probable a yes was, if the candidate truly earned ``gain`` more.

        :param gain: in reward per decision
        """
        if self.difference is None:
            return 0.0
        return chance_above(gain - margin, self.difference.error, self.alpha)


def compare(
    batches: Iterable[Logged],
    candidate: Target,
    champion: Target = logged_target,
    model: Model | None = None,
    *,
    alpha: float = 0.05,
) -> Paired:
    """Compare two policies on the same decisions.

    With w and w' the weights of the two, p and p' their probabilities: the mean of
    sum over arms of (p - p') q + (w - w') (r - q(arm taken)).

    :param candidate: what may be deployed
    :param champion: what is deployed; by default the logged policy itself
    :param model: expected rewards, cross-fitted; 0 without it
    :param alpha: chance of calling a candidate better that is not, above 0 and below 1
    :raises ValueError: ``alpha``, or what a policy or the model returned, cannot be used
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha is {alpha}; write a chance such as 0.05")
    reading = _Reading(candidate, champion, model)
    for batch in batches:
        reading.add(batch)
    return reading.result(alpha)


class _Reading:
    """Adds up batches."""

    def __init__(self, candidate: Target, champion: Target, model: Model | None) -> None:
        self._candidate, self._champion, self._model = candidate, champion, model
        self._of_candidate, self._of_champion = Overlap(), Overlap()
        self._sums, self._strata = ClusterSums(8), Strata()

    def add(self, batch: Logged) -> None:
        ours = self._of_candidate.add(batch, self._candidate)
        theirs = self._of_champion.add(batch, self._champion)
        expected = (
            np.zeros(batch.eligible.shape)
            if self._model is None
            else checked_model(self._model(batch), batch)
        )
        surprise = batch.reward - batch.taken(expected)
        rows: FloatArray = np.empty((len(batch), 8))
        rows[:, ONE] = 1.0
        rows[:, CANDIDATE] = (ours.chances * expected).sum(axis=1) + ours.weights * surprise
        rows[:, CHAMPION] = (theirs.chances * expected).sum(axis=1) + theirs.weights * surprise
        rows[:, DIFFERENCE] = rows[:, CANDIDATE] - rows[:, CHAMPION]
        rows[:, W] = ours.weights
        rows[:, REWARD] = batch.reward
        rows[:, APART] = (ours.weights - theirs.weights) ** 2
        rows[:, SURPRISE] = surprise**2
        self._sums.add(rows, batch, self._strata.of(batch))

    def result(self, alpha: float) -> Paired:
        sums, ours, theirs = self._sums, self._of_candidate, self._of_champion
        refusals = [f"Candidate: {text}" for text in ours.refusals()]
        refusals += [f"Champion: {text}" for text in theirs.refusals()]
        if not refusals and sums.clusters < 2:
            refusals.append("There is a single subject: its decisions show no standard error.")
        if not refusals and self._mean(REWARD).is_flat:
            refusals.append(f"{NO_DIFFERENCE}, so nothing tells the two apart: wait for rewards.")
        difference = None if refusals else self._difference()
        mean = self._mean(W) if sums.clusters >= 2 else None
        error = mean.error if mean else math.nan
        warnings = [f"Candidate: {text}" for text in ours.warnings(error)]
        warnings += [f"Champion: {text}" for text in theirs.warnings(error)]
        totals = sums.totals
        strata = tuple(self._strata.shares(totals))
        square = sums.square(W)
        return Paired(
            decisions=int(totals[:, ONE].sum()),
            clusters=sums.clusters,
            candidate=None if refusals else self._mean(CANDIDATE),
            champion=None if refusals else self._mean(CHAMPION),
            difference=difference,
            lower=-math.inf
            if difference is None
            else difference.value - quantile(1.0 - alpha) * difference.error,
            alpha=alpha,
            effective=float(totals[:, W].sum()) ** 2 / square if square else 0.0,
            strata=strata,
            estimand=estimand(strata, ours),
            warnings=tuple(warnings),
            refusals=tuple(refusals),
        )

    def _difference(self) -> Estimate:
        found = self._mean(DIFFERENCE)
        count, apart, surprise = self._sums.totals[:, [ONE, APART, SURPRISE]].sum(axis=0)
        least = math.sqrt(apart * surprise / count) / count
        return Estimate.of(found.value, max(found.error, least))

    def _mean(self, column: int) -> Estimate:
        totals = self._sums.totals
        value, gradient = over_strata(((column, ONE),), totals, [range(len(totals))])
        return Estimate.of(value, math.sqrt(self._sums.variance(gradient)))


def power(
    lift: float, base: float, decisions: float, alpha: float = 0.05, spread: float = SPREAD
) -> float:
    """Return how probable a yes is before there are data, for rewards of 0 or 1.

    :param lift: how much more the candidate earns, as a share of ``base``
    :param base: reward per decision of the champion
    :param decisions: independent ones that both are judged on
    :param alpha: chance of an error that is allowed
    :param spread: mean of (w - w')^2; 2 K for two policies that never agree, on a log with K arms
        of equal probability
    """
    error = math.sqrt(spread * base * (1.0 - base) / decisions)
    return chance_above(lift * base, error, alpha)


def chance_above(gain: float, error: float, alpha: float) -> float:
    """Return how probable it is that an estimate of ``gain`` clears its one-sided bound."""
    if not error > 0.0:
        return 1.0 if gain > 0.0 else 0.0
    return NormalDist().cdf(gain / error - quantile(1.0 - alpha))
