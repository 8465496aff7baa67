"""``?mab_<bandit>=<arm>``: a look at an arm, for those who may, and never counted."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, request

from flask_bandit import decision_made, reward, suggest_arm_for
from flask_bandit.web.tokens import reward_token

from .conftest import colours, make_app, pulls, rewards, set_cookies, total

ARMS = ("green", "red", "blue")
HOSTILE = (
    "<script>alert(1)</script>",
    "red\r\nSet-Cookie: MAB=1",
    "red\x00",
    "",
    "RED",
    " red",
    "r" * 100_000,
    "緑",
)


def shop(**config: Any) -> Flask:
    return make_app("btn", "other", MAB_DEBUG_HEADERS=True, MAB_CONTROL_TTL=0, **config)


def hooks(app: Flask) -> Any:
    return app.extensions["bandit"].hooks


@pytest.mark.parametrize(
    ("config", "allowed"),
    [
        ({}, False),
        ({"TESTING": True}, False),
        ({"DEBUG": True}, True),
        ({"MAB_OVERRIDES": True}, True),
        ({"MAB_OVERRIDES": "True"}, True),
        ({"DEBUG": True, "MAB_OVERRIDES": False}, False),
        ({"DEBUG": True, "MAB_OVERRIDES": "0"}, False),
    ],
)
def test_who_may(config: Any, allowed: bool) -> None:
    """CVE-2019-13146: field_test took any variant from the query string, in production too."""
    app = shop(**config)
    client = app.test_client()
    own = client.get("/btn").text
    other = next(arm for arm in ARMS if f"#{arm}" != own)
    page = client.get(f"/btn?mab_btn={other}")
    assert page.text == (f"#{other}" if allowed else own)
    assert pulls(app) == 1


def test_it_is_shown_and_neither_counted_nor_stored() -> None:
    app = shop(MAB_OVERRIDES=True)
    heard: list[Any] = []

    def hear(sender: Flask, **arguments: Any) -> None:
        heard.append(arguments)

    with decision_made.connected_to(hear, app):
        for arm in ARMS:
            client = app.test_client()
            page = client.get(f"/btn?mab_btn={arm}")
            assert page.text == f"#{arm}"
            assert not set_cookies(page)
            assert page.headers["X-MAB-Debug"] == f"FORCED; btn:{arm}"
            assert page.headers["Cache-Control"] == "private"
            assert "Cookie" in page.headers["Vary"]
            assert client.post(f"/btn/click?mab_btn={arm}").status_code == 200
    assert heard == []
    assert (pulls(app), rewards(app)) == (0, 0)
    assert not list(app.extensions["bandit"].storage.iter_log())
    assert total(app, "btn", "override:skipped") >= 1


def test_a_holder_keeps_their_arm_and_earns_nothing_by_it() -> None:
    app = shop(MAB_OVERRIDES=True)
    client = app.test_client()
    own = client.get("/btn").text
    other = next(arm for arm in ARMS if f"#{arm}" != own)
    page = client.get(f"/btn?mab_btn={other}")
    assert (page.text, set_cookies(page)) == (f"#{other}", [])
    client.post(f"/btn/click?mab_btn={other}")
    # Their own arm by its name is not counted either.
    client.post(f"/btn/click?mab_btn={own[1:]}")
    assert rewards(app) == 0
    assert client.get("/btn").text == own
    client.post("/btn/click")
    assert (pulls(app), rewards(app)) == (1, 1)


def test_another_bandit_on_the_page_goes_on() -> None:
    app = shop(MAB_OVERRIDES=True)

    @app.get("/both")
    def both() -> list[str]:
        return [suggest_arm_for(name)[0] for name in ("btn", "other")]

    page = app.test_client().get("/both?mab_btn=red")
    assert page.json is not None
    assert page.json[0] == "red"
    assert (pulls(app, "btn"), pulls(app, "other")) == (0, 1)
    assert page.headers["X-MAB-Debug"].startswith("STORE; ")
    assert "btn:red" in page.headers["X-MAB-Debug"]


@pytest.mark.parametrize("state", ["pause", "close", "archive"])
def test_a_bandit_that_does_not_run_can_be_looked_at(state: str) -> None:
    app = shop(MAB_OVERRIDES=True)
    app.extensions["bandit"].engine.change("btn", state)
    assert app.test_client().get("/btn?mab_btn=red").text == "#red"


def test_there_is_no_token_for_an_arm_that_was_asked_for() -> None:
    app = shop(MAB_OVERRIDES=True)
    app.add_url_rule("/token", view_func=lambda: reward_token("btn"))
    assert app.test_client().get("/token?mab_btn=red").text == ""
    assert app.test_client().get("/token").text


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("value", HOSTILE)
def test_an_unknown_arm_is_ignored_and_told_in_debug(
    value: str, debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = shop(MAB_OVERRIDES=True, DEBUG=debug)

    @app.get("/twice")
    def twice() -> list[str]:
        reward("btn")
        return [suggest_arm_for("btn")[0] for _ in range(2)]

    client = app.test_client()
    page = client.get("/twice", query_string={"mab_btn": value})
    assert page.status_code == 200
    assert page.json is not None
    assert page.json[0] in ARMS
    assert page.headers["X-MAB-Debug"] == f"STORE; btn:{page.json[0]}"
    assert len(set_cookies(page)) == 1
    assert pulls(app) == 1
    told = [r.getMessage() for r in caplog.records if "mab_btn" in r.getMessage()]
    assert len(told) == (1 if debug else 0)
    assert all(len(text) < 1000 and text.isprintable() for text in told)


@pytest.mark.parametrize("arm", ["<b>", 'a"b', "a;b: c, d", "緑", "a%0d%0ab"])
def test_a_known_arm_of_any_script_injects_nothing(arm: str) -> None:
    app = make_app("unused", MAB_OVERRIDES=True, MAB_DEBUG_HEADERS=True)
    app.add_bandit("btn", colours("green", arm))  # type: ignore[attr-defined]
    app.add_url_rule("/look", view_func=lambda: suggest_arm_for("btn")[0])
    page = app.test_client().get("/look", query_string={"mab_btn": arm})
    assert page.text == arm
    header = page.headers["X-MAB-Debug"]
    assert header.isascii()
    assert not set(header.removeprefix("FORCED; btn:")) & set('<>";: ,\r\n')


@pytest.mark.parametrize("config", [{}, {"DEBUG": True}, {"MAB_OVERRIDES": True}])
def test_a_guard_has_the_last_word(config: Any) -> None:
    app = shop(**config)
    hooks(app).override = lambda: request.headers.get("X-Staff") == "yes"
    arms = {app.test_client().get("/btn?mab_btn=red").text for _ in range(20)}
    assert len(arms) > 1
    staff = {"X-Staff": "yes"}
    arms = {app.test_client().get("/btn?mab_btn=red", headers=staff).text for _ in range(20)}
    assert arms == {"#red"}


def test_a_guard_that_fails_says_no(caplog: pytest.LogCaptureFixture) -> None:
    app = shop(MAB_OVERRIDES=True)

    def fails() -> bool:
        raise LookupError("no session store")

    hooks(app).override = fails
    assert len({app.test_client().get("/btn?mab_btn=red").text for _ in range(20)}) > 1
    assert "override_guard failed" in caplog.text


def test_an_async_guard_is_awaited() -> None:
    """CVE-2019-13146 by another way: a coroutine by itself would count as a yes."""
    app = shop()

    async def guard() -> bool:
        return request.headers.get("X-Staff") == "yes"

    hooks(app).override = guard
    assert len({app.test_client().get("/btn?mab_btn=red").text for _ in range(20)}) > 1
    page = app.test_client().get("/btn?mab_btn=red", headers={"X-Staff": "yes"})
    assert page.text == "#red"


def test_a_guard_is_not_asked_without_an_override_and_once_with_several() -> None:
    app = shop()
    asked: list[str] = []

    def guard() -> bool:
        asked.append(request.path)
        return True

    hooks(app).override = guard

    @app.get("/both")
    def both() -> list[str]:
        return [suggest_arm_for(name)[0] for name in ("btn", "other")]

    app.test_client().get("/both?mab_nobody=red&page=1")
    assert asked == []
    page = app.test_client().get("/both?mab_btn=red&mab_other=blue")
    assert page.json == ["red", "blue"]
    assert asked == ["/both"]


def test_robots_and_visitors_without_consent_who_may_can_look() -> None:
    app = shop(MAB_OVERRIDES=True)
    hooks(app).consent = lambda: False
    page = app.test_client().get("/btn?mab_btn=red", headers={"User-Agent": "Googlebot/2.1"})
    assert (page.text, set_cookies(page)) == ("#red", [])


def test_during_an_outage_it_needs_no_storage() -> None:
    app = shop(MAB_OVERRIDES=True)

    def down(*_: Any) -> Any:
        raise OSError("away")

    storage = app.extensions["bandit"].storage
    storage.read_control = storage.read_counts = storage.commit = down
    assert app.test_client().get("/btn?mab_btn=red").text == "#red"
