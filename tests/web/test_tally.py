"""What is not counted is added up, and stored seldom, once, and whatever comes in between."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flask_bandit.plugins import storage_from_uri
from flask_bandit.storage.base import Adjustment, Commit
from flask_bandit.web.tally import Tally


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tally(clock: Clock) -> Tally:
    return Tally(clock)


def sums(*adjustments: Adjustment) -> dict[tuple[str, int], dict[str, float]]:
    """Return what adjustments add, by bandit and version."""
    added: dict[tuple[str, int], Counter[str]] = {}
    for item in adjustments:
        (arm,) = item.delta.counts
        assert arm == ""
        added.setdefault((item.bandit, item.version), Counter()).update(item.delta.counts[arm])
    return {key: dict(row) for key, row in added.items()}


def pauses(tally: Tally, clock: Clock, number: int) -> list[float]:
    """Note ten times a second, and return the seconds between the times when something is due."""
    found: list[float] = []
    last = None
    while len(found) < number:
        tally.note("btn", 1, "bot")
        if tally.due():
            if last is not None:
                found.append(round(clock.now - last, 1))
            last = clock.now
        clock.now += 0.125
    return found


def test_nothing_is_due_without_a_note(tally: Tally) -> None:
    assert tally.due() == ()


def test_the_first_note_is_due_at_once(tally: Tally) -> None:
    tally.note("btn", 1, "bot")
    (item,) = tally.due()
    assert (item.bandit, item.version) == ("btn", 1)
    assert item.delta.counts == {"": {"bot:skipped": 1}}
    assert item.id.startswith("tally:")
    assert tally.due() == ()


def test_reasons_are_added_up_per_bandit_and_version(tally: Tally) -> None:
    for _ in range(3):
        tally.note("btn", 1, "bot")
    tally.note("btn", 1, "prefetch")
    tally.note("btn", 2, "bot")
    tally.note("cta", 1, "head")
    due = tally.due()
    assert sums(*due) == {
        ("btn", 1): {"bot:skipped": 3, "prefetch:skipped": 1},
        ("btn", 2): {"bot:skipped": 1},
        ("cta", 1): {"head:skipped": 1},
    }
    assert len({item.id for item in due}) == len(due) == 3


def test_pauses_double_up_to_a_minute(tally: Tally, clock: Clock) -> None:
    assert pauses(tally, clock, 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_quiet_time_starts_the_pauses_anew(tally: Tally, clock: Clock) -> None:
    pauses(tally, clock, 8)
    clock.now += 700
    assert pauses(tally, clock, 3) == [1, 2, 4]


def test_a_note_now_and_then_is_stored_at_most_once_a_minute(tally: Tally, clock: Clock) -> None:
    pauses(tally, clock, 8)
    clock.now += 400
    assert pauses(tally, clock, 2) == [60, 60]


def test_what_waits_is_due_after_the_pause_with_all_that_came(tally: Tally, clock: Clock) -> None:
    tally.note("btn", 1, "bot")
    first = tally.due()
    for _ in range(5):
        tally.note("btn", 1, "bot")
        assert tally.due() == ()
    clock.now += 1
    second = tally.due()
    assert sums(*second) == {("btn", 1): {"bot:skipped": 5}}
    assert first[0].id != second[0].id


def test_what_was_put_back_comes_again_as_it_was(tally: Tally, clock: Clock) -> None:
    tally.note("btn", 1, "bot")
    failed = tally.due()
    tally.put_back(failed)
    tally.note("btn", 1, "bot")
    assert tally.due() == ()
    clock.now += 1
    assert tally.due() == failed
    clock.now += 2
    assert sums(*tally.due()) == {("btn", 1): {"bot:skipped": 1}}


def test_an_outage_does_not_queue_adjustments(tally: Tally, clock: Clock) -> None:
    for _ in range(100):
        tally.note("btn", 1, "bot")
        tally.put_back(tally.due())
        clock.now += 61
    stored = tally.due()
    clock.now += 61
    stored += tally.due()
    assert len(stored) == 2
    assert sums(*stored) == {("btn", 1): {"bot:skipped": 100}}


def test_of_two_requests_at_once_one_stores(tally: Tally) -> None:
    before: list[tuple[Adjustment, ...]] = []

    class Turn:
        """Lets another request go first, once."""

        lock = tally._lock

        def __enter__(self) -> None:
            tally._lock = self.lock
            before.append(tally.due())
            tally.note("btn", 1, "bot")
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    tally.note("btn", 1, "bot")
    tally._lock = Turn()  # type: ignore[assignment]
    assert tally.due() == ()
    assert [len(due) for due in before] == [1]


def test_a_note_waits_for_another_one(tally: Tally) -> None:
    other = threading.Thread(target=tally.note, args=("btn", 1, "bot"))

    class Interrupted(dict[tuple[str, int, str], int]):
        """Lets another thread note, if it can, between reading a sum and writing it."""

        def get(self, *args: Any) -> Any:
            found = super().get(*args)
            if other.ident is None:
                other.start()
                other.join(0.2)
            return found

    tally._noted = Interrupted()
    tally.note("btn", 1, "bot")
    other.join()
    assert sums(*tally.due()) == {("btn", 1): {"bot:skipped": 2}}


def test_threads_lose_nothing() -> None:
    clock = Clock()
    tally = Tally(clock)
    stored: list[Adjustment] = []

    def work(name: str) -> None:
        for _ in range(2000):
            tally.note(name, 1, "bot")
            clock.now += 61
            due = tally.due()
            # Every other flush fails.
            if due and int(due[0].id[-1], 16) % 2 and due[0].id not in failed:
                failed.update(item.id for item in due)
                tally.put_back(due)
            else:
                stored.extend(due)

    failed: set[str] = set()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b") * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    for _ in range(3):
        clock.now += 61
        stored.extend(tally.due())
    assert sums(*stored) == {(name, 1): {"bot:skipped": 4000} for name in ("a", "b")}
    assert len({item.id for item in stored}) == len(stored)


def test_a_forked_child_leaves_its_parents_notes_to_the_parent() -> None:
    program = """
import os, threading
from flask_bandit.web.tally import Tally

tally = Tally()
tally.note("btn", 1, "bot")
tally._lock.acquire()
child = os.fork()
if not child:
    tally.note("btn", 1, "head")
    (item,) = tally.due()
    os._exit(0 if item.delta.counts == {"": {"head:skipped": 1}} else 1)
status = os.waitpid(child, 0)[1]
tally._lock.release()
(item,) = tally.due()
assert item.delta.counts == {"": {"bot:skipped": 1}}
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("scheme", ["memory", "json", "sqlite", "sqlite+pysqlite", "zodb"])
def test_storages_keep_it_and_count_it_once(scheme: str, tmp_path: Path) -> None:
    uri = "memory://" if scheme == "memory" else f"{scheme}:///{tmp_path}/bandits"
    storage = storage_from_uri(uri)
    tally = Tally()
    for _ in range(312):
        tally.note("btn", 1, "bot")
    tally.note("btn", 1, "prefetch")
    due = tally.due()
    for _ in range(2):
        storage.commit(Commit(adjustments=due))
    (row,) = storage.read_counts().values()
    assert row == {"": {"bot:skipped": 312, "prefetch:skipped": 1}}
    assert list(storage.iter_commits()) == [Commit(adjustments=due)]
    storage.close()
