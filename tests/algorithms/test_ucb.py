"""Upper confidence bounds, against their formulas and a bisection."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from flask_bandit.algorithms import KLUCBPolicy, Policy, UCB1Policy, UCBTunedPolicy
from flask_bandit.algorithms.base import argmax_ties
from flask_bandit.algorithms.ucb import kl_upper_bound
from flask_bandit.errors import ConfigurationError
from flask_bandit.model import FloatArray, Stats
from flask_bandit.testing import PolicySuite


class TestUCB1(PolicySuite):
    def make_policy(self) -> UCB1Policy:
        return UCB1Policy()


class TestUCBTuned(PolicySuite):
    def make_policy(self) -> UCBTunedPolicy:
        return UCBTunedPolicy()


class TestKLUCB(PolicySuite):
    def make_policy(self) -> KLUCBPolicy:
        return KLUCBPolicy()


class TestKLUCBOfTheProof(PolicySuite):
    converges = False  # in the end, too slowly for the suite

    def make_policy(self) -> KLUCBPolicy:
        return KLUCBPolicy(3)


ALL = [UCB1Policy(), UCBTunedPolicy(), KLUCBPolicy(), KLUCBPolicy(3.0)]
each = pytest.mark.parametrize("policy", ALL, ids=lambda policy: policy.version)


def _stats(*rows: tuple[int, float]) -> Stats:
    """Return statistics of rewards that are all 0 or 1."""
    counts = {
        f"arm{n}": {"pulls": p, "rewards": int(r), "reward": r, "reward_sq": r}
        for n, (p, r) in enumerate(rows)
    }
    return Stats.from_counts(tuple(counts), counts)


def _bounds(policy: UCB1Policy | UCBTunedPolicy | KLUCBPolicy, stats: Stats) -> FloatArray:
    pulls = stats.pulls.astype(np.float64)
    return policy.upper_bounds(stats, pulls, math.log(pulls.sum()))


@each
def test_arms_without_a_pull_come_first_and_share(policy: Policy) -> None:
    stats = _stats((10, 10.0), (0, 0.0), (1, 1.0), (0, 0.0))
    np.testing.assert_array_equal(policy.propensities(stats), [0.0, 0.5, 0.0, 0.5])


@each
def test_a_reward_without_a_pull_does_not_end_the_first_round(policy: Policy) -> None:
    np.testing.assert_array_equal(policy.propensities(_stats((10, 9.0), (0, 3.0))), [0.0, 1.0])


@each
def test_ties_are_shared(policy: Policy) -> None:
    stats = _stats((10, 3.0), (10, 3.0), (10, 1.0), (10, 3.0))
    np.testing.assert_allclose(policy.propensities(stats), [1 / 3, 1 / 3, 0.0, 1 / 3])


@each
def test_the_arm_less_known_is_preferred_at_equal_means(policy: Policy) -> None:
    np.testing.assert_array_equal(policy.propensities(_stats((100, 30.0), (10, 3.0))), [0.0, 1.0])


def test_ucb1_by_hand() -> None:
    stats = _stats((60, 30.0), (40, 4.0))
    expected = [0.5 + math.sqrt(2 * math.log(100) / 60), 0.1 + math.sqrt(2 * math.log(100) / 40)]
    np.testing.assert_allclose(_bounds(UCB1Policy(), stats), expected, rtol=1e-13)
    np.testing.assert_allclose(expected, [0.8918, 0.5799], atol=1e-4)
    np.testing.assert_array_equal(UCB1Policy().propensities(stats), [1.0, 0.0])


def test_ucb_tuned_by_hand() -> None:
    """One arm whose variance is small, and one for which the 1/4 is smaller."""
    stats = _stats((10_000, 100.0), (50, 20.0))
    log_t = math.log(10_050)
    variance = 0.01 - 0.01**2 + math.sqrt(2 * log_t / 10_000)
    assert variance < 0.25
    expected = [
        0.01 + math.sqrt(log_t / 10_000 * variance),
        0.4 + math.sqrt(log_t / 50 * 0.25),
    ]
    np.testing.assert_allclose(_bounds(UCBTunedPolicy(), stats), expected, rtol=1e-12)


def test_ucb_tuned_reads_the_squares() -> None:
    """Rewards of .5 each vary not at all, unlike as many of 0 and 1."""
    counts = {
        "steady": {"pulls": 10**4, "reward": 5e3, "reward_sq": 2.5e3},
        "coin": {"pulls": 10**4, "reward": 5e3, "reward_sq": 5e3},
    }
    steady, coin = _bounds(UCBTunedPolicy(), Stats.from_counts(("steady", "coin"), counts))
    log_t, n = math.log(2e4), 1e4
    assert steady == pytest.approx(0.5 + math.sqrt(log_t / n * math.sqrt(2 * log_t / n)))
    assert coin == pytest.approx(0.5 + math.sqrt(log_t / n * 0.25))


def _kl(p: float, q: float) -> float:
    left = p * math.log(p / q) if p else 0.0
    right = (1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0
    return left + right


def _bisected(p: float, divergence: float) -> float:
    low, high = p, 1.0 - 1e-16
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if _kl(p, middle) <= divergence:
            low = middle
        else:
            high = middle
    return low


def test_kl_upper_bound_matches_a_bisection() -> None:
    rng = random.Random(11)
    p = [0.0, 0.0, 0.0, 1e-9, 0.5, 1 - 1e-9, *(rng.random() for _ in range(600))]
    p += [rng.random() ** 6 for _ in range(300)] + [1 - rng.random() ** 6 for _ in range(300)]
    d = [1e-6, 0.1, 30.0, 1e-3, 1e-6, 1e-3, *(10 ** rng.uniform(-6, 1.5) for _ in p[6:])]
    expected = [_bisected(*pair) for pair in zip(p, d, strict=True)]
    found = kl_upper_bound(np.array(p), np.array(d))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    pairs = np.array((p, d)).T[:, :, None]
    found = np.concatenate([kl_upper_bound(*pair) for pair in pairs])  # few at a time
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_kl_upper_bound_at_the_ends() -> None:
    d = np.array([1e-6, 1e-3, 0.1, 1.0, 5.0])
    np.testing.assert_allclose(kl_upper_bound(np.zeros(5), d), -np.expm1(-d), atol=1e-9)
    np.testing.assert_array_equal(kl_upper_bound(np.ones(5), d), np.ones(5))
    np.testing.assert_allclose(kl_upper_bound(np.full(3, 0.3), np.zeros(3)), 0.3, atol=1e-9)


def test_kl_upper_bound_solves_its_equation() -> None:
    """n kl(mean, q) = log t, to 1e-9."""
    rng = random.Random(12)
    rows = [(n := rng.randrange(20, 5000), rng.randint(0, n // 2)) for _ in range(300)]
    log_t = math.log(sum(n for n, _ in rows))
    n, s = np.array(rows, dtype=np.float64).T
    for (pulls, reward), q in zip(rows, kl_upper_bound(s / n, log_t / n).tolist(), strict=True):
        assert pulls * _kl(reward / pulls, q) == pytest.approx(log_t, abs=1e-9)


@pytest.mark.parametrize("c", [0.0, 3.0])
def test_kl_ucb_of_one_arm_has_the_bound_of_its_equation(c: float) -> None:
    for pulls, reward in ((20, 3), (400, 0), (5000, 2400)):
        log_t = math.log(pulls)
        (q,) = _bounds(KLUCBPolicy(c), _stats((pulls, float(reward)))).tolist()
        expected = log_t + c * math.log(max(log_t, 1.0))
        assert pulls * _kl(reward / pulls, q) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("k", [3, 12, 13, 200])
def test_kl_ucb_finds_the_largest_of_many(k: int) -> None:
    """However it is found: the bounds of arms that cannot be the largest may be rough."""
    rng = random.Random(13)
    for rate in (0.01, 0.2, 0.9):
        for _ in range(2 + 60 // k):
            pulls = [rng.randint(1, 600) for _ in range(k)]
            rows = [(n, float(sum(rng.random() < rate for _ in range(n)))) for n in pulls]
            log_t = math.log(sum(pulls))
            bounds = np.array([_bisected(s / n, log_t / n) for n, s in rows])
            expected = argmax_ties((bounds > bounds.max() - 1e-12).astype(np.float64))
            np.testing.assert_array_equal(KLUCBPolicy().propensities(_stats(*rows)), expected)


def test_kl_ucb_prefers_by_its_bound() -> None:
    stats = _stats((50, 5.0), (500, 70.0), (5, 0.0))
    bounds = [_bisected(r / n, math.log(555) / n) for n, r in ((50, 5.0), (500, 70.0), (5, 0.0))]
    expected = [float(bound == max(bounds)) for bound in bounds]
    np.testing.assert_array_equal(KLUCBPolicy().propensities(stats), expected)


@pytest.mark.parametrize("c", [-1, math.nan, math.inf, "3", None])
def test_c_is_not_negative(c: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"c is .*; write a number that is at least 0"):
        KLUCBPolicy(c)


def test_versions() -> None:
    assert [policy.version for policy in ALL] == [
        "ucb1()",
        "ucb_tuned()",
        "kl_ucb(c=0.0)",
        "kl_ucb(c=3.0)",
    ]
