"""Contexts of choices: where they come from, what is logged, and what cannot break a page."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, render_template_string, request

from flask_bandit import BanditMiddleware, ConfigurationError, choose_arm, suggest_arm_for
from flask_bandit.algorithms import UniformPolicy
from flask_bandit.bandits import Bandit
from flask_bandit.features import Features
from flask_bandit.model import BanditKey
from flask_bandit.storage import MemoryBanditStorage, SQLiteBanditStorage
from flask_bandit.storage.base import BanditStorage

from .conftest import pulls
from .context_shop import FEATURES, decisions, entries, offers, shop, state_of

Source = Callable[[], Any]


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BanditStorage]:
    made: BanditStorage
    made = (
        MemoryBanditStorage()
        if request.param == "memory"
        else SQLiteBanditStorage(str(tmp_path / "bandits.db"))
    )
    yield made
    made.close()


def logged(app: Flask) -> Any:
    """Return the context of the only decision."""
    (decision,) = decisions(app)
    return decision.context


def shop_with(source: Any, bandit: Bandit | None = None, **config: Any) -> Flask:
    """Return a shop with a page ``/page`` whose choice is given a context or a function."""
    app = shop(bandit, **config)
    app.add_url_rule("/page", view_func=lambda: suggest_arm_for("offer", context=source)[0])
    return app


def get(app: Flask, path: str = "/page") -> str:
    response = app.test_client().get(path)
    assert response.status_code == 200
    return response.text


def test_a_context_is_logged_as_it_was_cleaned(storage: BanditStorage) -> None:
    app = shop(storage=storage)
    get(app, "/offer?age=31.5&country=it&words=Red+shoes")
    assert logged(app) == {"age": 31.5, "country": "it", "words": "Red shoes"}
    assert logged(app) == Features.parse(FEATURES).clean(logged(app))


def test_the_decorator_calls_its_function_in_each_request() -> None:
    app = shop()

    @app.get("/decorated")
    @choose_arm("offer", arg="arm", context=lambda: {"age": len(request.path)})
    def page(arm: str) -> str:
        return arm

    @app.get("/async")
    @choose_arm("offer", arg="arm", context=lambda: {"country": "fr"})
    async def async_page(arm: str) -> str:
        return arm

    assert get(app, "/decorated") in {"<a>", "<b>", "<c>", "<d>"}
    get(app, "/async")
    assert [d.context for d in decisions(app)] == [{"age": 10.0}, {"country": "fr"}]


def test_the_decorator_takes_no_fixed_context() -> None:
    with pytest.raises(ConfigurationError, match=r"context=\{'age': 3\}\): give a function"):
        choose_arm("offer", context={"age": 3})  # type: ignore[arg-type]


def test_templates_give_contexts_in_any_order() -> None:
    app = shop()
    text = (
        "{{ bandit_token('offer', context={'age': 7}) }} {{ bandit_arm('offer') }} "
        "{{ bandit_arm_id('offer', context={'age': 8}) }}"
    )
    app.add_url_rule("/page", view_func=lambda: render_template_string(text))
    token, value, arm = get(app).split()
    assert value == f"&lt;{arm}&gt;"
    assert logged(app) == {"age": 7.0}
    with app.app_context():
        assert BanditMiddleware().reward_by_token(token, 1.0)
    (entry,) = entries(app)
    assert (entry.decision.arm, len(entry.rewards)) == (arm, 1)


def test_a_visit_outside_a_request_gives_one() -> None:
    app = shop()
    with app.app_context(), BanditMiddleware().visit(subject="42") as visit:
        arm, value = visit.choose("offer", context={"age": 5})
    assert value == f"<{arm}>"
    assert logged(app) == {"age": 5.0}


@pytest.mark.parametrize(("given", "found"), [(None, {"age": 1.0}), ({"age": 2}, {"age": 2.0})])
def test_the_bandits_own_function_is_used_where_none_is_given(given: Any, found: Any) -> None:
    app = shop_with(given, offers(context=lambda: {"age": 1}))
    get(app)
    assert logged(app) == found


def test_no_context_is_an_empty_one() -> None:
    app = shop_with(None)
    app.add_url_rule("/other", "other", lambda: suggest_arm_for("offer", context=lambda: None)[0])
    get(app)
    get(app, "/other")
    assert [d.context for d in decisions(app)] == [{}, {}]


def test_the_first_choice_of_a_request_decides() -> None:
    app = shop()
    asked: list[int] = []

    def age(number: int) -> dict[str, Any]:
        asked.append(number)
        return {"age": number}

    @app.get("/page")
    def page() -> list[str]:
        return [suggest_arm_for("offer", context=partial(age, n))[0] for n in range(9)]

    assert len(set(app.test_client().get("/page").json or [])) == 1
    assert asked == [0]
    assert logged(app) == {"age": 0.0}


def test_a_sticky_bandit_asks_for_a_context_once() -> None:
    app = shop(offers(sticky=True))
    client = app.test_client()
    assert len({client.get(f"/offer?age={age}").text for age in range(9)}) == 1
    assert logged(app) == {"age": 0.0}


def test_a_known_users_sticky_decision_has_its_context(storage: BanditStorage) -> None:
    app = shop(offers(sticky=True), storage)
    for age in (3, 4):
        app.test_client().get(f"/offer?age={age}", headers={"X-User": "ann"})
    assert logged(app) == {"age": 3.0}


@pytest.mark.parametrize("sticky", [True, False])
def test_a_prefetch_keeps_nothing_where_a_context_would_be_lost(sticky: bool) -> None:
    app = shop(offers(sticky=sticky))
    client = app.test_client()
    response = client.get("/offer?age=3", headers={"Sec-Purpose": "prefetch"})
    assert response.text in "abcd"
    assert "Set-Cookie" not in response.headers
    assert client.get("/token", headers={"Sec-Purpose": "prefetch"}).text == ""
    assert decisions(app) == []
    client.get("/offer?age=4")
    assert logged(app) == {"age": 4.0}
    counts = state_of(app).storage.read_counts()
    assert counts[BanditKey("offer", 1)][""] == {"prefetch:skipped": 1}


def _failing() -> Any:
    raise RuntimeError("no database")


def _missing_argument() -> Any:
    return {"age": request.args["age"]}


async def _awaited() -> Any:
    return {"age": 3, "country": "de"}


GARBAGE: list[tuple[Any, Any]] = [
    (_failing, {}),
    (_missing_argument, {}),
    (lambda: 7, {}),
    ("age", {}),
    (lambda: {"age": object(), "country": "fr"}, {"country": "fr"}),
    (lambda: {"age": "many", "country": "fr"}, {"country": "fr"}),
    (lambda: {"ages": 31, "age": 30}, {"age": 30.0}),
    (lambda: {"country": 7, "words": [1, "x"], "age": True}, {"age": 1.0}),
    (lambda: {7: 8, None: 9, "words": ["a", "b"]}, {"words": ["a", "b"]}),
    (lambda: {f"x{n}": n for n in range(1000)}, {}),
]
HARMLESS: list[tuple[Any, Any]] = [
    (lambda: {"age": math.nan, "country": "\ud800", "words": "\0"}, {"country": "?", "words": "?"}),
    (lambda: {"age": math.inf, "country": None}, {}),
    (lambda: {"age": 10**400}, {}),
    (lambda: {"country": "x" * 10**6}, {"country": "x" * 1000}),
    (_awaited, {"age": 3.0, "country": "de"}),
]


@pytest.mark.parametrize(("source", "found"), GARBAGE + HARMLESS)
def test_whatever_a_context_is_the_page_is_normal(
    storage: BanditStorage, source: Any, found: Any
) -> None:
    app = shop_with(source, storage=storage)
    assert get(app) in "abcd"
    assert logged(app) == found


@pytest.mark.parametrize(("source", "_found"), GARBAGE)
def test_in_debug_garbage_is_raised(source: Any, _found: Any) -> None:
    app = shop_with(source, DEBUG=True, TESTING=True, TRAP_BAD_REQUEST_ERRORS=True)
    with pytest.raises(Exception, match=r"database|'age'|context|feature"):
        get(app)


def test_it_is_logged_once_for_each_kind_of_mistake(caplog: pytest.LogCaptureFixture) -> None:
    app = shop_with(lambda: {"ages": 3})
    app.add_url_rule("/other", "other", lambda: suggest_arm_for("offer", context=_failing)[0])
    for _ in range(3):
        get(app)
        get(app, "/other")
    said = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 2
    assert "did you mean 'age'?" in said[0].getMessage()
    assert "'offer'" in said[1].getMessage()
    assert said[1].exc_info


@pytest.mark.parametrize("option", [True, False])
def test_a_context_for_a_bandit_without_features_is_a_mistake(
    option: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bandit = Bandit(context=dict) if option else Bandit()
    bandit.add_arm("a")
    app = shop_with(None if option else dict, bandit)
    client = app.test_client()
    for _ in range(3):
        assert client.get("/page").text == "a"
    assert pulls(app, "offer") == 1
    (said,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert "features={'age': 'numeric'" in said
    app.debug = True
    app.testing = True
    with pytest.raises(ConfigurationError, match="declares no features"):
        client.get("/page")


class Told(UniformPolicy):
    """A policy that wants the features of its bandit."""

    def __init__(self, features: Features, scale: float = 1.0) -> None:
        self.features, self.scale = features, scale


def declared(table: dict[str, Any]) -> Flask:
    app = Flask("shop")
    app.config.update(
        SECRET_KEY="k" * 32,
        MAB_STORAGE_ENGINE=MemoryBanditStorage(),
        MAB_BANDITS={"offer": {"arms": ["a", "b"], **table}},
    )
    BanditMiddleware(app)
    app.add_url_rule("/page", view_func=lambda: suggest_arm_for("offer")[0])
    return app


def answer() -> dict[str, Any]:
    return {"age": 42, "country": "de"}


def test_a_table_declares_features_and_what_belongs_to_them() -> None:
    app = declared(
        {
            "algorithm": "uniform",
            "features": {**FEATURES, "age": {"low": 0, "high": 120}},
            "private": ["age"],
            "sticky": False,
            "context": {"import": f"{__name__}:answer"},
            "evaluation": 0.2,
            "reward_window": "1d",
        }
    )
    client = app.test_client()
    for _ in range(3):
        client.get("/page")
    assert [d.context for d in decisions(app)] == [{"age": 42.0, "country": "de"}] * 3
    options = state_of(app).bandits["offer"].options
    assert (options.private, options.sticky, options.evaluation) == (("age",), False, 0.2)


@pytest.mark.parametrize(
    ("path", "params"), [(f"{__name__}:Told", {"scale": 2.0}), (f"{__name__}.Told", {})]
)
def test_a_policy_that_takes_the_features_gets_them(path: str, params: dict[str, Any]) -> None:
    app = declared({"algorithm": path, "features": FEATURES, **params})
    get(app)
    policy: Any = state_of(app).bandits["offer"].policy
    assert policy.features == Features.parse(FEATURES) == state_of(app).bandits["offer"].features
    assert policy.scale == params.get("scale", 1.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"features": {"age": "number"}}, r"MAB_BANDITS.offer: the feature 'age' is 'number'"),
        ({"context": "answer"}, r"MAB_BANDITS.offer: context is 'answer'.*import"),
        ({"features": FEATURES, "private": ["age"]}, "reward_window"),
        ({"sticky": "no"}, "sticky is 'no'; write True or False"),
        ({"algorithm": "nonsense:Nothing", "features": FEATURES}, "cannot import"),
        ({"algorithm": "collections:OrderedDict", "features": FEATURES}, "offer: .* is no policy"),
        ({"algorithm": "unifrom", "features": FEATURES}, "did you mean 'uniform'"),
        ({"algorithm": "lin_thompson"}, "'lin_thompson' needs features, such as"),
        ({"algorithm": "lin_thompson", "features": FEATURES, "sigma": 1}, "it has no 'sigma'"),
    ],
)
def test_mistakes_of_a_table_name_their_place(table: dict[str, Any], message: str) -> None:
    app = declared({"algorithm": "uniform", **table})
    with pytest.raises(ConfigurationError, match=message):
        _ = state_of(app).bandits
