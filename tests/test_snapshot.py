"""What a process knows between two readings: its own increments, and tables that fit them."""

from __future__ import annotations

from typing import Any

from flask_bandit.bandits import EpsilonGreedyBandit
from flask_bandit.control import Control
from flask_bandit.drawing import DrawTable
from flask_bandit.model import BanditKey, StatsDelta
from flask_bandit.snapshot import Snapshot

KEY = BanditKey("btn", 1)
CONTROL = Control()
GOOD = StatsDelta({"b": {"pulls": 1, "reward": 1.0}})


class Noting(EpsilonGreedyBandit):
    """Counts how often its probabilities are computed, and may do something meanwhile."""

    def __init__(self, **options: Any) -> None:
        super().__init__(0.0, floor=0.0, **options)
        self.computed = 0
        self.meanwhile: Any = lambda: None
        for arm in "ab":
            self.add_arm(arm)

    def draw_table(self, *args: Any, **kwargs: Any) -> DrawTable:
        self.computed += 1
        table = super().draw_table(*args, **kwargs)
        self.meanwhile()
        return table


def shares(snapshot: Snapshot, bandit: Noting, control: Control = CONTROL) -> tuple[float, float]:
    found = snapshot.table("btn", bandit, control).propensities
    return found.get("a", 0.0), found.get("b", 0.0)


def test_probabilities_are_computed_once_until_something_changes() -> None:
    bandit, snapshot = Noting(), Snapshot({}, 0.0, 0.0)
    assert [shares(snapshot, bandit) for _ in range(3)] == [(0.5, 0.5)] * 3
    assert bandit.computed == 1
    snapshot.add(KEY, GOOD)
    assert [shares(snapshot, bandit) for _ in range(3)] == [(0.0, 1.0)] * 3
    assert bandit.computed == 2
    weighted = Control(weights={"b": 0.0})
    assert [shares(snapshot, bandit, weighted) for _ in range(3)] == [(1.0, 0.0)] * 3
    assert bandit.computed == 3


def test_an_increment_of_another_bandit_or_version_changes_nothing() -> None:
    bandit, snapshot = Noting(), Snapshot({}, 0.0, 0.0)
    shares(snapshot, bandit)
    snapshot.add(BanditKey("other", 1), GOOD)
    snapshot.add(BanditKey("btn", 2), GOOD)
    assert shares(snapshot, bandit) == (0.5, 0.5)
    assert bandit.computed == 1
    assert shares(snapshot, bandit, Control(version=2)) == (0.0, 1.0)


def test_an_increment_that_comes_while_probabilities_are_computed_is_not_lost() -> None:
    bandit, snapshot = Noting(), Snapshot({}, 0.0, 0.0)
    bandit.meanwhile = lambda: snapshot.add(KEY, GOOD)
    assert shares(snapshot, bandit) == (0.5, 0.5)
    bandit.meanwhile = lambda: None
    assert shares(snapshot, bandit) == (0.0, 1.0)


def test_what_was_read_stays_as_it_was() -> None:
    """It may be the storage's own."""
    counts = {KEY: {"a": {"pulls": 3.0}, "b": {"pulls": 4.0}}}
    Snapshot(counts, 0.0, 0.0).add(KEY, GOOD)
    assert counts == {KEY: {"a": {"pulls": 3.0}, "b": {"pulls": 4.0}}}


def test_old_decisions_weigh_as_of_the_reading() -> None:
    bandit = Noting(half_life=86400.0)
    counts: dict[BanditKey, dict[str, dict[str, float]]]
    counts = {KEY: {"a": {"@0:pulls": 8, "@0:reward": 8.0}, "b": {"@864000:pulls": 2}}}
    assert shares(Snapshot(counts, 0.0, 0.0), bandit) == (1.0, 0.0)
    more = {KEY: {**counts[KEY], "b": {"@864000:pulls": 2, "@864000:reward": 2.0}}}
    assert shares(Snapshot(more, 0.0, 864000.0), bandit) == (0.0, 1.0)
