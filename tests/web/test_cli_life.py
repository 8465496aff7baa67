"""``flask bandit list``, ``show``, the actions and ``close-windows``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.cli import FlaskGroup

from flask_bandit import BanditMiddleware
from flask_bandit.bandits import Bandit, ThompsonBandit
from flask_bandit.model import StatsDelta
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import Adjustment, BanditStorage, Commit
from flask_bandit.testing.storage_samples import decision, earn, pull, reward
from flask_bandit.web import cli_life
from flask_bandit.web.reports import Stored, report

from .conftest import add_pages, make_app

WIDTH = 80


def shop(*names: str, **config: Any) -> Flask:
    return make_app(*names, **{"TESTING": True, "MAB_CONTROL_TTL": 0, **config})


def with_bandit(bandit: Bandit, storage: BanditStorage | None = None) -> Flask:
    """Return an app with one bandit, ``btn``, and its pages."""
    app = Flask("shop")
    app.config.update(
        SECRET_KEY="k" * 32,
        TESTING=True,
        MAB_CONTROL_TTL=0,
        MAB_STORAGE_ENGINE=storage or MemoryBanditStorage(),
    )
    BanditMiddleware(app).add_bandit("btn", bandit)
    add_pages(app, "btn")
    return app


def thompson(**options: Any) -> Bandit:
    bandit = ThompsonBandit(**options)
    for arm in ("green", "red", "blue"):
        bandit.add_arm(arm)
    return bandit


def run(app: Flask, *args: str, stdin: str | None = None) -> Any:
    """Run the command as ``flask`` does, found by its entry point."""
    group = FlaskGroup(create_app=lambda: app)
    return app.test_cli_runner().invoke(group, ["bandit", *args], input=stdin)


def done(app: Flask, *args: str, stdin: str | None = None) -> str:
    """Run a command that goes well and return what it prints."""
    result = run(app, *args, stdin=stdin)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def failing(app: Flask, *args: str, status: int = 1) -> str:
    """Run a command that fails and return the message."""
    result = run(app, *args)
    assert result.exit_code == status
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


def storage_of(app: Flask) -> BanditStorage:
    storage: BanditStorage = app.extensions["bandit"].storage
    return storage


def add(
    app: Flask, sums: dict[str, dict[str, float]], bandit: str = "btn", version: int = 1
) -> None:
    """Add sums to what is stored."""
    id_ = f"{bandit}:{version}:{len(list(storage_of(app).iter_commits()))}"
    adjustment = Adjustment(id_, bandit, version, StatsDelta(sums))
    storage_of(app).commit(Commit(adjustments=(adjustment,)))


def arms_shown(app: Flask, visitors: int = 20) -> set[str]:
    """Return the arms that new visitors see."""
    return {app.test_client().get("/btn").text.lstrip("#") for _ in range(visitors)}


def state_of(app: Flask, name: str = "btn") -> str:
    return str(storage_of(app).read_control().get(name, {}).get("state", "running"))


# The actions, and what visitors see then


def test_pause_and_resume() -> None:
    app = shop()
    output = done(app, "pause", "btn")
    assert output == (
        "btn is paused: everybody gets 'green', the control, and nothing is counted.\n"
        "Workers follow at once (MAB_CONTROL_TTL).\n"
    )
    assert arms_shown(app) == {"green"}
    assert sum(row.pulls for row in app.extensions["bandit"].engine.stats()["btn"].values()) == 0
    assert "btn is running: new visitors get an arm by uniform" in done(app, "resume", "btn")
    assert len(arms_shown(app)) > 1


def test_pause_does_not_ask() -> None:
    assert run(shop(), "pause", "btn", stdin="").exit_code == 0


def test_close_keeps_the_arms_of_those_who_have_one() -> None:
    app = shop()
    clients = [app.test_client() for _ in range(20)]
    before = [client.get("/btn").text for client in clients]
    assert "visitors keep their arms, and new ones get 'green'" in done(app, "close", "btn")
    assert [client.get("/btn").text for client in clients] == before
    assert arms_shown(app) == {"green"}


def test_declare_and_reopen() -> None:
    app = shop()
    output = done(app, "declare", "btn", "red", "--yes")
    assert "btn is declared: everybody gets 'red', the winner, and nothing is counted.\n" in output
    assert arms_shown(app) == {"red"}
    done(app, "reopen", "btn")
    assert len(arms_shown(app)) > 1


def test_archive_shows_the_winner() -> None:
    app = shop()
    assert "everybody gets 'green', the control" in done(app, "archive", "btn", "--yes")
    assert arms_shown(app) == {"green"}
    done(app, "reopen", "btn")
    done(app, "declare", "btn", "blue", "--yes")
    assert "everybody gets 'blue', the winner" in done(app, "archive", "btn", "--yes")
    assert arms_shown(app) == {"blue"}


def test_reset_starts_at_zero_and_keeps_the_old_counts() -> None:
    app = shop()
    arms_shown(app, 5)
    assert "btn is running as version 2, from zero: " in done(app, "reset", "btn", "--yes")
    arms_shown(app, 2)
    found = {
        version: sum(
            arm["sums"]["pulls"]
            for arm in json.loads(done(app, "show", "btn", "--json", "--version", version))["arms"]
        )
        for version in ("1", "2")
    }
    assert found == {"1": 5, "2": 2}


def test_weights() -> None:
    app = shop()
    output = done(app, "weights", "btn", "green=0", "red=2.5", "blue=off")
    assert (
        "new visitors get 'red' (weight 2.5) by uniform(); visitors of 'green' keep it; visitors of"
        " 'blue' get another arm.\n"
    ) in output
    assert arms_shown(app) == {"red"}
    assert "'red' (weight 2.5) or 'blue' by" in done(app, "weights", "btn", "blue=on")
    assert arms_shown(app) == {"red", "blue"}
    assert storage_of(app).read_control()["btn"]["weights"] == {"green": 0.0, "red": 2.5}


def test_an_arm_with_an_equals_sign_can_be_weighted() -> None:
    bandit = Bandit()
    bandit.add_arm("x=1")
    bandit.add_arm("-y")
    app = with_bandit(bandit)
    done(app, "weights", "btn", "x=1=3", "--", "-y=2")
    assert storage_of(app).read_control()["btn"]["weights"] == {"x=1": 3.0, "-y": 2.0}


def test_several_at_once() -> None:
    app = shop("a", "b", "c")
    output = done(app, "pause", "a", "c", "a")
    assert [line.split()[0] for line in output.splitlines()] == ["a", "c", "Workers"]
    assert [state_of(app, name) for name in "abc"] == ["paused", "running", "paused"]


def test_what_is_so_already_is_said_and_is_no_failure() -> None:
    app = shop()
    for action in (
        ["pause", "btn"],
        ["resume", "btn"],
        ["close", "btn"],
        ["reopen", "btn"],
        ["weights", "btn", "red=2"],
        ["declare", "btn", "red", "--yes"],
        ["archive", "btn", "--yes"],
    ):
        assert "already" not in done(app, *action)
        stored = storage_of(app).read_control()
        # Without --yes: there is nothing to ask.
        again = done(app, *[word for word in action if word != "--yes"])
        assert " already: " in again
        assert "Workers" not in again
        assert storage_of(app).read_control() == stored


# Refusals: nothing is changed


@pytest.mark.parametrize(
    "command",
    [
        ["pause", "btn", "btm"],
        ["close", "btn", "btm"],
        ["declare", "btm", "red", "--yes"],
        ["archive", "btn", "btm", "--yes"],
        ["reset", "btn", "btm", "--yes"],
        ["weights", "btm", "red=2"],
        ["show", "btm"],
        ["close-windows", "btm"],
    ],
)
def test_an_unknown_name(command: list[str]) -> None:
    app = shop()
    assert "did you mean 'btn'?" in failing(app, *command)
    assert storage_of(app).read_control() == {}


def test_all_are_changed_or_none() -> None:
    app = shop("a", "b")
    done(app, "declare", "b", "red", "--yes")
    assert failing(app, "pause", "a", "b") == (
        "Error: b: it is declared and cannot be paused; reopen it first"
    )
    assert state_of(app, "a") == "running"


def test_an_unknown_arm() -> None:
    app = shop()
    for command in (["declare", "btn", "rde", "--yes"], ["weights", "btn", "rde=1"]):
        assert "btn: there is no arm 'rde'; known: green, red, blue" in failing(app, *command)


@pytest.mark.parametrize(
    ("pairs", "status", "words"),
    [
        (["red"], 2, "'red' is no weight; write ARM=2"),
        (["red=many"], 2, "'red=many' is no weight"),
        (["=2"], 2, "'=2' is no weight"),
        (["red=1", "red=2"], 2, "the arm 'red' has two weights"),
        ([], 2, "Missing argument"),
        (["red=nan"], 1, "a number from 0 to 1000000"),
        (["red=-1"], 1, "a number from 0 to 1000000"),
        (["red=0", "green=off", "blue=off"], 1, "no arm would be left"),
    ],
)
def test_weights_that_are_none(pairs: list[str], status: int, words: str) -> None:
    app = shop()
    assert words in failing(app, "weights", "btn", *pairs, status=status)
    assert storage_of(app).read_control() == {}


def test_a_storage_that_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "bandits.json"
    path.with_name("bandits.json.log").write_text("damaged\n")
    for command in (["list"], ["show", "btn"], ["pause", "btn"], ["close-windows"]):
        app = make_app(MAB_STORAGE_ENGINE=None, MAB_STORAGE_URI=f"json:///{path}")
        bandit = app.extensions["bandit"].registry["btn"]
        bandit.options = thompson(reward_window="1h").options
        assert str(path) in failing(app, *command)


@pytest.mark.parametrize("command", [["list"], ["show", "btn"], ["pause", "btn"]])
def test_an_app_without_bandits(command: list[str]) -> None:
    assert "init_app" in failing(Flask("bare"), *command)


# Questions


@pytest.mark.parametrize(
    ("command", "question"),
    [
        (["declare", "btn", "red"], "Give 'red' of 'btn' to everybody and count nothing?"),
        (["archive", "btn"], "Archive 'btn'? Then everybody gets 'green', the control."),
        (["reset", "btn"], "Start 'btn' again at zero, as version 2?"),
    ],
)
def test_what_is_destructive_asks(command: list[str], question: str) -> None:
    app = shop()
    for answer in ("n\n", ""):
        result = run(app, *command, stdin=answer)
        assert result.exit_code == 1
        assert question in result.stderr
        assert storage_of(app).read_control() == {}
    result = run(app, *command, "--json", stdin="y\n")
    assert result.exit_code == 0
    # The question does not spoil what a program reads.
    assert json.loads(result.stdout)[0]["changed"] is True
    assert len(storage_of(app).read_control()["btn"]["history"]) == 1


# JSON


def test_actions_as_json() -> None:
    app = shop("a", "b", MAB_CONTROL_TTL=3)
    done(app, "pause", "b")
    outcomes = json.loads(done(app, "pause", "a", "b", "--json"))
    assert outcomes == [
        {
            "name": name,
            "changed": name == "a",
            "state": "paused",
            "version": 1,
            "winner": None,
            "weights": {},
            "visitors": "everybody gets 'green', the control, and nothing is counted",
            "followed_within": 3.0,
        }
        for name in "ab"
    ]
    weighted = json.loads(done(app, "weights", "a", "red=2", "blue=off", "--json"))
    assert weighted[0]["weights"] == {"red": 2.0, "blue": None}


def test_actions_say_when_workers_follow() -> None:
    assert "Workers follow within 3 s (MAB_CONTROL_TTL).\n" in done(
        shop(MAB_CONTROL_TTL=3), "pause", "btn"
    )


# A storage in memory


def test_memory_is_noted_and_standard_output_stays_clean() -> None:
    app = shop(TESTING=False, DEBUG=True)
    for command in (["list"], ["show", "btn"], ["pause", "btn"], ["close-windows"]):
        result = run(app, *command, "--json")
        assert "note: this app keeps its bandits in memory" in result.stderr
        json.loads(result.stdout)


# List


def test_list() -> None:
    app = shop("a", "b")
    assert done(app, "list").splitlines() == [
        "name  state    version  decisions  best so far  policy",
        "a     running        1          0  -            uniform()",
        "b     running        1          0  -            uniform()",
    ]
    add(app, {"green": {"pulls": 1200, "rewards": 10, "reward": 10.0}}, "a")
    add(app, {"red": {"pulls": 400, "rewards": 20, "reward": 20.0}}, "a")
    done(app, "declare", "a", "green", "--yes")
    done(app, "reset", "b", "--yes")
    assert done(app, "list").splitlines()[1:] == [
        "a     declared green        1      1,600  red 0.05     uniform()",
        "b     running               2          0  -            uniform()",
    ]


def test_list_hides_what_is_archived() -> None:
    app = shop("a", "b")
    done(app, "archive", "a", "--yes")
    result = run(app, "list")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["name", "b"]
    assert result.stderr == "1 archived; --all lists them.\n"
    assert [each["name"] for each in json.loads(done(app, "list", "--json"))] == ["b"]
    assert [each["name"] for each in json.loads(done(app, "list", "--json", "--all"))] == ["a", "b"]


def test_list_has_what_is_stored_and_not_in_the_code() -> None:
    app = shop()
    add(app, {"x": {"pulls": 3}}, "gone")
    storage_of(app).write_control("older", {"state": "paused", "version": 2}, None)
    lines = done(app, "list").splitlines()
    assert lines[2].split() == ["gone", "running", "1", "3", "-", "not", "in", "the", "code"]
    assert lines[3].split()[:3] == ["older", "paused", "2"]
    found = {each["name"]: each["in_code"] for each in json.loads(done(app, "list", "--json"))}
    assert found == {"btn": True, "gone": False, "older": False}


def test_what_is_not_in_the_code_can_be_put_away() -> None:
    app = shop()
    add(app, {"x": {"pulls": 3}}, "gone")
    assert "'gone' is stored and not in the code" in failing(app, "pause", "gone")
    assert "it is not in the code, so nobody sees it" in done(app, "archive", "gone", "--yes")
    assert "gone" not in done(app, "list")
    assert "gone: archived" in done(app, "show", "gone")
    done(app, "reopen", "gone")
    assert "gone" in done(app, "list")


def test_the_best_arm_is_one_that_visitors_can_get() -> None:
    app = shop()
    add(app, {"old": {"pulls": 1, "rewards": 1, "reward": 1.0}})
    add(app, {"blue": {"pulls": 2, "rewards": 1, "reward": 1.0}})
    add(app, {"red": {"pulls": 4, "rewards": 1, "reward": 1.0}})
    assert json.loads(done(app, "list", "--json"))[0]["best"] == "blue"
    done(app, "weights", "btn", "blue=off")
    assert json.loads(done(app, "list", "--json"))[0]["best"] == "red"


def test_a_list_without_bandits() -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, TESTING=True, MAB_STORAGE_ENGINE=MemoryBanditStorage())
    BanditMiddleware(app)
    assert done(app, "list") == "There is no bandit yet.\n"
    assert json.loads(done(app, "list", "--json")) == []


# Show


def test_show_a_new_bandit() -> None:
    assert done(shop(), "show", "btn").splitlines() == [
        "btn: running, version 1",
        "New visitors get an arm by uniform(), and the others keep theirs.",
        "policy    uniform()",
        "options   floor 0.005, goal reward",
        "",
        "No visitors yet.",
        "",
        "arm    pulls  rewards  mean  P(best)    now",
        "green      0        0     -           33.3%",
        "red        0        0     -           33.3%",
        "blue       0        0     -           33.3%",
    ]


@pytest.fixture
def rich() -> Flask:
    """An app whose bandit has one of everything."""
    options = {"holdout": 0.1, "goals": {"a:b": "numeric"}, "reward_window": "7d", "burn_in": 9}
    app = with_bandit(thompson(**options))
    sums: dict[str, float] = {"pulls": 1000, "rewards": 50, "reward": 50.0, "reward_sq": 50.0}
    order = {"goal:a:b:rewards": 4, "goal:a:b:reward": 100.0, "goal:a:b:reward_sq": 2500.0}
    held_out = {"holdout:pulls": 100, "holdout:rewards": 2, "holdout:reward": 2.0}
    late = {"holdout:goal:a:b:rewards": 1, "holdout:goal:a:b:reward": 9.0}
    add(app, {"green": {**sums, **order, **held_out, **late}, "red": {"pulls": 1000, "late": 3}})
    add(app, {"old": {"pulls": 5}})
    skipped = {"bot": 312, "prefetch": 41, "override": 1, "no_consent": 1200, "weather": 2}
    add(app, {"": {f"{reason}:skipped": number for reason, number in skipped.items()}})
    return app


def test_show_everything(rich: Flask) -> None:
    done(rich, "weights", "btn", "red=2", "blue=off")
    lines = done(rich, "show", "btn").splitlines()
    options = lines.index("policy    thompson(prior=(1.0, 1.0))") + 1
    assert lines[0] == "btn: running, version 1"
    assert lines[options : options + 2] == [
        "options   floor 0.005, burn_in 9, holdout 0.1, goal reward, goals a:b=numeric,",
        "          reward_window 1w",
    ]
    assert lines[options + 2].startswith("history   ")
    assert lines[options + 2].endswith(" UTC  weights red=2 blue=off")
    assert lines[options + 3 : options + 15] == [
        "",
        lines[options + 4],
        "",
        "arm        weight  pulls  rewards  mean  late  P(best)    now",
        "green           1  1,000       50  0.05     0   >99.9%  33.4%",
        "red             2  1,000        0     0     3    <0.1%  66.6%",
        "old                    5        0     0     0",
        "blue          off      0        0     -     0            0.0%",
        "(holdout)            100        2  0.02     0",
        "not in the code: old",
        "",
        "95 % posterior intervals of the means, on an axis from 0 to 0.06533",
    ]
    assert lines[options + 4].startswith("green is best")
    assert lines[options + 15].startswith("green  0.03817 to 0.06533  ")
    assert [line.split()[0] for line in lines[options + 15 : options + 17]] == ["green", "red"]
    assert any(line.startswith("Reward gained over an equal split: ") for line in lines)
    assert lines[lines.index("goal  arm        rewards  sum  per pull") :] == [
        "goal  arm        rewards  sum  per pull",
        "a:b   green            4  100       0.1",
        "a:b   (holdout)        1    9      0.09",
        "",
        "Mean of those who are not held out 0.02494, of the holdout 0.02: lift +0.004938.",
        "",
        "not counted: 1,200 without consent, 312 bots, 41 prefetches, 2 weather, 1",
        "             override",
    ]
    assert max(map(len, lines)) <= WIDTH


def test_show_as_json(rich: Flask) -> None:
    found = json.loads(done(rich, "show", "btn", "--json"))
    assert found["options"]["reward_window"] == 604800.0
    assert found["options"]["goals"] == {"a:b": "numeric"}
    green, red, blue, old = found["arms"]
    assert green["sums"] == {"pulls": 1000, "rewards": 50, "reward": 50.0, "mean": 0.05, "late": 0}
    assert green["goals"]["a:b"]["mean"] == 0.1
    assert (red["sums"]["late"], blue["weight"], old["in_code"]) == (3, 1.0, False)
    assert sum(arm["probability"] for arm in found["arms"]) == pytest.approx(1.0)
    assert found["holdout"]["sums"]["mean"] == 0.02
    assert found["holdout"]["others_mean"] == pytest.approx(50 / 2005)
    assert found["holdout"]["lift"] == pytest.approx(50 / 2005 - 0.02)
    assert found["not_counted"]["bot"] == 312
    assert [row["arm"] for row in found["results"]["arms"]] == ["green", "red", "old", "blue"]
    assert found["results"]["verdict"]["sentence"] in " ".join(done(rich, "show", "btn").split())


def test_show_without_being_asked_for_more(rich: Flask) -> None:
    """No rewards window and no late rewards: no such column."""
    assert "late" not in done(shop(), "show", "btn")
    assert "late" in done(rich, "show", "btn")


@pytest.mark.parametrize(
    ("action", "now"),
    [
        (["pause", "btn"], {"green": 1.0, "red": 0.0, "blue": 0.0}),
        (["close", "btn"], {"green": 1.0, "red": 0.0, "blue": 0.0}),
        (["declare", "btn", "red", "--yes"], {"green": 0.0, "red": 1.0, "blue": 0.0}),
        (["archive", "btn", "--yes"], {"green": 1.0, "red": 0.0, "blue": 0.0}),
    ],
)
def test_the_probabilities_are_those_of_the_next_new_visitor(
    action: list[str], now: dict[str, float]
) -> None:
    app = shop()
    done(app, *action)
    arms = json.loads(done(app, "show", "btn", "--json"))["arms"]
    assert {arm["arm"]: arm["probability"] for arm in arms} == now


def test_an_older_version_is_read_only(rich: Flask) -> None:
    done(rich, "reset", "btn", "--yes")
    lines = done(rich, "show", "btn", "--version", "1").splitlines()
    assert lines[:3] == ["btn: version 1 of 2, read-only", "versions  1, 2", ""]
    assert " leads with " in lines[3]
    assert lines[5].split() == ["arm", "pulls", "rewards", "mean", "late", "P(best)"]
    assert lines[6].split()[:5] == ["green", "1,000", "50", "0.05", "0"]
    assert "versions  1, 2" in done(rich, "show", "btn")
    assert "there is 1, 2" in failing(rich, "show", "btn", "--version", "3")


def test_robots_of_the_app_are_shown() -> None:
    """Who is left out is told: Split #337."""
    app = shop()
    app.test_client().head("/btn")
    app.test_client().get("/btn")
    assert "not counted: 1 HEAD request\n" in done(app, "show", "btn")


