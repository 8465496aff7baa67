"""Bandits by themselves: arms, draws, counts, and that they learn."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bandit import bandits
from flask_bandit.algorithms import (
    CONTEXTUAL_POLICIES,
    POLICIES,
    EpsilonGreedyPolicy,
    ThompsonPolicy,
    UniformPolicy,
)
from flask_bandit.bandit import FEW_ARMS, MAX_ARM_ID
from flask_bandit.bandits import (
    AnnealingEpsilonGreedyBandit,
    AnnealingSoftmaxBandit,
    Bandit,
    EpsilonGreedyBandit,
    Exp3Bandit,
    GaussianThompsonBandit,
    KLUCBBandit,
    LinEpsilonGreedyBandit,
    LinThompsonBandit,
    LinUCBBandit,
    NaiveStochasticBandit,
    SoftmaxBandit,
    SquareCBBandit,
    ThompsonBandit,
    UCB1Bandit,
    UCBTunedBandit,
)
from flask_bandit.drawing import DrawTable
from flask_bandit.errors import ConfigurationError, UnknownArmError
from flask_bandit.model import Arm, ArmStats, Decision, FloatArray, Stats, StatsDelta
from flask_bandit.options import DEFAULT_FLOOR, is_clean

BANDITS: dict[str, type[Bandit]] = {
    "uniform": Bandit,
    "epsilon_greedy": EpsilonGreedyBandit,
    "annealing_epsilon_greedy": AnnealingEpsilonGreedyBandit,
    "softmax": SoftmaxBandit,
    "annealing_softmax": AnnealingSoftmaxBandit,
    "naive_stochastic": NaiveStochasticBandit,
    "ucb1": UCB1Bandit,
    "ucb_tuned": UCBTunedBandit,
    "kl_ucb": KLUCBBandit,
    "thompson": ThompsonBandit,
    "gaussian_thompson": GaussianThompsonBandit,
    "exp3": Exp3Bandit,
}
CONTEXTUAL: dict[str, Any] = {
    "lin_thompson": LinThompsonBandit,
    "lin_ucb": LinUCBBandit,
    "square_cb": SquareCBBandit,
    "lin_epsilon_greedy": LinEpsilonGreedyBandit,
}
LARGEST = 1.0 - 2.0**-53


class Fixed:
    """A source of one number."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


