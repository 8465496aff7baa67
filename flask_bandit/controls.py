"""What operators decided about an app's bandits, as a process knows it: read at most once per TTL.

Knows no Flask. While the storage is down, what was known before goes on.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .breaker import Attempt, Call
from .control import Control, nonsense_in
from .errors import StorageError
from .storage.base import BanditStorage, ControlState

logger = logging.getLogger("flask_bandit")

ATTEMPTS = 20
_DEFAULT = Control()

StoredControls = Mapping[str, ControlState]


class Guard(Protocol):
    """Calls a storage within a request's deadline; ``None`` if it is down or just failed."""

    def __call__(
        self, ask: Callable[[float], StoredControls], attempt: Attempt, call: Call
    ) -> StoredControls | None:
        """Return what ``ask`` returns for the seconds that are left."""
        ...


class Controls:
    """The controls of all bandits on one storage.

    :param ttl: seconds for which what was read is used
    :param timeout: seconds that a change may take
    :param is_down: whether there is an outage
    """

    def __init__(
        self,
        storage: BanditStorage,
        *,
        ttl: float,
        timeout: float,
        guard: Guard,
        is_down: Callable[[], bool],
    ) -> None:
        self._storage = storage
        self._ttl = ttl
        self._timeout = timeout
        self._guard = guard
        self._is_down = is_down
        self._lock = threading.Lock()
        self._known: dict[str, Control] | None = None
        self._read_at = -math.inf

    def get(self, name: str, attempt: Attempt) -> Control:
        """Return a bandit's control, as of ``ttl`` seconds ago at most.

        :param attempt: a request's, which asks the storage at most once
        """
        is_stale = time.monotonic() - self._read_at >= self._ttl
        if is_stale and not attempt.has_read_control:
            # One thread reads; the others go on with what they have, unless they may use nothing
            # old or have nothing yet. In an outage none waits for the one that tries.
            waits = self._known is None or self._ttl <= 0.0
            if self._lock.acquire(blocking=waits and not self._is_down()):
                try:
                    self._read(attempt)
                finally:
                    self._lock.release()
        return (self._known or {}).get(name, _DEFAULT)

    def _read(self, attempt: Attempt) -> None:
        now = time.monotonic()
        if now - self._read_at < self._ttl:
            return
        stored = self._guard(self._storage.read_control, attempt, Call.CONTROL)
        if stored is not None:
            before = self._known or {}
            self._known = {
                name: _loaded(name, state, before.get(name)) for name, state in stored.items()
            }
            self._read_at = now
            attempt.has_read_control = True

    def update(self, name: str, update: Callable[[Control], Control]) -> tuple[Control, Control]:
        """Change a bandit's stored control by compare-and-swap, and return it before and after.

        :raises StorageError: the storage is down, or others change it all the time
        """
        for _ in range(ATTEMPTS):
            stored = self._storage.read_control(self._timeout).get(name)
            control = Control.load(stored)
            changed = update(control)
            if changed == control or self._storage.write_control(
                name, changed.dump(), stored, self._timeout
            ):
                self._known = {**(self._known or {}), name: changed}
                return control, changed
        raise StorageError(f"{name!r} is being changed by others all the time; try again")


def _loaded(name: str, state: Any, before: Control | None) -> Control:
    control = Control.load(state)
    if control == before:
        # The same object, so that cached probabilities stay too, and nothing is said twice.
        return before
    if wrong := nonsense_in(state):
        logger.error(
            "What is stored about the bandit %r makes no sense, so it is paused: %s; write it "
            "anew, for example by 'flask bandit resume'",
            name,
            "; ".join(wrong.values()),
        )
    return control
