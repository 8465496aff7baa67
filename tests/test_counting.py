"""Which sums things add to: order never matters, and only what shall teach the policy does."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_bandit import counting
from flask_bandit.algorithms import POLICIES, Exp3Policy, GaussianThompsonPolicy, ThompsonPolicy
from flask_bandit.bandits import Bandit, Exp3Bandit, GaussianThompsonBandit
from flask_bandit.counting import (
    BUCKETS_PER_HALF_LIFE,
    decision_delta,
    goal_stats,
    learned_sums,
    mature_delta,
    needs_decision,
    reward_delta,
)
from flask_bandit.engine import Engine
from flask_bandit.hashing import reward_id
from flask_bandit.model import (
    HELD_OUT,
    MERGED,
    ArmCounts,
    ArmStats,
    BanditKey,
    Counts,
    Decision,
    Reward,
    StatsDelta,
    add_counts,
)
from flask_bandit.options import Options
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.windows import GRACE, WindowCloser

from .clock import START, Clock

ARMS = ("a", "b", "c", "d")
WINDOW = 3600.0
HALF_LIFE = 172800.0
SPAN = 43200
MODES = {
    "plain": {},
    "window": {"reward_window": WINDOW},
    "half-life": {"half_life": HALF_LIFE},
    "both": {"reward_window": WINDOW, "half_life": HALF_LIFE},
}
EVERY_MODE = pytest.mark.parametrize("mode", MODES)
THOMPSON = ThompsonPolicy()


def decision(number: int = 0, arm: str = "a", at: float = START, **fields: Any) -> Decision:
    fields = {
        "propensities": {"a": 0.5, "b": 0.25, "c": 0.125, "d": 0.125},
        "policy_version": "p",
        **fields,
    }
    return Decision(f"d{number}{fields.pop('suffix', '')}", "btn", 1, arm, at=at, **fields)


def reward(of: Decision, value: float = 1.0, goal: str = "reward", late: float = 1.0) -> Reward:
    id_ = reward_id(of.id, goal)
    return Reward(id_, of.id, "btn", of.version, of.arm, value, of.at + late, goal)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Decision, list[Reward]]]:
    """Make decisions with what they earned; values whose sums of squares are exact."""
    made = []
    for number in range(draw(st.integers(1, 12))):
        suffix = draw(st.sampled_from(["", "", "", HELD_OUT]))
        arm = "a" if suffix else draw(st.sampled_from(ARMS))
        at = START + draw(st.integers(0, 400_000))
        one = decision(number, arm, at, suffix=suffix)
        earned = [
            reward(one, draw(st.integers(-8, 8)) / 4, goal, draw(st.sampled_from([0, 60, 7200])))
            for goal in draw(st.lists(st.sampled_from(["reward", "order", "lead"]), unique=True))
        ]
        made.append((one, earned))
    return made


def deltas(options: Options, history: list[tuple[Decision, list[Reward]]]) -> Iterator[StatsDelta]:
    """Yield all increments of a history, those of closed windows too."""
    policy = Exp3Policy()
    for one, earned in history:
        yield decision_delta(policy, options, one)
        for given_reward in earned:
            yield reward_delta(policy, options, one, given_reward)
        if options.reward_window is not None and not one.is_held_out:
            total = sum(r.value for r in earned if r.goal == "reward" and r.at <= one.at + WINDOW)
            yield mature_delta(policy, options, one, total)


def summed(parts: list[StatsDelta]) -> dict[str, dict[str, float]]:
    total: dict[str, dict[str, float]] = {}
    for part in parts:
        add_counts(total, part)
    return total


@EVERY_MODE
@given(history=histories(), seed=st.integers(0, 99))
def test_increments_add_up_to_the_same_in_any_order(
    mode: str, history: list[tuple[Decision, list[Reward]]], seed: int
) -> None:
    parts = list(deltas(Options.parse(MODES[mode]), history))
    expected = summed(parts)
    random.Random(seed).shuffle(parts)
    assert summed(parts) == expected


def arrived(
    bandit: Bandit, history: list[tuple[Decision, list[Reward]]], order: random.Random, clock: Clock
) -> Counts:
    """Return the sums after everything came in some order, each at its own time."""
    engine = Engine(MemoryBanditStorage(), {"btn": bandit}, stats_ttl=0.0)
    events: list[Any] = [(one.at, [one], []) for one, _ in history]
    events += [(given.at, [], [given]) for _, earned in history for given in earned]
    events += order.choices(events, k=len(events) // 2)
    order.shuffle(events)
    for at, decisions, rewards in events:
        clock.now = at
        assert engine.commit(decisions, rewards, engine.attempt()) is not None
    clock.now = START + 500_000 + WINDOW + GRACE
    for _ in range(order.randrange(1, 4)):
        WindowCloser(engine).close("btn", again=order.random() < 0.5)
    return engine.read_counts()


@EVERY_MODE
@given(history=histories(), seed=st.integers(0, 99))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_stored_is_the_same_in_any_order_of_arrival(
    mode: str, clock: Clock, history: list[tuple[Decision, list[Reward]]], seed: int
) -> None:
    """Rewards before their decisions and everything sent twice; the increments say what it is."""
    bandit = Exp3Bandit(0.1, **MODES[mode])  # type: ignore[arg-type]
    for arm in ARMS:
        bandit.add_arm(arm)
    found = arrived(bandit, history, random.Random(seed), clock)
    expected = summed(list(deltas(bandit.options, history)))
    assert found == {BanditKey("btn", 1): expected}


def test_what_a_decision_adds() -> None:
    pull = {"a": {"pulls": 1}}
    bucket = f"@{int(START // SPAN) * SPAN}:pulls"
    expected = {
        "plain": pull,
        "window": pull,
        "both": pull,
        "half-life": {"a": {"pulls": 1, bucket: 1}},
    }
    for mode, sums in expected.items():
        assert decision_delta(THOMPSON, Options.parse(MODES[mode]), decision()).counts == sums


def test_what_a_reward_adds() -> None:
    exact = {"rewards": 1, "reward": 0.5, "reward_sq": 0.25}
    bucket = f"@{int(START // SPAN) * SPAN}:"
    expected = {
        "plain": exact,
        "window": exact,
        "both": exact,
        "half-life": {**exact, **{bucket + name: value for name, value in exact.items()}},
    }
    for mode, sums in expected.items():
        added = reward_delta(
            THOMPSON, Options.parse(MODES[mode]), decision(), reward(decision(), 0.5)
        )
        assert added.counts == {"a": sums}


def test_a_reward_goes_to_the_bucket_of_its_decision() -> None:
    options = Options.parse(MODES["half-life"])
    made = decision()
    added = reward_delta(THOMPSON, options, made, reward(made, late=400_000.0))
    (buckets,) = {name.partition(":")[0] for name in added.counts["a"] if name.startswith("@")}
    assert buckets == f"@{int(START // SPAN) * SPAN}"


@pytest.mark.parametrize(("late", "flag"), [(0.0, 0), (WINDOW, 0), (WINDOW + 0.01, 1)])
def test_a_reward_after_the_window_is_flagged(late: float, flag: int) -> None:
    for mode in ("window", "both"):
        given_reward = reward(decision(), late=late)
        added = reward_delta(THOMPSON, Options.parse(MODES[mode]), decision(), given_reward)
        assert added.counts["a"].get("late", 0) == flag
        assert added.counts["a"]["rewards"] == 1


def test_what_a_closed_window_adds() -> None:
    learned = {"pulls": 1, "rewards": 1, "reward": 0.5, "reward_sq": 0.25}
    bucket = f"@{int(START // SPAN) * SPAN}:"
    for mode, prefix in (("window", "learn:"), ("both", f"learn:{bucket}")):
        added = mature_delta(THOMPSON, Options.parse(MODES[mode]), decision(), 0.5)
        assert added.counts == {"a": {prefix + name: value for name, value in learned.items()}}
        nothing = mature_delta(THOMPSON, Options.parse(MODES[mode]), decision(), 0.0)
        assert nothing.counts == {"a": {prefix + "pulls": 1}}


def test_a_decision_that_stands_for_another_adds_nothing() -> None:
    merged = decision(policy_version=MERGED + "d7")
    for mode in MODES.values():
        assert decision_delta(THOMPSON, Options.parse(mode), merged).counts == {}


# Who never teaches


def seen(bandit: Bandit, counts: ArmCounts, now: float) -> list[Any]:
    """Return all that the policy sees."""
    stats = bandit.stats_from(learned_sums(bandit.options, counts, now))
    rows = [stats.pulls, stats.rewards, stats.reward, stats.reward_sq, *stats.extra.values()]
    return [row.tolist() for row in rows]


@EVERY_MODE
@given(history=histories())
def test_neither_the_holdout_nor_another_goal_teaches(
    mode: str, history: list[tuple[Decision, list[Reward]]]
) -> None:
    bandit = Exp3Bandit(0.1, **MODES[mode])  # type: ignore[arg-type]
    for arm in ARMS:
        bandit.add_arm(arm)
    teaching = [
        (one, [given for given in earned if given.goal == "reward"])
        for one, earned in history
        if not one.is_held_out
    ]
    now = START + 600_000
    counts = [summed(list(deltas(bandit.options, some))) for some in (history, teaching)]
    assert seen(bandit, counts[0], now) == seen(bandit, counts[1], now)
    tables = [bandit.draw_table(each, now=now) for each in counts]
    assert tables[0] == tables[1]


@EVERY_MODE
def test_the_holdout_has_sums_of_its_own(mode: str) -> None:
    options, held = Options.parse(MODES[mode]), decision(suffix=HELD_OUT)
    assert decision_delta(THOMPSON, options, held).counts == {"a": {"holdout:pulls": 1}}
    for goal, prefix in (("reward", "holdout:"), ("order", "holdout:goal:order:")):
        added = reward_delta(THOMPSON, options, held, reward(held, 0.5, goal, 99_999.0))
        names = {"rewards": 1, "reward": 0.5, "reward_sq": 0.25}
        assert added.counts == {"a": {prefix + name: value for name, value in names.items()}}


@EVERY_MODE
def test_another_goal_has_sums_of_its_own(mode: str) -> None:
    options = Options.parse({**MODES[mode], "goal": "order"})
    added = reward_delta(THOMPSON, options, decision(), reward(decision(), 3.0, "reward", 99_999.0))
    assert added.counts == {
        "a": {"goal:reward:rewards": 1, "goal:reward:reward": 3.0, "goal:reward:reward_sq": 9.0}
    }
    row = {"pulls": 4, "rewards": 2, "reward": 1.5, "reward_sq": 1.25, **added.counts["a"]}
    assert (
        goal_stats(options, row) == goal_stats(options, row, "order") == ArmStats(4, 2, 1.5, 1.25)
    )
    assert goal_stats(options, row, "reward") == ArmStats(4, 1, 3.0, 9.0)
    assert goal_stats(options, row, "lead") == ArmStats(4)


def test_which_rewards_need_the_stored_decision() -> None:
    def needed(policy: Any, mode: str, id_: str = "d1", goal: str = "reward") -> bool:
        return needs_decision(policy, Options.parse(MODES[mode]), id_, goal)

    assert [needed(THOMPSON, mode) for mode in MODES] == [False, True, True, True]
    assert [needed(Exp3Policy(), mode) for mode in MODES] == [True] * 4
    contextual = ThompsonPolicy()
    contextual.contextual = True  # type: ignore[misc]
    assert [needed(contextual, mode) for mode in MODES] == [True] * 4
    assert not any(needed(Exp3Policy(), mode, goal="order") for mode in MODES)
    assert not any(needed(Exp3Policy(), mode, id_="d1" + HELD_OUT) for mode in MODES)


# Forgetting

HALF_LIVES = st.one_of(
    st.sampled_from([86400.0, 86401.0, 7 * 86400.0, 14 * 86400.0, 3650 * 86400.0]),
    st.floats(86400.0, 3650 * 86400.0),
)


@given(
    half_life=HALF_LIVES,
    events=st.lists(
        st.tuples(st.sampled_from(ARMS), st.floats(0.0, 100.0), st.integers(-4, 4)), min_size=1
    ),
)
def test_discounted_sums_are_those_of_the_log_up_to_the_length_of_a_bucket(
    half_life: float, events: list[tuple[str, float, int]]
) -> None:
    """Each decision weighs what its bucket's start weighs: a fourth of a half-life at most."""
    options, policy = Options.parse({"half_life": half_life}), GaussianThompsonPolicy()
    now = START + 1.0
    parts, direct = [], {arm: {"pulls": 0.0, "reward_sq": 0.0} for arm in ARMS}
    for number, (arm, ages, value) in enumerate(events):
        made = decision(number, arm, START - ages * half_life / 2)
        parts += [
            decision_delta(policy, options, made),
            reward_delta(policy, options, made, reward(made, value)),
        ]
        weight = 0.5 ** ((now - made.at) / half_life)
        direct[arm]["pulls"] += weight
        direct[arm]["reward_sq"] += weight * value * value
    found = learned_sums(options, summed(parts), now)
    forgotten = len(events) * 16 * 2.0**-39
    for arm, sums in direct.items():
        for name, expected in sums.items():
            kept = found.get(arm, {}).get(name, 0.0)
            least = expected * 0.5 ** (1 / BUCKETS_PER_HALF_LIFE)
            assert least * (1 - 1e-9) - forgotten <= kept <= expected * (1 + 1e-9)