class FourMethods:
    """A third party's policy that inherits nothing: the first arm gets .75."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        rest = len(stats.arms) - 1
        return np.array([0.75] + [0.25 / rest] * rest)

    def on_decision(self, decision: Decision) -> StatsDelta:
        self.decisions.append(decision)
        return StatsDelta({decision.arm: {"pulls": 1}})

    def on_reward(self, decision: Decision, value: float) -> StatsDelta:
        return StatsDelta({decision.arm: {"rewards": 1, "reward": value, "mine": 2 * value}})

    def on_mature(self, decision: Decision, total: float) -> StatsDelta:
        return self.on_decision(decision) + self.on_reward(decision, total)


def _with_arms(bandit: Bandit, *arms: str) -> Bandit:
    for arm in arms or ("green", "red", "blue"):
        bandit.add_arm(arm, f"value of {arm}")
    return bandit


# Construction


def test_every_family_has_a_bandit() -> None:
    assert BANDITS.keys() == POLICIES.keys()
    classes = [c for c in vars(bandits).values() if isinstance(c, type) and issubclass(c, Bandit)]
    assert set(classes) == {*BANDITS.values(), *CONTEXTUAL.values()}
    for name, cls in BANDITS.items():
        assert type(cls().policy) is POLICIES[name]
        assert cls().policy_version == POLICIES[name]().version
        assert cls().floor == DEFAULT_FLOOR == 0.005
        assert cls(floor=0.2).floor == 0.2
        assert cls.__doc__


def test_every_contextual_family_has_a_bandit() -> None:
    assert CONTEXTUAL.keys() == CONTEXTUAL_POLICIES.keys()
    for name, cls in CONTEXTUAL.items():
        made: Any = cls({"x": "numeric"}, ridge=2.0, evaluation=0.1)
        assert type(made.policy) is CONTEXTUAL_POLICIES[name]
        assert made.policy_version == CONTEXTUAL_POLICIES[name]({"x": "numeric"}, ridge=2.0).version
        assert made.options.evaluation == 0.1
        assert made.is_contextual
        assert not made.is_sticky
        assert cls({"x": "numeric"}, sticky=True).is_sticky
        assert cls.__doc__


def test_parameters_reach_the_policy() -> None:
    assert LinThompsonBandit({"x": "numeric"}, 0.7).policy.scale == 0.7  # type: ignore[attr-defined]
    assert LinUCBBandit({"x": "numeric"}, alpha=2).policy.alpha == 2.0  # type: ignore[attr-defined]
    assert EpsilonGreedyBandit(0.2).policy_version == "epsilon_greedy(epsilon=0.2)"
    assert EpsilonGreedyBandit(epsilon=0.2).policy_version == "epsilon_greedy(epsilon=0.2)"
    assert SoftmaxBandit(tau=0.5).policy_version == "softmax(tau=0.5)"
    assert KLUCBBandit(c=3).policy_version == "kl_ucb(c=3.0)"
    assert ThompsonBandit(prior=(1, 9)).policy_version == "thompson(prior=(1.0, 9.0))"
    assert Exp3Bandit(gamma=0.3).policy_version == "exp3(gamma=0.3)"
    assert Bandit(ThompsonPolicy()).policy_version == "thompson(prior=(1.0, 1.0))"


@pytest.mark.parametrize("policy", ["thompson", 3, object(), ThompsonBandit])
def test_a_policy_has_four_methods(policy: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no policy: it needs propensities, on_decisio"):
        Bandit(policy)


@pytest.mark.parametrize("floor", [-0.01, 1.01, float("nan"), "0.1", None])
def test_the_floor_is_a_share(floor: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"floor is .*; write a share from 0 to 1"):
        Bandit(floor=floor)


def test_repr() -> None:
    bandit = _with_arms(EpsilonGreedyBandit(0.2), "green", "red")
    assert repr(bandit) == "<EpsilonGreedyBandit epsilon_greedy(epsilon=0.2) arms=['green', 'red']>"


# Arms


def test_arms_keep_their_order_and_values() -> None:
    bandit, value = Bandit(), object()
    assert not bandit.arms
    bandit.add_arm("z", value)
    bandit.add_arm("a")
    assert bandit.arm_ids == ("z", "a")
    assert bandit.arms == (Arm("z", value), Arm("a", None))
    assert bandit.value_of("z") is value
    assert bandit.value_of("a") is None


@pytest.mark.parametrize(
    "arm",
    ["a", "зелёный", "緑", "أخضر", "हरा", "💚", "two words", "a=b;c,d%\"'", "x" * MAX_ARM_ID, "0"],
)
def test_ids_in_any_script(arm: str) -> None:
    bandit = _with_arms(Bandit(), arm, "other")
    suggested = bandit.suggest_arm(Fixed(0.0))
    assert suggested["id"] == arm
    bandit.pull_arm(arm)
    bandit.reward_arm(arm, 1)
    assert bandit[arm] == {"id": arm, "value": f"value of {arm}", "pulls": 1, "reward": 1.0}


@pytest.mark.parametrize(
    "arm",
    [
        "",
        "x" * (MAX_ARM_ID + 1),
        "a\nb",
        "\x00",
        "tab\t",
        "\x7f",
        "\x85",
        "\x9f",
        "\ud83d",
        "a\udc9a",
    ],
)
def test_ids_that_are_refused(arm: str) -> None:
    bandit = Bandit()
    with pytest.raises(ConfigurationError, match="cannot be an arm's id: write a text of 1 to 200"):
        bandit.add_arm(arm)
    assert bandit.arms == ()


@pytest.mark.parametrize("arm", [1, None, b"green", ("a",), ["a"]])
def test_ids_are_texts(arm: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be an arm's id"):
        Bandit().add_arm(arm)


def test_is_clean() -> None:
    assert is_clean("")
    assert is_clean(" ~\xa0é💚")
    assert not is_clean("\x1f")
    assert not is_clean("\ud800")


def test_an_id_is_taken_once() -> None:
    bandit = _with_arms(Bandit(), "green")
    with pytest.raises(ConfigurationError, match="the arm 'green' is there already"):
        bandit.add_arm("green", "other")
    assert bandit.value_of("green") == "value of green"
    bandit.add_arm("Green")
    assert bandit.arm_ids == ("green", "Green")


def test_a_frozen_bandit_takes_no_more_arms() -> None:
    bandit = _with_arms(Bandit(), "green", "red")
    bandit.freeze()
    with pytest.raises(ConfigurationError, match="the arm 'blue' comes too late"):
        bandit.add_arm("blue")
    bandit.freeze()
    assert bandit.arm_ids == ("green", "red")
    bandit.pull_arm("green")
    assert bandit.suggest_arm(Fixed(0.0))["pulls"] == 1


def test_without_arms_it_cannot_work() -> None:
    for act in (Bandit().check, Bandit().suggest_arm):
        with pytest.raises(ConfigurationError, match=r"it has no arms; give it some with add_arm"):
            act()
    _with_arms(Bandit(), "one").check()


def test_an_unknown_arm_names_the_known_ones() -> None:
    bandit = _with_arms(Bandit(), "green", "red")
    message = r"there is no arm 'blue'; known: \['green', 'red'\]"
    for act in (bandit.value_of, bandit.pull_arm, bandit.__getitem__):
        with pytest.raises(UnknownArmError, match=message):
            act("blue")
    with pytest.raises(UnknownArmError, match=message):
        bandit.reward_arm("blue", 1.0)
    assert all(stats == ArmStats() for stats in bandit.stats.values())


# Rewards


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), "1", None, 1j])
def test_a_reward_is_a_finite_number(bad: Any) -> None:
    bandit = _with_arms(Bandit())
    for act in (bandit.check_reward, lambda value: bandit.reward_arm("green", value)):
        with pytest.raises(ValueError, match=r"the reward is .*; write a finite number"):
            act(bad)
    assert bandit.stats["green"] == ArmStats()


@pytest.mark.parametrize("name", ["thompson", "ucb1", "ucb_tuned", "kl_ucb", "exp3"])
@pytest.mark.parametrize("bad", [-0.001, 1.001, 49.0])
def test_rewards_of_0_to_1(name: str, bad: float) -> None:
    bandit = _with_arms(BANDITS[name]())
    with pytest.raises(ValueError, match=r"learns from rewards of 0 to 1; scale it, or take a ba"):
        bandit.reward_arm("green", bad)
    assert bandit.stats["green"] == ArmStats()
    for good in (0, 1, 0.5, True):
        value = bandit.check_reward(good)
        assert (value, type(value)) == (good, float)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("uniform", -5.0),
        ("epsilon_greedy", -1e100),
        ("annealing_epsilon_greedy", 49.9),
        ("softmax", -3),
        ("annealing_softmax", 1e9),
        ("gaussian_thompson", -0.01),
        ("naive_stochastic", 49.9),
    ],
)
def test_rewards_of_any_size(name: str, good: float) -> None:
    bandit = _with_arms(BANDITS[name]())
    bandit.reward_arm("green", good)
    assert bandit["green"]["reward"] == good


def test_naive_stochastic_takes_no_negative_reward() -> None:
    with pytest.raises(ValueError, match="learns from rewards of 0 to inf"):
        NaiveStochasticBandit().check_reward(-1)


# Probabilities


def test_the_floor_is_mixed_in() -> None:
    """p' = (1 - F) p + F / K."""
    counts = {"green": {"pulls": 10, "reward": 5.0}, "red": {"pulls": 10, "reward": 1.0}}
    for floor in (0.0, 0.03, 1.0):
        bandit = _with_arms(EpsilonGreedyBandit(0.0, floor=floor))
        expected = [1.0 - floor + floor / 3, floor / 3, floor / 3]
        np.testing.assert_allclose(bandit.propensities(bandit.stats_from(counts)), expected)
        assert list(bandit.draw_table(counts).propensities.values()) == pytest.approx(expected)


