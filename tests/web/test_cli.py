"""``flask bandit check`` and ``flask bandit import-flask-mab``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.cli import FlaskGroup

from flask_bandit import choose_arm
from flask_bandit.learned import model_key

from .conftest import make_app


def run(app: Flask, *args: str) -> Any:
    """Run the command as ``flask`` does, found by its entry point."""
    return app.test_cli_runner().invoke(FlaskGroup(create_app=lambda: app), ["bandit", *args])


def test_check_is_content_with_a_sound_app() -> None:
    result = run(make_app("a", "b"), "check")
    assert result.exit_code == 0
    assert "2 bandits, nothing to mend" in result.output


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"SECRET_KEY": None}, "SECRET_KEY"),
        ({"MAB_COOKIE_NAM": "x"}, "MAB_COOKIE_NAME"),
        ({"MAB_STORAGE_ENGINE": None, "MAB_STORAGE_URI": "x://"}, "storage"),
        (
            {"MAB_STORAGE_ENGINE": None, "MAB_STORAGE_URI": "json:////no/such/dir/b.json"},
            "/no/such",
        ),
        ({"MAB_NETWORK_LIMIT": "lots"}, "such as '100/hour'"),
        ({"MAB_NETWORK_LIMIT": "5/hour", "MAB_NETWORK_LIMIT_URI": "x://"}, "_LIMIT_URI"),
    ],
)
def test_check_finds_settings_that_cannot_work(config: dict[str, Any], words: str) -> None:
    result = run(make_app(**config), "check")
    assert result.exit_code == 1
    assert words in result.output


def test_check_finds_every_mistake_in_the_wiring() -> None:
    app = make_app()
    app.add_url_rule("/a/<btn>", "a", choose_arm("btn")(lambda btn: btn))
    app.add_url_rule("/b", "b", choose_arm("bnt")(lambda bnt: bnt))

    @choose_arm("btn")
    @app.get("/c")
    def above(btn: str = "") -> str:
        return btn

    result = run(app, "check")
    assert result.exit_code == 1
    for words in ("URL argument 'btn'", "did you mean 'btn'", "below @app.route", "3 to mend"):
        assert words in result.output


def test_check_finds_a_model_that_is_not_in_the_storage() -> None:
    app = make_app()
    engine = app.extensions["bandit"].engine
    engine.change("btn", "deploy", 2)
    result = run(app, "check")
    assert result.exit_code == 1
    assert "model 2 is deployed and not in the storage" in result.output
    assert "'rollback' it" in result.output
    engine.storage.write_digest(model_key("btn", 2), {"kind": "linear", "params": {}}, 0)
    assert run(app, "check").exit_code == 0


def test_check_without_the_extension_says_what_is_missing() -> None:
    result = run(Flask("bare"), "check")
    assert result.exit_code == 1
    assert "init_app" in result.output


def saved_by_flask_mab(path: Path, **changes: Any) -> str:
    """Write a file as Flask-MAB 3.0.4 does."""
    bandit = {
        "arms": ["green", "red", "violet"],
        "pulls": [10, 20, 5],
        "reward": [3.0, 4.0, 1.0],
        "values": ["#0F0", "#F00", "#80F"],
        "confidence": [0.3, 0.2, 0.2],
        "epsilon": 0.2,
        "bandit_type": "EpsilonGreedyBandit",
    }
    file = path / "old.json"
    file.write_text(json.dumps({"btn": {**bandit, **changes}, "gone": bandit}, indent=4))
    return str(file)


def test_import_adds_the_counts_once(tmp_path: Path) -> None:
    app = make_app()
    file = saved_by_flask_mab(tmp_path)
    first = run(app, "import-flask-mab", file)
    assert first.exit_code == 0
    assert "btn: 35 pulls, reward 8: imported" in first.output
    assert "gone: the app has no such bandit" in first.output
    assert "'violet' is no longer in the code" in first.output
    again = run(app, "import-flask-mab", file)
    assert "imported before, nothing added" in again.output
    stats = app.extensions["bandit"].engine.stats()["btn"]
    assert (stats["green"].pulls, stats["green"].rewards, stats["green"].reward) == (10, 3, 3.0)
    assert stats["blue"].pulls == 0


def test_import_says_where_flask_mab_lost_pulls(tmp_path: Path) -> None:
    app = make_app()
    file = saved_by_flask_mab(tmp_path, pulls=[1, 20, 5])
    result = run(app, "import-flask-mab", file)
    assert result.exit_code == 0
    assert "a reward of 3 in 1 pulls" in result.output


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{not json",
        "[" * 100_000,
        '{"btn": {"arms": ["a"]}}',
        '{"btn": 3}',
        '{"btn": {"arms": ["a"], "pulls": [-5], "reward": [0]}}',
        '{"btn": {"arms": ["a"], "pulls": [5], "reward": [NaN]}}',
        '{"btn": {"arms": ["a"], "pulls": [Infinity], "reward": [0]}}',
        '{"btn": {"arms": ["a", "a"], "pulls": [1, 2], "reward": [0, 0]}}',
    ],
    ids=range(10),
)
def test_import_refuses_another_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    result = run(make_app(), "import-flask-mab", str(file))
    assert result.exit_code == 1
    assert str(file) in result.output
    assert "Traceback" not in result.output
