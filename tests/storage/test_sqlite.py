"""The SQLite storage: the shared suite, and what only SQLite does."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_bandit.errors import ConfigurationError, StorageCorruptError, StorageError
from flask_bandit.model import BanditKey, StatsDelta, Term
from flask_bandit.storage import SQLiteBanditStorage
from flask_bandit.storage.base import Adjustment, Commit, DecisionWrite, RewardWrite
from flask_bandit.storage.sqlite import file as sqlite_file
from flask_bandit.storage.sqlite import pages as sqlite_pages
from flask_bandit.storage.sqlite import rows
from flask_bandit.storage.sqlite import schema as sqlite_schema
from flask_bandit.storage.sqlite import storage as sqlite_storage
from flask_bandit.testing import StorageSuite
from flask_bandit.testing.storage_arrays import YY, Y, learned, seen
from flask_bandit.testing.storage_processes import PATIENCE, run_processes, write_own
from flask_bandit.testing.storage_samples import (
    BANDIT,
    KEY,
    decision,
    decisions,
    earn,
    pull,
    reward,
    rewards,
)


def make_storage(location: Path) -> SQLiteBanditStorage:
    return SQLiteBanditStorage(location / "bandits.db")


class TestSQLiteStorage(StorageSuite):
    def make_storage(self, location: Path) -> SQLiteBanditStorage:
        return make_storage(location)


class TestSQLiteStorageFullSync(StorageSuite):
    def make_storage(self, location: Path) -> SQLiteBanditStorage:
        return SQLiteBanditStorage(location / "bandits.db", synchronous="full")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bandits.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SQLiteBanditStorage]:
    storage = SQLiteBanditStorage(path)
    yield storage
    storage.close()


def pulls(storage: SQLiteBanditStorage) -> float:
    return storage.read_counts().get(KEY, {}).get("green", {}).get("pulls", 0)


def connection_of(storage: SQLiteBanditStorage) -> sqlite3.Connection:
    assert storage._file._connection is not None
    return storage._file._connection


def query(path: Path, *statements: str) -> list[Any]:
    """Run statements as another program would, and return the rows of the last one."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            found = connection.execute(statement).fetchall()
    return found


# Construction


def test_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert SQLiteBanditStorage.from_uri("sqlite:///a/b.db").path == str(tmp_path / "a/b.db")
    assert SQLiteBanditStorage.from_uri("sqlite:////var/b.db").path == "/var/b.db"
    storage = SQLiteBanditStorage.from_uri("sqlite:///b.db", synchronous="full", auto_migrate=False)
    assert (storage.synchronous, storage.auto_migrate) == ("full", False)
    assert storage.default_stats_ttl == 0.1


@pytest.mark.parametrize(
    "uri", ["sqlite:", "sqlite://", "sqlite:///", "sqlite://:memory:", "sqlite:///:memory:"]
)
def test_memory_uri(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="memory://"):
        SQLiteBanditStorage.from_uri(uri)


