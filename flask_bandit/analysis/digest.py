"""A log, added up: what the statistics need of it, in spans of time, and no more than that.

A decision adds to the span in which it was made, and each span is a handful of sums for each arm,
so spans can be read again when late rewards have come, and merged when there are many. Pure:
no storage, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ..model import LogEntry

MOST_SPANS = 120
"""Neighbours are merged beyond it."""
CELLS = 240
"""Into so many cells, or twice as many, the time is divided in which a log is read."""

PULLS, REWARDS, REWARD, REWARD_SQ, OFFERED, CHANCE = range(6)
_FIRST_MOMENT = 6
WIDTH = _FIRST_MOMENT + 9


def moment(reward_power: int, chance_power: int) -> int:
    """Return the place of a sum in an arm's row: of r^i / p^j over its decisions.

    :param reward_power: i in 0 to 2, r being what the decision earned
    :param chance_power: j in 0 to 2, p being the probability that was logged
    """
    return _FIRST_MOMENT + 3 * reward_power + chance_power


@dataclass(slots=True)
class ArmRow:
    """Sums of one arm in one span.

    :param sums: ``PULLS``, ``REWARDS``, ``REWARD``, ``REWARD_SQ``: all decisions for the arm and
        what they earned; ``OFFERED``: decisions, for whatever arm, whose probabilities are known
        and have this arm among them; ``CHANCE``: the sum of its probabilities in these; then nine
        :func:`moment` sums over the arm's decisions whose own probability is known
    :param least: smallest probability that the arm had
    """

    sums: list[float] = field(default_factory=lambda: [0.0] * WIDTH)
    least: float = 1.0

    def add(self, other: ArmRow) -> None:
        """Add another row in place."""
        self.sums = [mine + its for mine, its in zip(self.sums, other.sums, strict=True)]
        self.least = min(self.least, other.least)

    def moment(self, reward_power: int, chance_power: int) -> float:
        """Return the sum of r^i / p^j over the arm's decisions whose probability is known."""
        return self.sums[moment(reward_power, chance_power)]


@dataclass(slots=True)
class Span:
    """What was decided in [start, end), seconds since the epoch.

    :param read_at: when its log was read; rewards that came later are not in it
    :param vectors: decisions whose whole probability vector is known
    :param unknown: decisions whose own probability is not known
    """

    start: float
    end: float
    read_at: float
    vectors: int = 0
    unknown: int = 0
    arms: dict[str, ArmRow] = field(default_factory=dict)

    @property
    def decisions(self) -> int:
        """All decisions, of all arms."""
        return int(sum(row.sums[PULLS] for row in self.arms.values()))

    @property
    def known(self) -> int:
        """Decisions whose own probability is known."""
        return self.decisions - self.unknown

    def row(self, arm: str) -> ArmRow:
        """Return an arm's sums, to be added to."""
        return self.arms.setdefault(arm, ArmRow())

    def add(self, other: Span) -> None:
        """Take in another span."""
        self.start, self.end = min(self.start, other.start), max(self.end, other.end)
        self.read_at = min(self.read_at, other.read_at)
        self.vectors += other.vectors
        self.unknown += other.unknown
        for arm, row in other.arms.items():
            self.row(arm).add(row)

    def dump(self) -> list[Any]:
        """Return plain values."""
        arms = {arm: [row.least, *map(_short, row.sums)] for arm, row in self.arms.items()}
        return [self.start, self.end, self.read_at, self.vectors, self.unknown, arms]

    @classmethod
    def load(cls, plain: list[Any]) -> Span:
        """Read what :meth:`dump` gave."""
        start, end, read_at, vectors, unknown, arms = plain
        rows = {arm: ArmRow(sums, least) for arm, (least, *sums) in arms.items()}
        return cls(start, end, read_at, vectors, unknown, rows)


