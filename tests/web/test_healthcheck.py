"""``healthcheck()``, as a load balancer asks for it."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from flask_bandit import BanditMiddleware, ConfigurationError

from .conftest import add_pages, colours, make_app
from .test_failure import Faulty, let_a_probe_through


@pytest.fixture
def storage() -> Faulty:
    return Faulty()


@pytest.fixture
def app(storage: Faulty) -> Flask:
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage)
    mab = BanditMiddleware(app)
    mab.add_bandit("btn", colours())
    add_pages(app, "btn")

    @app.get("/healthz")
    def healthz() -> tuple[dict[str, Any], int]:
        health = mab.healthcheck()
        return health, 200 if health["ok"] else 503

    return app


def ask(app: Flask) -> tuple[int, dict[str, Any]]:
    response = app.test_client().get("/healthz")
    return response.status_code, dict(response.get_json())


def test_a_storage_that_works(app: Flask, storage: Faulty) -> None:
    status, health = ask(app)
    assert status == 200
    assert health.pop("seconds") >= 0
    assert health == {"ok": True, "storage": "Faulty", "error": None}
    assert storage.calls == ["read"]


def test_a_storage_that_cannot_be_read(app: Flask, storage: Faulty) -> None:
    storage.broken = {"read"}
    status, health = ask(app)
    assert (status, health["ok"]) == (503, False)
    assert "read is broken" in health["error"]
    storage.broken = set()
    assert ask(app)[0] == 200


def test_a_storage_that_can_only_be_read(app: Flask, storage: Faulty) -> None:
    storage.broken = {"commit"}
    app.test_client().get("/btn")
    status, health = ask(app)
    assert (status, health["ok"]) == (503, False)
    assert "nothing could be written" in health["error"]
    storage.broken = set()
    let_a_probe_through(app)
    app.test_client().get("/btn")
    assert ask(app)[0] == 200


def test_settings_that_cannot_work() -> None:
    app = make_app(MAB_STORAGE_ENGINE=None, MAB_STORAGE_URI="nosql://x")
    mab = BanditMiddleware()
    with app.app_context():
        health = mab.healthcheck()
    assert (health["ok"], health["storage"]) == (False, None)
    assert "nosql" in health["error"]


def test_without_an_app_context(app: Flask) -> None:
    mab = BanditMiddleware()
    with pytest.raises(ConfigurationError, match="which app"):
        mab.healthcheck()
    one = Flask("one")
    one.config.update(SECRET_KEY="x", TESTING=True)
    mab.init_app(one)
    assert mab.healthcheck()["ok"]
