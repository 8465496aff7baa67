"""The SQL storage: the log's times, older tables, what operators decide, and what is erased."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.pool import QueuePool

from flask_bandit.errors import StorageCorruptError, StorageError, StorageTimeoutError
from flask_bandit.model import StatsDelta, Term
from flask_bandit.storage.base import Adjustment, Commit
from flask_bandit.storage.sql import SQLBanditStorage, history, metadata, migrate
from flask_bandit.storage.sql.migrate import VERSIONS
from flask_bandit.testing.storage_samples import BANDIT, KEY, decision, decisions, pull
from tests.servers.postgres import PostgresServer

DEADLINE = 0.5
PATIENCE = 60.0


@pytest.fixture(params=["postgresql", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+pysqlite:///{tmp_path}/bandits.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def engine(uri: str) -> Iterator[Engine]:
    """An engine of the tests' own."""
    engine = create_engine(uri)
    yield engine
    engine.dispose()


@pytest.fixture
def storage(uri: str) -> Iterator[SQLBanditStorage]:
    storage = SQLBanditStorage(uri)
    yield storage
    storage.close()


def run(engine: Engine, *statements: str) -> list[Any]:
    """Run statements as another program would, and return the rows of the last one."""
    found: list[Any] = []
    with engine.begin() as connection:
        for statement in statements:
            result = connection.execute(text(statement))
            found = list(result) if result.returns_rows else []
    return found


