"""The toolbar panel, in a real toolbar on real pages."""

from __future__ import annotations

import html
import re

import pytest
from flask import Flask
from flask_debugtoolbar import DebugToolbarExtension

from flask_bandit import choose_arm, reward_endpt

from .conftest import colours, make_app, pulls, set_cookies
from .test_failure import Faulty


@pytest.fixture
def app() -> Flask:
    return with_toolbar(make_app("one", "two", DEBUG=True))


def with_toolbar(app: Flask) -> Flask:
    app.config["DEBUG_TB_PANELS"] = ["flask_bandit.web.debug_panels.BanditDebugPanel"]
    app.config["DEBUG_TB_INTERCEPT_REDIRECTS"] = False

    @app.get("/page/none")
    def none() -> str:
        return "<html><body>none</body></html>"

    @app.get("/page/some")
    @choose_arm("one")
    def some(one: str) -> str:
        return f"<html><body>{one}</body></html>"

    @app.get("/page/all")
    @choose_arm("one")
    @choose_arm("two")
    @reward_endpt("two")
    def both(one: str, two: str) -> str:
        return f"<html><body>{one}{two}</body></html>"

    DebugToolbarExtension(app)
    return app


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def test_none_some_and_all_bandits_assigned(app: Flask) -> None:
    client = app.test_client()
    none = client.get("/page/none").text
    assert none.count('aria-current="true"') == 0
    assert none.count("not asked for by this request") == 2
    some = client.get("/page/some").text
    assert some.count('aria-current="true"') == 1
    assert "drawn for this visitor now" in some
    both = client.get("/page/all").text
    assert both.count('aria-current="true"') == 2
    assert "remembered from the cookie" in both
    assert "drawn for this visitor now" in both
    assert "Reward: rewarded with 1." in both
    assert "rewarded before: counts once" in client.get("/page/all").text
    assert (pulls(app, "one"), pulls(app, "two")) == (1, 1)


def test_it_shows_counts_probabilities_cookie_and_storage(app: Flask) -> None:
    client = app.test_client()
    arm = client.get("/page/some").text.split("#")[1].split("<")[0]
    cookie = client.get_cookie("MAB")
    assert cookie is not None
    text = text_of(client.get("/page/some").text)
    assert f"{arm} (this visitor) 1 0 0.0000 0.3333" in text
    assert "uniform()" in text
    assert f"one {arm} 1 counted" in text
    assert f"Raw: {cookie.value}" in text
    assert "Faulty" not in text
    assert "MemoryBanditStorage" in text


def test_the_panel_commits_once_and_the_cookie_is_still_set(app: Flask) -> None:
    client = app.test_client()
    response = client.get("/page/some")
    assert len(set_cookies(response)) == 1
    assert "1 shown" in response.text
    client.get("/page/some")
    assert pulls(app, "one") == 1


def test_hostile_names_and_cookies_are_shown_as_text() -> None:
    app = make_app("unused", DEBUG=True)
    hostile = "<script>alert(1)</script>"
    app.add_bandit(hostile, colours(hostile))  # type: ignore[attr-defined]
    app.add_bandit("one", colours())  # type: ignore[attr-defined]
    app.add_bandit("two", colours())  # type: ignore[attr-defined]
    client = with_toolbar(app).test_client()
    client.set_cookie("MAB", "<script>alert(2)</script>")
    page = client.get("/page/none").text
    assert "<script>alert" not in page
    assert hostile in html.unescape(page)
    assert "this app did not sign" in page


def test_a_page_during_an_outage_shows_the_problem() -> None:
    storage = Faulty()
    app = with_toolbar(make_app("one", "two", DEBUG=True, MAB_STORAGE_ENGINE=storage))
    storage.broken = {"read", "commit"}
    response = app.test_client().get("/page/all")
    assert response.status_code == 200
    assert "The storage is down" in response.text
    assert "read is broken" in response.text
