"""What a chart draws of each arm: which arms, by which letter, with which values at which time.

Plain values; knows nothing of SVG and HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from string import ascii_uppercase

from ...analysis.results import NOT_YET, ArmPoint, Interval, Point, Results
from ..pages import BanditPage, Mark

ALL, ONE = "all", "one"
"""All arms together, as they were chosen by context; and the best arm for everybody."""
MOST_ARMS = 12
"""More cannot be told apart on a chart."""
OTHERS = "others"
FURTHER = 0.25
"""A chart goes on after the last decision for what was done later, by this part of its length."""


@dataclass(frozen=True)
class Track:
    """An arm on the charts, or all that have no track of their own.

    :param place: of its colour and its dashes; a word for what is no arm
    :param letter: which names it on charts
    :param arms: one; several are "others"
    """

    place: int | str
    letter: str
    name: str
    arms: tuple[str, ...]

    @property
    def is_others(self) -> bool:
        """True if it stands for several arms."""
        return len(self.arms) > 1


@dataclass(frozen=True)
class Value:
    """What a track did in a span of time: one value, with its interval if it has one."""

    start: float
    end: float
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """A track and its values, the oldest first, one for each span."""

    track: Track
    values: tuple[Value, ...]


def letters(page: BanditPage) -> dict[str, str]:
    """Return a letter for each arm, in the order of the code, so that none changes its letter."""
    return {each.arm: _letter(place) for place, each in enumerate(page.report.arms)}


def _letter(place: int) -> str:
    """Return A to Z, then A2, B2 and so on."""
    round_, rest = divmod(place, len(ascii_uppercase))
    return ascii_uppercase[rest] + (str(round_ + 1) if round_ else "")


def tracks(page: BanditPage) -> tuple[Track, ...]:
    """Return a track for each arm, or for those with the most visitors and one for the others."""
    named = letters(page)
    pulls = {each.arm: each.sums.pulls for each in page.report.arms}
    shown = sorted(named, key=lambda arm: -pulls[arm])
    if len(shown) > MOST_ARMS:
        shown = shown[: MOST_ARMS - 1]
    own = [arm for arm in named if arm in shown]
    result = [Track(place, named[arm], arm, (arm,)) for place, arm in enumerate(own)]
    others = tuple(arm for arm in named if arm not in shown)
    if others:
        result.append(Track(len(result), "\N{HORIZONTAL ELLIPSIS}", OTHERS, others))
    return tuple(result)


def shares(results: Results, found: Sequence[Track]) -> tuple[Line, ...]:
    """Return each track's share of the decisions."""
    return _lines(results, found, attrgetter("share"))


def chances(results: Results, found: Sequence[Track]) -> tuple[Line, ...]:
    """Return each track's probability of being, or holding, the best arm."""
    return _lines(results, found, attrgetter("p_best"))


def probabilities(results: Results, found: Sequence[Track]) -> tuple[Line, ...]:
    """Return each track's mean probability in the log."""
    return _lines(results, found, attrgetter("probability"))


def rates(results: Results, found: Sequence[Track]) -> tuple[Line, ...]:
    """Return each track's reward per decision, with its interval."""
    return tuple(
        Line(track, tuple(_rate(point, _points(point, track)) for point in results.series))
        for track in found
    )


def earned(results: Results) -> tuple[Line, ...]:
    """Return the rolling reward per decision of all arms, and what one for everybody is worth."""
    everything = Track(f"-{ALL}", ALL, "all arms, by context", ())
    lines = [Line(everything, tuple(_rolling(point) for point in results.series))]
    if results.twin is not None:
        twin = Track(f"-{ONE}", ONE, "the best arm for everybody", ())
        value = results.twin.value
        same = tuple(
            Value(point.start, point.end, value.estimate, value.low, value.high)
            for point in results.series
        )
        lines.append(Line(twin, same))
    return tuple(lines)


def _rolling(span: Point) -> Value:
    if span.rolling is None:
        return Value(span.start, span.end, None)
    low, high = ends(span.rolling)
    return Value(span.start, span.end, span.rolling.estimate, low, high)


def _rate(span: Point, points: Sequence[ArmPoint]) -> Value:
    if len(points) == 1:
        rate = points[0].rate
        if rate is None:
            return Value(span.start, span.end, None)
        low, high = ends(rate)
        return Value(span.start, span.end, rate.estimate, low, high)
    pulls = sum(point.pulls for point in points)
    reward = sum(point.reward for point in points)
    return Value(span.start, span.end, reward / pulls if pulls else None)


def ends(interval: Interval) -> tuple[float, float] | tuple[None, None]:
    """Return the ends of an interval; none where it is not known yet."""
    return (None, None) if interval.method == NOT_YET else (interval.low, interval.high)


def _lines(
    results: Results,
    found: Sequence[Track],
    read: Callable[[ArmPoint], float | None],
) -> tuple[Line, ...]:
    return tuple(
        Line(
            track,
            tuple(
                Value(point.start, point.end, _total(map(read, _points(point, track))))
                for point in results.series
            ),
        )
        for track in found
    )


def _points(point: Point, track: Track) -> list[ArmPoint]:
    return [point.arms[arm] for arm in track.arms if arm in point.arms]


def _total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


@dataclass(frozen=True)
class Sign:
    """A vertical mark on the charts.

    :param number: of its first entry in the list of what was done, from 1
    :param last: of its last, if several are too near to each other for marks of their own
    """

    at: float
    number: int
    last: int

    @property
    def label(self) -> str:
        """The numbers of the entries that it stands for."""
        return str(self.number) if self.number == self.last else f"{self.number}-{self.last}"


def reach(page: BanditPage, results: Results) -> tuple[float, float]:
    """Return from when to when charts go; what was done later to its version is shown too."""
    start = results.series[0].start
    # The last span may be going on.
    end = max(min(results.series[-1].end, page.read_at), start + 1.0)
    last = max((mark.at for mark in page.marks), default=end) if page.report.is_current else end
    return start, max(end, min(last, end + FURTHER * (end - start)))


def signs(marks: Sequence[Mark], start: float, end: float) -> tuple[Sign, ...]:
    """Return the marks between two times; neighbours are one mark."""
    found: list[Sign] = []
    for number, mark in enumerate(marks, 1):
        if not start <= mark.at <= end:
            continue
        if found and mark.at - found[-1].at < 0.04 * (end - start):
            found[-1] = Sign(found[-1].at, found[-1].number, number)
        else:
            found.append(Sign(mark.at, number, number))
    return tuple(found)
