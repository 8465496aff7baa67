"""One connection to a SQLite file for each process: deadlines, errors with a fix, and forks.

Imports only the errors, the locks and the standard library.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from ...errors import StorageCorruptError, StorageError, StorageTimeoutError
from ..files import require_directory, storage_error
from ..locks import ThreadLock, deadline_of, remaining

FIRST_SLEEP = 0.0005
LONGEST_SLEEP = 0.005
FORK_PATIENCE = 5.0
WAL_BYTES = 16 << 20
"""What the file beside the database is cut back to after it was larger."""

_T = TypeVar("_T")


class SQLiteFile:
    """A file, and this process's connection to it, used by one thread at a time.

    :param path: absolute
    :param prepare: called with each new connection before it is used
    :param may_create: tells whether a file that is missing is made
    """

    def __init__(
        self,
        path: str,
        prepare: Callable[[sqlite3.Connection], object],
        may_create: Callable[[], bool],
    ) -> None:
        self.path = path
        self._prepare = prepare
        self._may_create = may_create
        self._lock = ThreadLock(path)
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._identity: tuple[int, int] | None = None
        _forks.watch(self)

    def read(self, work: Callable[[sqlite3.Connection], _T], deadline: float | None) -> _T:
        """Do ``work``; each of its statements sees one moment.

        :raises StorageTimeoutError: others held the file or the connection all the time
        :raises StorageError: it failed
        """
        return self._run(work, deadline)

    def select(self, query: str, values: tuple[Any, ...], deadline: float | None) -> list[Any]:
        """Return all rows of a query.

        :raises StorageTimeoutError: others held the file or the connection all the time
        :raises StorageError: it failed
        """
        return self._run(lambda c: c.execute(query, values).fetchall(), deadline)

    def write(self, work: Callable[[sqlite3.Connection], _T], deadline: float | None) -> _T:
        """Do ``work`` in one transaction that nobody else writes in.

        :raises StorageTimeoutError: others held the file or the connection all the time
        :raises StorageError: it failed, and nothing was written
        """

        def transaction(connection: sqlite3.Connection) -> _T:
            # A deferred transaction that reads before it writes cannot wait: it fails at once
            # where another process wrote in between.
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
            return result

        return self._run(transaction, deadline)

    def empty_log(self, deadline: float | None) -> None:
        """Move the write-ahead log into the database, and cut it to nothing.

        :raises StorageTimeoutError: others wrote or read all the time
        :raises StorageError: it failed
        """

        def move(connection: sqlite3.Connection) -> None:
            (refused, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if refused:
                # Not an error to SQLite, which says it so elsewhere.
                raise sqlite3.OperationalError("database is locked")

        self._run(move, deadline)

    def close(self, timeout: float = 5.0) -> None:
        """Give the file back; the next use opens it again.

        :raises StorageTimeoutError: another thread kept the connection busy all the time
        """
        self._lock.acquire(deadline_of(timeout))
        try:
            self._drop()
            self._identity = None
        finally:
            self._lock.release()

    def _run(self, work: Callable[[sqlite3.Connection], _T], deadline: float | None) -> _T:
        sleep = FIRST_SLEEP
        while True:
            self._lock.acquire(deadline)
            try:
                return self._attempt(work)
            except (sqlite3.Error, OverflowError, UnicodeError) as error:
                if not _is_busy(error):
                    raise _translated(error, self.path) from error
                busy = error
            finally:
                # Also while this one waits for other processes: threads that read go on, and a
                # fork is not held up.
                self._lock.release()
            left = remaining(deadline)
            if left == 0:
                raise StorageTimeoutError(
                    f"Another connection kept {self.path} locked until the deadline; sending it"
                    " again is safe. Raise the timeout if this happens under normal load, and keep"
                    " the transactions of other programs on this file short."
                ) from busy
            time.sleep(min(sleep, left) if left > 0 else sleep)
            sleep = min(2 * sleep, LONGEST_SLEEP)

    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        connection = self._connection
        if connection is None or self._pid != os.getpid():
            connection = self._open()
        self._require_same_file()
        try:
            return work(connection)
        except BaseException as error:
            if not _is_busy(error) or connection.in_transaction:
                # The next use begins anew; closing rolls back.
                self._drop()
            raise

    def _open(self) -> sqlite3.Connection:
        _forks.leave_inherited()
        require_directory(self.path)
        if os.path.isdir(self.path):
            raise StorageError(f"{self.path} is a directory; configure the path of a file in it.")
        known = self._identity
        if known is not None:
            # Connecting would make a new and empty file where the old one is missing.
            self._require_same_file()
        found, create = _identity(self.path), self._may_create()
        if found is None and not create:
            raise StorageError(
                f"{self.path} does not exist, and auto_migrate is off: run 'flask bandit db"
                " upgrade', or configure the path of a file that exists."
            )
        _forks.require_not_inherited(found, self.path)
        uri = f"file:{quote(os.fsencode(self.path))}?mode={'rwc' if create else 'rw'}"
        # Before anything is done with it: a fork has to know of it.
        self._connection = connection = sqlite3.connect(
            uri, timeout=0, isolation_level=None, check_same_thread=False, uri=True
        )
        try:
            self._identity = _identity(self.path)
            self._prepare(connection)
        except BaseException:
            self._drop()
            self._identity = known
            raise
        return connection

    def _require_same_file(self) -> None:
        """Find out that the file was removed or replaced, before a commit goes nowhere.

        It is not opened again: a new file would begin at zero without a word, and the write-ahead
        log beside it may be the old one's, which SQLite would write into the new one.
        """
        found = _identity(self.path)
        if found != self._identity:
            raise StorageCorruptError(
                f"{self.path} was {'replaced' if found else 'removed'} while it was in use; nothing"
                " was written. Stop all processes that use it, put the right file there, remove"
                f" {self.path}-wal and {self.path}-shm unless they belong to it, and start again."
            )

    def _drop(self) -> None:
        _forks.leave_inherited()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # Forks

    def before_fork(self, deadline: float) -> bool:
        """Close the connection, and keep other threads from opening it until the fork is over.

        :return: whether :meth:`after_fork` has to be called, in the parent
        """
        try:
            self._lock.acquire(deadline)
        except StorageTimeoutError:
            return False
        self._drop()
        return True

    def after_fork(self) -> None:
        """Let the threads of the parent go on."""
        self._lock.release()

    def leave_inherited(self) -> tuple[int, int] | None:
        """In a child: let go of the parent's connection without closing it.

        :return: which file it is, if there was one
        """
        connection, self._connection = self._connection, None
        self._pid = os.getpid()
        if connection is None:
            return None
        _never_close(connection)
        return self._identity

    def __del__(self) -> None:
        if self._connection is not None:
            self._drop()


class _Forks:
    """Sees to it that no connection is open while this process forks.

    A connection in WAL mode must not live through a fork, even if the child opens its own. SQLite
    keeps one list per process of the files that it has open and of the locks that it holds on
    them. The child inherits the list, but not the locks, which are POSIX locks: its own connection
    takes the locks in the list for its own, and asks the kernel for none. So the parent's last
    connection finds itself alone when it closes, moves the write-ahead log into the database and
    deletes it, while the child still writes to it: its commits are gone. Had another thread of the
    parent been in a transaction, the list would also say for ever that somebody writes.

    Therefore all connections are closed before the fork, after waiting for running operations,
    which are short, since nobody waits for other processes with the lock in hand. The locks are
    held until the fork is over. Where this fails (an operation takes longer, a fork in a signal
    handler that interrupted one, a server that forks without Python's hooks), the child refuses to
    open the file.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._inherited: set[tuple[int, int] | None] = set()
        self._gate = threading.RLock()
        self._files: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()
        self._held: list[SQLiteFile] = []
        os.register_at_fork(
            before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child
        )

    def watch(self, file: SQLiteFile) -> None:
        # The gate: none is made between the closing and the fork.
        with self._gate:
            self._files.add(file)

    def _before(self) -> None:
        self._gate.acquire()
        deadline = time.monotonic() + FORK_PATIENCE
        self._held = [file for file in list(self._files) if file.before_fork(deadline)]

    def _in_parent(self) -> None:
        for file in self._held:
            file.after_fork()
        self._held = []
        self._gate.release()

    def _in_child(self) -> None:
        self._held = []
        self.leave_inherited()

    def leave_inherited(self) -> None:
        """In a child: let go of all of the parent's connections, and remember their files."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._gate = threading.RLock()
        for file in list(self._files):
            self._inherited.add(file.leave_inherited())
        self._inherited.discard(None)

    def require_not_inherited(self, identity: tuple[int, int] | None, path: str) -> None:
        """Refuse a file that was open at the fork, whichever object opens it.

        :raises StorageError: it was
        """
        if identity in self._inherited:
            raise StorageError(
                f"{path} was in use when this process was forked, and whatever forked it did not"
                " let Python close it before: SQLite would lose commits. Call close() on the"
                " storage before the fork, or use it only after it (uWSGI: lazy-apps)."
            )

    def close_all(self) -> None:
        """At the end of the interpreter: fold the write-ahead logs into the databases."""
        for file in list(self._files):
            with contextlib.suppress(StorageError):
                file.close(1.0)


_forks = _Forks()
atexit.register(_forks.close_all)


def _identity(path: str) -> tuple[int, int] | None:
    """Return which file has this name now; ``None`` if there is none.

    :raises StorageError: it cannot be looked at
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path, "look at") from error
    return status.st_dev, status.st_ino