@dataclass(slots=True)
class Ratio:
    """How often arms were shown, and what their probabilities said, over decisions with vectors.

    :param shown: arm -> decisions
    :param expected: arm -> sum of p
    :param products: (arm, arm) -> sum of the products of their probabilities, each pair once, in
        the order of their names
    """

    shown: dict[str, int] = field(default_factory=dict)
    expected: dict[str, float] = field(default_factory=dict)
    products: dict[tuple[str, str], float] = field(default_factory=dict)

    def note(self, arm: str, propensities: Mapping[str, float]) -> None:
        """Add one decision."""
        self.shown[arm] = self.shown.get(arm, 0) + 1
        chances = sorted(propensities.items())
        for place, (one, chance) in enumerate(chances):
            self.expected[one] = self.expected.get(one, 0.0) + chance
            for other, its in chances[place:]:
                pair = (one, other)
                self.products[pair] = self.products.get(pair, 0.0) + chance * its

    def add(self, other: Ratio) -> None:
        """Add other decisions."""
        for arm, number in other.shown.items():
            self.shown[arm] = self.shown.get(arm, 0) + number
        for arm, chance in other.expected.items():
            self.expected[arm] = self.expected.get(arm, 0.0) + chance
        for pair, product in other.products.items():
            self.products[pair] = self.products.get(pair, 0.0) + product

    def dump(self) -> dict[str, Any]:
        """Return plain values."""
        products = [[one, other, value] for (one, other), value in self.products.items()]
        return {"shown": self.shown, "expected": self.expected, "products": products}

    @classmethod
    def load(cls, plain: Mapping[str, Any]) -> Ratio:
        """Read what :meth:`dump` gave."""
        products = {(one, other): value for one, other, value in plain["products"]}
        return cls(dict(plain["shown"]), dict(plain["expected"]), products)


@dataclass(slots=True)
class Digest:
    """One version's log until a moment.

    :param spans: the oldest first, none overlapping another
    :param through: all decisions made before this time are in it, seconds since the epoch
    :param written_at: when it was stored
    :param counted: decisions that were counted then, in the log or not
    """

    spans: list[Span] = field(default_factory=list)
    ratio: Ratio = field(default_factory=Ratio)
    through: float = 0.0
    written_at: float = 0.0
    counted: int = 0

    @property
    def decisions(self) -> int:
        """Decisions in it."""
        return sum(span.decisions for span in self.spans)

    def total(self) -> Span:
        """Return all of it as one span; an empty one for an empty digest."""
        total = Span(math.inf, -math.inf, math.inf)
        for span in self.spans:
            total.add(span)
        return total

    def append(self, part: Digest, through: float) -> None:
        """Add what was decided later, and merge neighbours where there are too many spans."""
        self.spans = sorted([*self.spans, *part.spans], key=lambda span: span.start)
        self.ratio.add(part.ratio)
        self.through = through
        while len(self.spans) > MOST_SPANS:
            _merge_shortest(self.spans)

    def coarser(self, most: int) -> list[Span]:
        """Return at most so many spans of all that is in it, none longer than it must be."""
        spans = [Span.load(span.dump()) for span in self.spans]
        while len(spans) > most:
            _merge_shortest(spans)
        return spans

    def dump(self) -> dict[str, Any]:
        """Return plain values for a storage."""
        return {
            "layout": LAYOUT,
            "through": self.through,
            "written_at": self.written_at,
            "counted": self.counted,
            "ratio": self.ratio.dump(),
            "spans": [span.dump() for span in self.spans],
        }

    @classmethod
    def load(cls, plain: Mapping[str, Any] | None) -> Digest:
        """Read what :meth:`dump` gave; what cannot be read is an empty digest, to be made anew."""
        if not plain or plain.get("layout") != LAYOUT:
            return cls()
        try:
            return cls(
                [Span.load(span) for span in plain["spans"]],
                Ratio.load(plain["ratio"]),
                float(plain["through"]),
                float(plain["written_at"]),
                int(plain["counted"]),
            )
        except (KeyError, TypeError, ValueError, IndexError):
            return cls()


