"""The leaderboard: a row for each arm, with its interval as places on one common axis.

Plain values for the templates; knows nothing of HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...analysis.results import NOT_YET, ArmResult, Interval, Results
from ..pages import BanditPage
from ..reports import ArmReport
from .numbers import Numbers
from .scales import decimals, ticks
from .tracks import letters, tracks

WIDEST = 1.5
"""How far the axis goes beyond the means, in largest means: the interval of an arm with three
visitors would make points of all others."""

Write = Callable[[float | None], str]


@dataclass(frozen=True)
class Bar:
    """An interval on the common axis, in percent of its length.

    :param low: its left end; ``None`` where no interval is known yet
    :param goes_left: beyond the axis
    """

    middle: float
    low: float | None
    high: float | None
    goes_left: bool
    goes_right: bool


@dataclass(frozen=True)
class Row:
    """One arm.

    :param place: of its colour on the charts; ``None`` for one that is among the others there
    :param result: ``None`` without statistics
    :param badges: what is special about it, in words
    """

    letter: str
    place: int | str | None
    report: ArmReport
    result: ArmResult | None
    bar: Bar | None
    badges: tuple[str, ...]


@dataclass(frozen=True)
class Leaderboard:
    """All rows, the best first; without statistics in the order of the code.

    :param ticks: (place, text) along the axis
    :param control: the place of the control's mean
    """

    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    control: float | None


def rate_writer(results: Results | None, numbers: Numbers) -> Write:
    """Return what writes a reward per decision: in percent where each earns 0 or 1."""
    if results is not None and results.is_binary:
        return lambda value: numbers.percent(value, 2)
    return numbers.number


def difference_writer(results: Results | None, numbers: Numbers) -> Write:
    """Return what writes a difference of two rewards per decision."""
    is_binary = results is not None and results.is_binary
    return numbers.signed_percent if is_binary else numbers.signed


def leaderboard(page: BanditPage, numbers: Numbers) -> Leaderboard:
    """Return the leaderboard of a page."""
    reports = {each.arm: each for each in page.report.arms}
    ordered = page.results.arms if page.results else ()
    results = {row.arm: row for row in ordered if row.arm in reports}
    axis = Axis([row.mean for row in results.values() if row.mean])
    named, places = letters(page), {t.name: t.place for t in tracks(page) if not t.is_others}
    rows = tuple(
        Row(
            letter=named[arm],
            place=places.get(arm),
            report=reports[arm],
            result=results.get(arm),
            bar=axis.bar(results[arm].mean if arm in results else None),
            badges=tuple(_badges(page, reports[arm], results.get(arm))),
        )
        for arm in (*results, *(arm for arm in reports if arm not in results))
    )
    control = next((row.mean for row in results.values() if row.is_control and row.mean), None)
    return Leaderboard(
        rows=rows,
        ticks=axis.labels(page.results, numbers),
        control=axis.place(control.estimate) if control else None,
    )


def _badges(page: BanditPage, report: ArmReport, result: ArmResult | None) -> Iterator[str]:
    verdict = page.results.verdict if page.results else None
    if page.report.is_current and report.arm == page.report.winner:
        yield "winner"
    elif verdict and report.arm == verdict.leader and verdict.state != "declared":
        yield "best" if verdict.is_decided else "leader"
    if result and result.is_control:
        yield "control"
    if not report.in_code:
        yield "not in the code"
    elif page.report.is_current and report.weight is None:
        yield "off"
    elif page.report.is_current and report.weight != 1.0:
        yield f"weight {report.weight:g}"


class Axis:
    """The common axis; without ticks where there is nothing to place.

    :param widest: how far it goes beyond the estimates, in largest estimates
    """

    def __init__(self, found: Sequence[Interval], widest: float = WIDEST) -> None:
        self.ticks: list[float] = []
        if found:
            estimates = [each.estimate for each in found]
            known = [each for each in found if each.method != NOT_YET]
            furthest = widest * (max(map(abs, estimates)) or float("inf"))
            low = min([*estimates, *(each.low for each in known)])
            high = max([*estimates, *(each.high for each in known)])
            low, high = max(low, min(estimates) - furthest), min(high, max(estimates) + furthest)
            self.ticks = ticks(low, high if high > low else low + 1.0, most=4)

    def place(self, value: float) -> float:
        """Return where a value is, in percent of the axis."""
        low, high = self.ticks[0], self.ticks[-1]
        return round(100.0 * min(max((value - low) / (high - low), 0.0), 1.0), 2)

    def labels(self, results: Results | None, numbers: Numbers) -> tuple[tuple[float, str], ...]:
        """Return the ticks' places and texts."""
        if results is not None and results.is_binary and self.ticks:
            places = decimals(self.ticks, 100.0)
            return tuple((self.place(at), numbers.percent(at, places)) for at in self.ticks)
        return tuple((self.place(at), numbers.number(at)) for at in self.ticks)

    def bar(self, found: Interval | None) -> Bar | None:
        """Return an interval's place; only its estimate's where it is not known yet."""
        if found is None:
            return None
        middle = self.place(found.estimate)
        if found.method == NOT_YET:
            return Bar(middle, None, None, False, False)
        return Bar(
            middle=middle,
            low=self.place(found.low),
            high=self.place(found.high),
            goes_left=found.low < self.ticks[0],
            goes_right=found.high > self.ticks[-1],
        )
