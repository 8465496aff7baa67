"""The ZODB storage when a server dies, a file is taken, or the root holds something else."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError

from flask_bandit.errors import (
    ConfigurationError,
    StorageCorruptError,
    StorageError,
    StorageTimeoutError,
)
from flask_bandit.model import BanditKey
from flask_bandit.storage import Commit, ZODBBanditStorage, clean_commit
from flask_bandit.storage.locks import ThreadLock
from flask_bandit.storage.zodb import sessions
from flask_bandit.storage.zodb.tables import LAYOUT_KEY, Tables
from flask_bandit.testing.proxy import FaultProxy
from flask_bandit.testing.storage_arrays import YY, seen, sums
from flask_bandit.testing.storage_processes import run_processes, start_process, write_one
from flask_bandit.testing.storage_samples import KEY, decision, decisions, earn, pull, reward
from tests.servers.zeo import ZEOServer

PATIENCE = 60.0
FAR_TOO_LONG = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bandits.fs"


@pytest.fixture
def storage(path: Path) -> Iterator[ZODBBanditStorage]:
    storage = ZODBBanditStorage(path)
    yield storage
    storage.close()


@pytest.fixture
def db(tmp_path: Path) -> Iterator[ZODB.DB]:
    """A database of the app."""
    db = ZODB.DB(str(tmp_path / "app.fs"))
    yield db
    db.close()


@pytest.fixture
def server() -> Iterator[ZEOServer]:
    """A server of this test's own, to be treated badly."""
    server = ZEOServer()
    server.start()
    yield server
    server.stop()


def pulls(storage: ZODBBanditStorage) -> float:
    return storage.read_counts(PATIENCE).get(KEY, {}).get("green", {}).get("pulls", 0)


# A file and its processes


def make_at(location: Path) -> ZODBBanditStorage:
    return ZODBBanditStorage(location / "bandits.fs")


def test_second_process_is_told_to_use_zeo(storage: ZODBBanditStorage, tmp_path: Path) -> None:
    storage.commit(decisions(decision("1")))
    with pytest.raises(AssertionError, match=r"can be open once only.*ZEO.runzeo.*zeo://"):
        run_processes(write_one, [(make_at, tmp_path, "2")])
    second = make_at(tmp_path)
    with pytest.raises(StorageError, match="zeo://"):
        second.read_counts()
    storage.close()
    run_processes(write_one, [(make_at, tmp_path, "2")])
    assert pulls(second) == 2
    second.close()