def test_weights_are_shown_where_they_do_something() -> None:
    app = shop()
    assert "weight" not in done(app, "show", "btn")
    done(app, "weights", "btn", "red=2")
    assert "arm    weight  pulls" in done(app, "show", "btn")
    done(app, "weights", "btn", "red=1", "blue=off")
    assert "arm    weight  pulls" in done(app, "show", "btn")


def test_show_in_a_terminal_that_is_not_utf_8() -> None:
    """Bars are in ASCII, and what a name has beyond the terminal's letters is a question mark."""
    bandit = Bandit()
    for arm in ("größe", "サイズ"):
        bandit.add_arm(arm)
    app = with_bandit(bandit)
    for arm, earned in (("größe", 50), ("サイズ", 60)):
        add(app, {arm: {"pulls": 1000, "rewards": earned, "reward": earned, "reward_sq": earned}})
    group = FlaskGroup(create_app=lambda: app)
    latin = app.test_cli_runner(charset="latin-1").invoke(group, ["bandit", "show", "btn"])
    assert latin.exit_code == 0, latin.output
    assert "größe" in latin.stdout
    assert "???" in latin.stdout
    assert "-o-" in latin.stdout
    fine = done(app, "show", "btn")
    assert "サイズ" in fine
    assert "─●─" in fine


