"""Linear policies, against plain ridge regressions, closed forms and fine grids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_bandit.algorithms import (
    CONTEXTUAL_POLICIES,
    POLICIES,
    LinearPolicy,
    LinEpsilonGreedyPolicy,
    LinThompsonPolicy,
    LinUCBPolicy,
    PolicyProtocol,
    SquareCBPolicy,
)
from flask_bandit.errors import ConfigurationError
from flask_bandit.features import Features
from flask_bandit.model import Decision, FloatArray, Term
from flask_bandit.testing import PolicySuite
from flask_bandit.testing.policies import Total, check_propensities, names, stats_of

FEATURES: Mapping[str, Any] = {
    "age": {"low": 0, "high": 120, "pivot": 40},
    "country": ["de", "fr"],
    "income": "numeric",
    "words": {"hashed": 4},
}
CONTEXTS: tuple[Mapping[str, Any] | None, ...] = (
    {"age": 20, "country": "de", "income": 2500.0, "words": "to be or not"},
    {"age": 60, "country": "fr", "income": 3500.0, "words": ["a", "b"]},
    {},
    None,
    {"age": 1e12, "country": "it", "income": 1e12, "words": ""},
    {"income": -1e49},
)


class TestLinThompson(PolicySuite):
    contexts = CONTEXTS

    def make_policy(self) -> LinThompsonPolicy:
        return LinThompsonPolicy(FEATURES)


class TestLinUCB(PolicySuite):
    contexts = CONTEXTS

    def make_policy(self) -> LinUCBPolicy:
        return LinUCBPolicy(FEATURES)


class TestSquareCB(PolicySuite):
    contexts = CONTEXTS

    def make_policy(self) -> SquareCBPolicy:
        return SquareCBPolicy(FEATURES)


class TestLinEpsilonGreedy(PolicySuite):
    contexts = CONTEXTS

    def make_policy(self) -> LinEpsilonGreedyPolicy:
        return LinEpsilonGreedyPolicy(FEATURES)


SMALL: Mapping[str, Any] = {"age": {"indicator": False}, "country": ["de", "fr"]}
FAMILIES = tuple(CONTEXTUAL_POLICIES.values())


def learned(
    policy: LinearPolicy, events: Sequence[tuple[str, Mapping[str, Any] | None, float]]
) -> Total:
    """Return the sums of (arm, context, reward)."""
    total = Total()
    for arm, context, reward in events:
        made = Decision("id", "b", 1, arm, None, "v", 0.0, context)
        total.add(policy.on_mature(made, reward))
    return total


def some_events(
    counts: Sequence[int], seed: int = 0
) -> list[tuple[str, Mapping[str, Any] | None, float]]:
    """Return so many events of each arm."""
    rng = np.random.default_rng(seed)
    events: list[tuple[str, Mapping[str, Any] | None, float]] = []
    for arm, count in enumerate(counts):
        for _ in range(count):
            age = float(rng.normal(40, 15))
            context = {"age": age, "country": str(rng.choice(["de", "fr", "it"]))}
            events.append((f"arm{arm}", context, float(rng.normal(0.3 + 0.002 * age * arm, 0.5))))
    return events


def test_the_contextual_families_are_these() -> None:
    assert sorted(CONTEXTUAL_POLICIES) == [
        "lin_epsilon_greedy",
        "lin_thompson",
        "lin_ucb",
        "square_cb",
    ]
    assert not CONTEXTUAL_POLICIES.keys() & POLICIES.keys()
    for policy in FAMILIES:
        assert policy.contextual
        assert policy.reward_needs_decision
        assert isinstance(policy(SMALL), PolicyProtocol)
    assert not any(policy.contextual for policy in POLICIES.values())


# What is learned


def test_a_decision_adds_products_and_a_reward_its_vector() -> None:
    policy = LinUCBPolicy({"age": {"pivot": 40, "indicator": False}, "country": ["de"]})
    made = Decision("id", "b", 1, "green", None, "v", 0.0, {"age": 43, "country": "de"})
    (product,) = policy.on_decision(made).terms
    (reward,) = policy.on_reward(made, 2.0).terms
    schema = policy.features.schema
    assert product == Term("green", f"{schema}:xx", (1.0, 3.0, 1.0, 0.0), outer=True)
    assert reward == Term("green", f"{schema}:xr", (2.0, 6.0, 2.0, 0.0))
    assert policy.arrays == ((f"{schema}:xx", 10), (f"{schema}:xr", 4))
    assert policy.on_mature(made, 2.0).terms == (product, reward)
    assert policy.on_mature(made, 0.0).terms == (product,)
    assert policy.on_mature(made, 0.0).counts == {"green": {"pulls": 1}}


def test_a_pruned_decision_has_no_context_to_learn_from() -> None:
    policy = LinUCBPolicy(SMALL)
    made = Decision("id", "b", 1, "green", None, "v", 0.0, {"age": 43.0}).pruned()
    assert policy.on_reward(made, 2.0).terms == ()
    assert policy.on_reward(made, 2.0).counts["green"]["reward"] == 2.0


def test_a_missing_context_is_one_in_which_all_is_missing() -> None:
    policy = LinUCBPolicy(SMALL)
    terms = [
        policy.on_decision(Decision("id", "b", 1, "green", None, "v", 0.0, context)).terms
        for context in (None, {}, {"age": math.nan, "country": None})
    ]
    assert terms[0] == terms[1] == terms[2]


@settings(deadline=None)
@given(st.permutations(range(12)))
def test_increments_commute(order: list[int]) -> None:
    policy, events = LinThompsonPolicy(SMALL), some_events((4, 4, 4))
    there = learned(policy, events)
    again = learned(policy, [events[place] for place in order])
    for arm, row in there.arrays.items():
        for name, array in row.items():
            np.testing.assert_allclose(again.arrays[arm][name], array, rtol=1e-12)


# Probabilities


def models(
    policy: LinearPolicy, total: Total, context: Mapping[str, Any], k: int = 3
) -> tuple[FloatArray, FloatArray, float]:
    """Return the arms' means and deviations without scale, and the residual deviation."""
    model = policy.prepare(stats_of(policy, names(k), total)).model
    z = model.standardised(model.vector(context))
    return model.means(z), np.sqrt(model.variances(z)), model.residual_deviation


