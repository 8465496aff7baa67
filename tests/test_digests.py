"""The digest that is kept beside the counts: what is read, when, and that nothing is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flask_bandit.analysis.digest import PULLS, REWARDS, Digest
from flask_bandit.bandits import ThompsonBandit
from flask_bandit.control import Control, act, lifetime
from flask_bandit.digests import AGES, GRACE, MANY, PERIOD, Digester, Reading
from flask_bandit.engine import LATE_DECISION, Engine
from flask_bandit.errors import StorageError
from flask_bandit.hashing import reward_id
from flask_bandit.model import HELD_OUT, BanditKey, Decision, LogEntry, Reward
from flask_bandit.plugins import storage_from_uri
from flask_bandit.storage import BanditStorage, MemoryBanditStorage
from flask_bandit.testing import storage_samples

from .clock import START, Clock

PATIENCE = 60.0
HOUR = 3600.0
KEY = BanditKey("btn", 1)


class Watched(MemoryBanditStorage):
    """Notes what is read of its log."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[float | None, float | None]] = []
        self.entries = 0

    def iter_log(
        self, bandit: str | None = None, *, since: float | None = None, until: float | None = None
    ) -> Iterator[LogEntry]:
        self.asked.append((since, until))
        for entry in super().iter_log(bandit, since=since, until=until):
            self.entries += 1
            yield entry


class Site:
    """An engine, and visitors of its one bandit."""

    def __init__(self, storage: BanditStorage | None = None, **options: Any) -> None:
        self.bandit = ThompsonBandit(**options)
        for arm in ("green", "red"):
            self.bandit.add_arm(arm)
        self.storage = storage or Watched()
        self.engine = Engine(self.storage, {"btn": self.bandit}, control_ttl=0.0)
        self.digester = Digester(self.engine)
        self._visitors = 0

    def visit(self, number: int = 1, version: int = 1) -> list[Decision]:
        """Store decisions made now."""
        made = []
        for _ in range(number):
            self._visitors += 1
            made.append(
                Decision(
                    f"d{self._visitors}",
                    "btn",
                    version,
                    ("green", "red")[self._visitors % 2],
                    {"green": 0.5, "red": 0.5},
                    "p",
                    time.time(),
                )
            )
        assert self.engine.commit(made, [], self.engine.attempt()) is not None
        return made

    def reward(self, decision: Decision, value: float = 1.0, goal: str = "reward") -> None:
        """Store a reward that comes now."""
        reward = Reward(
            reward_id(decision.id, goal),
            decision.id,
            "btn",
            decision.version,
            decision.arm,
            value,
            time.time(),
            goal,
        )
        assert self.engine.commit([], [reward], self.engine.attempt()) is not None

    def read(self, key: BanditKey = KEY, most: int | None = 20_000) -> Reading:
        control = Control.load(self.storage.read_control().get(key.bandit))
        return self.digester.read(key, self.storage.read_counts().get(key, {}), control, most)

    def sums(self, key: BanditKey = KEY) -> tuple[float, float]:
        """Return pulls and rewards in the digest."""
        rows = self.read(key).digest.total().arms.values()
        return sum(row.sums[PULLS] for row in rows), sum(row.sums[REWARDS] for row in rows)

    def stored(self, key: BanditKey = KEY) -> Digest:
        found = self.storage.read_digest(key)
        return Digest.load(found.state if found else None)


@pytest.fixture
def site(clock: Clock) -> Site:
    return Site()


def test_it_has_the_last_decision_and_its_reward(site: Site, clock: Clock) -> None:
    assert site.sums() == (0, 0)
    decision = site.visit()[0]
    assert site.sums() == (1, 0)
    site.reward(decision)
    assert site.sums() == (1, 1)
    clock.now += 1000.0
    site.visit(3)
    assert site.sums() == (4, 1)


