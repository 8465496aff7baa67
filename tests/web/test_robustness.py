"""Other people's code around ours: factories, hooks, receivers, dispatchers, odd values."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, Response, request

from flask_bandit import (
    ConfigurationError,
    choose_arm,
    decision_made,
    reward,
    reward_endpt,
    storage_failed,
    suggest_arm_for,
)
from flask_bandit.bandits import GaussianThompsonBandit
from flask_bandit.web.config import BanditConfig

from .conftest import make_app, pulls, rewards, set_cookies
from .test_failure import Faulty


def test_a_factory_may_decorate_a_shared_view_for_each_app() -> None:
    def page(btn: str) -> str:
        return btn

    for _ in range(3):
        app = make_app(DEBUG=True)
        app.add_url_rule("/shared", "shared", choose_arm("btn")(page))
        assert app.test_client().get("/shared").status_code == 200


def test_a_huge_reward_is_refused_and_is_no_outage() -> None:
    app = make_app()
    bandit = GaussianThompsonBandit()
    bandit.add_arm("only")
    app.add_bandit("money", bandit)  # type: ignore[attr-defined]

    @app.post("/pay")
    def pay() -> str:
        suggest_arm_for("money")
        reward("money", float(request.args["value"]))
        return "paid"

    assert app.test_client().post("/pay?value=1e155").status_code == 500
    assert not app.extensions["bandit"].engine.is_storage_down
    assert app.test_client().post("/pay?value=1e150").status_code == 200
    assert rewards(app, "money") == 1


def test_an_environ_that_is_dispatched_twice_counts_in_the_app_that_answers() -> None:
    first, second = make_app("other"), make_app()

    def cascade(environ: dict[str, Any], start_response: Any) -> Any:
        answered: list[str] = []
        dispatch: Any = first.wsgi_app
        body = dispatch(environ, lambda status, *rest: answered.append(status))
        if answered[0].startswith("404"):
            return second.wsgi_app(environ, start_response)
        return body

    app = Flask("front")
    app.wsgi_app = cascade  # type: ignore[method-assign]
    response = app.test_client().get("/btn")
    assert set_cookies(response)
    assert pulls(second) == 1


def test_a_rule_that_raises_rewards_nothing_and_keeps_the_decision() -> None:
    app = make_app()

    @app.get("/both")
    @choose_arm("btn")
    @reward_endpt("btn", reward_if=lambda response: bool(1 // 0))
    def both(btn: str) -> str:
        return btn

    assert app.test_client().get("/both").status_code == 200
    assert (pulls(app), rewards(app)) == (1, 0)


def test_a_hook_that_always_raises_keeps_the_decision() -> None:
    app = make_app()

    @app.after_request
    def broken(response: Response) -> Response:
        raise RuntimeError("a hook fails")

    assert app.test_client().get("/btn").status_code == 500
    assert pulls(app) == 1


def test_several_header_lines_are_all_kept() -> None:
    app = make_app()

    @app.get("/lines")
    @choose_arm("btn")
    def lines(btn: str) -> Response:
        response = Response(btn)
        for name, value in [
            ("Vary", "Accept"),
            ("Vary", "Accept-Encoding"),
            ("Cache-Control", "max-age=0"),
            ("Cache-Control", "no-store"),
        ]:
            response.headers.add(name, value)
        return response

    response = app.test_client().get("/lines")
    assert set(response.vary) == {"Accept", "Accept-Encoding", "Cookie"}
    assert response.cache_control.no_store
    assert response.cache_control.private


def test_a_receiver_that_raises_costs_the_visitor_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = Faulty()
    app = make_app(MAB_STORAGE_ENGINE=storage)

    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a receiver fails")

    with decision_made.connected_to(broken, app), storage_failed.connected_to(broken, app):
        assert set_cookies(app.test_client().get("/btn"))
        storage.broken = {"read"}
        assert app.test_client().get("/btn").status_code == 200
    assert caplog.text.count("A receiver of the signal") == 2


def test_a_wrong_declaration_is_the_same_error_at_each_request() -> None:
    good = {"algorithm": "uniform", "arms": ["a"]}
    app = make_app(TESTING=True, MAB_BANDITS={"good": good, "bad": {**good, "algorithm": "nope"}})
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"MAB_BANDITS\.bad"):
            app.test_client().get("/btn")


def test_options_counts_nothing() -> None:
    app = make_app()
    app.before_request(lambda: suggest_arm_for("btn") and None)
    app.test_client().options("/btn")
    assert pulls(app) == 0


def test_no_cookie_is_set_during_an_outage_not_even_for_a_new_key() -> None:
    storage = Faulty()
    client = make_app(SECRET_KEY="old" * 9).test_client()
    client.get("/btn")
    cookie = client.get_cookie("MAB")
    assert cookie is not None
    app = make_app(SECRET_KEY_FALLBACKS=["old" * 9], MAB_STORAGE_ENGINE=storage)
    storage.broken = {"read"}
    app.test_client().get("/btn")
    client = app.test_client()
    client.set_cookie("MAB", cookie.value)
    assert not set_cookies(client.get("/btn"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"MAB_COOKIE_NAME": "a;b"},
        {"MAB_COOKIE_NAME": "a=b"},
        {"MAB_COOKIE_NAME": "é"},
        {"MAB_COOKIE_NAME": " a"},
        {"MAB_COOKIE_TTL": 1e12},
        {"MAB_COOKIE_TTL": 10**400},
        {"MAB_STORAGE_TIMEOUT": 10**400},
        {"MAB_STATS_TTL": False},
    ],
)
def test_settings_that_would_break_later_are_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        BanditConfig.from_mapping(wrong)
    assert BanditConfig.from_mapping({"MAB_STATS_TTL": "0.0"}).stats_ttl == 0.0
