"""The leaderboard: a row for each arm, with its interval as places on one common axis.

Plain values for the templates; knows nothing of HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...analysis.results import ArmResult, Interval, Results
from ..pages import BanditPage
from ..reports import ArmReport
from .numbers import NONE, Numbers
from .tracks import ends, letters, tracks

WIDEST = 1.5
"""How far the axis goes beyond the means, in largest means: the interval of an arm with three
visitors would make all others points."""


@dataclass(frozen=True)
class Bar:
    """An interval on the common axis; all in percent of its length.

    :param goes_on: beyond the right end, or the left one, of the axis
    """

    low: float | None
    middle: float
    high: float | None
    goes_on: bool


@dataclass(frozen=True)
class Row:
    """One arm, as it is written.

    :param place: of its colour on the charts; ``None`` for one of the others
    :param badges: what is special about it, in words
    :param raw: the numbers behind the words, for programs that read the page
    """

    letter: str
    name: str
    place: int | None
    badges: tuple[str, ...]
    bar: Bar | None
    rate: str
    interval: str
    p_best: str
    beats: str
    loss: str
    pulls: str
    rewards: str
    reward: str
    share: str
    now: str
    raw: ArmReport


@dataclass(frozen=True)
class Leaderboard:
    """All rows, the best first.

    :param control: the place of the control's mean on the axis
    :param ticks: (place, text) along the axis
    """

    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    control: float | None
    level: str


def rate_writer(results: Results | None, numbers: Numbers) -> Callable[[float | None], str]:
    """Return what writes a reward per decision: in percent where each earns 0 or 1."""
    if results is not None and results.is_binary:
        return lambda value: numbers.percent(value, 2)
    return numbers.number


def leaderboard(page: BanditPage, numbers: Numbers) -> Leaderboard:
    """Return the leaderboard of a page; without statistics in the order of the code."""
    results = page.results
    reports = {each.arm: each for each in page.report.arms}
    if results is None:
        found: dict[str, ArmResult | None] = dict.fromkeys(reports)
    else:
        found = {each.arm: each for each in results.arms if each.arm in reports}
        found |= {arm: None for arm in reports if arm not in found}
    axis = _Axis.of([row.mean for row in found.values() if row and row.mean])
    write = rate_writer(results, numbers)
    control = next((row for row in found.values() if row and row.is_control), None)
    named, places = letters(page), {t.name: t.place for t in tracks(page) if not t.is_others}
    rows = tuple(
        _row(page, reports[arm], result, axis, numbers, write, named[arm], places.get(arm))
        for arm, result in found.items()
    )
    level = results.arms[0].mean.level if results and results.arms and results.arms[0].mean else 0.95
    return Leaderboard(
        rows=rows,
        ticks=tuple((axis.place(at), write(at)) for at in axis.ticks) if axis else (),
        control=axis.place(control.mean.estimate) if axis and control and control.mean else None,
        level=numbers.percent(level, 0),
    )
