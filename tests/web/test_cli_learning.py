"""``flask bandit train``, ``evaluate``, ``deploy``, ``rollback``, ``models`` and ``learn``."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.cli import FlaskGroup

from flask_bandit import BanditMiddleware
from flask_bandit.learning import ExperimentManager, Job
from flask_bandit.learning.books import Books
from flask_bandit.storage import MemoryBanditStorage
from tests.clock import Clock
from tests.learning.shop import make_bandit, write_log


@pytest.fixture
def app(tmp_path: Path, clock: Clock) -> Flask:
    """A shop with a log of a thousand decisions between three offers."""
    return make_shop(tmp_path)


def make_shop(tmp_path: Path, decisions: int = 1000, **options: Any) -> Flask:
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    storage = MemoryBanditStorage()
    app.config.update(
        SECRET_KEY="k" * 32, TESTING=True, MAB_CONTROL_TTL=2, MAB_STORAGE_ENGINE=storage
    )
    mab = BanditMiddleware(app)
    mab.add_bandit("offer", make_bandit(**options))
    if decisions:
        write_log(storage, decisions, 1)
    return app


def run(app: Flask, *args: str, stdin: str | None = None) -> Any:
    """Run the command as ``flask`` does, found by its entry point."""
    group = FlaskGroup(create_app=lambda: app)
    return app.test_cli_runner().invoke(group, ["bandit", *args], input=stdin)


def done(app: Flask, *args: str, stdin: str | None = None, status: int = 0) -> str:
    result = run(app, *args, stdin=stdin)
    assert result.exit_code == status, result.output
    return " ".join(str(result.stdout).split())


def failing(app: Flask, *args: str, status: int = 1) -> str:
    result = run(app, *args)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


def experiment(app: Flask) -> ExperimentManager:
    with app.app_context():
        return ExperimentManager(app.extensions["bandit"], "offer")


def test_train(app: Flask) -> None:
    text = done(app, "train", "offer", "--set", "epsilon=.1", "--set", "explore=epsilon_greedy")
    assert text.startswith("Trained model 1 of offer, linear(epsilon_greedy=0.1), on 5")
    assert "from 2023-11-14T21:13Z to 2023-11-14T22:13Z." in text
    assert experiment(app).models()[0].params == {"epsilon": 0.1, "explore": "epsilon_greedy"}
    assert json.loads(run(app, "train", "offer", "--json").stdout)["n"] == 2


def test_settings_that_cannot_be_meant(app: Flask) -> None:
    assert "write KEY=VALUE" in failing(app, "train", "offer", "--set", "epsilon", status=2)
    assert "epsilon is 7" in failing(app, "train", "offer", "--set", "epsilon=7")
    assert "'margin'" in failing(app, "learn", "offer", "--set", "margin=1")
    assert "write a number" in failing(app, "learn", "offer", "--margin", "nan", status=2)
    assert experiment(app).models() == ()
    assert "there is no trainer 'rigde'; did you mean 'ridge'" in failing(
        app, "train", "offer", "--trainer", "rigde"
    )
    assert "there is no bandit 'ofer'; did you mean 'offer'" in failing(app, "train", "ofer")


def test_evaluate(app: Flask) -> None:
    done(app, "train", "offer")
    text = done(app, "evaluate", "offer")
    assert text.startswith("Model 1 against the policy of the code, on ")
    assert "attempt 1, error rate 0.03" in text
    assert "effective sample size" in text
    assert "is recognised with probability" in text
    assert "Nothing was judged" in failing(app, "evaluate", "offer", status=3)
    assert "no trained model 4; trained: 1" in failing(app, "evaluate", "offer", "--model", "4")


def test_evaluate_as_json(app: Flask) -> None:
    done(app, "train", "offer")
    assert "and 900 are asked for" in failing(app, "evaluate", "offer", "--least=900", status=3)
    judged = json.loads(run(app, "evaluate", "offer", "--json").stdout)
    assert (judged["n"], judged["champion"], judged["attempt"]) == (1, 0, 1)


def test_deploy_asks_saves_and_tells_when_workers_follow(app: Flask, tmp_path: Path) -> None:
    done(app, "train", "offer")
    assert experiment(app).status().champion == 0
    result = run(app, "deploy", "offer", stdin="n\n")
    assert result.exit_code == 1
    assert "Let the newest model draw the arms of 'offer'?" in result.stderr
    assert experiment(app).status().champion == 0
    text = done(app, "deploy", "offer", stdin="y\n")
    assert text.startswith("Model 1 of offer is deployed: it is better than what served. Saved")
    assert text.endswith("Workers follow within 2 s (MAB_CONTROL_TTL).")
    (saved,) = (tmp_path / "instance" / "bandit-backups").iterdir()
    assert str(saved) in text
    assert experiment(app).status().champion == 1


def test_deploy_what_is_not_better(app: Flask, tmp_path: Path) -> None:
    done(app, "train", "offer")
    text = done(app, "deploy", "offer", "--yes", "--margin", "0.9", status=3)
    assert "Model 1 of offer is not deployed: it is not shown to be better by more than" in text
    found = json.loads(run(app, "deploy", "offer", "--yes", "--margin", "0.9", "--json").stdout)
    assert found["deployed"] is False
    folder = str(tmp_path / "elsewhere")
    text = done(app, "deploy", "offer", "--yes", "--force", "--model=1", "--backup", folder)
    assert "it was forced" in text
    assert f"Saved before in {folder}" in text


def test_rollback(app: Flask) -> None:
    assert "the policy of the code serves already" in failing(app, "rollback", "offer")
    done(app, "train", "offer")
    done(app, "deploy", "offer", "--yes")
    assert run(app, "list").stdout.rstrip().endswith("model 1")
    assert "policy    model 1\n" in run(app, "show", "offer").stdout
    text = done(app, "rollback", "offer")
    assert "model 1" not in run(app, "list").stdout
    assert text.startswith("offer is served by the policy of the code again. Workers follow")
    assert experiment(app).status().champion == 0


def test_models(app: Flask) -> None:
    text = done(app, "models", "offer")
    assert text == ("offer is served by the policy of the code. There is no newer model to judge.")
    done(app, "train", "offer")
    done(app, "deploy", "offer", "--yes")
    done(app, "train", "offer", "--trainer", "fixed")
    lines = run(app, "models", "offer").stdout.splitlines()
    assert lines[0].split() == ["model", "state", "policy", "decisions", "better", "by", "at",
                                "least", "made"]  # fmt: skip
    assert lines[1].startswith("1*     DEPLOYED  linear(epsilon_greedy=0.05)")
    assert lines[2].startswith("2      TRAINED   fixed(")
    assert lines[4] == "offer is served by model 1."
    assert lines[5].startswith("Model 2 can be judged by 0 held-out decisions since 2023-11-14")
    assert lines[6].startswith("It would be attempt 2, with the error rate 0.0076;")
    found = json.loads(run(app, "models", "offer", "--json").stdout)
    assert [record["n"] for record in found["models"]] == [1, 2]
    assert found["status"]["champion"] == 1


def test_learn(app: Flask, tmp_path: Path) -> None:
    assert "is deployed" in done(app, "learn", "offer", "--set", "epsilon=0.1")
    text = done(app, "learn", "offer", status=3)
    assert "Model 2 of offer is not deployed: there are 0 held-out decisions" in text
    found = run(app, "learn", "offer", "--json")
    assert found.exit_code == 3
    assert json.loads(found.stdout)["n"] == 3


def test_learn_from_nothing_is_no_failure(tmp_path: Path) -> None:
    app = make_shop(tmp_path, decisions=0)
    assert "no decision to learn from yet" in failing(app, "learn", "offer", status=3)
    assert "no decision to learn from yet" in failing(app, "train", "offer", status=3)


def test_learn_that_fails(tmp_path: Path) -> None:
    app = make_shop(tmp_path, evaluation=0.0)
    assert "give it evaluation=0.2" in failing(app, "learn", "offer")


def in_flight(app: Flask, until: float, work: str, n: int) -> None:
    books = Books(app.extensions["bandit"].storage, "offer")
    params = {"trainer": "fixed", "params": {}} if work == "train" else {}
    job = Job("x", work, n, "host:7", time.time(), until, params=params)
    books.update(lambda index: replace(index, job=job))


def test_what_is_under_way_can_be_stopped(app: Flask, clock: Clock) -> None:
    assert done(app, "stop-learning", "offer") == "Nothing is under way for offer."
    in_flight(app, clock.now + 60.0, "train", 1)
    assert "is in flight in host:7; wait" in failing(app, "train", "offer")
    assert "'train' of model 1 in host:7, since 2023-11-14T22:13Z: under way." in done(
        app, "models", "offer"
    )
    assert "which is alive" in failing(app, "resume-learning", "offer")
    assert "host:7, since 2023-11-14T22:13Z stops within seconds" in done(
        app, "stop-learning", "offer"
    )


@pytest.mark.parametrize(
    ("work", "text"),
    [
        ("train", "Trained model 1 of offer, fixed("),
        ("evaluate", "Model 1 against the policy of the code"),
        ("deploy", "Model 1 of offer is deployed: it is better"),
    ],
)
def test_what_died_can_be_resumed(app: Flask, clock: Clock, work: str, text: str) -> None:
    if work != "train":
        done(app, "train", "offer")
    in_flight(app, clock.now, work, 1)
    assert "its process died: 'resume-learning' does it again." in done(app, "models", "offer")
    assert done(app, "resume-learning", "offer").startswith(text)
    assert experiment(app).status().job is None
