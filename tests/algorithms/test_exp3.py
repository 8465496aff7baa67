"""Exp3: importance-weighted log-weights, by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from flask_bandit.algorithms import Exp3Policy
from flask_bandit.errors import ConfigurationError
from flask_bandit.model import Decision, FloatArray, Stats, StatsDelta
from flask_bandit.testing import PolicySuite


class TestExp3(PolicySuite):
    def make_policy(self) -> Exp3Policy:
        return Exp3Policy(0.1)


class TestExp3ThatOnlyExplores(PolicySuite):
    converges = False

    def make_policy(self) -> Exp3Policy:
        return Exp3Policy(1)


def _decision(arm: str, propensities: Mapping[str, float] | None) -> Decision:
    return Decision("id", "b", 1, arm, propensities, "v", 0.0)


def _reward(policy: Exp3Policy, arm: str, value: float, **propensities: float) -> StatsDelta:
    return policy.on_reward(_decision(arm, propensities), value)


def _probabilities(policy: Exp3Policy, arms: str, *deltas: StatsDelta) -> FloatArray:
    total = sum(deltas, StatsDelta({}))
    return policy.propensities(Stats.from_counts(tuple(arms), total.counts, policy.extra))


def _log_weights(policy: Exp3Policy, probabilities: FloatArray) -> FloatArray:
    """Return the log-weights, up to a constant, that give these probabilities."""
    return np.log(probabilities - policy.gamma / probabilities.size)


@pytest.mark.parametrize("gamma", [0.05, 0.1, 0.5])
@pytest.mark.parametrize(("value", "propensity"), [(1.0, 0.5), (0.25, 0.5), (1.0, 0.02)])
def test_a_reward_adds_gamma_r_over_k_p(gamma: float, value: float, propensity: float) -> None:
    policy = Exp3Policy(gamma)
    rest = 0.5 * (1 - propensity)
    once = _reward(policy, "b", value, a=rest, b=propensity, c=rest)
    for n in (1, 2):
        logs = _log_weights(policy, _probabilities(policy, "abc", *[once] * n))
        expected = n * gamma * value / (3 * propensity)
        assert logs[1] - logs[0] == pytest.approx(expected, rel=1e-6)
        assert logs[2] == pytest.approx(logs[0], rel=1e-9)


def test_by_hand() -> None:
    """gamma .3, K 2: log-weights .3 * 1 / (2 * .25) = .6 and .3 * .5 / (2 * .75) = .1."""
    policy = Exp3Policy(0.3)
    share = math.exp(0.6) / (math.exp(0.6) + math.exp(0.1))
    both = _probabilities(
        policy,
        "ab",
        _reward(policy, "a", 1.0, a=0.25, b=0.75),
        _reward(policy, "b", 0.5, a=0.25, b=0.75),
    )
    np.testing.assert_allclose(both, [0.15 + 0.7 * share, 0.15 + 0.7 * (1 - share)])


def test_gamma_one_is_uniform() -> None:
    policy = Exp3Policy(1.0)
    np.testing.assert_allclose(
        _probabilities(policy, "ab", _reward(policy, "a", 1.0, a=0.1, b=0.9)), [0.5, 0.5]
    )


def test_the_least_probability_is_gamma_over_k() -> None:
    policy = Exp3Policy(0.2)
    many = [_reward(policy, "a", 1.0, a=0.001, b=0.999)] * 100
    np.testing.assert_allclose(_probabilities(policy, "ab", *many), [0.9, 0.1])


@pytest.mark.parametrize("propensities", [None, {}, {"b": 1.0}, {"a": 0.0, "b": 1.0}])
def test_an_unknown_propensity_only_counts(propensities: Mapping[str, float] | None) -> None:
    added = Exp3Policy().on_reward(_decision("a", propensities), 0.5)
    assert added.counts == {"a": {"rewards": 1, "reward": 0.5, "reward_sq": 0.25}}


def test_a_prefetched_decision_knows_its_own_arm_only_and_is_only_counted() -> None:
    """Whether other arms were there is unknown, and so is what a newer arm missed."""
    added = _reward(Exp3Policy(0.1), "a", 1.0, a=0.25)
    assert added.counts == {"a": {"rewards": 1, "reward": 1.0, "reward_sq": 1.0}}


def test_what_is_stored_does_not_depend_on_gamma() -> None:
    assert _reward(Exp3Policy(0.1), "a", 1.0, a=0.5, b=0.5) == _reward(
        Exp3Policy(0.9), "a", 1.0, a=0.5, b=0.5
    )


def test_a_new_arm_enters_at_the_mean_log_weight() -> None:
    policy = Exp3Policy(0.2)
    deltas = [
        _reward(policy, "a", 1.0, a=0.5, b=0.5),
        _reward(policy, "a", 0.5, a=0.6, b=0.4),
        _reward(policy, "b", 1.0, a=0.7, b=0.3),
    ]
    logs = [0.2 / 3 * (1 / 0.5 + 0.5 / 0.6), 0.2 / 3 / 0.3]
    logs.append(sum(logs) / 2)
    weights = np.exp(logs)
    expected = 0.8 * weights / weights.sum() + 0.2 / 3
    np.testing.assert_allclose(_probabilities(policy, "abc", *deltas), expected, rtol=1e-12)


def test_a_new_arm_learns_from_then_on_as_the_others() -> None:
    policy = Exp3Policy(0.2)
    before = [_reward(policy, "a", 1.0, a=0.5, b=0.5)]
    after = [*before, _reward(policy, "c", 1.0, a=0.4, b=0.3, c=0.3)]
    step = _log_weights(policy, _probabilities(policy, "abc", *after)) - _log_weights(
        policy, _probabilities(policy, "abc", *before)
    )
    assert step[2] - step[0] == pytest.approx(0.2 / (3 * 0.3), rel=1e-9)
    assert step[1] == pytest.approx(step[0], rel=1e-9)


def test_a_new_arm_does_not_change_the_ratio_of_the_others_by_age() -> None:
    """Two new arms that came together are alike."""
    policy = Exp3Policy(0.2)
    found = _probabilities(policy, "abcd", _reward(policy, "a", 1.0, a=0.5, b=0.5))
    assert found[2] == found[3]
    assert found[0] > found[2] > found[1]


@pytest.mark.parametrize("gamma", [0.0, -0.1, 1.1, math.nan, "0.1", None])
def test_gamma_is_a_share_above_0(gamma: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"gamma is .*; write a share above 0 and up to 1"):
        Exp3Policy(gamma)


def test_version() -> None:
    assert Exp3Policy(0.2).version == "exp3(gamma=0.2)"
