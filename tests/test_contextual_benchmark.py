"""The contextual benchmark: our policies on its synthetic problems, small and seeded."""

from __future__ import annotations

import pytest

pytest.importorskip("rich", reason="part of the extra bench")

from benchmarks import contextual
from benchmarks.contextual import Result, Task, missed, run


def reward(problem: str, learner: str, rounds: int = 1500) -> float:
    return run(Task((problem, learner), rounds, seed=1)).reward


def test_a_linear_policy_earns_more_where_the_context_matters() -> None:
    """Fixed seeds, so it cannot flicker."""
    twin = reward("clicks", "Thompson, no context")
    for learner in ("LinThompson", "LinUCB(.25)", "SquareCB", "LinEpsilonGreedy(.05)"):
        assert reward("clicks", learner) > 1.2 * twin


def test_and_less_where_it_does_not() -> None:
    twin = reward("useless", "Thompson, no context")
    assert reward("useless", "LinUCB(.25)") < 0.95 * twin


def test_late_rewards_do_thompson_little_harm() -> None:
    at_once = reward("clicks", "LinThompson", 6000)
    assert reward("clicks, late", "LinThompson", 6000) > 0.95 * at_once


def test_our_policies_learn_a_data_set_of_scikit_learn() -> None:
    """The first fifth of what the benchmark's goals are for."""
    pytest.importorskip("sklearn", reason="part of the extra bench")
    assert reward("wine", "LinThompson", 2000) > 0.97
    assert reward("wine", "LinUCB(.25)", 2000) > 0.97


def test_what_missed_its_goal_is_told() -> None:
    good = {
        ("wine", "LinThompson"): [Result(0.995, 1e9)],
        ("digits", "LinUCB(.25)"): [Result(0.96, 29.0)],
        ("clicks", "LinThompson"): [Result(0.100, 1.0)],
        ("clicks, late", "LinThompson"): [Result(0.096, 1.0)],
    }
    assert list(missed(good)) == []
    bad = {
        ("wine", "LinThompson"): [Result(0.98, 1.0), Result(0.99, 1.0)],
        ("digits", "LinUCB(.25)"): [Result(0.96, 31.0)],
        ("clicks", "LinThompson"): [Result(0.100, 1.0)],
        ("clicks, late", "LinThompson"): [Result(0.094, 1.0)],
    }
    assert list(missed(bad)) == [
        "LinThompson earns 0.9850 on wine, the goal is 0.99",
        "LinUCB(.25) takes 31 us a step on digits, the goal is 30",
        "LinThompson keeps 94.0% of its clicks, not 0.95",
    ]


def test_the_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    ours = ["--learners", "LinThompson", "LinUCB(.25)", "--problems", "clicks", "useless"]
    assert contextual.main(["--quick", "--processes", "1", *ours]) == 0
    out = capsys.readouterr().out
    assert "mean reward, 500 decisions, 2 seeds" in out
    assert "microseconds a step" in out
    assert out.count("±") >= 4
