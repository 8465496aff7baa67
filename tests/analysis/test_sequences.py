"""Sums of spans against sums over decisions, one by one."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bandit.analysis.digest import Digest
from flask_bandit.analysis.sequences import (
    FEWEST_REWARDS,
    LEAST_CHANCE,
    boundary,
    mature,
    sequence,
)

from .logs import CELL, Seen, digest

ARMS = ("a", "b", "c")


@st.composite
def logs(draw: st.DrawFn) -> list[Seen]:
    """A log of up to four spans, with an arm that is gone."""
    names = (*ARMS, "gone")
    result = []
    for number in range(draw(st.integers(1, 40))):
        parts = np.array(draw(st.lists(st.integers(1, 20), min_size=4, max_size=4)), dtype=float)
        chances = dict(zip(names, (parts / parts.sum()).tolist(), strict=True))
        earned = draw(st.sampled_from([0.0, 0.0, 1.0, 2.5]))
        result.append(Seen(float(number), draw(st.sampled_from(names)), chances, earned))
    return result


class ByHand:
    """What the docstrings say, decision by decision."""

    def __init__(self, decisions: list[Seen]) -> None:
        k = len(ARMS)
        self.ahead, self.squares, self.weights = np.zeros((3, k, k))
        self.gain = self.gain_sq = 0.0
        pulls: dict[str, int] = defaultdict(int)
        reward: dict[str, float] = defaultdict(float)
        before = np.full(k, 1.0 / k)
        for _, group in groupby(decisions, lambda seen: seen.at // CELL):
            span = list(group)
            total = sum(reward[arm] for arm in ARMS) / max(sum(pulls[arm] for arm in ARMS), 1)
            q = np.array([reward[arm] / pulls[arm] if pulls[arm] else total for arm in ARMS])
            w = before[:, None] * before / (before[:, None] + before)
            for seen in span:
                self._add(seen, q, w)
            for seen in span:
                pulls[seen.arm] += 1
                reward[seen.arm] += seen.earned
            chances = [[s.chances[arm] for arm in ARMS] for s in span if s.chances]
            before = np.mean(chances, axis=0)

    def _add(self, seen: Seen, q: np.ndarray, w: np.ndarray) -> None:
        assert seen.chances is not None
        is_shown = np.array([arm == seen.arm for arm in ARMS])
        p = np.array([seen.chances[arm] for arm in ARMS])
        g = q + is_shown * (seen.earned - q) / p
        self.ahead += w * (g[:, None] - g)
        self.squares += (w * ((g - q)[:, None] - (g - q))) ** 2
        self.weights += w
        y = seen.earned - g.mean()
        self.gain += y
        self.gain_sq += y * y


@given(logs())
def test_sums_of_spans_are_sums_over_decisions(decisions: list[Seen]) -> None:
    found, direct = sequence(digest(decisions).spans, ARMS), ByHand(decisions)
    assert found is not None
    off = ~np.eye(3, dtype=bool)
    for name in ("ahead", "squares", "weights"):
        mine, its = getattr(direct, name)[off], getattr(found, name)[off]
        assert its == pytest.approx(mine, rel=1e-9, abs=1e-9), name
    assert found.gain == pytest.approx(direct.gain, abs=1e-9)
    assert found.gain_sq == pytest.approx(direct.gain_sq, abs=1e-9)
    assert found.mean_square == pytest.approx(
        max(np.mean([seen.earned**2 for seen in decisions]), 1e-300)
    )


@given(logs(), st.permutations(range(3)))
def test_the_order_of_arms_does_not_matter(decisions: list[Seen], order: list[int]) -> None:
    spans = digest(decisions).spans
    one, other = sequence(spans, ARMS), sequence(spans, tuple(ARMS[n] for n in order))
    assert one is not None
    assert other is not None
    assert other.ahead == pytest.approx(one.ahead[np.ix_(order, order)], abs=1e-9)
    assert other.gain == pytest.approx(one.gain, abs=1e-9)


def alternating(count: int, start: int = 0, chance: float = 0.5) -> list[Seen]:
    """Two arms in turn: b earns 1 at every fifth visit, and a at every tenth."""
    vector = {"a": chance, "b": 1.0 - chance}
    return [
        Seen(float(start + n), "ab"[n % 2], vector, float(n % 20 == 0 or n % 10 == 1))
        for n in range(count)
    ]


def test_it_decides_for_the_better_arm_and_not_before_there_are_enough_rewards() -> None:
    found = sequence(digest(alternating(4000)).spans, ("a", "b"))
    assert found is not None
    assert found.is_ripe
    assert found.decides(0.05) == 1
    assert found.decides(0.05, scale=0.1) is None
    difference, reach = found.difference(1, 0, 0.05)
    assert difference == pytest.approx(0.1, abs=0.01)
    assert 0.0 < reach < 0.1
    few = sequence(digest(alternating(FEWEST_REWARDS * 18)).spans, ("a", "b"))
    assert few is not None
    assert not few.is_ripe
    assert few.decides(0.05) is None


def test_a_scale_is_more_of_the_same() -> None:
    found = sequence(digest(alternating(400)).spans, ("a", "b"))
    assert found is not None
    assert found.decides(0.05) is None
    assert found.decides(0.05, scale=100.0) == 1


def test_spans_that_did_not_offer_an_arm_to_everybody_are_left_out() -> None:
    alone = [Seen(float(n), "a", {"a": 1.0}, 1.0) for n in range(50)]
    declared = [Seen(2000.0 + n, "b", {"a": 0.0, "b": 1.0}, 1.0) for n in range(50)]
    both = alternating(100, start=100)
    only, mixed = (sequence(digest(log).spans, ("a", "b")) for log in (both, [*alone, *both]))
    assert only is not None
    assert mixed is not None
    assert mixed.weights[0, 1] == pytest.approx(only.weights[0, 1], abs=1.0)
    assert only.is_floored
    assert not mixed.is_floored
    later = sequence(digest([*both, *declared]).spans, ("a", "b"))
    assert later is not None
    assert later.ahead == pytest.approx(only.ahead)
    assert sequence(digest(alone).spans, ("a", "b")) is None
    assert sequence([], ("a", "b")) is None


@pytest.mark.parametrize(("chance", "is_floored"), [(LEAST_CHANCE, True), (0.049, False)])
def test_it_is_floored_if_no_arm_was_ever_less_probable(chance: float, is_floored: bool) -> None:
    found = sequence(digest(alternating(20, chance=chance)).spans, ("a", "b"))
    assert found is not None
    assert found.is_floored is is_floored


def test_what_can_earn_something_yet_is_not_mature() -> None:
    spans = digest(alternating(40), window=5.0, read_at=36.0).spans
    assert [span.end for span in mature(spans, 5.0)] == [10.0, 20.0, 30.0]
    assert len(mature(spans, None)) == 4


def test_decisions_of_unknown_probability_are_left_out() -> None:
    log = alternating(100)
    unknown = [Seen(float(n), "a", None, 1.0) for n in range(100)]
    one, other = (sequence(digest(each).spans, ("a", "b")) for each in (log, [*log, *unknown]))
    assert one is not None
    assert other is not None
    assert other.ahead == pytest.approx(one.ahead)


def test_nothing_in_a_digest_gives_nothing() -> None:
    assert sequence(Digest().spans, ("a", "b")) is None


def test_the_boundary_grows_slowly_and_with_certainty() -> None:
    assert boundary(0.0, 1.0, 0.05) == pytest.approx(math.sqrt(2 * math.log(20)))
    assert boundary(100.0, 1.0, 0.05) < boundary(100.0, 1.0, 0.01) < 10.0 * boundary(1.0, 1.0, 0.01)


def test_a_sum_of_fair_steps_rarely_ever_leaves_the_boundary() -> None:
    """The bound is 5 % for normal steps watched at all times; 2,000 seeded runs of 2,000 steps."""
    steps = np.random.default_rng(4).normal(size=(2000, 2000))
    sums, squares = steps.cumsum(axis=1), (steps**2).cumsum(axis=1)
    is_out = (np.abs(sums) > boundary(squares, 50.0, 0.05)).any(axis=1)
    assert 0.005 < is_out.mean() < 0.05


def test_a_clear_difference_waits_for_rewards_of_each_arm() -> None:
    log = [Seen(float(n), "ab"[n % 2], {"a": 0.5, "b": 0.5}, float(n % 2)) for n in range(400)]
    found = sequence(digest(log).spans, ("a", "b"))
    assert found is not None
    assert found.difference(1, 0, 0.05)[0] > 2.0 * found.difference(1, 0, 0.05)[1]
    assert found.decides(0.05) is None
