"""The regressions, against ordinary least squares on standardised data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from flask_bandit.algorithms import LinThompsonPolicy
from flask_bandit.algorithms.linear_model import LinearModel, _inverses
from flask_bandit.features import Features
from flask_bandit.model import Decision, FloatArray, Stats, StatsDelta
from flask_bandit.testing.policies import Total, names, stats_of

SPEC: Mapping[str, Any] = {
    "age": {"low": 0, "high": 120, "pivot": 30, "indicator": False},
    "country": ["de", "fr"],
    "income": {"indicator": False, "pivot": 2000},
}
NUMERIC = [0, 4]
ARMS = names(3)
POLICY = LinThompsonPolicy(SPEC)
RIDGE = POLICY.ridge

Event = tuple[int, Mapping[str, Any], float]
"""Place of the arm, context, reward."""


def some_events(count: int, seed: int = 0) -> list[Event]:
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    for _ in range(count):
        age, income = rng.normal(45, 12), rng.lognormal(8, 0.4)
        context = {"age": age, "country": str(rng.choice(["de", "fr", "it"])), "income": income}
        arm = int(rng.integers(3))
        reward = 2.0 + 0.01 * age * arm - 0.0001 * income + rng.normal(0, 0.3)
        events.append((arm, context, float(reward)))
    return events


def deltas_of(event: Event) -> list[StatsDelta]:
    arm, context, reward = event
    made = Decision("id", "b", 1, ARMS[arm], None, "v", 0.0, context)
    return [POLICY.on_decision(made), POLICY.on_reward(made, reward)]


def total_of(events: Sequence[Event]) -> Total:
    total = Total()
    for event in events:
        for delta in deltas_of(event):
            total.add(delta)
    return total


def fitted(events: Sequence[Event]) -> LinearModel:
    return LinearModel(POLICY.features, RIDGE, stats_of(POLICY, ARMS, total_of(events)))


class Expected:
    """The same regressions with numpy's least squares, on rows that are all there.

    :param mapped: how many of the events the columns and the rewards are standardised by
    """

    def __init__(self, events: Sequence[Event], mapped: int | None = None) -> None:
        self.x = np.array([POLICY.features.encode(context) for _, context, _ in events])
        self.arm = np.array([arm for arm, _, _ in events])
        self.reward = np.array([reward for _, _, reward in events])
        self.center = self.reward[:mapped].mean()
        self.mean, self.deviation = np.zeros(self.x.shape[1]), np.ones(self.x.shape[1])
        self.mean[NUMERIC] = self.x[:mapped, NUMERIC].mean(axis=0)
        self.deviation[NUMERIC] = self.x[:mapped, NUMERIC].std(axis=0)
        self.z = np.array([self.at(x) for x in self.x])

    def at(self, x: FloatArray) -> FloatArray:
        return np.array([1.0, *((x - self.mean) / self.deviation)])

    def theta(self, arm: int) -> FloatArray:
        rows = self.arm == arm
        doubt = np.sqrt(RIDGE) * np.eye(self.z.shape[1])
        left = np.vstack([self.z[rows], doubt])
        right = np.append(self.reward[rows] - self.center, np.zeros(len(doubt)))
        return np.array(np.linalg.lstsq(left, right)[0])

    def matrix(self, arm: int) -> FloatArray:
        z = self.z[self.arm == arm]
        result: FloatArray = z.T @ z + RIDGE * np.eye(z.shape[1])
        return result

    def assert_same(self, model: LinearModel, context: Mapping[str, Any]) -> None:
        z = model.standardised(model.vector(context))
        own = self.at(POLICY.features.encode(context))
        np.testing.assert_allclose(z, own, rtol=1e-9, atol=1e-9)
        means = [self.center + own @ self.theta(arm) for arm in range(3)]
        np.testing.assert_allclose(model.means(z), means, rtol=1e-9)
        variances = [own @ np.linalg.solve(self.matrix(arm), own) for arm in range(3)]
        np.testing.assert_allclose(model.variances(z), variances, rtol=1e-9)
        assert model.residual_deviation == pytest.approx(self.residual_deviation(), rel=1e-9)

    def residual_deviation(self) -> float:
        rss, used = 0.0, 0.0
        for arm in range(3):
            rows = self.arm == arm
            left = self.reward[rows] - self.center - self.z[rows] @ self.theta(arm)
            rss += float(left @ left)
            inverse = np.linalg.inv(self.matrix(arm))
            used += float(np.trace(inverse @ (self.matrix(arm) - RIDGE * np.eye(len(inverse)))))
        spread = float(self.reward.var())
        return float(np.sqrt((rss + spread) / (len(self.reward) - used + 1.0)))


def test_sums_about_a_pivot_are_a_ridge_regression_on_standardised_data() -> None:
    events = some_events(300)
    expected, model = Expected(events), fitted(events)
    for _, context, _ in some_events(10, seed=1):
        expected.assert_same(model, context)


def test_the_order_of_the_sums_does_not_matter() -> None:
    events = some_events(100)
    z = np.ones(POLICY.features.dimension + 1)
    there, back = fitted(events), fitted(events[::-1])
    np.testing.assert_allclose(there.means(z), back.means(z), rtol=1e-10)


def test_a_drifting_feature_does_no_harm() -> None:
    """The pivot is far from all values; standardising as they come would be ten times worse."""
    features = Features.parse({"time": {"indicator": False}})
    policy, rng = LinThompsonPolicy(features), np.random.default_rng(3)
    total = Total()
    for n in range(2000):
        time = 50.0 + 0.1 * n + rng.normal()
        made = Decision("id", "b", 1, "arm0", None, "v", 0.0, {"time": time})
        total.add(policy.on_decision(made))
        total.add(policy.on_reward(made, 0.01 * time + rng.normal(0, 0.1)))
    model = LinearModel(features, 1.0, stats_of(policy, ("arm0",), total))
    times = np.linspace(60.0, 260.0, 50)
    found = [
        model.means(model.standardised(model.vector({"time": float(time)})))[0] for time in times
    ]
    assert float(np.sqrt(np.mean((np.array(found) - 0.01 * times) ** 2))) < 0.01


# Learning in place


def test_learning_in_place_is_a_regression_with_the_map_of_the_last_fit() -> None:
    events = some_events(55)
    model = fitted(events[:40])
    for event in events[40:]:
        for delta in deltas_of(event):
            model.learn(delta)
    expected = Expected(events, mapped=40)
    for _, context, _ in some_events(5, seed=1):
        expected.assert_same(model, context)


def test_late_rewards_are_learned_in_place_too() -> None:
    events = some_events(55)
    model = fitted(events[:40])
    deltas = [deltas_of(event) for event in events[40:]]
    for made, _ in deltas:
        model.learn(made)
    for _, earned in deltas:
        model.learn(earned)
    Expected(events, mapped=40).assert_same(model, events[0][1])


def test_the_map_is_renewed_as_the_sums_grow() -> None:
    """From 1,000 decisions to 1,501: more than are kept waiting, and half as many again."""
    events = some_events(1501)
    model = fitted(events[:1000])
    for event in events[1000:]:
        arm, context, reward = event
        model.learn_at(arm, model.vector(context), reward)
        assert len(model._waiting) <= 256
    assert model.decisions == 1501
    Expected(events).assert_same(model, events[0][1])


def test_both_ways_to_learn_are_the_same() -> None:
    by_delta, by_row = fitted([]), fitted([])
    for arm, context, reward in some_events(60):
        value = reward if arm else 0.0
        made = Decision("id", "b", 1, ARMS[arm], None, "v", 0.0, context)
        by_delta.learn(POLICY.on_mature(made, value))
        by_row.learn_at(arm, by_row.vector(context), value)
    z = np.ones(POLICY.features.dimension + 1)
    np.testing.assert_allclose(by_delta.means(z), by_row.means(z), rtol=1e-10)
    np.testing.assert_allclose(by_delta.variances(z), by_row.variances(z), rtol=1e-10)
    assert by_delta.residual_deviation == pytest.approx(by_row.residual_deviation, rel=1e-9)


def test_what_a_choice_has_worked_out_is_used_for_that_choice_only() -> None:
    events = some_events(60)
    plain, asked = fitted(events[:48]), fitted(events[:48])  # no new map until 72
    other = asked.vector(events[0][1])
    for number, (arm, context, value) in enumerate(events[48:]):
        plain.learn_at(arm, plain.vector(context), value)
        y = asked.vector(context)
        asked.variances(asked.standardised(y))
        if number % 3 == 1:  # another choice comes between
            asked.variances(asked.standardised(other))
        if number % 3 == 2:  # and another one is learned
            asked.learn_at(arm, other, 0.5)
            plain.learn_at(arm, other, 0.5)
            asked.variances(asked.standardised(y))
        if number % 4 == 3:
            asked.learn_at(arm, y, value)
            plain.learn_at(arm, y, value)
        asked.learn_at(arm, y, value)
        z = plain.standardised(y)
        assert asked.means(z) == pytest.approx(plain.means(z), rel=1e-12)
        assert asked.variances(z) == pytest.approx(plain.variances(z), rel=1e-12)
    assert asked.residual_deviation == pytest.approx(plain.residual_deviation, rel=1e-12)


def test_other_arms_and_arrays_are_passed_over() -> None:
    events = some_events(40)
    model, z = fitted(events), np.ones(POLICY.features.dimension + 1)
    before = model.means(z), model.variances(z), model.residual_deviation
    other = LinThompsonPolicy({"age": "numeric"})
    unknown = Decision("id", "b", 1, "new", None, "v", 0.0, {"age": 50.0})
    model.learn(POLICY.on_mature(unknown, 1.0))
    model.learn(other.on_decision(Decision("id", "b", 1, "arm1", None, "v", 0.0, {"age": 50.0})))
    np.testing.assert_array_equal(model.means(z), before[0])
    np.testing.assert_array_equal(model.variances(z), before[1])
    assert model.residual_deviation == before[2]


def test_learning_in_place_leaves_the_statistics_alone() -> None:
    stats = stats_of(POLICY, ARMS, total_of(some_events(40)))
    before = {name: array.copy() for name, array in stats.arrays.items()}
    model = LinearModel(POLICY.features, RIDGE, stats)
    for event in some_events(40, seed=5):
        for delta in deltas_of(event):
            model.learn(delta)
    for name, array in stats.arrays.items():
        np.testing.assert_array_equal(array, before[name])


# Ends of the scale


def test_nothing_is_known_without_data() -> None:
    model = LinearModel(POLICY.features, RIDGE, Stats.from_counts(ARMS, {}))
    z = model.standardised(model.vector({"age": 50.0}))
    np.testing.assert_array_equal(model.means(z), np.zeros(3))
    np.testing.assert_array_equal(model.variances(z), np.full(3, z @ z / RIDGE))
    assert model.residual_deviation == 0.0
    assert model.decisions == 0.0


def test_an_arm_without_data_is_taken_to_be_like_the_others() -> None:
    model = fitted([event for event in some_events(300) if event[0] < 2])
    z = model.standardised(model.vector({"age": 45.0, "country": "de", "income": 3000.0}))
    means = model.means(z)
    assert means[2] == pytest.approx(np.mean([e[2] for e in some_events(300) if e[0] < 2]))
    assert model.variances(z)[2] > 5 * model.variances(z)[:2].max()


@pytest.mark.parametrize("constant", [0.0, 7.0, 1e12, -3e-9, 1e49])
def test_a_column_that_never_varies_is_left_out(constant: float) -> None:
    events = [
        (arm, {**context, "income": constant}, reward) for arm, context, reward in some_events(60)
    ]
    model = fitted(events)
    usual, other = (
        model.standardised(model.vector({"age": 45.0, "income": income}))
        for income in (constant, constant + 5.0)
    )
    np.testing.assert_array_equal(usual, other)
    assert np.isfinite(model.means(usual)).all()


def test_numbers_next_to_zero_are_left_out() -> None:
    """Were they measured in their deviation, one of usual size would have no finite square."""
    features = Features.parse({"tiny": {"indicator": False}})
    policy, total = LinThompsonPolicy(features), Total()
    for n, (arm, _, reward) in enumerate(some_events(60)):
        made = Decision("id", "b", 1, ARMS[arm], None, "v", 0.0, {"tiny": n * 1e-140})
        total.add(policy.on_mature(made, reward))
    model = LinearModel(features, 1.0, stats_of(policy, ARMS, total))
    z = model.standardised(model.vector({"tiny": 1e49}))
    assert z.tolist() == [1.0, 0.0]


def test_numbers_of_any_size_are_measured_in_their_deviation() -> None:
    small = some_events(200)
    large = [(arm, {**c, "income": 1e12 * c["income"]}, reward) for arm, c, reward in small]
    means = []
    for events in (small, large):
        model = fitted(events)
        means.append(model.means(model.standardised(model.vector(events[0][1]))))
    np.testing.assert_allclose(means[0], means[1], rtol=1e-6)


def test_what_rounding_made_indefinite_is_inverted_all_the_same() -> None:
    values, vectors = np.array([-1e-7, 1.0, 1e8]), np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2)
    matrix = vectors.Q @ np.diag(values) @ vectors.Q.T
    (inverse,) = _inverses(matrix[None], 0.5)
    np.testing.assert_allclose(np.linalg.eigvalsh(inverse), [1e-8, 1.0, 2.0], rtol=1e-6)
