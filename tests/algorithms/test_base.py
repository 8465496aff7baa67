"""What all policies share, and the table of those that are built in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flask_bandit.algorithms import POLICIES, Policy, PolicyProtocol
from flask_bandit.algorithms.base import argmax_ties, means, uniform, with_floor
from flask_bandit.model import Decision, FloatArray, Stats, StatsDelta
from flask_bandit.testing import PolicySuite


class FirstArmPolicy(Policy):
    """Gives the first arm the most, whatever comes."""

    name = "first_arm"

    def __init__(self, share: float = 0.9) -> None:
        self.share = share

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        if not stats.pulls.any() or len(stats.arms) == 1:
            return uniform(len(stats.arms))
        order = np.array([arm == "arm1" for arm in stats.arms], dtype=np.float64)
        return with_floor(argmax_ties(order), 1.0 - self.share)


DECISION = Decision("id", "b", 1, "green", {"green": 0.5, "red": 0.5}, "v", 0.0)


def test_the_built_in_families_are_these() -> None:
    assert sorted(POLICIES) == [
        "annealing_epsilon_greedy",
        "annealing_softmax",
        "epsilon_greedy",
        "exp3",
        "gaussian_thompson",
        "kl_ucb",
        "naive_stochastic",
        "softmax",
        "thompson",
        "ucb1",
        "ucb_tuned",
        "uniform",
    ]


@pytest.mark.parametrize("name", POLICIES)
def test_each_family_is_tested_by_the_suite(name: str) -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert f"def make_policy(self) -> {POLICIES[name].__name__}:" in text


@pytest.mark.parametrize("name", POLICIES)
def test_each_family_fits_the_protocol(name: str) -> None:
    policy = POLICIES[name]()
    assert isinstance(policy, PolicyProtocol)
    assert policy.version.startswith(f"{name}(")
    assert repr(policy) == f"<{POLICIES[name].__name__} {policy.version}>"
    assert POLICIES[name].__doc__


def test_a_policy_gives_its_probabilities_itself() -> None:
    stats = Stats.from_counts(("a",), {})
    with pytest.raises(NotImplementedError):
        Policy().propensities(stats)


def test_increments() -> None:
    policy = FirstArmPolicy()
    assert policy.on_decision(DECISION) == StatsDelta({"green": {"pulls": 1}})
    assert policy.on_reward(DECISION, -3.0) == StatsDelta(
        {"green": {"rewards": 1, "reward": -3.0, "reward_sq": 9.0}}
    )
    assert policy.on_mature(DECISION, 0.5) == StatsDelta(
        {"green": {"pulls": 1, "rewards": 1, "reward": 0.5, "reward_sq": 0.25}}
    )
    assert policy.on_mature(DECISION, 0.0) == StatsDelta({"green": {"pulls": 1}})


def test_version_names_the_parameters_in_order() -> None:
    policy = FirstArmPolicy(0.8)
    policy.colour = "blue"  # type: ignore[attr-defined]
    assert policy.params() == {"share": 0.8, "colour": "blue"}
    assert policy.version == "first_arm(colour='blue',share=0.8)"


def test_means() -> None:
    counts = {"a": {"pulls": 4, "reward": 1.0}, "b": {"pulls": 2, "reward": -3.0}}
    np.testing.assert_array_equal(
        means(Stats.from_counts(("a", "b", "c"), counts)), [0.25, -1.5, 0]
    )


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0], [1.0]),
        ([1.0, 3.0, 2.0], [0.0, 1.0, 0.0]),
        ([3.0, 1.0, 3.0, 3.0], [1 / 3, 0.0, 1 / 3, 1 / 3]),
        ([-2.0, -2.0], [0.5, 0.5]),
        ([np.inf, 1.0, np.inf], [0.5, 0.0, 0.5]),
    ],
)
def test_argmax_shares_ties(scores: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(argmax_ties(np.array(scores)), expected)


def test_with_floor() -> None:
    p = np.array([1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(with_floor(p, 0.2), [0.85, 0.05, 0.05, 0.05])
    np.testing.assert_array_equal(with_floor(p, 0.0), p)
    np.testing.assert_array_equal(with_floor(p, 1.0), uniform(4))


# The suite finds what is wrong


class _Suite(PolicySuite):
    __test__ = False

    def __init__(self, policy: PolicyProtocol) -> None:
        self._policy = policy

    def make_policy(self) -> PolicyProtocol:
        return self._policy


class Counting(FirstArmPolicy):
    """Hides a state, so that a second decision adds something else."""

    seen = 0

    def on_decision(self, decision: Decision) -> StatsDelta:
        self.seen += 1
        return StatsDelta({decision.arm: {"pulls": self.seen}})


class Twice(FirstArmPolicy):
    def on_reward(self, decision: Decision, value: float) -> StatsDelta:
        return StatsDelta({decision.arm: {"rewards": 1, "reward": 2 * value, "reward_sq": value}})


class Unsure(FirstArmPolicy):
    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        return super().propensities(stats) * (1.0 - 1e-6)


class Changing(FirstArmPolicy):
    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        result = super().propensities(stats)
        stats.reward[:] = 0.0
        return result


class Divider(FirstArmPolicy):
    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        result: FloatArray = stats.reward / stats.pulls
        return result


class Undeclared(FirstArmPolicy):
    def on_reward(self, decision: Decision, value: float) -> StatsDelta:
        return super().on_reward(decision, value) + StatsDelta({decision.arm: {"mine": 1.0}})


def test_the_suite_sees_a_policy_that_prefers_a_place() -> None:
    with pytest.raises(AssertionError):
        _Suite(FirstArmPolicy()).test_equal_arms_get_equal_probabilities()


def test_the_suite_sees_a_hidden_state() -> None:
    with pytest.raises(AssertionError):
        _Suite(Counting()).test_increments_do_not_depend_on_what_came_before()


def test_the_suite_sees_wrong_sums() -> None:
    with pytest.raises(AssertionError):
        _Suite(Twice()).test_a_reward_adds_itself_and_its_square(0.5, known=True)
    with pytest.raises(AssertionError):
        _Suite(Undeclared()).test_every_sum_is_declared_and_finite()


def test_the_suite_sees_probabilities_that_are_none() -> None:
    with pytest.raises(AssertionError):
        _Suite(Unsure()).test_any_counts_give_probabilities(1.0)
    with pytest.raises((AssertionError, RuntimeWarning)):
        _Suite(Divider()).test_no_data_is_uniform(3)


def test_the_suite_sees_changed_inputs() -> None:
    with pytest.raises((AssertionError, ValueError)):
        _Suite(Changing()).test_same_input_same_output_and_inputs_stay()


@pytest.mark.parametrize("policy", [POLICIES["uniform"](), POLICIES["exp3"](), FirstArmPolicy(0.0)])
def test_the_suite_sees_what_does_not_converge(policy: Policy) -> None:
    if isinstance(policy, POLICIES["exp3"]):
        policy = type(policy)(1.0)  # type: ignore[call-arg]
    with pytest.raises(AssertionError):
        _Suite(policy).test_converges_to_the_best_arm()