def test_since_when() -> None:
    app = shop()
    before = int(time.time())
    done(app, "pause", "btn")
    stored = Stored.read(app.extensions["bandit"].bandits, storage_of(app))
    found = report(stored, "btn")
    assert [change.what for change in found.history] == ["pause"]
    since = found.history[0].at
    assert time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before)) <= since
    assert since.endswith("+00:00")
    shown = f"btn: paused, version 1, since {since[:10]} {since[11:16]} UTC\n"
    assert done(app, "show", "btn").startswith(shown)


def test_the_winner_that_the_code_lost() -> None:
    app = shop()
    storage_of(app).write_control("btn", {"state": "declared", "winner": "pink"}, None)
    assert "gets 'green', the control, since the winner 'pink' is not in the code" in " ".join(
        done(app, "show", "btn").split()
    )


def test_long_names_fit_in_80_columns() -> None:
    name, arm = "b" * 90, "é" * 150
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, TESTING=True, MAB_STORAGE_ENGINE=MemoryBanditStorage())
    bandit = ThompsonBandit(goals={"g" * 90: "every"}, half_life="36h")
    bandit.add_arm(arm)
    bandit.add_arm("b")
    BanditMiddleware(app).add_bandit(name, bandit)
    sums = {"pulls": 12345678, "rewards": 1234567, "reward": 1.5e6}
    add(app, {arm: {**sums, f"goal:{'g' * 90}:rewards": 3}}, name)
    done(app, "declare", name, arm, "--yes")
    for command in (["list"], ["show", name]):
        lines = done(app, *command).splitlines()
        assert max(map(len, lines)) <= WIDTH


