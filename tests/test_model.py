"""The records, and the one thing they do: add."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bandit.model import ArmStats, Stats, StatsDelta

numbers = st.integers(-(10**6), 10**6)
deltas = st.dictionaries(
    st.sampled_from("abc"), st.dictionaries(st.sampled_from(["pulls", "reward"]), numbers)
).map(StatsDelta)


def normal(delta: StatsDelta) -> dict[tuple[str, str], float]:
    return {(a, name): n for a, row in delta.counts.items() for name, n in row.items() if n}


@given(deltas, deltas, deltas)
def test_addition_commutes_and_associates(a: StatsDelta, b: StatsDelta, c: StatsDelta) -> None:
    assert normal(a + b) == normal(b + a)
    assert normal((a + b) + c) == normal(a + (b + c))


def test_addition_changes_neither_operand() -> None:
    a, b = StatsDelta({"x": {"pulls": 1}}), StatsDelta({"x": {"pulls": 2}})
    assert (a + b).counts == {"x": {"pulls": 3}}
    assert (a.counts, b.counts) == ({"x": {"pulls": 1}}, {"x": {"pulls": 2}})


def test_arm_stats_read_missing_sums_as_zero() -> None:
    assert ArmStats.from_counts({}) == ArmStats(0, 0, 0.0, 0.0)
    assert ArmStats.from_counts({}).mean == 0.0
    assert ArmStats.from_counts({"pulls": 4, "reward": 1.0, "exp3_gain": 9.0}).mean == 0.25


def test_stats_line_up_with_the_arms_of_the_code() -> None:
    counts: dict[str, dict[str, float]] = {
        "b": {"pulls": 3, "reward": 1.5, "mine": 7.0},
        "gone": {"pulls": 9},
    }
    stats = Stats.from_counts(("a", "b"), counts, extra=("mine",))
    assert stats.pulls.tolist() == [0, 3]
    assert stats.reward.tolist() == [0.0, 1.5]
    assert stats.extra["mine"].tolist() == [0.0, 7.0]
    with pytest.raises(KeyError):
        stats.extra["other"]
