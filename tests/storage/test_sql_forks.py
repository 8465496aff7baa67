"""The SQL storage in processes that fork from several threads, and without threads to start."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_bandit.errors import StorageError, StorageTimeoutError
from flask_bandit.storage.sql import SQLBanditStorage, watchdog
from flask_bandit.storage.sql.forks import forks
from flask_bandit.storage.sql.watchdog import Watchdog
from flask_bandit.testing.storage_processes import start_process
from flask_bandit.testing.storage_samples import KEY, decision, decisions
from tests.servers.postgres import PostgresServer

PATIENCE = 60.0
DEADLINE = 0.5
FORKERS = 4
FORKS = 10

# A fork beside other threads is what is tested here; newer Pythons warn of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture(params=["postgresql", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+pysqlite:///{tmp_path}/bandits.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def storage(uri: str) -> Iterator[SQLBanditStorage]:
    storage = SQLBanditStorage(uri)
    storage.commit(decisions(decision("first")), PATIENCE)
    yield storage
    storage.close()


def fork_and_commit(storage: SQLBanditStorage, worker: int) -> list[int]:
    """Fork a few times, and return how the children ended."""
    codes = []
    for number in range(FORKS):
        pid = os.fork()
        if pid == 0:
            try:
                storage.commit(decisions(decision(f"child-{worker}-{number}")), PATIENCE)
                os._exit(0)
            except BaseException as error:
                print(error, flush=True)
                os._exit(1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return codes


def fork_in_threads(uri: str) -> None:
    """Fork in several threads, while others commit."""
    storage = SQLBanditStorage(uri)
    codes: list[int] = []
    committed: list[str] = []
    done = threading.Event()

    def fork(worker: int) -> None:
        codes.extend(fork_and_commit(storage, worker))

    def commit(worker: int) -> None:
        number = 0
        while not done.is_set():
            id_ = f"parent-{worker}-{number}"
            storage.commit(decisions(decision(id_)), PATIENCE)
            committed.append(id_)
            number += 1

    forking = [threading.Thread(target=fork, args=(n,)) for n in range(FORKERS)]
    committing = [threading.Thread(target=commit, args=(n,)) for n in range(3)]
    for thread in [*forking, *committing]:
        thread.start()
    for thread in forking:
        thread.join()
    done.set()
    for thread in committing:
        thread.join()
    assert codes == [0] * (FORKERS * FORKS)
    stored = storage.get_decisions(committed)
    assert set(stored) == set(committed)
    (row,) = storage.read_counts(PATIENCE)[KEY].values()
    assert row["pulls"] == len(codes) + len(committed) + 1
    storage.close()


def test_threads_that_fork_at_the_same_time(storage: SQLBanditStorage, uri: str) -> None:
    # In a process of its own, which can be ended if it hangs.
    process, connection = start_process(fork_in_threads, uri)
    try:
        assert connection.poll(PATIENCE), "it hangs"
        assert connection.recv() is None
    finally:
        connection.close()
        process.kill()
        process.join(PATIENCE)
        process.close()


def test_a_fork_keeps_nobody_beyond_the_deadline(storage: SQLBanditStorage) -> None:
    forking, go_on = threading.Event(), threading.Event()

    def fork() -> None:
        forks.before()
        forking.set()
        go_on.wait(PATIENCE)
        forks.after_in_parent()

    thread = threading.Thread(target=fork)
    thread.start()
    assert forking.wait(PATIENCE)
    threading.Timer(10 * DEADLINE, go_on.set).start()
    try:
        with pytest.raises(StorageTimeoutError, match="forked"):
            storage.commit(decisions(decision("second")), DEADLINE)
        assert not go_on.is_set()
    finally:
        go_on.set()
        thread.join(PATIENCE)
    storage.commit(decisions(decision("second")), PATIENCE)
    assert storage.read_counts()[KEY]["green"]["pulls"] == 2


# Threads that cannot be started


class BrokenWire:
    """Cannot be cut completely."""

    def __init__(self) -> None:
        self.cuts = 0

    def cut(self) -> None:
        self.cuts += 1
        raise RuntimeError("can't start new thread")


def test_the_watchdog_survives_what_it_cannot_cut(caplog: pytest.LogCaptureFixture) -> None:
    dog = Watchdog()
    for _ in range(2):
        wire = BrokenWire()
        dog.watch(wire, time.monotonic())  # type: ignore[arg-type]
        deadline = time.monotonic() + PATIENCE / 6
        while not wire.cuts:
            assert time.monotonic() < deadline, "the watchdog is gone"
            time.sleep(0.01)
    assert "can't start new thread" in caplog.text


def test_no_thread_to_be_had(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = SQLBanditStorage(postgres.new_database())
    monkeypatch.setattr(watchdog, "watchdog", Watchdog())

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        for _ in range(40):
            with pytest.raises(StorageError, match="raise the limit"):
                storage.commit(decisions(decision("a")), PATIENCE)
    # As soon as there is one, all is as before.
    storage.commit(decisions(decision("a")), PATIENCE)
    storage.close()