def fill(storage: SQLBanditStorage, number: int) -> None:
    """Store decisions of two bandits, of which every ten of one are made at the same moment."""
    for start in range(0, number, 1000):
        made = [
            decision(f"d{n}", bandit=(BANDIT, "other")[n % 2], at=float(n // 20))
            for n in range(start, start + 1000)
        ]
        storage.commit(decisions(*made), PATIENCE)


# The log of some time


def test_log_of_some_time_uses_the_index(storage: SQLBanditStorage, engine: Engine) -> None:
    fill(storage, 20_000)
    run(engine, "ANALYZE")
    statements: list[tuple[str, Any]] = []
    assert storage._calls.links is not None
    own = storage._calls.links.engine

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        statements.append((statement, parameters))

    event.listen(own, "before_cursor_execute", note)
    found = [one.decision.id for one in storage.iter_log(BANDIT, since=400.0, until=405.0)]
    event.remove(own, "before_cursor_execute", note)
    assert found == [f"d{n}" for n in range(8000, 8100, 2)]
    prefix = "EXPLAIN QUERY PLAN " if own.dialect.name == "sqlite" else "EXPLAIN "
    plans = []
    with engine.connect() as connection:
        for statement, parameters in statements:
            if "FROM bandit_decisions" in statement:
                rows = connection.exec_driver_sql(prefix + statement, parameters)
                plans.append(" ".join(str(value) for row in rows for value in row))
    assert len(plans) == 3
    assert [plan for plan in plans if "ix_bandit_decisions_bandit_at_seq" in plan], plans
    assert not [plan for plan in plans if "Seq Scan" in plan or "SCAN bandit" in plan], plans
    assert not [plan for plan in plans if "TEMP B-TREE" in plan], plans


def test_many_pages_of_one_moment(
    storage: SQLBanditStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE", 7)
    monkeypatch.setattr(history, "NUMBERS", 7)
    monkeypatch.setattr(history, "_NUMBERS", history._NUMBERS.limit(7))
    fill(storage, 1000)
    expected = [f"d{n}" for n in range(0, 1000, 2)]
    assert [entry.decision.id for entry in storage.iter_log(BANDIT)] == expected
    found = [entry.decision.id for entry in storage.iter_log(BANDIT, since=2, until=7)]
    assert found == expected[20:70]


def test_log_is_in_the_order_of_storing(
    storage: SQLBanditStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE", 2)
    for number, at in enumerate([5.0, -1.0, 3.0, 5.0, 0.0]):
        storage.commit(decisions(decision(f"d{number}", at=at)))
    for bandit in (BANDIT, None):
        found = [one.decision.id for one in storage.iter_log(bandit, since=0.0, until=5.5)]
        assert found == ["d0", "d2", "d3", "d4"]


# Tables of earlier versions

INDEX = "ix_bandit_decisions_bandit_at_seq"
LATER = ("bandit_digest", "bandit_arrays")


def indexes(engine: Engine) -> bool:
    """Return whether the index is there."""
    if engine.dialect.name == "sqlite":
        return bool(run(engine, f"SELECT 1 FROM sqlite_master WHERE name = '{INDEX}'"))
    return bool(run(engine, f"SELECT 1 FROM pg_indexes WHERE indexname = '{INDEX}'"))


@pytest.mark.parametrize("made_by_the_app", [False, True])
@pytest.mark.parametrize("noted", ["0001", None])
def test_tables_of_version_1(
    uri: str, engine: Engine, noted: str | None, made_by_the_app: bool
) -> None:
    """With all that came later or without, and with the version noted or not, as an app's
    migrations do."""
    metadata.create_all(engine)
    if noted:
        run(engine, f"INSERT INTO bandit_alembic_version VALUES ('{noted}')")
    if not made_by_the_app:
        run(engine, f"DROP INDEX {INDEX}", *(f"DROP TABLE {name}" for name in LATER))
    storage = SQLBanditStorage(uri)
    storage.commit(decisions(decision("a")), PATIENCE)
    assert indexes(engine)
    assert storage.write_digest(KEY, {"n": 1}, 0, PATIENCE)
    assert storage.read_arrays(PATIENCE) == {}
    assert run(engine, "SELECT version_num FROM bandit_alembic_version") == [(VERSIONS[-1],)]
    assert "up to date" in storage.upgrade()
    storage.close()


@pytest.mark.parametrize("made_by_the_app", [False, True])
def test_tables_of_version_2(
    uri: str, engine: Engine, monkeypatch: pytest.MonkeyPatch, made_by_the_app: bool
) -> None:
    """A process of before goes on when one of now has brought them up to date."""
    metadata.create_all(engine)
    run(engine, "INSERT INTO bandit_alembic_version VALUES ('0002')")
    if not made_by_the_app:
        run(engine, *(f"DROP TABLE {name}" for name in LATER))
    old, late, new = (SQLBanditStorage(uri) for _ in range(3))
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "VERSIONS", VERSIONS[:2])
        old.commit(decisions(decision("a")), PATIENCE)
    told = SQLBanditStorage(uri, auto_migrate=False)
    with pytest.raises(StorageError, match="of version 0002 and .* of version 0004: run 'flask"):
        told.read_digest(KEY, PATIENCE)
    assert new.write_digest(KEY, {"n": 1}, 0, PATIENCE)
    old.commit(decisions(decision("b")), PATIENCE)
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "VERSIONS", VERSIONS[:2])
        with pytest.raises(StorageError, match="have the version 0004.* upgrade Flask-Bandit"):
            late.commit(decisions(decision("c")), PATIENCE)
    assert told.read_digest(KEY, PATIENCE) == (1, {"n": 1})
    assert told.read_counts(PATIENCE)[KEY]["green"]["pulls"] == 2
    for storage in (old, late, new, told):
        storage.close()


@pytest.mark.parametrize("made_by_the_app", [False, True])
def test_tables_of_version_3(uri: str, engine: Engine, made_by_the_app: bool) -> None:
    metadata.create_all(engine)
    run(engine, "INSERT INTO bandit_alembic_version VALUES ('0003')")
    if not made_by_the_app:
        run(engine, "DROP TABLE bandit_arrays")
    storage = SQLBanditStorage(uri)
    delta = StatsDelta({}, (Term("green", "s:xr", (1.0, 2.0)),))
    storage.commit(Commit(adjustments=(Adjustment("a", BANDIT, 1, delta),)), PATIENCE)
    assert storage.read_arrays(PATIENCE)[KEY]["green"]["s:xr"].tolist() == [1.0, 2.0]
    storage.close()


# What is swapped


def test_state_that_somebody_wrote_by_hand(storage: SQLBanditStorage, engine: Engine) -> None:
    storage.upgrade()
    run(engine, f"INSERT INTO bandit_control VALUES ('{BANDIT}', '{{ \"n\" \\:1,\"a\"\\:2}}')")
    seen = storage.read_control()[BANDIT]
    assert storage.write_control(BANDIT, {"n": 2}, seen)
    for wrong in ("paused", "[1]"):
        run(engine, f"UPDATE bandit_control SET state = '{wrong}'")
        with pytest.raises(StorageCorruptError, match=f"'{BANDIT}'.*delete that row"):
            storage.read_control()


@pytest.mark.parametrize("expected", [None, {"n": 1}])
def test_somebody_writes_between_reading_and_writing(
    storage: SQLBanditStorage, engine: Engine, expected: dict[str, int] | None
) -> None:
    storage.upgrade()
    if expected is not None:
        storage.write_control(BANDIT, expected, None)
    assert storage._calls.links is not None
    done: list[int] = []

    def interrupt(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "bandit_control" in statement and "SELECT" not in statement and not done:
            done.append(1)
            seven = "'{\"n\"\\: 7}'"
            run(
                engine,
                f"INSERT INTO bandit_control VALUES ('{BANDIT}', {seven})"
                if expected is None
                else f"UPDATE bandit_control SET state = {seven}",
            )

    event.listen(storage._calls.links.engine, "before_cursor_execute", interrupt)
    assert storage.write_control(BANDIT, {"n": 2}, expected, PATIENCE) is False
    assert done
    assert storage.read_control() == {BANDIT: {"n": 7}}


def kill_after_swap(storage: SQLBanditStorage, engine: Engine, table: str) -> list[Any]:
    """End the connection when it has changed a table, once; return whether that was done."""
    assert storage._calls.links is not None
    killed: list[Any] = []

    def kill(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if table in statement and "SELECT" not in statement and not killed:
            pid = cursor.connection.info.backend_pid
            killed.append(run(engine, f"SELECT pg_terminate_backend({pid}, 60000)"))
            cursor.execute("SELECT 1")

    event.listen(storage._calls.links.engine, "after_cursor_execute", kill)
    return killed


@pytest.mark.parametrize("uri", ["postgresql"], indirect=True)
@pytest.mark.parametrize("expected", [None, {"n": 1}])
def test_answer_to_a_swap_is_lost(
    storage: SQLBanditStorage, engine: Engine, expected: dict[str, int] | None
) -> None:
    """It was stored, and is not taken for somebody else's when it is tried again."""
    if expected is not None:
        storage.write_control(BANDIT, expected, None)
    storage.read_control()
    killed = kill_after_swap(storage, engine, "bandit_control")
    assert storage.write_control(BANDIT, {"n": 2}, expected, PATIENCE) is True
    assert killed == [[(True,)]]
    assert storage.read_control() == {BANDIT: {"n": 2}}


@pytest.mark.parametrize("uri", ["postgresql"], indirect=True)
def test_answer_to_a_summary_is_lost(storage: SQLBanditStorage, engine: Engine) -> None:
    storage.read_digest(KEY)
    for revision in range(2):
        killed = kill_after_swap(storage, engine, "bandit_digest")
        assert storage.write_digest(KEY, {"n": 7}, revision, PATIENCE) is True
        assert killed == [[(True,)]]
        assert storage.read_digest(KEY) == (revision + 1, {"n": 7})


def test_summary_that_somebody_wrote_by_hand(storage: SQLBanditStorage, engine: Engine) -> None:
    storage.upgrade()
    for revision, wrong in enumerate(["", "{", "[1]", "null", "[" * 100_000], 3):
        run(engine, "DELETE FROM bandit_digest")
        run(engine, f"INSERT INTO bandit_digest VALUES ('{BANDIT}', 1, {revision}, '{wrong}')")
        assert storage.read_digest(KEY) == (revision, {})
        assert storage.write_digest(KEY, {"n": 1}, revision)
        assert storage.read_digest(KEY) == (revision + 1, {"n": 1})


# Erasing


def traces(path: Path, *words: str) -> list[str]:
    """Return which words stand anywhere in the database or in its write-ahead log."""
    files = [path, path.with_name(f"{path.name}-wal")]
    content = b"".join(file.read_bytes() for file in files if file.exists())
    return [word for word in words if word.encode() in content]


WORDS = [word for n in range(200) for word in (f"subject{n:06}", f"Name{n:06}")]


def people() -> Commit:
    """Make decisions of which every tenth has a context that fills several pages."""
    return Commit(
        tuple(
            pull(
                decision(
                    f"d{n}",
                    subject=f"subject{n:06}",
                    context={"name": f"Name{n:06}", "text": "x" * (90 if n % 10 else 9000)},
                )
            )
            for n in range(200)
        )
    )


def test_erased_words_are_nowhere_in_the_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "bandits.db"
    storage = SQLBanditStorage(f"sqlite+pysqlite:///{path}")
    storage.commit(people())
    assert traces(path, *WORDS) == WORDS
    assert storage.erase([f"d{n}" for n in range(0, 200, 2)]) == 100
    assert storage.erase([f"d{n}" for n in range(200)]) == 100
    assert traces(path, *WORDS) == []
    storage.close()
    assert traces(path, *WORDS) == []


def test_redacted_words_are_nowhere_in_the_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "bandits.db"
    storage = SQLBanditStorage(f"sqlite+pysqlite:///{path}")
    storage.commit(people())
    assert storage.redact({f"d{n}": {"rest": n} for n in range(200)}) == 200
    assert traces(path, *WORDS) == WORDS[::2]
    storage.close()
    assert traces(path, *WORDS) == WORDS[::2]


@pytest.mark.parametrize("setting", [0, 1, 2])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_erasing_on_an_apps_engine(tmp_path: Path, setting: int, mode: str) -> None:
    path = tmp_path / "app.db"
    engine = create_engine(f"sqlite:///{path}", poolclass=QueuePool, pool_size=1)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        connection.execute(f"PRAGMA secure_delete = {('OFF', 'ON', 'FAST')[setting]}")
        connection.execute(f"PRAGMA journal_mode = {mode}")

    storage = SQLBanditStorage(engine)
    storage.commit(decisions(decision("d", subject="subject000001", context={"text": "y" * 9000})))
    assert storage.erase(["d"]) == 1
    assert run(engine, "PRAGMA secure_delete") == [(setting,)]
    assert traces(path, "subject000001", "y" * 500) == []
    storage.close()
    engine.dispose()


def test_erasing_while_another_reads_the_old(tmp_path: Path) -> None:
    path = tmp_path / "bandits.db"
    storage = SQLBanditStorage(f"sqlite+pysqlite:///{path}")
    storage.commit(people())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM bandit_decisions").fetchall()
        with pytest.raises(StorageTimeoutError, match="erase it again"):
            storage.erase(["d1"], DEADLINE)
        other.execute("COMMIT")
    assert storage.erase(["d1"], PATIENCE) == 0
    assert traces(path, "subject000001", "Name000001") == []
    storage.close()


def test_others_write_while_erasing_waits_for_a_reader(tmp_path: Path) -> None:
    """Only the erasing waits until the reader is done, however long that takes."""
    path = tmp_path / "bandits.db"
    storage, another = (SQLBanditStorage(f"sqlite+pysqlite:///{path}") for _ in range(2))
    storage.commit(decisions(decision("d1", subject="Ann")))
    erased: list[int] = []
    erasing = threading.Thread(target=lambda: erased.append(storage.erase(["d1"], PATIENCE)))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM bandit_decisions").fetchall()
        erasing.start()
        deadline = time.monotonic() + PATIENCE
        while another.get_decisions(["d1"])["d1"].subject is not None:
            assert time.monotonic() < deadline
        for number in range(50):
            another.commit(decisions(decision(f"new{number}")), 10 * DEADLINE)
        assert not erased
    erasing.join(PATIENCE)
    assert erased == [1]
    for one in (storage, another):
        one.close()
