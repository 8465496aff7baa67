"""Keeps the digest of each bandit's log, so that a reader of results never waits for the log.

A thread that decisions start reads what is new once a minute and stores the sums; a page adds the
last seconds to them. Spans are read again when late rewards may have come. A digest can always be
made again from the log, so losing one costs time only.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

from .analysis.digest import REWARDS, Digest, Reader, Span, cell_length
from .background import Background
from .control import Control, lifetime
from .counting import goal_stats
from .engine import LATE_DECISION, Engine, logger
from .errors import StorageError
from .model import ArmCounts, BanditKey
from .options import Options

PERIOD = 60.0
"""Seconds between two readings in the background."""
GRACE = LATE_DECISION + 5.0
"""Seconds after which no decision is stored with an earlier time, if clocks agree within 5 s."""
MANY = 1000
"""New decisions that are worth storing before the period is over."""
AGES = (600.0, 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0)
"""Ages in seconds at which decisions are read again while rewards are missing."""
MOST_AGAIN = 50_000
"""Decisions that are read again in one go."""

_DEFAULT = Options()


@dataclass(frozen=True)
class Reading:
    """A version's digest, up to the last decision.

    :param unread: decisions that are counted and not in it, because there are too many to wait for
    """

    digest: Digest
    unread: int = 0


class Digester:
    """Keeps the digests of an engine's bandits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._background = Background(self._read_quietly)
        self._behind: set[BanditKey] = set()

    def poke(self, name: str) -> threading.Thread | None:
        """Read what is new, in the background, if nobody has done so lately.

        Cheap enough for every decision, and asks the storage nothing. The first poke of a process
        starts nothing: what lives for less than a minute needs no digest.

        :return: the thread, if it was time for one
        """
        if not self._background.is_known(name):
            self._background.wait(name, PERIOD)
            return None
        return self.hurry(name)

    def hurry(self, name: str) -> threading.Thread | None:
        """Do as :meth:`poke`, also if it is the first one."""
        if self._engine.is_storage_down:
            return None
        return self._background.poke(name, PERIOD)

    def read(
        self, key: BanditKey, rows: ArmCounts, control: Control, most: int | None = None
    ) -> Reading:
        """Return the digest of a version with all that was decided until now.

        :param rows: the version's sums as they are stored
        :param most: if more decisions than that are new, they are read in the background, and the
            digest is without them; ``None`` reads them all, however long that takes
        :raises StorageError: the storage failed
        """
        storage = self._engine.storage
        stored = storage.read_digest(key, self._engine.timeout)
        digest = Digest.load(stored.state if stored else None)
        counted = self._counted(key, rows)
        unread = counted[0] - digest.counted
        if most is not None and unread > most:
            self._behind.add(key)
            self.hurry(key.bandit)
            return Reading(digest, unread)
        before = digest.decisions
        pass_ = _Pass(self._engine, key, control, counted)
        last = pass_.extend(digest)
        new = digest.decisions - before
        is_time = most is None or pass_.now - digest.written_at >= PERIOD
        # What is counted and in no log has been looked for, too.
        is_news = new > 0 or counted[0] != digest.counted
        if new >= MANY or (is_news and is_time) or pass_.has_read_again:
            digest.written_at, digest.counted = pass_.now, counted[0]
            revision = stored.revision if stored else 0
            # If somebody else was faster, theirs is as good.
            storage.write_digest(key, digest.dump(), revision, self._engine.timeout)
        digest.append(last, digest.through)
        return Reading(digest)

    def forget(self, name: str) -> None:
        """Let the whole log of a bandit be read again, as after an import.

        :raises StorageError: the storage failed
        """
        storage = self._engine.storage
        for key in [key for key in self._engine.read_counts() if key.bandit == name]:
            is_forgotten = False
            # Also where there is none: somebody may be about to store what was read before.
            while not is_forgotten:
                stored = storage.read_digest(key)
                is_forgotten = storage.write_digest(key, {}, stored.revision if stored else 0)

    def _counted(self, key: BanditKey, rows: ArmCounts) -> tuple[int, int]:
        options = _options(self._engine, key.bandit)
        sums = [goal_stats(options, row) for row in rows.values()]
        return sum(each.pulls for each in sums), sum(each.rewards for each in sums)

    def _read_quietly(self, name: str) -> None:
        # Pages may wait for others, that were refused a thread while one was at work.
        for each in {name, *(key.bandit for key in tuple(self._behind))}:
            self._read_bandit(each)

    def _read_bandit(self, name: str) -> None:
        try:
            control = self._engine.control(name)
            # Older versions only if somebody looked at them.
            behind = {key for key in tuple(self._behind) if key.bandit == name}
            for key in {BanditKey(name, control.version), *behind}:
                self._read_new(key, control)
                self._behind.discard(key)
        except StorageError as error:
            logger.warning("The log of %r could not be read; trying again: %s", name, error)
        except Exception:
            logger.exception("The log of %r could not be read; trying again", name)

    def _read_new(self, key: BanditKey, control: Control) -> None:
        stored = self._engine.storage.read_digest(key)
        # Not if another process did so lately.
        if stored and time.time() - Digest.load(stored.state).written_at < PERIOD / 2:
            return
        self.read(key, self._engine.read_counts().get(key, {}), control)


