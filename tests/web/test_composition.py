"""However a Flask app is put together, the bandits fit in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from threading import Thread
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    after_this_request,
    copy_current_request_context,
    stream_with_context,
)
from flask.views import MethodView

from flask_bandit import (
    BanditMiddleware,
    ConfigurationError,
    LateChoiceError,
    UnknownBanditError,
    add_bandit,
    choose_arm,
    reward_endpt,
    suggest_arm_for,
)
from flask_bandit.bandits import Bandit
from flask_bandit.storage import MemoryBanditStorage

from .conftest import add_pages, colours, make_app, pulls, rewards, set_cookies


def test_a_factory_may_configure_after_init_app() -> None:
    mab = BanditMiddleware()
    mab.add_bandit("before", colours())

    def create_app() -> Flask:
        app = Flask("factory")
        mab.init_app(app)
        app.config.update(SECRET_KEY="late", MAB_STORAGE_ENGINE=MemoryBanditStorage())
        add_bandit(app, "after", colours())
        add_pages(app, "before")
        add_pages(app, "after")
        return app

    app = create_app()
    client = app.test_client()
    client.get("/before")
    client.get("/after")
    assert (pulls(app, "before"), pulls(app, "after")) == (1, 1)
    assert sum(arm.pulls for arm in mab.stats("before").values()) == 1


def test_two_apps_of_one_extension_count_apart() -> None:
    mab = BanditMiddleware()
    apps = []
    for name in ("a", "b"):
        app = Flask(name)
        app.config.update(SECRET_KEY=name * 9, MAB_STORAGE_ENGINE=MemoryBanditStorage())
        mab.init_app(app)
        apps.append(app)
    mab.add_bandit("btn", colours())
    for app in apps:
        add_pages(app, "btn")
    apps[0].test_client().get("/btn")
    assert (pulls(apps[0]), pulls(apps[1])) == (1, 0)
    with pytest.raises(ConfigurationError, match="which app is meant"):
        mab.stats("btn")
    with apps[1].app_context():
        assert sum(arm.pulls for arm in mab.stats("btn").values()) == 0


def test_init_app_twice_is_an_error() -> None:
    app = make_app()
    with pytest.raises(ConfigurationError, match="init_app was called twice"):
        BanditMiddleware(app)


def test_an_app_without_the_extension_says_so() -> None:
    with (
        Flask("bare").test_request_context(),
        pytest.raises(ConfigurationError, match="init_app"),
    ):
        suggest_arm_for("btn")


def test_outside_a_request_says_so() -> None:
    with make_app().app_context(), pytest.raises(ConfigurationError, match="inside a request"):
        suggest_arm_for("btn")


def test_the_same_bandit_again_changes_nothing_and_another_is_an_error() -> None:
    app, bandit = make_app("unused"), colours()
    add_bandit(app, "btn", bandit)
    add_bandit(app, "btn", bandit)
    with pytest.raises(ConfigurationError, match="registered as 'btn' already"):
        add_bandit(app, "btn", colours())


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00b", None])
def test_a_name_that_cannot_be_one_is_an_error(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a bandit"):
        add_bandit(make_app(), name, colours())


def test_after_the_first_request_the_registry_and_its_bandits_are_fixed() -> None:
    app = make_app()
    app.test_client().get("/btn")
    with pytest.raises(ConfigurationError, match="too late"):
        add_bandit(app, "late", colours())
    with pytest.raises(ConfigurationError):
        app.extensions["bandit"].bandits["btn"].add_arm("late")


def test_an_empty_bandit_is_found_at_the_first_request() -> None:
    app = make_app(TESTING=True)
    add_bandit(app, "empty", Bandit())
    with pytest.raises(ConfigurationError, match="'empty'"):
        app.test_client().get("/btn")


def test_blueprint_method_view_and_async_view() -> None:
    app = make_app()
    blueprint = Blueprint("shop", __name__, url_prefix="/shop")

    @blueprint.get("/item")
    @choose_arm("btn")
    def item(btn: str) -> str:
        return btn

    class Page(MethodView):
        decorators = [choose_arm("btn")]

        def get(self, btn: str) -> str:
            return btn

    @app.get("/async")
    @choose_arm("btn")
    @reward_endpt("btn")
    async def later(btn: str) -> str:
        return btn

    app.register_blueprint(blueprint)
    app.add_url_rule("/view", view_func=Page.as_view("view"))
    client = app.test_client()
    texts = {client.get(path).text for path in ("/shop/item", "/view", "/async")}
    assert len(texts) == 1
    assert (pulls(app), rewards(app)) == (1, 1)


def test_a_bound_method_a_partial_and_a_callable_object_are_views_too() -> None:
    app = make_app()

    class Shop:
        def page(self, btn: str) -> str:
            return btn

        def __call__(self, btn: str) -> str:
            return btn

    app.add_url_rule("/method", "method", choose_arm("btn")(Shop().page))
    app.add_url_rule("/partial", "partial", choose_arm("btn")(partial(Shop().page)))
    app.add_url_rule("/object", "object", choose_arm("btn")(Shop()))
    client = app.test_client()
    assert len({client.get(path).text for path in ("/method", "/partial", "/object")}) == 1
    assert pulls(app) == 1


def test_twenty_decorators_pass_twenty_arguments_by_name() -> None:
    names = [f"b{i}" for i in range(20)]
    app = make_app(*names)

    def view(*, item: int, **arms: str) -> dict[str, str]:
        return {**arms, "item": str(item)}

    decorated: Any = view
    for name in names:
        decorated = choose_arm(name)(decorated)
    app.add_url_rule("/all/<int:item>", view_func=decorated)
    answer = app.test_client().get("/all/7").json
    assert answer is not None
    assert answer.pop("item") == "7"
    assert sorted(answer) == sorted(names)
    assert [pulls(app, name) for name in names] == [1] * 20


def test_two_clients_inside_one_app_context_do_not_see_each_other() -> None:
    app = make_app()
    with app.app_context():
        for _ in range(30):
            client = app.test_client()
            client.get("/btn")
            client.post("/btn/click")
    assert (pulls(app), rewards(app)) == (30, 30)


def test_a_nested_app_context_and_a_nested_request_keep_to_their_own() -> None:
    app, other = make_app(), make_app("else")

    @app.get("/nested")
    def nested() -> str:
        with other.app_context():
            arm, _ = suggest_arm_for("btn")
        other.test_client().get("/else")
        app.test_client().get("/btn")
        assert suggest_arm_for("btn")[0] == arm
        return arm

    client = app.test_client()
    arm = client.get("/nested").text
    assert client.get("/btn").text == f"#{arm}"
    assert (pulls(app), pulls(other, "else")) == (2, 1)


def test_a_copied_request_context_sees_and_counts_the_same_choice() -> None:
    app = make_app()

    @app.get("/threads")
    def threads() -> str:
        seen = []

        @copy_current_request_context
        def work() -> None:
            seen.append(suggest_arm_for("btn")[0])

        thread = Thread(target=work)
        thread.start()
        thread.join()
        seen.append(suggest_arm_for("btn")[0])
        return ",".join(seen)

    client = app.test_client()
    response = client.get("/threads")
    first, second = response.text.split(",")
    assert first == second
    assert set_cookies(response)
    assert pulls(app) == 1


def test_a_later_hook_that_raises_commits_once_and_still_sets_the_cookie() -> None:
    app = Flask("hooks")
    app.config.update(SECRET_KEY="k", MAB_STORAGE_ENGINE=MemoryBanditStorage())
    calls = []

    @app.after_request
    def before_ours(response: Response) -> Response:
        calls.append("hook")
        if len(calls) == 1:
            raise RuntimeError("a hook fails")
        return response

    BanditMiddleware(app)
    add_bandit(app, "btn", colours())
    add_pages(app, "btn")
    client = app.test_client()
    response = client.get("/btn")
    assert response.status_code == 500
    assert set_cookies(response)
    client.get("/btn")
    assert pulls(app) == 1


def _cached(response: Response) -> Response:
    response.headers["Cache-Control"] = "public, max-age=60, s-maxage=600"
    response.headers["Vary"] = "Accept"
    return response


@pytest.mark.parametrize("order", ["before", "after", "this_request", "view"])
def test_the_headers_have_the_last_word_on_hits_too(order: str) -> None:
    app = Flask("cache")
    app.config.update(SECRET_KEY="k", MAB_STORAGE_ENGINE=MemoryBanditStorage())
    if order == "before":
        app.after_request(_cached)
    BanditMiddleware(app)
    if order == "after":
        app.after_request(_cached)
    add_bandit(app, "btn", colours())

    @app.get("/")
    @choose_arm("btn")
    def page(btn: str) -> Response:
        if order == "this_request":
            after_this_request(_cached)
        response = Response(btn)
        return _cached(response) if order == "view" else response

    client = app.test_client()
    for _ in range(2):
        response = client.get("/")
        assert response.cache_control.private
        assert not response.cache_control.public
        assert "s-maxage" not in response.headers["Cache-Control"]
        assert response.cache_control.max_age == 60
        assert set(response.vary) == {"Accept", "Cookie"}


def test_an_undecorated_view_is_left_alone() -> None:
    app = make_app()

    @app.get("/plain")
    def plain() -> Response:
        return _cached(Response("plain"))

    client = app.test_client()
    client.get("/btn")
    response = client.get("/plain")
    assert response.headers["Cache-Control"] == "public, max-age=60, s-maxage=600"
    assert response.headers["Vary"] == "Accept"
    assert not set_cookies(response)


def _streaming(**config: Any) -> Flask:
    app = make_app("other", "btn", **config)

    @app.get("/touched")
    @choose_arm("other")
    def touched(other: str) -> Response:
        return Response(stream_with_context(suggest_arm_for("btn")[0] for _ in range(1)))

    @app.get("/stream")
    def stream() -> Response:
        def body() -> Iterator[str]:
            yield "arm: "
            yield suggest_arm_for("btn")[0]

        return Response(stream_with_context(body()))

    return app


def test_choosing_inside_a_stream_is_the_control_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = _streaming()
    assert app.test_client().get("/stream").text == "arm: green"
    assert "before the response starts to stream" in caplog.text
    assert pulls(app) == 0


@pytest.mark.parametrize("path", ["/stream", "/touched"])
def test_choosing_inside_a_stream_raises_in_debug(path: str) -> None:
    app = _streaming(DEBUG=True)
    with pytest.raises(LateChoiceError, match="before the response starts to stream"):
        app.test_client().get(path).get_data()
    assert pulls(app, "btn") == 0


def test_a_remembered_arm_may_be_asked_for_inside_a_stream() -> None:
    app = _streaming(DEBUG=True)
    client = app.test_client()
    arm = client.get("/btn").text.lstrip("#")
    assert client.get("/stream").text == f"arm: {arm}"


@pytest.mark.parametrize("debug", [False, True])
def test_a_url_argument_of_a_bandit_s_name_is_an_error(
    debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(TESTING=True, DEBUG=debug)

    @app.get("/colour/<btn>")
    @choose_arm("btn")
    def page(btn: str) -> str:
        return btn

    with pytest.raises(ConfigurationError, match="arg='another_name'"):
        app.test_client().get("/colour/red")
    assert "URL argument 'btn'" in caplog.text


def test_a_decorator_above_the_route_is_found_at_the_first_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wrong(app: Flask) -> Flask:
        @choose_arm("btn")
        @app.get("/wrong")
        def page(btn: str = "nothing") -> str:
            return btn

        return app

    client = wrong(make_app()).test_client()
    for _ in range(2):
        assert client.get("/wrong").text == "nothing"
    assert caplog.text.count("move it below @app.route") == 1
    app = wrong(make_app(DEBUG=True))
    with pytest.raises(ConfigurationError, match=r"move it below @app\.route"):
        app.test_client().get("/btn")


def test_a_view_that_is_also_routed_bare_is_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()

    def page(btn: str = "nothing") -> str:
        return btn

    app.add_url_rule("/bare", "bare", page)
    app.add_url_rule("/decorated", "decorated", choose_arm("btn")(page))
    app.test_client().get("/bare")
    assert not caplog.text


def test_an_unknown_bandit_is_found_at_the_first_request(caplog: pytest.LogCaptureFixture) -> None:
    def misspelt(app: Flask) -> Flask:
        @app.get("/wrong")
        @choose_arm("bnt")
        def page(bnt: str) -> str:
            return bnt

        return app

    app = misspelt(make_app())
    assert app.test_client().get("/btn").status_code == 200
    assert "did you mean 'btn'?" in caplog.text
    with pytest.raises(ConfigurationError, match="did you mean 'btn'"):
        misspelt(make_app(DEBUG=True)).test_client().get("/btn")
    with (
        app.test_request_context(),
        pytest.raises(UnknownBanditError, match="did you mean 'btn'"),
    ):
        suggest_arm_for("bnt")


def test_a_name_that_is_no_identifier_needs_an_argument_s_name() -> None:
    with pytest.raises(ConfigurationError, match="arg='some_name'"):
        choose_arm("buy button")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None])
def test_a_reward_that_is_no_finite_number_is_refused_at_decoration(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="finite number"):
        reward_endpt("btn", value)


def test_a_third_party_decorator_between_keeps_the_marks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from functools import wraps

    app = make_app()

    def logged(view: Any) -> Any:
        @wraps(view)
        def wrapper(**kwargs: Any) -> Any:
            return view(**kwargs)

        return wrapper

    @app.get("/guarded")
    @logged
    @choose_arm("nobody")
    @logged
    @choose_arm("btn")
    def page(**arms: str) -> str:
        return ",".join(sorted(arms))

    app.test_client().get("/btn")
    assert "'nobody'" in caplog.text
    assert "above @app.route" not in caplog.text


@pytest.mark.parametrize("decorator", [choose_arm, reward_endpt])
def test_a_decorator_without_its_brackets_says_what_it_needs(decorator: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"needs the name of a bandit, as in @\w+\('"):
        decorator(lambda: "page")


@pytest.mark.parametrize("name", ["subject_loader", "consent_loader", "visitor_filter"])
@pytest.mark.parametrize("value", ["user", True, None])
def test_what_is_no_function_is_refused_at_once(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is given .*: @mab.{name}"):
        getattr(BanditMiddleware(), name)(value)


def test_an_override_guard_that_is_no_function_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="override_guard is given False"):
        BanditMiddleware().override_guard(False)  # type: ignore[type-var]


def test_an_unknown_name_ends_with_those_that_are_known() -> None:
    app = make_app("a", "b")
    with pytest.raises(UnknownBanditError, match=r"'xyz': .* under MAB_BANDITS; known: a, b$"):
        app.extensions["bandit"].bandits["xyz"]
