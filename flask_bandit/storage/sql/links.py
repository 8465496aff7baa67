"""Connections for calls that have a deadline: opening, keeping, and dropping them.

Knows SQLAlchemy's engine and no tables.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import QueuePool

from ...errors import StorageError, StorageTimeoutError
from ..locks import remaining
from . import watchdog
from .watchdog import Wire

KEPT = 16
"""How many idle connections a process keeps open."""

HOPELESS = 16
"""How many threads may hang in opening connections that nobody waits for any more."""

OPENING_SECONDS = 5
"""How long such a thread tries."""

FORK_PATIENCE = 2.0
"""Seconds for which a fork waits until no connection to an SQLite file is in use."""

FORKING = (
    "This process was being forked until the deadline; sending it again is safe. Fork before there"
    " is traffic, or make the calls shorter for which a fork waits."
)

_opened = threading.local()

_inherited: list[Any] = []
"""What a forked child got from its parent: closing it would end the parent's sessions."""


class Link:
    """A connection in autocommit mode, and the handle by which it can be cut."""

    def __init__(self, connection: Connection, wire: Wire | None) -> None:
        self.connection = connection
        self.wire = wire
        self.used = False
        """Whether it served a call before; then it may have died since."""

        self.busy_timeout: int | None = None
        """What SQLite's was before this call."""

    @property
    def in_transaction(self) -> bool:
        """Whether the driver says that a transaction is open; true if it does not say."""
        driver: Any = self.connection.connection.driver_connection
        if self.wire is None:
            return bool(driver.in_transaction)
        info = getattr(driver, "info", None)
        return getattr(info, "transaction_status", 1) != 0

    @property
    def expired(self) -> bool:
        """True if it was cut because a deadline passed."""
        return self.wire is not None and self.wire.expired

    @contextmanager
    def until(self, deadline: float | None) -> Iterator[None]:
        """Cut the connection if the block is not done by the deadline."""
        if self.wire is None or deadline is None:
            yield
            return
        # The child of a fork has another one.
        dog = watchdog.watchdog
        dog.watch(self.wire, deadline)
        try:
            yield
        finally:
            dog.let_go(self.wire)


