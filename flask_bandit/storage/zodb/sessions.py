"""Opening a ZODB, one session for each process, and giving it up when it hangs or breaks.

The only module that imports ZODB, ZEO and transaction. Knows nothing of what is stored.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
import weakref
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import transaction
import ZODB
from zc.lockfile import LockError
from ZEO.ClientStorage import ClientStorage
from ZEO.Exceptions import ClientDisconnected
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import CorruptedFileStorageError, FileStorageFormatError
from ZODB.FileStorage.format import CorruptedError
from ZODB.POSException import ConflictError

from ...errors import ConfigurationError, StorageCorruptError, StorageError, StorageTimeoutError
from ..files import require_directory, storage_error
from ..locks import ThreadLock, remaining

__all__ = ["ClientDisconnected", "ConflictError", "FileSource", "GivenSource", "ServerSource"]

logger = logging.getLogger(__name__)

CACHED_OBJECTS = 20_000
LONGEST_WAIT = 30.0
"""Seconds after which a server that does not answer a connection is tried anew."""
LONGEST_HOLD = 60.0
"""Seconds after which a call without a deadline is taken to hang, if others wait for it."""


_inherited: list[Session] = []
"""Sessions of the parent, kept because their end would touch what the parent still uses."""
_open_files: weakref.WeakSet[Any] = weakref.WeakSet()


class Source(Protocol):
    """Where the database is."""

    name: str
    may_hang: bool

    def open(self, session: Session, deadline: float | None) -> Any:
        """Return a ``ZODB.DB``."""

    def interrupt(self, session: Session) -> None:
        """Make a thread that uses the session fail, if that is possible."""

    def close(self, session: Session) -> None:
        """Give back what :meth:`open` made; nobody uses it."""


class Session:
    """One connection to a database, for one process."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.pid = os.getpid()
        self._lock = ThreadLock(source.name)
        self._due = math.inf
        self.dropped = self.closed = False
        self.storage: Any = None
        self.db: Any = None
        self.connection: Any = None
        # Not the thread's own manager, which belongs to the app.
        self.manager = transaction.TransactionManager()

    def is_inherited(self) -> bool:
        """Tell whether a parent made this before it forked; then it is kept, and not used."""
        if self.pid == os.getpid():
            return False
        _inherited.append(self)
        return True

    def take(self, deadline: float | None) -> None:
        """Wait until no other thread uses it; :meth:`give_back` has to follow.

        A thread that should have given it back by now is stuck, and no caller is left to notice.
        So who waits in vain gives the session up, for the next ones.

        :raises StorageTimeoutError: another thread used it until the deadline
        """
        try:
            self._lock.acquire(deadline)
        except StorageTimeoutError:
            if self.source.may_hang and self._due < time.monotonic() and not self.dropped:
                self.drop()
            raise
        self._due = time.monotonic() + LONGEST_HOLD if deadline is None else deadline

    def give_back(self) -> None:
        """Let the next thread use it."""
        self._due = math.inf
        self._lock.release()

    def begin(self, deadline: float | None, fresh: bool) -> Any:
        """Begin a transaction; return the root object.

        :param fresh: ask the server, so that it sees all commits; otherwise it sees those that
            the server has told of
        """
        if self.connection is None:
            self.db = self.source.open(self, deadline)
        if "storage" not in vars(self.db):
            raise StorageError(f"{self.source.name} was closed by the app; it must stay open.")
        if self.connection is None:
            self.connection = self.db.open(self.manager)
        if fresh:
            self.manager.begin()
        else:
            self.connection.newTransaction(None, False)
        return self.connection.root()

    def abort(self) -> None:
        """End a transaction that may or may not have begun."""
        with suppress(Exception):
            self.manager.abort()

    def close(self) -> None:
        """Close everything, once; the caller has taken the session."""
        self.dropped = True
        if self.closed:
            return
        self.closed = True
        try:
            self.source.close(self)
        except Exception as error:
            logger.info("Could not close %s in good order: %s", self.source.name, error)

    def drop(self) -> None:
        """Give up a session that hangs; the thread that uses it fails soon, and closes it."""
        self.dropped = True
        # In a thread, because ZEO waits until the server has read what was sent.
        threading.Thread(target=self._interrupt, name="zodb drop", daemon=True).start()

    def _interrupt(self) -> None:
        try:
            self.source.interrupt(self)
        except Exception as error:
            logger.info("Could not give up %s in good order: %s", self.source.name, error)


class GivenSource:
    """A database that the app opened and will close."""

    may_hang = True

    def __init__(self, db: Any) -> None:
        self.name = f"the ZODB {db.database_name!r}"
        self.pid = os.getpid()
        self._db = db

    def open(self, session: Session, deadline: float | None) -> Any:
        if self.pid != os.getpid():
            raise StorageError(
                f"{self.name} was opened before this process was forked; open a database in each"
                " process, or give a zeo:// URI, which does so by itself."
            )
        return self._db

    def interrupt(self, session: Session) -> None:
        """Leave it: the app uses the same database."""

    def close(self, session: Session) -> None:
        if session.connection is not None:
            session.connection.close()