HERE: Mapping[str, Any] = {"age": 35.0, "country": "fr"}


def test_lin_ucb_takes_the_largest_bound() -> None:
    events = [*some_events((60, 60)), ("arm2", HERE, 0.2), ("arm2", HERE, 0.2)]
    taken = []
    for alpha in (0.0, 0.05, 0.25, 1.0):
        policy = LinUCBPolicy(SMALL, alpha)
        total = learned(policy, events)
        mean, deviation, _ = models(policy, total, HERE)
        expected = np.zeros(3)
        expected[(mean + alpha * deviation).argmax()] = 1.0
        stats = stats_of(policy, names(3), total)
        np.testing.assert_array_equal(policy.propensities(stats, HERE), expected)
        taken.append(int(expected.argmax()))
    assert 2 not in taken[:3]
    assert taken[3] == 2


def test_square_cb_is_its_closed_form() -> None:
    policy = SquareCBPolicy(SMALL, 2.0)
    total = learned(policy, some_events((30, 30, 40)))
    mean, _, _ = models(policy, total, HERE)
    best = int(mean.argmax())
    expected = 1.0 / (3 + 2.0 * math.sqrt(100) * (mean[best] - mean))
    expected[best] = 1.0 - sum(p for arm, p in enumerate(expected) if arm != best)
    found = policy.propensities(stats_of(policy, names(3), total), HERE)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("reward", [1.0, 1e9, 1e120])
def test_square_cb_leaves_no_arm_without_a_chance(reward: float) -> None:
    policy = SquareCBPolicy(SMALL, 1e9 - 1)
    total = Total()
    good = Decision("id", "b", 1, "arm0", None, "v", 0.0, HERE)
    bad = Decision("id", "b", 1, "arm1", None, "v", 0.0, HERE)
    total.add(policy.on_mature(good, reward), 10**12)
    total.add(policy.on_mature(bad, -reward), 10**12)
    found = policy.propensities(stats_of(policy, names(3), total), HERE)
    assert found.min() > 0.0
    assert found[0] > 0.99


