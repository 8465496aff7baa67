"""Softmax, with a fixed temperature and with one that falls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from flask_bandit.algorithms import AnnealingSoftmaxPolicy, SoftmaxPolicy
from flask_bandit.algorithms.softmax import softmax
from flask_bandit.errors import ConfigurationError
from flask_bandit.model import Stats
from flask_bandit.testing import PolicySuite


class TestSoftmax(PolicySuite):
    def make_policy(self) -> SoftmaxPolicy:
        return SoftmaxPolicy(0.1)


class TestAnnealingSoftmax(PolicySuite):
    def make_policy(self) -> AnnealingSoftmaxPolicy:
        return AnnealingSoftmaxPolicy()


def _stats(*rows: tuple[int, float]) -> Stats:
    counts = {f"arm{n}": {"pulls": p, "reward": r} for n, (p, r) in enumerate(rows)}
    return Stats.from_counts(tuple(counts), counts)


def test_by_hand() -> None:
    stats = _stats((10, 1.0), (10, 3.0), (0, 0.0))
    weights = [math.exp(0.1 / 0.5), math.exp(0.3 / 0.5), 1.0]
    np.testing.assert_allclose(
        SoftmaxPolicy(0.5).propensities(stats), [w / sum(weights) for w in weights], rtol=1e-12
    )


def test_only_differences_matter() -> None:
    plain = SoftmaxPolicy(0.2).propensities(_stats((1, 0.25), (1, 0.5), (1, 0.0)))
    shifted = SoftmaxPolicy(0.2).propensities(_stats((1, 1024.25), (1, 1024.5), (1, 1024.0)))
    np.testing.assert_array_equal(plain, shifted)


@pytest.mark.parametrize("size", [1e3, 1e100, 1e307])
def test_huge_means_do_not_overflow(size: float) -> None:
    stats = _stats((1, size), (1, -size), (1, size))
    np.testing.assert_array_equal(SoftmaxPolicy(1.0).propensities(stats), [0.5, 0.0, 0.5])
    np.testing.assert_array_equal(AnnealingSoftmaxPolicy().propensities(stats), [0.5, 0.0, 0.5])


@pytest.mark.parametrize("size", [1.0, 1e100, 1e300])
@pytest.mark.parametrize("tau", [1e-5, 1e-100, 1e-299])
def test_a_tiny_temperature_gives_the_best_arm_all(tau: float, size: float) -> None:
    stats = _stats((10, size), (10, 3.0 * size), (10, 3.0 * size))
    np.testing.assert_array_equal(SoftmaxPolicy(tau).propensities(stats), [0.0, 0.5, 0.5])


def test_a_huge_temperature_is_uniform() -> None:
    stats = _stats((10, 1.0), (10, 3.0))
    np.testing.assert_allclose(SoftmaxPolicy(1e300).propensities(stats), [0.5, 0.5])


@pytest.mark.parametrize("pulls", [1, 9, 99, 10**6])
def test_annealing(pulls: int) -> None:
    """With tau = 1 / log t, exp(mean / tau) is t to the power of the mean."""
    stats = _stats((pulls, 0.5 * pulls), (0, 0.0))
    weight = math.sqrt(1 + pulls)
    np.testing.assert_allclose(
        AnnealingSoftmaxPolicy().propensities(stats),
        [weight / (weight + 1), 1 / (weight + 1)],
        atol=1e-7,
    )


def test_softmax_of_logits() -> None:
    np.testing.assert_allclose(
        softmax(np.array([0.0, math.log(3.0), -1e9]), 1.0), [0.25, 0.75, 0.0], rtol=1e-12
    )


@pytest.mark.parametrize("tau", [0.0, -0.1, math.nan, math.inf, "0.1", None])
def test_tau_is_positive(tau: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"tau is .*; write a number above 0"):
        SoftmaxPolicy(tau)


def test_versions() -> None:
    assert SoftmaxPolicy(0.2).version == "softmax(tau=0.2)"
    assert AnnealingSoftmaxPolicy().version == "annealing_softmax()"
