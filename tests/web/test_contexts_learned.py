"""Policies that read contexts, in real requests: what they learn, and how the panel explains it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from flask_debugtoolbar import DebugToolbarExtension

from flask_bandit import BanditMiddleware, choose_arm
from flask_bandit.bandits import LinThompsonBandit
from flask_bandit.model import Decision
from flask_bandit.storage import MemoryBanditStorage, SQLiteBanditStorage
from flask_bandit.storage.base import BanditStorage
from flask_bandit.web.request import request_state
from flask_bandit.web.why import explain, tables_of_draws

from .context_shop import USER, asked_context, decisions, offers, rewarded, shop, state_of

COUNTRIES = {"de": "a", "fr": "b"}
"""Country -> the arm that is bought there."""


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


def linear(**options: Any) -> LinThompsonBandit:
    bandit = LinThompsonBandit(features={"country": [*COUNTRIES]}, **options)
    for arm in ("a", "b"):
        bandit.add_arm(arm, arm)
    return bandit


def learn(client: FlaskClient, rounds: int, page: str = "/offer") -> None:
    for number in range(rounds):
        country = ("de", "fr")[number % 2]
        text = client.get(f"{page}?country={country}").text
        if f"[{COUNTRIES[country]}]" in text or text == COUNTRIES[country]:
            client.post("/buy")


def test_a_policy_learns_from_contexts_over_http(storage: BanditStorage) -> None:
    """It gives the better arm of a country above 80 %, after 60 choices with certain rewards."""
    app = shop(linear(), storage, MAB_STATS_TTL=0, MAB_LEARN_TTL=0)
    client = app.test_client()
    learn(client, 60)
    made = decisions(app)
    assert len(made) == 60
    for country, arm in COUNTRIES.items():
        client.get(f"/offer?country={country}")
        last = decisions(app)[-1]
        assert (last.propensities or {})[arm] > 0.8
        assert last.context == {"country": country}
    assert all(
        (d.context or {})["country"] in COUNTRIES and d.id in rewarded(app)
        for d in made
        if COUNTRIES[(d.context or {})["country"]] == d.arm
    )


def test_it_is_declared_in_a_table() -> None:
    app = Flask("shop")
    app.config.update(
        SECRET_KEY="k" * 32,
        MAB_STORAGE_ENGINE=MemoryBanditStorage(),
        MAB_BANDITS={
            "offer": {
                "algorithm": "lin_thompson",
                "features": {"country": ["de", "fr"], "age": {"low": 0, "high": 120}},
                "context": {"import": f"{__name__}:asked_context"},
                "arms": ["a", "b"],
            }
        },
    )
    BanditMiddleware(app)
    app.add_url_rule("/page", "page", choose_arm("offer")(lambda offer: offer))
    client = app.test_client()
    for age in (1, 2):
        assert client.get(f"/page?age={age}").text in "ab"
    assert [d.context for d in decisions(app)] == [{"age": 1.0}, {"age": 2.0}]
    assert not state_of(app).bandits["offer"].is_sticky


@pytest.mark.parametrize("user", [None, "ann"])
def test_it_may_be_sticky_on_demand(storage: BanditStorage, user: str | None) -> None:
    app = shop(linear(sticky=True), storage)
    client = app.test_client()
    headers = {USER: user} if user else {}
    pages = [client.get(f"/offer?country={c}", headers=headers).text for c in ("de", "fr", "fr")]
    client.post("/buy", headers=headers)
    (made,) = decisions(app)
    assert set(pages) == {made.arm}
    assert made.context == {"country": "de"}
    assert rewarded(app) == [made.id]


@pytest.fixture
def toolbar() -> Flask:
    bandit = linear()
    app = shop(
        bandit,
        DEBUG=True,
        MAB_STATS_TTL=0,
        MAB_LEARN_TTL=0,
        DEBUG_TB_PANELS=["flask_bandit.web.debug_panels.BanditDebugPanel"],
    )

    @app.get("/shown")
    @choose_arm("offer", context=asked_context)
    def shown(offer: str) -> str:
        return f"<html><body>[{offer}]</body></html>"

    DebugToolbarExtension(app)
    return app


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def probability(made: Decision) -> str:
    return f"{(made.propensities or {})[made.arm]:.6g}"


def test_the_panel_tells_the_context_and_its_probabilities(toolbar: Flask) -> None:
    client = toolbar.test_client()
    learn(client, 20, "/shown")
    for country in ("de", "fr"):
        text = text_of(client.get(f"/shown?country={country}").text)
        made = decisions(toolbar)[-1]
        assert f'The context: {{"country": "{country}"}}.' in text
        assert f"with probability {probability(made)} by lin_thompson" in text
        assert re.search(r"the decision's hash gives 0\.\d+, and [ab] is drawn from", text)
        assert "The probabilities of this draw" in text
        chances = made.propensities or {}
        assert f"{chances['a']:.4f}" in text
        assert f"{chances['b']:.4f}" in text


def test_what_a_visitor_sends_is_escaped_and_cut(toolbar: Flask) -> None:
    client = toolbar.test_client()
    page = client.get("/shown", query_string={"country": f"<script>{'x' * 2000}"}).text
    assert "<script>x" not in page
    assert "&lt;script&gt;xxx" in page
    assert re.search(r"x{900}\.\.\.\.", page)
    assert "x" * 1000 not in page


def test_the_panel_says_what_becomes_of_a_prefetched_arm(toolbar: Flask) -> None:
    client = toolbar.test_client()
    text = text_of(client.get("/shown?country=de", headers={"Sec-Purpose": "prefetch"}).text)
    assert "not counted, and the visitor will get another one" in text
    assert 'The context: {"country": "de"}.' in text
    assert decisions(toolbar) == []


def test_the_panel_knows_the_number_of_a_robots_draw() -> None:
    app = shop(offers())
    client = app.test_client()
    client.get("/offer")
    client.get("/offer")
    cookie = client.get_cookie("MAB")
    assert cookie is not None
    headers = {"Cookie": f"MAB={cookie.value}", USER: "ann", "User-Agent": "Googlebot/2.1"}
    with app.test_request_context("/?age=3", headers=headers):
        visit = request_state()
        arm = visit.choose("offer", asked_context)
        tables = tables_of_draws(visit)
        visit.finish(Response())
        why = explain(visit, tables)["offer"]
    assert why.facts[0] == 'The context: {"age": 3.0}.'
    assert f"and {arm} is drawn from" in why.facts[1]
