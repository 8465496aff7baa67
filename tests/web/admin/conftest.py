"""Apps with a dashboard, each on a memory storage and on SQLite."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_admin import Admin

from flask_bandit.storage import MemoryBanditStorage, SQLiteBanditStorage
from flask_bandit.storage.base import BanditStorage
from flask_bandit.web.admin import BanditAdmin
from tests.web.conftest import make_app

ROOT = "/admin/bandits/"
ANN = ("ann", "secret")


def open_to_all() -> bool:
    """Let everybody in."""
    return True


def admin_app(
    *names: str, storage: BanditStorage | None = None, view: Any = None, **config: Any
) -> Flask:
    """Return an app with bandits, pages for them, and a dashboard."""
    app = make_app(
        *names, TESTING=True, MAB_STORAGE_ENGINE=storage or MemoryBanditStorage(), **config
    )
    Admin(app).add_view(view or BanditAdmin(access=open_to_all))
    return app


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BanditStorage]:
    """An empty storage."""
    storage: BanditStorage = MemoryBanditStorage()
    if request.param == "sqlite":
        storage = SQLiteBanditStorage(tmp_path / "bandits.db")
    yield storage
    storage.close()


def fields(page: str) -> dict[str, str]:
    """Return the hidden fields of a page's form."""
    found = {}
    for tag in re.findall(r"<input[^>]*>", page):
        named = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if named.get("type") == "hidden":
            found[html.unescape(named["name"])] = html.unescape(named["value"])
    return found


def do(client: Any, action: str, name: str = "btn", **form: str) -> Any:
    """Ask for an action's page as a browser does, and send its form."""
    asked = client.get(f"{ROOT}do/{action}", query_string={"name": name})
    assert asked.status_code == 200, asked.text
    return send(client, action, name, {**fields(asked.text), **form})


def send(client: Any, action: str, name: str, form: dict[str, str]) -> Any:
    """Send an action's form, whatever is in it."""
    return client.post(f"{ROOT}do/{action}", query_string={"name": name}, data=form, auth=ANN)
