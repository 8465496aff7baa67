"""What the templates of the dashboard are given: plain values, most of them written already.

Must not import Flask, so that a report can be made without a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...analysis.results import NOT_YET, POSTERIOR, REGION, SEQUENCE, WEIGHTED
from ..pages import BanditPage
from ..reports import Sums
from .figures import entries, figures
from .health import findings, summary
from .leaders import difference_writer, leaderboard, rate_writer
from .models import choices, model_table
from .numbers import Numbers
from .tracks import Track, letters, tracks

MOST_PIECES = 4
"""Arms that a list names beside the bar of their traffic."""
METHODS = {
    SEQUENCE: "By a confidence sequence from the logged probabilities: it holds however often you"
    " look, also where rates drift.",
    REGION: "By a joint confidence region of the arms' rates: it holds however often you look,"
    " where the rates are steady.",
    POSTERIOR: "A posterior interval: what is believed now. It is no test.",
    WEIGHTED: "From decisions that count one over their arm's probability: it holds for one look,"
    " and is no test.",
    NOT_YET: "No interval that can be trusted is known yet.",
}
"""Where an interval or a verdict comes from, in words."""
SHORT_METHODS = {
    SEQUENCE: "confidence sequence",
    REGION: "confidence region",
    POSTERIOR: "posterior",
    WEIGHTED: "weighted",
    NOT_YET: "not known yet",
}


@dataclass(frozen=True)
class GoalRow:
    """What an arm, or the holdout, earned of a goal that the bandit does not learn from."""

    goal: str
    arm: str
    sums: Sums


@dataclass(frozen=True)
class Piece:
    """An arm's part of a bar of traffic, in percent of its length."""

    track: Track
    start: float
    length: float


@dataclass(frozen=True)
class IndexRow:
    """One bandit in the list.

    :param pieces: of its traffic
    :param largest: the largest of them
    :param health: its state, and in words
    """

    page: BanditPage
    sentence: str
    visitors: int
    pieces: tuple[Piece, ...]
    largest: tuple[Piece, ...]
    health: tuple[str, str]


def bandit_context(page: BanditPage, numbers: Numbers) -> dict[str, Any]:
    """Return what ``_bandit.html`` and ``report.html`` show."""
    results = page.results
    return {
        "page": page,
        "report": page.report,
        "results": results,
        "numbers": numbers,
        "headline": headline(page),
        "visitors": _visitors(page),
        "write_rate": rate_writer(results, numbers),
        "write_difference": difference_writer(results, numbers),
        "leaderboard": leaderboard(page, numbers),
        "letters": letters(page),
        "tracks": tracks(page),
        "figures": figures(page, numbers),
        "entries": entries(page),
        "goals": tuple(_goals(page)),
        "findings": findings(page, numbers),
        "models": model_table(page, numbers),
        "model_choices": choices(page, numbers),
        "methods": METHODS,
        "short_methods": SHORT_METHODS,
    }


def headline(page: BanditPage) -> str:
    """Return the sentence that a reader is to see first.

    Where arms are chosen by context, it is whether that is worth it.
    """
    if page.results is None:
        return f"No statistics: {page.why_no_results}"
    verdict, twin = page.results.verdict, page.results.twin
    return verdict.sentence if twin is None or verdict.state == "declared" else twin.sentence


def index_context(pages: Sequence[BanditPage], numbers: Numbers) -> dict[str, Any]:
    """Return what ``_index.html`` shows."""
    rows = []
    for page in pages:
        pieces = tuple(_pieces(page))
        row = IndexRow(
            page,
            sentence=headline(page),
            visitors=_visitors(page),
            pieces=pieces,
            largest=tuple(sorted(pieces, key=lambda piece: -piece.length)[:MOST_PIECES]),
            health=summary(page, numbers),
        )
        rows.append(row)
    return {"rows": rows, "numbers": numbers}


def _visitors(page: BanditPage) -> int:
    held_out = page.report.holdout.sums.pulls if page.report.holdout else 0
    return held_out + sum(each.sums.pulls for each in page.report.arms)


def _pieces(page: BanditPage) -> list[Piece]:
    pulls = {each.arm: each.sums.pulls for each in page.report.arms}
    total, start, pieces = sum(pulls.values()), 0.0, []
    for track in tracks(page) if total else ():
        length = 100.0 * sum(pulls[arm] for arm in track.arms) / total
        pieces.append(Piece(track, round(start, 2), round(length, 2)))
        start += length
    return pieces


def _goals(page: BanditPage) -> list[GoalRow]:
    groups = [(each.arm, each.goals) for each in page.report.arms]
    if page.report.holdout is not None:
        groups.append(("holdout", page.report.holdout.goals))
    rows = [GoalRow(goal, arm, sums) for arm, goals in groups for goal, sums in goals.items()]
    return sorted(rows, key=lambda row: row.goal)
