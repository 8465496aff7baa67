"""What a bandit may be told: what is taken, and what each wrong value is told to be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bandit.bandits import Bandit, GaussianThompsonBandit, ThompsonBandit
from flask_bandit.errors import ConfigurationError
from flask_bandit.options import BANDIT_OPTIONS, DEFAULT_FLOOR, BanditOptions, Options, duration
from flask_bandit.web.registry import declared_bandit

DAY = 86400.0


def is_mobile() -> bool:
    """Tell nothing: a function that configuration can name."""
    return True


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("90", 90.0),
        ("90s", 90.0),
        ("15m", 900.0),
        ("1.5h", 5400.0),
        (" 7 d ", 7 * DAY),
        ("2w", 14 * DAY),
        (timedelta(days=3, seconds=1), 3 * DAY + 1),
        (timedelta(days=3650), 3650 * DAY),
        ("3650d", 3650 * DAY),
    ],
)
def test_a_time_span(written: Any, seconds: float) -> None:
    assert duration(written) == seconds


NO_SPANS = [
    0, -1, "0d", "-7d", "7 days", "7D", "d", "", "1e3s", "7d 3h", None, True, [7], b"7d",
    float("nan"), float("inf"), timedelta(0), timedelta(seconds=-1), "3651d", 10**400, "9" * 400,
    timedelta.max,
]  # fmt: skip


@pytest.mark.parametrize("written", NO_SPANS, ids=lambda value: repr(value)[:20])
def test_no_time_span(written: Any) -> None:
    with pytest.raises(ValueError, match="such as '12h', '7d'"):
        duration(written)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.timedeltas()))
def test_anything_is_a_span_within_its_limits_or_refused(written: Any) -> None:
    try:
        seconds = duration(written)
    except ValueError:
        return
    assert 0.0 < seconds <= 3650 * DAY


def test_what_is_not_said_is_the_default() -> None:
    options = Options.parse({})
    assert options == Options()
    assert (options.floor, options.goal) == (DEFAULT_FLOOR, "reward")
    assert (options.reward_window, options.half_life, options.group, options.targeting) == (
        None,
    ) * 4
    assert (options.min_propensity, options.burn_in, options.holdout, options.goals) == (
        0,
        0,
        0,
        {},
    )


def test_each_option_arrives_from_code() -> None:
    bandit = ThompsonBandit(
        floor=0.01,
        min_propensity=0.02,
        burn_in=100,
        holdout=0.05,
        goal="purchase",
        goals={"revenue": "numeric"},
        reward_window="7d",
        half_life=timedelta(days=14),
        group="checkout",
        targeting=is_mobile,
    )
    assert bandit.options == Options(
        0.01, 0.02, 100, 0.05, "purchase", {"revenue": "numeric"}, 7 * DAY, 14 * DAY, "checkout",
        is_mobile,
    )  # fmt: skip
    assert set(BANDIT_OPTIONS) == set(BanditOptions.__annotations__) == set(Options.__slots__)


TABLE = """
algorithm = "thompson"
prior = [1.0, 2.0]
arms = ["green", "red"]
floor = 0.01
min_propensity = 0.02
burn_in = 100
holdout = 0.05
goal = "purchase"
goals = { revenue = "numeric", share = "every" }
reward_window = "7d"
half_life = 1209600
group = "checkout"
targeting = { import = "tests.test_options:is_mobile" }
"""


def test_each_option_arrives_from_configuration() -> None:
    tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on")
    bandit = declared_bandit("btn", tomllib.loads(TABLE))
    goals = {"revenue": "numeric", "share": "every"}
    assert bandit.options == Options(
        0.01, 0.02, 100, 0.05, "purchase", goals, 7 * DAY, 14 * DAY, "checkout", is_mobile
    )
    assert bandit.policy_version == "thompson(prior=(1.0, 2.0))"


WRONG: list[tuple[str, Any, str]] = [
    *(
        (name, value, "a share from 0 to 1, such as 0.05")
        for name in ("floor", "min_propensity", "holdout")
        for value in (-0.1, 1.1, "0.1", None, float("nan"), True, [0.1])
    ),
    ("holdout", 1.0, "a share below 1, such as 0.05"),
    *(("burn_in", value, "a whole number, such as 100") for value in (-1, 1.0, "9", None, True)),
    *(
        (name, value, "a text of 1 to 100 characters, none of them a control, such as 'checkout'")
        for name in ("goal", "group")
        for value in ("", "a\nb", "x" * 101, 7, None, "\ud800")
    ),
    *(("goals", value, r"a table such as {'order': 'every'}") for value in (["a"], "a", None)),
    ("goals", {"order": "twice"}, "once, every, numeric"),
    ("goals", {"order": None}, "once, every, numeric"),
    ("goals", {"order": ["once"]}, "once, every, numeric"),
    ("goals", {"": "once"}, "a text of 1 to 100 characters"),
    *(
        (name, value, "such as '12h', '7d'")
        for name in ("reward_window", "half_life")
        for value in ("soon", 0, -5, None, "11y")
    ),
    ("reward_window", 59.9, "at least 60 seconds, such as '7d'"),
    ("half_life", "23h", "at least one day, such as '14d'"),
    *(
        ("targeting", value, "{ import = 'package:function' }")
        for value in (True, "tests.test_options:is_mobile", None)
    ),
]
IDS = [f"{name}-{value!r}"[:40] for name, value, _ in WRONG]


def from_configuration(**options: Any) -> Bandit:
    return declared_bandit("btn", {"algorithm": "thompson", "arms": ["a", "b"], **options})


@pytest.mark.parametrize("make", [ThompsonBandit, from_configuration])
@pytest.mark.parametrize(("name", "value", "fix"), WRONG, ids=IDS)
def test_a_wrong_value_is_told_with_its_name_and_the_fix(
    make: Callable[..., Bandit], name: str, value: Any, fix: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(**{name: value})
    message = str(caught.value)
    assert fix in message
    inner = isinstance(value, dict)
    assert ("goal" in message) if inner else (f"{name} is {value!r}" in message)
    assert message.startswith("MAB_BANDITS.btn: ") == (make is from_configuration)


@pytest.mark.parametrize("value", [{"import": "nowhere:f"}, {"import": "tests.test_options:nope"}])
def test_a_function_that_cannot_be_imported_is_told_with_its_bandit(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^MAB_BANDITS\.btn: "):
        from_configuration(targeting=value)


def test_an_unknown_option_is_told_with_all_that_there_are() -> None:
    make: Any = ThompsonBandit
    with pytest.raises(ConfigurationError, match=r"no option 'flor' .*; known: floor, .*targeting"):
        make(flor=0.1)


def test_what_is_not_named_among_the_goals_counts_once() -> None:
    options = Options.parse({"goals": {"share": "every", "revenue": "numeric"}})
    assert list(map(options.mode, ("share", "revenue", "reward", "other"))) == [
        "every", "numeric", "once", "once",
    ]  # fmt: skip


def test_a_policy_of_rates_takes_no_goal_that_counts_more_than_once() -> None:
    for mode in ("every", "numeric"):
        with pytest.raises(ConfigurationError, match="GaussianThompsonBandit"):
            ThompsonBandit(goal="order", goals={"order": mode})
        GaussianThompsonBandit(goal="order", goals={"order": mode})
        ThompsonBandit(goals={"order": mode})


@pytest.mark.parametrize(
    ("floor", "least", "arms", "share"),
    [(0.005, 0.0, 4, 0.005), (0.0, 0.02, 4, 0.08), (0.1, 0.02, 4, 0.1), (0.1, 0.02, 6, 0.12)],
)
def test_the_larger_floor_holds(floor: float, least: float, arms: int, share: float) -> None:
    options = Options.parse({"floor": floor, "min_propensity": least})
    assert options.share(arms) == pytest.approx(share)


def test_a_smallest_probability_that_not_all_arms_can_have() -> None:
    bandit = ThompsonBandit(min_propensity=0.3)
    for arm in "abc":
        bandit.add_arm(arm)
    bandit.check()
    bandit.add_arm("d")
    with pytest.raises(ConfigurationError, match=r"4 arms cannot all have; write at most 0\.25"):
        bandit.check()
