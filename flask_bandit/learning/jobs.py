"""One job in flight for each bandit, over all workers: a lease in the storage, and a heartbeat.

A process that dies says nothing any more, so its lease runs out, and others may go on. Must not
import Flask.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from ..errors import BanditError, LifecycleError, StorageError
from .books import Books
from .records import DOING, DONE, FAILED, PENDING, STOPPED, UNDER_WAY, Index, Job, ModelRecord

LEASE = 60.0
"""Seconds after which a process that says nothing is taken for dead."""
BEAT = 10.0
"""Seconds between two signs of life."""

Choose = Callable[[Index], ModelRecord]


class JobStoppedError(LifecycleError):
    """A job that was told to stop, or that another process has taken over."""


class Lease:
    """The right to be at work, renewed by a thread for as long as the process lives."""

    def __init__(self, books: Books, job: Job) -> None:
        self._books = books
        self._job = job
        self._until = job.until
        self._obstacle = ""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def n(self) -> int:
        """The model that is worked on."""
        return self._job.n

    def start(self) -> None:
        """Begin to say that the process is alive."""
        self._thread.start()

    def end(self) -> None:
        """Say no more."""
        self._is_over.set()
        self._thread.join()

    def check(self) -> None:
        """Raise if the work has to end here.

        :raises JobStoppedError: it was stopped, or taken over
        """
        if self._obstacle:
            raise JobStoppedError(self._obstacle)

    def record(
        self,
        change: Callable[[ModelRecord], ModelRecord],
        also: Callable[[Index], Index] = lambda index: index,
    ) -> ModelRecord:
        """Change in one step the record of the model that is worked on, and all else.

        :raises JobStoppedError: another process has taken it over
        """
        index = self._books.update(lambda index: also(self._changed(index, change)))
        record = index.get(self.n)
        assert record is not None
        return record

    def finish(
        self,
        change: Callable[[ModelRecord], ModelRecord],
        also: Callable[[Index], Index] = lambda index: index,
    ) -> ModelRecord:
        """Do as :meth:`record`, and say in the same step that nobody is at work any more.

        :raises JobStoppedError: another process has taken it over
        """
        return self.record(change, lambda index: replace(also(index), job=None))

    def _changed(self, index: Index, change: Callable[[ModelRecord], ModelRecord]) -> Index:
        record = index.get(self.n)
        if index.job is None or index.job.id != self._job.id or record is None:
            raise JobStoppedError(_TAKEN)
        return index.put(change(record))

    def _beat(self) -> None:
        while not self._is_over.wait(BEAT):
            try:
                self._books.update(self._renewed)
            except Exception as error:  # whatever a storage raises, the next beat may get through
                if time.time() >= self._until:
                    self._obstacle = f"the storage could not be told that it is alive: {error}"

    def _renewed(self, index: Index) -> Index:
        if index.job is None or index.job.id != self._job.id:
            self._obstacle = _TAKEN
            return index
        if index.job.stop:
            self._obstacle = "it was stopped"
        self._until = time.time() + LEASE
        return replace(index, job=replace(index.job, until=self._until))


_TAKEN = "another process has taken it over, since this one was silent for too long"


@contextmanager
def at_work(books: Books, work: str, choose: Choose, params: Mapping[str, Any]) -> Iterator[Lease]:
    """Work on a model while nobody else does; what goes wrong is recorded, and comes out.

    The body ends with :meth:`Lease.finish`.

    :param work: ``train``, ``evaluate`` or ``deploy``
    :param choose: returns the model's record; called again if somebody else was faster
    :param params: what :func:`dead_job` will tell, if the process dies
    :raises LifecycleError: another job is in flight
    :raises JobStoppedError: it was stopped
    """
    lease = _begun(books, work, choose, params)
    lease.start()
    try:
        lease.record(lambda record: record.at(work, DOING[work]))
        yield lease
    except JobStoppedError as error:
        _fail(lease, books, work, STOPPED, str(error))
        raise JobStoppedError(f"model {lease.n} of {books.name!r}: {error}") from None
    except Exception as error:
        # An error of the library says all by its text.
        is_own = isinstance(error, BanditError)
        text = str(error) if is_own else f"{type(error).__name__}: {error}"
        _fail(lease, books, work, FAILED, text)
        raise
    except BaseException as error:
        _fail(lease, books, work, STOPPED, f"interrupted: {type(error).__name__}")
        raise
    finally:
        lease.end()


def _begun(books: Books, work: str, choose: Choose, params: Mapping[str, Any]) -> Lease:
    started: list[Job] = []

    def claim(index: Index) -> Index:
        index = _without_dead(index, books.name).serving(books.control().model)
        record = choose(index)
        now = time.time()
        job = Job(
            id=secrets.token_hex(8),
            work=work,
            n=record.n,
            holder=f"{socket.gethostname()}:{os.getpid()}",
            started=now,
            until=now + LEASE,
            params=dict(params),
        )
        started[:] = [job]
        return replace(index.put(record.at(work, PENDING, error="")), job=job)

    books.update(claim)
    return Lease(books, started[0])


def _without_dead(index: Index, name: str) -> Index:
    """Return an index without a job whose process has died.

    :raises LifecycleError: its process is alive
    """
    job = index.job
    if job is None:
        return index
    if not job.is_dead(time.time()):
        raise LifecycleError(
            f"{DOING[job.work]} of model {job.n} of {name!r} is in flight in {job.holder}; wait "
            "until it is done, or stop it"
        )
    record, text = index.get(job.n), f"its process {job.holder} died"
    if record is not None and record.states.get(job.work) in UNDER_WAY:
        index = index.put(record.at(job.work, FAILED, error=text))
    return replace(index, job=None)


def stop(books: Books) -> Job | None:
    """Tell the job in flight to stop; it does at its next sign of life.

    One whose process has died is recorded as stopped at once.

    :return: the job, ``None`` if there is none
    """
    found: list[Job | None] = [None]

    def tell(index: Index) -> Index:
        job = found[0] = index.job
        if job is None:
            return index
        if not job.is_dead(time.time()):
            return replace(index, job=replace(job, stop=True))
        record = index.get(job.n)
        if record is not None:
            index = index.put(record.at(job.work, STOPPED, error=f"its process {job.holder} died"))
        return replace(index.serving(books.control().model), job=None)

    books.update(tell)
    return found[0]


def dead_job(books: Books) -> Job:
    """Return the job whose process has died.

    :raises LifecycleError: there is none
    """
    job = books.read().job
    if job is None:
        raise LifecycleError(f"no job of {books.name!r} is under way, so none can be resumed")
    if not job.is_dead(time.time()):
        raise LifecycleError(
            f"{DOING[job.work]} of model {job.n} of {books.name!r} is in flight in {job.holder}, "
            "which is alive, or died less than a minute ago"
        )
    return job


def _fail(lease: Lease, books: Books, work: str, state: str, text: str) -> None:
    def ended(record: ModelRecord) -> ModelRecord:
        # What was done before an error behind it stays done.
        is_done = record.states.get(work) == DONE[work]
        return record if is_done else record.at(work, state, error=text)

    # The storage may be what failed, or another process may be at work by now.
    with suppress(StorageError, JobStoppedError):
        champion = books.control().model
        lease.finish(ended, lambda index: index.serving(champion))
