"""A storage in a ZODB: a file for one process, or a ZEO server for many.

The layout is in ``tables``, connections are in ``sessions``; here are deadlines and
retries.
"""

from __future__ import annotations

import atexit
import glob
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from ...errors import ConfigurationError, StorageError, StorageTimeoutError
from ...model import Counts, Decision, LogEntry
from ..base import BanditStorage, Commit, CommitResult, boolean_option
from ..codec import clean_commit
from ..locks import ThreadLock, deadline_of, remaining
from .sessions import (
    ClientDisconnected,
    ConflictError,
    FileSource,
    Session,
    source_of,
    translated,
)
from .tables import (
    LAYOUT,
    Entry,
    Tables,
    decision_commit,
    layout_of,
    make_tables,
)

PAGE = 200
"""Rows that are read or pruned in one transaction."""
LONGEST_PAUSE = 0.02

_T = TypeVar("_T")
_opened: weakref.WeakSet[ZODBBanditStorage] = weakref.WeakSet()


class ZODBBanditStorage(BanditStorage):
    """Keeps counts and the log in a ZODB, in BTrees under one key of its root object.

    :param database: the path of a file, for one process; ``"zeo://host:port"``, for many; or a
        ``ZODB.DB`` that the app opened and will close
    :param root: the key in the root object; everything else in the database is left alone
    :param auto_migrate: make what is missing at first use; see :meth:`BanditStorage.upgrade`
    :raises ConfigurationError: the arguments do not say where the database is
    """

    def __init__(
        self, database: Any, root: str = "flask_bandit", auto_migrate: bool = True
    ) -> None:
        if not isinstance(root, str) or not root:
            raise ConfigurationError(f"The root key {root!r} of a ZODB storage must be a name.")
        self._source = source_of(database)
        self.root = root
        self.auto_migrate = boolean_option("auto_migrate", auto_migrate)
        # Others write to a server; to a file, only this process does.
        self.default_stats_ttl = 0.1 if isinstance(self._source, FileSource) else 1.0
        self._lock = ThreadLock(self._source.name)
        self._session: Session | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._source.name}>"

    @classmethod
    def from_uri(cls, uri: str, **options: Any) -> ZODBBanditStorage:
        """Make a storage from ``zodb:///relative.fs``, ``zodb:////absolute/path.fs`` or
        ``zeo://host:port``.

        :param options: as of the constructor
        :raises ConfigurationError: the URI is of another form, or an option is unknown
        """
        unknown = sorted(set(options) - {"root", "auto_migrate"})
        if unknown:
            raise ConfigurationError(
                f"A ZODB storage has no option {', '.join(unknown)}; it knows 'root' and"
                " 'auto_migrate'."
            )
        if uri.startswith("zeo:"):
            return cls(uri, **options)
        path = uri.removeprefix("zodb:///")
        if path == uri or not path or "?" in path:
            raise ConfigurationError(
                f"{uri!r} is not a URI of a ZODB storage; write 'zodb:///relative.fs',"
                " 'zodb:////absolute/path.fs' or 'zeo://host:port', options in MAB_STORAGE_OPTS."
            )
        return cls(os.path.abspath(path), **options)

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        """Apply a commit atomically and idempotently; see :meth:`BanditStorage.commit`.

        :raises StorageTimeoutError: the server did not answer, or others changed the same all
            the time
        :raises StorageError: a value cannot be stored or the database failed
        """
        clean = clean_commit(commit)
        # What it does not see yet, it conflicts with. So it need not ask the server first.
        return self._run(lambda tables: tables.commit(clean), timeout, fresh=False)

    def read_counts(self, timeout: float | None = None) -> Counts:
        """Return the sums of all bandits and versions; see :meth:`BanditStorage.read_counts`.

        :raises StorageTimeoutError: the server did not answer
        :raises StorageError: the database failed
        """
        return self._run(Tables.read_counts, timeout)

    def get_decisions(
        self, ids: Iterable[str], timeout: float | None = None
    ) -> Mapping[str, Decision]:
        """Return the stored decisions among ``ids``; see :meth:`BanditStorage.get_decisions`.

        :raises StorageTimeoutError: the server did not answer
        :raises StorageError: the database failed
        """
        wanted = list(ids)
        return self._run(lambda tables: tables.get_decisions(wanted), timeout)

    def iter_log(self, bandit: str | None = None) -> Iterator[LogEntry]:
        """Yield the log as it was at the first step; see :meth:`BanditStorage.iter_log`.

        :raises StorageError: the database failed
        """
        for entry in self._entries("log"):
            assert entry.write is not None
            decision = entry.write.decision
            if bandit in (None, decision.bandit) and not decision.is_pruned:
                yield LogEntry(decision, tuple(stored.reward for stored in entry.rewards))

    def iter_commits(self) -> Iterator[Commit]:
        """Yield what is stored, as commits; see :meth:`BanditStorage.iter_commits`.

        :raises StorageError: the database failed
        """
        # Before the decisions: one that is stored later is not among them.
        waiting = {
            stored.reward.id: stored
            for entry in self._entries("parked")
            for stored in entry.rewards
        }
        for entry in self._entries("log"):
            for stored in entry.rewards:
                waiting.pop(stored.reward.id, None)
            yield decision_commit(entry)
        for stored in waiting.values():
            yield Commit(rewards=stored.writes())
        for item in self._run(Tables.all_adjustments, None):
            yield Commit(adjustments=(item,))

    def _entries(self, tree: str) -> Iterator[Entry]:
        end = self._run(lambda tables: tables.last(tree), None)
        number = 0
        while number < end:
            after = number
            page = self._run(lambda tables: tables.page(tree, after, end, PAGE), None)  # noqa: B023
            if not page:
                return
            yield from page
            number = page[-1].number

    def prune(self, before: float) -> int:
        """Remove the details of old decisions, and pack a file; see :meth:`BanditStorage.prune`.

        A database that is the app's own, or on a server, is not packed: that would remove the
        history of all that is in it. See :meth:`pack`.

        :raises StorageError: the database failed
        """
        end = self._run(lambda tables: tables.last("log"), None)
        number, total = 0, 0
        while number < end:
            after = number
            number, pruned = self._run(
                lambda tables: tables.prune_page(before, after, end, PAGE),  # noqa: B023
                None,
            )
            total += pruned
            if not number:
                break
        if isinstance(self._source, FileSource):
            self.pack()
        return total

    def pack(self) -> None:
        """Give back the space of what was replaced, in the whole database, whoever uses it.

        A ZODB keeps each former state of an object until then, so a file grows with each commit.

        :raises StorageError: the database failed
        """
        db = self._transact(lambda root: root._p_jar.db(), None)
        try:
            db.pack()
        except Exception as error:
            raise translated(error, self._source) from error

    def upgrade(self) -> str:
        """Make what is missing under the key; see :meth:`BanditStorage.upgrade`.

        :raises StorageError: it failed, or a newer version of Flask-Bandit made it
        """

        def make(root: Any) -> bool:
            if layout_of(root, self.root):
                return False
            make_tables(root, self.root)
            return True

        if self._transact(make, None):
            return f"Made layout {LAYOUT} under {self.root!r} in {self._source.name}."
        return f"{self._source.name} has layout {LAYOUT} under {self.root!r}; nothing to do."

    def check(self) -> list[str]:
        """Return what is wrong with a file; see :meth:`BanditStorage.check`."""
        if not isinstance(self._source, FileSource):
            return []
        return [
            f"ZODB found damage at the end of {self._source.path}, cut it off and put it into"
            f" {cut}: compare with a backup, then remove that file."
            for cut in sorted(glob.glob(f"{glob.escape(self._source.path)}.tr[0-9]*"))
        ]

    def close(self) -> None:
        """Give back the connection, and what this object opened; a ``ZODB.DB`` stays open.

        Never raises; using the storage again opens it again.
        """
        session, self._session = self._session, None
        if session is None or session.is_inherited():
            return
        try:
            session.take(deadline_of(1.0))
        except StorageError:
            session.drop()
            return
        try:
            session.close()
        finally:
            session.give_back()

    def _run(self, work: Callable[[Tables], _T], timeout: float | None, fresh: bool = True) -> _T:
        """Do ``work`` on the tables in a transaction.

        :param fresh: which certainly sees all commits
        """
        return self._transact(lambda root: work(self._tables(root)), timeout, fresh)

    def _tables(self, root: Any) -> Tables:
        if not layout_of(root, self.root):
            if not self.auto_migrate:
                raise StorageError(
                    f"{self._source.name} has nothing under {self.root!r}; run 'flask bandit db"
                    " upgrade', or set auto_migrate=True."
                )
            make_tables(root, self.root)
        return Tables(root[self.root])

    def _transact(self, work: Callable[[Any], _T], timeout: float | None, fresh: bool = True) -> _T:
        deadline = deadline_of(timeout)
        if deadline is None or not self._source.may_hang:
            return self._retry(work, deadline, fresh, [])
        # ZEO's client waits for an answer without any limit. So a thread waits, and is given up.
        outcome: Future[_T] = Future()
        used: list[Session] = []

        def call() -> None:
            try:
                outcome.set_result(self._retry(work, deadline, fresh, used))
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=call, name="zodb call", daemon=True).start()
        try:
            return outcome.result(remaining(deadline))
        except FutureTimeoutError:
            for session in used:
                session.drop()
            raise StorageTimeoutError(
                f"No answer from {self._source.name} in time; sending it again is safe."
            ) from None

    def _retry(
        self, work: Callable[[Any], _T], deadline: float | None, fresh: bool, used: list[Session]
    ) -> _T:
        """Do ``work`` until it meets no conflict and no broken connection.

        :param used: holds the session while this thread uses it
        """
        pause = 0.001
        while True:
            session = self._current()
            session.take(deadline)
            used.append(session)
            try:
                if not session.dropped:
                    return _once(session, work, deadline, fresh)
            except (ConflictError, ClientDisconnected) as error:
                if deadline is not None and time.monotonic() + pause >= deadline:
                    raise translated(error, self._source) from error
            finally:
                used.clear()
                if session.dropped:
                    session.close()
                session.give_back()
            fresh = True
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _current(self) -> Session:
        """Return the session of this process, a new one if the last was given up."""
        self._lock.acquire(None)
        try:
            session = self._session
            if session is None or session.dropped or session.is_inherited():
                session = self._session = Session(self._source)
                _opened.add(self)
            return session
        finally:
            self._lock.release()


def _once(session: Session, work: Callable[[Any], _T], deadline: float | None, fresh: bool) -> _T:
    """Do ``work`` in one transaction."""
    try:
        root = session.begin(deadline, fresh)
        result = work(root)
        session.manager.commit()
        return result
    except (ConflictError, StorageError):
        session.abort()
        if session.connection is None:
            session.close()
        raise
    except ClientDisconnected:
        session.abort()
        session.close()
        raise
    except Exception as error:
        # In whatever state it is: the next one begins with what is stored.
        session.abort()
        session.close()
        raise translated(error, session.source) from error
    except BaseException:
        session.abort()
        session.close()
        raise


@atexit.register
def _close_all() -> None:
    for storage in list(_opened):
        storage.close()
