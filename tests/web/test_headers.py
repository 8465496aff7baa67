"""The debug header."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest

from .conftest import add_pages, colours, make_app


def header(response: Any) -> Any:
    return response.headers.get("X-MAB-Debug")


def test_store_when_assigned_and_saved_when_remembered() -> None:
    app = make_app(MAB_DEBUG_HEADERS=True)
    client = app.test_client()
    first = client.get("/btn")
    assert header(first) == f"STORE; btn:{first.text.lstrip('#')}"
    assert header(client.get("/btn")) == f"SAVED; btn:{first.text.lstrip('#')}"
    assert header(client.post("/btn/click")) == f"SAVED; btn:{first.text.lstrip('#')}"


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ({}, False),
        ({"DEBUG": True}, True),
        ({"DEBUG": True, "MAB_DEBUG_HEADERS": False}, False),
        ({"MAB_DEBUG_HEADERS": "True"}, True),
    ],
)
def test_it_is_shown_in_debug_unless_said_otherwise(config: Any, shown: bool) -> None:
    response = make_app(**config).test_client().get("/btn")
    assert (header(response) is not None) is shown


def test_a_page_without_bandits_has_none() -> None:
    app = make_app(MAB_DEBUG_HEADERS=True)
    app.add_url_rule("/plain", view_func=lambda: "plain")
    assert header(app.test_client().get("/plain")) is None


@pytest.mark.parametrize("arm", ["grün", "緑", "🟢", "أخضر", "a;b:c, d"])
def test_arms_in_any_script_are_percent_encoded(arm: str) -> None:
    app = make_app("unused", MAB_DEBUG_HEADERS=True)
    app.add_bandit("btn", colours(arm))  # type: ignore[attr-defined]
    add_pages(app, "btn")
    client = app.test_client()
    for word in ("STORE", "SAVED"):
        text = header(client.get("/btn"))
        text.encode("ascii")
        assert unquote(text) == f"{word}; btn:{arm}"
        assert text.count(";") == 1


def test_a_long_one_is_cut() -> None:
    names = [f"experiment_{i}" for i in range(100)]
    app = make_app(*names, MAB_DEBUG_HEADERS=True)
    client = app.test_client()
    for name in names:
        response = client.get(f"/{name}")
    assert len(header(response)) == 1000
    assert header(response).endswith("...")


def test_what_is_not_counted_says_so() -> None:
    app = make_app(MAB_DEBUG_HEADERS=True)
    assert header(app.test_client().head("/btn")).startswith("UNCOUNTED; btn:")


@pytest.mark.parametrize(
    ("word", "action", "arguments"),
    [
        ("CONTROL", "pause", {}),
        ("CONTROL", "close", {}),
        ("CONTROL", "archive", {}),
        ("UNCOUNTED", None, {"headers": {"User-Agent": "Googlebot/2.1"}}),
        ("STORE", None, {"headers": {"Sec-Purpose": "prefetch"}}),
        ("FORCED", "pause", {"query_string": {"mab_btn": "red"}}),
    ],
)
def test_the_words_and_that_no_shared_cache_keeps_any_of_them(
    word: str, action: str | None, arguments: Any
) -> None:
    app = make_app(MAB_DEBUG_HEADERS=True, MAB_OVERRIDES=True, MAB_CONTROL_TTL=0)
    if action is not None:
        app.extensions["bandit"].engine.change("btn", action)
    page = app.test_client().get("/btn", **arguments)
    assert header(page) == f"{word}; btn:{page.text.lstrip('#')}"
    assert page.headers["Vary"] == "Cookie"
    assert page.headers["Cache-Control"] == "private"


def test_a_declared_bandit_says_control_to_a_holder_too() -> None:
    app = make_app(MAB_DEBUG_HEADERS=True, MAB_CONTROL_TTL=0)
    client = app.test_client()
    client.get("/btn")
    app.extensions["bandit"].engine.change("btn", "declare", "blue")
    assert header(client.get("/btn")) == "CONTROL; btn:blue"


def test_no_consent_says_control() -> None:
    app = make_app(MAB_DEBUG_HEADERS=True)
    app.extensions["bandit"].hooks.consent = lambda: False
    assert header(app.test_client().get("/btn")) == "CONTROL; btn:green"