def test_each_bucket_lies_in_one_of_the_longer_ones() -> None:
    spans = counting._SPANS
    assert all(longer % shorter == 0 for longer, shorter in itertools.pairwise(spans))
    for half_life in range(86400, 4 * spans[0], 997):
        span = next(s for s in spans if s * BUCKETS_PER_HALF_LIFE <= half_life)
        assert half_life / span <= 7 * BUCKETS_PER_HALF_LIFE


def test_decades_neither_overflow_nor_wake_what_is_forgotten() -> None:
    options = Options.parse({"half_life": "1d"})
    parts = [decision_delta(THOMPSON, options, decision(n, at=n * 1e8)) for n in range(40)]
    counts = summed(parts)
    assert counts["a"]["pulls"] == 40
    assert learned_sums(options, counts, 1e12) == {"a": {}}
    assert learned_sums(options, counts, 39e8) == {"a": {"pulls": pytest.approx(1.0, abs=0.16)}}


def test_a_decision_of_a_fast_clock_weighs_no_more_than_one_of_now() -> None:
    options = Options.parse({"half_life": "1d"})
    counts = decision_delta(THOMPSON, options, decision(at=START + 1e6)).counts
    assert learned_sums(options, counts, START) == {"a": {"pulls": 1.0}}


@pytest.mark.parametrize("name", POLICIES)
@given(
    pulls=st.lists(st.integers(0, 10_000), min_size=4, max_size=4),
    seed=st.integers(0, 99),
    age=st.floats(0.0, 45.0),
)
@settings(max_examples=50)
def test_every_policy_takes_discounted_sums(
    name: str, pulls: list[int], seed: int, age: float
) -> None:
    rng, options = random.Random(seed), {"half_life": 86400.0}
    bandit = Bandit(POLICIES[name](), **options)  # type: ignore[arg-type]
    parts = []
    for arm, count in zip(ARMS, pulls, strict=True):
        bandit.add_arm(arm)
        for bucket in (0, -86400, -864000):
            rewards = rng.randint(0, count)
            prefix = f"@{int(START) + bucket}:"
            sums = {"pulls": count, "rewards": rewards, "reward": rewards, "reward_sq": rewards}
            parts.append(StatsDelta({arm: {prefix + what: n for what, n in sums.items()}}))
    table = bandit.draw_table(summed(parts), now=START + age * 86400.0)
    values = list(table.propensities.values())
    assert sum(values) == pytest.approx(1.0)
    assert min(values) >= bandit.floor / 4 * (1 - 1e-9)


