"""The life of a bandit: every action in every state, and what is stored of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bandit.control import (
    ACTIONS,
    ARCHIVED,
    CLOSED,
    DECLARED,
    LONGEST_HISTORY,
    PAUSED,
    RUNNING,
    Control,
    act,
)
from flask_bandit.errors import LifecycleError

ARMS = ("a", "b", "c")
SUBJECTS: dict[str, Any] = {"declare": "b", "weights": {"b": 2.0}, "deploy": 3}
STATES = {
    RUNNING: Control(),
    CLOSED: Control(state=CLOSED),
    PAUSED: Control(state=PAUSED, resumes=CLOSED),
    DECLARED: Control(state=DECLARED, winner="c"),
    ARCHIVED: Control(state=ARCHIVED, winner="c"),
}
SAME = "same"
RESUME, REOPEN = "resume it first", "reopen it first"
# What comes of each action in each state: a new state, nothing, or what has to be done before.
TABLE = {
    "pause": {RUNNING: PAUSED, CLOSED: PAUSED, PAUSED: SAME, DECLARED: REOPEN, ARCHIVED: REOPEN},
    "resume": {RUNNING: SAME, CLOSED: SAME, PAUSED: CLOSED, DECLARED: REOPEN, ARCHIVED: REOPEN},
    "close": {RUNNING: CLOSED, CLOSED: SAME, PAUSED: RESUME, DECLARED: REOPEN, ARCHIVED: REOPEN},
    "declare": dict.fromkeys([RUNNING, CLOSED, PAUSED, DECLARED], DECLARED) | {ARCHIVED: REOPEN},
    "reopen": {
        RUNNING: SAME, CLOSED: RUNNING, PAUSED: RESUME, DECLARED: RUNNING, ARCHIVED: RUNNING,
    },
    "archive": dict.fromkeys([RUNNING, CLOSED, PAUSED, DECLARED], ARCHIVED) | {ARCHIVED: SAME},
    "reset": dict.fromkeys(STATES, RUNNING),
    "weights": {state: state for state in STATES} | {ARCHIVED: REOPEN},
    "deploy": {state: state for state in STATES} | {ARCHIVED: REOPEN},
}  # fmt: skip


def do(control: Control, action: str, subject: Any = None, at: float = 9.0) -> Control:
    return act(control, action, ARMS, at, SUBJECTS.get(action) if subject is None else subject)


def test_the_table_is_complete() -> None:
    assert TABLE.keys() == ACTIONS.keys()
    assert all(row.keys() == STATES.keys() for row in TABLE.values())


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", TABLE)
def test_every_action_in_every_state(action: str, state: str) -> None:
    before, expected = STATES[state], TABLE[action][state]
    if expected in (RESUME, REOPEN):
        with pytest.raises(LifecycleError, match=f"it is {state} and cannot be .*; {expected}"):
            do(before, action)
        return
    after = do(before, action)
    if expected == SAME:
        assert after is before
        return
    assert after.state == expected
    assert len(after.history) == 1
    assert after.version == (2 if action == "reset" else 1)
    assert after.winner == {
        "declare": "b", "reopen": None, "reset": None,
    }.get(action, before.winner)  # fmt: skip


def test_a_pause_ends_where_it_began() -> None:
    for state in (RUNNING, CLOSED):
        paused = do(STATES[state], "pause")
        assert paused.state == PAUSED
        assert do(paused, "resume").state == state


def test_a_reset_keeps_weights_and_arms_that_are_off() -> None:
    before = do(do(Control(), "weights", {"b": None, "c": 0.5}), "pause")
    after = do(before, "reset")
    assert (after.version, after.removed, after.weights) == (2, ("b",), {"c": 0.5})


def test_what_everybody_gets() -> None:
    assert [control.common_arm(ARMS) for control in STATES.values()] == ["a", "a", "a", "c", "c"]
    assert [control.is_serving for control in STATES.values()] == [True, True] + [False] * 3
    assert Control(state=ARCHIVED).common_arm(ARMS) == "a"
    # The code has lost the winner since.
    assert STATES[DECLARED].common_arm(("b", "a")) == "b"


# Weights


@pytest.mark.parametrize(
    ("first", "then", "weights", "removed"),
    [
        ({}, {"b": 2}, {"b": 2.0}, ()),
        ({}, {"b": 0}, {"b": 0.0}, ()),
        ({}, {"b": 1}, {}, ()),
        ({"b": 2}, {"b": 1}, {}, ()),
        ({"b": 2}, {"c": 3}, {"b": 2.0, "c": 3.0}, ()),
        ({"b": 2}, {"b": None}, {}, ("b",)),
        ({"c": None}, {"b": None}, {}, ("b", "c")),
        ({"b": None}, {"b": 2}, {"b": 2.0}, ()),
        ({"b": None}, {"b": 1}, {}, ()),
        ({}, {"a": 1e-6, "b": 1e6}, {"a": 1e-6, "b": 1e6}, ()),
    ],
)
def test_weights_and_arms_that_are_off(
    first: dict[str, Any], then: dict[str, Any], weights: dict[str, float], removed: Any
) -> None:
    control = do(do(Control(), "weights", first) if first else Control(), "weights", then)
    assert (control.weights, control.removed) == (weights, removed)


@pytest.mark.parametrize("weight", [-1, 1e7, 1e-7, float("nan"), float("inf"), "2", True, [1]])
def test_no_weight(weight: Any) -> None:
    with pytest.raises(LifecycleError, match="the weight of 'b' is .*; write a number from 0 to"):
        do(Control(), "weights", {"b": weight})


def test_an_arm_that_there_is_not() -> None:
    for action, subject in (("weights", {"d": 1.0}), ("declare", "d")):
        with pytest.raises(LifecycleError, match="there is no arm 'd'; known: a, b, c"):
            do(Control(), action, subject)


@pytest.mark.parametrize("weights", [dict.fromkeys(ARMS, 0), dict.fromkeys(ARMS),
                                     {"a": 0, "b": None, "c": 0}])  # fmt: skip
def test_one_arm_is_left(weights: Any) -> None:
    with pytest.raises(LifecycleError, match="no arm would be left"):
        do(Control(), "weights", weights)
    some = dict(list(weights.items())[:2])
    left = do(Control(), "weights", some)
    with pytest.raises(LifecycleError, match="no arm would be left"):
        do(left, "weights", {"c": 0})


def test_which_arms_are_drawn_and_with_which_weights() -> None:
    assert Control().drawing(ARMS) is None
    weighted = do(Control(), "weights", {"a": 0, "b": 2.5})
    assert weighted.drawing(ARMS) == {"b": 2.5, "c": 1.0}
    off = do(weighted, "weights", {"b": None})
    assert off.drawing(ARMS) == {"c": 1.0}
    # All that are eligible are gone from the code: all that it has.
    assert off.drawing(("a", "b")) is None
    # A new arm of the code is eligible.
    assert off.drawing(("c", "new")) == {"c": 1.0, "new": 1.0}


def test_who_keeps_an_arm() -> None:
    control = do(Control(), "weights", {"a": 0, "b": None})
    assert [control.holds(arm, ARMS) for arm in ("a", "b", "c", "d")] == [True, False, True, False]


@pytest.mark.parametrize("model", [-1, True, 1.5, "3", 2**40])
def test_what_is_no_number_of_a_model_is_not_deployed(model: Any) -> None:
    with pytest.raises(LifecycleError, match="write its number, or 0"):
        do(Control(), "deploy", model)


# What is stored

TEXTS = st.text(max_size=5)
CONTROLS = st.builds(
    Control,
    state=st.sampled_from(list(STATES)),
    version=st.integers(1, 99),
    winner=st.none() | TEXTS,
    resumes=st.sampled_from([RUNNING, CLOSED]),
    weights=st.dictionaries(TEXTS, st.just(0.0) | st.floats(1e-6, 1e6)),
    removed=st.lists(TEXTS).map(tuple),
    closed_until=st.floats(0.0, 1e10),
    model=st.integers(0, 99),
    history=st.lists(st.tuples(st.floats(0.0, 1e10), TEXTS)).map(tuple),
)


@given(CONTROLS)
def test_what_is_stored_is_read_back(control: Control) -> None:
    stored = json.loads(json.dumps(control.dump()))
    assert Control.load(stored) == control
    assert Control.load(stored).dump() == stored


def test_what_a_later_version_stores_is_left_out() -> None:
    stored = {**Control(state=PAUSED).dump(), "schedule": [1, 2], "mood": "good"}
    assert Control.load(stored) == Control(state=PAUSED)
    assert Control.load({}) == Control.load(None) == Control()
    assert Control.load({"version": 3}) == Control(version=3)


def test_a_state_of_a_later_version_gives_everybody_the_control() -> None:
    control = Control.load({**Control(winner="b").dump(), "state": "hibernating"})
    assert (control.is_serving, control.common_arm(ARMS)) == (False, "a")
    with pytest.raises(LifecycleError, match="there is no arm"):
        do(control, "declare", "d")


def test_the_history_tells_what_was_done_and_is_cut() -> None:
    control = do(do(Control(), "declare", "b", at=1.0), "reopen", at=2.0)
    control = do(control, "weights", {"b": 0.5, "c": None}, at=3.0)
    assert control.history == ((1.0, "declare b"), (2.0, "reopen"), (3.0, "weights b=0.5 c=off"))
    for n in range(LONGEST_HISTORY):
        control = do(control, "pause" if n % 2 == 0 else "resume", at=10.0 + n)
    assert len(control.history) == LONGEST_HISTORY
    assert control.history[0] == (10.0, "pause")
    assert control.history[-1] == (10.0 + LONGEST_HISTORY - 1, "resume")


def test_an_action_keeps_what_it_is_not_about() -> None:
    before = replace(Control(), closed_until=5.0, version=4, weights={"b": 2.0})
    after = do(before, "pause")
    assert after == replace(before, state=PAUSED, history=((9.0, "pause"),))
