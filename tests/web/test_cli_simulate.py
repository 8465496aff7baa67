"""``flask bandit simulate``."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import FlaskGroup

from flask_bandit.algorithms import POLICIES, Policy, UCB1Policy
from flask_bandit.bandits import Bandit
from flask_bandit.model import FloatArray, Stats
from flask_bandit.web import cli_simulate
from flask_bandit.web.cli_simulate import simulate_command

from .conftest import make_app

RATES = ("--rates", "green=.05,red=.3")
SMALL = ("--visitors", "300", "--runs", "5")


class RangePolicy(Policy):
    """Refuses a reward of 0."""

    name = "range"
    reward_range = (0.5, 1.0)

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        raise NotImplementedError


class BrokenPolicy(RangePolicy):
    """Returns no probabilities."""

    reward_range = (0.0, 1.0)

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        return stats.reward * 0.0


def run(*args: str, app: Flask | None = None) -> Any:
    """Run the command as ``flask`` does; by default in an app that knows no bandits."""
    app = app or Flask("bare")
    group = FlaskGroup(create_app=lambda: app)
    return app.test_cli_runner().invoke(group, ["bandit", "simulate", *args])


def shop(policy: Policy | None = None, **options: Any) -> Flask:
    """Return an app with the bandit ``color_btn``, whose arms are red and green."""
    app = make_app()
    bandit = Bandit(policy or UCB1Policy(), **options)
    bandit.add_arm("red")
    bandit.add_arm("green")
    app.add_bandit("color_btn", bandit)  # type: ignore[attr-defined]
    return app


def rows(output: str) -> list[list[str]]:
    """Return the cells of the table, without its heading."""
    table = output.split("\n\n")[1]
    return [line.split() for line in table.splitlines()[1:]]


def test_all_policies_are_in_the_table_from_the_least_regret_to_the_most() -> None:
    result = run(*RATES, *SMALL)
    assert result.exit_code == 0, result.output
    first = "300 visitors, 5 runs, seed 0; rates: green 0.05, red 0.3."
    assert result.output.splitlines()[0] == first
    table = rows(result.output)
    assert sorted(row[0] for row in table) == sorted(POLICIES)
    regrets = [float(row[1]) for row in table]
    assert regrets == sorted(regrets)
    assert max(map(len, result.output.splitlines())) <= 80
    assert "days" not in result.output


def test_days_are_visitors_divided_by_those_of_a_day() -> None:
    result = run(*RATES, *SMALL, "--daily", "50", "--json")
    for row in json.loads(result.output)["policies"]:
        after = row["decided_after"]
        assert row["days"] == (None if after is None else after / 50)
    assert any(row["days"] for row in json.loads(result.output)["policies"])
    text = run(*RATES, *SMALL, "--daily", "50").output
    assert "at 50 visitors a day" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_most_runs_do_not_decide_is_shown_as_beyond_the_visitors() -> None:
    args = ("--rates", "a=.5,b=.5", *SMALL, "--confidence", ".9999", "--daily", "100")
    assert all(row[-5:] == [">", "300", ">", "3.0", "-"] for row in rows(run(*args).output))
    for row in json.loads(run(*args, "--json").output)["policies"]:
        assert (row["decided"], row["decided_after"], row["days"], row["right"]) == (0, *[None] * 3)


def test_json_has_the_numbers_of_the_table() -> None:
    args = ("--rates", "green=.05,red=.3,blue=.1", *SMALL)
    found = json.loads(run(*args, "--json").output)
    assert found["rates"] == {"green": 0.05, "red": 0.3, "blue": 0.1}
    assert (found["visitors"], found["runs"], found["seed"]) == (300, 5, 0)
    assert (found["confidence"], found["daily"]) == (0.95, None)
    table = rows(run(*args).output)
    assert [row["name"] for row in found["policies"]] == [cells[0] for cells in table]
    for row, cells in zip(found["policies"], table, strict=True):
        assert cells[1] == f"{row['regret']:.1f}"
        assert cells[4:7] == [f"{share:.1%}" for share in row["shares"].values()]
        assert sum(row["shares"].values()) == pytest.approx(1.0)
        assert row["floor"] == 0.005
        assert not row["is_own"]


def test_the_same_command_prints_the_same() -> None:
    first = run(*RATES, *SMALL).output
    assert run(*RATES, *SMALL).output == first
    assert run(*RATES, *SMALL, "--seed", "0").output == first
    other = run(*RATES, *SMALL, "--seed", "1").output
    assert rows(other) != rows(first)


def test_a_bandit_of_the_app_comes_first_with_its_own_floor() -> None:
    app = shop(floor=0.1)
    found = json.loads(run("color_btn", *RATES, *SMALL, "--json", app=app).output)
    own, *others = found["policies"]
    assert (own["name"], own["is_own"], own["floor"]) == ("color_btn", True, 0.1)
    assert own["policy"] == "ucb1()"
    assert list(own["shares"]) == ["red", "green"]
    assert [row["name"] for row in others] != []
    assert len(others) == len(POLICIES)
    text = run("color_btn", *RATES, *SMALL, app=app).output
    assert "color_btn is ucb1() with floor 0.1; the others have their defaults." in text
    assert rows(text)[0][0] == "color_btn"


def test_another_row_does_not_change_the_others() -> None:
    order = ("--rates", "red=.3,green=.05", *SMALL, "--json")
    alone = json.loads(run(*order).output)["policies"]
    assert json.loads(run("color_btn", *order, app=shop()).output)["policies"][1:] == alone


def test_the_same_policy_and_floor_give_the_same_numbers() -> None:
    found = json.loads(run("color_btn", *RATES, *SMALL, "--json", app=shop()).output)["policies"]
    (family,) = (row for row in found if row["name"] == "ucb1")
    assert {**found[0], "name": "ucb1", "is_own": False} == family


def test_no_storage_is_touched(tmp_path: Path) -> None:
    app = shop()
    file = tmp_path / "none" / "bandits.json"
    app.config.update(MAB_STORAGE_ENGINE=None, MAB_STORAGE_URI=f"json:///{file}")
    assert run("color_btn", *RATES, *SMALL, app=app).exit_code == 0
    assert not file.parent.exists()


def test_without_a_bandit_no_app_is_needed() -> None:
    result = CliRunner().invoke(simulate_command, [*RATES, *SMALL])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--rates", "green=.05"), "nothing to choose between"),
        (("--rates", ""), "nothing to choose between"),
        (("--rates", "green=.05,red"), "'red' has no rate"),
        (("--rates", "green"), "'green' has no rate"),
        (("--rates", "green=.05,,red=.1"), "give a rate to each of its arms: red, green"),
        (("--rates", "green=.05,red=1.5"), "write a number from 0 to 1"),
        (("--rates", "green=-.1,red=.5"), "write a number from 0 to 1"),
        (("--rates", "green=nan,red=.5"), "write a number from 0 to 1"),
        (("--rates", "green=5%,red=.5"), "the rate of 'green' is '5%'"),
        (("--rates", "green=,red=.5"), "the rate of 'green' is ''"),
        (("--rates", "red=.1,red=.5"), "the arm 'red' has two rates"),
        (("--rates", "red=.1,blue=.5"), "'color_btn' has no arm 'blue'"),
        ((*RATES, "--visitors", "10000001"), "1<=x<=10000000"),
        ((*RATES, "--visitors", "0"), "1<=x<=10000000"),
        ((*RATES, "--runs", "1"), "2<=x<=10000"),
        ((*RATES, "--confidence", "1"), "0.5<x<1"),
        ((*RATES, "--daily", "0"), "x>=1"),
        ((*RATES, "--seed", "-1"), "x>=0"),
        ((), "Missing option '--rates'"),
    ],
)
def test_what_cannot_be_is_an_error_that_tells_the_fix(args: tuple[str, ...], words: str) -> None:
    result = run("color_btn", *args, app=shop())
    assert result.exit_code in (1, 2)
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_bandit_that_the_app_does_not_have_is_an_error_with_the_nearest_name() -> None:
    result = run("colour_btn", *RATES, app=shop())
    assert result.exit_code == 1
    assert "did you mean 'color_btn'" in result.output
    assert "init_app" in run("color_btn", *RATES).output


def test_an_arm_without_a_rate_is_an_error() -> None:
    app = shop()
    result = run("btn", *RATES, app=app)
    assert result.exit_code == 1
    assert "'btn' also has the arm 'blue'" in result.output


@pytest.mark.parametrize(
    ("policy", "words"), [(RangePolicy(), "the reward is 0.0"), (BrokenPolicy(), "PolicySuite")]
)
def test_a_policy_that_cannot_be_simulated_is_an_error(policy: Policy, words: str) -> None:
    result = run("color_btn", *RATES, *SMALL, app=shop(policy))
    assert result.exit_code == 1
    assert words in result.output


def test_options_that_are_not_simulated_are_told() -> None:
    app = shop(holdout=0.1, half_life="1d")
    result = run("color_btn", *RATES, *SMALL, app=app)
    assert result.exit_code == 0
    assert "note: not simulated: holdout, half_life of 'color_btn'" in result.stderr


def test_names_of_arms_may_hold_commas_and_equals_signs() -> None:
    rates = "Buy now, pay later=.1, a=b=.2"
    found = json.loads(run("--rates", rates, *SMALL, "--json").output)
    assert found["rates"] == {"Buy now, pay later": 0.1, "a=b": 0.2}


def test_many_arms_are_shown_in_blocks_of_80_columns() -> None:
    names = [f"an arm whose name is long, {n}" for n in range(9)]
    rates = ",".join(f"{name}=.{n}" for n, name in enumerate(names))
    output = run("--rates", rates, "--visitors", "50", "--runs", "2").output
    assert max(map(len, output.splitlines())) <= 80
    headings = [line for line in output.splitlines() if line.startswith("policy")]
    assert len(headings) > 1
    assert "".join(headings).count("an arm whose name is lo…") == 9
    assert headings[-1].endswith("right")


class Terminal(io.StringIO):
    """Standard error of somebody who looks."""

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Simulating" not in run(*RATES, *SMALL).output
    terminal = Terminal()
    with monkeypatch.context() as each:
        each.setattr(sys, "stderr", terminal)
        with cli_simulate._progress(10) as progress:
            for _ in range(10):
                progress(1)
    assert "Simulating" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