def _never_close(connection: sqlite3.Connection) -> None:
    """Keep an inherited connection even through the end of the interpreter.

    Closing it might write the parent's log, as it was at the fork, into the database.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


# By message: Python 3.10 gives no error codes.
_FIXES = (
    ("full", "the disk or a quota is full: make room, then send it again"),
    ("readonly", "let this process write the file and its directory"),
    ("unable to open", "let this process read and write the file and its directory"),
    (
        "disk I/O error",
        "the disk, a quota or the file size limit refused it: look at the system log",
    ),
    ("no such", "the tables are not as they were made: run 'flask bandit storage check'"),
)


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "is locked" in str(error)


def _translated(error: Exception, path: str) -> StorageError:
    message = str(error)
    if "not a database" in message:
        return StorageCorruptError(
            f"{path} is not a SQLite database; nothing was changed. Restore it from a backup, or"
            " configure another path."
        )
    if "malformed" in message:
        return StorageCorruptError(
            f"{path} is damaged ({message}); nothing was reset. Restore it from a backup, or save"
            f" what can be read with: sqlite3 {path} .recover"
        )
    if not isinstance(error, sqlite3.Error):
        return StorageError(f"A value cannot be stored in {path}: {message}.")
    fix = next((fix for sign, fix in _FIXES if sign in message), "nothing of it was applied")
    return StorageError(f"{path}: {message}; {fix}.")
