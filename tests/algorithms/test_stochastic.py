"""Naive stochastic: traffic in proportion to the mean."""

from __future__ import annotations

import random

import numpy as np
import pytest

from flask_bandit.algorithms import NaiveStochasticPolicy
from flask_bandit.bandits import Bandit
from flask_bandit.model import Stats
from flask_bandit.testing import PolicySuite


class TestNaiveStochastic(PolicySuite):
    # An arm without a reward gets nothing, for ever unless there is a floor: see below.
    converges = False

    def make_policy(self) -> NaiveStochasticPolicy:
        return NaiveStochasticPolicy()


def _stats(*rows: tuple[int, float]) -> Stats:
    counts = {f"arm{n}": {"pulls": p, "reward": r} for n, (p, r) in enumerate(rows)}
    return Stats.from_counts(tuple(counts), counts)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(10, 1.0), (10, 3.0)], [0.25, 0.75]),
        ([(100, 5.0), (10, 1.0)], [1 / 3, 2 / 3]),
        ([(10, 0.0), (10, 1.0), (0, 0.0)], [0.0, 1.0, 0.0]),
        ([(10, 0.0), (3, 0.0)], [0.5, 0.5]),
        ([(10, -3.0), (10, 1.0)], [0.0, 1.0]),
        ([(10, -3.0), (10, -1.0)], [0.5, 0.5]),
        ([(1, 1e308), (1, 1e308), (1, 0.0)], [0.5, 0.5, 0.0]),
        ([(1, 5e-324), (1, 0.0)], [1.0, 0.0]),
    ],
)
def test_in_proportion_to_the_means(rows: list[tuple[int, float]], expected: list[float]) -> None:
    np.testing.assert_allclose(NaiveStochasticPolicy().propensities(_stats(*rows)), expected)


def test_with_a_floor_the_best_arm_gets_its_proportion() -> None:
    """Rates .1 and .4: .8 of what the floor leaves, .1 + .8 (.9) - .05 = .77 of all.

    False-alarm rate: the share of 4,000 draws at .77 has a standard error of .007, and the
    means' errors move it by about .03; .65 and .89 are four of these away, so 1e-4.
    """
    bandit, rng = Bandit(NaiveStochasticPolicy(), floor=0.1), random.Random(5)
    bandit.add_arm("a")
    bandit.add_arm("b")
    for _ in range(4000):
        arm = bandit.suggest_arm(rng)["id"]
        bandit.pull_arm(arm)
        if rng.random() < {"a": 0.1, "b": 0.4}[arm]:
            bandit.reward_arm(arm, 1.0)
    assert 0.65 < bandit["b"]["pulls"] / 4000 < 0.89