def test_what_was_read_is_not_read_again(site: Site, clock: Clock) -> None:
    assert isinstance(site.storage, Watched)
    site.visit(50)
    clock.now += PERIOD
    site.read()
    assert site.stored().decisions == 50
    site.storage.entries = 0
    site.visit(3)
    assert site.sums() == (53, 0)
    assert site.storage.entries == 3


def test_many_reads_while_visitors_come_count_each_once(site: Site, clock: Clock) -> None:
    for number in range(300):
        for decision in site.visit(1 + number % 3):
            if number % 4 == 0:
                site.reward(decision)
        clock.now += (0.3, 7.0, 50.0)[number % 3]
        if number % 5 == 0:
            assert site.sums() == site_counts(site)
    assert site.sums() == site_counts(site)


def site_counts(site: Site) -> tuple[int, int]:
    rows = site.storage.read_counts()[KEY].values()
    return sum(int(r.get("pulls", 0)) for r in rows), sum(int(r.get("rewards", 0)) for r in rows)


@pytest.mark.parametrize("age", AGES)
def test_a_late_reward_is_seen_when_its_decision_has_a_certain_age(
    site: Site, clock: Clock, age: float
) -> None:
    late = site.visit(10)[0]
    clock.now += AGES[0] / 2
    site.visit()
    assert site.sums() == (11, 0)
    clock.now = START + age - 60.0
    site.sums()
    site.reward(late)
    assert site.sums() == (11, 0)
    clock.now = START + age + 60.0
    assert site.sums() == (11, 1)
    assert site.stored().total().arms[late.arm].sums[REWARDS] == 1


def test_where_no_reward_is_missing_nothing_is_read_again(site: Site, clock: Clock) -> None:
    assert isinstance(site.storage, Watched)
    site.reward(site.visit(10)[0])
    clock.now += PERIOD
    site.read()
    site.storage.entries = 0
    clock.now += AGES[-1] + 1.0
    assert site.sums() == (10, 1)
    assert site.storage.entries == 0
    assert all(span.read_at == clock.now for span in site.stored().spans)


def test_what_was_pruned_stays_in_it(site: Site, clock: Clock) -> None:
    late, *_ = site.visit(10)
    clock.now += HOUR / 2
    assert site.sums() == (10, 0)
    assert site.storage.prune(START + 1.0) == 10
    site.reward(late)
    clock.now += HOUR
    assert site.sums() == (10, 0)
    site.visit()
    assert site.sums() == (11, 0)


def test_what_was_pruned_in_part_stays_in_it(site: Site, clock: Clock) -> None:
    late = site.visit(10)[0]
    clock.now += 0.5
    site.visit(5)
    clock.now += HOUR / 2
    assert site.sums() == (15, 0)
    assert site.storage.prune(START + 0.25) == 10
    site.reward(late)
    clock.now += HOUR
    assert site.sums() == (15, 0)


def test_spans_never_overlap_whatever_their_length(site: Site, clock: Clock) -> None:
    for pause in (1.0, 101.0, 10 * HOUR, 3.0, 200 * HOUR, 61.0, 61.0, 5 * HOUR):
        for _ in range(20):
            clock.now += pause / 20
            site.visit(2)
        assert site.sums() == site_counts(site)
    spans = site.stored().spans
    assert all(one.end <= other.start for one, other in pairwise(spans))
    assert {span.end - span.start for span in spans} > {1.0}


def test_a_version_that_began_a_moment_ago_counts_each_once(site: Site, clock: Clock) -> None:
    clock.now += 0.25
    site.engine.change("btn", "reset")
    key = BanditKey("btn", 2)
    clock.now += 0.25
    site.visit(3, version=2)
    for _ in range(3):
        assert site.sums(key) == (3, 0)
        clock.now += GRACE / 2
    assert site.sums(key) == (3, 0)


def test_a_decision_by_a_clock_that_is_behind_the_reset_is_not_missed(
    site: Site, clock: Clock
) -> None:
    clock.now += 100.0
    site.engine.change("btn", "reset")
    clock.now -= 4.0
    site.visit(version=2)
    clock.now += 100.0
    assert site.sums(BanditKey("btn", 2)) == (1, 0)