def test_lin_epsilon_greedy_is_the_mixture() -> None:
    policy = LinEpsilonGreedyPolicy(SMALL, 0.3)
    total = learned(policy, some_events((30, 30, 30)))
    mean, _, _ = models(policy, total, HERE)
    expected = np.full(3, 0.1)
    expected[mean.argmax()] += 0.7
    found = policy.propensities(stats_of(policy, names(3), total), HERE)
    np.testing.assert_allclose(found, expected)


def winning(mean: FloatArray, deviation: FloatArray) -> FloatArray:
    """Return the winning probabilities by the midpoint rule on a fine grid."""
    low, high = (mean - 7 * deviation).min(), (mean + 7 * deviation).max()
    points = 40 * math.ceil((high - low) / deviation.min())
    step = (high - low) / points
    t = low + (np.arange(points) + 0.5) * step
    density = np.exp(-0.5 * ((t[:, None] - mean) / deviation) ** 2) / deviation
    density *= step / math.sqrt(2 * math.pi)
    below = np.maximum(density.cumsum(axis=0) - 0.5 * density, 1e-300)
    everyone = np.log(below).sum(axis=1)
    result: FloatArray = (density * np.exp(everyone[:, None] - np.log(below))).sum(axis=0)
    assert abs(result.sum() - 1.0) < 1e-4
    return result


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("counts", [(20, 20, 20), (60, 1, 60), (60, 60, 0), (0, 3, 90)])
@pytest.mark.parametrize("times", [1, 400])
def test_lin_thompson_is_exact_whatever_the_deviations(
    counts: Sequence[int], seed: int, times: int
) -> None:
    """Arms with 24,000 decisions beside one with none: deviations 50-fold apart and more."""
    policy, events = LinThompsonPolicy(SMALL), some_events(counts, seed)
    total = Total()
    for arm, context, reward in events:
        made = Decision("id", "b", 1, arm, None, "v", 0.0, context)
        total.add(policy.on_mature(made, reward), 1 if arm == "arm1" else times)
    mean, deviation, residual = models(policy, total, HERE)
    if times > 1 and counts[1] < 20:
        assert deviation.max() > 50 * deviation.min()
    expected = winning(mean, 0.5 * residual * deviation)
    found = policy.propensities(stats_of(policy, names(3), total), HERE)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_lin_thompson_does_not_mind_the_unit_of_the_reward() -> None:
    """Nor where it begins."""
    policy, events = LinThompsonPolicy(SMALL), some_events((40, 40, 3))
    found = []
    for unit, zero in ((1.0, 0.0), (1000.0, 0.0), (1e-6, 0.0), (10.0, 700.0)):
        scaled = [(arm, context, zero + unit * reward) for arm, context, reward in events]
        stats = stats_of(policy, names(4), learned(policy, scaled))
        found.append(policy.propensities(stats, HERE))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-6)
    assert found[0][3] > 0.05


@pytest.mark.parametrize("reward", [0.0, 0.1, 0.3, 1.0, 49.0])
def test_lin_thompson_is_even_while_all_rewards_are_equal(reward: float) -> None:
    policy = LinThompsonPolicy(SMALL)
    events = [(arm, context, reward) for arm, context, _ in some_events((40, 10, 1))]
    stats = stats_of(policy, names(4), learned(policy, events))
    np.testing.assert_array_equal(policy.propensities(stats, HERE), np.full(4, 0.25))


