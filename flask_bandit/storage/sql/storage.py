"""The storage: each call on a connection of its own, done by its deadline or failed.

What a commit writes is in :mod:`.commits`; how connections are had and dropped in :mod:`.links`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ...errors import ConfigurationError, StorageError, StorageTimeoutError
from ...model import Counts, Decision, LogEntry
from ..base import BanditStorage, Commit, CommitResult, ControlState, boolean_option
from ..codec import clean_bandit, clean_commit, control_text
from ..locks import deadline_of, remaining
from . import commits, edits, history, migrate
from .engines import (
    cause,
    check_dialect,
    describe,
    is_disconnect,
    is_retried,
    lax_settings,
    make_engine,
    translate,
)
from .forks import forks
from .links import FORKING, Link, Links
from .rows import counts_of

FOREVER = 2**31 - 1
"""Milliseconds; the longest that SQLite can be told to wait."""

PROBE_SECONDS = 10.0
"""How long a check waits for others who write."""

_T = TypeVar("_T")

_COUNTS = text(
    "SELECT bandit, version, arm, name, CAST(sum(count) AS BIGINT), sum(total)"
    " FROM bandit_counts GROUP BY bandit, version, arm, name ORDER BY 1, 2, 3, 4"
)


class SQLBanditStorage(BanditStorage):
    """Keeps counts and the log in PostgreSQL or SQLite, by SQLAlchemy.

    For sites on several machines, and for apps that have a database already. A commit of what is
    new is one statement; counts are exact however many processes write.

    :param engine: a URI such as ``"postgresql+psycopg://user:password@host/database"``; an
        engine of the app's; or a function that returns one, called at first use, as
        ``lambda: db.engine`` for Flask-SQLAlchemy
    :param auto_migrate: make and update the tables at first use; without, ``flask bandit db
        upgrade`` does
    :raises ConfigurationError: the URI cannot be used, or its driver is not installed
    """

    default_stats_ttl = 1.0

    def __init__(
        self, engine: str | Engine | Callable[[], Engine], *, auto_migrate: bool = True
    ) -> None:
        self.auto_migrate = boolean_option("auto_migrate", auto_migrate)
        self._given = engine
        self._links: Links | None = None
        self._own = isinstance(engine, str)
        self._has_tables = False
        self._pid = os.getpid()
        if isinstance(engine, str):
            self._links = self._make_links(make_engine(engine))
        elif not isinstance(engine, Engine) and not callable(engine):
            raise ConfigurationError(
                f"SQLBanditStorage takes a URI, an engine or a function that returns one, not a"
                f" {type(engine).__name__}; with Flask-SQLAlchemy, 'lambda: db.engine'."
            )
        forks.watch(self)

    def __repr__(self) -> str:
        where = describe(self._links.engine) if self._links else "not connected yet"
        return f"<{type(self).__name__} {where}>"

    @classmethod
    def from_uri(cls, uri: str, **options: Any) -> SQLBanditStorage:
        """Make a storage from ``postgresql+psycopg://...`` or ``sqlite+pysqlite:///file.db``.

        :param options: as of the constructor
        :raises ConfigurationError: the URI cannot be used, or an option is unknown
        """
        unknown = sorted(set(options) - {"auto_migrate"})
        if unknown:
            raise ConfigurationError(
                f"An SQL storage has no option {', '.join(unknown)}; it knows 'auto_migrate'."
                " For an engine with options of your own, hand the engine to SQLBanditStorage."
            )
        return cls(uri, **options)

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        """Apply a commit atomically and idempotently; see :meth:`BanditStorage.commit`.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: a value cannot be stored, or the database failed
        """
        clean = clean_commit(commit)
        if not clean:
            return CommitResult()
        return self._run(lambda connection: commits.apply(connection, clean), timeout)

    def read_counts(self, timeout: float | None = None) -> Counts:
        """Return the sums of all bandits and versions; see :meth:`BanditStorage.read_counts`.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: the database failed
        """
        return self._run(lambda c: counts_of(c.execute(_COUNTS)), timeout)

    def get_decisions(
        self, ids: Iterable[str], timeout: float | None = None
    ) -> Mapping[str, Decision]:
        """Return the stored decisions among ``ids``; see :meth:`BanditStorage.get_decisions`.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: the database failed
        """
        wanted = sorted(set(ids))
        return self._run(lambda c: commits.read_decisions(c, wanted), timeout)

    def iter_log(
        self,
        bandit: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[LogEntry]:
        """Yield the log in pages; see :meth:`BanditStorage.iter_log`.

        One bandit's decisions are found by an index, also those of some days; the times of all
        bandits together have none, and the whole table is read.

        :raises StorageError: the database failed
        """
        return history.iter_log(self._read, bandit, since, until)

    def iter_commits(self) -> Iterator[Commit]:
        """Yield everything in pages; see :meth:`BanditStorage.iter_commits`.

        :raises StorageError: the database failed
        """
        return history.iter_commits(self._read)

    def prune(self, before: float) -> int:
        """Remove the details of old decisions, a page at a time; see :meth:`BanditStorage.prune`.

        :raises StorageError: the database failed; the pages before are pruned
        """
        return history.prune(self._read, before)

    def erase(self, ids: Iterable[str], timeout: float | None = None) -> int:
        """Remove the subject and the context of decisions; see :meth:`BanditStorage.erase`.

        PostgreSQL keeps the old rows where nobody sees them until ``VACUUM``, which autovacuum
        does by itself after a while, and then until their space is used again. In SQLite they are
        overwritten, and the write-ahead log is emptied.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: the database failed; erasing again is safe
        """
        deadline = deadline_of(timeout)
        total = 0
        for some in commits.chunks(sorted(set(ids))):
            total += self._run(partial(edits.erase, ids=some), _left(deadline))
        # Even where nothing was found: the time before may have failed at just this.
        self._run(partial(edits.empty_log, deadline=deadline), _left(deadline))
        return total

    def read_control(self, timeout: float | None = None) -> Mapping[str, ControlState]:
        """Return the states of all bandits; see :meth:`BanditStorage.read_control`.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: the database failed
        """
        return self._run(edits.read_control, timeout)

    def write_control(
        self,
        bandit: str,
        state: ControlState,
        expected: ControlState | None,
        timeout: float | None = None,
    ) -> bool:
        """Replace a bandit's state, if it is the expected one; see the base class.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: a value cannot be stored, or the database failed
        """
        name, new = clean_bandit(bandit), control_text(state)
        seen = None if expected is None else control_text(expected)
        lost = False

        def replace(connection: Connection) -> bool:
            nonlocal lost
            try:
                done = edits.write_control(connection, name, new, seen)
            except DBAPIError as error:
                lost = lost or is_disconnect(error)
                raise
            # It may have been stored just before the connection broke: then it is this one.
            return done or (lost and edits.holds(connection, name, new))

        return self._run(replace, timeout)

    def upgrade(self) -> str:
        """Make or update the tables; see :meth:`BanditStorage.upgrade`.

        :raises StorageError: the database failed, or its tables were made by a later version
        """
        done = self._run(lambda c: migrate.migrate(c, None), None, upgrading=True)
        self._has_tables = True
        return done

    def check(self) -> list[str]:
        """Return what is wrong with the tables or the server's settings.

        Writes what a commit writes, and rolls it back.

        :raises StorageError: the database cannot be reached
        """
        found = []
        try:
            self._read(lambda c: None)
        except StorageError as error:
            if self._has_tables or "db upgrade" not in str(error):
                raise
            found.append(str(error))
        else:
            try:
                self._run(commits.rehearse, PROBE_SECONDS)
            except StorageError as error:
                found.append(f"Commits cannot be stored. {error}")
        return found + self._run(lax_settings, None, upgrading=True)

    def close(self) -> None:
        """Give back the connections; using the storage again opens new ones."""
        if self._links is not None and self._pid == os.getpid():
            self._links.clear()

    def _read(self, work: Callable[[Connection], _T]) -> _T:
        return self._run(work, None)

    def _run(
        self,
        work: Callable[[Connection], _T],
        timeout: float | None,
        *,
        upgrading: bool = False,
    ) -> _T:
        """Do ``work`` on a connection, again where that is safe and helps, until the deadline.

        Work is done completely or not at all, and may be done twice.

        :param upgrading: the tables need not be there
        """
        deadline = deadline_of(timeout)
        links = self._resolve(deadline)
        tries = 0
        while True:
            try:
                link = links.take(deadline)
            except Exception as error:
                raise translate(error, links.engine, False) from cause(error, links.engine)
            try:
                with link.until(deadline):
                    self._prepare(link, deadline, upgrading)
                    result = work(link.connection)
                    self._restore(link)
            except BaseException as error:
                tries += 1
                self._recover(links, link, error, tries, deadline)
            else:
                links.give(link)
                return result

    def _recover(
        self, links: Links, link: Link, error: BaseException, tries: int, deadline: float | None
    ) -> None:
        """Leave no trace of a failure, and raise it unless the work may be tried again."""
        broken = link.expired or is_disconnect(error) or not isinstance(error, Exception)
        if not broken:
            broken = not self._roll_back(link, deadline)
        if broken:
            links.drop(link)
        else:
            links.give(link)
        if isinstance(error, Exception) and not link.expired:
            if is_disconnect(error) and link.used and tries == 1:
                # The server was restarted while nobody asked: the others are dead as well.
                links.clear()
                return
            if is_retried(error) and tries < 1000 and remaining(deadline) != 0.0:
                time.sleep(random.uniform(0.0, min(0.002 * tries, 0.05)))
                return
        if "bandit_" in str(getattr(error, "orig", "")):
            # The tables may have been removed.
            self._has_tables = False
        raise translate(error, links.engine, link.expired) from cause(error, links.engine)

    def _roll_back(self, link: Link, deadline: float | None) -> bool:
        """End a transaction that failed; outside of one it changes nothing."""
        try:
            with link.until(deadline):
                if link.in_transaction:
                    link.connection.exec_driver_sql("ROLLBACK")
                self._restore(link)
        except Exception:
            return False
        return True

    def _prepare(self, link: Link, deadline: float | None, upgrading: bool) -> None:
        """Set what holds for this call only, and look after the tables at first use."""
        connection = link.connection
        if connection.dialect.name == "sqlite":
            link.busy_timeout = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
            left = remaining(deadline)
            milliseconds = FOREVER if deadline is None else min(FOREVER, int(left * 1000))
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {milliseconds}")
            if self._own and not link.used:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
                # Where rows move to another page, a copy would stay that erasing cannot find.
                connection.exec_driver_sql("PRAGMA secure_delete = ON")
        if self._has_tables or upgrading:
            return
        version = migrate.stored_version(connection)
        if version != migrate.VERSIONS[-1]:
            if not self.auto_migrate:
                raise StorageError(
                    f"The bandits' tables are {'of version ' + version if version else 'missing'}"
                    f" and shall be of version {migrate.VERSIONS[-1]}: run 'flask bandit db"
                    " upgrade', or set auto_migrate to True."
                )
            migrate.migrate(connection, deadline)
        self._has_tables = True

    def _restore(self, link: Link) -> None:
        """Undo what :meth:`_prepare` set on a connection of the app's."""
        if link.busy_timeout is not None and not self._own:
            link.connection.exec_driver_sql(f"PRAGMA busy_timeout = {link.busy_timeout}")
        link.busy_timeout = None

    def _resolve(self, deadline: float | None) -> Links:
        """Return the connections, of the engine that the app has by now."""
        if self._links is None:
            engine = self._given if isinstance(self._given, Engine) else self._given()  # type: ignore[operator]
            if not forks.gate.acquire(timeout=remaining(deadline)):
                raise StorageTimeoutError(FORKING)
            try:
                if self._links is None:
                    self._links = self._make_links(engine)
            finally:
                forks.gate.release()
        return self._links

    def _make_links(self, engine: Engine) -> Links:
        if not isinstance(engine, Engine):
            raise ConfigurationError(
                f"SQLBanditStorage was given a function that returns a {type(engine).__name__};"
                " it must return an SQLAlchemy engine, as 'lambda: db.engine' does."
            )
        check_dialect(engine.dialect.name)
        links = Links(engine, self._own)
        if self._pid != os.getpid():
            self._forget(links)
        return links

    def _forget(self, links: Links) -> None:
        """Begin anew in a child."""
        links.forget(make_engine(self._given) if isinstance(self._given, str) else None)
        self._pid = os.getpid()


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else remaining(deadline)