class FileSource:
    """A FileStorage, which belongs to one process."""

    may_hang = False

    def __init__(self, path: str) -> None:
        self.path = self.name = path

    def open(self, session: Session, deadline: float | None) -> Any:
        require_directory(self.path)
        try:
            session.storage = _open_file(self.path)
            return ZODB.DB(session.storage, cache_size=CACHED_OBJECTS)
        except LockError as error:
            raise StorageError(
                f"{self.path} is open in another process, or by another object of this one, and a"
                " ZODB file can be open once only. Serve it by ZEO, as 'python -m ZEO.runzeo -a"
                f" 127.0.0.1:8100 -f {self.path}', and use zeo://127.0.0.1:8100."
            ) from error
        except OSError as error:
            raise storage_error(error, self.path, "open") from error

    def empty_scratch(self) -> None:
        """Empty the file beside it in which ZODB prepares each commit, between two commits.

        It overwrites only its beginning, so that the text of a long one stays for very long.
        """
        try:
            os.truncate(f"{self.path}.tmp", 0)
        except OSError as error:
            raise storage_error(error, f"{self.path}.tmp", "empty") from error

    def interrupt(self, session: Session) -> None:
        """Leave it: a file does not hang."""

    def close(self, session: Session) -> None:
        if session.connection is not None:
            session.connection.close()
        if session.db is not None:
            session.db.close()
        elif session.storage is not None:
            session.storage.close()


class ServerSource:
    """A ZEO server.

    :param storage: the name of the storage on it
    """

    may_hang = True

    def __init__(self, host: str, port: int, storage: str) -> None:
        self.address = (host, port)
        self.storage = storage
        self.name = f"the ZEO server at {host}:{port}"

    def open(self, session: Session, deadline: float | None) -> Any:
        wait = LONGEST_WAIT if deadline is None else min(remaining(deadline), LONGEST_WAIT)
        self._probe(max(wait, 0.01))
        storage = ClientStorage(
            self.address,
            storage=self.storage,
            wait_timeout=max(wait, 0.01),
            # A fresh transaction begins with a question to the server.
            server_sync=True,
        )
        session.storage = storage
        if session.dropped:
            raise ClientDisconnected("given up")
        return ZODB.DB(storage, cache_size=CACHED_OBJECTS)

    def _probe(self, wait: float) -> None:
        """Find out at once that nobody listens, which ZEO's client would go on trying."""
        try:
            socket.create_connection(self.address, wait).close()
        except TimeoutError as error:
            raise StorageTimeoutError(f"No answer from {self.name} in time.") from error
        except OSError as error:
            raise StorageError(
                f"Could not connect to {self.name}: {error.strerror or error}; start it, or"
                " correct the address."
            ) from error

    def interrupt(self, session: Session) -> None:
        if session.storage is not None:
            # A closed client warns of each further call, such as the abort of what was hung.
            session.storage._call = _refuse
            session.storage.close()

    close = interrupt


def _open_file(path: str) -> Any:
    """Open a FileStorage; if that fails, let go of its lock and files, as it does not by itself."""
    storage = FileStorage.__new__(FileStorage)
    try:
        storage.__init__(path)
    except BaseException:
        for name in ("_file", "_tfile", "_lock_file"):
            file = getattr(storage, name, None)
            if file is not None:
                file.close()
        raise
    _open_files.add(storage)
    return storage


def _refuse(*args: Any, **options: Any) -> None:
    raise ClientDisconnected("given up")


def source_of(database: Any) -> Source:
    """Return where a constructor's argument or a URI points to.

    :raises ConfigurationError: nowhere
    """
    if isinstance(database, ZODB.DB):
        return GivenSource(database)
    if isinstance(database, str) and database.startswith("zeo:"):
        return _server_source(database)
    if not isinstance(database, (str, os.PathLike)) or not os.fspath(database):
        raise ConfigurationError(
            "A ZODB storage needs the path of a file, as 'bandits.fs', the URI of a ZEO server, as"
            " 'zeo://127.0.0.1:8100', or a ZODB.DB."
        )
    return FileSource(os.path.abspath(os.fspath(database)))


def _server_source(uri: str) -> ServerSource:
    # The URI is not repeated: somebody may have put a password into it.
    wrong = ConfigurationError(
        "The URI of the ZEO server is not understood; write 'zeo://host:port', or"
        " 'zeo://host:port?storage=name' where the server's storage is not called 1. ZEO knows no"
        " user names and passwords."
    )
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise wrong from None
    storage = options.pop("storage", "1")
    if not host or not port or parts.path not in ("", "/") or "@" in parts.netloc or options:
        raise wrong
    return ServerSource(host, port, storage)


def translated(error: Exception, source: Source) -> StorageError:
    """Make the error that a caller sees of what the libraries raised."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, ConflictError):
        return StorageTimeoutError(
            f"Other processes changed the same objects in {source.name} until the deadline; sending"
            " it again is safe."
        )
    if isinstance(error, (CorruptedError, CorruptedFileStorageError, FileStorageFormatError)):
        return StorageCorruptError(
            f"{source.name} is not a ZODB file, or is damaged ({error}); nothing was reset. Restore"
            " a backup, or configure another path."
        )
    if isinstance(error, ClientDisconnected):
        return StorageTimeoutError(f"{source.name} did not answer in time: {error}.")
    if isinstance(error, OSError) and isinstance(source, FileSource):
        return storage_error(error, source.path, "write to")
    return StorageError(
        f"{source.name} failed: {type(error).__name__}: {error}; nothing of this commit is"
        " acknowledged, and sending it again is safe."
    )


def _let_go_of_files() -> None:
    """Make a forked child's copies of open files point nowhere.

    They share the parent's lock, which the child would hold when the parent is gone, and its
    position, which a late flush would write at.
    """
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for storage in list(_open_files):
        files = [storage._file, storage._tfile, getattr(storage._lock_file, "_fp", None)]
        for file in [*files, *storage._files._files, *storage._files._out]:
            if file is not None and not file.closed:
                os.dup2(nowhere, file.fileno(), inheritable=False)
    _open_files.clear()
    os.close(nowhere)


os.register_at_fork(after_in_child=_let_go_of_files)