@pytest.mark.parametrize("family", FAMILIES)
def test_arms_of_which_nothing_is_known_are_alike(family: type[LinearPolicy]) -> None:
    policy = family(SMALL)
    total = learned(policy, some_events((200, 200)))
    for context in (HERE, None, {"age": 1e12}):
        found = policy.propensities(stats_of(policy, names(9), total), context)
        np.testing.assert_allclose(found[2:], found[2], rtol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_prepared_once_for_many_contexts(family: type[LinearPolicy]) -> None:
    policy = family(SMALL)
    stats = stats_of(policy, names(3), learned(policy, some_events((20, 30, 10))))
    prepared = policy.prepare(stats)
    for context in (HERE, None, {"age": 90.0}):
        np.testing.assert_array_equal(
            prepared.propensities(context), policy.propensities(stats, context)
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_learning_in_place_gives_what_a_new_fit_gives(family: type[LinearPolicy]) -> None:
    """At the 211th decision, when the map has just been renewed."""
    policy, events = family(SMALL), some_events((100, 80, 31))
    prepared = policy.prepare(stats_of(policy, names(3), Total()))
    for arm, context, reward in events:
        made = Decision("id", "b", 1, arm, None, "v", 0.0, context)
        prepared.learn(policy.on_mature(made, reward))
    again = policy.prepare(stats_of(policy, names(3), learned(policy, events)))
    for context in (HERE, None):
        np.testing.assert_allclose(
            prepared.propensities(context), again.propensities(context), atol=0.02
        )


numbers = st.one_of(st.none(), st.floats(), st.integers(-(10**60), 10**60), st.sampled_from([1e12]))
contexts = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={"age": numbers, "country": st.sampled_from(["de", "it", None]), "income": numbers,
                  "words": st.text(max_size=8)},
    ),
)  # fmt: skip
rewards = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-1e150, 1e150))
events = st.lists(st.tuples(st.sampled_from(names(3)), contexts, rewards), max_size=12)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(FAMILIES), events, contexts, st.permutations(names(4)))
def test_anything_gives_probabilities(
    family: type[LinearPolicy],
    given: list[tuple[str, Mapping[str, Any] | None, float]],
    context: Mapping[str, Any] | None,
    order: list[str],
) -> None:
    """Whatever was logged: they sum to 1, twice the same, and the arms' order does not matter."""
    policy = family(FEATURES)
    total = learned(policy, given)
    stats = stats_of(policy, names(4), total)
    first = check_propensities(policy, stats, context)
    np.testing.assert_array_equal(check_propensities(family(FEATURES), stats, context), first)
    other = check_propensities(policy, stats_of(policy, tuple(order), total), context)
    places = [order.index(arm) for arm in names(4)]
    np.testing.assert_allclose(other[places], first, atol=1e-6)


# Names and parameters


def test_the_version_is_short_and_names_the_features_by_their_hash() -> None:
    policy = LinThompsonPolicy(FEATURES)
    schema = policy.features.schema
    assert policy.version == f"lin_thompson(features='{schema}',ridge=1.0,scale=0.5)"
    assert policy.params() == {"features": schema, "ridge": 1.0, "scale": 0.5}
    other = LinThompsonPolicy({**FEATURES, "country": ["de", "fr", "it"]})
    assert other.version != policy.version
    assert {name for name, _ in other.arrays} & {name for name, _ in policy.arrays} == set()
    assert LinUCBPolicy(Features.parse(FEATURES)).features.schema == schema


@pytest.mark.parametrize(
    ("family", "parameter", "refused"),
    [
        (LinThompsonPolicy, "scale", [0, -1.0, math.nan, math.inf, "1", True, None, 10**400]),
        (LinUCBPolicy, "alpha", [-0.1, math.nan, math.inf, "1", True, None]),
        (SquareCBPolicy, "gamma", [0, -1.0, math.nan, math.inf, "1", True, None]),
        (LinEpsilonGreedyPolicy, "epsilon", [-0.1, 1.1, math.nan, "1", True, None]),
        (LinUCBPolicy, "ridge", [0, -1.0, math.nan, math.inf, "1", True, None]),
    ],
)
def test_parameters_that_cannot_be_meant(
    family: type[LinearPolicy], parameter: str, refused: Sequence[Any]
) -> None:
    for value in refused:
        with pytest.raises(ConfigurationError, match=f"^{parameter} is .*; write a "):
            family(SMALL, **{parameter: value})


def test_too_many_columns() -> None:
    assert LinUCBPolicy({"words": {"hashed": 256}}).features.dimension == 256
    with pytest.raises(ConfigurationError, match="make 257 columns, .* at most 256; declare fewer"):
        LinUCBPolicy({"words": {"hashed": 257}})
