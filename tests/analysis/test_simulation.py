"""The simulation against what can be known without it.

Seeds are fixed. Chances of a false alarm, were they not, are told per test; all together about
1 in 1,000.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from flask_bandit.algorithms import (
    POLICIES,
    Exp3Policy,
    Policy,
    ThompsonPolicy,
    UCB1Policy,
    UniformPolicy,
)
from flask_bandit.analysis import simulation
from flask_bandit.analysis.simulation import Outcome, Plan, batch_sizes, simulate
from flask_bandit.bandits import Bandit
from flask_bandit.model import Decision, FloatArray, Stats, StatsDelta

EASY = {"a": 0.1, "b": 0.5}


def run(policy: Policy, plan: Plan, seed: int = 0, **options: Any) -> Outcome:
    return simulate(Bandit(policy, **options), plan, np.random.default_rng(seed))


class AlwaysFirst(Policy):
    """Shows the first arm to everybody."""

    name = "always_first"

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        return np.array([1.0] + [0.0] * (len(stats.arms) - 1))


class Witness(AlwaysFirst):
    """Notes the statistics that it is asked with."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        sums = stats.pulls, stats.rewards, stats.reward, stats.reward_sq
        self.seen.append(tuple(column.tolist() for column in sums))
        return super().propensities(stats, context)


class OwnSums(Policy):
    """Has a sum of decisions and one of rewards divided by their logged probability."""

    name = "own_sums"
    extra = ("asked", "gain")

    def __init__(self) -> None:
        self.last: Stats | None = None

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        self.last = deepcopy(stats)
        return np.array([0.25, 0.75])

    def on_decision(self, decision: Decision) -> StatsDelta:
        return super().on_decision(decision) + StatsDelta({decision.arm: {"asked": 1}})

    def on_reward(self, decision: Decision, value: float) -> StatsDelta:
        gain = value / (decision.propensities or {})[decision.arm]
        own = StatsDelta({decision.arm: {"gain": gain, "not_declared": 1.0}})
        return super().on_reward(decision, value) + own


@pytest.mark.parametrize("visitors", [1, 2, 99, 100, 101, 10_000, 10_000_000])
def test_batches_grow_and_add_up(visitors: int) -> None:
    sizes = list(batch_sizes(visitors))
    assert sum(sizes) == visitors
    assert set(sizes[:199]) == {1}
    seen = np.cumsum(sizes)
    assert (np.array(sizes[1:]) <= np.maximum(1, 0.01 * seen[:-1])).all()
    assert len(sizes) < 1400


def test_uniform_regrets_the_mean_gap() -> None:
    """Within 4 standard errors: a false alarm in 1 of 16,000 seeds."""
    rates = {"a": 0.1, "b": 0.3, "c": 0.2}
    outcome = run(UniformPolicy(), Plan(rates, visitors=2000, runs=200))
    expected = 2000 * (0.3 - 0.2)
    assert abs(outcome.regret - expected) < 4 * outcome.regret_error
    # Of a uniform arm's gap, 0, .1 or .2, the variance is .02 / 3; runs are independent.
    known_error = math.sqrt(2000 * 0.02 / 3 / 200)
    assert outcome.regret_error == pytest.approx(known_error, rel=0.25)


def test_a_policy_of_one_arm_regrets_exactly_its_gap_and_the_floor() -> None:
    outcome = run(AlwaysFirst(), Plan(EASY, visitors=500, runs=2), floor=0.0)
    assert outcome.regret == pytest.approx(500 * 0.4)
    assert outcome.regret_error == pytest.approx(0.0)
    assert outcome.shares == {"a": 1.0, "b": 0.0}
    floored = run(AlwaysFirst(), Plan(EASY, visitors=2000, runs=100), floor=0.2)
    # 4 standard errors of a share of 200,000 draws: a false alarm in 1 of 16,000 seeds.
    assert abs(floored.shares["b"] - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 200_000)


def test_thompson_loses_far_less_than_uniform() -> None:
    """A tenth of it at the most, where a fiftieth is expected: no false alarm in practice."""
    plan = Plan({"a": 0.1, "b": 0.3}, visitors=5000, runs=30)
    assert run(ThompsonPolicy(), plan).regret < 0.1 * run(UniformPolicy(), plan).regret


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_every_policy_has_shares_that_add_up_and_agree_with_its_regret(
    policy: type[Policy],
) -> None:
    outcome = run(policy(), Plan({"a": 0.2, "b": 0.5, "c": 0.4}, visitors=400, runs=5))
    assert sum(outcome.shares.values()) == pytest.approx(1.0)
    lost = 400 * (0.3 * outcome.shares["a"] + 0.1 * outcome.shares["c"])
    assert outcome.regret == pytest.approx(lost)
    # More traffic for the best arm than by chance: uniform has a third, give or take 4 errors.
    slack = 4 * math.sqrt(2 / 9 / 2000) if policy is UniformPolicy else 0.0
    assert outcome.shares["b"] > 1 / 3 - slack


