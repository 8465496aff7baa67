"""Off-policy evaluation: what another policy would have earned at the decisions in a log.

One pass, in constant memory. Pure; must not import Flask or a storage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from ..model import FloatArray, IntArray
from .clustered import ClusterSums, Estimate
from .estimators import (
    ESTIMATORS,
    LOGGED,
    MEAN_WEIGHT,
    ONE,
    WIDTH,
    WITHOUT_MODEL,
    Ratios,
    W,
    columns,
    over_strata,
)
from .logged import Logged
from .overlap import Overlap
from .reward_models import Model
from .targets import Target

CLIP = SWITCH = 10.0
FEWEST = 30.0
"""Decisions, and effective ones, that a stratum needs to stand by itself."""
NO_DIFFERENCE = "All decisions in the log earned the same"


@dataclass(frozen=True, slots=True)
class Stratum:
    """Decisions of one version between the same arms.

    :param share: of all decisions
    """

    version: int
    arms: tuple[str, ...]
    decisions: int
    share: float


@dataclass(frozen=True)
class Evaluation:
    """What is known of a target policy from a log.

    :param decisions: that were used
    :param clusters: subjects, and decisions of anonymous visitors
    :param logged: reward per decision that was really earned; ``None`` below 2 clusters
    :param estimates: reward per decision of the target, by estimator; empty where it is refused
    :param mean_weight: 1, if the probabilities are right; ``None`` below 2 clusters
    :param effective: the effective sample size, (sum of w)^2 / sum of w^2
    :param largest: weight
    :param unsupported: share of the target's choices whose logged probability was 0
    :param renormalised: decisions at which the target also wanted an arm that was not eligible
    :param impossible: decisions at which it wanted no other; they are left out
    :param strata: the largest first
    :param estimand: what is estimated, in words
    :param warnings: what to be careful about
    :param refusals: why there is no estimate, and what to do
    """

    decisions: int
    clusters: int
    logged: Estimate | None
    estimates: Mapping[str, Estimate]
    mean_weight: Estimate | None
    effective: float
    largest: float
    unsupported: float
    renormalised: int
    impossible: int
    strata: tuple[Stratum, ...]
    estimand: str
    warnings: tuple[str, ...]
    refusals: tuple[str, ...]


def evaluate(
    batches: Iterable[Logged],
    target: Target,
    model: Model | None = None,
    *,
    clip: float = CLIP,
    switch: float = SWITCH,
) -> Evaluation:
    """Estimate what a target policy would have earned per decision.

    Between the arms that were eligible at each decision: a target that wants others too is
    renormalised. Self-normalised estimates are made by version and set of eligible arms and
    averaged by their shares; strata with less than 30 effective decisions are taken together.
    Standard errors are clustered; that of DM does not know how wrong the model is.

    :param batches: of the same arms
    :param target: policy to evaluate
    :param model: expected rewards, best cross-fitted; without it, DM and what builds on it are
        left out
    :param clip: largest weight of clipped estimators
    :param switch: largest weight that Switch-DR uses; above, it trusts the model
    :raises ValueError: what the target or the model returned cannot be used
    """
    reading = _Reading(clip, switch)
    for batch in batches:
        reading.add(batch, target, model)
    return reading.result(model is not None)


class _Reading:
    """Adds up batches."""

    def __init__(self, clip: float, switch: float) -> None:
        self._clip, self._switch = clip, switch
        self._overlap = Overlap()
        self._sums = ClusterSums(WIDTH)
        self._squares: FloatArray = np.zeros(0)
        self._strata = Strata()
        self._first, self._last = math.inf, -math.inf

    def add(self, batch: Logged, target: Target, model: Model | None) -> None:
        chances, weights = self._overlap.add(batch, target)
        expected = None if model is None else checked_model(model(batch), batch)
        rows = columns(batch, chances, weights, expected, self._clip, self._switch)
        strata = self._strata.of(batch)
        self._sums.add(rows, batch, strata)
        squares = np.zeros(len(self._strata.keys))
        squares[: self._squares.size] = self._squares
        np.add.at(squares, strata, np.nan_to_num(weights) ** 2)
        self._squares = squares
        self._first = min(self._first, float(batch.at.min(initial=math.inf)))
        self._last = max(self._last, float(batch.at.max(initial=-math.inf)))

    def result(self, has_model: bool) -> Evaluation:
        overlap, sums = self._overlap, self._sums
        refusals = list(overlap.refusals())
        if not refusals and sums.clusters < 2:
            refusals.append("There is a single subject: its decisions show no standard error.")
        has_error = sums.clusters >= 2
        mean = self._estimate(MEAN_WEIGHT, [range(len(sums.totals))]) if has_error else None
        logged = self._estimate(LOGGED, [range(len(sums.totals))]) if has_error else None
        warnings = list(overlap.warnings(mean.error if mean else math.nan))
        if logged and logged.is_flat:
            warnings.append(f"{NO_DIFFERENCE}: the intervals have no width, and say nothing.")
        strata = tuple(self._strata.shares(sums.totals))
        return Evaluation(
            decisions=overlap.decisions,
            clusters=sums.clusters,
            logged=logged,
            estimates={} if refusals else self._estimates(has_model),
            mean_weight=mean,
            effective=overlap.effective,
            largest=overlap.largest,
            unsupported=overlap.bare_share,
            renormalised=overlap.renormalised,
            impossible=overlap.impossible,
            strata=strata,
            estimand=estimand(strata, overlap, self._first, self._last),
            warnings=tuple(warnings),
            refusals=tuple(refusals),
        )

    def _estimates(self, has_model: bool) -> dict[str, Estimate]:
        groups = self._groups()
        names = ESTIMATORS if has_model else WITHOUT_MODEL
        return {name: self._estimate(ESTIMATORS[name], groups) for name in names}

    def _estimate(self, ratios: Ratios, groups: Iterable[Iterable[int]]) -> Estimate:
        totals = self._sums.totals
        value, gradient = over_strata(ratios, totals, [list(group) for group in groups])
        return Estimate.of(value, math.sqrt(self._sums.variance(gradient)))

    def _groups(self) -> list[list[int]]:
        """Return the strata by themselves, and those with too few decisions together."""
        totals = self._sums.totals
        effective = totals[:, W] ** 2 / np.maximum(self._squares, 1e-300)
        is_poor = np.minimum(effective, totals[:, ONE]) < FEWEST
        poor, rich = np.flatnonzero(is_poor).tolist(), np.flatnonzero(~is_poor).tolist()
        groups = [[place] for place in rich]
        if not poor:
            return groups
        # Too few even together: they go with the largest.
        if groups and effective[poor].sum() < FEWEST:
            largest = max(groups, key=lambda group: float(totals[group[0], ONE]))
            largest += poor
            return groups
        return [*groups, poor]


class Strata:
    """Numbers versions and sets of eligible arms as they come."""

    def __init__(self) -> None:
        self.keys: dict[tuple[int, tuple[str, ...]], int] = {}

    def of(self, batch: Logged) -> IntArray:
        """Return each decision's stratum, shape (n,)."""
        if not len(batch):
            return np.zeros(0, dtype=np.int64)
        packed = np.column_stack([batch.version, batch.eligible.astype(np.int64)])
        if (packed == packed[0]).all():
            kinds, inverse = packed[:1], np.zeros(len(batch), dtype=np.int64)
        else:
            kinds, inverse = np.unique(packed, axis=0, return_inverse=True)
        places = [
            self.keys.setdefault(
                (
                    int(version),
                    tuple(a for a, is_in in zip(batch.arms, here, strict=True) if is_in),
                ),
                len(self.keys),
            )
            for version, *here in kinds.tolist()
        ]
        found: IntArray = np.array(places, dtype=np.int64)[inverse.reshape(-1)]
        return found

    def shares(self, totals: FloatArray) -> Iterator[Stratum]:
        """Yield all with decisions, the largest first."""
        counts, total = totals[:, ONE], float(totals[:, ONE].sum())
        for (version, arms), place in sorted(self.keys.items(), key=lambda item: -counts[item[1]]):
            if counts[place]:
                share = float(counts[place]) / total
                yield Stratum(version, arms, int(counts[place]), share)


