"""Posteriors against draws from them, and against the truth that they are told of.

Seeds are fixed. The bounds are four standard errors: were the seeds not fixed, about 1 run in 1,000
would fail.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bandit.analysis.posteriors import BetaPosterior, StudentPosterior, expected_losses
from flask_bandit.model import FloatArray

FLAT = (1.0, 1.0)
DRAWS = 200_000


def beta(*arms: tuple[float, float]) -> BetaPosterior:
    pulls, rewards = np.array(arms, dtype=np.float64).T
    return BetaPosterior(pulls, rewards, FLAT)


def student(*arms: tuple[float, float, float]) -> StudentPosterior:
    """Make one from pulls, mean and standard deviation."""
    pulls, mean, deviation = np.array(arms).T
    squares = pulls * (deviation**2 + mean**2)
    return StudentPosterior(pulls, pulls * mean, squares, float((deviation**2).mean()))


def shares(draws: FloatArray) -> FloatArray:
    result: FloatArray = np.eye(draws.shape[1])[draws.argmax(axis=1)].mean(axis=0)
    return result


COUNTS = st.integers(0, 10**9).flatmap(
    lambda pulls: st.tuples(st.just(float(pulls)), st.integers(0, pulls).map(float))
)


@given(st.lists(COUNTS, min_size=1, max_size=5), st.sampled_from([0.5, 0.95, 0.999]))
def test_a_rate_is_between_0_and_1(arms: list[tuple[float, float]], level: float) -> None:
    low, high = beta(*arms).interval(level)
    means = np.array([rewards / max(pulls, 1.0) for pulls, rewards in arms])
    assert ((low >= 0.0) & (low <= means) & (means <= high) & (high <= 1.0)).all()
    assert (low < high).all()


@given(st.lists(COUNTS, min_size=1, max_size=5))
def test_chances_sum_to_1_and_losses_are_not_negative(arms: list[tuple[float, float]]) -> None:
    posterior = beta(*arms)
    assert posterior.chances().sum() == pytest.approx(1.0)
    losses = expected_losses(posterior)
    assert (losses >= 0.0).all()
    assert (losses <= 1.0).all()


@pytest.mark.parametrize(
    "arms", [[(10.0, 0.0)], [(10.0, 10.0)], [(10**9, 0.0), (10**9, 10**9), (0.0, 0.0)]]
)
def test_extremes(arms: list[tuple[float, float]]) -> None:
    posterior = beta(*arms)
    assert np.isfinite(posterior.chances()).all()
    assert np.isfinite(expected_losses(posterior)).all()


def test_beta_by_draws() -> None:
    posterior = beta((1000, 50), (800, 50), (20, 2))
    rng = np.random.default_rng(1)
    draws = rng.beta(*posterior.shape, (DRAWS, 3))
    assert posterior.chances() == pytest.approx(shares(draws), abs=0.005)
    lost = (draws.max(axis=1, keepdims=True) - draws).mean(axis=0)
    assert expected_losses(posterior) == pytest.approx(lost, rel=0.02)
    assert posterior.pair(1, 0).chances()[0] == pytest.approx(
        (draws[:, 1] > draws[:, 0]).mean(), abs=0.005
    )


def test_student_by_draws() -> None:
    posterior = student((40, 5.0, 2.0), (6, 5.5, 1.5), (900, 4.5, 9.0))
    rng = np.random.default_rng(2)
    draws = posterior.mean + posterior.scale * rng.standard_t(posterior.pulls, (DRAWS, 3))
    assert posterior.chances() == pytest.approx(shares(draws), abs=0.005)
    lost = (draws.max(axis=1, keepdims=True) - draws).mean(axis=0)
    assert expected_losses(posterior) == pytest.approx(lost, rel=0.03)


@given(st.permutations(range(3)))
def test_the_order_of_arms_does_not_matter(order: list[int]) -> None:
    arms = [(40, 5.0, 2.0), (6, 5.5, 1.5), (900, 4.5, 9.0)]
    here, there = student(*arms), student(*(arms[place] for place in order))
    assert there.chances() == pytest.approx(here.chances()[order])
    assert expected_losses(there) == pytest.approx(expected_losses(here)[order])


def test_equal_arms_are_equal() -> None:
    assert student(*[(50, 1.0, 1.0)] * 4).chances() == pytest.approx([0.25] * 4)
    assert expected_losses(beta((50, 5), (50, 5))).std() == pytest.approx(0.0, abs=1e-12)


def test_a_single_arm_is_the_best_and_loses_nothing() -> None:
    for posterior in (beta((10, 1)), student((10, 1.0, 1.0))):
        assert posterior.chances() == pytest.approx([1.0])
        assert expected_losses(posterior) == pytest.approx([0.0])


def test_equal_rewards_of_an_arm_are_no_certainty() -> None:
    low, high = student((30, 0.0, 0.0), (30, 1.0, 5.0)).interval(0.95)
    assert low[0] < -0.05
    assert high[0] > 0.05


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_cover_when_the_arms_are_shown_at_random(level: float) -> None:
    """A fixed number of pulls per arm; under a bandit, the means are biased and so are these."""
    rng, runs = np.random.default_rng(3), 4000
    rates = rng.random(runs)  # drawn from the prior, so that the coverage is exact
    pulls = np.full(runs, 60.0)
    low, high = BetaPosterior(pulls, rng.binomial(60, rates).astype(float), FLAT).interval(level)
    error = 4.0 * math.sqrt(level * (1.0 - level) / runs)
    assert ((low <= rates) & (rates <= high)).mean() == pytest.approx(level, abs=error)
    values = rng.normal(3.0, 2.0, (runs, 60))
    sums = values.sum(axis=1), (values**2).sum(axis=1)
    low, high = StudentPosterior(pulls, *sums, spread=4.0).interval(level)
    assert ((low <= 3.0) & (high >= 3.0)).mean() == pytest.approx(level, abs=error)