def test_time_spans_are_shown_as_they_are_written() -> None:
    for written, shown in (("36h", "36h"), ("90s", "90s"), ("14d", "2w"), (180, "3m")):
        app = with_bandit(thompson(reward_window=written))
        assert f"reward_window {shown}\n" in done(app, "show", "btn")


# Reward windows


def windowed() -> tuple[Flask, BanditStorage]:
    """Return an app whose bandit has a decision with a reward that is due, and one that is not."""
    storage = MemoryBanditStorage()
    app = with_bandit(thompson(reward_window="1h"), storage)
    old = decision("old", bandit="btn", at=time.time() - 7200)
    new = decision("new", bandit="btn", at=time.time() - 60)
    storage.commit(Commit((pull(old), pull(new)), (earn(reward(old)),)))
    return app, storage


def learned(storage: BanditStorage) -> float:
    return sum(
        row.get("learn:pulls", 0)
        for arms in storage.read_counts().values()
        for row in arms.values()
    )


@pytest.mark.parametrize("names", [[], ["btn"], ["btn", "btn"]])
def test_close_windows(names: list[str]) -> None:
    app, storage = windowed()
    assert done(app, "close-windows", *names) == "btn: learned from 1 decision.\n"
    assert learned(storage) == 1
    assert done(app, "close-windows", *names) == "btn: learned from 0 decisions.\n"
    found = json.loads(done(app, "close-windows", "--json", *names))
    assert found == [{"name": "btn", "learned": 0}]
    assert learned(storage) == 1


