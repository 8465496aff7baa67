"""Arms and tokens in templates."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, render_template, render_template_string, stream_template_string
from jinja2 import DictLoader

from flask_bandit import BanditMiddleware, LateChoiceError, UnknownBanditError, choose_arm
from flask_bandit.bandits import Bandit

from .conftest import colours, make_app, pulls, rewards

ARM = "{{ bandit_arm('btn') }}"


def app_with(template: str, **config: Any) -> Flask:
    """Return an app whose ``/page`` renders a template, with an endpoint for tokens."""
    app = make_app(**config)
    app.register_blueprint(BanditMiddleware.reward_blueprint())

    @app.get("/page")
    def page() -> str:
        return render_template_string(template)

    return app


def test_a_template_shows_the_visitor_s_arm_and_counts_it_once() -> None:
    app = app_with(ARM + " {{ bandit_arm_id('btn') }}")
    visitor = app.test_client()
    value, id_ = visitor.get("/page").text.split()
    assert value == f"#{id_}" == visitor.get("/btn").text
    assert pulls(app) == 1


def test_a_template_hands_out_a_token() -> None:
    app = app_with("{{ bandit_token('btn') }} {{ bandit_token('btn', goal='order') }}")
    tokens = app.test_client().get("/page").text.split()
    for token in tokens:
        assert app.test_client().post("/bandit/reward", data=token).status_code == 204
    assert (pulls(app), rewards(app)) == (1, 1)
    (entry,) = app.extensions["bandit"].storage.iter_log("btn")
    assert {reward.goal for reward in entry.rewards} == {"reward", "order"}


def test_a_template_that_asks_for_nothing_costs_nothing() -> None:
    app = app_with("plain")
    answer = app.test_client().get("/page")
    assert "Set-Cookie" not in answer.headers
    assert "Vary" not in answer.headers
    assert "bandit" not in app.extensions["bandit"].registry
    assert app.extensions["bandit"]._engine is None


def test_a_value_is_escaped_like_any_other() -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, TESTING=True)
    mab = BanditMiddleware(app)
    bandit = Bandit()
    bandit.add_arm("bold", "<b>")
    mab.add_bandit("btn", bandit)
    with app.test_request_context():
        assert render_template_string(ARM) == "&lt;b&gt;"


def test_macros_of_imported_templates_have_the_functions() -> None:
    app = make_app()
    app.jinja_loader = DictLoader(
        {
            "macros.html": "{% macro button() %}<b>{{ bandit_arm_id('btn') }}</b>{% endmacro %}",
            "page.html": "{% from 'macros.html' import button %}{{ button() }}",
        }
    )

    @app.get("/page")
    def page() -> str:
        return render_template("page.html")

    visitor = app.test_client()
    assert visitor.get("/page").text == f"<b>{visitor.get('/btn').text[1:]}</b>"


def test_jinja_may_be_set_up_before_and_after_init_app() -> None:
    before = Flask("before")
    before.jinja_env.globals["early"] = "early"
    after = Flask("after")
    for app in (before, after):
        app.config.update(SECRET_KEY="k" * 32, TESTING=True)
        BanditMiddleware(app).add_bandit("btn", colours())
    after.jinja_options = {**after.jinja_options, "variable_start_string": "[["}
    after.jinja_options["variable_end_string"] = "]]"
    with before.test_request_context():
        assert render_template_string("{{ early }} " + ARM).startswith("early #")
    with after.test_request_context():
        assert render_template_string("[[ bandit_arm('btn') ]]").startswith("#")


def test_an_app_s_own_template_function_of_that_name_wins() -> None:
    app = make_app()
    app.add_template_global(lambda name: "mine", "bandit_arm")
    with app.test_request_context():
        assert render_template_string(ARM) == "mine"


def test_a_wrong_name_is_an_error_that_says_the_right_one() -> None:
    app = app_with("{{ bandit_arm('btm') }}", TESTING=True)
    with pytest.raises(UnknownBanditError, match="btn"):
        app.test_client().get("/page")


def test_templates_of_coroutine_views_have_the_functions() -> None:
    app = make_app()

    @app.get("/page")
    async def page() -> str:
        return render_template_string(ARM)

    visitor = app.test_client()
    assert visitor.get("/page").text == visitor.get("/btn").text
    assert pulls(app) == 1


def test_a_streamed_template_shows_what_was_chosen_before() -> None:
    app = make_app(DEBUG=True)

    @app.get("/page")
    @choose_arm("btn", arg="arm")
    def page(arm: str) -> Any:
        return stream_template_string(ARM + " {{ arm }} {{ bandit_token('btn') }}", arm=arm)

    app.register_blueprint(BanditMiddleware.reward_blueprint())
    shown, chosen, token = app.test_client().get("/page").text.split()
    assert shown == chosen
    assert app.test_client().post("/bandit/reward", data=token).status_code == 204
    assert (pulls(app), rewards(app)) == (1, 1)


def test_a_streamed_template_that_chooses_first_is_too_late() -> None:
    app = make_app(DEBUG=True)

    @app.get("/page")
    def page() -> Any:
        return stream_template_string(ARM)

    with pytest.raises(LateChoiceError, match="before the response starts"):
        app.test_client().get("/page")
    app.debug = False
    assert app.test_client().get("/page").text == "#green"
    assert pulls(app) == 0