def test_what_tastes_were_long_ago_is_outweighed_by_what_they_are() -> None:
    """10,000 visitors preferred a; twenty half-lives later, 200 of those of now prefer b."""
    bandit = GaussianThompsonBandit(half_life=86400.0)
    for arm in "ab":
        bandit.add_arm(arm)
    old = {"a": (5000, 1000), "b": (5000, 100)}
    new = {"a": (100, 0), "b": (100, 100)}
    now, parts = START + 20 * 86400.0, []
    for at, sums in ((START, old), (now, new)):
        prefix = counting._bucket(86400.0, at)
        for arm, (pulls, rewards) in sums.items():
            row = {"pulls": pulls, "rewards": rewards, "reward": rewards, "reward_sq": rewards}
            parts.append(StatsDelta({arm: {prefix + name: n for name, n in row.items()}}))
    counts = summed(parts)
    assert bandit.draw_table(counts, now=START).propensities["a"] > 0.9
    assert bandit.draw_table(counts, now=now).propensities["b"] > 0.9


def test_a_decision_and_its_reward_are_learned_at_once_without_a_window() -> None:
    options = Options()
    made = replace(decision(), arm="b")
    counts = summed(
        [
            decision_delta(THOMPSON, options, made),
            reward_delta(THOMPSON, options, made, reward(made)),
        ]
    )
    assert learned_sums(options, counts, START) is counts
