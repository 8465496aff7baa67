"""The figures of a page: each with its charts, and a table of the same values.

Must not import Flask; what draws is loaded when there is something to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...analysis.results import Results
from ..pages import BanditPage
from . import charts
from .leaders import Write, rate_writer
from .numbers import NONE, Numbers
from .scales import decimals, earned_extent, extent, ticks
from .tracks import (
    Line,
    Track,
    Value,
    chances,
    earned,
    probabilities,
    rates,
    reach,
    shares,
    signs,
    tracks,
)


@dataclass(frozen=True)
class Cell:
    """A value in a table.

    :param raw: what it was before it was written; ``None`` where there is none
    """

    text: str
    raw: float | None


@dataclass(frozen=True)
class TableRow:
    """A span of time in the table of a figure."""

    start: float
    end: float
    decisions: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Drawing:
    """One chart of a figure.

    :param track: whose it is, if each arm has its own
    """

    svg: str
    track: Track | None = None


@dataclass(frozen=True)
class Figure:
    """Something that is shown over time.

    :param key: for the ids of its parts
    :param note: what to know to read it
    :param kinds: how the tracks are drawn: ``area``, ``line`` or ``band``
    """

    key: str
    title: str
    note: str
    kind: str
    tracks: tuple[Track, ...]
    drawings: tuple[Drawing, ...]
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Entry:
    """Something that was done, as the charts mark it.

    :param number: on the marks
    :param where: ``before``, ``in`` or ``after`` the time that the charts show
    """

    number: int
    at: float
    what: str
    where: str


def figures(page: BanditPage, numbers: Numbers) -> tuple[Figure, ...]:
    """Return the figures of a page; none before anything is in the log."""
    if page.results is None or not page.results.series:
        return ()
    maker = _Maker(page, page.results, numbers)
    if page.by_context:
        return (maker.earned(), maker.traffic(), maker.probabilities())
    return (maker.traffic(), maker.best(), maker.rates(), maker.probabilities())


def entries(page: BanditPage) -> tuple[Entry, ...]:
    """Return what was done to the bandit, with the numbers that the marks have."""
    start, end = 0.0, 0.0
    if page.results is not None and page.results.series:
        start, end = reach(page, page.results)
    return tuple(
        Entry(
            number,
            mark.at,
            mark.what,
            "in" if start <= mark.at <= end else "before" if mark.at < start else "after",
        )
        for number, mark in enumerate(page.marks, 1)
    )


class _Maker:
    """Makes the figures of one page."""

    def __init__(self, page: BanditPage, results: Results, numbers: Numbers) -> None:
        self._results, self._numbers = results, numbers
        self._by_context = page.by_context
        self._tracks = tracks(page)
        start, end = reach(page, results)
        self._frame = charts.Frame(start, end, signs(page.marks, start, end), numbers)

    def earned(self) -> Figure:
        lines = earned(self._results)
        write = rate_writer(self._results, self._numbers)
        axis = ticks(*earned_extent(self._results))
        gist = self._gist("Reward per decision over time", lines, write)
        svg = charts.band_chart(
            self._frame, gist, lines, axis, self._tick(axis), height=charts.HEIGHT
        )
        note = "All arms together, each point with the time just before it, and its interval."
        if len(lines) > 1:
            note += " \u201cOne\u201d is what the best arm for everybody would have earned."
        return Figure(
            "earned",
            "Reward per decision",
            note,
            "line",
            tuple(line.track for line in lines),
            (Drawing(svg),),
            self._rows(lines, write, with_ends=True),
        )

    def traffic(self) -> Figure:
        lines = shares(self._results, self._tracks)
        gist = self._gist("Traffic share over time", lines, self._numbers.percent)
        return self._figure(
            "traffic",
            "Traffic share",
            "Of the decisions in each span of time.",
            "area",
            (Drawing(charts.stack_chart(self._frame, gist, lines)),),
            self._rows(lines, self._numbers.percent),
        )

    def best(self) -> Figure:
        lines = chances(self._results, self._tracks)
        gist = self._gist("Probability to be the best arm over time", lines, self._numbers.chance)
        return self._figure(
            "best",
            "Probability to be best",
            "From all decisions until then. It moves a lot at first, and 95 % decides nothing yet.",
            "line",
            (Drawing(charts.line_chart(self._frame, gist, lines, at_ends=True)),),
            self._rows(lines, self._numbers.chance),
        )

    def rates(self) -> Figure:
        lines = rates(self._results, self._tracks)
        write = rate_writer(self._results, self._numbers)
        axis = ticks(*extent(self._results))
        drawings = []
        for line in lines:
            gist = self._gist("Reward per decision over time", [line], write)
            svg = charts.band_chart(self._frame, gist, [line], axis, self._tick(axis))
            drawings.append(Drawing(svg, line.track))
        return self._figure(
            "rate",
            "Reward per decision",
            "In each span of time, or in neighbouring ones together where an arm has few visitors,"
            " with the posterior interval. All arms have the same axis, and what does not fit on it"
            " is cut at its edge.",
            "band",
            tuple(drawings),
            self._rows(lines, write, with_ends=True),
        )

    def probabilities(self) -> Figure:
        lines = probabilities(self._results, self._tracks)
        gist = self._gist("Logged probability over time", lines, self._numbers.percent)
        return self._figure(
            "probability",
            "Probability in the log",
            "With which each arm was given, by context; the mean of all decisions in each span."
            if self._by_context
            else "With which the policy gave each arm, mean of each span; the traffic follows it.",
            "line",
            (Drawing(charts.line_chart(self._frame, gist, lines)),),
            self._rows(lines, self._numbers.percent),
        )

    def _figure(
        self,
        key: str,
        title: str,
        note: str,
        kind: str,
        drawings: tuple[Drawing, ...],
        rows: tuple[TableRow, ...],
    ) -> Figure:
        return Figure(key, title, note, kind, self._tracks, drawings, rows)

    def _tick(self, axis: Sequence[float]) -> Callable[[float], str]:
        """Return what writes the values of an axis, without digits that are all 0."""
        if self._results.is_binary:
            return lambda value: self._numbers.percent(value, decimals(axis, 100.0))
        return self._numbers.number

    def _rows(
        self, lines: Sequence[Line], write: Write, *, with_ends: bool = False
    ) -> tuple[TableRow, ...]:
        return tuple(
            TableRow(
                span.start,
                span.end,
                span.decisions,
                tuple(_cell(line.values[place], write, with_ends) for line in lines),
            )
            for place, span in enumerate(self._results.series)
        )

    def _gist(self, what: str, lines: Sequence[Line], write: Write) -> str:
        """Return what a chart shows, in a sentence for those who do not see it."""
        last = self._numbers.moment(self._results.series[-1].end)
        parts = []
        for line in lines:
            known = [value.value for value in line.values if value.value is not None]
            if known:
                parts.append(f"{line.track.name} from {write(known[0])} to {write(known[-1])}")
        said = "; ".join(parts) or "nothing is known yet"
        return f"{what}, until {last}: {said}. The table below has all values."


def _cell(value: Value, write: Write, with_ends: bool) -> Cell:
    text = write(value.value)
    if with_ends and value.low is not None and value.high is not None:
        text += f" ({write(value.low)} to {write(value.high)})"
    return Cell(text if value.value is not None else NONE, value.value)
