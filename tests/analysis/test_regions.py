"""The region of steady rates: what it holds, and how often it misses.

Seeds are fixed; the rates of error are bounds for any seed.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bandit.analysis.regions import Region, budget, divergence, log_mixture

ARM = st.integers(1, 10**9).flatmap(
    lambda pulls: st.tuples(st.just(float(pulls)), st.integers(0, pulls).map(float))
)


def region(*arms: tuple[float, float]) -> Region:
    pulls, rewards = np.array(arms, dtype=np.float64).T
    return Region(pulls, rewards)


def test_the_mixture_is_a_probability() -> None:
    """All outcomes of three pulls and two pulls together, each as often as it can come."""
    total = 0.0
    for one in range(4):
        for other in range(3):
            ways = [1, 3, 3, 1][one] * [1, 2, 1][other]
            counts = np.array([3.0, 2.0]), np.array([one, other], dtype=np.float64)
            total += ways * float(np.exp(log_mixture(*counts)))
    assert total == pytest.approx(1.0)


@given(st.lists(ARM, min_size=1, max_size=4))
def test_what_was_seen_is_in_the_region(arms: list[tuple[float, float]]) -> None:
    here = region(*arms)
    seen = here.rewards / here.pulls
    assert budget(here.pulls, here.rewards, 0.05) > 0.0
    for weights in np.array((np.ones(len(arms)), np.arange(len(arms)) - 0.5)):
        low, high = here.extent(weights, 0.05)
        value = float(weights @ seen)
        assert low <= value + 1e-9
        assert value <= high + 1e-9
        assert low >= weights[weights < 0].sum() - 1e-9
        assert high <= weights[weights > 0].sum() + 1e-9


def test_the_extent_is_the_furthest_point_that_is_near_enough() -> None:
    """Against a fine grid of all pairs of rates."""
    here, weights = region((300, 20), (700, 70)), np.array([-1.0, 1.0])
    axis = np.linspace(0.001, 0.4, 800)
    rates = np.stack(np.meshgrid(axis, axis), axis=-1)
    is_near = divergence(here.pulls, here.rewards, rates) <= budget(here.pulls, here.rewards, 0.05)
    values = (rates @ weights)[is_near]
    low, high = here.extent(weights, 0.05)
    assert low == pytest.approx(values.min(), abs=0.002)
    assert high == pytest.approx(values.max(), abs=0.002)


def test_arms_of_weight_0_do_not_widen_it() -> None:
    pair, three = region((300, 20), (700, 70)), region((300, 20), (700, 70), (5, 1))
    assert three.extent(np.array([1.0, -1.0, 0.0]), 0.05) == pair.extent(
        np.array([1.0, -1.0]), 0.05
    )


def test_arms_that_earned_nothing_or_at_each_visit() -> None:
    low, high = region((1000, 0), (1000, 1000)).extent(np.array([-1.0, 1.0]), 0.05)
    assert 0.9 < low < 1.0
    assert high == pytest.approx(1.0)


def test_it_decides_when_the_others_cannot_be_as_good() -> None:
    assert region((5000, 250), (5000, 500)).decides(0.05) == 1
    assert region((5000, 500), (5000, 250), (5000, 250)).decides(0.05) == 0
    assert region((500, 25), (500, 30)).decides(0.05) is None
    assert region((500, 25), (500, 30)).decides(0.05, scale=1000.0) == 1
    assert region((500, 25), (500, 25)).decides(0.05, scale=1000.0) is None
    assert region((0, 0), (0, 0)).decides(0.05) is None


def test_a_decision_is_a_difference_that_excludes_0() -> None:
    weights = np.array([-1.0, 1.0])
    for rewards in range(300, 420, 2):
        here = region((5000, 250), (5000, rewards))
        assert (here.decides(0.05) == 1) == (here.extent(weights, 0.05)[0] > 0.0)


def test_it_ever_misses_less_often_than_it_says_whatever_the_policy() -> None:
    """Greedy, watched at each of 60 batches: at most 10 % of 1,000 runs by Ville's inequality."""
    rng, rates = np.random.default_rng(5), np.array([0.1, 0.15])
    pulls, rewards = np.ones((2, 1000, 2))
    pulls += 1.0
    is_missed = np.zeros(1000, dtype=bool)
    # Of the two pulls of each arm, half earned: that is no draw from the rates, so it counts not.
    start = pulls.copy(), rewards.copy()
    for _ in range(60):
        greedy = (rewards / pulls).argmax(axis=1)
        shown = rng.multinomial(20, np.where(np.eye(2)[greedy] > 0.0, 0.9, 0.1))
        pulls += shown
        rewards += rng.binomial(shown, rates)
        counts = pulls - start[0], rewards - start[1]
        is_missed |= divergence(*counts, rates) > budget(*counts, 0.1)
    assert 0.0 < is_missed.mean() < 0.1


def test_an_arm_without_pulls_excludes_nothing() -> None:
    assert Region(np.array([0.0, 3.0]), np.array([0.0, 3.0])).decides(0.05) is None
    low, high = Region(np.array([0.0, 3.0]), np.array([0.0, 3.0])).extent(
        np.array([-1.0, 1.0]), 0.05
    )
    assert low < 0.0 < high <= 1.0
