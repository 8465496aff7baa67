"""The SQL storage when its server stops, hangs, locks, or is of another version."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import QueuePool

from flask_bandit.errors import ConfigurationError, StorageError, StorageTimeoutError
from flask_bandit.plugins import storage_from_uri
from flask_bandit.storage.base import Adjustment, Commit
from flask_bandit.storage.sql import SQLBanditStorage
from flask_bandit.storage.sql.migrate import VERSIONS
from flask_bandit.testing.storage_processes import run_processes, start_process
from flask_bandit.testing.storage_samples import (
    BANDIT,
    KEY,
    TWO,
    decision,
    decisions,
    earn,
    pull,
    reward,
    rewards,
)
from tests.servers.postgres import PostgresServer, free_port

DEADLINE = 0.5
FAR_TOO_LONG = 10.0
PATIENCE = 60.0


@pytest.fixture
def uri(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
def storage(uri: str) -> Iterator[SQLBanditStorage]:
    storage = SQLBanditStorage(uri)
    yield storage
    storage.close()


def connect(uri: str) -> psycopg.Connection:
    return psycopg.connect(uri.replace("+psycopg", ""))


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def totals(storage: SQLBanditStorage) -> tuple[float, float]:
    row = storage.read_counts(PATIENCE)[KEY]["green"]
    return row["pulls"], row.get("rewards", 0)


# A server that does not answer


def test_a_stopped_server_process_meets_the_deadline(
    storage: SQLBanditStorage, postgres: PostgresServer, uri: str
) -> None:
    storage.commit(decisions(decision("first")))
    stopped = postgres.pids(uri.rpartition("/")[2])
    assert stopped
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(StorageTimeoutError, match="deadline"):
            storage.commit(decisions(decision("second")), DEADLINE)
        assert DEADLINE <= time.monotonic() - started < FAR_TOO_LONG
        # The others are served by a connection of their own.
        storage.commit(decisions(decision("third")), PATIENCE)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    storage.commit(decisions(decision("second")), PATIENCE)
    assert totals(storage) == (3, 0)


def test_no_server(storage: SQLBanditStorage) -> None:
    nowhere = SQLBanditStorage(f"postgresql://me:top-secret@127.0.0.1:{free_port()}/x")
    for call in (lambda: nowhere.read_counts(DEADLINE), nowhere.upgrade, nowhere.check):
        with pytest.raises(StorageError) as caught:
            call()
        assert "top-secret" not in f"{caught.value} {caught.value.__cause__} {nowhere!r}"
        assert "postgresql+psycopg://me:***@127.0.0.1" in str(caught.value)


def test_a_lock_meets_the_deadline_and_leaves_nothing_in_the_server(
    storage: SQLBanditStorage, uri: str
) -> None:
    storage.commit(decisions(decision("first")))
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with connect(uri) as other:
        other.execute("LOCK TABLE bandit_counts")
        with pytest.raises(StorageTimeoutError):
            storage.commit(decisions(decision("second")), DEADLINE)
        with connect(uri) as third:
            until(
                lambda: third.execute(waiting.text.encode()).fetchone() == (0,),
                "the statement still waits in the server",
            )
    storage.commit(decisions(decision("second")), PATIENCE)
    assert totals(storage) == (2, 0)


def test_a_deadlock_is_tried_again(
    storage: SQLBanditStorage, postgres: PostgresServer, uri: str
) -> None:
    name = uri.rpartition("/")[2]
    with postgres.connect() as admin:
        admin.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '500ms'".encode())
    storage.commit(decisions(decision("first")))
    codes: list[str] = []
    assert storage._calls.links is not None
    event.listen(
        storage._calls.links.engine,
        "handle_error",
        lambda context: codes.append(context.original_exception.sqlstate),
    )
    insert = (
        b"INSERT INTO bandit_decisions (id, bandit, version, arm, policy_version, at, delta,"
        b" awaited) VALUES (%s, '', 1, '', '', 0, '{}', false)"
    )
    with connect(uri) as other:
        other.execute(b"SET deadlock_timeout = '60s'")
        other.execute(insert, ("b",))
        commit = decisions(decision("a"), decision("b"))
        thread = threading.Thread(target=storage.commit, args=(commit, PATIENCE))
        thread.start()
        with connect(uri) as third:
            third.autocommit = True
            query = b"SELECT count(*) FROM pg_locks WHERE NOT granted"
            until(lambda: third.execute(query).fetchone() != (0,), "it does not wait")
        # Granted once the storage's transaction is the victim.
        other.execute(insert, ("a",))
        other.rollback()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    assert totals(storage) == (3, 0)
    assert codes == ["40P01"]


# A server that crashes


def write_through_outages(uri: str, diary: Path, worker: int) -> None:
    """Write until told to stop, noting what was acknowledged; the server may be away at times."""
    storage = SQLBanditStorage(uri)
    with diary.open("a") as notes:
        for number in range(1_000_000):
            made = decision(f"w{worker}-{number}")
            commit = Commit((pull(made),), (earn(reward(made)),))
            for timeout in (0.3, 0.3):
                try:
                    storage.commit(commit, timeout)
                except StorageError:
                    # Refused at once, it would ask so often that the server cannot start.
                    time.sleep(0.05)
                    continue
                print(made.id, file=notes, flush=True)
                break
            if (diary.parent / "stop").exists():
                break
    storage.close()


def let_them_write(diaries: list[Path]) -> None:
    sizes = {diary: diary.stat().st_size + 200 for diary in diaries}
    until(
        lambda: all(diary.stat().st_size > size for diary, size in sizes.items()),
        "the writers do not write",
    )


def test_nothing_acknowledged_is_lost_when_the_server_crashes(
    postgres: PostgresServer, uri: str, tmp_path: Path
) -> None:
    diaries = [tmp_path / f"diary{worker}" for worker in range(3)]
    started = [
        start_process(write_through_outages, uri, diary, worker)
        for worker, diary in enumerate(diaries)
    ]
    for diary in diaries:
        diary.touch()
    try:
        for _ in range(3):
            let_them_write(diaries)
            postgres.stop_immediate()
            postgres.start()
    finally:
        (tmp_path / "stop").touch()
    for process, connection in started:
        assert connection.recv() is None
        connection.close()
        process.join(PATIENCE)
        process.close()
    acknowledged = {id_ for diary in diaries for id_ in diary.read_text().split()}
    storage = SQLBanditStorage(uri)
    stored = {entry.decision.id: len(entry.rewards) for entry in storage.iter_log()}
    assert acknowledged <= set(stored)
    assert set(stored.values()) == {1}
    assert totals(storage) == (len(stored), len(stored))
    storage.close()


# Many at once


def use_first(uri: str, worker: int) -> None:
    failures: list[BaseException] = []

    def use(number: int) -> None:
        storage = SQLBanditStorage(uri)
        try:
            storage.commit(decisions(decision(f"{worker}-{number}")), PATIENCE)
        except BaseException as error:
            failures.append(error)
        storage.close()

    threads = [threading.Thread(target=use, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_forty_first_uses_at_once(uri: str) -> None:
    run_processes(use_first, [(uri, worker) for worker in range(8)])
    storage = SQLBanditStorage(uri)
    assert totals(storage) == (40, 0)
    storage.close()


def test_first_uses_at_once_of_sqlite(tmp_path: Path) -> None:
    uri = f"sqlite+pysqlite:///{tmp_path}/bandits.db"
    run_processes(use_first, [(uri, worker) for worker in range(4)])
    storage = SQLBanditStorage(uri)
    assert totals(storage) == (20, 0)
    storage.close()


def test_a_reward_meets_its_decision(storage: SQLBanditStorage) -> None:
    """Sent at the same moment, one of them sees the other: none waits for ever."""
    storage.upgrade()
    number = 150
    barrier = threading.Barrier(2)
    failures: list[BaseException] = []

    def send(commit_of: Callable[[str], Commit]) -> None:
        try:
            for n in range(number):
                barrier.wait(PATIENCE)
                storage.commit(commit_of(f"d{n}"), PATIENCE)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=send, args=(lambda id_: decisions(decision(id_)),)),
        threading.Thread(target=send, args=(lambda id_: rewards(reward(decision(id_))),)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert totals(storage) == (number, number)


def test_a_decision_waits_for_the_reward_that_is_being_parked(
    storage: SQLBanditStorage, uri: str
) -> None:
    """The other session has parked a reward and has not committed it yet."""
    made = decision("d")
    storage.commit(rewards(reward(decision("model"))))
    with connect(uri) as other:
        for table, names, model in (
            ("bandit_decisions", "bandit, version, arm, policy_version, at, delta, awaited", "id"),
            (
                "bandit_rewards",
                "bandit, version, arm, goal, value, at, delta, delta_arm, counted, decision_id",
                "decision_id",
            ),
        ):
            id_ = "d" if table == "bandit_decisions" else "d:reward"
            source = names.replace("decision_id", "'d'")
            other.execute(
                f"INSERT INTO {table} (id, {names}) SELECT '{id_}', {source} FROM {table}"
                f" WHERE {model} = 'model'".encode()
            )
        thread = threading.Thread(target=storage.commit, args=(decisions(made), PATIENCE))
        thread.start()
        with connect(uri) as third:
            third.autocommit = True
            query = b"SELECT count(*) FROM pg_locks WHERE NOT granted"
            until(lambda: third.execute(query).fetchone() != (0,), "it does not wait")
        other.commit()
        thread.join(PATIENCE)
    assert totals(storage) == (1, 1)
    assert [len(entry.rewards) for entry in storage.iter_log()] == [1]


# Tables and settings


@pytest.fixture(params=["postgresql", "sqlite"])
def any_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+pysqlite:///{tmp_path}/bandits.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


def test_tables_are_left_alone_without_auto_migrate(any_uri: str) -> None:
    storage = SQLBanditStorage(any_uri, auto_migrate=False)
    with pytest.raises(StorageError, match="flask bandit db upgrade"):
        storage.read_counts(PATIENCE)
    assert "flask bandit db upgrade" in " ".join(storage.check())
    assert VERSIONS[-1] in storage.upgrade()
    assert "up to date" in storage.upgrade()
    assert storage.read_counts(PATIENCE) == {}
    assert storage.check() == []
    storage.close()


def test_tables_of_a_later_version(any_uri: str) -> None:
    storage = SQLBanditStorage(any_uri)
    storage.upgrade()
    storage.close()
    engine = create_engine(any_uri)
    with engine.begin() as connection:
        connection.execute(text("UPDATE bandit_alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StorageError, match="upgrade Flask-Bandit"):
        storage.upgrade()
    storage.close()
    storage = SQLBanditStorage(any_uri)
    with pytest.raises(StorageError, match="upgrade Flask-Bandit"):
        storage.read_counts(PATIENCE)
    storage.close()


def test_tables_that_vanish_are_made_again(storage: SQLBanditStorage, uri: str) -> None:
    storage.commit(decisions(decision("a")))
    with connect(uri) as other:
        other.execute(b"DROP SCHEMA public CASCADE")
        other.execute(b"CREATE SCHEMA public")
    with pytest.raises(StorageError, match="flask bandit db upgrade"):
        storage.commit(decisions(decision("b")), PATIENCE)
    storage.commit(decisions(decision("b")), PATIENCE)
    assert totals(storage) == (1, 0)


def test_check_names_settings_that_lose_commits(
    storage: SQLBanditStorage, postgres: PostgresServer, uri: str
) -> None:
    with postgres.connect() as admin:
        name = uri.rpartition("/")[2]
        admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
    (warning,) = storage.check()
    assert "synchronous_commit" in warning
    assert "lose" in warning


def test_check_of_a_user_who_may_only_read(
    storage: SQLBanditStorage, postgres: PostgresServer, uri: str
) -> None:
    storage.upgrade()
    role = f"reader_{uuid.uuid4().hex}"
    with connect(uri) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN".encode())
        owner.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}".encode())
    reader = SQLBanditStorage(uri.replace("postgres:secret@", f"{role}@"))

    def grant(rights: str) -> None:
        with connect(uri) as owner:
            owner.execute(f"GRANT {rights} TO {role}".encode())

    try:
        for table, rights in (
            ("bandit_decisions", "INSERT, UPDATE ON bandit_decisions"),
            ("bandit_rewards", "INSERT ON bandit_rewards"),
            ("bandit_rewards", "UPDATE ON bandit_rewards"),
            ("bandit_adjustments", "INSERT ON bandit_adjustments"),
            ("bandit_counts", "INSERT, UPDATE ON bandit_counts"),
            ("bandit_arrays", "INSERT, UPDATE ON bandit_arrays"),
            ("bandit_control", "INSERT ON bandit_control"),
            ("bandit_control", "UPDATE ON bandit_control"),
            ("bandit_digest", "INSERT ON bandit_digest"),
            ("bandit_digest", "UPDATE ON bandit_digest"),
        ):
            (problem,) = reader.check()
            assert "Commits cannot be stored" in problem
            assert f"permission denied for table {table}" in problem
            assert "grant the app's user" in problem
            grant(rights)
        assert reader.check() == []
        reader.commit(decisions(decision("a")), PATIENCE)
    finally:
        reader.close()
        with connect(uri) as owner:
            owner.execute(f"DROP OWNED BY {role}".encode())
            owner.execute(f"DROP ROLE {role}".encode())


def test_check_of_a_read_only_server(
    storage: SQLBanditStorage, postgres: PostgresServer, uri: str
) -> None:
    storage.upgrade()
    storage.close()
    name = uri.rpartition("/")[2]
    with postgres.connect() as admin:
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    (problem,) = storage.check()
    assert "read-only transaction" in problem
    assert "connect to the primary" in problem


def test_check_of_a_read_only_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "bandits.db"
    storage = SQLBanditStorage(f"sqlite+pysqlite:///{path}")
    storage.upgrade()
    storage.close()
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true", poolclass=QueuePool)
    (problem,) = SQLBanditStorage(engine).check()
    assert "readonly database" in problem
    assert "may write the file" in problem
    engine.dispose()


def test_context_with_texts_that_a_database_refuses(any_uri: str) -> None:
    storage = SQLBanditStorage(any_uri)
    for number, awkward in enumerate(["a\x00b", '"quoted"', "", "ü\n", "👩‍👩‍👧‍👦"]):
        made = decision(f"d{number}", context={awkward: [awkward]})
        storage.commit(decisions(made))
        assert storage.get_decisions([made.id])[made.id] == made
    storage.close()


def test_values_that_a_database_refuses(any_uri: str) -> None:
    storage = SQLBanditStorage(any_uri)
    with pytest.raises(StorageError):
        storage.commit(Commit(adjustments=(Adjustment("a", BANDIT, 2**70, TWO),)))
    storage.commit(Commit(adjustments=(Adjustment("a", BANDIT, 1, TWO),)))
    assert storage.read_counts()[KEY] == TWO.counts
    storage.close()


def test_uris_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="PostgreSQL and SQLite, not 'mysql'"):
        SQLBanditStorage("mysql://root@localhost/x")
    with pytest.raises(ConfigurationError, match="memory"):
        SQLBanditStorage("sqlite+pysqlite://")
    with pytest.raises(ConfigurationError, match="no option pool"):
        storage_from_uri("postgresql://localhost/x", {"pool": 1})
    with pytest.raises(ConfigurationError) as caught:
        SQLBanditStorage("postgresql:/me:top-secret@localhost/x")
    assert "top-secret" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for uri in ("postgresql://localhost/x", "postgresql+psycopg://localhost/x"):
        with pytest.raises(ConfigurationError, match=r"pip install 'Flask-Bandit\[postgres\]'"):
            storage_from_uri(uri)


# SQLite


def test_a_locked_sqlite_file_meets_the_deadline(tmp_path: Path) -> None:
    path = tmp_path / "bandits.db"
    storage = SQLBanditStorage(f"sqlite+pysqlite:///{path}")
    storage.upgrade()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(StorageTimeoutError):
        storage.commit(decisions(decision("a")), DEADLINE)
    assert time.monotonic() - started < FAR_TOO_LONG
    other.execute("ROLLBACK")
    other.close()
    storage.commit(decisions(decision("a")), PATIENCE)
    assert totals(storage) == (1, 0)
    storage.close()


def test_an_apps_sqlite_engine_stays_as_it_was(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/app.db", poolclass=QueuePool, pool_size=1)

    def settings() -> list[object]:
        with engine.connect() as connection:
            return [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("busy_timeout", "journal_mode", "synchronous")
            ] + [connection.connection.driver_connection.isolation_level]  # type: ignore[union-attr]

    before = settings()
    storage = SQLBanditStorage(engine)
    storage.commit(decisions(decision("a")), 0.7)
    with pytest.raises(StorageError):
        storage.commit(Commit(adjustments=(Adjustment("a", BANDIT, 2**70, TWO),)), 0.7)
    assert settings() == before
    storage.close()
    engine.dispose()