def test_each_version_has_its_own_and_reads_no_other(site: Site, clock: Clock) -> None:
    assert isinstance(site.storage, Watched)
    site.visit(20)
    clock.now += 1000.0
    site.engine.change("btn", "reset")
    clock.now += 1000.0
    site.visit(5, version=2)
    site.storage.entries = 0
    assert site.sums(BanditKey("btn", 2)) == (5, 0)
    assert site.storage.entries == 5
    assert site.sums() == (20, 0)
    site.storage.entries = 0
    assert site.sums() == (20, 0)
    assert site.storage.entries == 0


def test_a_page_does_not_wait_for_a_long_log(site: Site, clock: Clock) -> None:
    site.visit(100)
    clock.now += GRACE + 2.0
    reading = site.read(most=99)
    assert (reading.unread, reading.digest.decisions) == (100, 0)
    deadline = time.monotonic() + PATIENCE
    while site.stored().decisions < 100:
        assert time.monotonic() < deadline
    reading = site.read(most=99)
    assert (reading.unread, reading.digest.decisions) == (0, 100)


def test_what_is_counted_and_in_no_log_is_looked_for_once(site: Site, clock: Clock) -> None:
    site.visit(100)
    site.storage.prune(clock.now + 1.0)
    assert site.read(most=99).unread == 100
    wait_for_digest(site, KEY)
    reading = site.read(most=99)
    assert (reading.unread, reading.digest.decisions) == (0, 0)


def test_an_older_version_is_read_when_it_is_looked_at(site: Site, clock: Clock) -> None:
    site.visit(100)
    clock.now += 100.0
    site.engine.change("btn", "reset")
    clock.now += 100.0
    assert site.read(most=99).unread == 100
    wait_for_digest(site, KEY)
    reading = site.read(most=99)
    assert (reading.unread, reading.digest.decisions) == (0, 100)


