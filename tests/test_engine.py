"""Decide and commit, on the reference storage and on one that counts its calls."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from flask_bandit.bandits import Bandit, EpsilonGreedyBandit, Exp3Bandit
from flask_bandit.engine import Engine
from flask_bandit.errors import StorageError
from flask_bandit.hashing import hash_decision, reward_id
from flask_bandit.model import Decision, Reward
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import Commit, CommitResult


class Counting(MemoryBanditStorage):
    """Notes each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        self.calls["commit"] += 1
        return super().commit(commit, timeout)

    def read_counts(self, timeout: float | None = None) -> Any:
        self.calls["read_counts"] += 1
        return super().read_counts(timeout)

    def get_decisions(self, ids: Any, timeout: float | None = None) -> Any:
        self.calls["get_decisions"] += 1
        return super().get_decisions(ids, timeout)


def with_arms(bandit: Bandit, *arms: str) -> Bandit:
    for arm in arms:
        bandit.add_arm(arm)
    return bandit


def make_engine(bandit: Bandit | None = None, **options: Any) -> Engine:
    bandit = bandit or with_arms(Bandit(), "a", "b", "c")
    return Engine(Counting(), {"btn": bandit}, **{"stats_ttl": 60.0, **options})


def decide(engine: Engine, visitor: str = "v", **options: Any) -> Decision:
    decision = engine.decide("btn", visitor, engine.attempt(), **options)
    assert decision is not None
    return decision


def reward_for(decision: Decision, value: float = 1.0, **changes: Any) -> Reward:
    fields = {
        "id": reward_id(decision.id),
        "decision_id": decision.id,
        "bandit": decision.bandit,
        "version": decision.version,
        "arm": decision.arm,
        "value": value,
        "at": decision.at,
    }
    return Reward(**{**fields, **changes})


def test_an_id_and_its_number_come_from_one_hash() -> None:
    first = hash_decision("v", "btn", 1, 0)
    assert first == hash_decision("v", "btn", 1, 0)
    others = [("w", "btn", 1, 0), ("v", "btm", 1, 0), ("v", "btn", 2, 0), ("v", "btn", 1, 1)]
    assert len({first, *(hash_decision(*other) for other in others)}) == 5
    assert len(first[0]) == 32


def test_the_numbers_are_uniform() -> None:
    """Chi-square over 100 cells of 100,000 ids: one fixed input, so it cannot flicker.

    An alarm at 149.4 has a rate of 1e-3 for a fresh input.
    """
    cells = Counter(int(hash_decision(str(n), "btn", 1, 0)[1] * 100) for n in range(100_000))
    assert sum((count - 1000) ** 2 / 1000 for count in cells.values()) < 149.4


def test_the_same_visitor_draws_the_same_arm() -> None:
    engine = make_engine()
    first, again = decide(engine), decide(engine)
    assert (first.id, first.arm) == (again.id, again.arm)
    assert decide(engine, reassigned=1).id != first.id


def test_the_draw_follows_the_probabilities() -> None:
    """1,000 visitors on epsilon .4 and a known best arm: fixed ids, so it cannot flicker."""
    engine = make_engine(with_arms(EpsilonGreedyBandit(0.4, floor=0.0), "a", "b"))
    best = decide(engine, "first")
    engine.commit([best], [reward_for(best)], engine.attempt())
    drawn = Counter(decide(engine, f"v{n}").arm for n in range(1000))
    assert decide(engine).propensities == pytest.approx(
        {arm: 0.8 if arm == best.arm else 0.2 for arm in "ab"}
    )
    # 5 standard deviations of a binomial with p = .8.
    assert abs(drawn[best.arm] - 800) < 64


def test_a_commit_is_one_call_and_counts_once_however_often_it_is_sent() -> None:
    engine = make_engine()
    decisions = [decide(engine, f"v{n}") for n in range(3)]
    rewards = [reward_for(decision) for decision in decisions]
    for _ in range(3):
        assert engine.commit(decisions, rewards, engine.attempt()) is not None
    stats = engine.stats()["btn"]
    assert sum(arm.pulls for arm in stats.values()) == 3
    assert sum(arm.reward for arm in stats.values()) == 3.0
    storage: Any = engine.storage
    assert storage.calls == {"commit": 3, "read_counts": 2}