@pytest.mark.parametrize("uri", ["sqlite://bandits.db", "sqlite:///a.db?mode=ro", "bandits.db"])
def test_bad_uri(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:////absolute"):
        SQLiteBanditStorage.from_uri(uri)


def test_bad_options() -> None:
    with pytest.raises(ConfigurationError, match="no option fsync"):
        SQLiteBanditStorage.from_uri("sqlite:///b.db", fsync=True)
    with pytest.raises(ConfigurationError, match="'normal' or 'full'"):
        SQLiteBanditStorage("b.db", synchronous="off")
    for path in ("", ":memory:"):
        with pytest.raises(ConfigurationError, match="memory://"):
            SQLiteBanditStorage(path)


def test_nothing_is_opened_before_the_first_use(path: Path) -> None:
    SQLiteBanditStorage(path)
    assert not path.exists()


@pytest.mark.parametrize("name", ["a b?c#d%41.db", "bändít.db", "file:x"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    storage = SQLiteBanditStorage(tmp_path / name)
    storage.commit(decisions(decision("1")))
    assert (tmp_path / name).exists()
    storage.close()


@pytest.mark.parametrize(("synchronous", "level"), [("normal", 1), ("full", 2)])
def test_pragmas(path: Path, synchronous: str, level: int) -> None:
    storage = SQLiteBanditStorage(path, synchronous=synchronous)
    storage.read_counts()
    connection = connection_of(storage)
    assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    storage.close()
    assert query(path, "PRAGMA application_id") == [(0x42414E44,)]


# The schema


CURRENT = len(sqlite_schema.STEPS)
NEXT_STEP = ("ALTER TABLE bandit_control ADD COLUMN extra TEXT", "CREATE TABLE bandit_more (x)")


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sqlite_storage, sqlite_schema):
        monkeypatch.setattr(module, "STEPS", (*sqlite_schema.STEPS, NEXT_STEP))


@pytest.fixture
def old(path: Path) -> Path:
    """A file made by the present version, before there was another."""
    storage = SQLiteBanditStorage(path)
    storage.commit(decisions(decision("1")))
    storage.close()
    return path


def version_of(path: Path) -> Any:
    return query(path, "PRAGMA user_version")[0][0]


def test_tables_are_updated_at_first_use(old: Path, request: pytest.FixtureRequest) -> None:
    assert version_of(old) == CURRENT
    request.getfixturevalue("next_version")
    storage = SQLiteBanditStorage(old)
    assert pulls(storage) == 1
    assert version_of(old) == CURRENT + 1
    assert query(old, "SELECT extra FROM bandit_control") == []
    storage.close()


@contextlib.contextmanager
def earlier_version(monkeypatch: pytest.MonkeyPatch, schema: int) -> Iterator[None]:
    with monkeypatch.context() as earlier:
        for module in (sqlite_storage, sqlite_schema):
            earlier.setattr(module, "STEPS", sqlite_schema.STEPS[:schema])
        yield


@pytest.mark.parametrize("auto_migrate", [True, False])
@pytest.mark.parametrize("schema", range(1, CURRENT))
def test_file_of_an_earlier_schema(
    path: Path, monkeypatch: pytest.MonkeyPatch, schema: int, auto_migrate: bool
) -> None:
    with earlier_version(monkeypatch, schema):
        storage = SQLiteBanditStorage(path)
        storage.commit(decisions(decision("1")))
        storage.close()
        assert version_of(path) == schema
    storage = SQLiteBanditStorage(path, auto_migrate=auto_migrate)
    if not auto_migrate:
        assert f"from schema {schema} to {CURRENT}" in storage.upgrade()
    assert [entry.decision.id for entry in storage.iter_log(BANDIT, since=0.0)] == ["1"]
    assert storage.read_digest(KEY) is None
    assert storage.write_digest(KEY, {"n": 1}, 0)
    assert (storage.check(), version_of(path)) == ([], CURRENT)
    storage.close()


@pytest.mark.parametrize("schema", range(1, CURRENT))
def test_earlier_version_that_has_the_file_open_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, schema: int
) -> None:
    with earlier_version(monkeypatch, schema):
        earlier = SQLiteBanditStorage(path)
        earlier.commit(decisions(decision("1")))
    storage = SQLiteBanditStorage(path)
    assert storage.write_digest(KEY, {"n": 1}, 0)
    assert version_of(path) == CURRENT
    with earlier_version(monkeypatch, schema):
        assert [entry.decision.id for entry in earlier.iter_log(BANDIT)] == ["1"]
        earlier.commit(decisions(decision("2")))
        earlier.close()
    assert (pulls(storage), storage.check()) == (2, [])
    storage.close()


def test_upgrade_says_what_it_did(path: Path, request: pytest.FixtureRequest) -> None:
    storage = SQLiteBanditStorage(path, auto_migrate=False)
    assert f"Made the tables of schema {CURRENT}" in storage.upgrade()
    assert "up to date" in storage.upgrade()
    request.getfixturevalue("next_version")
    assert f"from schema {CURRENT} to {CURRENT + 1}" in storage.upgrade()
    assert version_of(path) == CURRENT + 1
    assert storage.commit(decisions(decision("1"))).new == {"1"}
    storage.close()


def test_step_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (*sqlite_schema.STEPS, (*NEXT_STEP, "CREATE TABLE bandit_counts (x)"))
    monkeypatch.setattr(sqlite_schema, "STEPS", steps)
    storage = SQLiteBanditStorage(old)
    for _ in range(2):
        with pytest.raises(StorageError, match="already exists"):
            storage.read_counts()
    assert version_of(old) == CURRENT
    assert query(old, "SELECT name FROM sqlite_master WHERE name = 'bandit_more'") == []


@pytest.mark.usefixtures("next_version")
def test_without_auto_migrate(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = SQLiteBanditStorage(path, auto_migrate=False)
    for _ in range(2):
        with pytest.raises(StorageError, match="does not exist.*flask bandit db upgrade"):
            storage.commit(decisions(decision("1")))
    assert not path.exists()
    path.touch()
    with pytest.raises(StorageError, match="has no tables.*flask bandit db upgrade"):
        storage.read_counts()
    assert path.read_bytes() == b"" or version_of(path) == 0
    with monkeypatch.context() as earlier:
        earlier.setattr(sqlite_schema, "STEPS", sqlite_schema.STEPS[:1])
        storage.upgrade()
    with pytest.raises(
        StorageError, match=f"has schema 1, schema {CURRENT + 1} .*flask bandit db upgrade"
    ):
        storage.read_counts()
    assert version_of(path) == 1
    assert len(storage.check()) == 1
    storage.upgrade()
    assert storage.read_counts() == {}
    assert storage.check() == []
    storage.close()


def test_later_schema_is_refused(old: Path) -> None:
    query(old, "PRAGMA user_version = 7")
    for auto_migrate in (True, False):
        storage = SQLiteBanditStorage(old, auto_migrate=auto_migrate)
        with pytest.raises(StorageError, match="schema 7.*upgrade Flask-Bandit"):
            storage.commit(decisions(decision("2")))
        with pytest.raises(StorageError, match="upgrade Flask-Bandit"):
            storage.upgrade()
    assert version_of(old) == 7


def test_beside_the_tables_of_an_app(path: Path) -> None:
    query(path, "CREATE TABLE users (name)", "PRAGMA application_id = 77")
    storage = SQLiteBanditStorage(path)
    storage.commit(decisions(decision("1")))
    assert query(path, "SELECT * FROM users") == []
    assert query(path, "PRAGMA application_id") == [(77,)]
    assert storage.check() == []
    storage.close()


def test_schema_number_of_another_program(path: Path) -> None:
    query(path, "CREATE TABLE users (name)", "PRAGMA user_version = 1")
    storage = SQLiteBanditStorage(path)
    with pytest.raises(StorageError, match="a file of their own"):
        storage.commit(decisions(decision("1")))
    assert query(path, "PRAGMA journal_mode") == [("delete",)]
    assert query(path, "SELECT name FROM sqlite_master") == [("users",)]


def test_tables_without_a_schema_number(old: Path) -> None:
    query(old, "PRAGMA user_version = 0")
    with pytest.raises(StorageError, match=f"PRAGMA user_version = {CURRENT}"):
        SQLiteBanditStorage(old).read_counts()


def open_and_write(path: Path, worker: int) -> None:
    storage = SQLiteBanditStorage(path)
    storage.commit(decisions(decision(f"p{worker}")), PATIENCE)
    storage.close()


def test_40_processes_open_a_new_file_at_once(path: Path) -> None:
    run_processes(open_and_write, [(path, n) for n in range(40)])
    storage = SQLiteBanditStorage(path)
    assert pulls(storage) == 40
    assert storage.check() == []
    storage.close()


@pytest.mark.parametrize("shared", [True, False])
def test_40_threads_open_a_new_file_at_once(path: Path, shared: bool) -> None:
    one = SQLiteBanditStorage(path)
    storages = [one if shared else SQLiteBanditStorage(path) for _ in range(40)]
    failures: list[BaseException] = []
    barrier = threading.Barrier(40)

    def work(worker: int) -> None:
        try:
            barrier.wait(PATIENCE)
            storages[worker].commit(decisions(decision(f"t{worker}")), PATIENCE)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert pulls(one) == 40
    for storage in (one, *storages):
        storage.close()


# Statements and rows


@pytest.fixture
def statements(storage: SQLiteBanditStorage) -> list[str]:
    """The statements that the storage runs from now on, as SQLite sees them."""
    storage.read_counts()
    seen: list[str] = []
    connection_of(storage).set_trace_callback(seen.append)
    return seen


def test_one_transaction_for_ten_bandits(
    storage: SQLiteBanditStorage, statements: list[str]
) -> None:
    made = [decision(f"d{n}", bandit=f"bandit{n}") for n in range(10)]
    storage.commit(Commit(tuple(map(pull, made)), tuple(earn(reward(one)) for one in made)), 5.0)
    words = [statement.split()[0] for statement in statements]
    assert (words[0], words[-1]) == ("BEGIN", "COMMIT")
    assert statements[0] == "BEGIN IMMEDIATE"
    assert (words.count("BEGIN"), words.count("COMMIT")) == (1, 1)
    assert words.count("SELECT") == 3


def test_statements_of_a_new_visitor(storage: SQLiteBanditStorage, statements: list[str]) -> None:
    storage.commit(decisions(decision("d")), 5.0)
    words = [statement.split()[0] for statement in statements]
    assert words == ["BEGIN", "SELECT", "SELECT", "INSERT", "INSERT", "COMMIT"]


def test_one_statement_reads_all_counts(
    storage: SQLiteBanditStorage, statements: list[str]
) -> None:
    storage.commit(decisions(*(decision(f"d{n}", bandit=f"bandit{n}") for n in range(10))))
    statements.clear()
    assert len(storage.read_counts(5.0)) == 10
    assert [statement.split()[0] for statement in statements] == ["SELECT"]


def test_ids_are_found_by_an_index(storage: SQLiteBanditStorage, statements: list[str]) -> None:
    made = decision("d")
    storage.commit(Commit((pull(made),), (earn(reward(made)),)))
    list(storage.iter_log())
    list(storage.iter_log(BANDIT))
    list(storage.iter_commits())
    storage.prune(0.0)
    storage.erase(["d", "no"])
    storage.redact({"d": {}, "no": {}})
    terms = (Term("green", "s:xr", (1.0, 2.0)),)
    for number in range(2):
        delta = StatsDelta({}, terms)
        storage.commit(Commit(adjustments=(Adjustment(f"a{number}", BANDIT, 1, delta),)))
    storage.write_control(BANDIT, {"a": 2}, None)
    storage.write_control(BANDIT, {"a": 1}, {"a": 2})
    connection = connection_of(storage)
    connection.set_trace_callback(None)
    seen = [one for one in statements if one.startswith(("SELECT", "UPDATE"))]
    # All of them are wanted, as all counts are.
    seen = [one for one in seen if one != rows.SELECT_ARRAYS]
    assert len(seen) > 8
    for statement in seen:
        # SQLite shows an infinite value by a word that it cannot read.
        readable = statement.replace("Inf", "9e999")
        plan = connection.execute(f"EXPLAIN QUERY PLAN {readable}").fetchall()
        assert not [row for row in plan if row[3].startswith("SCAN bandit_")], (statement, plan)


def test_arrays_are_added_up_in_the_transaction(
    storage: SQLiteBanditStorage, statements: list[str], path: Path
) -> None:
    """Two statements for each array, and none where there are no terms."""
    made = decision("d")
    storage.commit(Commit((seen(made),), (learned(reward(made)),)))
    words = [statement.split()[0] for statement in statements]
    assert (words.count("SELECT"), words.count("INSERT")) == (3 + 2, 6 + 2)
    assert (words[0], words[-1], words.count("COMMIT")) == ("BEGIN", "COMMIT", 1)
    statements.clear()
    storage.commit(decisions(decision("e")))
    assert not [one for one in statements if "bandit_arrays" in one]
    stored = query(path, "SELECT name, value FROM bandit_arrays ORDER BY name")
    assert stored == [("s:xr", struct.pack("<3d", *Y)), ("s:xx", struct.pack("<6d", *YY))]


@pytest.mark.parametrize("value", ["x'00'", "x''", "'12345678'", "1.5"])
def test_an_array_that_is_none(storage: SQLiteBanditStorage, path: Path, value: str) -> None:
    """It is told, and nothing is written over it."""
    storage.commit(Commit((seen(decision("d")),)))
    query(path, f"UPDATE bandit_arrays SET value = {value}")
    before = query(path, "SELECT * FROM bandit_arrays")
    for work in (storage.read_arrays, lambda: storage.commit(Commit((seen(decision("e")),)))):
        with pytest.raises(StorageCorruptError, match="'s:xx' of 'color_btn' in bandit_arrays"):
            work()
    assert query(path, "SELECT * FROM bandit_arrays") == before
    assert dict(storage.get_decisions(["e"])) == {}
    assert storage.commit(decisions(decision("e"))).new == {"e"}


def test_usual_increments_take_no_space(storage: SQLiteBanditStorage, path: Path) -> None:
    made = [decision("d1"), decision("d2")]
    given = reward(made[0], value=0.1)
    odd = StatsDelta({"green": {"pulls": 1, "x": 0.3}, "red": {"x": 1}})
    storage.commit(Commit((pull(made[0]), DecisionWrite(made[1], odd)), (earn(given),)))
    storage.commit(Commit(rewards=(RewardWrite(reward(made[1]), odd),)))
    storage.commit(Commit(rewards=(RewardWrite(reward(made[1], "buy"), None),)))
    assert query(path, "SELECT delta = '' FROM bandit_decisions") == [(1,), (0,)]
    assert query(path, "SELECT delta = '' FROM bandit_rewards") == [(1,), (0,), (None,)]
    assert [write.delta for commit in storage.iter_commits() for write in commit.decisions] == [
        pull(made[0]).delta,
        odd,
    ]
    assert [write.delta for commit in storage.iter_commits() for write in commit.rewards] == [
        earn(given).delta,
        odd,
        None,
    ]


def test_rows_for_people(storage: SQLiteBanditStorage, path: Path) -> None:
    storage.commit(decisions(decision("d", context={"город": "Лондон"})))
    assert query(
        path,
        "SELECT propensity, json_extract(propensities, '$.red'), context, at FROM bandit_decisions",
    ) == [(0.5, 0.25, '{"город":"Лондон"}', 1_700_000_000.25)]


def test_sum_that_no_integer_holds(storage: SQLiteBanditStorage) -> None:
    huge = StatsDelta({"green": {"reward": 2**63 - 1}})
    items = tuple(Adjustment(f"a{n}", BANDIT, 1, huge) for n in range(3))
    storage.commit(Commit(adjustments=items[:2]))
    storage.commit(Commit(adjustments=items[2:]))
    assert storage.read_counts()[KEY]["green"]["reward"] == pytest.approx(3 * 2.0**63)


def test_many_pages(storage: SQLiteBanditStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_pages, "PAGE", 7)
    monkeypatch.setattr(sqlite_storage, "PRUNE_PAGE", 7)
    made = [decision(f"d{n}", bandit=("a", "b")[n % 2], at=float(n)) for n in range(1200)]
    given = [reward(one) for one in made]
    storage.commit(decisions(*made))
    storage.commit(rewards(*given))
    storage.commit(rewards(*(reward(decision(f"later{n}")) for n in range(30))))
    empty = StatsDelta({})
    storage.commit(
        Commit(adjustments=tuple(Adjustment(f"a{n}", BANDIT, 1, empty) for n in range(30)))
    )
    assert [entry.decision for entry in storage.iter_log()] == made
    assert [entry.rewards for entry in storage.iter_log("b")] == [(one,) for one in given[1::2]]
    assert len(list(storage.iter_commits())) == 1260
    assert len(storage.get_decisions([one.id for one in made])) == 1200
    assert storage.prune(100.0) == 100
    assert len(list(storage.iter_log())) == 1100
    assert storage.read_counts()[BanditKey("a", 1)]["green"]["pulls"] == 600


# Readers and writers


def test_open_iterator_does_not_hold_the_log(storage: SQLiteBanditStorage, path: Path) -> None:
    """An open cursor keeps SQLite from starting the write-ahead log anew."""
    storage.commit(decisions(*(decision(f"d{n}") for n in range(2000))))
    for log in (storage.iter_log(), storage.iter_commits()):
        next(log)
        other = SQLiteBanditStorage(path)
        for number in range(1500):
            other.commit(decisions(decision(f"{id(log)} {number}")))
        other.close()
        # 1000 pages of 4 kB are moved into the database whenever they have come together.
        assert path.with_name("bandits.db-wal").stat().st_size < 6e6
        assert len(list(log)) >= 1999


def test_reads_go_on_during_a_transaction_of_another_process(
    storage: SQLiteBanditStorage, path: Path
) -> None:
    storage.commit(decisions(decision("1")))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE bandit_counts SET value = 99")
        assert pulls(storage) == 1
        assert len(list(storage.iter_log())) == 1


def test_check_finds_what_was_removed(storage: SQLiteBanditStorage, path: Path) -> None:
    storage.commit(decisions(decision("1")))
    query(path, "DROP INDEX bandit_rewards_decision", "DROP TABLE bandit_control")
    problems = storage.check()
    assert [any(name in one for one in problems) for name in ("_decision", "_control")] == [
        True
    ] * 2


def test_check_tells_the_journal_mode(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SQLiteBanditStorage, "_configure", lambda self, connection: None)
    storage = SQLiteBanditStorage(path)
    assert ["journal mode delete" in problem for problem in storage.check()] == [True]
    storage.close()


# Forks


def fork_among_threads(path: Path) -> None:
    """Fork ten times while four threads of the parent write, each child writing too."""
    storage = SQLiteBanditStorage(path)
    stop = threading.Event()
    written: list[int] = []

    def work(worker: int) -> None:
        number = 0
        while not stop.is_set():
            storage.commit(decisions(decision(f"t{worker}-{number}")), PATIENCE)
            number += 1
        written.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    pids = []
    for child in range(10):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                for number in range(100):
                    storage.commit(decisions(decision(f"c{child}-{number}")), PATIENCE)
                storage.close()
                os._exit(0)
            os._exit(1)
        pids.append(pid)
        time.sleep(0.01)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    stop.set()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 10
    assert pulls(storage) == sum(written) + 1000
    storage.close()
    assert pulls(storage) == sum(written) + 1000
    assert storage.check() == []
    storage.close()


def test_fork_while_threads_write(path: Path) -> None:
    run_processes(fork_among_threads, [(path,)])


def test_nothing_is_opened_until_the_fork_is_over(storage: SQLiteBanditStorage) -> None:
    storage.commit(decisions(decision("1")))
    thread = threading.Thread(target=storage.commit, args=(decisions(decision("2")),))
    sqlite_file._forks._before()
    try:
        assert storage._file._connection is None
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert storage._file._connection is None
    finally:
        sqlite_file._forks._in_parent()
    thread.join(PATIENCE)
    assert pulls(storage) == 2


def descriptors(path: str) -> list[int]:
    """The descriptors by which this process has a file open."""
    wanted = os.stat(path)
    found = []
    for fd in range(256):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(fd), wanted):
                found.append(fd)
    return found


def refused_in_child(storage: SQLiteBanditStorage, fork: Any) -> None:
    path = storage.path
    before = descriptors(path)
    assert before
    pid = fork()
    if pid == 0:
        code = 1
        try:
            for one in (SQLiteBanditStorage(storage.path), storage, storage):
                with pytest.raises(StorageError, match="when this process was forked"):
                    one.commit(decisions(decision("child")), 5.0)
                one.close()
            del storage, one
            gc.collect()
            assert descriptors(path) == before, "the inherited connection was closed"
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def fork_without_hooks(path: Path) -> None:
    storage = SQLiteBanditStorage(path)
    storage.commit(decisions(decision("1")))
    refused_in_child(storage, ctypes.PyDLL(None).fork)
    storage.commit(decisions(decision("2")))
    assert pulls(storage) == 2
    storage.close()


def fork_in_the_middle_of_a_commit(path: Path) -> None:
    sqlite_file.FORK_PATIENCE = 0.05
    storage = SQLiteBanditStorage(path)
    storage.commit(decisions(decision("1")))
    # As in a signal handler that interrupted an operation of this thread.
    storage._file.read(lambda connection: refused_in_child(storage, os.fork), None)
    storage.commit(decisions(decision("2")))
    assert pulls(storage) == 2
    storage.close()


@pytest.mark.parametrize("work", [fork_without_hooks, fork_in_the_middle_of_a_commit])
def test_child_with_an_inherited_connection_refuses(path: Path, work: Any) -> None:
    run_processes(work, [(path,)])
    assert pulls(SQLiteBanditStorage(path)) == 2


def test_closed_at_the_end_of_the_interpreter(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from tests.storage.test_sqlite import make_storage, decisions, decision\n"
        "storage = make_storage(pathlib.Path(sys.argv[1]))\n"
        "storage.commit(decisions(decision('1')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.name for file in tmp_path.iterdir()] == ["bandits.db"]


def test_two_storages_of_one_process_on_one_file(tmp_path: Path) -> None:
    first, second = make_storage(tmp_path), make_storage(tmp_path)
    first.commit(decisions(decision("1")))
    second.commit(decisions(decision("2")))
    first.close()
    run_processes(write_own, [(make_storage, tmp_path, n, 50) for n in range(2)])
    second.commit(decisions(decision("3")))
    second.close()
    assert pulls(first) == 3 + 50
    first.close()
