"""Epsilon-greedy, with a fixed epsilon and with one that shrinks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from flask_bandit.algorithms import AnnealingEpsilonGreedyPolicy, EpsilonGreedyPolicy
from flask_bandit.errors import ConfigurationError
from flask_bandit.model import Stats
from flask_bandit.testing import PolicySuite


class TestEpsilonGreedy(PolicySuite):
    def make_policy(self) -> EpsilonGreedyPolicy:
        return EpsilonGreedyPolicy(0.1)


class TestAnnealingEpsilonGreedy(PolicySuite):
    def make_policy(self) -> AnnealingEpsilonGreedyPolicy:
        return AnnealingEpsilonGreedyPolicy()


def _stats(*rows: tuple[int, float]) -> Stats:
    counts = {f"arm{n}": {"pulls": p, "reward": r} for n, (p, r) in enumerate(rows)}
    return Stats.from_counts(tuple(counts), counts)


@pytest.mark.parametrize(
    ("epsilon", "expected"),
    [
        (0.0, [0.0, 1.0, 0.0, 0.0]),
        (0.2, [0.05, 0.85, 0.05, 0.05]),
        (1.0, [0.25, 0.25, 0.25, 0.25]),
        (1, [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_mixture(epsilon: float, expected: list[float]) -> None:
    stats = _stats((10, 1.0), (5, 1.0), (100, 11.0), (0, 0.0))
    np.testing.assert_allclose(EpsilonGreedyPolicy(epsilon).propensities(stats), expected)


def test_ties_are_shared() -> None:
    stats = _stats((10, 1.0), (20, 2.0), (10, 0.0), (30, 3.0))
    np.testing.assert_allclose(
        EpsilonGreedyPolicy(0.2).propensities(stats), [0.05 + 0.8 / 3] * 2 + [0.05, 0.05 + 0.8 / 3]
    )


def test_an_arm_without_pulls_counts_as_zero() -> None:
    policy = EpsilonGreedyPolicy(0.0)
    np.testing.assert_array_equal(policy.propensities(_stats((3, -1.0), (0, 0.0))), [0.0, 1.0])
    np.testing.assert_array_equal(policy.propensities(_stats((3, 0.0), (0, 0.0))), [0.5, 0.5])


@pytest.mark.parametrize(
    ("pulls", "epsilon"),
    [
        (0, 1.0),  # log(1 + 1e-7) is nearly 0
        (1, 1.0),  # 1 / log 2 = 1.44
        (2, 0.9102392),  # 1 / log 3
        (99, 0.2171472),  # 1 / log 100
        (9999, 0.1085736),
    ],
)
def test_annealing(pulls: int, epsilon: float) -> None:
    stats = _stats((pulls, 0.5 * pulls), (0, 0.0), (0, 0.0), (0, 0.0))
    best = AnnealingEpsilonGreedyPolicy().propensities(stats)[0]
    expected = 0.25 if pulls == 0 else 1.0 - 0.75 * epsilon
    assert best == pytest.approx(expected, abs=1e-7)


def test_annealing_counts_the_pulls_of_all_arms() -> None:
    stats = _stats((30, 1.0), (20, 1.0), (49, 1.0))
    probabilities = AnnealingEpsilonGreedyPolicy().propensities(stats)
    epsilon = 1 / math.log(100)
    np.testing.assert_allclose(
        probabilities, [epsilon / 3, 1 - 2 * epsilon / 3, epsilon / 3], atol=1e-8
    )


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, math.nan, math.inf, "0.1", None])
def test_epsilon_is_a_share(epsilon: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"epsilon is .*; write a share from 0 to 1"):
        EpsilonGreedyPolicy(epsilon)


def test_versions() -> None:
    assert EpsilonGreedyPolicy(0.2).version == "epsilon_greedy(epsilon=0.2)"
    assert EpsilonGreedyPolicy(1).version == "epsilon_greedy(epsilon=1.0)"
    assert AnnealingEpsilonGreedyPolicy().version == "annealing_epsilon_greedy()"