def test_one_thread_reads_all_that_pages_wait_for(
    site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = BanditKey("other", 1)
    made = storage_samples.decision("o", bandit="other", at=START)
    site.storage.commit(storage_samples.decisions(made))
    clock.now += 100.0
    with monkeypatch.context() as patch:
        # As while another one is read.
        patch.setattr(site.digester, "hurry", lambda name: None)
        assert site.read(other, most=0).unread == 1
    finish(site.digester.hurry("btn"))
    assert site.stored(other).decisions == 1


def wait_for_digest(site: Site, key: BanditKey) -> None:
    deadline = time.monotonic() + PATIENCE
    while site.stored(key).counted == 0:
        assert time.monotonic() < deadline


def test_who_reads_at_once_counts_nothing_twice(site: Site, clock: Clock) -> None:
    site.visit(MANY)
    clock.now += 1000.0
    readers = [Digester(site.engine) for _ in range(4)]
    rows = site.storage.read_counts()[KEY]
    barrier, found = threading.Barrier(4), []

    def read(digester: Digester) -> None:
        barrier.wait(PATIENCE)
        found.append(digester.read(KEY, rows, Control()).digest.decisions)

    threads = [threading.Thread(target=read, args=(reader,)) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == [MANY] * 4
    assert site.stored().decisions == MANY
    assert site.sums() == (MANY, 0)


def test_the_holdout_is_left_out(site: Site) -> None:
    held_out = Decision(f"x{HELD_OUT}", "btn", 1, "green", {"green": 1.0}, "holdout", START)
    assert site.engine.commit([held_out], [], site.engine.attempt()) is not None
    assert site.sums() == (0, 0)


def test_with_a_window_a_span_matures_when_the_windows_are_over(clock: Clock) -> None:
    site = Site(reward_window=2 * HOUR)
    early, late = site.visit(2)
    clock.now += HOUR
    site.reward(early)
    clock.now = START + 1.9 * HOUR
    site.read()
    clock.now = START + 3 * HOUR
    site.reward(late)
    total = site.read().digest.total()
    # Both are counted, and only the one within the window is among what the tests use.
    assert sum(row.sums[REWARDS] for row in total.arms.values()) == 2
    assert total.arms[early.arm].moment(1, 0) == 1.0
    assert total.arms[late.arm].moment(1, 0) == 0.0
    assert total.read_at >= total.end + 2 * HOUR


def test_a_decision_that_is_stored_late_is_of_that_moment(site: Site, clock: Clock) -> None:
    decision = Decision("slow", "btn", 1, "red", {"green": 0.5, "red": 0.5}, "p", START)
    site.visit()
    clock.now += LATE_DECISION + GRACE + 30.0
    assert site.sums() == (1, 0)
    assert site.engine.commit([decision], [], site.engine.attempt()) is not None
    assert site.sums() == (2, 0)


def test_a_decision_that_is_under_way_while_others_are_read_is_not_missed(
    site: Site, clock: Clock
) -> None:
    decision = Decision("slow", "btn", 1, "red", {"green": 0.5, "red": 0.5}, "p", START)
    clock.now += LATE_DECISION / 2
    site.visit(MANY)
    assert site.sums() == (MANY, 0)
    clock.now += LATE_DECISION / 2
    assert site.engine.commit([decision], [], site.engine.attempt()) is not None
    clock.now += 100.0
    assert site.sums() == (MANY + 1, 0)


def test_what_is_stored_and_makes_no_sense_is_made_anew(site: Site, clock: Clock) -> None:
    site.visit(5)
    assert site.storage.write_digest(KEY, {"layout": 1, "spans": "x"}, 0)
    clock.now += 100.0
    assert site.sums() == (5, 0)
    assert site.stored().decisions == 5


def test_after_an_import_all_is_read_again(site: Site, clock: Clock) -> None:
    site.visit(5)
    clock.now += 100.0
    site.read()
    older = Decision("older", "btn", 1, "red", None, "p", START - HOUR)
    exporting = Site()
    clock.now = START - HOUR
    assert exporting.engine.commit([older], [], exporting.engine.attempt()) is not None
    for commit in exporting.storage.iter_commits():
        site.storage.commit(commit)
    clock.now = START + 200.0
    assert site.sums() == (5, 0)
    site.digester.forget("btn")
    assert site.sums() == (6, 0)
    assert site.read().digest.total().unknown == 1


def test_a_bandit_that_is_not_in_the_code_has_one_too(site: Site, clock: Clock) -> None:
    site.visit(5)
    other = Digester(Engine(site.storage, {}))
    rows = site.storage.read_counts()[KEY]
    assert other.read(KEY, rows, Control()).digest.decisions == 5


def test_who_has_not_the_bandit_in_the_code_loses_no_rewards_of_its_goal(clock: Clock) -> None:
    site = Site(goal="buy")
    early, late = site.visit(2)
    site.reward(early, goal="buy")
    clock.now += 100.0
    assert site.sums() == (2, 1)
    site.reward(late, goal="buy")
    clock.now += HOUR
    rows = site.storage.read_counts()[KEY]
    Digester(Engine(site.storage, {})).read(KEY, rows, Control())
    assert site.sums() == (2, 2)


def test_who_read_before_an_import_was_done_stores_nothing(
    site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.visit(5)
    clock.now += 100.0
    iter_log = site.storage.iter_log

    def slow(*args: Any, **options: Any) -> Any:
        found = list(iter_log(*args, **options))
        site.digester.forget("btn")
        return iter(found)

    with monkeypatch.context() as patch:
        patch.setattr(site.storage, "iter_log", slow)
        site.read()
    assert site.stored().decisions == 0


def test_all_is_forgotten_although_somebody_stores_meanwhile(
    site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.visit(5)
    clock.now += 100.0
    read_digest = site.storage.read_digest

    def slow(key: BanditKey, timeout: float | None = None) -> Any:
        found = read_digest(key, timeout)
        patch.undo()
        site.read()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(site.storage, "read_digest", slow)
        site.digester.forget("btn")
    assert site.stored().decisions == 0


class TestInTheBackground:
    def test_the_first_poke_of_a_process_starts_nothing(self, site: Site) -> None:
        assert site.digester.poke("btn") is None

    def test_later_ones_read_once_per_period(
        self, site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ticks = [0.0]
        monkeypatch.setattr("flask_bandit.background.time.monotonic", lambda: ticks[0])
        site.visit(5)
        assert site.digester.poke("btn") is None
        clock.now += PERIOD
        ticks[0] += PERIOD
        finish(site.digester.poke("btn"))
        assert site.stored().decisions == 5
        assert site.digester.poke("btn") is None

    def test_not_if_another_process_did_so_lately(self, site: Site, clock: Clock) -> None:
        site.visit(5)
        clock.now += PERIOD
        site.read()
        site.visit(5)
        clock.now += GRACE + 3.0
        finish(Digester(site.engine).hurry("btn"))
        assert site.stored().decisions == 5
        clock.now += PERIOD
        finish(Digester(site.engine).hurry("btn"))
        assert site.stored().decisions == 10

    @pytest.mark.parametrize("error", [StorageError("away"), ValueError("odd")])
    def test_a_failure_is_logged_and_tried_again(
        self,
        site: Site,
        clock: Clock,
        error: Exception,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        site.visit(5)
        clock.now += PERIOD

        def fail(*args: Any, **options: Any) -> Any:
            raise error

        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(site.storage, "iter_log", fail)
            finish(site.digester.hurry("btn"))
        assert "The log of 'btn' could not be read; trying again" in caplog.text
        finish(Digester(site.engine).hurry("btn"))
        assert site.stored().decisions == 5


def finish(thread: threading.Thread | None) -> None:
    assert thread is not None
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("place", ["json", "sqlite"])
def test_on_files(place: str, tmp_path: Path, clock: Clock) -> None:
    uri = {"json": f"json:///{tmp_path}/b.json", "sqlite": f"sqlite:///{tmp_path}/b.db"}[place]
    site = Site(storage_from_uri(uri))
    for _ in range(10):
        site.reward(site.visit(7)[0])
        clock.now += 40.0
        assert site.sums() == site_counts(site)
    assert 0 < site.stored().decisions <= 70
    site.storage.close()


class TestLifetime:
    def reset(self, control: Control, at: float) -> Control:
        return act(control, "reset", ("a",), at)

    def test_without_a_reset_it_is_not_known(self) -> None:
        assert lifetime(Control(), 1) == (0.0, None)

    def test_resets_are_told_by_the_history(self) -> None:
        control = act(Control(), "pause", ("a",), 1.0)
        control = self.reset(self.reset(control, 10.0), 20.0)
        assert [lifetime(control, version) for version in (1, 2, 3)] == [
            (0.0, 10.0),
            (10.0, 20.0),
            (20.0, None),
        ]

    def test_what_the_history_has_forgotten_is_not_known(self) -> None:
        control = self.reset(Control(version=7), 10.0)
        assert [lifetime(control, version) for version in (1, 6, 7, 8)] == [
            (0.0, None),
            (0.0, None),
            (0.0, 10.0),
            (10.0, None),
        ]

    def test_of_a_version_above_the_one_in_force_nothing_is_known(self) -> None:
        control = self.reset(Control(), 10.0)
        assert [lifetime(control, version) for version in (3, 5)] == [(0.0, None)] * 2
        assert lifetime(Control(), 3) == (0.0, None)

    def test_who_did_it_does_not_matter(self) -> None:
        control = act(Control(), "reset", ("a",), 10.0, by="ann")
        assert control.history == ((10.0, "reset (by ann)"),)
        assert lifetime(control, 2) == (10.0, None)