class Links:
    """The connections of one engine.

    Opening one may take longer than any deadline (a name server, a server that hangs, an app's
    pool that is empty), so a thread does it and the caller stops waiting in time.

    :param own: whether the engine is ours. Then idle connections are kept here; if it is the
        app's, they go back to its pool.
    """

    def __init__(self, engine: Engine, own: bool) -> None:
        self.engine = engine
        self._own = own
        self._local = engine.dialect.name == "sqlite"
        self._changed = threading.Condition()
        self._idle: list[Link] = []
        self._waiting = 0
        self._opening = 0
        self._taken = 0
        self._forking = False
        self._unusable = False

    def take(self, deadline: float | None) -> Link:
        """Return a connection that is the caller's until it is given back or dropped.

        :raises StorageTimeoutError: none was to be had in time
        """
        if self._local:
            return self._take_local(deadline)
        with self._locked(deadline):
            if self._idle:
                return self._idle.pop()
            if deadline is not None:
                return self._wait(deadline)
        return self._open()

    @contextmanager
    def _locked(self, deadline: float | None) -> Iterator[None]:
        """Hold the lock, which a fork may have for a while."""
        if not self._changed.acquire(timeout=remaining(deadline)):
            raise StorageTimeoutError(FORKING)
        try:
            yield
        finally:
            self._changed.release()

    def _take_local(self, deadline: float | None) -> Link:
        if self._unusable:
            raise StorageError(
                "This process was forked while a connection to the SQLite database was in use,"
                " and SQLite would lose commits; use the storage only after the fork."
            )
        with self._locked(deadline):
            left = None if deadline is None else remaining(deadline)
            if not self._changed.wait_for(lambda: not self._forking, left):
                raise StorageTimeoutError(FORKING)
            self._taken += 1
            if self._idle:
                return self._idle.pop()
        try:
            return self._open()
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        with self._changed:
            self._taken -= 1
            self._changed.notify_all()

    def _wait(self, deadline: float) -> Link:
        self._waiting += 1
        failures: list[BaseException] = []
        try:
            # Not in the wake of an earlier one: that may wait for a host that is gone for good.
            if self._opening < self._waiting + HOPELESS:
                watchdog.start_thread(self._open_aside, failures)
                self._opening += 1
            while True:
                if self._idle:
                    return self._idle.pop()
                if failures:
                    raise failures[0]
                left = remaining(deadline)
                if left <= 0.0:
                    raise StorageTimeoutError(
                        "No connection to the database was to be had before the deadline; sending"
                        " it again is safe. Look whether the server runs and can be reached."
                    )
                self._changed.wait(left)
        finally:
            self._waiting -= 1
            late = []
            if not self._waiting and not self._own:
                late, self._idle = self._idle, []
            for link in late:
                self._close(link)

    def _open_aside(self, failures: list[BaseException]) -> None:
        """Open a connection for who needs one first; tell a failure to who asked for it."""
        link = None
        try:
            link = self._open()
        except BaseException as error:
            failures.append(error)
        with self._changed:
            self._opening -= 1
            if link is not None and (self._waiting or (self._own and len(self._idle) < KEPT)):
                self._idle.append(link)
                link = None
            self._changed.notify_all()
        if link is not None:
            self._close(link)

    def _open(self) -> Link:
        with self._guarded_opening():
            connection = self.engine.connect()
        try:
            if not self._own:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            fairy = connection.connection
            wire = None if self._local else Wire(fairy.driver_connection)
        except BaseException:
            connection.close()
            raise
        return Link(connection, wire)

    @contextmanager
    def _guarded_opening(self) -> Iterator[None]:
        """Give up on a server that hangs after it has accepted the connection.

        SQLAlchemy asks it a few things then, and lets all other threads wait for the answers.
        """
        _opened.wire = None
        try:
            yield
        finally:
            if _opened.wire is not None:
                watchdog.watchdog.let_go(_opened.wire)
                _opened.wire.close()

    def give(self, link: Link) -> None:
        """Take a connection back that is fit for use."""
        if link.expired:
            self.drop(link)
            return
        link.used = True
        with self._changed:
            keeps = self._own and len(self._idle) < KEPT
            if keeps:
                self._idle.append(link)
                self._changed.notify()
        if not keeps:
            self._close(link)
        if self._local:
            self._let_go()

    def drop(self, link: Link) -> None:
        """End a connection that may be broken, without waiting for anything."""
        if link.wire is not None:
            link.wire.shut()
        with suppress(Exception):
            link.connection.invalidate()
        self._close(link)
        if self._local:
            self._let_go()

    def clear(self) -> None:
        """End all idle connections."""
        with self._changed:
            idle, self._idle = self._idle, []
        for link in idle:
            self._close(link)

    def _close(self, link: Link) -> None:
        with suppress(Exception):
            link.connection.close()
        if link.wire is not None:
            link.wire.close()

    @property
    def waits_at_forks(self) -> bool:
        """Whether a fork has to wait until no connection is in use."""
        return self._local

    def before_fork(self, deadline: float) -> None:
        """Close what a child must not inherit, and keep other threads from opening it again.

        SQLite counts the locks of a process in its memory. A child inherits the count and not the
        locks: its own connections would take no locks at all, and commits would be lost.

        :param deadline: when to fork although one is in use
        """
        if not self._local:
            self._changed.acquire()
            return
        with self._changed:
            # No new calls, or there would always be one.
            self._forking = True
            self._changed.wait_for(lambda: self._taken == 0, remaining(deadline))
            idle, self._idle = self._idle, []
            for link in idle:
                self._close(link)
            if isinstance(self.engine.pool, QueuePool):
                self.engine.dispose()

    def after_fork(self) -> None:
        """Let the threads of the parent go on."""
        if not self._local:
            self._changed.release()
            return
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def forget(self, engine: Engine | None) -> None:
        """Leave everything to the parent, in a child that was just forked.

        :param engine: a new one like ours, none if it is the app's: SQLAlchemy's locks may be held
            by a thread that was connecting and is not here
        """
        _inherited.append((self.engine, self._idle, self._changed))
        unusable = self._local and bool(self._taken or self._idle)
        if engine is None:
            self.engine.dispose(close=False)
        self.__init__(engine or self.engine, self._own)  # type: ignore[misc]
        self._unusable = unusable


def guard_opening(engine: Engine) -> None:
    """Limit the time that a new connection of an engine of ours takes to become usable."""

    def guard(driver_connection: Any, record: object) -> None:
        _opened.wire = wire = Wire(driver_connection)
        watchdog.watchdog.watch(wire, time.monotonic() + OPENING_SECONDS)

    event.listen(engine, "connect", guard, insert=True)