def test_sums_are_lined_up_with_the_arms() -> None:
    bandit = _with_arms(Exp3Bandit())
    counts: dict[str, dict[str, float]] = {
        "blue": {"pulls": 2, "exp3_gain": 4.0},
        "gone": {"pulls": 9},
        "green": {"rewards": 1, "reward": 0.5, "reward_sq": 0.25, "exp3_mean": 1.0},
    }
    stats = bandit.stats_from(counts)
    assert stats.arms == ("green", "red", "blue")
    assert stats.pulls.tolist() == [0, 0, 2]
    assert stats.rewards.tolist() == [1, 0, 0]
    assert stats.reward.tolist() == [0.5, 0, 0]
    assert stats.reward_sq.tolist() == [0.25, 0, 0]
    assert {name: sums.tolist() for name, sums in stats.extra.items()} == {
        "exp3_gain": [0, 0, 4.0],
        "exp3_mean": [1.0, 0, 0],
    }


@pytest.mark.parametrize("name", BANDITS)
def test_no_data_is_uniform(name: str) -> None:
    table = _with_arms(BANDITS[name]()).draw_table({})
    assert table.arms == ("green", "red", "blue")
    assert list(table.propensities.values()) == pytest.approx([1 / 3] * 3, rel=1e-6)


PLAIN = [name for name, policy in POLICIES.items() if hasattr(policy, "propensities_of_few")]


