"""``flask bandit replay``."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.cli import FlaskGroup

from flask_bandit.model import Decision, LogEntry, Reward
from flask_bandit.web import cli_replay
from flask_bandit.web.admin.files import json_chunks

from .conftest import make_app

DATA = Path(__file__).parent.parent / "data"
SMALL = str(DATA / "ope_small.csv")
FEATURES = ("--features", "x1=numeric", "--features", "x2=numeric")
POLICIES = ("--policy", "thompson", "--policy", "epsilon_greedy(epsilon=0.2)")


def run(*args: str, app: Flask | None = None) -> Any:
    """Run the command as ``flask`` does; by default in an app that knows no bandits."""
    app = app or Flask("bare")
    group = FlaskGroup(create_app=lambda: app)
    return app.test_cli_runner().invoke(group, ["bandit", *args])


def replay(*args: str) -> Any:
    return run("replay", *args)


@pytest.fixture
def uniform(tmp_path: Path) -> str:
    """Return a uniform log of three arms; the first earns 1 where ``land`` is de, else others."""
    rng = random.Random(1)
    lines = ["item,click,p,land\n"]
    for _ in range(900):
        arm, land = rng.choice(["7", "8", "9"]), rng.choice(["de", "fr"])
        good = rng.random() < (0.6 if (arm == "7") == (land == "de") else 0.1)
        lines.append(f"{arm},{int(good)},0.3333333333,{land}\n")
    path = tmp_path / "uniform.csv"
    path.write_text("".join(lines))
    return str(path)


COLUMNS = ("--columns", "arm=item,reward=click,propensity=p")


def test_a_table_bars_and_curves(uniform: str) -> None:
    result = replay(uniform, *COLUMNS, *POLICIES)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "900 events of 3 arms, seed 0."
    assert lines[2].split() == ["policy", "reward", "95", "%", "interval", "events"]
    assert [line.split()[0] for line in lines[3:6]] == [
        "as",
        "thompson",
        "epsilon_greedy(epsilon=0.2)",
    ]
    assert lines[3].split()[-1] == "900"
    assert lines[7].startswith("95 % intervals, on an axis from ")
    assert all("●" in line for line in lines[8:11])
    assert lines[12].startswith("Reward per event so far, from ")
    assert all(set(line.split()[1]) <= set("▁▂▃▄▅▆▇█") for line in lines[13:15])
    assert "not uniform" not in result.output
    assert result.output == replay(uniform, *COLUMNS, *POLICIES).output
    assert result.output != replay(uniform, *COLUMNS, *POLICIES, "--seed", "1").output


def test_a_policy_that_reads_the_context_earns_more(uniform: str) -> None:
    """Seeded: about 300 events each, whose rates are .35 or less and .6."""
    features = ("--features", 'land=["de", "fr"]')
    policies = ("--policy", "lin_thompson", "--policy", "thompson")
    result = replay(uniform, *COLUMNS, *features, *policies, "--json")
    assert result.exit_code == 0, result.output
    found = {each["name"]: each for each in json.loads(result.output)["policies"]}
    assert found["lin_thompson"]["reward"]["value"] > 0.45
    assert found["thompson"]["reward"]["value"] < 0.42
    assert 230 < found["lin_thompson"]["accepted"] < 370


def test_json_has_everything(uniform: str) -> None:
    result = replay(uniform, *COLUMNS, *POLICIES, "--json")
    found = json.loads(result.output)
    assert found["seed"] == 0
    assert found["log"]["events"] == 900
    assert sorted(found["log"]["arms"]) == ["7", "8", "9"]
    assert found["log"]["uniform"] is True
    first = found["policies"][0]
    assert first["version"] == "thompson(prior=(1.0, 1.0))"
    assert first["reward"]["low"] < first["reward"]["value"] < first["reward"]["high"]
    assert first["curve"][-1][:2] == [900, first["accepted"]]


def test_csv_has_a_row_for_each_policy(uniform: str) -> None:
    result = replay(uniform, *COLUMNS, *POLICIES, "--csv")
    first, second = csv.DictReader(io.StringIO(result.output))
    assert list(first) == ["policy", "version", "accepted", "reward", "error", "low", "high"]
    assert (first["policy"], second["policy"]) == ("thompson", "epsilon_greedy(epsilon=0.2)")
    assert float(first["low"]) < float(first["reward"]) < float(first["high"])


def test_a_log_that_is_not_uniform_is_told() -> None:
    result = replay(SMALL, *FEATURES, "--policy", "lin_ucb", "--policy", "uniform")
    assert result.exit_code == 0, result.output
    assert "The log is not uniform: an arm's probability was 0.0694 to 0.852,\n" in result.output
    assert "so only about 42 events can be replayed." in result.output


def test_an_export_and_a_decision_log_can_be_replayed(tmp_path: Path) -> None:
    app = make_app()
    for number in range(120):
        client = app.test_client()
        client.get("/btn")
        if number % 3:
            client.post("/btn/click")
    export, log = str(tmp_path / "export.jsonl"), tmp_path / "log.jsonl"
    assert run("export", export, app=app).exit_code == 0
    log.write_text("".join(json_chunks(app.config["MAB_STORAGE_ENGINE"].iter_log())))
    first, second = (replay(str(file), "--policy", "thompson") for file in (export, log))
    assert first.exit_code == 0, first.output
    assert first.output.startswith("120 events of 3 arms, seed 0.\n")
    assert first.output == second.output
    assert replay(export, "--bandit", "btn", "--policy", "thompson").output == first.output
    message = replay(export, "--goal", "sale", "--policy", "thompson")
    assert message.exit_code == 1
    assert "nothing was rewarded for the goal 'sale'; name one of these with --goal: reward" in (
        message.output
    )


def decisions(count: int, **details: Any) -> list[LogEntry]:
    made = []
    for number in range(count):
        even = {"red": 0.5, "green": 0.5}
        decision = Decision(f"d{number}", "b", 1, "red", even, "p", float(number), **details)
        made.append(LogEntry(decision, (Reward("r", decision.id, "b", 1, "red", 5.0, 1.0),)))
    return made


def test_what_was_left_out_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    entries = decisions(50)
    entries += [LogEntry(Decision("f", "b", 1, "red", {"red": 1.0}, "forced", 1.0))]
    entries += [LogEntry(Decision("c", "b", 1, "red", {"red": 1.0, "green": 0.0}, "p", 1.0))]
    log.write_text("".join(json_chunks(entries)))
    result = replay(str(log), "--policy", "gaussian_thompson")
    assert "Left out: 1 forced by a test, 1 where an arm had probability 0.\n" in result.output
    wrong = replay(str(log), "--policy", "thompson")
    assert wrong.exit_code == 1
    assert "the reward is 5.0" in wrong.output


def test_a_line_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    lines = Path(SMALL).read_text().splitlines()
    lines[41] = lines[41].replace(",", ";", 1)
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join(lines))
    result = replay(str(bad), *POLICIES)
    assert result.exit_code == 1
    assert f"Error: {bad}, line 42: it has 7 cells, and there are 8 headings." in result.output
    bad.write_bytes(b"\x1f\x8b\x08\x00")
    assert "is not text in UTF-8" in replay(str(bad), *POLICIES).output
    bad.write_text("arm,reward,propensity\nred,1,0.5\n", encoding="utf-8-sig")
    assert "of 1 events only about 0.5 would be replayed" in replay(str(bad), *POLICIES).output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "Missing option '--policy'"),
        (("--policy", "thomson"), "there is no algorithm 'thomson'; did you mean 'thompson'?"),
        (("--policy", "lin_ucb"), "lin_ucb chooses by the context; name its features"),
        (("--policy", "epsilon_greedy(2)"), "cannot be read; write a name such as thompson"),
        (("--policy", "epsilon_greedy(epsilon=open)"), "cannot be read"),
        (("--policy", "epsilon_greedy(epsilon=2"), "cannot be read"),
        (("--policy", "epsilon_greedy(epsilon=2)"), "epsilon"),
        (("--policy", "no.such:Policy"), "cannot import 'no.such:Policy'"),
        (("--policy", "ucb1", "--features", "x1"), "'x1' cannot be read, or comes twice"),
        (("--policy", "ucb1", "--features", "x1=[de"), "'[de' is not JSON"),
        (("--policy", "ucb1", "--features", "x1=big"), "the feature 'x1' is 'big'"),
        (("--policy", "ucb1", "--features", "size=numeric"), "there is no column 'size'"),
        (("--policy", "ucb1", "--columns", "arm"), "'arm' cannot be read"),
        (("--policy", "ucb1", "--columns", "arms=arm"), "'arms=arm' cannot be read"),
        (("--policy", "ucb1", "--columns", "arm=item"), "there is no column 'item'"),
    ],
)
def test_what_cannot_be_meant_is_told(args: tuple[str, ...], said: str) -> None:
    result = replay(SMALL, *args)
    assert result.exit_code in (1, 2)
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_progress_is_shown_to_a_terminal(uniform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with cli_replay._progress(900, "Replaying") as progress:
        for _ in range(900):
            progress(1)
    with cli_replay._progress(None, "Reading") as progress:
        progress(1)
    assert "Replaying" in shown.getvalue()
    assert "100%" in shown.getvalue()
    assert "Reading" in shown.getvalue()
