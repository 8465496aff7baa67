"""Models that need no features, frozen policies, and the documents of all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from flask_bandit.algorithms import CONTEXTUAL_POLICIES
from flask_bandit.analysis.logged import Logged
from flask_bandit.errors import ConfigurationError
from flask_bandit.learning.books import loaded
from flask_bandit.learning.data import LogPart, TrainingData
from flask_bandit.learning.fitted import FixedModel, PolicyModel
from flask_bandit.learning.linear import RidgeTrainer
from flask_bandit.learning.trainers import (
    FixedTrainer,
    PolicyTrainer,
    document_of,
    trainer_from,
)
from flask_bandit.model import FloatArray, Stats
from flask_bandit.storage import MemoryBanditStorage

from .shop import ARMS, make_bandit, window, write_log

STATS = Stats.from_counts(ARMS, {})
CONTEXTUAL = list(CONTEXTUAL_POLICIES)


def training(count: int = 500, **fields: Any) -> TrainingData:
    storage = MemoryBanditStorage()
    write_log(storage, count, 1, **fields)
    bandit = make_bandit(evaluation=0.0)
    return TrainingData(LogPart(storage, bandit, "offer", 1, 0.0, time.time()))


class Coin:
    """A fitted policy of an app: half for the first arm."""

    version = "coin"

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        values = np.full(len(stats.arms), 0.5 / (len(stats.arms) - 1))
        values[0] = 0.5
        return values

    def dump(self) -> dict[str, Any]:
        return {}

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> Coin:
        return cls()


class CoinTrainer:
    def __init__(self, sides: int = 2) -> None:
        self.sides = sides

    def fit(self, data: TrainingData) -> Coin:
        return Coin()


def test_a_fixed_model_is_the_same_for_everybody() -> None:
    model = FixedModel(ARMS, [0.6, 0.3, 0.1])
    assert model.propensities(STATS, {"age": 20.0}) == pytest.approx([0.6, 0.3, 0.1])
    some = Stats.from_counts(("bundle", "discount"), {})
    assert model.propensities(some) == pytest.approx([0.25, 0.75])
    none = FixedModel(ARMS, [1.0, 0.0, 0.0]).propensities(some)
    assert none == pytest.approx([0.5, 0.5])
    assert model.version == "fixed(trial=0.6)"


class Decisions:
    """Decisions that were not read from a log."""

    def __init__(self, *batches: Logged) -> None:
        self.arms, self._batches = ARMS, batches
        self.variance = float(np.concatenate([batch.reward for batch in batches]).var())

    def __iter__(self) -> Iterator[Logged]:
        return iter(self._batches)


def fixed(*batches: Logged) -> FixedModel:
    return FixedTrainer().fit(Decisions(*batches))  # type: ignore[arg-type]


def test_an_arm_that_got_the_easy_visitors_is_not_taken_for_a_good_one() -> None:
    """``trial`` is worth a little less to each; seeded, the gap of .05 is 3 standard errors."""
    rng = np.random.default_rng(3)
    easy = window(rng, 8000, (0.55, 0.6, 0.55), (0.8, 0.1, 0.1))
    hard = window(rng, 8000, (0.05, 0.1, 0.05), (0.1, 0.45, 0.45))
    reward, arm = np.append(easy.reward, hard.reward), np.append(easy.arm, hard.arm)
    plain = [reward[arm == place].mean() for place in range(len(ARMS))]
    assert plain.index(max(plain)) == 0
    assert fixed(easy, hard).propensities(STATS)[1] > 0.9


def test_fixed_shares_evenly_where_nothing_was_earned() -> None:
    batch = window(np.random.default_rng(3), 900, (0.0, 0.0, 0.0))
    assert fixed(batch).propensities(STATS) == pytest.approx([1 / 3] * 3, abs=0.05)


@pytest.mark.parametrize("algorithm", ["thompson", "exp3", "ucb1", *CONTEXTUAL])
def test_a_frozen_policy_is_the_same_when_it_is_read(algorithm: str) -> None:
    model = PolicyTrainer(algorithm).fit(training())
    document = json.loads(json.dumps(document_of(model)))
    again = loaded(document, "it")
    for context in ({"age": 20.0, "country": "de"}, {"age": 70.0, "country": "fr"}, None):
        mine = model.propensities(STATS, context)
        assert mine.sum() == pytest.approx(1.0)
        assert again.propensities(STATS, context) == pytest.approx(mine, abs=1e-12)
    assert again.version == model.version == f"frozen {algorithm}()"


@pytest.mark.parametrize("algorithm", CONTEXTUAL)
def test_a_frozen_contextual_policy_knows_the_visitors(algorithm: str) -> None:
    model = PolicyTrainer(algorithm).fit(training(3000))
    young = model.propensities(STATS, {"age": 20.0, "country": "de"})
    french = model.propensities(STATS, {"age": 20.0, "country": "fr"})
    assert [int(young.argmax()), int(french.argmax())] == [0, 1]


def test_a_frozen_policy_has_the_sums_of_the_log() -> None:
    model = PolicyTrainer("thompson", prior=(2.0, 2.0)).fit(training(300))
    counts = model.dump()["counts"]
    assert sum(row["pulls"] for row in counts.values()) == 300
    assert model.version == "frozen thompson(prior=(2.0, 2.0))"
    strange = Stats.from_counts(("new", *ARMS), {})
    assert model.propensities(strange)[0] == pytest.approx(0.25)
    assert isinstance(PolicyModel.load(json.loads(json.dumps(model.dump()))), PolicyModel)


def test_a_contextual_policy_needs_features() -> None:
    storage = MemoryBanditStorage()
    bandit = make_bandit(features={"age": "numeric"}, private=["age"], reward_window=60.0)
    data = TrainingData(LogPart(storage, bandit, "offer", 1, 0.0, time.time()))
    for algorithm in CONTEXTUAL:
        with pytest.raises(ConfigurationError, match="learns from features"):
            PolicyTrainer(algorithm).fit(data)


def test_trainers_are_found_by_name_path_or_as_they_are() -> None:
    assert isinstance(trainer_from("ridge", {"epsilon": 0.2})[0], RidgeTrainer)
    path = f"{__name__}:CoinTrainer"
    made, label = trainer_from(path, {"sides": 3})
    assert (type(made), label) == (CoinTrainer, path)
    mine = CoinTrainer()
    assert trainer_from(mine, {}) == (mine, path)


@pytest.mark.parametrize(
    ("trainer", "params", "message"),
    [
        ("rigde", {}, "did you mean 'ridge'"),
        ("ridge", {"epsilom": 0.1}, r"\['epsilom'\] do not fit .* it has: explore, epsilon"),
        ("nowhere:Trainer", {}, "cannot import"),
        (f"{__name__}:Coin", {}, r"is no trainer: name a class that has fit\(data\)"),
        ("os:system", {"command": "false"}, "is no trainer: name a class"),
        ("fixed", {"sides": 3}, r"do not fit .* it has: none"),
        (CoinTrainer(), {"sides": 3}, "is made already"),
        (3, {}, "is no trainer"),
    ],
)
def test_what_is_no_trainer_is_an_error(trainer: Any, params: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        trainer_from(trainer, params)


def test_a_model_of_the_app_is_named_by_its_path() -> None:
    document = document_of(Coin())
    assert document == {"kind": f"{__name__}:Coin", "params": {}}
    assert isinstance(loaded(document, "it"), Coin)
    with pytest.raises(ConfigurationError, match="is no fitted policy"):
        document_of(object())


def test_what_cannot_be_loaded_says_why() -> None:
    with pytest.raises(ConfigurationError, match=r"model 3 cannot be loaded: KeyError: 'arms'"):
        loaded({"kind": "flask_bandit.learning.fitted:FixedModel", "params": {}}, "model 3")
    with pytest.raises(ConfigurationError, match="cannot import"):
        loaded({"kind": "nowhere:Model", "params": {}}, "model 3")
