"""Which decisions a model learns from, and which judge it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from flask_bandit.bandits import Bandit
from flask_bandit.counting import is_for_evaluation
from flask_bandit.features import Features
from flask_bandit.learning.data import (
    GRACE,
    HeldOut,
    LogPart,
    TrainingData,
    mature_until,
    public_features,
)
from flask_bandit.model import BanditKey
from flask_bandit.storage import MemoryBanditStorage
from tests.clock import Clock

from .shop import ARMS, make_bandit, write_log


def part(storage: MemoryBanditStorage, version: int = 1, since: float = 0.0, **options: Any) -> Any:
    bandit = make_bandit(**options)
    return LogPart(storage, bandit, "offer", version, since, mature_until(bandit))


def ids(batches: Any) -> list[str]:
    return [id_ for batch in batches for id_ in batch.ids]


def test_each_decision_is_in_one_part() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 1000, 1)
    log = part(storage, evaluation=0.2)
    learned, judged = ids(TrainingData(log)), ids(HeldOut(log, 0))
    assert not set(learned) & set(judged)
    assert len(learned) + len(judged) == 1000
    # A coin of .2 a thousand times: 5 standard errors.
    assert 136 < len(judged) < 264
    by_id = {entry.decision.id: entry.decision for entry in storage.iter_log("offer")}
    assert all(is_for_evaluation(log.bandit.options, by_id[id_]) for id_ in judged)


def test_a_subject_is_in_one_part() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 1000, 1, subjects=40)
    log = part(storage)
    learned = {name for batch in TrainingData(log) for name in batch.clusters}
    judged = {name for batch in HeldOut(log, 0) for name in batch.clusters}
    assert learned
    assert judged
    assert not learned & judged


def test_nothing_is_kept_apart_without_a_share() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 50, 1)
    log = part(storage, evaluation=0.0)
    assert (len(ids(TrainingData(log))), ids(HeldOut(log, 0))) == (50, [])


def test_other_versions_are_another_experiment() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 50, 1)
    write_log(storage, 30, 2, version=2)
    assert len(ids(TrainingData(part(storage, evaluation=0.0)))) == 50
    assert len(ids(TrainingData(part(storage, version=2, evaluation=0.0)))) == 30


def test_open_windows_are_not_read(clock: Clock) -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 40, 1, at=clock.now)
    clock.now += 600.0 + GRACE - 1.0
    log = part(storage, evaluation=0.0, reward_window=600.0)
    assert ids(TrainingData(log)) == []
    clock.now += 2.0
    assert len(ids(TrainingData(part(storage, evaluation=0.0, reward_window=600.0)))) == 40


def test_rewards_after_the_window_do_not_count(clock: Clock) -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 200, 1, at=clock.now)
    clock.now += 3600.0
    counts = storage.read_counts()[BanditKey("offer", 1)]
    earned = sum(row.get("reward", 0.0) for row in counts.values())
    data = TrainingData(part(storage, evaluation=0.0, reward_window=60.0))
    ids(data)
    assert data.mean == pytest.approx(earned / 200)
    assert data.variance == pytest.approx(data.mean * (1.0 - data.mean))


def test_what_tells_nothing_is_left_out_and_counted() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 20, 1)
    write_log(storage, 5, 2, policy="forced")
    write_log(storage, 3, 3, propensities=None)
    data = TrainingData(part(storage, evaluation=0.0))
    assert len(ids(data)) == data.decisions == 20
    assert str(data.left) == "5 forced by a test, 3 without known probabilities"


def test_decisions_of_models_do_not_judge_the_policy_of_the_code() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 400, 1)
    write_log(storage, 400, 2, policy="model:1:linear", prefix="m")
    held_out = HeldOut(part(storage), 0)
    assert not any(id_.startswith("m") for id_ in ids(held_out))
    assert f"{held_out.of_models:,} made by models" in held_out.left_out
    assert 150 < held_out.of_models < 250
    # Against a model they do, since its probabilities are known.
    against = HeldOut(part(storage), 1)
    assert any(id_.startswith("m") for id_ in ids(against))
    assert against.left_out == "none"


def test_private_features_are_never_read() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 20, 1, at=time.time() - 7200.0)
    log = part(storage, evaluation=0.0, private=["age"], reward_window=60.0)
    data = TrainingData(log)
    assert data.features == Features.parse({"country": ["de", "fr"]})
    assert all(list(context or ()) == ["country"] for batch in data for context in batch.contexts)


def test_there_may_be_no_public_feature() -> None:
    assert public_features(Bandit()) is None
    only = make_bandit(features={"age": "numeric"}, private=["age"], reward_window=60.0)
    assert public_features(only) is None


def test_reading_can_be_ended() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 20, 1)

    def check() -> None:
        raise InterruptedError

    bandit = make_bandit()
    log = LogPart(storage, bandit, "offer", 1, 0.0, mature_until(bandit), check)
    with pytest.raises(InterruptedError):
        ids(TrainingData(log))


def test_the_arms_are_those_of_the_code() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 90, 1, arms=(*ARMS, "gone"))
    data = TrainingData(part(storage, evaluation=0.0))
    assert data.arms == ARMS
    assert 40 < len(ids(data)) < 90
    assert "of an arm that is gone" in str(data.left)


def test_what_was_erased_for_a_user_is_on_no_side() -> None:
    """Its coin was the user's, who is not known any more: tossed anew it might change sides."""
    storage = MemoryBanditStorage()
    write_log(storage, 400, 1, subjects=40)
    log = part(storage)
    learned, judged = ids(TrainingData(log)), ids(HeldOut(log, 0))
    storage.erase([*learned[:50], *judged[:50]])
    data, held_out = TrainingData(log), HeldOut(log, 0)
    assert ids(data) == learned[50:]
    assert ids(held_out) == judged[50:]
    assert data.left.unseen + held_out.left.unseen == 100
    assert "without a context" in held_out.left_out


def test_without_features_a_decision_needs_no_context() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 20, 1, context=None)
    bandit = Bandit()
    for arm in ARMS:
        bandit.add_arm(arm)
    log = LogPart(storage, bandit, "offer", 1, 0.0, mature_until(bandit))
    assert len(ids(TrainingData(log))) == 20


def test_an_earlier_policy_of_the_code_is_not_the_champion() -> None:
    storage = MemoryBanditStorage()
    write_log(storage, 400, 1)
    write_log(storage, 400, 2, policy="thompson()", prefix="t")
    held_out = HeldOut(part(storage), 0)
    assert not any(id_.startswith("t") for id_ in ids(held_out))
    assert held_out.left_out == f"{held_out.of_others} made by an earlier policy of the code"
    assert 150 < held_out.of_others < 250
    # All may be learned from, and may judge a model.
    assert any(id_.startswith("t") for id_ in ids(TrainingData(part(storage))))
    assert any(id_.startswith("t") for id_ in ids(HeldOut(part(storage), 1)))
