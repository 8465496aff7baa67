"""A policy that learns from its own choices, in a log of another's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from flask_bandit.algorithms import Policy, ThompsonPolicy
from flask_bandit.analysis.replaying import Replay, mean_of, replay, survey
from flask_bandit.bandits import Bandit
from flask_bandit.errors import ConfigurationError
from flask_bandit.model import Decision, FloatArray, LogEntry, Stats, StatsDelta, Term

from .ope_logs import entry

ARMS = ("a", "b", "c")
EVEN = dict.fromkeys(ARMS, 1 / 3)


class Mostly(Policy):
    """Learns nothing: 80 % of the second arm."""

    name = "mostly"

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        if len(stats.arms) == 1:
            return np.ones(1)
        rest = 0.2 / (len(stats.arms) - 1)
        return np.array([0.8 if place == 1 else rest for place in range(len(stats.arms))])


class BySign(Policy):
    """Contextual: the first arm where x is negative, else the second; and it keeps what it saw."""

    name = "by_sign"
    contextual = True
    arrays: tuple[tuple[str, int], ...] = (("x", 1),)
    learned: ClassVar[list[Decision]] = []
    seen: ClassVar[list[FloatArray]] = []

    def __init__(self, features: Any = None) -> None:
        self.features = features

    def prepare(self, stats: Stats) -> Any:
        self.seen.append(stats.arrays["x"])
        return self

    def propensities(self, context: Any, _: Any = None) -> FloatArray:  # type: ignore[override]
        return np.array([1.0, 0.0, 0.0] if context["x"] < 0 else [0.0, 1.0, 0.0])

    def on_decision(self, decision: Decision) -> StatsDelta:
        self.learned.append(decision)
        return super().on_decision(decision) + StatsDelta({}, (Term(decision.arm, "x", (1.0,)),))


def uniform(n: int, seed: int = 1) -> list[LogEntry]:
    """Return a uniform log: b earns 1 half of the time, the others a tenth."""
    rng = np.random.default_rng(seed)
    log = []
    for number in range(n):
        arm = ARMS[rng.integers(0, 3)]
        earned = float(rng.random() < (0.5 if arm == "b" else 0.1))
        log.append(entry(number, arm, EVEN, earned, context={"x": float(rng.normal())}))
    return log


def play(policy: Policy, log: list[LogEntry], **details: Any) -> Replay:
    bandit = Bandit(policy, floor=details.pop("floor", 0.0))
    return replay(bandit, log, survey(log, "reward"), "reward", **details)


def test_a_policy_that_does_not_learn_earns_what_it_earns() -> None:
    """Of 3,000 events a third is accepted; within 3.3 errors, so off by chance once in 1,000."""
    found = play(Mostly(), uniform(3000))
    assert abs(found.accepted - 1000) < 3.3 * 26
    assert found.reward is not None
    assert abs(found.reward.value - 0.42) < 3.3 * found.reward.error
    assert found.reward.error == pytest.approx((0.42 * 0.58 / found.accepted) ** 0.5, rel=0.1)
    assert found.shares["b"] == pytest.approx(0.8, abs=0.05)
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert found.curve[-1][:2] == (3000, found.accepted)
    assert found.curve[-1][2] == pytest.approx(found.reward.value)


def test_a_log_that_is_not_uniform_is_replayed_without_bias() -> None:
    """The logged policy shows b where it earns less. Within 3.3 errors: once in 1,000."""
    rng = np.random.default_rng(2)
    log = []
    for number in range(6000):
        is_rich = bool(rng.random() < 0.5)
        chances = {"a": 0.6, "b": 0.2, "c": 0.2} if is_rich else {"a": 0.2, "b": 0.6, "c": 0.2}
        arm = ARMS[rng.choice(3, p=list(chances.values()))]
        earned = float(rng.random() < {"a": 0.1, "b": 0.8 if is_rich else 0.2, "c": 0.1}[arm])
        log.append(entry(number, arm, chances, earned))
    found, known = play(Mostly(), log), survey(log, "reward")
    assert not known.is_uniform
    assert known.expected == pytest.approx(1200)
    assert abs(found.accepted - 1200) < 3.3 * 31
    assert found.reward is not None
    truth = 0.8 * (0.8 + 0.2) / 2 + 0.2 * 0.1
    assert abs(found.reward.value - truth) < 3.3 * found.reward.error
    agreed = [each for each in log if each.decision.arm == "b"]
    plain = float(np.mean([bool(each.rewards) for each in agreed]))
    assert abs(plain - 0.5) > 6 * found.reward.error


def test_a_policy_that_learns_finds_the_best_arm() -> None:
    found = play(ThompsonPolicy(), uniform(3000))
    assert found.shares["b"] > 0.8
    assert found.version == "thompson(prior=(1.0, 1.0))"
    assert found.reward is not None
    assert found.reward.value > 0.4
    points = [value for _, _, value in found.curve]
    assert points[-1] > points[2]


def test_it_learns_from_the_events_that_it_is_replayed_on_only() -> None:
    BySign.learned.clear()
    BySign.seen.clear()
    log = uniform(600)
    found = play(BySign({"x": "numeric"}), log, floor=0.3)
    assert len(BySign.learned) == found.accepted
    for decision in BySign.learned:
        assert decision.context is not None
        assert decision.propensities is not None
        # With what it was chosen by here, not by the policy that was logged.
        best = "a" if decision.context["x"] < 0 else "b"
        assert decision.propensities[best] == pytest.approx(0.8)
        assert decision.propensities["c"] == pytest.approx(0.1)
    # Prepared anew whenever it had learned.
    assert {each.shape for each in BySign.seen} == {(3, 1)}
    assert [each.sum() for each in BySign.seen[:-1]] == list(range(len(BySign.seen) - 1))
    assert len(BySign.seen) in (found.accepted, found.accepted + 1)


def test_the_same_seed_gives_the_same_numbers() -> None:
    log = uniform(400)
    assert play(ThompsonPolicy(), log) == play(ThompsonPolicy(), log)
    assert play(ThompsonPolicy(), log) != play(ThompsonPolicy(), log, seed=1)


def test_only_eligible_arms_are_drawn() -> None:
    log = [entry(number, arm, {"a": 0.5, "c": 0.5}) for number, arm in enumerate(["a", "c"] * 100)]
    log += [entry(number, "b", EVEN) for number in range(200, 400)]
    found = play(Mostly(), log)
    # m is a third, so of two arms an event has pi(a) times two thirds.
    assert found.accepted == pytest.approx(100 * (0.2 + 0.8) * 2 / 3 + 200 * 0.8, abs=40)
    only = [entry(number, arm, {arm: 0.5}) for number, arm in enumerate(["a", "c"] * 100)]
    assert survey(only, "reward").arms == ["a", "c"]
    assert play(Mostly(), only).accepted == pytest.approx(100, abs=25)


def test_what_cannot_be_replayed_is_left_out_and_counted() -> None:
    log = [
        *uniform(100),
        entry(901, "a", None),
        entry(902, "a", {"a": 1.0}, policy_version="forced"),
        entry(903, "a", {"a": 0.5, "b": 0.5, "c": 0.0}),
    ]
    found = survey(log, "reward")
    assert (found.events, found.certain) == (100, 1)
    assert (found.left.unknown, found.left.forced, found.left.total) == (1, 1, 2)
    assert play(Mostly(), log) == play(Mostly(), uniform(100))
    assert found.logged is not None
    assert found.is_uniform


def test_goals() -> None:
    found = survey(uniform(50), "sale")
    assert (found.reward, found.rewards, found.other_goals) == (0.0, 0, {"reward"})


def test_too_little_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"no decision .* can be replayed.* name a bandit that it has"
    ):
        play(Mostly(), [entry(1, "a", None)])
    chances = {"a": 0.999, "b": 0.001}
    log = [entry(number, "a", chances) for number in range(300)] + [entry(300, "b", chances)]
    with pytest.raises(ConfigurationError, match=r"of 301 events only about 0.3 .* 20,000 events"):
        play(Mostly(), log)


def test_a_reward_that_the_policy_cannot_learn_from_is_told() -> None:
    log = [entry(number, "a", {"a": 0.5}, 5.0) for number in range(60)]
    with pytest.raises(ConfigurationError, match=r"the event 'd\d+': the reward is 5.0"):
        play(ThompsonPolicy(), log)


def test_progress_is_told() -> None:
    told: list[int] = []
    log = uniform(70)
    play(Mostly(), log, progress=told.append)
    survey(log, "reward", told.append)
    assert sum(told) == 140


def test_the_interval_of_a_rate_has_a_width_when_nothing_was_earned() -> None:
    """The figures are those of Wilson's formula for 0 of 100, and of the normal one."""
    nothing = mean_of(100, 0.0, 0.0)
    assert nothing is not None
    assert (nothing.value, nothing.low) == (0.0, 0.0)
    assert nothing.high == pytest.approx(0.0370, abs=1e-4)
    half = mean_of(100, 50.0, 50.0)
    assert half is not None
    assert [half.low, half.high] == pytest.approx([0.4038, 0.5962], abs=1e-4)
    revenue = mean_of(100, 50.0, 90.0)
    assert revenue is not None
    assert revenue.high - revenue.value == pytest.approx(1.96 * (0.65 / 99) ** 0.5, rel=1e-4)
    assert mean_of(1, 1.0, 1.0) is None
