"""Whether a model is better than what serves: judged on decisions that it was not fitted on.

Each held-out decision is judged once, and the j-th window has the error rate
.05 * 6 / (pi^2 j^2), so that all windows together deploy a model that is not better in at most 5 %
of all bandits' lives. Must not import Flask.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..analysis.clustered import ClusterSums, quantile
from ..analysis.logged import Logged
from ..analysis.overlap import Overlap
from ..analysis.paired import Paired, chance_above, compare
from ..analysis.reward_models import RidgeModel
from ..analysis.targets import Target, fitted_target, logged_target
from ..errors import LifecycleError
from ..features import Features
from ..model import FloatArray
from ..options import Options
from .fitted import Fitted
from .records import EvaluationRecord

ERROR_RATE = 0.05
"""Of all windows together."""
LEAST_EFFECTIVE = 100.0
"""Effective sample size below which nothing is judged."""
LIFT = 0.25
"""What a model is worth more, as a share of the champion's value, where a power is told."""
WANTED_POWER = 0.8
SAME = 1e-12
"""Mean square of the difference of two policies' weights, below which it is rounding."""
MOST_NUMBERS = 4_000_000
"""Of the normal equations of all arms, once for each fold: some 160 MB."""


class NotYetError(LifecycleError):
    """Nothing was judged, since it could show nothing; no attempt was spent."""


def error_rate(attempt: int) -> float:
    """Return the error rate of the j-th window, j >= 1; all of them sum to 5 %."""
    return ERROR_RATE * 6.0 / (math.pi * attempt) ** 2


def served(model: Fitted, options: Options, drawing: Mapping[str, float] | None) -> Target:
    """Return what visitors would get with a model: its probabilities, then weights and floor.

    :param drawing: eligible arm -> weight; ``None``: all arms with equal weights
    """
    target = fitted_target(model)

    def as_served(batch: Logged) -> FloatArray:
        values, allowed = target(batch), batch.eligible
        if drawing is not None:
            weights = np.array([drawing.get(arm, 0.0) for arm in batch.arms])
            weighted = values * weights
            total = weighted.sum(axis=1, keepdims=True)
            has_any = total > 0.0
            values = np.where(has_any, weighted / np.where(has_any, total, 1.0), values)
            allowed = np.where(has_any, allowed & (weights > 0.0), allowed)
        arms = allowed.sum(axis=1)
        floors = np.array([options.share(int(count)) for count in arms])[:, None]
        result: FloatArray = (1.0 - floors) * values + floors * allowed / arms[:, None]
        return result

    return as_served


def as_logged(drawing: Mapping[str, float] | None) -> Target:
    """Return what visitors got, between the arms that are drawn now.

    An arm that was taken away since is no merit of a model that does without it.

    :param drawing: eligible arm -> weight; ``None``: all arms
    """
    if drawing is None:
        return logged_target

    def between(batch: Logged) -> FloatArray:
        kept = batch.propensities * np.array([arm in drawing for arm in batch.arms])
        total = kept.sum(axis=1, keepdims=True)
        has_any = total > 0.0
        return np.where(has_any, kept / np.where(has_any, total, 1.0), batch.propensities)

    return between


@dataclass(frozen=True)
class Look:
    """What can be known of held-out decisions without a look at what they earned.

    :param decisions: how many
    :param effective: how many of the model's own would say as much, by users
    :param spread: mean square of the difference of both policies' weights
    :param mean_weight: of the model
    :param mean_weight_error: its standard error
    :param largest_weight: of them
    :param obstacle: why no judgement would be right; empty if there is none
    """

    decisions: int
    effective: float
    spread: float
    mean_weight: float
    mean_weight_error: float
    largest_weight: float
    obstacle: str

    def power(self, mean: float, variance: float, rate: float, margin: float = 0.0) -> float:
        """Return how probable a yes is if the model is worth :data:`LIFT` more than the champion.

        :param mean: reward per decision, of other decisions
        :param variance: of the reward of a decision, likewise
        :param rate: error rate
        :param margin: by which it has to be better
        """
        if not self.decisions:
            return 0.0
        error = math.sqrt(variance * self.spread / self.decisions)
        return chance_above(LIFT * abs(mean) - margin, error, rate)

    def require(self) -> None:
        """Raise if nothing should be judged.

        :raises NotYetError: too few decisions, or wrong probabilities
        """
        if self.obstacle:
            raise NotYetError(self.obstacle)
        if self.effective < LEAST_EFFECTIVE:
            raise NotYetError(
                f"there are {self.decisions:,} held-out decisions that were not judged yet, which "
                f"say as much as {self.effective:.0f} of the model's own; {LEAST_EFFECTIVE:.0f} "
                "are needed. Nothing was judged; wait for more"
            )