def test_growing_batches_change_the_regret_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 5 %, and 4 standard errors: a false alarm in less than 1 of 16,000 seeds each."""
    plan = Plan({"a": 0.1, "b": 0.3}, visitors=1000, runs=40)
    for policy in (UCB1Policy(), Exp3Policy()):
        batched = run(policy, plan)
        with monkeypatch.context() as each:
            each.setattr(simulation, "BATCH_SHARE", 0.0)
            assert len(list(batch_sizes(1000))) == 1000
            exact = run(policy, plan, seed=1)
        error = math.hypot(batched.regret_error, exact.regret_error)
        assert abs(batched.regret - exact.regret) < 0.05 * exact.regret + 4 * error


def test_policies_see_the_sums_of_their_own_run() -> None:
    witness = Witness()
    sizes = list(batch_sizes(200))
    run(witness, Plan({"a": 1.0, "b": 1.0}, visitors=200, runs=3), floor=0.0)
    before = [0, *np.cumsum(sizes).tolist()[:-1]]
    sums = [([n, 0], [n, 0], [float(n), 0.0], [float(n), 0.0]) for n in before]
    assert witness.seen == [each for each in sums for _ in range(3)]


def test_a_policy_that_learns_in_its_own_way_gets_its_own_sums() -> None:
    policy = OwnSums()
    run(policy, Plan({"a": 0.5, "b": 0.9}, visitors=1000, runs=2), floor=0.1)
    assert policy.last is not None
    assert policy.last.pulls.sum() == 1000 - list(batch_sizes(1000))[-1]
    assert policy.last.extra["asked"].tolist() == policy.last.pulls.tolist()
    # The floor is in the probabilities that are logged.
    logged = np.array([0.9 * 0.25 + 0.05, 0.9 * 0.75 + 0.05])
    assert policy.last.extra["gain"] == pytest.approx(policy.last.reward / logged)


def test_a_burn_in_comes_before_the_floor() -> None:
    plan = Plan({"a": 0.5, "b": 0.5}, visitors=300, runs=4)
    outcome = run(AlwaysFirst(), plan, floor=0.0, burn_in=20)
    # It gets half of the visitors until it has 20, one by one as long as there are few.
    assert outcome.shares["b"] * 300 == pytest.approx(20)
    assert run(AlwaysFirst(), plan, floor=0.0).shares["b"] == 0.0


def test_a_sure_thing_is_decided_at_the_first_check() -> None:
    """A rate of 0 against 1: no luck is involved, but for the split of the visitors."""
    outcome = run(UniformPolicy(), Plan({"a": 0.0, "b": 1.0}, visitors=1000, runs=10))
    assert (outcome.decided, outcome.decided_after, outcome.right) == (1.0, 100, 1.0)


def test_few_visitors_are_checked_at_the_end() -> None:
    outcome = run(UniformPolicy(), Plan({"a": 0.0, "b": 1.0}, visitors=30, runs=10))
    assert (outcome.decided, outcome.decided_after, outcome.right) == (1.0, 30, 1.0)


def test_what_most_runs_do_not_decide_is_not_decided() -> None:
    """Arms that nobody shows stay at Beta(1, 1)."""
    outcome = run(AlwaysFirst(), Plan(EASY, visitors=300, runs=10), floor=0.0)
    # P(b > a) is then the mean of 1 - a: .9, which is below .95 ...
    assert (outcome.decided, outcome.decided_after, outcome.right) == (0.0, None, None)
    # ... and above .8.
    sure = run(AlwaysFirst(), Plan(EASY, 300, 10, confidence=0.8), floor=0.0)
    assert (sure.decided, sure.right) == (1.0, 1.0)


def test_the_median_counts_the_runs_that_did_not_decide() -> None:
    """Whatever the seed, as long as it decides some runs and not others."""
    found = set()
    for visitors in (100, 400, 1600):
        outcome = run(UniformPolicy(), Plan({"a": 0.4, "b": 0.5}, visitors, runs=20))
        assert (outcome.decided_after is None) == (outcome.decided < 0.5)
        found.add(outcome.decided_after is None)
    assert found == {True, False}


def test_equal_arms_leave_no_regret_and_no_wrong_decision() -> None:
    plan = Plan({"a": 0.3, "b": 0.3}, visitors=100, runs=40, confidence=0.8)
    outcome = run(ThompsonPolicy(), plan)
    assert outcome.regret == 0.0
    # Runs that did not decide are in neither.
    assert 0.0 < outcome.decided < 1.0
    assert outcome.right == 1.0


def test_wrong_decisions_are_told() -> None:
    """At confidence .6 and rates this close, hardly any seed has no wrong run of 50."""
    plan = Plan({"a": 0.5, "b": 0.51}, visitors=100, runs=50, confidence=0.6)
    outcome = run(UniformPolicy(), plan)
    assert outcome.right is not None
    assert 0.2 < outcome.right < 0.95


def test_the_seed_is_all_the_luck_there_is() -> None:
    plan = Plan(EASY, visitors=300, runs=5)
    assert run(ThompsonPolicy(), plan, 1) == run(ThompsonPolicy(), plan, 1)
    assert run(ThompsonPolicy(), plan, 1) != run(ThompsonPolicy(), plan, 2)


def test_progress_is_told_after_each_batch() -> None:
    steps: list[int] = []
    plan = Plan(EASY, visitors=300, runs=2)
    simulate(Bandit(), plan, np.random.default_rng(0), steps.append)
    assert steps == [1] * len(list(batch_sizes(300)))
