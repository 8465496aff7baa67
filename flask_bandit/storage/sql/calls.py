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

from ...errors import ConfigurationError, StorageTimeoutError
from ..locks import remaining
from .engines import cause, check_dialect, is_disconnect, is_retried, make_engine, translate
from .forks import forks
from .links import FORKING, Link, Links

FOREVER = 2**31 - 1
"""Milliseconds; the longest that SQLite can be told to wait."""

_T = TypeVar("_T")


class Calls:
    """An engine, and what is done on it; knows neither tables nor statements.

    :param engine: as of :class:`~flask_bandit.storage.SQLBanditStorage`
    :raises ConfigurationError: it cannot be used
    """

    def __init__(self, engine: str | Engine | Callable[[], Engine]) -> None:
        self._given = engine
        self.links: Links | None = None
        """``None`` until an engine is known."""
        self._own = isinstance(engine, str)
        self._pid = os.getpid()
        if isinstance(engine, str):
            self.links = self._make_links(make_engine(engine))
        elif not isinstance(engine, Engine) and not callable(engine):
            raise ConfigurationError(
                f"SQLBanditStorage takes a URI, an engine or a function that returns one, not a"
                f" {type(engine).__name__}; with Flask-SQLAlchemy, 'lambda: db.engine'."
            )
        forks.watch(self)

    def close(self) -> None:
        """Give back the connections; using it again opens new ones."""
        if self.links is not None and self._pid == os.getpid():
            self.links.clear()

    def run(self, work: Callable[[Connection], _T], deadline: float | None) -> _T:
        """Do ``work`` on a connection, again where that is safe and helps, until the deadline.

        :param work: is done completely or not at all, and may be done twice
        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: the database failed
        """
        links = self._resolve(deadline)
        tries = 0
        while True:
            try:
                link = links.take(deadline)
            except Exception as error:
                raise translate(error, links.engine, False) from cause(error, links.engine)
            try:
                with link.until(deadline):
                    self._prepare(link, deadline)
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

    def _prepare(self, link: Link, deadline: float | None) -> None:
        """Set what holds for this call only."""
        connection = link.connection
        if connection.dialect.name != "sqlite":
            return
        link.busy_timeout = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
        left = remaining(deadline)
        milliseconds = FOREVER if deadline is None else min(FOREVER, int(left * 1000))
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {milliseconds}")
        if self._own and not link.used:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
            # Where rows move to another page, a copy would stay that erasing cannot find.
            connection.exec_driver_sql("PRAGMA secure_delete = ON")

    def _restore(self, link: Link) -> None:
        """Undo what :meth:`_prepare` set on a connection of the app's."""
        if link.busy_timeout is not None and not self._own:
            link.connection.exec_driver_sql(f"PRAGMA busy_timeout = {link.busy_timeout}")
        link.busy_timeout = None

    def _resolve(self, deadline: float | None) -> Links:
        """Return the connections, of the engine that the app has by now."""
        if self.links is None:
            engine = self._given if isinstance(self._given, Engine) else self._given()  # type: ignore[operator]
            if not forks.gate.acquire(timeout=remaining(deadline)):
                raise StorageTimeoutError(FORKING)
            try:
                if self.links is None:
                    self.links = self._make_links(engine)
            finally:
                forks.gate.release()
        return self.links

    def _make_links(self, engine: Engine) -> Links:
        if not isinstance(engine, Engine):
            raise ConfigurationError(
                f"SQLBanditStorage was given a function that returns a {type(engine).__name__};"
                " it must return an SQLAlchemy engine, as 'lambda: db.engine' does."
            )
        check_dialect(engine.dialect.name)
        links = Links(engine, self._own)
        if self._pid != os.getpid():
            self.forget(links)
        return links

    def forget(self, links: Links) -> None:
        """Begin anew in a child."""
        links.forget(make_engine(self._given) if isinstance(self._given, str) else None)
        self._pid = os.getpid()
