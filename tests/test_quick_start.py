"""Flask-MAB's quick start with nothing changed but the import name, and a SECRET_KEY."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flask import Flask

from flask_bandit import (
    BanditMiddleware,
    add_bandit,
    choose_arm,
    reward,
    reward_endpt,
    suggest_arm_for,
)
from flask_bandit.bandits import EpsilonGreedyBandit


def test_it_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "quick start"
    app.config["MAB_STORAGE_ENGINE"] = "JSONBanditStorage"
    app.config["MAB_STORAGE_OPTS"] = ("./bandit_storage.json",)
    mab = BanditMiddleware()
    mab.init_app(app)

    color = EpsilonGreedyBandit(0.2)
    color.add_arm("green", "#00FF00")
    color.add_arm("red", "#FF0000")
    app.add_bandit("color_btn", color)  # type: ignore[attr-defined]

    txt = EpsilonGreedyBandit(0.5)
    txt.add_arm("casual", "Hey")
    add_bandit(app, "txt_btn", txt)

    @app.route("/")
    @mab.choose_arm("color_btn")
    @mab.choose_arm("txt_btn")
    def home(color_btn: str, txt_btn: str) -> str:
        return f"{color_btn} {txt_btn}"

    @app.route("/btnclick")
    @mab.reward_endpt("color_btn", 1.0)
    @mab.reward_endpt("txt_btn", 1.0)
    def click() -> str:
        return "clicked"

    @app.route("/inline")
    def inline() -> str:
        arm_id, value = suggest_arm_for("color_btn")
        assert mab.suggest_arm_for("color_btn") == (arm_id, value)
        return str(reward("color_btn", 1.0))

    client = app.test_client()
    page = client.get("/").text
    assert page in ("#00FF00 Hey", "#FF0000 Hey")
    assert client.get("/").text == page
    assert client.get("/btnclick").text == "clicked"
    assert client.get("/inline").text == "True"
    arm = mab.stats("color_btn")["green" if page.startswith("#00") else "red"]
    assert (arm.pulls, arm.reward, arm.mean) == (1, 1.0, 1.0)

    app.extensions["bandit"].storage.close()
    text = (tmp_path / "bandit_storage.json").read_text()
    assert "color_btn" in json.dumps(json.loads(text))


def test_method_and_function_are_the_same_thing() -> None:
    assert BanditMiddleware.choose_arm is choose_arm
    assert BanditMiddleware.reward_endpt is reward_endpt
