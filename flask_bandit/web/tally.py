"""How many choices were not counted, and why: added up per process, stored now and then.

One write for each uncounted request would make robots as dear as visitors.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from weakref import WeakSet

from ..model import BanditKey, StatsDelta
from ..storage.base import Adjustment

NO_ARM = ""
"""The pseudo-arm that what was not counted is stored for."""
SKIPPED = ":skipped"
"""How the names of these sums end, behind the reason."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
QUIET = 600.0
"""Seconds without anything to store, after which the pauses start at the first again."""


class Tally:
    """Adds up reasons per bandit and version until it is time to store them.

    The first note is due at once and later ones after 1, 2, 4 ... 60 seconds, so that a storage
    gets at most one adjustment a minute from each process and bandit, however many robots come.
    They become due when a request asks; a process that is killed loses what it noted since it
    last stored, which is at most what came within a minute.

    :param clock: seconds that never go back
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin()
        _tallies.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, int, str], int] = {}
        self._returned: tuple[Adjustment, ...] = ()
        self._pause = FIRST_PAUSE
        self._due_at = float("-inf")

    def note(self, bandit: str, version: int, reason: str) -> None:
        """Count one choice that is not counted.

        :param reason: a word such as ``bot``
        """
        key = (bandit, version, reason)
        with self._lock:
            self._noted[key] = self._noted.get(key, 0) + 1

    def due(self) -> tuple[Adjustment, ...]:
        """Take what is to be stored now; nothing most of the time.

        What cannot be stored must be given to :meth:`put_back`.
        """
        # Without the lock: most requests end here.
        if not (self._noted or self._returned) or self._clock() < self._due_at:
            return ()
        with self._lock:
            now = self._clock()
            if now < self._due_at:
                return ()
            was_quiet = now - self._due_at > QUIET
            self._pause = FIRST_PAUSE if was_quiet else min(2 * self._pause, LONGEST_PAUSE)
            self._due_at = now + self._pause
            return self._take()

    def put_back(self, adjustments: Iterable[Adjustment]) -> None:
        """Take back what could not be stored, to be due again.

        As it is, with its ids: a storage that stored it after all does not add it again.
        """
        with self._lock:
            self._returned += tuple(adjustments)

    def _take(self) -> tuple[Adjustment, ...]:
        # What came back goes alone: during an outage the rest adds up instead of queueing.
        if self._returned:
            taken, self._returned = self._returned, ()
            return taken
        sums: dict[BanditKey, dict[str, float]] = {}
        for (bandit, version, reason), number in self._noted.items():
            sums.setdefault(BanditKey(bandit, version), {})[reason + SKIPPED] = number
        self._noted = {}
        return tuple(
            Adjustment(f"tally:{secrets.token_hex(16)}", *key, StatsDelta({NO_ARM: row}))
            for key, row in sums.items()
        )


_tallies: WeakSet[Tally] = WeakSet()


def _forget_the_parents() -> None:
    """Start a forked child at zero: its parent stores its own notes, and holds its own locks."""
    for tally in list(_tallies):
        tally._begin()


os.register_at_fork(after_in_child=_forget_the_parents)