def fork_with_open_file(location: Path) -> None:
    """Fork while a file is open: the child is told, and neither harms nor outlives the lock."""
    storage = make_at(location)
    storage.commit(decisions(decision("parent")))
    closed_r, closed_w = os.pipe()
    done_r, done_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for _ in range(2):
                with pytest.raises(StorageError, match="can be open once only"):
                    storage.commit(decisions(decision("child")))
            os.write(done_w, b"x")
            os.read(closed_r, 1)
            storage.commit(decisions(decision("child")))
            storage.close()
            code = 0
        finally:
            os._exit(code)
    os.read(done_r, 1)
    storage.commit(decisions(decision("parent again")))
    storage.close()
    os.write(closed_w, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    assert {entry.decision.id for entry in storage.iter_log()} == {
        "parent",
        "parent again",
        "child",
    }
    storage.close()


def test_forked_child_of_a_process_with_a_file(tmp_path: Path) -> None:
    run_processes(fork_with_open_file, [(tmp_path,)])


def outlive(location: Path, connection: Connection) -> None:
    """Leave a child behind that does nothing, and wait to be killed."""
    storage = make_at(location)
    storage.commit(decisions(decision("parent")))
    if os.fork() == 0:
        # The child tells, since it has let go of the parent's files then.
        connection.send(os.getpid())
        time.sleep(PATIENCE)
        os._exit(0)
    time.sleep(PATIENCE)


def test_forked_child_does_not_keep_the_file_locked(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.get_context("forkserver").Pipe()
    process, report = start_process(outlive, tmp_path, theirs)
    assert ours.poll(PATIENCE)
    child = ours.recv()
    process.kill()
    process.join()
    try:
        storage = make_at(tmp_path)
        assert pulls(storage) == 1, "acknowledged before the kill"
        storage.commit(decisions(decision("2")))
        storage.close()
    finally:
        os.kill(child, signal.SIGKILL)
    for end in (ours, theirs, report):
        end.close()
    process.close()


def write_for_ever(location: Path, connection: Connection) -> None:
    storage = make_at(location)
    for number in range(1_000_000):
        made = decision(f"k{number}")
        storage.commit(Commit((pull(made),), (earn(reward(made)),)))
        connection.send(number)


def test_killed_while_writing_a_file(tmp_path: Path) -> None:
    for round_ in range(5):
        ours, theirs = multiprocessing.get_context("forkserver").Pipe()
        location = tmp_path / str(round_)
        location.mkdir()
        process, report = start_process(write_for_ever, location, theirs)
        theirs.close()
        acknowledged = -1
        while acknowledged < 20 * round_ + 3:
            assert ours.poll(PATIENCE)
            acknowledged = ours.recv()
        process.kill()
        process.join()
        while ours.poll(0):
            try:
                acknowledged = ours.recv()
            except EOFError:
                break
        storage = make_at(location)
        stored = {entry.decision.id for entry in storage.iter_log()}
        assert {f"k{number}" for number in range(acknowledged + 1)} <= stored
        row = storage.read_counts()[KEY]["green"]
        assert row["pulls"] == row["rewards"] == len(stored)
        storage.close()
        process.close()
        report.close()
        ours.close()


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for database in (tmp_path / "no" / "bandits.fs", tmp_path):
        with pytest.raises(StorageError, match=str(database.parent)):
            ZODBBanditStorage(database).read_counts()
    foreign = tmp_path / "foreign.fs"
    foreign.write_text("something else, and not short at all")
    with pytest.raises(StorageCorruptError, match=str(foreign)):
        ZODBBanditStorage(foreign).read_counts()
    assert foreign.read_text() == "something else, and not short at all"


def test_check_tells_what_was_cut_off(storage: ZODBBanditStorage, path: Path) -> None:
    storage.commit(decisions(decision("1")))
    storage.close()
    with path.open("ab") as file:
        file.write(b"half of a transaction, but long enough for a header of one")
    assert pulls(storage) == 1
    assert len(storage.check()) == 1
    assert f"{path}.tr0" in storage.check()[0]


def test_full_disk(storage: ZODBBanditStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.commit(decisions(decision("1")))

    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules[FileStorage.__module__], "fsync", refuse)
    with pytest.raises(StorageError, match="make room"):
        storage.commit(decisions(decision("2")))
    monkeypatch.undo()
    storage.commit(decisions(decision("2")))
    assert pulls(storage) == 2


def test_pack_after_prune(storage: ZODBBanditStorage, path: Path) -> None:
    for number in range(300):
        storage.commit(decisions(decision(f"d{number}", at=float(number), context={"x": "y" * 50})))
    counts = storage.read_counts()
    before = path.stat().st_size
    assert storage.prune(before=200.0) == 200
    assert path.stat().st_size < before / 5
    assert storage.read_counts() == counts
    assert len(list(storage.iter_log())) == 100
    size = path.stat().st_size
    storage.commit(decisions(decision("d0"), decision("new")))
    assert pulls(storage) == 301
    storage.pack()
    assert path.stat().st_size < size + 10_000
    storage.close()
    assert pulls(storage) == 301


def test_what_a_decision_costs(storage: ZODBBanditStorage, path: Path) -> None:
    """The figures of docs/reference/zodb_storage.rst."""
    ids = [hashlib.md5(str(number).encode()).hexdigest() for number in range(2000)]
    for id_ in ids:
        storage.commit(decisions(decision(id_)))
    assert path.stat().st_size / len(ids) < 6000
    storage.pack()
    assert path.stat().st_size / len(ids) < 1000


# A database of the app


def test_given_database_is_not_closed(db: ZODB.DB) -> None:
    storage = ZODBBanditStorage(db)
    storage.commit(decisions(decision("1")), 5.0)
    storage.close()
    with db.transaction() as connection:
        assert set(connection.root()) == {"flask_bandit"}
    storage.commit(decisions(decision("2")), 5.0)
    assert pulls(storage) == 2
    storage.close()


def test_foreign_data_and_the_transaction_of_the_app_are_untouched(db: ZODB.DB) -> None:
    connection = db.open()
    connection.root()["theirs"] = PersistentMapping(a=1)
    transaction.commit()
    connection.root()["theirs"]["a"] = 2
    storage = ZODBBanditStorage(db, root="experiments")
    storage.commit(decisions(decision("1")))
    assert pulls(storage) == 1
    with db.transaction() as other:
        assert set(other.root()) == {"theirs", "experiments"}
        assert dict(other.root()["theirs"]) == {"a": 1}, "the app has not committed"
    transaction.commit()
    with db.transaction() as other:
        assert dict(other.root()["theirs"]) == {"a": 2}
    connection.close()
    storage.close()


def test_nothing_of_ours_is_in_the_data(path: Path, storage: ZODBBanditStorage) -> None:
    made = decision("1")
    storage.commit(Commit((pull(made),), (earn(reward(made)),)))
    storage.commit(Commit(rewards=(earn(reward(decision("later"))),)))
    storage.write_digest(KEY, {"n": 1}, 0)
    storage.close()
    data = path.read_bytes()
    assert b"persistent.mapping" in data
    assert b"flask_bandit.storage" not in data
    assert b"flask_bandit.model" not in data


def test_database_closed_by_the_app() -> None:
    db = ZODB.DB(None)
    storage = ZODBBanditStorage(db)
    storage.commit(decisions(decision("1")))
    db.close()
    for _ in range(2):
        with pytest.raises(StorageError, match="closed by the app"):
            storage.read_counts(5.0)
    storage.close()


def use_given_after_fork() -> None:
    db = ZODB.DB(None)
    storage = ZODBBanditStorage(db)
    storage.commit(decisions(decision("1")))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with pytest.raises(StorageError, match="before this process was forked"):
                storage.read_counts()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert pulls(storage) == 1


def test_given_database_after_a_fork() -> None:
    run_processes(use_given_after_fork, [()])


@pytest.mark.parametrize("foreign", [{"a": 1}, PersistentMapping(a=1), "text"])
def test_key_taken_by_something_else(db: ZODB.DB, foreign: Any) -> None:
    with db.transaction() as connection:
        connection.root()["flask_bandit"] = foreign
    storage = ZODBBanditStorage(db)
    for call in (storage.read_counts, storage.upgrade, lambda: storage.commit(Commit())):
        with pytest.raises(StorageError, match="root="):
            call()
    with db.transaction() as connection:
        assert connection.root()["flask_bandit"] == foreign
    storage.close()


def test_newer_layout(db: ZODB.DB) -> None:
    storage = ZODBBanditStorage(db)
    storage.commit(decisions(decision("1")))
    with db.transaction() as connection:
        connection.root()["flask_bandit"][LAYOUT_KEY] += 1
    for call in (storage.read_counts, storage.upgrade, lambda: storage.commit(Commit())):
        with pytest.raises(StorageError, match="upgrade Flask-Bandit"):
            call()
    storage.close()


def test_without_auto_migrate(db: ZODB.DB) -> None:
    storage = ZODBBanditStorage(db, auto_migrate=False)
    for call in (storage.read_counts, lambda: storage.commit(decisions(decision("1")))):
        with pytest.raises(StorageError, match="flask bandit db upgrade"):
            call()
    with db.transaction() as connection:
        assert not connection.root()
    assert "Made layout" in storage.upgrade()
    assert "nothing to do" in storage.upgrade()
    storage.commit(decisions(decision("1")))
    assert pulls(storage) == 1
    storage.close()


# Conflicts


def test_conflicts_of_many_connections_are_retried(db: ZODB.DB) -> None:
    """Eight storages on one database do what eight processes do, with a conflict at each turn."""
    failures: list[BaseException] = []
    ready = threading.Barrier(8)

    def work(worker: int) -> None:
        storage = ZODBBanditStorage(db)
        try:
            ready.wait(PATIENCE)
            for number in range(40):
                for made in (decision(f"all{number}"), decision(f"w{worker}-{number}")):
                    storage.commit(Commit((seen(made),), (earn(reward(made)),)), PATIENCE)
        except BaseException as error:
            failures.append(error)
        finally:
            storage.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    storage = ZODBBanditStorage(db)
    row = storage.read_counts()[KEY]["green"]
    assert row["pulls"] == row["rewards"] == len(list(storage.iter_log())) == 9 * 40
    assert sums(storage) == {KEY: {"green": {"s:xx": [9 * 40 * y for y in YY]}}}
    storage.close()


@pytest.mark.parametrize(
    "order", ["decision first", "reward first", "two decisions", "two rewards", "one array"]
)
def test_what_overlooks_the_other_conflicts(db: ZODB.DB, order: str) -> None:
    """Two transactions that began at the same time and concern one decision cannot both end; nor
    two that add to one array."""
    ZODBBanditStorage(db).commit(Commit((seen(decision("before")),)))
    made = decision("d")
    pulled, earned = decisions(made), Commit(rewards=(earn(reward(made)),))
    pairs = {
        "decision first": (pulled, earned),
        "reward first": (earned, pulled),
        "two decisions": (pulled, decisions(decision("d", "red"))),
        "two rewards": (earned, Commit(rewards=(earn(reward(made, "buy")),))),
        "one array": (Commit((seen(decision("d1")),)), Commit((seen(decision("d2")),))),
    }
    managers = [transaction.TransactionManager() for _ in range(2)]
    connections = [db.open(manager) for manager in managers]
    for connection, commit in zip(connections, pairs[order], strict=True):
        Tables(connection.root()["flask_bandit"]).commit(clean_commit(commit))
    managers[0].commit()
    with pytest.raises(ConflictError):
        managers[1].commit()
    managers[1].abort()
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("revision", [0, 1])
def test_two_who_write_a_summary_at_once_conflict(db: ZODB.DB, revision: int) -> None:
    """Also if it is the first one that is stored at all."""
    storage = ZODBBanditStorage(db)
    storage.upgrade()
    if revision:
        storage.write_digest(KEY, {"n": 0}, 0)
    managers = [transaction.TransactionManager() for _ in range(2)]
    connections = [db.open(manager) for manager in managers]
    for number, connection in enumerate(connections):
        tables = Tables(connection.root()["flask_bandit"])
        assert tables.write_digest(KEY, revision, '{"n": 1}', f"call {number}")
    managers[0].commit()
    with pytest.raises(ConflictError):
        managers[1].commit()
    managers[1].abort()
    for connection in connections:
        connection.close()
    assert storage.read_digest(KEY) == (revision + 1, {"n": 1})
    storage.close()


def test_a_summary_that_is_sent_twice(
    storage: ZODBBanditStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the answer was lost: the second one finds what the first one wrote."""
    run = storage._transactions.run
    monkeypatch.setattr(storage._transactions, "run", lambda *args: [run(*args), run(*args)][1])
    for revision in range(2):
        assert storage.write_digest(KEY, {"n": 1}, revision)
        assert not storage.write_digest(KEY, {"n": 1}, revision)
        assert storage.read_digest(KEY) == (revision + 1, {"n": 1})


def test_a_summary_is_written_without_the_others(storage: ZODBBanditStorage, path: Path) -> None:
    other = BanditKey("other", 1)
    assert storage.write_digest(other, {"text": "x" * 300_000}, 0)
    assert storage.write_digest(KEY, {"n": 0}, 0)
    before = path.stat().st_size
    for revision in range(1, 11):
        assert storage.write_digest(KEY, {"n": revision}, revision)
        storage.commit(decisions(decision(f"d{revision}")))
    assert path.stat().st_size - before < 100_000
    assert storage.read_digest(other) == (1, {"text": "x" * 300_000})


def test_an_array_is_written_without_the_others(storage: ZODBBanditStorage, path: Path) -> None:
    long = tuple(map(float, range(300)))
    storage.commit(Commit((seen(decision("long", "red"), long), seen(decision("short")))))
    before = path.stat().st_size
    for number in range(10):
        storage.commit(Commit((seen(decision(f"d{number}")),)))
    assert path.stat().st_size - before < 100_000
    assert len(storage.read_arrays()[KEY]["red"]["s:xx"]) == 45_150


def test_commits_for_different_decisions_do_not_conflict(db: ZODB.DB) -> None:
    """Their sums are the same objects, and are added up."""
    storage = ZODBBanditStorage(db)
    first = decision("first")
    storage.commit(Commit((pull(first),), (earn(reward(first, value=0.5)),)))
    managers = [transaction.TransactionManager() for _ in range(5)]
    connections = [db.open(manager) for manager in managers]
    for number, connection in enumerate(connections):
        made = decision(f"d{number}")
        commit = Commit((pull(made),), (earn(reward(made, value=0.5)),))
        Tables(connection.root()["flask_bandit"]).commit(clean_commit(commit))
    for manager in managers:
        manager.commit()
    for connection in connections:
        connection.close()
    row = {"pulls": 6, "rewards": 6, "reward": 3.0, "reward_sq": 1.5}
    assert storage.read_counts() == {KEY: {"green": row}}
    assert len(list(storage.iter_log())) == 6
    storage.close()


def test_conflict_until_the_deadline(db: ZODB.DB, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = ZODBBanditStorage(db)
    storage.commit(decisions(decision("1")))

    def conflict(*args: object) -> None:
        raise ConflictError

    monkeypatch.setattr(Tables, "commit", conflict)
    with pytest.raises(StorageTimeoutError, match="again is safe"):
        storage.commit(decisions(decision("2")), 0.1)
    monkeypatch.undo()
    storage.commit(decisions(decision("2")))
    assert pulls(storage) == 2
    storage.close()


# A server


def test_server_killed_and_restarted(server: ZEOServer) -> None:
    storage = ZODBBanditStorage(server.uri)
    acknowledged: set[str] = set()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            made = decision(f"d{number}")
            try:
                storage.commit(Commit((pull(made),), (earn(reward(made)),)), 1.0)
            except StorageError:
                continue
            acknowledged.add(made.id)
            number += 1

    def wait_for_more() -> None:
        deadline, before = time.monotonic() + PATIENCE, len(acknowledged)
        while len(acknowledged) < before + 20:
            assert time.monotonic() < deadline, "it does not resume"
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            wait_for_more()
            server.kill()
            server.start()
        wait_for_more()
    finally:
        stop.set()
        writer.join()
    stored = {entry.decision.id for entry in storage.iter_log()}
    assert acknowledged <= stored
    row = storage.read_counts()[KEY]["green"]
    assert row["pulls"] == row["rewards"] == len(stored)
    storage.close()


def test_stopped_server_meets_the_deadline(server: ZEOServer) -> None:
    storage, late = ZODBBanditStorage(server.uri), ZODBBanditStorage(server.uri)
    storage.commit(decisions(decision("1")))
    server.pause()
    for one in (storage, late, storage):
        started = time.monotonic()
        with pytest.raises(StorageTimeoutError):
            one.commit(decisions(decision("2")), 0.3)
        with pytest.raises(StorageTimeoutError):
            one.read_counts(0.3)
        assert time.monotonic() - started < FAR_TOO_LONG
    server.resume()
    storage.commit(decisions(decision("2")), PATIENCE)
    assert pulls(storage) == pulls(late) == 2
    storage.close()
    late.close()


@pytest.fixture
def vanishing(server: ZEOServer) -> Iterator[tuple[ZODBBanditStorage, Callable[[], None]]]:
    """A storage, and what makes its connection end in nothing while new ones work."""
    proxy = FaultProxy((server.host, server.port))
    storage = ZODBBanditStorage(f"zeo://127.0.0.1:{proxy.port}")
    storage.commit(decisions(decision("1")))

    def vanish() -> None:
        proxy.hang()
        storage._source.address = (server.host, server.port)  # type: ignore[attr-defined]

    yield storage, vanish
    storage.close()
    proxy.close()


def require_recovery(storage: ZODBBanditStorage) -> None:
    deadline = time.monotonic() + FAR_TOO_LONG
    while True:
        try:
            storage.commit(decisions(decision("2")), 0.5)
            return
        except StorageTimeoutError:
            assert time.monotonic() < deadline, "the session that hangs is never given up"


def test_reader_without_deadline_does_not_block_others_for_ever(
    vanishing: tuple[ZODBBanditStorage, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, vanish = vanishing
    monkeypatch.setattr(sessions, "LONGEST_HOLD", 0.1)
    vanish()
    seen: list[str] = []
    has_begun = threading.Event()
    begin = sessions.Session.begin

    def tell_and_begin(*args: Any) -> Any:
        has_begun.set()
        return begin(*args)

    monkeypatch.setattr(sessions.Session, "begin", tell_and_begin)
    reader = threading.Thread(
        target=lambda: seen.extend(entry.decision.id for entry in storage.iter_log()), daemon=True
    )
    reader.start()
    assert has_begun.wait(PATIENCE)
    require_recovery(storage)
    reader.join(PATIENCE)
    # It went on with the session that works.
    assert seen[0] == "1"


def test_thread_that_takes_the_session_when_its_caller_is_gone(
    vanishing: tuple[ZODBBanditStorage, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, vanish = vanishing
    vanish()
    caller_is_gone = threading.Event()
    acquire = ThreadLock.acquire

    def acquire_and_dawdle(self: ThreadLock, deadline: float | None) -> None:
        acquire(self, deadline)
        if threading.current_thread().name == "zodb call" and deadline is not None:
            caller_is_gone.wait(PATIENCE)

    monkeypatch.setattr(ThreadLock, "acquire", acquire_and_dawdle)
    with pytest.raises(StorageTimeoutError):
        storage.commit(decisions(decision("2")), 0.3)
    monkeypatch.undo()
    caller_is_gone.set()
    require_recovery(storage)


def test_commits_of_others_are_seen_at_once(server: ZEOServer) -> None:
    writer, reader = ZODBBanditStorage(server.uri), ZODBBanditStorage(server.uri)
    for number in range(200):
        writer.commit(decisions(decision(f"d{number}")))
        assert pulls(reader) == number + 1
    writer.close()
    reader.close()


def test_pack_on_a_server(server: ZEOServer) -> None:
    storage = ZODBBanditStorage(server.uri)
    for number in range(50):
        storage.commit(decisions(decision(f"d{number}")))
    size = server.file.stat().st_size
    assert storage.prune(before=2e9) == 50
    assert server.file.stat().st_size > size, "others' history is not ours to remove"
    storage.pack()
    assert server.file.stat().st_size < size / 2
    assert pulls(storage) == 50
    assert list(storage.iter_log()) == []
    storage.close()


def test_no_server(server: ZEOServer) -> None:
    server.kill()
    storage = ZODBBanditStorage(server.uri)
    for timeout in (5.0, None):
        with pytest.raises(StorageError, match=rf"{server.port}.*start it"):
            storage.read_counts(timeout)
    storage.close()
    server.start()
    assert storage.read_counts() == {}
    storage.close()


def test_unknown_storage_on_the_server(server: ZEOServer) -> None:
    storage = ZODBBanditStorage(f"{server.uri}?storage=other")
    with pytest.raises(StorageError):
        storage.read_counts(2.0)
    storage.close()


# Where it is


@pytest.mark.parametrize(
    "uri",
    [
        "zodb://",
        "zodb:///",
        "zodb://bandits.fs",
        "zodb:///bandits.fs?root=x",
        "zeo://",
        "zeo://host",
        "zeo://host:port",
        "zeo://host:99999",
        "zeo://host:8100/path",
        "zeo://host:8100?cache=1",
        "zeo://me:secret@host:8100",
    ],
)
def test_uris_that_are_none(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"write 'z") as caught:
        ZODBBanditStorage.from_uri(uri)
    assert "secret" not in str(caught.value)


def test_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = ZODBBanditStorage.from_uri("zodb:///bandits.fs")
    relative.commit(decisions(decision("1")))
    relative.close()
    absolute = ZODBBanditStorage.from_uri(f"zodb:///{tmp_path}/bandits.fs", root="flask_bandit")
    assert pulls(absolute) == 1
    absolute.close()
    server = ZODBBanditStorage.from_uri("zeo://[::1]:8100?storage=main", auto_migrate=False)
    assert repr(server) == "<ZODBBanditStorage on the ZEO server at ::1:8100>"
    assert (absolute.default_stats_ttl, server.default_stats_ttl) == (0.1, 1.0)


def test_options() -> None:
    with pytest.raises(ConfigurationError, match="no option wait; it knows 'root'"):
        ZODBBanditStorage.from_uri("zodb:///bandits.fs", wait=1)
    with pytest.raises(ConfigurationError, match="root key"):
        ZODBBanditStorage("bandits.fs", root="")
    for database in ("", None, 7):
        with pytest.raises(ConfigurationError, match="path of a file"):
            ZODBBanditStorage(database)
