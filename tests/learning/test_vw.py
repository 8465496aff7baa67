"""VowpalWabbit as a trainer, on the real package."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from flask_bandit.errors import ConfigurationError
from flask_bandit.learning.books import loaded
from flask_bandit.learning.data import LogPart, TrainingData
from flask_bandit.learning.trainers import document_of
from flask_bandit.model import Stats
from flask_bandit.storage import MemoryBanditStorage

from .shop import ARMS, context_of, make_bandit, rate_of, write_log

pytest.importorskip("vowpalwabbit")

from flask_bandit.learning.vw import EXPLORE, VowpalTrainer

STATS = Stats.from_counts(ARMS, {})


@pytest.fixture(scope="module")
def data() -> TrainingData:
    storage = MemoryBanditStorage()
    write_log(storage, 2500, 1)
    part = LogPart(storage, make_bandit(evaluation=0.0), "offer", 1, 0.0, time.time())
    return TrainingData(part)


@pytest.mark.parametrize("explore", EXPLORE)
def test_it_finds_the_visitors_of_each_arm_and_is_the_same_when_read(
    explore: str, data: TrainingData
) -> None:
    model = VowpalTrainer(explore).fit(data)
    again = loaded(json.loads(json.dumps(document_of(model))), "it")
    rng, right = np.random.default_rng(5), []
    for context in (context_of(rng) for _ in range(200)):
        chances = model.propensities(STATS, context)
        assert chances.sum() == pytest.approx(1.0)
        assert again.propensities(STATS, context) == pytest.approx(chances, abs=1e-6)
        right.append(chances[ARMS.index(max(ARMS, key=lambda a: rate_of(a, context)))])
    # An even share would be a third.
    assert np.mean(right) > 0.55
    assert again.version == model.version
    assert explore in model.version


def test_arms_come_and_go(data: TrainingData) -> None:
    model = VowpalTrainer(amount=0.2).fit(data)
    context = {"age": 30.0, "country": "fr"}
    some = model.propensities(Stats.from_counts(("bundle", "new", "discount"), {}), context)
    assert some == pytest.approx([0.2 / 3, 1 / 3, 1.8 / 3], abs=1e-6)


def test_one_model_answers_many_threads(data: TrainingData) -> None:
    model = VowpalTrainer("bag").fit(data)
    contexts = [context_of(np.random.default_rng(seed)) for seed in range(40)]
    alone = [model.propensities(STATS, context) for context in contexts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda context: model.propensities(STATS, context), contexts * 5))
    assert np.allclose(alone * 5, together)


def test_rewards_of_any_size_are_costs_of_zero_to_one() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 800, 1)
    part = LogPart(storage, make_bandit(evaluation=0.0), "offer", 1, 0.0, time.time())
    small, large = TrainingData(part), _Scaled(TrainingData(part))
    context = {"age": 30.0, "country": "fr"}
    one = VowpalTrainer("squarecb").fit(small).propensities(STATS, context)
    other = VowpalTrainer("squarecb").fit(large).propensities(STATS, context)  # type: ignore[arg-type]
    assert one == pytest.approx(other, abs=1e-6)


class _Scaled:
    """The same decisions with rewards of -50 to 350."""

    def __init__(self, data: TrainingData) -> None:
        self.arms, self.features, self._data = data.arms, data.features, data

    def __iter__(self) -> Any:
        for batch in self._data:
            batch.reward[:] = 400.0 * batch.reward - 50.0
            yield batch


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"explore": "first"}, "known: egreedy, bag"),
        ({"amount": 0}, "a number above 0"),
        ({"explore": "bag", "amount": 2.5}, "a number of policies"),
        ({"passes": 0}, "passes is 0"),
        ({"bits": 40}, "bits is 40"),
    ],
)
def test_what_cannot_be_meant_is_an_error(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        VowpalTrainer(**params)
