"""What policies learn from contexts, and the models that are deployed, inside the engine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flask_bandit.algorithms import LinThompsonPolicy, Policy
from flask_bandit.bandit import Bandit
from flask_bandit.breaker import Attempt
from flask_bandit.counting import learned_sums
from flask_bandit.engine import Engine
from flask_bandit.errors import ConfigurationError, StorageError
from flask_bandit.features import Features
from flask_bandit.hashing import reward_id
from flask_bandit.learned import model_key
from flask_bandit.model import (
    ArmArrays,
    Arrays,
    BanditKey,
    Decision,
    FloatArray,
    Reward,
    Stats,
    StatsDelta,
    Term,
)
from flask_bandit.storage import MemoryBanditStorage

KEY = BanditKey("offer", 1)


class Preferring(Policy):
    """Per arm the sum of contexts and of rewarded contexts; the larger product wins."""

    name = "preferring"
    contextual = True
    reward_needs_decision = True
    arrays = (("seen", 1), ("liked", 1))

    def __init__(self, features: Mapping[str, Any]) -> None:
        self.features = Features.parse(features)

    def params(self) -> dict[str, Any]:
        return {}

    def _x(self, context: Mapping[str, Any] | None) -> float:
        return float(self.features.encode(context)[0])

    def on_decision(self, decision: Decision) -> StatsDelta:
        term = Term(decision.arm, "seen", (self._x(decision.context),), outer=True)
        return super().on_decision(decision) + StatsDelta({}, (term,))

    def on_reward(self, decision: Decision, value: float) -> StatsDelta:
        term = Term(decision.arm, "liked", (value * self._x(decision.context),))
        return super().on_reward(decision, value) + StatsDelta({}, (term,))

    def prepare(self, stats: Stats) -> Prepared:
        self.prepared = getattr(self, "prepared", 0) + 1
        return Prepared(self, stats.arrays["liked"][:, 0])

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        return self.prepare(stats).propensities(context)


class Prepared:
    def __init__(self, policy: Preferring, liked: FloatArray) -> None:
        self.policy, self.liked = policy, liked

    def propensities(self, context: Mapping[str, Any] | None) -> FloatArray:
        scores = self.liked * self.policy._x(context)
        best = scores == scores.max()
        result: FloatArray = best / best.sum()
        return result


class Fixed:
    """A deployed model that always gives one arm."""

    version = "fixed"

    def __init__(self, arm: str) -> None:
        self.arm = arm

    @classmethod
    def load(cls, params: Mapping[str, Any]) -> Fixed:
        return cls(params["arm"])

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        return np.array([float(arm == self.arm) for arm in stats.arms])


def offer(**options: Any) -> Bandit:
    bandit = Bandit(Preferring({"x": {"indicator": False}}), **{"floor": 0.0, **options})
    for arm in ("a", "b"):
        bandit.add_arm(arm)
    return bandit


def engine_of(bandit: Bandit, storage: MemoryBanditStorage | None = None, **options: Any) -> Engine:
    options = {"learn_ttl": 0.0, "control_ttl": 0.0, **options}
    return Engine(storage or MemoryBanditStorage(), {"offer": bandit}, **options)


def decide(engine: Engine, visitor: str, context: Mapping[str, Any] | None) -> Decision:
    decision = engine.decide("offer", visitor, engine.attempt(), context=context)
    assert decision is not None
    return decision


def commit(engine: Engine, decision: Decision, reward: float | None = None) -> None:
    engine.commit([decision], [], engine.attempt())
    if reward is not None:
        engine.commit([], [earned(decision, reward)], engine.attempt())


def earned(decision: Decision, value: float) -> Reward:
    return Reward(reward_id(decision.id), decision.id, "offer", 1, decision.arm, value, decision.at)


def learned(engine: Engine) -> ArmArrays:
    return engine.storage.read_arrays().get(KEY, {})


def test_a_decision_and_its_reward_are_learned_with_the_context() -> None:
    engine = engine_of(offer())
    decision = decide(engine, "v", {"x": 3.0})
    assert decision.context == {"x": 3.0}
    commit(engine, decision, 2.0)
    arrays = learned(engine)[decision.arm]
    assert arrays["seen"].tolist() == [9.0]
    assert arrays["liked"].tolist() == [6.0]


@pytest.mark.parametrize("context", [{"x": 3.0}, None])
def test_a_reward_for_whom_was_erased_is_not_learned_with_another_context(
    context: dict[str, Any] | None,
) -> None:
    policy = LinThompsonPolicy({"x": "numeric"})
    bandit = Bandit(policy)
    bandit.add_arm("a")
    engine = engine_of(bandit)
    kept, gone = decide(engine, "v1", context), decide(engine, "v2", context)
    commit(engine, kept, 1.0)
    commit(engine, gone)
    before = learned(engine)["a"]
    assert engine.erase([gone.id], engine.attempt())
    engine.commit([], [earned(gone, 1.0)], engine.attempt())
    assert engine.stats()["offer"]["a"].rewards == 2
    after = learned(engine)["a"]
    assert {name: array.tolist() for name, array in after.items()} == {
        name: array.tolist() for name, array in before.items()
    }
    # Who was never asked for a context is learned from: all of it is missing.
    assert len(after) == 2


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_reward_is_learned_with_the_context_that_is_stored(is_stored: bool) -> None:
    """As of a visitor whose two windows draw the same arm at once, by different contexts."""
    engine = engine_of(offer())
    first = decide(engine, "v", {"x": 3.0})
    if is_stored:
        commit(engine, first)
    again = replace(first, context={"x": 5.0})
    result = engine.commit([again], [earned(again, 2.0)], engine.attempt())
    assert result is not None
    arrays = learned(engine)[first.arm]
    x = 3.0 if is_stored else 5.0
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "seen": [x * x],
        "liked": [2.0 * x],
    }
    assert engine.stats()["offer"][first.arm].rewards == 1


def test_what_was_learned_decides() -> None:
    engine = engine_of(offer())
    first = decide(engine, "v", {"x": 1.0})
    commit(engine, first, 1.0)
    other = "b" if first.arm == "a" else "a"
    for_more = engine.table("offer", engine.attempt(), {"x": 1.0})
    for_less = engine.table("offer", engine.attempt(), {"x": -1.0})
    assert for_more is not None
    assert for_less is not None
    assert for_more.propensities[first.arm] == 1.0
    assert for_less.propensities[other] == 1.0


def test_floor_and_weights_come_after_the_policy_as_ever() -> None:
    engine = engine_of(offer(floor=0.2))
    first = decide(engine, "v", {"x": 1.0})
    commit(engine, first, 1.0)
    table = engine.table("offer", engine.attempt(), {"x": 1.0})
    assert table is not None
    assert table.propensities[first.arm] == pytest.approx(0.9)
    assert list(table.stages) == ["policy", "floor"]
    engine.change("offer", "weights", {first.arm: None})
    table = engine.table("offer", engine.attempt(), {"x": 1.0})
    assert table is not None
    assert first.arm not in table.propensities


def test_a_worker_prepares_once_until_something_new_was_learned() -> None:
    bandit = offer()
    engine = engine_of(bandit)
    for n in range(5):
        decide(engine, f"v{n}", {"x": float(n)})
    assert bandit.policy.prepared == 1  # type: ignore[attr-defined]
    commit(engine, decide(engine, "v", {"x": 1.0}), 1.0)
    for n in range(5):
        decide(engine, f"v{n}", {"x": float(n)})
    assert bandit.policy.prepared == 2  # type: ignore[attr-defined]


def test_arrays_that_were_read_again_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(offer(), learn_ttl=3600.0)
    for n in range(3):
        commit(engine, decide(engine, f"v{n}", {"x": 1.0}))
    compared = []
    array_equal = np.array_equal

    def compare(one: FloatArray, other: FloatArray) -> bool:
        compared.append(one)
        return array_equal(one, other)

    monkeypatch.setattr(np, "array_equal", compare)
    for _ in range(2):
        engine._learned._read_at -= 3600.0
        decide(engine, "v", {"x": 1.0})
    # The second reading brought the same in other objects.
    assert compared
    compared.clear()
    decide(engine, "v", {"x": 1.0})
    assert not compared


class Counting(MemoryBanditStorage):
    reads = 0

    def read_arrays(self, timeout: float | None = None) -> Arrays:
        self.reads += 1
        return super().read_arrays(timeout)


def test_arrays_are_read_once_per_ttl() -> None:
    storage = Counting()
    engine = engine_of(offer(), storage, learn_ttl=3600.0)
    for n in range(5):
        commit(engine, decide(engine, f"v{n}", {"x": 1.0}))
    assert storage.reads == 1


class Hanging(MemoryBanditStorage):
    def __init__(self) -> None:
        super().__init__()
        self.asked, self.goes_on = threading.Event(), threading.Event()

    def read_arrays(self, timeout: float | None = None) -> Arrays:
        self.asked.set()
        assert self.goes_on.wait(10.0)
        return super().read_arrays(timeout)


def test_nobody_waits_longer_than_their_deadline_for_whoever_reads_first() -> None:
    storage = Hanging()
    engine = engine_of(offer(), storage)
    first = threading.Thread(target=decide, args=(engine, "v", None))
    first.start()
    assert storage.asked.wait(30.0)
    table = engine.table("offer", Attempt(0.05), {"x": 1.0})
    # It did not wait for the other one, whom nobody has let go on.
    assert first.is_alive()
    assert table is not None
    assert table.propensities == {"a": 0.5, "b": 0.5}
    storage.goes_on.set()
    first.join(30.0)
    assert not first.is_alive()


def test_a_bandit_without_contexts_reads_no_arrays() -> None:
    storage, bandit = Counting(), Bandit()
    bandit.add_arm("a")
    engine = Engine(storage, {"offer": bandit})
    assert engine.decide("offer", "v", engine.attempt()) is not None
    assert storage.reads == 0


def test_decisions_for_evaluation_are_counted_and_not_learned() -> None:
    engine = engine_of(offer(evaluation=0.5))
    decisions = [decide(engine, f"v{n}", {"x": 1.0}) for n in range(200)]
    for decision in decisions:
        commit(engine, decision, 1.0)
    counts = engine.read_counts()[KEY]
    assert sum(row["pulls"] for row in counts.values()) == 200
    assert sum(row["rewards"] for row in counts.values()) == 200
    seen = sum(row["seen"][0] for row in learned(engine).values())
    # 200 coins: outside these bounds in less than 1 of 10,000 choices of the ids, which are fixed.
    assert 72 < seen < 128
    assert sum(row["eval:pulls"] for row in counts.values()) == 200 - seen
    assert sum(row["eval:rewards"] for row in counts.values()) == 200 - seen
    sums = learned_sums(engine.bandits["offer"].options, counts, 0.0)
    assert sum(row["pulls"] for row in sums.values()) == seen
    assert sum(row["reward_sq"] for row in sums.values()) == seen


def test_what_was_learned_before_a_share_is_held_out_stays() -> None:
    storage = MemoryBanditStorage()
    engine = engine_of(offer(), storage)
    for n in range(50):
        commit(engine, decide(engine, f"v{n}", {"x": 1.0}), 1.0)
    later = engine_of(offer(evaluation=0.5), storage)
    for n in range(50):
        commit(later, decide(later, f"w{n}", {"x": 1.0}), 1.0)
    sums = learned_sums(later.bandits["offer"].options, later.read_counts()[KEY], 0.0)
    pulls = sum(row["pulls"] for row in sums.values())
    assert pulls == sum(row["seen"][0] for row in learned(later).values())
    assert 50 < pulls < 100


def test_all_decisions_of_a_known_user_are_for_evaluation_or_none() -> None:
    engine = engine_of(offer(evaluation=0.5))
    for user in range(20):
        for n in range(5):
            decision = engine.decide(
                "offer", f"{user}-{n}", engine.attempt(), subject=f"u{user}", context={"x": 1.0}
            )
            assert decision is not None
            commit(engine, decision)
        seen = sum(row.get("seen", [0.0])[0] for row in learned(engine).values())
        assert seen % 5 == 0
    assert 0 < seen < 100


def deployed(engine: Engine, number: int, document: Mapping[str, Any]) -> None:
    engine.storage.write_digest(model_key("offer", number), document, 0)
    engine.change("offer", "deploy", number)


def fixed(arm: str) -> dict[str, Any]:
    return {"kind": "tests.test_learned:Fixed", "params": {"arm": arm}}


def test_a_deployed_model_draws_and_is_named_in_the_log() -> None:
    engine = engine_of(offer())
    deployed(engine, 1, fixed("b"))
    decision = decide(engine, "v", {"x": 1.0})
    assert decision.arm == "b"
    assert decision.policy_version == "model:1:fixed"
    assert decision.propensities == {"a": 0.0, "b": 1.0}
    engine.change("offer", "deploy", 0)
    assert decide(engine, "v", {"x": 1.0}).policy_version == "preferring()"


def test_a_model_may_draw_for_a_bandit_without_contexts() -> None:
    bandit = Bandit()
    bandit.add_arm("a")
    bandit.add_arm("b")
    engine = engine_of(bandit)
    deployed(engine, 1, fixed("b"))
    decision = decide(engine, "v", None)
    assert decision.policy_version == "model:1:fixed"
    assert decision.propensities == pytest.approx({"a": 0.0025, "b": 0.9975})


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"kind": "no.such:Model", "params": {}},
        {"kind": "json:loads", "params": "1"},
        {"kind": "importlib:resources", "params": "x"},
        fixed(""),
    ],
)
def test_what_served_before_goes_on_where_a_model_cannot_be_had(
    document: dict[str, Any] | None, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(offer())
    deployed(engine, 1, fixed("b"))
    assert decide(engine, "v", {"x": 1.0}).policy_version == "model:1:fixed"
    if document is not None:
        engine.storage.write_digest(model_key("offer", 2), document, 0)
    engine.change("offer", "deploy", 2)
    with caplog.at_level(logging.ERROR):
        decisions = [decide(engine, f"v{n}", {"x": 1.0}) for n in range(5)]
    if document == fixed(""):
        # It can be loaded, and gives no probabilities.
        assert all(d.propensities == {"a": 0.5, "b": 0.5} for d in decisions)
        assert "roll it back" in caplog.text
        return
    assert {d.policy_version for d in decisions} == {"model:1:fixed"}
    assert len(caplog.records) == 1
    assert "roll back" in caplog.text


@pytest.mark.parametrize("is_contextual", [True, False])
def test_a_model_that_was_rolled_back_does_not_come_again(is_contextual: bool) -> None:
    bandit = offer()
    if not is_contextual:
        bandit = Bandit()
        bandit.add_arm("a")
        bandit.add_arm("b")
    engine = engine_of(bandit)
    deployed(engine, 1, fixed("b"))
    assert decide(engine, "v", None).policy_version == "model:1:fixed"
    engine.change("offer", "deploy", 0)
    assert decide(engine, "v", None).policy_version == bandit.policy_version
    # It is in no storage: what served before it is the policy of the code.
    engine.change("offer", "deploy", 2)
    assert decide(engine, "v", None).policy_version == bandit.policy_version


class Odd(Fixed):
    """A model whose arm says what is odd about it."""

    @property
    def version(self) -> str:  # type: ignore[override]
        if self.arm == "nameless":
            raise AttributeError("version")
        return "two\nlines" if self.arm == "lines" else self.arm

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        if self.arm == "fails":
            raise RuntimeError(self.arm)
        return [0.25, 0.75]  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["nameless", "lines"])
def test_a_model_without_a_version_that_can_be_logged_is_not_taken(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(offer())
    deployed(engine, 1, {"kind": "tests.test_learned:Odd", "params": {"arm": kind}})
    decision = decide(engine, "v", {"x": 1.0})
    assert decision.policy_version == "preferring()"
    assert "The model 1 of the bandit 'offer' cannot be loaded" in caplog.text
    commit(engine, decision, 1.0)
    assert not engine.is_storage_down


def test_a_model_may_return_a_list() -> None:
    engine = engine_of(offer())
    deployed(engine, 1, {"kind": "tests.test_learned:Odd", "params": {"arm": "list"}})
    assert decide(engine, "v", None).propensities == {"a": 0.25, "b": 0.75}


def test_a_model_that_fails_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = engine_of(offer())
    deployed(engine, 1, {"kind": "tests.test_learned:Odd", "params": {"arm": "fails"}})
    for n in range(5):
        assert decide(engine, f"v{n}", None).propensities == {"a": 0.5, "b": 0.5}
    (record,) = caplog.records
    assert "The model 1 of the bandit 'offer' failed" in record.getMessage()


class Flooring(Bandit):
    """A bandit with probabilities of its own, and a floor of its own."""

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        return np.array([0.9, 0.1])


def test_what_a_model_gives_to_a_bandit_with_a_rule_of_its_own_gets_the_floor() -> None:
    bandit = Flooring(floor=0.1)
    bandit.add_arm("a")
    bandit.add_arm("b")
    engine = engine_of(bandit)
    assert decide(engine, "v", None).propensities == pytest.approx({"a": 0.9, "b": 0.1})
    deployed(engine, 1, fixed("b"))
    assert decide(engine, "v", None).propensities == pytest.approx({"a": 0.05, "b": 0.95})


def test_a_model_that_comes_late_is_taken_when_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_bandit.learned.RETRY", 0.0)
    engine = engine_of(offer())
    engine.change("offer", "deploy", 1)
    assert decide(engine, "v", {"x": 1.0}).policy_version == "preferring()"
    engine.storage.write_digest(model_key("offer", 1), fixed("b"), 0)
    assert decide(engine, "v", {"x": 1.0}).policy_version == "model:1:fixed"


def test_while_the_storage_is_down_what_was_learned_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engine_of(offer(), stats_ttl=3600.0)
    first = decide(engine, "v", {"x": 1.0})
    commit(engine, first, 1.0)
    table = engine.table("offer", engine.attempt(), {"x": 1.0})

    def fail(timeout: float | None = None) -> Any:
        raise StorageError("away")

    monkeypatch.setattr(engine.storage, "read_arrays", fail)
    assert engine.table("offer", Attempt(1.0), {"x": 1.0}) == table
    assert engine.is_storage_down


def test_contextual_policies_cannot_forget() -> None:
    with pytest.raises(ConfigurationError, match="half_life is for policies without contexts"):
        offer(half_life="14d")


def test_features_are_those_of_the_policy() -> None:
    assert offer().features == Features.parse({"x": {"indicator": False}})
    with pytest.raises(ConfigurationError, match="different features"):
        offer(features={"y": "numeric"})


def test_private_features_need_a_window_and_a_name() -> None:
    with pytest.raises(ConfigurationError, match="reward_window, such as '1d'"):
        offer(private=["x"])
    with pytest.raises(ConfigurationError, match="'z', which is no feature"):
        offer(private=["z"], reward_window="1d")
    assert offer(private=["x"], reward_window="1d").options.private == ("x",)


def test_it_works_without_a_storage_too() -> None:
    bandit = offer()
    for _ in range(20):
        arm = bandit.suggest_arm(context={"x": 1.0})["id"]
        bandit.pull_arm(arm)
        bandit.reward_arm(arm, float(arm == "b"))
    assert bandit.suggest_arm(context={"x": 1.0})["propensity"] == 1.0
    assert bandit.suggest_arm(context={"x": 1.0})["id"] == "b"
    with pytest.raises(ConfigurationError, match="y"):
        bandit.suggest_arm(context={"y": 1.0})
