"""The leaderboard, and how it came to be over time. Pure; must not import Flask or a storage."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..model import FloatArray
from .digest import CHANCE, PULLS, REWARD, REWARD_SQ, REWARDS, Span
from .evidence import FEWEST_PULLS, Evidence
from .posteriors import Posterior, expected_losses
from .results import NOT_YET, POSTERIOR, ArmPoint, ArmResult, Interval, Point

MOST_POINTS = 48
"""More would be noise on a chart, and nobody reads a table of more."""
FEWEST_IN_SPAN = 20
"""With fewer pulls of an arm, its rate in a span is that of several spans together."""


def leaderboard(evidence: Evidence) -> tuple[ArmResult, ...]:
    """Return a row for each arm: the best mean first, arms without pulls last."""
    played, arms = evidence.played, evidence.arms
    belief = _belief(evidence, evidence.pulls, evidence.reward, evidence.reward_sq)
    means = _intervals(evidence, evidence.pulls, evidence.reward, evidence.reward_sq)
    chances = belief.chances().tolist() if belief else [None] * played
    losses = expected_losses(belief).tolist() if belief else [None] * played
    rows = []
    for place, (arm, mean) in enumerate(zip(arms, means, strict=True)):
        stats, is_played = evidence.stats.get(arm), place < played
        beats = belief.pair(place, 0) if belief and is_played and place else None
        row = ArmResult(
            arm=arm,
            is_control=place == 0 and played > 0,
            pulls=stats.pulls if stats else 0,
            rewards=stats.rewards if stats else 0,
            reward=float(stats.reward) if stats else 0.0,
            share=float(evidence.pulls[place]) / max(evidence.visitors, 1),
            mean=mean,
            p_best=chances[place] if is_played else None,
            expected_loss=losses[place] if is_played else None,
            p_beats_control=float(beats.chances()[0]) if beats else None,
        )
        rows.append(row)
    return tuple(sorted(rows, key=lambda row: (row.mean is None, -_estimate(row.mean))))


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
    rates = _intervals(evidence, *_pooled(columns))
    running = [np.cumsum(column, axis=0) for column in columns]
    points = []
    for t, span in enumerate(spans):
        belief = _belief(evidence, *(column[t] for column in running))
        chances: list[Any] = belief.chances().tolist() if belief else []
        chances += [None] * (len(arms) - len(chances))
        here = rates[t * len(arms) : (t + 1) * len(arms)]
        row = {
            arm: _arm_point(span, sums, rate, chance)
            for arm, sums, rate, chance in zip(arms, cells[t].tolist(), here, chances, strict=True)
        }
        points.append(Point(span.start, span.end, span.decisions, row))
    return tuple(points)


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
