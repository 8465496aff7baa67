"""Does work in transactions: one at a time, again after a conflict, until a deadline.

Knows nothing of what is stored; connections are in ``sessions``.
"""

from __future__ import annotations

import atexit
import random
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from ...errors import StorageError, StorageTimeoutError
from ..locks import ThreadLock, deadline_of, remaining
from .sessions import ClientDisconnected, ConflictError, Session, Source, translated

LONGEST_PAUSE = 0.02

_T = TypeVar("_T")
_opened: weakref.WeakSet[Transactions] = weakref.WeakSet()


class Transactions:
    """All transactions on one database, in whatever process."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._lock = ThreadLock(source.name)
        self._session: Session | None = None

    def close(self) -> None:
        """Give back the connection; never raises, and :meth:`run` opens it again."""
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

    def run(self, work: Callable[[Any], _T], timeout: float | None, fresh: bool = True) -> _T:
        """Do ``work`` on the root object in a transaction.

        :param fresh: which certainly sees all commits
        :raises StorageTimeoutError: the server did not answer, or others changed the same all
            the time
        :raises StorageError: the database failed
        """
        deadline = deadline_of(timeout)
        if deadline is None or not self.source.may_hang:
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
                f"No answer from {self.source.name} in time; sending it again is safe."
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
                    raise translated(error, self.source) from error
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
                session = self._session = Session(self.source)
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
    for transactions in list(_opened):
        transactions.close()
