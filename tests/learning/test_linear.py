"""The ridge trainer and its model."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from flask_bandit.errors import ConfigurationError
from flask_bandit.learning.data import LogPart, TrainingData
from flask_bandit.learning.linear import LinearModel, RidgeTrainer
from flask_bandit.model import Stats
from flask_bandit.storage import MemoryBanditStorage

from .shop import ARMS, context_of, make_bandit, rate_of, write_log


def training(count: int = 2000, arms: tuple[str, ...] = ARMS, **options: Any) -> TrainingData:
    storage, bandit = MemoryBanditStorage(), make_bandit(**{"evaluation": 0.0, **options})
    write_log(storage, count, 1, arms=arms)
    return TrainingData(LogPart(storage, bandit, "offer", 1, 0.0, time.time()))


def chances(model: LinearModel, context: Any = None, arms: tuple[str, ...] = ARMS) -> Any:
    return model.propensities(Stats.from_counts(arms, {}), context)


def test_coefficients_are_those_of_a_ridge_on_standardised_features() -> None:
    data = training(600)
    model = RidgeTrainer(ridge=2.0).fit(data)
    (batch,) = list(data)
    assert data.features is not None
    rows = np.array([data.features.encode(context) for context in batch.contexts])
    numeric = data.features.numeric
    spread = np.where(numeric & (rows.std(axis=0) > 0.0), rows.std(axis=0), 1.0)
    scaled = (rows - np.where(numeric, rows.mean(axis=0), 0.0)) / spread
    y = np.column_stack([np.ones(len(rows)), scaled])
    for place in range(len(ARMS)):
        here = batch.arm == place
        theta = np.linalg.solve(
            y[here].T @ y[here] + 2.0 * np.eye(y.shape[1]),
            y[here].T @ (batch.reward[here] - batch.reward.mean()),
        )
        stored = np.array(model.dump()["coefficients"][place])
        predicted = stored[0] + rows @ stored[1:]
        assert predicted == pytest.approx(y @ theta + batch.reward.mean(), abs=1e-9)


def test_it_finds_the_visitors_of_each_arm() -> None:
    model, rng = RidgeTrainer(epsilon=0.1).fit(training()), np.random.default_rng(5)
    right = [
        ARMS[int(chances(model, context).argmax())] == max(ARMS, key=lambda a: rate_of(a, context))
        for context in (context_of(rng) for _ in range(300))
    ]
    assert np.mean(right) > 0.85


def test_units_of_a_feature_do_not_matter() -> None:
    data = training(500, features={"age": "numeric"})
    one = RidgeTrainer("softmax").fit(data)
    again = training(500, features={"age": {"low": 0, "high": 1000, "pivot": 30}})
    other = RidgeTrainer("softmax").fit(again)
    assert chances(one, {"age": 33.0}) == pytest.approx(chances(other, {"age": 33.0}), abs=1e-3)


@pytest.mark.parametrize("explore", ["epsilon_greedy", "softmax", "square_cb"])
def test_each_way_to_explore_gives_probabilities(explore: str) -> None:
    model = RidgeTrainer(explore, epsilon=0.3).fit(training(500))
    values = chances(model, {"age": 30.0, "country": "fr"})
    assert values.sum() == pytest.approx(1.0)
    assert values.min() > 0.0
    assert values.argmax() == 1
    assert explore in model.version


def test_ways_to_explore_are_what_they_say() -> None:
    values = np.array([[0.5], [0.3], [0.3]])
    greedy = chances(LinearModel(None, ARMS, values, "epsilon_greedy", 0.3))
    assert greedy == pytest.approx([0.8, 0.1, 0.1])
    square = chances(LinearModel(None, ARMS, values, "square_cb", 10.0))
    assert square == pytest.approx([0.6, 0.2, 0.2])
    soft = chances(LinearModel(None, ARMS, values, "softmax", 0.1))
    assert soft[0] / soft[1] == pytest.approx(np.exp(2.0))


def test_gamma_follows_the_decisions() -> None:
    assert "square_cb=38.7" in RidgeTrainer("square_cb").fit(training(500)).version


def test_an_arm_that_is_new_gets_an_equal_share_and_others_divide_the_rest() -> None:
    model = LinearModel(None, ("a", "b"), np.array([[0.5], [0.3]]), "epsilon_greedy", 0.2)
    assert chances(model, arms=("new", "b", "a")) == pytest.approx([1 / 3, 0.2 / 3, 1.8 / 3])
    assert chances(model, arms=("b",)) == pytest.approx([1.0])
    assert chances(model, arms=("new", "newer")) == pytest.approx([0.5, 0.5])


def test_an_arm_that_was_never_taken_is_new() -> None:
    model = RidgeTrainer().fit(training(300, arms=("trial", "bundle")))
    assert model.dump()["arms"] == ["trial", "bundle"]
    assert chances(model)[1] == pytest.approx(1 / 3)


def test_it_is_the_same_when_it_is_read() -> None:
    model = RidgeTrainer().fit(training(300))
    again = LinearModel.load(model.dump())
    context = {"age": 70.0, "country": "it"}
    assert (chances(again, context) == chances(model, context)).all()
    assert again.version == model.version


def test_it_needs_no_features() -> None:
    model = RidgeTrainer("softmax").fit(training(500, features={"age": "numeric"}, private=["age"],
                                                 reward_window=60.0))  # fmt: skip
    assert model.dump()["features"] is None
    assert (chances(model, {"age": 20.0}) == chances(model, {"age": 70.0})).all()


@pytest.mark.parametrize(
    "params",
    [
        {"explore": "greedy"},
        {"epsilon": 0.0},
        {"epsilon": 1.5},
        {"tau": float("nan")},
        {"gamma": -1.0},
        {"ridge": "much"},
    ],
)
def test_what_cannot_be_meant_is_an_error(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(params))):
        RidgeTrainer(**params)


def test_too_many_columns_are_an_error() -> None:
    with pytest.raises(ConfigurationError, match="hash texts to fewer"):
        RidgeTrainer().fit(training(10, features={"text": {"hashed": 3000}}))
