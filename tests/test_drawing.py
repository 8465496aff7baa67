"""From the policy's probabilities to those of the draw, step by step and in their order."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_bandit import drawing
from flask_bandit.algorithms import Policy
from flask_bandit.bandits import Bandit, ThompsonBandit
from flask_bandit.drawing import DrawTable, burnt_in, floored, weighted
from flask_bandit.model import FloatArray, Stats


@st.composite
def vectors(draw: st.DrawFn) -> list[float]:
    """Make probabilities; some are 0 or next to it."""
    parts = draw(
        st.lists(
            st.one_of(st.just(0.0), st.floats(0.0, 1.0), st.just(1e-300)), min_size=1, max_size=9
        ).filter(lambda values: sum(values) > 1e-9)
    )
    return [part / math.fsum(parts) for part in parts]


def like(values: list[float], element: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
    return st.lists(element, min_size=len(values), max_size=len(values))


WEIGHTS = st.one_of(st.floats(1e-6, 1e6), st.sampled_from([1e-6, 1.0, 1e6]))


@given(st.data())
def test_every_step_keeps_a_sum_of_1(data: st.DataObject) -> None:
    values = data.draw(vectors())
    for step in (
        weighted(values, data.draw(like(values, WEIGHTS))),
        burnt_in(values, data.draw(like(values, st.floats(0, 20))), 10),
        floored(values, data.draw(st.floats(0.0, 1.0))),
    ):
        assert len(step) == len(values)
        assert min(step) >= 0.0
        assert math.fsum(step) == pytest.approx(1.0)


@given(st.data())
def test_weights_multiply_the_odds(data: st.DataObject) -> None:
    values = data.draw(vectors())
    weights = data.draw(like(values, st.floats(0.01, 100.0)))
    result = weighted(values, weights)
    for i, j in ((0, len(values) - 1), (len(values) - 1, 0)):
        one, other = result[i] * values[j] * weights[j], result[j] * values[i] * weights[i]
        assert one == pytest.approx(other, abs=1e-12)


def test_equal_weights_change_nothing() -> None:
    assert weighted([0.5, 0.25, 0.25], [3.0, 3.0, 3.0]) == [0.5, 0.25, 0.25]


@given(st.data())
def test_new_arms_have_an_equal_share_and_the_others_their_proportions(
    data: st.DataObject,
) -> None:
    values = data.draw(vectors())
    pulls = data.draw(like(values, st.sampled_from([0, 9, 10, 999])))
    result = burnt_in(values, pulls, 10)
    new = [n for n, count in enumerate(pulls) if count < 10]
    old = [n for n, count in enumerate(pulls) if count >= 10]
    if not new:
        assert result == values
    assert all(result[n] == 1.0 / len(values) for n in new)
    known = sum(values[n] for n in old)
    if known > 0.0:
        for n in old:
            expected = values[n] / known * len(old) / len(values)
            assert result[n] == pytest.approx(expected, abs=1e-12)


def test_burn_in_where_the_policy_would_give_all_to_the_new_arms() -> None:
    assert burnt_in([0.0, 1.0], [100, 0], 10) == [0.5, 0.5]


@given(vectors(), st.floats(0.0, 1.0))
def test_a_floor_leaves_each_arm_its_part(values: list[float], floor: float) -> None:
    assert min(floored(values, floor)) >= floor / len(values) * (1.0 - 1e-12)
    assert floored(values, 0.0) == values


@given(vectors(), st.floats(0.0, 1.0, exclude_max=True))
@example([1.0, 0.0], math.nextafter(1.0, 0.0))
@example([0.0, 1.0], 0.0)
def test_an_arm_of_probability_0_is_never_drawn(values: list[float], uniform: float) -> None:
    arms = tuple(f"a{n}" for n in range(len(values)))
    table = DrawTable.of(arms, values)
    # What is next to 0 may be lost in the sum, and is then never drawn; that is right too.
    assert table.propensities[table.draw(uniform)] > 0.0


def test_the_draw_takes_each_arm_as_often_as_its_probability_says() -> None:
    table = DrawTable.of(("a", "b", "c", "d"), [0.5, 0.0, 0.25, 0.25])
    drawn = [table.draw((n + 0.5) / 1000) for n in range(1000)]
    assert [drawn.count(arm) for arm in "abcd"] == [500, 0, 250, 250]


def test_a_sum_that_misses_1_by_a_rounding_still_ends_at_the_last_arm() -> None:
    table = DrawTable.of(("a", "b", "c"), [0.3, 0.3, 0.3])
    drawn = [table.draw((n + 0.5) / 900) for n in range(900)]
    assert [drawn.count(arm) for arm in "abc"] == [300, 300, 300]
    assert table.draw(math.nextafter(1.0, 0.0)) == "c"


@given(vectors(), st.floats(0.0, 1.0, exclude_max=True))
@example([0.3, 0.3, 0.3], math.nextafter(1.0, 0.0))
def test_the_interval_of_an_arm_is_where_it_is_drawn(values: list[float], uniform: float) -> None:
    table = DrawTable.of(tuple(f"a{n}" for n in range(len(values))), values)
    low, high = table.interval(table.draw(uniform))
    assert low - 1e-15 <= uniform <= high + 1e-15
    intervals = [table.interval(arm) for arm in table.arms]
    assert [low for low, _ in intervals] == [0.0, *(high for _, high in intervals[:-1])]
    assert intervals[-1][1] == 1.0
    for (low, high), value in zip(intervals, values, strict=True):
        assert high - low == pytest.approx(value / table.cumulative[-1], abs=1e-12)


def test_a_certain_arm() -> None:
    table = DrawTable.certain(("a", "b"), "b")
    assert table.stages == {}
    assert table.propensities == {"a": 0.0, "b": 1.0}
    assert {table.draw(n / 10) for n in range(10)} == {"b"}


# The steps in a bandit


class Fixed(Policy):
    """Always the same odds, whatever the counts say."""

    name = "fixed"
    odds = {"a": 6.0, "b": 3.0, "c": 1.0}

    def propensities(self, stats: Stats, context: object = None) -> FloatArray:
        found = np.array([self.odds[arm] for arm in stats.arms])
        result: FloatArray = found / found.sum()
        return result


def fixed(**options: float) -> Bandit:
    bandit = Bandit(Fixed(), **options)  # type: ignore[arg-type]
    for arm in "abc":
        bandit.add_arm(arm)
    return bandit


def test_eligible_arms_come_first() -> None:
    """The policy divides all of the traffic among them."""
    table = fixed(floor=0.0).draw_table({}, drawing={"b": 1.0, "c": 1.0})
    assert table.propensities == pytest.approx({"b": 0.75, "c": 0.25})


def test_weights_come_before_the_burn_in_and_that_before_the_floor() -> None:
    """With odds 6 : 3 : 1 and weights 1, 2, 4 it is 6 : 6 : 4, so a : b stay 1 : 1 beside c.

    If the weights came last, c would get 4/7 of it; if the floor came before the burn-in, c would
    have exactly a third.
    """
    counts = {"a": {"pulls": 50}, "b": {"pulls": 50}, "c": {"pulls": 3}}
    bandit = fixed(burn_in=10, floor=0.3)
    table = bandit.draw_table(counts, drawing={"a": 1.0, "b": 2.0, "c": 4.0})
    assert table.propensities == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    counts["c"]["pulls"] = 10
    table = bandit.draw_table(counts, drawing={"a": 1.0, "b": 2.0, "c": 4.0})
    expected = {arm: 0.7 * odds / 16 + 0.1 for arm, odds in {"a": 6, "b": 6, "c": 4}.items()}
    assert table.propensities == pytest.approx(expected)
    counts["b"]["pulls"] = 3
    table = bandit.draw_table(counts, drawing={"a": 1.0, "b": 2.0, "c": 4.0})
    before = {"a": 2 / 3 * 0.6, "b": 1 / 3, "c": 2 / 3 * 0.4}
    expected = {arm: 0.7 * share + 0.1 for arm, share in before.items()}
    assert table.propensities == pytest.approx(expected)


def test_burn_in_goes_by_all_decisions_also_with_windows_that_are_open() -> None:
    bandit = ThompsonBandit(burn_in=10, reward_window="7d", floor=0.0)
    for arm in "ab":
        bandit.add_arm(arm)
    learned = {"learn:pulls": 100, "learn:reward": 90.0}
    counts: dict[str, dict[str, float]] = {"a": {"pulls": 10, **learned}, "b": {"pulls": 9}}
    assert bandit.draw_table(counts).propensities == pytest.approx({"a": 0.5, "b": 0.5})
    counts["b"]["pulls"] = 10
    assert bandit.draw_table(counts).propensities["a"] > 0.8


@given(
    least=st.floats(0.0, 1 / 3),
    floor=st.floats(0.0, 1.0),
    drawing=st.dictionaries(st.sampled_from("abc"), WEIGHTS, min_size=1),
    burn_in=st.integers(0, 20),
    pulls=st.lists(st.integers(0, 40), min_size=3, max_size=3),
)
def test_every_eligible_arm_has_its_smallest_probability(
    least: float, floor: float, drawing: dict[str, float], burn_in: int, pulls: list[int]
) -> None:
    bandit = fixed(min_propensity=least, floor=floor, burn_in=burn_in)
    counts = {arm: {"pulls": n} for arm, n in zip("abc", pulls, strict=True)}
    table = bandit.draw_table(counts, drawing=drawing)
    assert table.arms == tuple(drawing)
    values = table.propensities.values()
    assert sum(values) == pytest.approx(1.0)
    assert min(values) >= max(least, floor / len(drawing)) * (1.0 - 1e-9)


@given(
    floor=st.floats(0.0, 1.0),
    offered=st.none() | st.dictionaries(st.sampled_from("abc"), WEIGHTS, min_size=1),
    burn_in=st.integers(0, 20),
    pulls=st.lists(st.integers(0, 40), min_size=3, max_size=3),
)
def test_the_last_stage_is_what_is_drawn_from(
    floor: float, offered: dict[str, float] | None, burn_in: int, pulls: list[int]
) -> None:
    bandit = fixed(floor=floor, burn_in=burn_in)
    counts = {arm: {"pulls": n} for arm, n in zip("abc", pulls, strict=True)}
    table = bandit.draw_table(counts, drawing=offered)
    expected = [drawing.POLICY]
    expected += [drawing.WEIGHTS] if offered is not None else []
    expected += [drawing.BURN_IN] if burn_in else []
    assert list(table.stages) == [*expected, drawing.FLOOR]
    assert list(table.stages[drawing.FLOOR]) == list(table.propensities.values())
    odds = [Fixed.odds[arm] for arm in table.arms]
    assert list(table.stages[drawing.POLICY]) == pytest.approx([each / sum(odds) for each in odds])


def test_the_stages_of_a_draw() -> None:
    counts = {"a": {"pulls": 50}, "b": {"pulls": 50}, "c": {"pulls": 3}}
    table = fixed(burn_in=10, floor=0.3).draw_table(counts, drawing={"a": 1.0, "b": 2.0, "c": 4.0})
    assert {name: list(values) for name, values in table.stages.items()} == {
        drawing.POLICY: pytest.approx([0.6, 0.3, 0.1]),
        drawing.WEIGHTS: pytest.approx([6 / 16, 6 / 16, 4 / 16]),
        drawing.BURN_IN: pytest.approx([1 / 3, 1 / 3, 1 / 3]),
        drawing.FLOOR: pytest.approx([1 / 3, 1 / 3, 1 / 3]),
    }


def test_a_bandit_with_propensities_of_its_own_has_no_floor_above_them() -> None:
    class Own(Bandit):
        def propensities(self, stats: Stats, context: object = None) -> FloatArray:
            return np.array([0.9, 0.1])

    bandit = Own(floor=0.5)
    bandit.add_arm("a")
    bandit.add_arm("b")
    assert bandit.draw_table({}).stages == {drawing.POLICY: [0.9, 0.1]}


def test_a_bandit_by_itself_learns_whatever_its_window_and_half_life() -> None:
    """It has no storage that could tell when something was."""
    for options in ({"reward_window": "7d"}, {"half_life": "7d"}):
        bandit = ThompsonBandit(**options)  # type: ignore[arg-type]
        for arm in "ab":
            bandit.add_arm(arm)
        for _ in range(40):
            bandit.pull_arm("a")
            bandit.pull_arm("b")
            bandit.reward_arm("b", 1.0)
        rng = random.Random(1)
        assert bandit.suggest_arm(rng)["propensity"] > 0.9
