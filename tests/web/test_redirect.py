"""Reward once and answer with a redirect: inside a view, and around one."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Blueprint, Flask, make_response, redirect, url_for
from flask.typing import ResponseReturnValue
from werkzeug.routing import BuildError

from flask_bandit import ConfigurationError, reward_and_redirect, reward_endpt
from flask_bandit.bandits import ThompsonBandit

from .conftest import make_app, rewards, set_cookies, total


@pytest.fixture
def app(app: Flask) -> Flask:
    @app.get("/thanks/")
    def thanks() -> str:
        return "thanks"

    return app


def visitor_of(app: Flask) -> Any:
    client = app.test_client()
    client.get("/btn")
    return client


def test_as_an_answer_it_rewards_once_and_redirects(app: Flask) -> None:
    @app.post("/buy")
    def buy() -> ResponseReturnValue:
        return reward_and_redirect("btn", 1.0, "/thanks/")

    visitor = visitor_of(app)
    for _ in range(2):
        answer = visitor.post("/buy")
        assert (answer.status_code, answer.location) == (303, "/thanks/")
    assert rewards(app) == 1
    assert visitor.post("/buy", follow_redirects=True).text == "thanks"


def test_as_a_decorator_it_follows_a_view_that_returns_nothing(app: Flask) -> None:
    bought = []

    @app.post("/buy/<item>")
    @reward_and_redirect("btn", 1.0, "thanks")
    def buy(item: str) -> None:
        bought.append(item)

    answer = visitor_of(app).post("/buy/shoe")
    assert (answer.status_code, answer.location, bought) == (303, "/thanks/", ["shoe"])
    assert rewards(app) == 1


@pytest.mark.parametrize(
    "answer",
    ["the form again", ("bad", 400), lambda: redirect("/login"), lambda: make_response("x")],
)
def test_what_a_decorated_view_returns_is_the_answer_and_rewards_nothing(
    app: Flask, answer: Any
) -> None:
    @app.post("/buy")
    @reward_and_redirect("btn", 1.0, "thanks")
    def buy() -> Any:
        return answer() if callable(answer) else answer

    visitor = visitor_of(app)
    assert visitor.post("/buy").location in (None, "/login")
    assert rewards(app) == 0


def test_an_exception_in_a_decorated_view_rewards_nothing(app: Flask) -> None:
    @app.post("/buy")
    @reward_and_redirect("btn", 1.0, "thanks")
    def buy() -> None:
        raise RuntimeError("sold out")

    assert visitor_of(app).post("/buy").status_code == 500
    assert rewards(app) == 0


def test_coroutine_views_are_decorated_and_may_return_it(app: Flask) -> None:
    @app.post("/around")
    @reward_and_redirect("btn", 1.0, "thanks")
    async def around() -> None:
        return None

    @app.post("/form")
    @reward_and_redirect("btn", 1.0, "thanks", goal="form")
    async def form() -> str:
        return "the form again"

    @app.post("/inside")
    async def inside() -> Any:
        return reward_and_redirect("btn", 1.0, "thanks", goal="other")

    visitor = visitor_of(app)
    assert visitor.post("/around").location == visitor.post("/inside").location == "/thanks/"
    assert (rewards(app), total(app, "btn", "goal:other:rewards")) == (1, 1)
    assert visitor.post("/form").text == "the form again"
    assert total(app, "btn", "goal:form:rewards") == 0


def test_one_answer_may_be_kept_and_returned_by_many_requests(app: Flask) -> None:
    done = reward_and_redirect("btn", 1.0, "thanks")

    @app.post("/buy")
    def buy() -> ResponseReturnValue:
        return done

    for _ in range(3):
        assert visitor_of(app).post("/buy").status_code == 303
    assert rewards(app) == 3


def test_headers_may_be_added(app: Flask) -> None:
    @app.post("/tuple")
    def with_tuple() -> Any:
        return reward_and_redirect("btn", 1.0, "thanks"), {"X-Order": "17"}

    @app.post("/response")
    def with_response() -> ResponseReturnValue:
        response = make_response(reward_and_redirect("btn", 1.0, "thanks"))
        response.set_cookie("seen", "yes")
        return response

    visitor = visitor_of(app)
    assert visitor.post("/tuple").headers["X-Order"] == "17"
    assert "seen=yes" in visitor.post("/response").headers["Set-Cookie"]
    assert rewards(app) == 1


def test_who_holds_no_arm_is_sent_on_all_the_same(app: Flask) -> None:
    @app.post("/buy")
    def buy() -> ResponseReturnValue:
        return reward_and_redirect("btn", 1.0, "thanks")

    answer = app.test_client().post("/buy")
    assert (answer.status_code, answer.location) == (303, "/thanks/")
    assert not set_cookies(answer)
    assert rewards(app) == 0


def test_an_answer_that_is_not_used_rewards_nothing(app: Flask) -> None:
    @app.post("/buy")
    def buy() -> str:
        reward_and_redirect("btn", 1.0, "thanks")
        return "no"

    visitor_of(app).post("/buy")
    assert rewards(app) == 0


def test_a_location_is_an_endpoint_a_url_or_a_function(app: Flask) -> None:
    shop = Blueprint("shop", __name__, url_prefix="/shop")

    @shop.get("/cart")
    def cart() -> str:
        return "cart"

    places = [
        ("shop.cart", "/shop/cart"),
        ("https://pay.example/done", "https://pay.example/done"),
        ("?done=1", "?done=1"),
        (lambda: url_for("thanks", item="shoe"), "/thanks/?item=shoe"),
        (lambda: "thanks", "/thanks/"),
    ]
    for index, (place, _) in enumerate(places):
        app.post(f"/go/{index}", endpoint=f"go{index}")(
            lambda place=place: reward_and_redirect("btn", 1.0, place)
        )

    @shop.post("/near")
    def near() -> ResponseReturnValue:
        return reward_and_redirect("btn", 1.0, ".cart")

    app.register_blueprint(shop)
    visitor = visitor_of(app)
    found = [visitor.post(f"/go/{index}").location for index in range(len(places))]
    assert found == [url for _, url in places]
    assert visitor.post("/shop/near").location == "/shop/cart"


def test_a_mistyped_endpoint_is_an_error(app: Flask) -> None:
    app.testing = True

    @app.post("/buy")
    def buy() -> ResponseReturnValue:
        return reward_and_redirect("btn", 1.0, "thakns")

    with pytest.raises(BuildError, match="thanks"):
        visitor_of(app).post("/buy")
    assert rewards(app) == 0


def test_another_code_may_be_asked_for_and_counts(app: Flask) -> None:
    @app.post("/buy")
    def buy() -> ResponseReturnValue:
        return reward_and_redirect("btn", 1.0, "thanks", code=302)

    assert visitor_of(app).post("/buy").status_code == 302
    assert rewards(app) == 1


@pytest.mark.parametrize("code", [200, 304, 404, "303"])
def test_a_code_that_is_no_redirect_is_refused(code: Any) -> None:
    with pytest.raises(ConfigurationError, match="write one of"):
        reward_and_redirect("btn", 1.0, "/", code=code)


@pytest.mark.parametrize("value", [float("inf"), "1", None])
def test_a_reward_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="a finite number"):
        reward_and_redirect("btn", value, "/")


def test_the_wiring_check_looks_at_decorated_views(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    bandit = ThompsonBandit()
    bandit.add_arm("only")
    app.add_bandit("learner", bandit)  # type: ignore[attr-defined]

    @app.post("/wrong")
    @reward_and_redirect("nobody", 1.0, "/")
    def wrong() -> None: ...

    @app.post("/much")
    @reward_and_redirect("learner", 0.6, "/")
    @reward_endpt("learner", 0.6)
    def much() -> None: ...

    app.test_client().get("/btn")
    assert "'wrong' names an unknown bandit" in caplog.text
    assert "'much' rewards 'learner' with 1.2" in caplog.text


def test_on_a_get_it_works_and_warns_in_debug(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/buy")
    def buy() -> ResponseReturnValue:
        return reward_and_redirect("btn", 1.0, "thanks")

    app.debug = True
    visitor = visitor_of(app)
    for _ in range(2):
        assert visitor.get("/buy").status_code == 303
    assert caplog.text.count("on a GET") == 1
    assert rewards(app) == 1