def test_an_engine_decides_on_its_own_commits_between_two_reads() -> None:
    engine = make_engine(with_arms(EpsilonGreedyBandit(0.0, floor=0.0), "a", "b"))
    first = decide(engine)
    engine.commit([first], [reward_for(first)], engine.attempt())
    assert decide(engine, "w").propensities == pytest.approx(
        {arm: float(arm == first.arm) for arm in "ab"}
    )
    storage: Any = engine.storage
    assert storage.calls["read_counts"] == 1


def test_another_engine_s_commits_are_seen_after_the_ttl() -> None:
    storage = MemoryBanditStorage()
    engines = [
        Engine(storage, {"btn": with_arms(EpsilonGreedyBandit(0.0, floor=0.0), "a", "b")},
               stats_ttl=ttl)
        for ttl in (0.0, 60.0)
    ]  # fmt: skip
    for engine in engines:
        decide(engine)
    first = decide(engines[0])
    engines[0].commit([first], [reward_for(first)], engines[0].attempt())
    fresh = {arm: float(arm == first.arm) for arm in "ab"}
    assert decide(engines[0], "w").propensities == pytest.approx(fresh)
    assert decide(engines[1], "w").propensities == pytest.approx({"a": 0.5, "b": 0.5})


def test_a_policy_that_needs_the_stored_decision_gets_it_with_one_read() -> None:
    engine = make_engine(with_arms(Exp3Bandit(0.5), "a", "b"))
    decision = decide(engine)
    assert decision.propensities is not None
    engine.commit([decision], [], engine.attempt())
    engine.commit([], [reward_for(decision)], engine.attempt())
    storage: Any = engine.storage
    assert storage.calls["get_decisions"] == 1
    counts = storage.read_counts()[decision.key][decision.arm]
    assert counts["exp3_gain"] == pytest.approx(1.0 / decision.propensities[decision.arm])


def test_a_reward_parked_before_its_decision_is_learned_when_it_comes() -> None:
    engine = make_engine(with_arms(Exp3Bandit(0.5), "a", "b"))
    decision = decide(engine)
    assert decision.propensities is not None
    result = engine.commit([], [reward_for(decision)], engine.attempt())
    assert result is not None
    assert result.parked == {reward_id(decision.id)}
    for _ in range(2):
        engine.commit([decision], [], engine.attempt())
    counts = engine.storage.read_counts()[decision.key][decision.arm]
    assert (counts["pulls"], counts["rewards"]) == (1, 1)
    assert counts["exp3_gain"] == pytest.approx(1.0 / decision.propensities[decision.arm])


def test_a_reward_goes_to_the_arm_that_was_stored_first() -> None:
    engine = make_engine()
    stored = decide(engine)
    engine.commit([stored], [], engine.attempt())
    wrong = next(arm for arm in "abc" if arm != stored.arm)
    engine.commit([], [reward_for(stored, arm=wrong)], engine.attempt())
    stats = engine.stats()["btn"]
    assert (stats[stored.arm].rewards, stats[wrong].rewards) == (1, 0)


def test_any_order_of_commits_gives_the_same_counts() -> None:
    """Addition commutes: 20 shuffles of decisions and rewards, sent twice each."""
    reference = make_engine()
    decisions = [decide(reference, f"v{n}") for n in range(20)]
    sends: list[tuple[list[Decision], list[Reward]]] = [([d], []) for d in decisions]
    sends += [([], [reward_for(d, 0.5)]) for d in decisions]
    seen = []
    for seed in range(20):
        engine = make_engine()
        shuffled = sends * 2
        random.Random(seed).shuffle(shuffled)
        for batch in shuffled:
            engine.commit(*batch, engine.attempt())
        seen.append(engine.stats())
    assert all(stats == seen[0] for stats in seen)
    assert sum(arm.rewards for arm in seen[0]["btn"].values()) == 20


def test_an_error_in_a_policy_is_not_taken_for_an_outage() -> None:
    class Broken(Bandit):
        def draw_table(self, counts: Any, **options: Any) -> Any:
            raise ZeroDivisionError

    engine = make_engine(with_arms(Broken(), "a"))
    with pytest.raises(ZeroDivisionError):
        engine.decide("btn", "v", engine.attempt())
    assert not engine.is_storage_down


def test_reading_stats_from_a_broken_storage_is_a_storage_error() -> None:
    engine = make_engine()

    def broken(timeout: float | None = None) -> Any:
        raise OSError("disk on fire")

    engine.storage.read_counts = broken  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="disk on fire"):
        engine.stats()
