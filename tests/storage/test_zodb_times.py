"""The ZODB storage's log by time, what its older layout becomes, and people who go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ZODB
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flask_bandit.errors import StorageError
from flask_bandit.model import Decision
from flask_bandit.storage import ZODBBanditStorage
from flask_bandit.storage.zodb import tables
from flask_bandit.storage.zodb.tables import LAYOUT, LAYOUT_KEY, Tables
from flask_bandit.testing.storage_moves import fill, state
from flask_bandit.testing.storage_samples import decision, decisions

NOW = 1_790_000_000.0
MINUTE, HOUR = 60.0, 3600.0


class Clock:
    """The clock of the tables, for the time of storing."""

    def __init__(self) -> None:
        self.now = NOW

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tables, "time", clock)
    return clock


@pytest.fixture
def db() -> Iterator[ZODB.DB]:
    db = ZODB.DB(None)
    yield db
    db.close()


@pytest.fixture
def storage(db: ZODB.DB) -> Iterator[ZODBBanditStorage]:
    storage = ZODBBanditStorage(db)
    yield storage
    storage.close()


def chosen(made: list[Decision], since: float | None, until: float | None) -> list[Decision]:
    return [
        one
        for one in made
        if (since is None or one.at >= since) and (until is None or one.at < until)
    ]


def logged(storage: ZODBBanditStorage, since: float | None, until: float | None) -> list[Decision]:
    return [entry.decision for entry in storage.iter_log(since=since, until=until)]


def make_old(db: ZODB.DB) -> None:
    """Take away what the first layout did not have."""
    with db.transaction() as connection:
        home = connection.root()["flask_bandit"]
        home[LAYOUT_KEY] = 1
        for key in ("control", "strays", "strays_after"):
            del home[key]


def test_a_stretch_of_time_is_read_without_the_rest(
    storage: ZODBBanditStorage, db: ZODB.DB, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for number in range(2000):
        clock.now = NOW + number * MINUTE
        made.append(decision(f"d{number}", at=clock.now - (number % 7)))
        storage.commit(decisions(made[-1]))
    imported = [decision(f"i{number}", at=NOW + number) for number in range(300)]
    storage.commit(decisions(*imported))
    with db.transaction() as connection:
        # Those that were made just before they were stored need no index.
        assert len(connection.root()["flask_bandit"]["strays"]) == 300
    seen: list[int] = []
    read = Tables._read

    def count(self: Tables, items: list[tuple[int, Any]]) -> Any:
        seen.append(len(items))
        return read(self, items)

    monkeypatch.setattr(Tables, "_read", count)
    for since, until, most in (
        (NOW + 1995 * MINUTE, None, 500),
        (NOW + 1000 * MINUTE, NOW + 1001 * MINUTE, 200),
        (None, NOW + 10.0, 200),
        (NOW + 9.0, NOW + 10.0, 200),
        (NOW + 9000 * MINUTE, None, 0),
    ):
        seen.clear()
        assert logged(storage, since, until) == chosen([*made, *imported], since, until)
        assert sum(seen) <= most


TIMES = st.none() | st.integers(-10, 10).map(lambda n: NOW + n * HOUR / 4)


@settings(max_examples=150)
@given(
    steps=st.lists(st.tuples(st.integers(-6, 6), st.integers(-10, 10), st.booleans()), max_size=12),
    since=TIMES,
    until=TIMES,
)
@example([(0, -3, False)], None, NOW - HOUR / 2)
@example([(0, 3, False)], NOW + HOUR / 2, None)
@example([(0, -6, True), (-5, 0, False)], None, NOW - HOUR)
@example([(0, 6, True), (0, 0, False)], NOW + HOUR, None)
def test_the_log_of_a_time_whatever_the_clocks_say(
    steps: list[tuple[int, int, bool]], since: float | None, until: float | None
) -> None:
    """Clocks that go back and ahead, imports, and an upgrade in between."""
    db = ZODB.DB(None)
    storage = ZODBBanditStorage(db)
    made = []
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(tables, "time", clock)
        for number, (passed, made_at, upgraded) in enumerate(steps):
            clock.now += passed * HOUR / 4
            made.append(decision(f"d{number}", at=NOW + made_at * HOUR / 4))
            storage.commit(decisions(made[-1]))
            if upgraded:
                make_old(db)
        assert logged(storage, since, until) == chosen(made, since, until)
    storage.close()
    db.close()


@pytest.mark.parametrize("at", [0.0, -5.0, 1e300, -1e300, 2**63 - 1, 5])
def test_times_far_away(storage: ZODBBanditStorage, at: float) -> None:
    storage.commit(decisions(decision("now", at=NOW), decision("far", at=at)))
    assert [one.id for one in logged(storage, at, None)][-1] == "far"
    assert [one.id for one in logged(storage, None, at)] == (["now"] if at > NOW else [])
    assert [one.id for one in logged(storage, at, NOW)] == (["far"] if at < NOW else [])


def test_an_older_layout_is_brought_up_to_date(storage: ZODBBanditStorage, db: ZODB.DB) -> None:
    fill(storage)
    before = state(storage)
    make_old(db)
    told = ZODBBanditStorage(db, auto_migrate=False)
    with pytest.raises(StorageError, match="an older layout, 1,.*db upgrade"):
        told.read_control()
    assert state(storage) == before, "at first use"
    assert told.write_control("b", {"state": "paused"}, None)
    assert f"has layout {LAYOUT}" in told.upgrade()
    make_old(db)
    assert f"Made layout {LAYOUT}" in told.upgrade()
    assert state(told) == before
    assert told.read_control() == {}
    told.close()


def test_erased_text_is_gone_from_a_file_after_packing(tmp_path: Path) -> None:
    path = tmp_path / "bandits.fs"
    storage = ZODBBanditStorage(path)
    made = decision("d", subject="Ann of Nowhere", context={"page": "a place of no return"})
    storage.commit(decisions(made, decision("other", subject="Bob the Other")))
    assert storage.erase(["d"]) == 1
    assert b"Ann of Nowhere" in path.read_bytes()
    storage.pack()
    storage.close()
    data = path.read_bytes()
    assert b"Ann of Nowhere" not in data
    assert b"no return" not in data
    assert b"Bob the Other" in data


def test_redacted_text_is_gone_from_a_file_after_packing(tmp_path: Path) -> None:
    path = tmp_path / "bandits.fs"
    storage = ZODBBanditStorage(path)
    storage.commit(decisions(decision("d", context={"page": "home", "ill": "of a cold"})))
    assert storage.redact({"d": {"page": "home"}}) == 1
    storage.pack()
    storage.close()
    assert b"of a cold" not in path.read_bytes()
    assert b"home" in path.read_bytes()


def test_nothing_of_a_long_commit_is_left_beside_a_file_after_packing(tmp_path: Path) -> None:
    path = tmp_path / "bandits.fs"
    storage = ZODBBanditStorage(path)
    made = [decision(f"d{n}", subject=f"Ann {n} of Nowhere") for n in range(100)]
    storage.commit(decisions(*made))
    for one in made:
        assert storage.erase([one.id]) == 1
    assert b"of Nowhere" in (tmp_path / "bandits.fs.tmp").read_bytes()
    storage.pack()
    storage.commit(decisions(decision("later")))
    holding = [one.name for one in tmp_path.iterdir() if b"of Nowhere" in one.read_bytes()]
    assert holding == ["bandits.fs.old"]
    storage.close()
    storage = ZODBBanditStorage(path)
    assert len(list(storage.iter_log())) == 101
    storage.close()