def test_close_windows_learns_what_an_import_brought() -> None:
    app, storage = windowed()
    done(app, "close-windows")
    storage.commit(Commit((pull(decision("older", bandit="btn", at=time.time() - 9000)),)))
    assert done(app, "close-windows") == "btn: learned from 1 decision.\n"


def test_no_window_to_close() -> None:
    app = shop()
    assert done(app, "close-windows") == "No bandit has a reward_window.\n"
    assert json.loads(done(app, "close-windows", "--json")) == []
    assert "'btn' has no reward_window" in failing(app, "close-windows", "btn")


def test_close_windows_shows_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    app, _ = windowed()
    told: list[int] = []

    class Bar:
        def __init__(self, label: str, length: int) -> None:
            assert (label, length) == ("Closing windows of btn", 2)

        def __enter__(self) -> Callable[[int], object]:
            return told.append

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(cli_life, "progress_bar", Bar)
    done(app, "close-windows")
    assert told == [1]


def ids(storage: BanditStorage) -> list[str]:
    return [entry.decision.id for entry in storage.iter_log()]


def test_prune_learns_first_and_spares_open_windows() -> None:
    app, storage = windowed()
    now = datetime.now(timezone.utc).isoformat()
    result = run(app, "prune", "--before", now, stdin="n\n")
    assert "Remove the details of 1 decision made before" in result.stdout
    assert learned(storage) == 0
    result = run(app, "prune", "--yes", "--before", now)
    assert result.stdout == "Removed the details of 1 decision.\n"
    assert "are kept: the reward window of 'btn' may be open." in result.stderr
    assert ids(storage) == ["new"]
    assert learned(storage) == 1


def test_prune_before_the_windows_says_nothing_of_them() -> None:
    app, storage = windowed()
    result = run(app, "prune", "--yes", "--before", "2020-01-01")
    assert (result.stdout, result.stderr) == ("Removed the details of 0 decisions.\n", "")
    assert ids(storage) == ["old", "new"]


def test_show_says_where_the_rest_of_the_history_is() -> None:
    app = shop()
    for action in ("pause", "resume") * 3:
        assert "before; --json" not in done(app, "show", "btn")
        done(app, action, "btn")
    lines = done(app, "show", "btn").splitlines()
    assert "          1 before; --json has all" in lines
    assert len(json.loads(done(app, "show", "btn", "--json"))["history"]) == 6
