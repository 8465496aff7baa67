"""One process's access to the files of a JSON storage: one thread at a time, and through forks.

Imports only the errors, the locks, the replica and the standard library.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections.abc import Callable
from typing import TypeVar

from ...errors import StorageCorruptError, StorageError
from ..locks import FileLock, ThreadLock, deadline_of
from .replica import Replica
from .upkeep import Upkeep

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_opened: weakref.WeakSet[Access] = weakref.WeakSet()


class Access:
    """Up-to-date files, for whoever has the lock.

    :param path: the readable file, absolute
    :param fsync: wait at each append until the disk has it
    """

    replica: Replica
    upkeep: Upkeep
    file_lock: FileLock

    def __init__(self, path: str, fsync: bool) -> None:
        self._path = path
        self._fsync = fsync
        self.lock = ThreadLock(path)
        self._reset()

    def close(self) -> None:
        """Bring the readable file up to date and give the files back; never raises."""
        try:
            self.lock.acquire(deadline_of(1.0))
        except StorageError as error:
            logger.warning("Could not close %s: %s", self._path, error)
            return
        try:
            if self.upkeep.behind and self._pid == os.getpid():
                self.file_lock.acquire(deadline_of(1.0))
                self.replica.follow(locked=True)
                self.upkeep.finish()
        except (OSError, StorageError) as error:
            # Nothing is lost: both files are rebuilt from the journal.
            logger.warning("Could not bring %s up to date: %s", self._path, error)
        finally:
            self._reset()
            self.lock.release()

    def _reset(self) -> None:
        """Forget what was read; the files are opened at the next use, in whatever process."""
        for old in (getattr(self, "replica", None), getattr(self, "file_lock", None)):
            if old is not None:
                old.close()
        self._pid = os.getpid()
        self.replica = Replica(self._path, self._fsync)
        self.upkeep = Upkeep(self.replica)
        self.file_lock = FileLock(f"{self._path}.lock")
        _opened.add(self)

    def run(self, work: Callable[[], _T], timeout: float | None, locked: bool = False) -> _T:
        """Do ``work`` on an up-to-date replica, alone in this process, or alone altogether.

        :param timeout: seconds; ``None`` waits as long as it takes
        :param locked: alone altogether, as is needed to write
        :raises StorageTimeoutError: others were busy all the time
        :raises StorageError: the files cannot be read, or are not what was written
        """
        deadline = deadline_of(timeout)
        self.lock.acquire(deadline)
        try:
            if self._pid != os.getpid():
                # A lock that is inherited is shared with the parent: it would exclude nobody.
                self._reset()
            if locked:
                return self._run_locked(work, deadline)
            try:
                self.replica.follow(locked=False)
            except StorageCorruptError as error:
                self._look_again(error, deadline)
            return work()
        except StorageError:
            raise
        except BaseException:
            # Interrupted in the middle: what is in memory may be half of a commit.
            self._reset()
            raise
        finally:
            self.lock.release()

    def _run_locked(self, work: Callable[[], _T], deadline: float | None) -> _T:
        self.file_lock.acquire(deadline)
        try:
            self.replica.follow(locked=True)
            return work()
        finally:
            self.file_lock.release()

    def _look_again(self, error: StorageCorruptError, deadline: float | None) -> None:
        """Read once more under the lock: a line that is just being taken back looks damaged."""
        try:
            self.file_lock.acquire(deadline)
        except StorageError:
            raise error from None
        try:
            self.replica.follow(locked=True)
        finally:
            self.file_lock.release()


@atexit.register
def _close_all() -> None:
    for access in list(_opened):
        access.close()
