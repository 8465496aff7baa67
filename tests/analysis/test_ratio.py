"""The check of sample ratios: with probabilities that change, and with a counter that loses.

Seeds are fixed; the chance that a test would fail with another one is told.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bandit.analysis.digest import Ratio
from flask_bandit.analysis.ratio import check_ratio
from flask_bandit.model import FloatArray

ARMS = ("a", "b", "c")


def drifting(rng: np.random.Generator, count: int) -> FloatArray:
    """Return probabilities as a bandit has them: from equal ones to nearly certain ones."""
    t = np.linspace(0.0, 6.0, count)[:, None]
    odds = np.exp(t * np.array([0.0, 1.0, -0.5]) + rng.normal(0.0, 0.3, (count, 3)))
    result: FloatArray = odds / odds.sum(axis=1, keepdims=True)
    return result


def watched(
    seed: int, count: int, is_counted: Callable[[int, float], bool] = lambda arm, uniform: True
) -> Ratio:
    rng, ratio = np.random.default_rng(seed), Ratio()
    for vector in drifting(rng, count):
        arm = int((vector.cumsum() < rng.random()).sum())
        if is_counted(arm, rng.random()):
            ratio.note(ARMS[min(arm, 2)], dict(zip(ARMS, vector.tolist(), strict=True)))
    return ratio


def test_a_changing_bandit_is_no_mismatch() -> None:
    """P-values of 150 runs are uniform: none below .001 (1 in 7), a quarter within six errors."""
    checks = [check_ratio(watched(seed, 400)) for seed in range(150)]
    values = np.array([check.p_value for check in checks if check and check.p_value is not None])
    assert values.size == 150
    assert not any(check.is_alarm for check in checks if check)
    assert (values < 0.25).mean() == pytest.approx(0.25, abs=0.2)
    assert {check.dof for check in checks if check} == {2}


def test_a_counter_that_loses_is_one() -> None:
    """Three tenths of one arm's decisions: an alarm in each of ten runs, by far."""
    for seed in range(10):
        check = check_ratio(watched(seed, 6000, lambda arm, u: arm != 0 or u > 0.3))
        assert check is not None
        assert check.is_alarm


def test_two_arms_by_hand() -> None:
    ratio = Ratio()
    for number in range(100):
        ratio.note("b" if number < 60 else "a", {"a": 0.5, "b": 0.5})
    check = check_ratio(ratio)
    assert check is not None
    assert check.shown == {"a": 40, "b": 60}
    assert check.expected == pytest.approx({"a": 50.0, "b": 50.0})
    assert check.statistic == pytest.approx(4.0)
    assert check.dof == 1
    assert check.p_value == pytest.approx(0.0455, abs=1e-4)
    assert not check.is_alarm


@given(st.permutations(ARMS))
def test_names_do_not_matter(names: tuple[str, ...]) -> None:
    here, there = Ratio(), Ratio()
    rng = np.random.default_rng(7)
    for vector in drifting(rng, 100).tolist():
        arm = int(rng.integers(3))
        here.note(ARMS[arm], dict(zip(ARMS, vector, strict=True)))
        there.note(names[arm], dict(zip(names, vector, strict=True)))
    one, other = check_ratio(here), check_ratio(there)
    assert one is not None
    assert other is not None
    assert other.statistic == pytest.approx(one.statistic)


def test_too_little_to_say() -> None:
    assert check_ratio(Ratio()) is None
    few, certain = Ratio(), Ratio()
    for _ in range(8):
        few.note("a", {"a": 0.5, "b": 0.5})
    for _ in range(1000):
        certain.note("a", {"a": 1.0})
    for ratio in (few, certain):
        check = check_ratio(ratio)
        assert check is not None
        assert check.p_value is None
        assert not check.is_alarm


def test_an_arm_that_is_hardly_ever_due_is_left_out() -> None:
    ratio = Ratio()
    for number in range(1000):
        ratio.note("ab"[number % 2], {"a": 0.4995, "b": 0.4995, "c": 0.001})
    check = check_ratio(ratio)
    assert check is not None
    assert check.dof == 1
    assert check.p_value == pytest.approx(1.0)


def test_an_arm_that_is_hardly_ever_due_may_come_once() -> None:
    """One decision of an arm that .02 were expected of: one in fifty bandits has it."""
    ratio = Ratio()
    for number in range(1000):
        ratio.note("abc"[2 if number == 500 else number % 2], {"a": 0.5, "b": 0.49998, "c": 2e-5})
    check = check_ratio(ratio)
    assert check is not None
    assert check.dof == 1
    assert not check.is_alarm


def test_an_arm_that_never_gets_anybody_is_no_degree_of_freedom() -> None:
    two, three = Ratio(), Ratio()
    for number in range(1000):
        arm = "a" if number % 9 < 4 else "b"
        two.note(arm, {"a": 0.5, "b": 0.5})
        three.note(arm, {"a": 0.5, "b": 0.5, "c": 0.0})
    one, other = check_ratio(two), check_ratio(three)
    assert one is not None
    assert other is not None
    assert other.dof == 1
    assert other.p_value == pytest.approx(one.p_value)


def test_rare_arms_together_are_looked_at() -> None:
    """Each of thirty is due too seldom, but the one that is shown mostly lacks hundreds."""
    rare = {f"r{number}": 0.001 for number in range(30)}
    ratio = Ratio()
    for number in range(4000):
        ratio.note("main" if number % 5 else f"r{number % 30}", {"main": 0.97, **rare})
    check = check_ratio(ratio)
    assert check is not None
    assert check.dof == 1
    assert check.is_alarm