def look(batches: Iterable[Logged], candidate: Target, champion: Target = logged_target) -> Look:
    """Read what held-out decisions can tell about two policies, but not what they earned."""
    overlap, square, by_cluster = Overlap(), 0.0, ClusterSums(1)
    for batch in batches:
        weights = overlap.add(batch, candidate).weights
        by_cluster.add(weights[:, None], batch)
        others = batch.taken(champion(batch)) / batch.propensity
        square += float(np.nansum((weights - others) ** 2))
    count = overlap.decisions
    mean = overlap.weight / count if count else 0.0
    variance = max(overlap.weight_sq / count - mean * mean, 0.0) if count else 0.0
    error = math.sqrt(variance / count) if count else 0.0
    obstacles = list(overlap.refusals()) if count else []
    if overlap.is_wrong:
        obstacles = list(overlap.warnings(error))[:1]
    if count and not obstacles and square <= SAME * count:
        obstacles = ["it chooses as what serves does, so nothing tells the two apart"]
    return Look(
        decisions=count,
        effective=overlap.weight**2 / by_cluster.square(0) if overlap.weight else 0.0,
        spread=square / count if count else 0.0,
        mean_weight=mean,
        mean_weight_error=error,
        largest_weight=overlap.largest,
        obstacle=" ".join(obstacles),
    )


def judge(
    batches: Iterable[Logged],
    arms: int,
    features: Features | None,
    candidate: Target,
    champion: Target,
    rate: float,
) -> Paired:
    """Compare two policies on held-out decisions, doubly robust, with cross-fitted predictions.

    Where the features are too many to be solved for, an arm is predicted to earn its mean; what is
    compared stays the same, with a larger error.

    :param batches: read twice
    :param arms: how many
    :param features: for the predictions
    :param rate: error rate
    """
    width = 1 if features is None else 1 + features.dimension
    is_too_large = arms * width * width > MOST_NUMBERS
    expected = RidgeModel(None if is_too_large else features, arms)
    for batch in batches:
        expected.add(batch)
    return compare(batches, candidate, champion, expected, alpha=rate)


def obstacle(judged: EvaluationRecord, margin: float = 0.0) -> str:
    """Return why a model is not to be deployed, with the power that it had; empty if it is.

    :param margin: reward per decision by which it has to be better
    """
    if judged.effective_size < LEAST_EFFECTIVE:
        return (
            f"the held-out decisions say as much as {judged.effective_size:.0f} of the model's own;"
            f" {LEAST_EFFECTIVE:.0f} are needed"
        )
    if judged.lower > margin:
        return ""
    text = (
        f"it is not shown to be better by more than {margin:g}: the difference is "
        f"{judged.difference:+.3g} +- {judged.standard_error:.2g} per decision, and its lower "
        f"bound {judged.lower:+.3g} (attempt {judged.attempt}, error rate "
        f"{judged.error_rate:.2g}). With {judged.decisions:,} held-out decisions, a model worth "
        f"{LIFT:.0%} more than the champion is recognised with probability {judged.power:.2g}"
    )
    needed = decisions_needed(judged, margin)
    if needed is None or judged.power >= WANTED_POWER:
        return text
    return f"{text}; about {needed:,} make it {WANTED_POWER:g}"


def decisions_needed(judged: EvaluationRecord, margin: float = 0.0) -> int | None:
    """Return about how many held-out decisions the next window needs.

    :return: for a power of :data:`WANTED_POWER` at the next attempt; ``None`` if no number will do
    """
    gain = LIFT * abs(judged.champion_value) - margin
    if gain <= 0.0 or not judged.standard_error > 0.0:
        return None
    z = quantile(1.0 - error_rate(judged.attempt + 1)) + quantile(WANTED_POWER)
    exact = judged.decisions * (z * judged.standard_error / gain) ** 2
    # Two digits: it is no more exact than that.
    unit: int = 10 ** max(0, math.floor(math.log10(max(exact, 1.0))) - 1)
    return math.ceil(exact / unit) * unit