def checked_model(expected: FloatArray, batch: Logged) -> FloatArray:
    """Return a model's answer.

    :raises ValueError: it cannot be used
    """
    values = np.asarray(expected, dtype=np.float64)
    if values.shape != batch.eligible.shape or not np.isfinite(values).all():
        raise ValueError(
            f"the reward model returned an array of shape {values.shape}; return a finite number"
            f" for each decision and arm, shape {batch.eligible.shape}"
        )
    return values


def estimand(
    strata: tuple[Stratum, ...], overlap: Overlap, first: float = math.inf, last: float = -math.inf
) -> str:
    """Say what is estimated.

    :param first: when the first decision was made, seconds since the epoch
    :param last: the last one
    """
    if not strata:
        return "Nothing: no decision could be used."
    when = f" from {_day(first)} to {_day(last)}" if first <= last else ""
    where = "; ".join(
        f"version {one.version} with {', '.join(one.arms)}: {100.0 * one.share:.3g} %"
        for one in strata[:5]
    )
    more = f"; and {len(strata) - 5} more" if len(strata) > 5 else ""
    text = (
        f"Reward per decision, had the target chosen at the {overlap.decisions:,} logged decisions"
        f"{when}, each time between the arms that were eligible then ({where}{more})."
    )
    if overlap.renormalised:
        text += (
            f" At {overlap.renormalised:,} of them it also wanted an arm that was not eligible, and"
            " its probabilities of the others were scaled up to sum to 1."
        )
    return text


def _day(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, timezone.utc).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{at:g} s"
