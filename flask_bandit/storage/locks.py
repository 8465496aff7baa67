"""Locks that know a deadline: one among the threads of a process, one among processes.

Imports only the errors and the standard library.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time

from ..errors import StorageTimeoutError
from .files import close_quietly, storage_error

FIRST_SLEEP = 0.001
LONGEST_SLEEP = 0.02


def deadline_of(timeout: float | None) -> float | None:
    """Turn seconds from now into a time of the monotonic clock; ``None`` stays ``None``."""
    return None if timeout is None else time.monotonic() + timeout


def remaining(deadline: float | None) -> float:
    """Return the seconds left, at least 0, or -1 without a deadline (as ``Lock.acquire`` does)."""
    return -1 if deadline is None else max(0.0, deadline - time.monotonic())


class ThreadLock:
    """A lock among threads that a forked child does not inherit locked.

    :param what: what the message of a timeout calls it
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def acquire(self, deadline: float | None) -> None:
        """Wait until the deadline.

        :raises StorageTimeoutError: another thread held it all the time
        """
        if self._pid != os.getpid():
            # Another thread of the parent may have held it at the fork; here nobody would let go.
            self._lock = threading.Lock()
            self._pid = os.getpid()
        if not self._lock.acquire(timeout=remaining(deadline)):
            raise StorageTimeoutError(
                f"Another thread of this process kept {self._what} busy until the deadline;"
                " sending it again is safe. Raise the timeout if this happens under normal load."
            )

    def release(self) -> None:
        """Let the next thread go on."""
        self._lock.release()


class FileLock:
    """An exclusive lock among processes on a file that is never replaced.

    :param path: the lock file; it stays empty and is never removed
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self, deadline: float | None) -> None:
        """Wait until the deadline.

        :raises StorageTimeoutError: another process held it all the time
        :raises StorageError: the lock file cannot be made
        """
        while True:
            fd = self._open()
            self._lock(fd, deadline)
            if self._still_there(fd):
                return
            # Somebody removed the file: whoever comes next would lock another one.
            self.close()

    def release(self) -> None:
        """Let the next process go on."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file back, and the lock with it."""
        close_quietly(self._fd)
        self._fd = None

    def _open(self) -> int:
        if self._fd is None:
            try:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise storage_error(error, self.path, "open the lock file") from error
        return self._fd

    def _lock(self, fd: int, deadline: float | None) -> None:
        if deadline is None:
            fcntl.flock(fd, fcntl.LOCK_EX)
            return
        sleep = FIRST_SLEEP
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                left = remaining(deadline)
                if left <= 0:
                    raise StorageTimeoutError(
                        f"Another process held the lock {self.path} until the deadline; sending it"
                        " again is safe. Raise the timeout if this happens under normal load."
                    ) from None
                time.sleep(min(sleep, left))
                sleep = min(2 * sleep, LONGEST_SLEEP)

    def _still_there(self, fd: int) -> bool:
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(fd))
