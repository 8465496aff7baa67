"""Reward windows on real storages: each decision is learned once, with what it earned in time."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_bandit import BanditMiddleware, choose_arm, reward_endpt, windows
from flask_bandit.bandits import Bandit, ThompsonBandit
from flask_bandit.counting import is_for_evaluation
from flask_bandit.engine import Engine
from flask_bandit.errors import StorageError
from flask_bandit.hashing import reward_id
from flask_bandit.model import HELD_OUT, BanditKey, Decision, LogEntry, Reward
from flask_bandit.plugins import storage_from_uri
from flask_bandit.storage import BanditStorage, MemoryBanditStorage
from flask_bandit.storage.base import Commit, CommitResult, DecisionWrite
from flask_bandit.windows import BATCH, GRACE, WindowCloser

from .clock import START, Clock

PATIENCE = 60.0
WINDOW = 3600.0
OVER = START + WINDOW + GRACE + 1.0
STORAGES = ["memory", "json", "sqlite", "sqlalchemy", "postgresql", "redis", "zodb"]


@pytest.fixture
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place on the storage that the test is parametrized with."""
    name = getattr(request, "param", "memory")
    if name == "postgresql":
        return str(request.getfixturevalue("postgres").new_database())
    if name == "redis":
        return str(request.getfixturevalue("redis_server").uri)
    return {
        "memory": "memory://",
        "json": f"json:///{tmp_path / 'bandits.json'}",
        "sqlite": f"sqlite:///{tmp_path / 'bandits.db'}",
        "sqlalchemy": f"sqlite+pysqlite:///{tmp_path / 'bandits.sql'}",
        "zodb": f"zodb:///{tmp_path / 'bandits.fs'}",
    }[str(name)]


@pytest.fixture
def storage(uri: str, tmp_path: Path) -> Iterator[BanditStorage]:
    made = storage_from_uri(uri, {"prefix": str(tmp_path)} if uri.startswith("redis") else {})
    yield made
    made.close()


EVERY_STORAGE = pytest.mark.parametrize("uri", STORAGES, indirect=True)


def windowed(**options: Any) -> Bandit:
    bandit = ThompsonBandit(**{"reward_window": WINDOW, "floor": 0.0, **options})
    for arm in "ab":
        bandit.add_arm(arm)
    return bandit


def make_engine(storage: BanditStorage, **options: Any) -> Engine:
    settings = {"stats_ttl": 0.0, "control_ttl": 0.0, "timeout": PATIENCE}
    return Engine(storage, {"btn": windowed(**options)}, **settings)  # type: ignore[arg-type]


def decision(id_: str, arm: str = "a", at: float = START, version: int = 1) -> Decision:
    return Decision(id_, "btn", version, arm, {"a": 0.5, "b": 0.5}, "p", at)


def reward(of: Decision, late: float, goal: str = "reward", value: float = 1.0) -> Reward:
    id_ = reward_id(of.id, goal)
    return Reward(id_, of.id, "btn", of.version, of.arm, value, of.at + late, goal)


def send(engine: Engine, *decisions: Decision, rewards: tuple[Reward, ...] = ()) -> None:
    assert engine.commit(decisions, rewards, engine.attempt()) is not None


def sums(engine: Engine, prefix: str = "learn:", version: int = 1) -> dict[str, dict[str, float]]:
    """Return what is learned, without what is 0."""
    found = engine.read_counts().get(BanditKey("btn", version), {})
    learned = {
        arm: {
            name.removeprefix(prefix): n for name, n in row.items() if name.startswith(prefix) and n
        }
        for arm, row in found.items()
    }
    return {arm: row for arm, row in learned.items() if row}


def shares(engine: Engine) -> dict[str, float]:
    table = engine.table("btn", engine.attempt())
    assert table is not None
    return dict(table.propensities)


def backlog(storage: BanditStorage, count: int, at: float) -> None:
    """Store decisions that were made long ago, none of them learned."""
    bandit = windowed()
    for start in range(0, count, 500):
        made = [decision(f"d{n}", at=at + n / 1000) for n in range(start, min(start + 500, count))]
        writes = [DecisionWrite(one, bandit.policy.on_decision(one)) for one in made]
        storage.commit(Commit(tuple(writes)))