class _Pass:
    """One reading of what is new, and of what has to be read again.

    :param counted: pulls and rewards as they are stored
    """

    def __init__(
        self, engine: Engine, key: BanditKey, control: Control, counted: tuple[int, int]
    ) -> None:
        options = _options(engine, key.bandit)
        self._storage, self._key = engine.storage, key
        self._goal, self._window = options.goal, options.reward_window
        self._life = lifetime(control, key.version)
        self._is_in_code = key.bandit in engine.bandits
        self._counted = counted
        self.now = time.time()
        self.has_read_again = False

    def extend(self, digest: Digest) -> Digest:
        """Add to a digest what can change no more but for late rewards.

        :return: the last seconds, which can
        """
        name, (began, ended) = self._key.bandit, self._life
        # Other machines' clocks may be behind the one that the reset was done by.
        since = max(digest.through, began - GRACE, 0.0)
        cell = cell_length(self.now - (since or self._first_time()))
        reader = self._reader(cell)
        # Decisions that were under way at a reset are stored a little later.
        until = None if ended is None else ended + PERIOD
        reader.read(self._storage.iter_log(name, since=since or None, until=until))
        # A multiple of the cell, which what was read begins within: no cell is of both parts.
        settled = (self.now - GRACE) // cell * cell
        new, last = reader.part(-math.inf, settled), reader.part(settled, math.inf)
        for span in new.spans:
            span.start = max(span.start, since)
        digest.append(new, max(since, settled))
        self._read_again(digest, last)
        return last

    def _first_time(self) -> float:
        first = next(iter(self._storage.iter_log(self._key.bandit)), None)
        return self.now if first is None else first.decision.at

    def _read_again(self, digest: Digest, last: Digest) -> None:
        """Look for rewards that came after their decision was read, where some are missing."""
        if not self._is_in_code:
            # Its goal is not known, and to read with another one would lose what was read.
            return
        seen = [row.sums[REWARDS] for part in (digest, last) for row in part.total().arms.values()]
        # Some of those seen may have come since they were counted.
        is_missing = self._counted[1] != sum(seen)
        read = 0
        for place, span in enumerate(digest.spans):
            if not self._is_due(span) or read >= MOST_AGAIN:
                continue
            self.has_read_again = True
            read += span.decisions if is_missing else 0
            digest.spans[place] = self._anew(span) if is_missing else span
            digest.spans[place].read_at = self.now

    def _is_due(self, span: Span) -> bool:
        ages = AGES if self._window is None else (*AGES, self._window + GRACE)
        return any(span.read_at < span.end + age <= self.now for age in ages)

    def _anew(self, span: Span) -> Span:
        reader = self._reader(None)
        reader.read(self._storage.iter_log(self._key.bandit, since=span.start, until=span.end))
        found = reader.part(-math.inf, math.inf).spans
        # The details of old decisions may have been pruned: what is known of them stays.
        if not found or found[0].decisions < span.decisions:
            return span
        found[0].start, found[0].end = span.start, span.end
        return found[0]

    def _reader(self, cell: float | None) -> Reader:
        return Reader(self._key.version, self._goal, self._window, self.now, cell)


def _options(engine: Engine, name: str) -> Options:
    """Return a bandit's options, the default ones if it is not in the code any more."""
    return engine.bandits[name].options if name in engine.bandits else _DEFAULT
