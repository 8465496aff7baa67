"""One call on a connection: done by its deadline, again where that is safe, or failed.

What is done is in :mod:`.storage`; how connections are had and dropped in :mod:`.links`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine

from ...errors import ConfigurationError, StorageError, StorageTimeoutError
from ..base import boolean_option
from ..locks import deadline_of, remaining
from . import migrate
from .engines import cause, check_dialect, is_disconnect, is_retried, make_engine, translate
from .forks import forks
from .links import FORKING, Link, Links

FOREVER = 2**31 - 1
"""Milliseconds; the longest that SQLite can be told to wait."""

_T = TypeVar("_T")


class Calls:
    """What an SQL storage is before it knows what to store: an engine, and tables that are there.

    :param engine: as of :class:`~flask_bandit.storage.SQLBanditStorage`
    :raises ConfigurationError: it cannot be used
    """

    def __init__(self, engine: str | Engine | Callable[[], Engine], auto_migrate: bool) -> None:
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
