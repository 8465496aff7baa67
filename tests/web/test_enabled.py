"""``MAB_ENABLED = False``: the control for everybody, and no trace of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, render_template_string

from flask_bandit import BanditMiddleware, reward, suggest_arm_for
from flask_bandit.testing import force
from flask_bandit.web.cli import bandit_cli

from .conftest import add_pages, colours, set_cookies


class Untouchable:
    """Stands where a storage is made, and fails the test."""

    def __init__(self, *_: Any) -> None:
        raise AssertionError("a storage was made")


def shop(enabled: Any = False, **config: Any) -> tuple[Flask, BanditMiddleware]:
    app = Flask("shop")
    app.config.update(MAB_ENABLED=enabled, MAB_STORAGE_ENGINE=f"{__name__}.Untouchable", **config)
    mab = BanditMiddleware(app)
    mab.add_bandit("btn", colours())
    add_pages(app, "btn")
    return app, mab


@pytest.mark.parametrize("value", [False, "False", "0", "no", "off"])
def test_everybody_gets_the_control_and_nothing_is_touched(value: Any) -> None:
    app, _ = shop(value, SECRET_KEY="k" * 32, MAB_DEBUG_HEADERS=True)
    heard: list[bool] = []

    @app.post("/buy")
    def buy() -> str:
        heard.append(reward("btn"))
        return suggest_arm_for("btn")[0]

    for _ in range(5):
        client = app.test_client()
        client.set_cookie("MAB", "of another time")
        responses = [client.get("/btn"), client.post("/btn/click"), client.post("/buy")]
        assert [r.status_code for r in responses] == [200, 200, 200]
        assert (responses[0].text, responses[2].text) == ("#green", "green")
        for response in responses:
            assert not set_cookies(response)
            # So that no shared cache goes on with it when it is switched on.
            assert response.headers["Cache-Control"] == "private"
        assert responses[0].headers["X-MAB-Debug"] == "CONTROL; btn:green"
    assert heard == [False] * 5
    assert app.extensions["bandit"]._engine is None


def test_no_secret_key_is_needed() -> None:
    app, _ = shop()
    assert app.test_client().get("/btn").text == "#green"


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "HEAD"},
        {"headers": {"User-Agent": "Googlebot/2.1"}},
        {"headers": {"Sec-Purpose": "prefetch"}},
        {"query_string": {"mab_btn": "red"}},
    ],
    ids=str,
)
def test_no_kind_of_request_opens_a_storage(request_: dict[str, Any]) -> None:
    app, _ = shop(DEBUG=True)
    page = app.test_client().open("/btn", **request_)
    assert page.status_code == 200
    assert page.text in ("", "#green")
    assert not set_cookies(page)


def test_templates_tokens_and_visits_without_a_request() -> None:
    app, mab = shop(SECRET_KEY="k" * 32)

    @app.get("/template")
    def template() -> str:
        return render_template_string("{{ bandit_arm('btn') }}|{{ bandit_token('btn') }}")

    assert app.test_client().get("/template").text == "#green|"
    with mab.visit(subject=42) as visit:
        assert visit.choose("btn") == ("green", "#green")
        assert visit.reward("btn") is False
        assert visit.token("btn") == ""
    assert app.extensions["bandit"]._engine is None


def test_forgetting_says_that_nothing_was_erased_and_leaves_the_cookie() -> None:
    app, mab = shop(SECRET_KEY="k" * 32)
    app.add_url_rule("/forget", view_func=lambda: str(mab.forget()))
    client = app.test_client()
    client.set_cookie("MAB", "of another time")
    page = client.get("/forget")
    assert page.text == "False"
    assert not set_cookies(page)


def test_a_view_that_fails_and_its_error_page() -> None:
    app, _ = shop()

    @app.get("/fails")
    def fails() -> str:
        suggest_arm_for("btn")
        raise ZeroDivisionError

    @app.errorhandler(500)
    def sorry(error: Exception) -> tuple[str, int]:
        return suggest_arm_for("btn")[0], 500

    page = app.test_client().get("/fails")
    assert (page.status_code, page.text) == (500, "green")


def test_what_a_test_forces_is_not_shown_either() -> None:
    app, _ = shop()
    with force(btn="red"):
        assert app.test_client().get("/btn").text == "#green"


def test_settings_of_visitors_are_not_even_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    app, _ = shop(MAB_NETWORK_LIMIT="many", MAB_BOTS=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert app.test_client().get("/btn").text == "#green"
    assert not caplog.records


def test_commands_work_on(tmp_path: Path) -> None:
    path = tmp_path / "bandits.db"
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_ENABLED="False", MAB_STORAGE_URI=f"sqlite:///{path}")
    mab = BanditMiddleware(app)
    mab.add_bandit("btn", colours())
    add_pages(app, "btn")
    app.test_client().get("/btn")
    assert not path.exists()
    runner = app.test_cli_runner()
    for arguments in (["pause", "btn"], ["show", "btn"], ["list"], ["check"]):
        result = runner.invoke(bandit_cli, arguments)
        assert result.exit_code == 0, result.output
    assert path.exists()
    with app.app_context():
        assert mab.stats("btn")["green"].pulls == 0


def test_a_setting_that_cannot_be_meant_is_an_error() -> None:
    app, _ = shop("perhaps")
    with pytest.raises(ValueError, match="MAB_ENABLED is 'perhaps'; write True or False"):
        _ = app.extensions["bandit"].config