@pytest.mark.parametrize("name", PLAIN)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "pulls": st.integers(-1, 10**6),
                "reward": st.sampled_from([0.0, 0.3, 1.0]) | st.floats(-1e6, 1e6),
            },
        ),
        min_size=1,
        max_size=FEW_ARMS + 1,
    ),
    floor=st.sampled_from([0.0, DEFAULT_FLOOR, 1.0]),
)
def test_plain_sums_give_the_same_probabilities_as_arrays(
    name: str, rows: list[dict[str, float]], floor: float
) -> None:
    bandit = BANDITS[name](floor=floor)
    for number in range(len(rows)):
        bandit.add_arm(str(number))
    counts = {str(number): row for number, row in enumerate(rows)}
    arrays = bandit.propensities(bandit.stats_from(counts)).tolist()
    assert list(bandit.draw_table(counts).propensities.values()) == pytest.approx(
        arrays, rel=1e-12, abs=1e-15
    )


def always_blue(stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
    return np.array([0.0, 0.0, 1.0])


def test_what_is_overridden_is_asked_for_few_arms_too() -> None:
    class Blue:
        def propensities(
            self, stats: Stats, context: Mapping[str, Any] | None = None
        ) -> FloatArray:
            return always_blue(stats)

    class Subclass(EpsilonGreedyPolicy):
        propensities = Blue.propensities

    class Mixed(Blue, EpsilonGreedyPolicy):
        pass

    class BlueBandit(Blue, EpsilonGreedyBandit):
        pass

    patched = EpsilonGreedyPolicy()
    patched.propensities = always_blue  # type: ignore[method-assign]
    policies = [Subclass(), Mixed(), patched]
    for bandit in (*(Bandit(policy, floor=0.0) for policy in policies), BlueBandit()):
        assert _with_arms(bandit).draw_table({}).propensities["blue"] == 1.0


def test_sums_that_are_no_numbers_are_refused_for_few_arms_too() -> None:
    counts = {"green": {"pulls": 1, "reward": math.nan}}
    refused = pytest.raises(ConfigurationError, match="not 3 probabilities")
    with np.errstate(invalid="ignore"), refused:
        _with_arms(EpsilonGreedyBandit()).draw_table(counts)


def test_a_table_draws_each_arm_at_its_place() -> None:
    table = DrawTable.of(("a", "b", "c"), (0.25, 0.5, 0.25))
    assert table.propensities == {"a": 0.25, "b": 0.5, "c": 0.25}
    drawn = "".join(map(table.draw, [0.0, 0.2499, 0.25, 0.7499, 0.75, LARGEST]))
    assert drawn == "aabbcc"


@pytest.mark.parametrize(
    ("probabilities", "first", "last"),
    [
        ((0.0, 1.0, 0.0), "b", "b"),
        ((0.0, 0.5, 0.5), "b", "c"),
        ((0.5, 0.5, 0.0), "a", "b"),
        ((0.0, 0.0, 1.0), "c", "c"),
        ((1.0, 0.0, 0.0), "a", "a"),
        ((0.1 + 1e-12, 0.9, 0.0), "a", "b"),
        ((0.1 - 1e-12, 0.9, 0.0), "a", "b"),
        ((0.0, 1 / 3, 2 / 3 - 1e-13), "b", "c"),
    ],
)
def test_an_arm_of_probability_zero_never_comes(
    probabilities: tuple[float, ...], first: str, last: str
) -> None:
    table = DrawTable.of(("a", "b", "c"), probabilities)
    assert table.draw(0.0) == first
    assert table.draw(LARGEST) == last
    rng = random.Random(1)
    never = {arm for arm, p in table.propensities.items() if p == 0.0}
    assert not never & {table.draw(rng.random()) for _ in range(2000)}


def test_the_last_of_very_many_arms_can_be_drawn() -> None:
    arms = tuple(map(str, range(1000)))
    table = DrawTable.of(arms, [1 / 1000] * 1000)
    assert table.draw(LARGEST) == "999"
    assert table.draw(0.0) == "0"
    table = DrawTable.of(arms, [1 / 999] * 999 + [0.0])
    assert table.draw(LARGEST) == "998"


def test_draws_follow_the_probabilities() -> None:
    """30,000 draws; 5 standard errors each, so a false-alarm rate below 2e-6."""
    table, rng = DrawTable.of(("a", "b", "c"), (0.01, 0.29, 0.7)), random.Random(7)
    drawn = [table.draw(rng.random()) for _ in range(30_000)]
    for arm, p in table.propensities.items():
        assert abs(drawn.count(arm) / 30_000 - p) < 5 * (p * (1 - p) / 30_000) ** 0.5


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        DrawTable.of(("a", "b"), (1.0,))


# By itself


def test_suggest_says_what_is_known_and_counts_nothing() -> None:
    bandit = _with_arms(EpsilonGreedyBandit(0.2, floor=0.0))
    assert bandit.suggest_arm(Fixed(0.5)) == {
        "id": "red",
        "value": "value of red",
        "pulls": 0,
        "reward": 0.0,
        "propensity": pytest.approx(1 / 3),
    }
    assert all(stats == ArmStats() for stats in bandit.stats.values())
    bandit.pull_arm("red")
    bandit.reward_arm("red", 2)
    bandit.reward_arm("red", 0.5)
    assert bandit.suggest_arm(Fixed(0.5)) == {
        "id": "red",
        "value": "value of red",
        "pulls": 1,
        "reward": 2.5,
        "propensity": pytest.approx(0.8 + 0.2 / 3),
    }
    assert bandit["red"] == {"id": "red", "value": "value of red", "pulls": 1, "reward": 2.5}
    assert bandit["green"] == {
        "id": "green",
        "value": "value of green",
        "pulls": 0,
        "reward": 0.0,
    }
    assert bandit.stats["red"] == ArmStats(pulls=1, rewards=2, reward=2.5, reward_sq=4.25)
    assert bandit.stats["red"].mean == 2.5
    assert list(bandit.stats) == ["green", "red", "blue"]


def test_a_seed_repeats_the_draws() -> None:
    bandit = _with_arms(Bandit())

    def draws(rng: Any) -> list[str]:
        return [bandit.suggest_arm(rng)["id"] for _ in range(50)]

    assert draws(random.Random(1)) == draws(random.Random(1))
    assert draws(random.Random(1)) != draws(random.Random(2))
    assert draws(np.random.default_rng(1)) == draws(np.random.default_rng(1))
    assert set(draws(np.random.default_rng(1))) == {"green", "red", "blue"}


def test_without_a_source_pythons_own_draws() -> None:
    bandit = _with_arms(Bandit())
    state = random.getstate()
    try:
        random.seed(5)
        drawn = [bandit.suggest_arm()["id"] for _ in range(20)]
        random.seed(5)
        assert drawn == [bandit.suggest_arm()["id"] for _ in range(20)]
    finally:
        random.setstate(state)
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("number", [0.0, LARGEST])
@pytest.mark.parametrize("name", BANDITS)
def test_the_ends_of_the_draw(name: str, number: float) -> None:
    bandit = _with_arms(BANDITS[name]())
    for _ in range(5):
        suggested = bandit.suggest_arm(Fixed(number))
        assert 0.005 / 3 <= suggested["propensity"] <= 1.0
        bandit.pull_arm(suggested["id"])
        bandit.reward_arm(suggested["id"], 1.0)
    assert sum(stats.pulls for stats in bandit.stats.values()) == 5


def test_pull_and_reward_without_a_suggestion() -> None:
    for cls in BANDITS.values():
        bandit = _with_arms(cls())
        bandit.reward_arm("green", 1.0)
        bandit.pull_arm("green")
        assert bandit.stats["green"] == ArmStats(pulls=1, rewards=1, reward=1.0, reward_sq=1.0)
        assert bandit.suggest_arm(Fixed(0.0))["propensity"] > 0.0


def test_two_bandits_share_nothing() -> None:
    one, two = _with_arms(ThompsonBandit()), _with_arms(ThompsonBandit())
    one.pull_arm("green")
    assert two["green"]["pulls"] == 0


def test_a_third_partys_policy_needs_the_four_methods_only() -> None:
    policy = FourMethods()
    bandit = _with_arms(Bandit(policy, floor=0.0))
    assert bandit.policy_version == "FourMethods"
    assert repr(bandit) == "<Bandit FourMethods arms=['green', 'red', 'blue']>"
    suggested = bandit.suggest_arm(Fixed(0.0))
    assert (suggested["id"], suggested["propensity"]) == ("green", 0.75)
    bandit.pull_arm("green")
    bandit.reward_arm("green", -1e9)
    assert bandit["green"] == {
        "id": "green",
        "value": "value of green",
        "pulls": 1,
        "reward": -1e9,
    }
    (seen,) = policy.decisions
    assert seen.arm == "green"
    assert seen.propensities == {"green": 0.75, "red": 0.125, "blue": 0.125}


class Answering(FourMethods):
    """Answers what it was given."""

    def __init__(self, answer: list[float]) -> None:
        super().__init__()
        self.answer = answer

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        return np.array(self.answer)


@pytest.mark.parametrize(
    "answer",
    [
        [0.5, 0.5],
        [0.25, 0.25, 0.25, 0.25],
        [0.5, 0.5, 0.5],
        [1.5, -0.5, 0.0],
        [float("nan"), 0.5, 0.5],
        [0.0, 0.0, 0.0],
        [0.3, 0.3, 0.39],
    ],
)
def test_what_are_no_probabilities_is_refused(answer: list[float]) -> None:
    bandit = _with_arms(Bandit(Answering(answer)))
    with pytest.raises(ConfigurationError, match=r"Answering returned .* which are not 3 probabil"):
        bandit.suggest_arm()


def test_a_policy_hears_of_the_probabilities_of_its_last_suggestion() -> None:
    """An arm that was never suggested has unknown ones."""
    policy = FourMethods()
    bandit = _with_arms(Bandit(policy, floor=0.0))
    bandit.pull_arm("red")
    bandit.suggest_arm(Fixed(LARGEST))
    bandit.pull_arm("blue")
    bandit.pull_arm("green")
    known = [decision.propensities for decision in policy.decisions]
    assert known == [None, {"green": 0.75, "red": 0.125, "blue": 0.125}, None]
    assert [decision.policy_version for decision in policy.decisions] == ["FourMethods"] * 3


# Learning

RATES = {"green": 0.1, "red": 0.7, "blue": 0.2}


def _share_of_red(bandit: Bandit, seed: int, decisions: int = 450) -> float:
    rng = random.Random(seed)
    before = 0
    for step in range(decisions):
        if step == decisions // 3:
            before = bandit["red"]["pulls"]
        arm = bandit.suggest_arm(rng)["id"]
        bandit.pull_arm(arm)
        if rng.random() < RATES[arm]:
            bandit.reward_arm(arm, 1.0)
    return float(bandit["red"]["pulls"] - before) / (decisions - decisions // 3)


@pytest.mark.parametrize("name", sorted(BANDITS.keys() - {"uniform", "naive_stochastic"}))
def test_converges_by_itself(name: str) -> None:
    """The best of three arms gets .5 of the last 300 of 450 decisions, as the mean of 2 runs.

    False-alarm rate, were the seeds drawn anew: below 3 % for each bandit, with 95 % confidence
    (no share was below .8 in 100 other runs of each).
    """
    shares = [_share_of_red(_with_arms(BANDITS[name]()), seed) for seed in range(2)]
    assert sum(shares) / 2 >= 0.5


def test_naive_stochastic_by_itself() -> None:
    """Traffic goes in proportion to the means: .7 for the best arm.

    With a floor that lets it leave an arm that was merely the first one rewarded; the share is
    within .15 of that in the mean of 3 runs. False-alarm rate, were the seeds drawn anew: below
    1e-4 (60 other runs: mean .65, standard deviation .057, so the bounds are 4.5 standard errors
    away).
    """
    shares = [_share_of_red(_with_arms(NaiveStochasticBandit(floor=0.2)), s) for s in range(3)]
    assert 0.5 < sum(shares) / 3 < 0.8


def test_uniform_does_not_learn() -> None:
    """450 decisions at 1/3: the share of 300 has a standard error of .027; .14 is five."""
    assert abs(_share_of_red(_with_arms(Bandit(UniformPolicy())), 1) - 1 / 3) < 0.14


def test_exp3_learns_from_rewards_of_every_decision() -> None:
    """.9 against .1 each time: the probability of the best goes to 1 - gamma / 2 = .9.

    False-alarm rate, were the seeds drawn anew: below 5 % by count alone (60 other runs: none),
    and far below by the margin: each of them had 250 pulls or more and .898.
    """
    bandit, rng = _with_arms(Exp3Bandit(0.2), "green", "red"), random.Random(2)
    for _ in range(300):
        arm = bandit.suggest_arm(rng)["id"]
        bandit.pull_arm(arm)
        bandit.reward_arm(arm, 0.9 if arm == "red" else 0.1)
    assert bandit["red"]["pulls"] > 180
    assert bandit.suggest_arm(Fixed(LARGEST))["propensity"] > 0.85
