"""The SQLite storage: the index of the log's times, what operators decide, digests, and erasing."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_bandit.errors import StorageCorruptError, StorageTimeoutError
from flask_bandit.storage import SQLiteBanditStorage
from flask_bandit.storage.base import Commit, DecisionWrite
from flask_bandit.storage.sqlite import pages as sqlite_pages
from flask_bandit.storage.sqlite import rows as sqlite_rows
from flask_bandit.testing.storage_samples import (
    BANDIT,
    KEY,
    decision,
    decisions,
    pull,
    reward,
    rewards,
)

DEADLINE = 0.5
FAR_TOO_LONG = 10.0
PATIENCE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bandits.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SQLiteBanditStorage]:
    storage = SQLiteBanditStorage(path)
    yield storage
    storage.close()


def fill(storage: SQLiteBanditStorage, number: int) -> None:
    """Store decisions of two bandits; every second ten are made at the same moment."""
    for start in range(0, number, 500):
        made = [
            decision(f"d{n}", bandit=(BANDIT, "other")[n % 2], at=float(n // 20))
            for n in range(start, min(start + 500, number))
        ]
        storage.commit(decisions(*made), PATIENCE)


# The log of some time


def test_log_of_some_time_uses_the_index(storage: SQLiteBanditStorage) -> None:
    fill(storage, 3000)
    connection = storage._file._connection
    assert connection is not None
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    found = [one.decision.id for one in storage.iter_log(BANDIT, since=40.0, until=45.0)]
    assert found == [f"d{n}" for n in range(800, 900, 2)]
    connection.set_trace_callback(None)
    plans = [
        row[3]
        for statement in seen
        if "bandit_decisions" in statement
        for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
    ]
    index = "USING COVERING INDEX bandit_decisions_time (bandit=? AND at>? AND at<?)"
    assert [plan for plan in plans if index in plan], plans
    assert not [plan for plan in plans if "SCAN bandit_" in plan or "TEMP B-TREE" in plan], plans


def test_log_reads_what_it_yields(storage: SQLiteBanditStorage) -> None:
    """However much is stored, the log of a moment takes a handful of statements."""
    fill(storage, 6000)
    connection = storage._file._connection
    assert connection is not None
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    assert len(list(storage.iter_log(BANDIT, since=40.0, until=41.0))) == 10
    connection.set_trace_callback(None)
    assert len(seen) <= 4


def test_many_pages_of_one_moment(
    storage: SQLiteBanditStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_pages, "PAGE", 7)
    monkeypatch.setattr(sqlite_pages, "NUMBERS", 7)
    fill(storage, 200)
    expected = [f"d{n}" for n in range(0, 200, 2)]
    assert [entry.decision.id for entry in storage.iter_log(BANDIT)] == expected
    found = [entry.decision.id for entry in storage.iter_log(BANDIT, since=2, until=7)]
    assert found == expected[20:70]


def test_log_is_in_the_order_of_storing(
    storage: SQLiteBanditStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_pages, "PAGE", 2)
    times = [5.0, -1.0, 3.0, 5.0, 0.0]
    made = [decision(f"d{n}", at=at) for n, at in enumerate(times)]
    for one in made:
        storage.commit(decisions(one))
    storage.commit(rewards(*map(reward, made)))
    for bandit in (BANDIT, None):
        found = list(storage.iter_log(bandit, since=0.0, until=5.5))
        assert [entry.decision.id for entry in found] == ["d0", "d2", "d3", "d4"]
        assert all(len(entry.rewards) == 1 for entry in found)


# What operators decide


def test_state_that_somebody_wrote_by_hand(storage: SQLiteBanditStorage, path: Path) -> None:
    storage.read_control()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        insert = "INSERT INTO bandit_control VALUES (?, ?)"
        other.execute(insert, (BANDIT, '{ "n" : 1,"a":"\\u00e9"}'))
        seen = storage.read_control()[BANDIT]
        assert storage.write_control(BANDIT, {"n": 2}, seen)
        for text in ("paused", "[1]", None, 7):
            other.execute("UPDATE bandit_control SET state = coalesce(?, x'00')", (text,))
            with pytest.raises(StorageCorruptError, match=f"'{BANDIT}'.*delete that row"):
                storage.read_control()


def test_swapping_waits_for_another_writer(storage: SQLiteBanditStorage, path: Path) -> None:
    """What the other one writes meanwhile is seen, and not overwritten."""
    storage.write_control(BANDIT, {"n": 1}, None)
    results: list[bool] = []
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE bandit_control SET state = '{\"n\": 7}'")
        with pytest.raises(StorageTimeoutError):
            storage.write_control(BANDIT, {"n": 2}, {"n": 1}, DEADLINE)
        thread = threading.Thread(
            target=lambda: results.append(storage.write_control(BANDIT, {"n": 2}, {"n": 1}))
        )
        thread.start()
        thread.join(0.05)
        other.execute("COMMIT")
        thread.join(PATIENCE)
    assert results == [False]
    assert storage.read_control() == {BANDIT: {"n": 7}}


# Digests


def test_digest_that_somebody_damaged(storage: SQLiteBanditStorage, path: Path) -> None:
    storage.write_digest(KEY, {"n": 1}, 0)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        for text in ("", "{", "[1]", b"\x00", b'{"\xff": 1}', 7, "[" * 100_000):
            value = "CAST(? AS TEXT)" if isinstance(text, bytes) else "?"
            other.execute(f"UPDATE bandit_digest SET state = {value}, revision = 8", (text,))
            assert storage.read_digest(KEY) == (8, {})
            assert not storage.write_digest(KEY, {"n": 2}, 0)
            assert storage.write_digest(KEY, {"n": 2}, 8)
            assert storage.read_digest(KEY) == (9, {"n": 2})


def test_digest_waits_for_another_writer(storage: SQLiteBanditStorage, path: Path) -> None:
    storage.write_digest(KEY, {"n": 1}, 0)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE bandit_digest SET revision = 2")
        with pytest.raises(StorageTimeoutError):
            storage.write_digest(KEY, {"n": 2}, 1, DEADLINE)
        assert storage.read_digest(KEY, DEADLINE) == (1, {"n": 1})
        other.execute("COMMIT")
    assert not storage.write_digest(KEY, {"n": 2}, 1)
    assert storage.read_digest(KEY) == (2, {"n": 1})


# Erasing


def traces(path: Path, *words: str) -> list[str]:
    """Return which words stand anywhere in the database or in its write-ahead log."""
    files = [path, path.with_name("bandits.db-wal")]
    content = b"".join(file.read_bytes() for file in files if file.exists())
    return [word for word in words if word.encode() in content]


def person(number: int) -> DecisionWrite:
    """Make the decision of somebody; every tenth has a context that fills several pages."""
    context = {"name": f"Name{number:06}", "text": "x" * (9000 if number % 10 == 0 else 90)}
    return pull(decision(f"d{number}", context=context, subject=f"subject{number:06}"))


def test_erased_words_are_nowhere_in_the_files(
    storage: SQLiteBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_rows, "IDS_PER_QUERY", 40)
    number = 600
    for start in range(0, number, 50):
        storage.commit(Commit(tuple(person(n) for n in range(start, start + 50))))
    # In an order in which pages are emptied from everywhere.
    order = sorted(range(number), key=lambda n: n * 7919 % number)
    first, kept = order[:400], order[400:]
    words = [word for n in range(number) for word in (f"subject{n:06}", f"Name{n:06}")]
    assert traces(path, *words) == words
    counts = storage.read_counts()
    assert storage.erase([f"d{n}" for n in first]) == 400
    left = {word for n in kept for word in (f"subject{n:06}", f"Name{n:06}")}
    assert set(traces(path, *words)) == left
    assert storage.erase([f"d{n}" for n in order]) == 200
    storage.close()
    assert traces(path, *words) == []
    assert storage.read_counts() == counts
    assert storage.check() == []


def test_redacted_words_are_nowhere_in_the_files(
    storage: SQLiteBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_rows, "IDS_PER_QUERY", 10)
    storage.commit(Commit(tuple(map(person, range(50)))))
    names = [f"Name{number:06}" for number in range(50)]
    assert traces(path, *names) == names
    assert storage.redact({f"d{number}": {"text": "x"} for number in range(45)}) == 45
    assert traces(path, *names) == names[45:]
    subjects = [f"subject{number:06}" for number in range(50)]
    assert traces(path, *subjects) == subjects


def test_pruned_words_are_nowhere_in_the_files(storage: SQLiteBanditStorage, path: Path) -> None:
    storage.commit(Commit((person(10),)))
    storage.prune(2e9)
    storage.close()
    assert traces(path, "subject000010", "Name000010") == []


def test_connections_overwrite_what_they_remove(storage: SQLiteBanditStorage) -> None:
    """Some builds of SQLite do by default, and would hide that this one does not."""
    storage.read_counts()
    connection = storage._file._connection
    assert connection is not None
    assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)


def test_erasing_while_another_reads_the_old(storage: SQLiteBanditStorage, path: Path) -> None:
    """The write-ahead log cannot be emptied: an error, until a later call has done it."""
    storage.commit(Commit((person(1),)))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM bandit_decisions").fetchall()
        started = time.monotonic()
        with pytest.raises(StorageTimeoutError):
            storage.erase(["d1"], DEADLINE)
        assert time.monotonic() - started < FAR_TOO_LONG
        assert traces(path, "subject000001") == ["subject000001"]
        other.execute("COMMIT")
    assert storage.erase(["d1"], PATIENCE) == 0
    assert traces(path, "subject000001", "Name000001") == []