@EVERY_STORAGE
def test_private_features_are_gone_once_a_decision_was_learned(
    storage: BanditStorage, clock: Clock
) -> None:
    features = {"age": "numeric", "plan": ["free", "paid"]}
    engine = make_engine(storage, features=features, private=["age"], evaluation=0.3)
    old = [replace(decision(f"d{n}"), context={"age": 20.0 + n, "plan": "paid"}) for n in range(9)]
    held_out = replace(decision("h" + HELD_OUT), context={"age": 9.0})
    young = replace(decision("y", at=START + 600.0), context={"age": 99.0})
    plain = replace(decision("p"), context={"plan": "free"})
    send(engine, *old, held_out, young, plain, decision("n"))
    clock.now = OVER
    closer = WindowCloser(engine)
    assert closer.close("btn") > 0
    contexts = {entry.decision.id: entry.decision.context for entry in storage.iter_log("btn")}
    assert contexts == {
        **{f"d{n}": {"plan": "paid"} for n in range(9)},
        "h" + HELD_OUT: {},
        "y": {"age": 99.0},
        "p": {"plan": "free"},
        "n": None,
    }
    assert closer.close("btn", again=True) == 0
    learned = sum(row["pulls"] for row in sums(engine).values())
    for_evaluation = [
        d
        for d in (*old, plain, decision("n"))
        if is_for_evaluation(engine.bandits["btn"].options, d)
    ]
    assert for_evaluation
    assert learned == 11 - len(for_evaluation)


