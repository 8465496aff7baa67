"""One job in flight for each bandit: over threads, processes, and processes that die."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from flask_bandit.errors import LifecycleError, StorageError
from flask_bandit.learning import ExperimentManager, JobStoppedError, ModelRecord, jobs
from flask_bandit.learning.books import Books
from flask_bandit.learning.jobs import at_work
from flask_bandit.learning.records import TRAIN, Index
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.sqlite import SQLiteBanditStorage
from flask_bandit.testing.storage_processes import PATIENCE, run_processes, start_process

from .shop import make_engine, write_log
from .workers import PATH, manager_of, train_if_free, train_patiently, train_until_stopped

BROKEN = "storage is down"
Started: TypeAlias = tuple[BaseProcess, Connection]


@pytest.fixture
def books() -> Books:
    return Books(MemoryBanditStorage(), "offer")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "bandits.db"
    write_log(SQLiteBanditStorage(str(path)), 200, 1)
    return path


def fresh(index: Index) -> ModelRecord:
    return ModelRecord(n=index.following)


def wait_for(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.005)


def states(manager: ExperimentManager) -> list[str]:
    return [record.state for record in manager.models()]


def test_states_and_what_is_in_flight_are_recorded(books: Books) -> None:
    with at_work(books, TRAIN, fresh, {"trainer": "ridge"}) as lease:
        index = books.read()
        record = index.get(1)
        assert record is not None
        assert record.state == "TRAINING"
        assert index.job is not None
        assert index.job.holder.endswith(f":{os.getpid()}")
        assert index.job.params == {"trainer": "ridge"}
        lease.finish(lambda record: record.at(TRAIN, "TRAINED"))
    index = books.read()
    assert index.job is None
    assert [each.state for each in index.models] == ["TRAINED"]


def test_a_second_job_is_refused(books: Books) -> None:
    with at_work(books, TRAIN, fresh, {}) as lease:
        with (
            pytest.raises(LifecycleError, match=r"TRAINING of model 1 of 'offer' is in flight in"),
            at_work(books, TRAIN, fresh, {}),
        ):
            pass
        lease.finish(lambda record: record)
    assert len(books.read().models) == 1


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (ValueError("it broke"), "FAILED", "ValueError: it broke"),
        (StorageError(BROKEN), "FAILED", BROKEN),
        (KeyboardInterrupt(), "STOPPED", "interrupted: KeyboardInterrupt"),
    ],
)
def test_what_goes_wrong_is_recorded_and_comes_out(
    books: Books, error: BaseException, state: str, text: str
) -> None:
    with pytest.raises(type(error)), at_work(books, TRAIN, fresh, {}):
        raise error
    (record,) = books.read().models
    assert (record.state, record.error) == (state, text)
    assert books.read().job is None


def test_an_error_is_gone_when_it_goes_well(books: Books) -> None:
    with pytest.raises(ValueError, match="broke"), at_work(books, TRAIN, fresh, {}):
        raise ValueError("it broke")
    with at_work(books, TRAIN, lambda index: index.models[0], {}) as lease:
        lease.finish(lambda record: record.at(TRAIN, "TRAINED"))
    (record,) = books.read().models
    assert (record.state, record.error) == ("TRAINED", "")


def test_a_job_says_that_it_is_alive(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BEAT", 0.01)
    with at_work(books, TRAIN, fresh, {}) as lease:
        first = books.read().job
        assert first is not None

        def is_later() -> bool:
            job = books.read().job
            return job is not None and job.until > first.until

        wait_for(is_later)
        lease.finish(lambda record: record)


def test_a_job_that_was_silent_for_too_long_is_taken_over(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LEASE", -1.0)

    def be_silent() -> None:
        with at_work(books, TRAIN, fresh, {}) as silent:
            monkeypatch.setattr(jobs, "LEASE", 60.0)
            with at_work(books, TRAIN, fresh, {}) as other:
                first, second = books.read().models
                assert "died" in first.error
                assert (first.state, second.state) == ("FAILED", "TRAINING")
                with pytest.raises(JobStoppedError):
                    silent.record(lambda record: record)
                other.finish(lambda record: record.at(TRAIN, "TRAINED"))
            silent.finish(lambda record: record.at(TRAIN, "TRAINED"))

    with pytest.raises(JobStoppedError, match="another process has taken it over"):
        be_silent()
    # The one that was late changed nothing.
    assert [each.state for each in books.read().models] == ["FAILED", "TRAINED"]


class Flaky(MemoryBanditStorage):
    """Fails while it is told to."""

    is_down = False

    def read_digest(self, *args: Any) -> Any:
        if self.is_down:
            raise StorageError(BROKEN)
        return super().read_digest(*args)


def test_an_outage_shorter_than_the_lease_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BEAT", 0.005)
    storage = Flaky()
    books = Books(storage, "offer")
    with at_work(books, TRAIN, fresh, {}) as lease:
        storage.is_down = True
        time.sleep(0.05)
        lease.check()
        storage.is_down = False
        lease.finish(lambda record: record.at(TRAIN, "TRAINED"))
    assert books.read().models[0].state == "TRAINED"


def test_an_outage_longer_than_the_lease_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BEAT", 0.005)
    monkeypatch.setattr(jobs, "LEASE", 0.05)
    storage = Flaky()

    def work_on() -> None:
        deadline = time.monotonic() + PATIENCE
        with at_work(Books(storage, "offer"), TRAIN, fresh, {}) as lease:
            storage.is_down = True
            while time.monotonic() < deadline:
                lease.check()
                time.sleep(0.005)

    with pytest.raises(JobStoppedError, match=BROKEN):
        work_on()


def test_nothing_in_flight_cannot_be_stopped_or_resumed(books: Books) -> None:
    assert jobs.stop(books) is None
    with pytest.raises(LifecycleError, match="none can be resumed"):
        jobs.dead_job(books)
    with at_work(books, TRAIN, fresh, {}) as lease:
        with pytest.raises(LifecycleError, match="which is alive, or died less than a minute ago"):
            jobs.dead_job(books)
        lease.finish(lambda record: record)


def test_a_dead_job_is_stopped_at_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LEASE", -1.0)

    def be_silent() -> None:
        with at_work(books, TRAIN, fresh, {}) as lease:
            job = jobs.stop(books)
            assert job is not None
            assert job.n == 1
            lease.finish(lambda record: record.at(TRAIN, "TRAINED"))

    with pytest.raises(JobStoppedError):
        be_silent()
    assert [record.state for record in books.read().models] == ["STOPPED"]
    assert books.read().job is None


@pytest.fixture
def started(database: Path, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Start a process and wait until it trains."""
    processes: list[Started] = []
    manager = manager_of(database)

    def start(work: Callable[..., None], *args: Any) -> Started:
        processes.append(start_process(work, database, tmp_path / "go", *args))
        wait_for(lambda: states(manager)[-1:] == ["TRAINING"])
        return processes[-1]

    yield start
    (tmp_path / "go").touch()
    for process, connection in processes:
        process.join(PATIENCE)
        process.close()
        connection.close()