LAYOUT = 1


def _merge_shortest(spans: list[Span]) -> None:
    """Make one of the two neighbours that are shortest together."""
    lengths = [later.end - earlier.start for earlier, later in pairwise(spans)]
    place = lengths.index(min(lengths))
    spans[place].add(spans.pop(place + 1))


def cell_length(seconds: float) -> float:
    """Return how long the cells are into which so much time is divided: a power of 2 seconds.

    So the cells of different readings fit into each other.
    """
    return 2.0 ** max(0, math.ceil(math.log2(max(seconds, 1.0) / CELLS / 2)))


class Reader:
    """Adds up log entries as they come, in any order.

    :param version: entries of other versions are left out
    :param goal: what the policy learns from
    :param window: seconds within which a reward must come to be in the moments; ``None``: whenever
    :param read_at: now, seconds since the epoch
    :param cell: length of a span; ``None`` makes one span of all
    """

    def __init__(
        self, version: int, goal: str, window: float | None, read_at: float, cell: float | None
    ) -> None:
        self._version, self._goal, self._window = version, goal, window
        self._read_at, self._cell = read_at, cell
        self._spans: dict[int, Span] = {}
        self._ratios: dict[int, Ratio] = {}

    def read(self, entries: Iterable[LogEntry]) -> None:
        """Add entries; those of the holdout say nothing about the policy and are left out."""
        for entry in entries:
            decision = entry.decision
            if decision.version == self._version and not decision.is_held_out:
                place = 0 if self._cell is None else int(decision.at // self._cell)
                self._add(entry, self._span(place, decision.at), self._ratios[place])

    def part(self, since: float, until: float) -> Digest:
        """Return what was read of the spans that begin in [since, until)."""
        kept = {p: s for p, s in self._spans.items() if since <= s.start < until}
        ratio = Ratio()
        for place in kept:
            ratio.add(self._ratios[place])
        return Digest([kept[place] for place in sorted(kept)], ratio)

    def _span(self, place: int, at: float) -> Span:
        span = self._spans.get(place)
        if span is None:
            cell = self._cell
            start, end = (at, at) if cell is None else (place * cell, (place + 1) * cell)
            span = self._spans[place] = Span(start, end, self._read_at)
            self._ratios[place] = Ratio()
        return span

    def _add(self, entry: LogEntry, span: Span, ratio: Ratio) -> None:
        decision = entry.decision
        counted = [reward for reward in entry.rewards if reward.goal == self._goal]
        row = span.row(decision.arm)
        row.sums[PULLS] += 1
        for reward in counted:
            row.sums[REWARDS] += 1
            row.sums[REWARD] += reward.value
            row.sums[REWARD_SQ] += reward.value * reward.value
        propensities = decision.propensities or {}
        chance = propensities.get(decision.arm)
        if not chance:
            span.unknown += 1
            return
        last = math.inf if self._window is None else decision.at + self._window
        earned = sum(reward.value for reward in counted if reward.at <= last)
        _add_moments(row, earned, chance)
        # A prefetched decision knows its own arm's probability only.
        if abs(sum(propensities.values()) - 1.0) < 1e-6:
            span.vectors += 1
            ratio.note(decision.arm, propensities)
            for arm, its in propensities.items():
                other = span.row(arm)
                other.sums[OFFERED] += 1
                other.sums[CHANCE] += its
                other.least = min(other.least, its)


def _add_moments(row: ArmRow, earned: float, chance: float) -> None:
    row.least = min(row.least, chance)
    power = 1.0
    for i in range(3):
        weighted = power
        for j in range(3):
            row.sums[moment(i, j)] += weighted
            weighted /= chance
        power *= earned


def _short(value: float) -> float:
    """Return whole numbers as ints, which JSON writes shorter."""
    return int(value) if value == int(value) and abs(value) < 2**53 else value