@pytest.mark.parametrize(("at_once", "calls"), [(5000, [450]), (300, [400, 50])])
def test_private_features_go_many_at_a_time_and_also_after_a_failure(
    at_once: int, calls: list[int], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage in a file writes all of it anew each time."""
    sizes: list[int] = []

    class Redacting(MemoryBanditStorage):
        def redact(
            self, contexts: Mapping[str, Mapping[str, Any] | None], timeout: float | None = None
        ) -> int:
            sizes.append(len(contexts))
            if len(sizes) == 1:
                raise StorageError("full")
            return super().redact(contexts, timeout)

    monkeypatch.setattr("flask_bandit.windows.REDACTED", at_once)
    engine = make_engine(Redacting(), features={"age": "numeric"}, private=["age"])
    send(engine, *(replace(decision(f"d{n}"), context={"age": 20.0}) for n in range(450)))
    clock.now = OVER
    closer = WindowCloser(engine)
    with pytest.raises(StorageError, match="full"):
        closer.close("btn")
    closer.close("btn")
    assert sizes[1:] == calls
    assert {entry.decision.context == {} for entry in engine.storage.iter_log()} == {True}
    assert sum(row["pulls"] for row in sums(engine).values()) == 450


@EVERY_STORAGE
def test_a_decision_is_learned_once_when_its_window_closes(
    storage: BanditStorage, clock: Clock
) -> None:
    engine = make_engine(storage)
    closer = WindowCloser(engine)
    early, never, late = decision("d1"), decision("d2", "b"), decision("d3", "b")
    send(engine, early, never, late, rewards=(reward(early, 60.0),))
    clock.now = OVER - 2.0
    assert closer.close("btn") == 0
    assert sums(engine) == {}
    assert shares(engine) == {"a": 0.5, "b": 0.5}
    clock.now = OVER
    assert closer.close("btn") == 3
    learned = {
        "a": {"pulls": 1, "rewards": 1, "reward": 1.0, "reward_sq": 1.0},
        "b": {"pulls": 2},
    }
    assert sums(engine) == learned
    assert shares(engine)["a"] > 0.8
    send(engine, rewards=(reward(late, WINDOW + 60.0), reward(never, 70.0, "other")))
    assert closer.close("btn") == 0
    assert closer.close("btn", again=True) == 0
    assert sums(engine) == learned
    stats = engine.stats()["btn"]
    assert [(arm.pulls, arm.reward) for arm in stats.values()] == [(1, 1.0), (2, 1.0)]
    assert sums(engine, "late") == {"b": {"": 1}}
    assert sums(engine, "goal:other:")["b"]["rewards"] == 1


@EVERY_STORAGE
def test_however_many_close_each_decision_is_learned_once(
    storage: BanditStorage, clock: Clock
) -> None:
    backlog(storage, 2 * BATCH + 50, START)
    clock.now = OVER
    engines = [make_engine(storage) for _ in range(4)]
    closed: list[int] = []

    def close(engine: Engine) -> None:
        closed.append(WindowCloser(engine).close("btn"))

    threads = [threading.Thread(target=close, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(closed) == 4
    assert sum(closed) == 2 * BATCH + 50
    assert sums(engines[0]) == {"a": {"pulls": 2 * BATCH + 50}}


@EVERY_STORAGE
def test_a_decision_of_an_older_version_is_learned_by_that_version(
    storage: BanditStorage, clock: Clock
) -> None:
    engine = make_engine(storage)
    send(engine, decision("d1"))
    engine.change("btn", "reset")
    send(engine, decision("d2", "b", version=2))
    clock.now = OVER
    assert WindowCloser(engine).close("btn") == 2
    assert sums(engine) == {"a": {"pulls": 1}}
    assert sums(engine, version=2) == {"b": {"pulls": 1}}


@EVERY_STORAGE
def test_what_an_import_brought_is_learned_on_demand(storage: BanditStorage, clock: Clock) -> None:
    engine = make_engine(storage)
    send(engine, decision("now"))
    clock.now = OVER
    assert WindowCloser(engine).close("btn") == 1
    backlog(storage, 3, START - 86400.0)
    assert WindowCloser(engine).close("btn") == 0
    looked: list[int] = []
    assert WindowCloser(engine).close("btn", again=True, progress=looked.append) == 3
    assert sum(looked) == 4
    assert sums(engine) == {"a": {"pulls": 4}}


def test_only_the_goal_s_rewards_of_the_window_are_learned_however_late_it_is_closed(
    clock: Clock,
) -> None:
    """All of them are stored by then, as on a site that had no visitors for a while."""
    engine = make_engine(MemoryBanditStorage(), goals={"other": "numeric"})
    late, other, both = decision("d1"), decision("d2"), decision("d3", "b")
    send(engine, late, other, both)
    rewards = reward(late, WINDOW + 0.5), reward(other, 60.0, "other"), reward(both, WINDOW)
    send(engine, rewards=(*rewards, reward(both, 60.0, "other", 7.0)))
    clock.now = OVER + 86400.0
    assert WindowCloser(engine).close("btn") == 3
    learned = {"pulls": 1, "rewards": 1, "reward": 1.0, "reward_sq": 1.0}
    assert sums(engine) == {"a": {"pulls": 2}, "b": learned}
    assert sums(engine, "late") == {"a": {"": 1}}


def test_the_holdout_is_not_learned(clock: Clock) -> None:
    engine = make_engine(MemoryBanditStorage())
    held = decision("d1" + HELD_OUT)
    send(engine, held, rewards=(reward(held, 60.0),))
    clock.now = OVER
    assert WindowCloser(engine).close("btn") == 0
    assert sums(engine) == {}
    assert sums(engine, "holdout:")["a"]["rewards"] == 1


def test_a_window_and_a_half_life_together(clock: Clock) -> None:
    engine = make_engine(MemoryBanditStorage(), half_life="1d")
    made = decision("d1")
    send(engine, made, rewards=(reward(made, 60.0),))
    assert shares(engine) == {"a": 0.5, "b": 0.5}
    clock.now = OVER
    assert WindowCloser(engine).close("btn") == 1
    one_day = shares(engine)["a"]
    clock.now = OVER + 20 * 86400.0
    assert 0.5 < shares(engine)["a"] < 0.51 < one_day


def test_no_window_is_nothing_to_close(clock: Clock) -> None:
    storage = MemoryBanditStorage()
    bandit = Bandit()
    bandit.add_arm("a")
    engine = Engine(storage, {"btn": bandit})
    send(engine, decision("d1"))
    clock.now = OVER
    closer = WindowCloser(engine)
    assert (closer.close("btn"), closer.poke("btn")) == (0, None)
    assert storage.read_control() == {}


# Clocks


@pytest.mark.parametrize("ahead", [-GRACE + 1.5, 0.0, GRACE - 1.5])
def test_the_last_reward_of_a_window_is_learned_although_clocks_differ(
    clock: Clock, ahead: float
) -> None:
    """Who closes is some seconds ahead of who rewards, and looks a second after the window."""
    engine = make_engine(MemoryBanditStorage())
    made = decision("d1")
    send(engine, made)
    clock.now = START + WINDOW + 1.0 + ahead
    closer = WindowCloser(engine)
    assert closer.close("btn") == 0
    clock.now = START + WINDOW
    send(engine, rewards=(reward(made, WINDOW),))
    clock.now = OVER
    assert closer.close("btn") == 1
    assert sums(engine)["a"]["rewards"] == 1
    assert sums(engine, "late") == {}


def test_a_decision_that_was_made_long_before_it_is_stored_begins_now(clock: Clock) -> None:
    """A page that was fetched ahead, and looked at after all windows of its time had closed."""
    engine = make_engine(MemoryBanditStorage())
    clock.now = OVER
    WindowCloser(engine).close("btn")
    send(engine, decision("d1", at=START - 60.0))
    clock.now = OVER + WINDOW
    assert WindowCloser(engine).close("btn") == 0
    clock.now = OVER + WINDOW + GRACE + 1.0
    assert WindowCloser(engine).close("btn") == 1


def test_a_clock_that_is_behind_opens_nothing_again(clock: Clock) -> None:
    engine = make_engine(MemoryBanditStorage())
    clock.now = OVER + 60.0
    WindowCloser(engine).close("btn")
    until = engine.control("btn").closed_until
    clock.now = OVER
    assert WindowCloser(engine).close("btn") == 0
    assert engine.control("btn").closed_until == until


# In the background


class Noting(MemoryBanditStorage):
    """Notes who reads the log, and fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.error: Exception | None = None

    def iter_log(self, bandit: str | None = None, **span: Any) -> Iterator[LogEntry]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return super().iter_log(bandit, **span)


def finished(thread: threading.Thread | None) -> bool:
    assert thread is not None
    thread.join(PATIENCE)
    return not thread.is_alive()


def test_a_poke_closes_in_the_background_and_once_per_period(clock: Clock) -> None:
    storage = Noting()
    engine = make_engine(storage)
    send(engine, decision("d1"))
    clock.now = OVER
    closer = WindowCloser(engine)
    assert finished(closer.poke("btn"))
    assert sums(engine) == {"a": {"pulls": 1}}
    assert closer.poke("btn") is None
    assert storage.reads == 1
    # Another process, which sees that it was done.
    assert finished(WindowCloser(engine).poke("btn"))
    assert storage.reads == 1
    clock.now += windows._period(WINDOW)
    assert finished(WindowCloser(engine).poke("btn"))
    assert storage.reads == 2


@pytest.mark.parametrize(("window", "period"), [(60.0, 1.0), (3600.0, 36.0), (604800.0, 60.0)])
def test_the_period_is_a_hundredth_of_the_window(window: float, period: float) -> None:
    assert windows._period(window) == period


def test_one_thread_at_a_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_period", lambda window: 0.0)
    engine = make_engine(MemoryBanditStorage())
    closer, go_on = WindowCloser(engine), threading.Event()
    monkeypatch.setattr(closer, "close", lambda name: go_on.wait(PATIENCE))
    first = closer.poke("btn")
    assert closer.poke("btn") is None
    go_on.set()
    assert finished(first)
    assert finished(closer.poke("btn"))


@pytest.mark.parametrize("error", [StorageError("the disk is gone"), OSError("the disk is gone")])
def test_a_storage_that_fails_is_logged_and_tried_again(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    monkeypatch.setattr(windows, "_period", lambda window: 0.0)
    storage = Noting()
    engine = make_engine(storage)
    send(engine, decision("d1"))
    clock.now, storage.error = OVER, error
    closer = WindowCloser(engine)
    with caplog.at_level(logging.WARNING, "flask_bandit"):
        assert finished(closer.poke("btn"))
    (record,) = caplog.records
    assert "reward windows of 'btn' could not be closed; trying again" in record.getMessage()
    assert "the disk is gone" in caplog.text
    # Visitors do not notice.
    assert not engine.is_storage_down
    assert sum(shares(engine).values()) == pytest.approx(1.0)
    storage.error = None
    assert finished(closer.poke("btn"))
    assert sums(engine) == {"a": {"pulls": 1}}


def test_a_poke_asks_the_storage_nothing_and_leaves_one_that_is_down_alone(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = MemoryBanditStorage()
    engine = make_engine(storage)
    asking: list[threading.Thread] = []

    def fail(timeout: float | None = None) -> Any:
        asking.append(threading.current_thread())
        raise StorageError("gone")

    for method in ("read_control", "read_counts"):
        monkeypatch.setattr(storage, method, fail)
    assert finished(WindowCloser(engine).poke("btn"))
    assert threading.current_thread() not in asking
    engine.table("btn", engine.attempt())
    assert engine.is_storage_down
    assert WindowCloser(engine).poke("btn") is None


def test_who_waited_for_the_thread_of_another_does_not_start_one(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was time, and then another request's thread began and ended."""
    closer = WindowCloser(make_engine(MemoryBanditStorage()))
    answers = iter([True, False])
    with monkeypatch.context() as patch:
        patch.setattr(closer._background, "is_time", lambda name: next(answers))
        assert closer.poke("btn") is None
    assert finished(closer.poke("btn"))


def test_an_interpreter_that_ends_starts_no_thread(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_period", lambda window: 0.0)
    closer = WindowCloser(make_engine(MemoryBanditStorage()))

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert closer.poke("btn") is None
    assert finished(closer.poke("btn"))


def test_a_huge_backlog_is_read_piece_by_piece(clock: Clock) -> None:
    class Endless(MemoryBanditStorage):
        """A log that is made as it is read, and how much of it was not yet learned."""

        ahead = most = 0

        def iter_log(self, bandit: str | None = None, **span: Any) -> Iterator[LogEntry]:
            for n in range(20 * BATCH):
                self.ahead += 1
                self.most = max(self.most, self.ahead)
                yield LogEntry(decision(f"d{n}"))

        def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
            self.ahead -= len(commit.adjustments)
            return super().commit(commit, timeout)

    storage = Endless()
    clock.now = OVER
    assert WindowCloser(make_engine(storage)).close("btn") == 20 * BATCH
    assert (storage.most, storage.ahead) == (BATCH, 0)


def test_a_worker_sees_what_was_closed_when_it_reads_the_counts_again(clock: Clock) -> None:
    storage = MemoryBanditStorage()
    engine = Engine(storage, {"btn": windowed()}, stats_ttl=30.0, control_ttl=0.0)
    made = decision("d1")
    send(engine, made, rewards=(reward(made, 60.0),))
    assert shares(engine) == {"a": 0.5, "b": 0.5}
    clock.now = OVER
    WindowCloser(make_engine(storage)).close("btn")
    assert shares(engine) == {"a": 0.5, "b": 0.5}
    assert engine._snapshot is not None
    engine._snapshot.read_at -= 31.0
    assert shares(engine)["a"] > 0.6


# Processes

SCRIPT = """
import os, signal, sys, time
from flask_bandit.bandits import ThompsonBandit
from flask_bandit.engine import Engine
from flask_bandit.plugins import storage_from_uri
from flask_bandit.windows import WindowCloser

bandit = ThompsonBandit(reward_window=3600)
bandit.add_arm("a")
bandit.add_arm("b")
engine = Engine(storage_from_uri({uri!r}), {{"btn": bandit}}, timeout=60.0)
closer = WindowCloser(engine)
"""


def python(uri: str, lines: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", SCRIPT.format(uri=uri) + lines]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("uri", ["sqlite", "postgresql"], indirect=True)
def test_processes_that_close_at_once(uri: str, storage: BanditStorage) -> None:
    backlog(storage, 3 * BATCH, time.time() - 2 * WINDOW)
    running = [python(uri, "print(closer.close('btn'))") for _ in range(3)]
    closed = [int(process.communicate(timeout=PATIENCE)[0]) for process in running]
    assert sum(closed) == 3 * BATCH
    assert sums(make_engine(storage)) == {"a": {"pulls": 3 * BATCH}}


@pytest.mark.parametrize("uri", ["sqlite"], indirect=True)
def test_a_process_that_is_killed_before_it_notes_what_it_closed(
    uri: str, storage: BanditStorage
) -> None:
    backlog(storage, BATCH + 1, time.time() - 2 * WINDOW)
    killed = python(
        uri,
        "engine.update_control = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "closer.close('btn')",
    )
    killed.communicate(timeout=PATIENCE)
    assert killed.returncode == -9
    engine = make_engine(storage)
    assert sums(engine) == {"a": {"pulls": BATCH + 1}}
    assert engine.control("btn").closed_until == 0.0
    assert WindowCloser(engine).close("btn") == 0
    assert engine.control("btn").closed_until > 0.0
    assert sums(engine) == {"a": {"pulls": BATCH + 1}}


@pytest.mark.parametrize("uri", ["sqlite"], indirect=True)
def test_a_process_that_ends_while_it_closes(uri: str, storage: BanditStorage) -> None:
    backlog(storage, 20 * BATCH, time.time() - 2 * WINDOW)
    ends = python(
        uri,
        "closer.poke('btn')\n"
        "while not engine.read_counts().get(('btn', 1), {}).get('a', {}).get('learn:pulls'):\n"
        "    time.sleep(0.001)",
    )
    assert ends.communicate(timeout=PATIENCE) == ("", "")
    assert ends.returncode == 0
    engine = make_engine(storage)
    begun = sums(engine)["a"]["pulls"]
    assert BATCH <= begun < 20 * BATCH
    assert WindowCloser(engine).close("btn") == 20 * BATCH - begun
    assert sums(engine) == {"a": {"pulls": 20 * BATCH}}


@pytest.mark.parametrize("uri", ["sqlite"], indirect=True)
def test_a_child_closes_although_the_parent_was_at_it_when_it_forked(
    uri: str, storage: BanditStorage
) -> None:
    backlog(storage, 3, time.time() - 2 * WINDOW)
    forking = python(
        uri,
        "closer._background._busy.acquire()\n"
        "assert closer.poke('btn') is None\n"
        "if os.fork() == 0:\n"
        "    closer.poke('btn').join()\n"
        "    os._exit(0)\n"
        "assert os.wait()[1] == 0\n",
    )
    assert forking.communicate(timeout=PATIENCE) == ("", "")
    assert sums(make_engine(storage)) == {"a": {"pulls": 3}}


# In an app


def test_an_app_learns_while_it_has_visitors(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to close: the first page after the window is over does it, in the background."""
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, TESTING=True)
    app.config["MAB_STORAGE_ENGINE"] = MemoryBanditStorage()
    mab = BanditMiddleware(app)
    mab.add_bandit("btn", windowed())
    app.add_url_rule("/", "page", choose_arm("btn")(lambda btn: "hello"))
    app.add_url_rule("/click", "click", reward_endpt("btn")(lambda: "thanks"), methods=["POST"])
    threads: list[threading.Thread] = []
    poke = WindowCloser.poke

    def noted_poke(closer: WindowCloser, name: str) -> None:
        thread = poke(closer, name)
        if thread is not None:
            threads.append(thread)

    monkeypatch.setattr(WindowCloser, "poke", noted_poke)
    monkeypatch.setattr(windows, "_period", lambda window: 0.0)
    visitors = [app.test_client() for _ in range(20)]
    for visitor in visitors:
        visitor.get("/")
    for visitor in visitors[:5]:
        visitor.post("/click")
    engine = app.extensions["bandit"].engine
    assert all(map(finished, threads))
    assert sums(engine) == {}
    clock.now, threads[:] = OVER, []
    visitors[10].get("/")
    assert [finished(thread) for thread in threads] == [True]
    learned = sums(engine)
    assert sum(row["pulls"] for row in learned.values()) == 20
    assert sum(row.get("rewards", 0) for row in learned.values()) == 5
    visitors[10].post("/click")
    assert sums(engine) == learned
    assert sum(row[""] for row in sums(engine, "late").values()) == 1
