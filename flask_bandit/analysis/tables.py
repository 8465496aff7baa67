"""The leaderboard, and how it came to be over time. Pure; must not import Flask or a storage."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..model import FloatArray
from .digest import CHANCE, PULLS, REWARD, REWARD_SQ, REWARDS, Span
from .evidence import FEWEST_PULLS, Evidence
from .posteriors import Posterior, expected_losses
from .results import NOT_YET, POSTERIOR, WEIGHTED, ArmPoint, ArmResult, Interval, Point
from .twin import Weighted

MOST_POINTS = 48
"""More would be noise on a chart, and nobody reads a table of more."""
ROLLING = 6
"""Spans that a rolling mean is of, so an eighth of the time or so."""
FEWEST_IN_SPAN = 20
"""With fewer pulls of an arm, its rate in a span is that of several spans together."""


class _Opinion(NamedTuple):
    """What is believed of each arm; all are for everybody, also where arms are chosen by context.

    :param means: of all arms, likewise the others
    """

    means: list[Interval | None]
    chances: list[float | None]
    losses: list[float | None]
    beats: list[float | None]


def leaderboard(evidence: Evidence) -> tuple[ArmResult, ...]:
    """Return a row for each arm: the best mean first, arms without one last."""
    played = evidence.played
    weighted = evidence.weighted
    opinion = _of_counts(evidence) if weighted is None else _of_weights(evidence, weighted)
    rows = []
    for place, (arm, mean, best, loss, beats) in enumerate(
        zip(evidence.arms, *opinion, strict=True)
    ):
        stats = evidence.stats.get(arm)
        row = ArmResult(
            arm=arm,
            is_control=place == 0 and played > 0,
            pulls=stats.pulls if stats else 0,
            rewards=stats.rewards if stats else 0,
            reward=float(stats.reward) if stats else 0.0,
            share=float(evidence.pulls[place]) / max(evidence.visitors, 1),
            mean=mean,
            p_best=best,
            expected_loss=loss,
            p_beats_control=beats,
        )
        rows.append(row)
    return tuple(sorted(rows, key=lambda row: (row.mean is None, -_estimate(row.mean))))


def _of_counts(evidence: Evidence) -> _Opinion:
    belief = _belief(evidence, evidence.pulls, evidence.reward, evidence.reward_sq)
    means = _intervals(evidence, evidence.pulls, evidence.reward, evidence.reward_sq)
    return _opinion(means, belief, list(range(evidence.played)))


def _of_weights(evidence: Evidence, found: Weighted) -> _Opinion:
    """Say what each arm earns if everybody gets it; of arms that are gone, that is not asked."""
    level, ripe = evidence.question.confidence, found.ripe()
    means: list[Interval | None] = [None] * len(evidence.arms)
    for place, mean in enumerate(found.mean.tolist()):
        if found.counts[0, place]:
            means[place] = Interval(mean, mean, mean, level, NOT_YET)
    if not ripe.arms:
        return _opinion(means, None, [])
    belief = ripe.posterior()
    places = [evidence.arms.index(arm) for arm in ripe.arms]
    low, high = belief.interval(level)
    if evidence.is_binary:
        low, high = np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
    for own, place in enumerate(places):
        ends = float(low[own]), float(high[own])
        means[place] = Interval(float(ripe.mean[own]), *ends, level, WEIGHTED)
    return _opinion(means, belief, places)


def _opinion(means: list[Interval | None], belief: Posterior | None, places: list[int]) -> _Opinion:
    """Line up what is believed with the arms that it is about.

    :param places: of these arms, the control's is 0
    """
    chances: list[float | None] = [None] * len(means)
    losses, beats = list(chances), list(chances)
    if belief is not None:
        best, lost = belief.chances().tolist(), expected_losses(belief).tolist()
        for own, place in enumerate(places):
            chances[place], losses[place] = best[own], lost[own]
            if place and places[0] == 0:
                beats[place] = float(belief.pair(own, 0).chances()[0])
    return _Opinion(means, chances, losses, beats)


def _estimate(mean: Interval | None) -> float:
    return mean.estimate if mean else 0.0


def _belief(
    evidence: Evidence, pulls: FloatArray, reward: FloatArray, reward_sq: FloatArray
) -> Posterior | None:
    """Return the posterior of the arms in play; ``None`` before anything is known."""
    k = evidence.played
    if not k or not pulls[:k].any():
        return None
    return evidence.posterior(pulls[:k], reward[:k], reward_sq[:k])


def _intervals(
    evidence: Evidence, pulls: FloatArray, reward: FloatArray, reward_sq: FloatArray
) -> list[Interval | None]:
    """Return the interval of each mean, in the order of the flattened counts."""
    n, r, sq = pulls.ravel(), reward.ravel(), reward_sq.ravel()
    level = evidence.question.confidence
    is_known = n >= (1 if evidence.is_binary else FEWEST_PULLS)
    belief = evidence.posterior(n[is_known], r[is_known], sq[is_known])
    means = (r / np.maximum(n, 1.0)).tolist()
    result: list[Interval | None] = [
        Interval(mean, mean, mean, level, NOT_YET) if count else None
        for mean, count in zip(means, n.tolist(), strict=True)
    ]
    if belief is not None:
        low, high = (ends.tolist() for ends in belief.interval(level))
        for place, *ends in zip(np.flatnonzero(is_known).tolist(), low, high, strict=True):
            result[place] = Interval(means[place], ends[0], ends[1], level, POSTERIOR)
    return result


def series(evidence: Evidence) -> tuple[Point, ...]:
    """Return at most :data:`MOST_POINTS` spans of the log and what each arm did in them."""
    spans, arms = evidence.digest.coarser(MOST_POINTS), evidence.arms
    if not spans:
        return ()
    cells = np.array([[_cell(span, arm) for arm in arms] for span in spans])
    columns = cells[..., PULLS], cells[..., REWARD], cells[..., REWARD_SQ]
    by_context = evidence.question.by_context
    # By context, these would compare arms by those who got them.
    rates = [None] * cells[..., 0].size if by_context else _intervals(evidence, *_pooled(columns))
    rolling = _rolling(evidence, columns) if by_context else [None] * len(spans)
    running = [np.cumsum(column, axis=0) for column in columns]
    points = []
    for t, span in enumerate(spans):
        belief = None if by_context else _belief(evidence, *(column[t] for column in running))
        chances: list[Any] = belief.chances().tolist() if belief else []
        chances += [None] * (len(arms) - len(chances))
        here = rates[t * len(arms) : (t + 1) * len(arms)]
        row = {
            arm: _arm_point(span, sums, rate, chance)
            for arm, sums, rate, chance in zip(arms, cells[t].tolist(), here, chances, strict=True)
        }
        points.append(Point(span.start, span.end, span.decisions, row, rolling[t]))
    return tuple(points)


def _rolling(evidence: Evidence, columns: tuple[FloatArray, ...]) -> list[Interval | None]:
    """Return the mean of all arms in each span and those just before it."""
    sums = [column.sum(axis=1).cumsum() for column in columns]
    return _intervals(evidence, *(total - _earlier(total) for total in sums))


def _earlier(total: FloatArray) -> FloatArray:
    return np.concatenate([np.zeros(ROLLING), total])[: total.size]


def _pooled(columns: tuple[FloatArray, ...]) -> tuple[FloatArray, ...]:
    """Give neighbouring spans of an arm their common sums, where one has too few pulls.

    :param columns: each of shape (T, K), the pulls first
    """
    sums = np.stack(columns)
    pooled = sums.copy()
    for arm in range(sums.shape[2]):
        groups: list[list[int]] = [[]]
        for t, pulls in enumerate(sums[0, :, arm]):
            # A span without the arm belongs to no group: the line has a gap there.
            if pulls:
                if sums[0, groups[-1], arm].sum() >= FEWEST_IN_SPAN:
                    groups.append([])
                groups[-1].append(t)
        if len(groups) > 1 and sums[0, groups[-1], arm].sum() < FEWEST_IN_SPAN:
            rest = groups.pop()
            groups[-1] += rest
        for group in groups:
            pooled[:, group, arm] = sums[:, group, arm].sum(axis=1, keepdims=True)
    return tuple(pooled)


def _cell(span: Span, arm: str) -> list[float]:
    row = span.arms.get(arm)
    return row.sums[: CHANCE + 1] if row else [0.0] * (CHANCE + 1)


def _arm_point(
    span: Span, sums: list[float], rate: Interval | None, chance: float | None
) -> ArmPoint:
    return ArmPoint(
        pulls=int(sums[PULLS]),
        rewards=int(sums[REWARDS]),
        reward=sums[REWARD],
        share=sums[PULLS] / max(span.decisions, 1),
        rate=rate,
        p_best=chance,
        probability=sums[CHANCE] / span.vectors if span.vectors else None,
    )
