"""What keeps a storage's outage from becoming the site's: a deadline and a circuit breaker.

Knows neither Flask nor a storage; the engine uses it, and the limit per network.
"""

from __future__ import annotations

import threading
import time
from enum import IntEnum


class Call(IntEnum):
    """What a storage is asked for; the later ones need more of it."""

    CONTROL = 0
    READ = 1
    WRITE = 2


class Attempt:
    """One request's dealings with the storage: the seconds left, and whether it may try at all.

    :param seconds: what reads and commit together may take
    """

    def __init__(self, seconds: float) -> None:
        self.remaining = seconds
        self.allowed: bool | None = None
        self.has_read = False
        """True once the counts were read: all of a request's decisions follow from one reading."""
        self.has_read_control = False
        """True once it was read what operators decided: all of a request follows from that."""
        self._started = 0.0

    def __enter__(self) -> float:
        """Measure a block against the deadline and give it the seconds that are left."""
        self._started = time.monotonic()
        return max(self.remaining, 0.0)

    def __exit__(self, *_: object) -> None:
        self.remaining -= time.monotonic() - self._started


class CircuitBreaker:
    """Closed while the storage works; open after a failure, letting one probe through at times.

    What failed is only mended by what needs as much: a full disk can still be read, and what
    operators decided is a small table that may be read where the counts cannot.

    :param probe_every: seconds between two probes while open
    """

    def __init__(self, probe_every: float = 0.5) -> None:
        self._probe_every = probe_every
        self._lock = threading.Lock()
        self._open = False
        self._awaited = Call.CONTROL
        self._next_probe = 0.0

    @property
    def is_open(self) -> bool:
        """True from the first failure to the success that mends it."""
        return self._open

    def allows(self, attempt: Attempt) -> bool:
        """Return whether this request may try the storage; a probe is one whole request."""
        if attempt.allowed is None:
            attempt.allowed = not self._open or self._takes_probe()
        return attempt.allowed

    def succeeded(self, call: Call) -> bool:
        """Note a success; return True if it ends an outage."""
        if not self._open or call < self._awaited:
            return False
        with self._lock:
            ended, self._open, self._awaited = self._open, False, Call.CONTROL
            return ended

    def failed(self, attempt: Attempt, call: Call) -> bool:
        """Note a failure; return True if it begins an outage."""
        attempt.allowed = False
        with self._lock:
            begun, self._open = not self._open, True
            self._awaited = max(self._awaited, call)
            self._next_probe = time.monotonic() + self._probe_every
            return begun

    def _takes_probe(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if self._open and now < self._next_probe:
                return False
            self._next_probe = now + self._probe_every
            return True
