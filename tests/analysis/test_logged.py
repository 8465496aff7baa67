"""The log as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from flask_bandit.analysis.logged import Left, Logged, read_log
from flask_bandit.model import LogEntry, Reward

from .ope_logs import entry

ARMS = ("red", "green")
EVEN = {"red": 0.5, "green": 0.5}


def read(entries: Iterable[LogEntry], **details: Any) -> tuple[list[Logged], Left]:
    """Return the batches, and what was left out."""
    left = Left()
    given = {"goal": "reward", "left": left, **details}
    return list(read_log(entries, given.pop("arms", ARMS), **given)), left


def test_entries_become_arrays() -> None:
    (batch,), left = read(
        [
            entry(1, "green", {"red": 0.25, "green": 0.75}, 2.0, subject="ann", context={"x": 1}),
            entry(2, "red", {"red": 1.0}, version=2),
        ]
    )
    assert batch.arms == ARMS
    assert len(batch) == 2
    assert batch.arm.tolist() == [1, 0]
    assert batch.reward.tolist() == [2.0, 0.0]
    assert batch.propensity.tolist() == [0.75, 1.0]
    assert batch.propensities.tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert batch.eligible.tolist() == [[True, True], [True, False]]
    assert batch.contexts == [{"x": 1}, None]
    assert batch.clusters == ["ann", "d2"]
    assert batch.alone.tolist() == [False, True]
    assert batch.at.tolist() == [1.0, 2.0]
    assert batch.version.tolist() == [1, 2]
    assert batch.ids == ["d1", "d2"]
    assert batch.taken(batch.propensities).tolist() == [0.75, 1.0]
    assert (left.total, str(left)) == (0, "none")


def test_an_eligible_arm_with_probability_0_is_eligible() -> None:
    (batch,), _ = read([entry(1, "red", {"red": 1.0, "green": 0.0})])
    assert batch.eligible.tolist() == [[True, True]]


def test_what_no_policy_chose_or_nobody_knows_is_left_out_and_counted() -> None:
    held_out = entry(2, "red", EVEN)
    pruned = entry(3, "red", EVEN)
    batches, left = read(
        [
            entry(1, "red", {"red": 1.0}, policy_version="forced"),
            LogEntry(type(held_out.decision)("x-h", "b", 1, "red", {"red": 1.0}, "p", 2.0)),
            entry(2, "red", {"red": 1.0}, policy_version="holdout"),
            LogEntry(pruned.decision.pruned()),
            entry(4, "red", None),
            entry(5, "red", {"red": 0.4}),
            entry(6, "red", {"red": 0.0, "green": 1.0}),
            entry(7, "blue", {"blue": 1.0}),
            entry(8, "red", EVEN, context={"x": 1.0}),
            entry(9, "red", EVEN),
            entry(99, "red", EVEN, context={"x": 1.0}),
        ],
        window=10.0,
        now=50.0,
        needs_context=True,
    )
    assert [batch.ids for batch in batches] == [["d8"]]
    assert left == Left(forced=1, holdout=2, pruned=1, unknown=3, gone=1, immature=1, unseen=1)
    assert left.total == 10
    assert str(left) == (
        "1 forced by a test, 2 of the holdout, 1 pruned, 3 without known probabilities, "
        "1 of an arm that is gone, 1 whose reward window was open, 1 without a context"
    )


def test_rewards_count_within_the_window_and_for_the_goal_only() -> None:
    one = entry(1, "red", EVEN, 3.0)
    late = Reward("late", "d1", "b", 1, "red", 10.0, 11.5)
    in_time = Reward("in time", "d1", "b", 1, "red", 0.5, 11.0)
    other = Reward("other", "d1", "b", 1, "red", 7.0, 2.0, "revenue")
    log = [LogEntry(one.decision, (*one.rewards, late, in_time, other))]
    for window, goal, earned in (
        (None, "reward", 13.5),
        (10.0, "reward", 3.5),
        (1.0, "revenue", 7),
    ):
        (batch,), _ = read(log, window=window, goal=goal)
        assert batch.reward.tolist() == [earned]


def test_without_now_no_window_is_open() -> None:
    (batch,), _ = read([entry(99, "red", EVEN)], window=10.0)
    assert batch.ids == ["d99"]
    (batch,), left = read([entry(40, "red", EVEN), entry(41, "red", EVEN)], window=10.0, now=50.0)
    assert (batch.ids, left.immature) == (["d40"], 1)


def test_arms_that_are_gone_leave_their_share_to_the_others() -> None:
    chances = {"red": 0.3, "blue": 0.4, "green": 0.3}
    (batch,), left = read([entry(1, "red", chances), entry(2, "blue", chances)])
    assert batch.propensities.tolist() == [[0.5, 0.5]]
    assert batch.propensity.tolist() == [0.5]
    assert left == Left(gone=1)


def test_private_features_are_not_read() -> None:
    (batch,), _ = read([entry(1, "red", EVEN, context={"age": 3, "x": 1})], private=["age"])
    assert batch.contexts == [{"x": 1}]


def test_batches_have_the_size_that_is_asked_for() -> None:
    batches, _ = read([entry(number, "red", EVEN) for number in range(5)], size=2)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert read([]) == ([], Left())


@pytest.mark.parametrize("arms", [[], ["red", "red"]])
def test_arms_that_cannot_be_meant(arms: list[str]) -> None:
    with pytest.raises(ValueError, match="name at least one, and each once"):
        read([], arms=arms)
