"""The decision log as a person reads it: the newest first, a page at a time.

A storage gives its log from the oldest on, so it is read backwards in windows of time. Knows
nothing of Flask.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from heapq import nlargest
from itertools import islice
from typing import NamedTuple

from ...model import Decision, LogEntry
from ...storage.base import BanditStorage

PAGE = 50
"""Decisions on a page."""
MOST_READ = 20_000
"""Decisions that are read for one page, of which a rare filter may want few."""
MOST_AT_ONCE = 1_000
"""Decisions in one window of time; one with more is cut to its newest part."""
FIRST_WINDOW, LONGEST_WINDOW = 30.0, 1e9
"""Seconds. What is older than the longest is one window."""
STEP = 8.0
"""How much longer the next window is after one with few decisions, or shorter."""


class Position(NamedTuple):
    """A place in the log, between decisions made at a time or before, and the newer ones."""

    at: float
    id: str

    @classmethod
    def of(cls, entry: LogEntry) -> Position:
        """Return where an entry stands; no two stand at the same place."""
        return cls(entry.decision.at, entry.decision.id)


@dataclass(frozen=True)
class LogFilter:
    """Which decisions of a bandit are wanted.

    :param subjects: as stored, so pseudonyms; ``None``: everybody's
    :param ids: decisions that are wanted as well as those of ``subjects``
    :param since: seconds since the epoch
    :param until: only decisions made before
    """

    bandit: str
    version: int | None = None
    arm: str | None = None
    subjects: Collection[str] | None = None
    ids: Collection[str] = ()
    since: float | None = None
    until: float | None = None

    def wants(self, made: Decision) -> bool:
        """Return whether a decision of this bandit and time is wanted."""
        if self.version not in (None, made.version) or self.arm not in (None, made.arm):
            return False
        return self.subjects is None or made.subject in self.subjects or made.id in self.ids

    def entries(self, storage: BanditStorage) -> Iterator[LogEntry]:
        """Yield all that is wanted, in the order in which it was stored.

        :raises StorageError: the storage is down
        """
        log = storage.iter_log(self.bandit, since=self.since, until=self.until)
        return (entry for entry in log if self.wants(entry.decision))


@dataclass(frozen=True)
class LogPage:
    """A page of the log, the newest first.

    :param older: where the next page begins; ``None`` if this is the last one
    :param read_to: how far back it was looked, in seconds since the epoch, if that was too long a
        way to fill the page; ``None`` where the page is full or the last one
    """

    entries: tuple[LogEntry, ...]
    older: Position | None
    read_to: float | None


def read_log_page(
    storage: BanditStorage, wanted: LogFilter, before: Position | None = None, size: int = PAGE
) -> LogPage:
    """Return the newest decisions, or those that are older than a position.

    About :data:`MOST_READ` decisions are read at most. Those of one moment are read in one go.

    :raises StorageError: the storage is down
    """
    backwards = _Backwards(storage, wanted, before)
    found: list[LogEntry] = []
    while backwards.has_more:
        # One more than the page has tells whether there is a next page.
        found += backwards.next(size + 1 - len(found))
        if len(found) > size:
            return LogPage(tuple(found[:size]), Position.of(found[size - 1]), None)
        if backwards.has_read_enough and backwards.has_more:
            end = backwards.end
            return LogPage(tuple(found), Position(end, ""), end)
    return LogPage(tuple(found), None, None)


class _Backwards:
    """Reads one window of time after the other, each as long as the last one was sparse.

    :ivar end: what is older has not been read
    """

    def __init__(self, storage: BanditStorage, wanted: LogFilter, before: Position | None) -> None:
        self._storage = storage
        self._wanted = wanted
        self._before = before
        self._width = FIRST_WINDOW
        self._crowded = math.inf
        self._read = 0
        self._first = -math.inf if wanted.since is None else wanted.since
        self.end = math.inf if wanted.until is None else wanted.until
        if before is not None:
            # Of those that were made at this very time, some may be on the next page.
            end = math.nextafter(before.at, math.inf) if before.id else before.at
            self.end = min(self.end, end)
        self._begin = self.end

    @property
    def has_more(self) -> bool:
        """True until the oldest decision has been read."""
        return self.end > self._first

    @property
    def has_read_enough(self) -> bool:
        """True if more would take too long; never before there is some progress."""
        return self._read >= MOST_READ and self.end < self._begin

    def next(self, count: int) -> list[LogEntry]:
        """Return up to ``count`` entries of the next window; none if it was too long."""
        start = max(self._start(), self._first)
        is_one_moment = math.isinf(self.end) or math.nextafter(start, math.inf) >= self.end
        entries: Iterable[LogEntry] = self._entries(start, self.end)
        before = self._read
        if not is_one_moment:
            entries = list(islice(entries, MOST_AT_ONCE + 1))
            if len(entries) > MOST_AT_ONCE:
                self._width = min(self.end - start, LONGEST_WINDOW) / STEP
                self._crowded = start
                return []
        found = nlargest(count, filter(self._is_wanted, entries), key=Position.of)
        self.end = start
        # Not before the many that were found are behind: longer, it would be too long again.
        if self.end <= self._crowded and self._read - before < MOST_AT_ONCE / (STEP + 1):
            self._width *= STEP
        return found

    def _start(self) -> float:
        if math.isinf(self.end):
            # Clocks differ, and an import may hold anything: what is said to be made later than now
            # is a window of its own.
            return time.time()
        if self._width > LONGEST_WINDOW:
            return -math.inf
        return min(self.end - self._width, math.nextafter(self.end, -math.inf))

    def _entries(self, start: float, end: float) -> Iterator[LogEntry]:
        since = None if math.isinf(start) else start
        until = None if math.isinf(end) else end
        for entry in self._storage.iter_log(self._wanted.bandit, since=since, until=until):
            self._read += 1
            yield entry

    def _is_wanted(self, entry: LogEntry) -> bool:
        is_older = self._before is None or Position.of(entry) < self._before
        return is_older and self._wanted.wants(entry.decision)


def parse_filter(
    bandit: str,
    arguments: Mapping[str, str],
    known_as: Callable[[str], tuple[Collection[str], Collection[str]]],
) -> LogFilter:
    """Read a filter from a query string.

    :param known_as: returns the pseudonyms of a user, and the ids of decisions
    :raises ValueError: a version or a time cannot be read; the message says what to write
    """
    text = arguments.get("subject", "").strip()
    pseudonyms, ids = known_as(text) if text else ((), ())
    return LogFilter(
        bandit,
        version=_version(arguments.get("version", "")),
        arm=arguments.get("arm") or None,
        # What a page shows can be looked for: a pseudonym, or a decision's id.
        subjects={text, *pseudonyms} if text else None,
        ids={text, *ids} if text else (),
        since=_moment(arguments.get("since", "")),
        until=_moment(arguments.get("until", "")),
    )


def parse_position(arguments: Mapping[str, str]) -> Position | None:
    """Read a place in the log from a query string; ``None`` if it names none.

    :raises ValueError: it is none
    """
    text = arguments.get("before")
    if not text:
        return None
    at = float(text)
    if not math.isfinite(at):
        raise ValueError(f"{text!r} is no time")
    return Position(at, arguments.get("id", ""))


def _version(text: str) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        raise ValueError(f"{text!r} is no version; write a number such as 1") from None


def _moment(text: str) -> float | None:
    """Read a date or a time, in UTC unless it says otherwise."""
    text = text.strip()
    if not text:
        return None
    try:
        # Python 3.10 does not know the Z.
        moment = datetime.fromisoformat(text[:-1] + "+00:00" if text[-1] in "Zz" else text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a date; write it as 2025-12-31 or 2025-12-31T18:00"
        ) from None