def test_another_process_is_refused_and_can_stop_it(
    database: Path, started: Callable[..., Started]
) -> None:
    (process, outcome), manager = started(train_until_stopped), manager_of(database)
    with pytest.raises(LifecycleError, match=rf"is in flight in .*:{process.pid}; wait"):
        manager.train("fixed")
    job = manager.stop()
    assert job is not None
    wait_for(lambda: states(manager) == ["STOPPED"])
    assert outcome.poll(PATIENCE)
    assert outcome.recv() is None
    assert manager.train("fixed").n == 2


def test_a_process_killed_at_work_is_told_and_resumed(
    database: Path, tmp_path: Path, started: Callable[..., Started]
) -> None:
    (process, _), manager = started(train_patiently, 1.0, 0.1), manager_of(database)
    process.kill()
    process.join(PATIENCE)
    status = manager.status()
    assert status.job is not None
    wait_for(lambda: manager.status().is_dead)
    assert states(manager) == ["TRAINING"]
    (tmp_path / "go").touch()
    record = manager.resume()
    assert isinstance(record, ModelRecord)
    assert (record.n, record.state, record.trainer) == (1, "TRAINED", PATH)
    assert manager.status().job is None
    assert manager.models() == (record,)


def test_a_process_killed_at_work_is_in_nobodys_way(
    database: Path, started: Callable[..., Started]
) -> None:
    (process, _), manager = started(train_patiently, 0.5, 0.1), manager_of(database)
    process.kill()
    process.join(PATIENCE)
    wait_for(lambda: manager.status().is_dead)
    assert manager.train("fixed").n == 2
    assert states(manager) == ["FAILED", "TRAINED"]
    assert f":{process.pid} died" in manager.models()[0].error


def test_processes_that_begin_at_once_each_train_a_model_of_their_own_or_are_refused(
    database: Path, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    run_processes(train_if_free, [(database, diary)] * 4)
    lines = diary.read_text().splitlines()
    trained = sorted(line for line in lines if line.startswith("trained"))
    refused = [line for line in lines if "is in flight in" in line]
    assert trained == [f"trained {n}" for n in range(1, len(trained) + 1)]
    assert trained
    assert len(trained) + len(refused) == 4
    assert states(manager_of(database)) == ["TRAINED"] * len(trained)


def test_other_bandits_are_not_waited_for() -> None:
    engine = make_engine()
    write_log(engine.storage, 50, 1)
    other = Books(engine.storage, "other")
    with at_work(other, TRAIN, fresh, {}) as lease:
        assert ExperimentManager(engine, "offer").train("fixed").n == 1
        lease.finish(lambda record: record)
