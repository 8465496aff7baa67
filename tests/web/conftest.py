"""Real apps on a memory storage, and clients whose cookies the tests can read and forge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_bandit import BanditMiddleware, choose_arm, reward_endpt
from flask_bandit.bandits import Bandit
from flask_bandit.storage import MemoryBanditStorage

MakeApp = Callable[..., Flask]


def colours(*arms: str) -> Bandit:
    """Return a uniform bandit: its draws depend on nothing but the visitor."""
    bandit = Bandit()
    for arm in arms or ("green", "red", "blue"):
        bandit.add_arm(arm, f"#{arm}")
    return bandit


def make_app(*names: str, **config: Any) -> Flask:
    """Return an app with a page ``/NAME`` and a button ``/NAME/click`` for each bandit."""
    app = Flask("shop")
    app.config.update({"SECRET_KEY": "k" * 32, "MAB_STORAGE_ENGINE": MemoryBanditStorage()})
    app.config.update(config)
    BanditMiddleware(app)
    for name in names or ("btn",):
        app.add_bandit(name, colours())  # type: ignore[attr-defined]
        add_pages(app, name)
    return app


def add_pages(app: Flask, name: str) -> None:
    @app.get(f"/{name}", endpoint=name)
    @choose_arm(name, arg="arm")
    def page(arm: str) -> str:
        return arm

    @app.route(f"/{name}/click", endpoint=f"{name}_click", methods=["GET", "POST"])
    @reward_endpt(name, 1.0)
    def click() -> str:
        return "thanks"


def pulls(app: Flask, name: str = "btn") -> int:
    """Return the stored pulls of a bandit, arms that the code no longer has included."""
    return total(app, name, "pulls")


def rewards(app: Flask, name: str = "btn") -> int:
    """Return how many rewards of a bandit are stored."""
    return total(app, name, "rewards")


def total(app: Flask, name: str, what: str) -> int:
    counts = app.extensions["bandit"].storage.read_counts()
    return int(
        sum(
            row.get(what, 0)
            for key, arms in counts.items()
            if key[0] == name
            for row in arms.values()
        )
    )


def set_cookies(response: Any) -> list[str]:
    """Return the bandits' Set-Cookie headers of a response."""
    return [h for h in response.headers.getlist("Set-Cookie") if h.startswith("MAB=")]


def cookie_value(response: Any) -> str:
    """Return the bandits' cookie that a response sets."""
    (header,) = set_cookies(response)
    return str(header.split(";")[0].partition("=")[2])


@pytest.fixture
def app() -> Flask:
    """An app with one bandit, ``btn``."""
    return make_app()
