"""Work that a request starts and does not wait for: one thread at a time, and only now and then.

Knows neither storages nor Flask.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


class Background:
    """Does the same work for names, in a thread of its own that ends when it is done.

    :param work: called in the thread; it lets no exception out
    """

    def __init__(self, work: Callable[[str], object]) -> None:
        self._work = work
        self._pid = os.getpid()
        self._busy = threading.Lock()
        self._next: dict[str, float] = {}

    def poke(self, name: str, period: float) -> threading.Thread | None:
        """Start the work for a name, unless that was done less than a period ago.

        Cheap enough for every request.

        :param period: seconds
        :return: the thread, if it was time for one and none is at work
        """
        if not self.is_time(name):
            return None
        if self._pid != os.getpid():
            # The parent's thread, if it was at work, is not in this process to let go of it.
            self._busy, self._pid = threading.Lock(), os.getpid()
        busy = self._busy
        if not busy.acquire(blocking=False):
            return None
        thread = threading.Thread(target=self._run, args=(name, busy), daemon=True)
        try:
            # Once more: another thread may have done all since.
            if self.is_time(name):
                self.wait(name, period)
                thread.start()
                return thread
        except RuntimeError:  # the interpreter is shutting down
            pass
        busy.release()
        return None

    def is_time(self, name: str) -> bool:
        """Return whether a poke would start the work now, if none is at work."""
        return time.monotonic() >= self._next.get(name, 0.0)

    def wait(self, name: str, period: float) -> None:
        """Let nothing be done for a name before a period is over."""
        self._next[name] = time.monotonic() + period

    def is_known(self, name: str) -> bool:
        """Return whether a name was ever poked or told to wait."""
        return name in self._next

    def _run(self, name: str, busy: threading.Lock) -> None:
        try:
            self._work(name)
        finally:
            busy.release()
