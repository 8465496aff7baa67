"""An app on a real Redis: its pages are answered whatever the server does, and cheaply."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_bandit import StorageError, reward, storage_failed, storage_recovered, suggest_arm_for
from tests.servers.redis import RedisServer

from .conftest import make_app, pulls, rewards, set_cookies

NAMES = [f"b{number}" for number in range(10)]
PATIENCE = 30.0


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis(appendfsync="always")


@pytest.fixture
def app(server: RedisServer) -> Iterator[Flask]:
    app = make_app(MAB_STORAGE_ENGINE=None, MAB_STORAGE_URI=server.uri, MAB_STORAGE_TIMEOUT=0.5)
    yield app
    app.extensions["bandit"].storage.close()


class Heard:
    """What the signals said, in order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.recovered_at = 0.0

    def failed(self, sender: Flask, error: Exception) -> None:
        assert isinstance(error, StorageError)
        self.said.append("failed")

    def recovered(self, sender: Flask) -> None:
        self.said.append("recovered")
        self.recovered_at = time.monotonic()


@pytest.fixture
def heard(app: Flask) -> Iterator[Heard]:
    heard = Heard()
    with (
        storage_failed.connected_to(heard.failed, app),
        storage_recovered.connected_to(heard.recovered, app),
    ):
        yield heard


def visit(app: Flask) -> int:
    """Visit a page as somebody new and click; return how many decisions were acknowledged."""
    client = app.test_client()
    page = client.get("/btn")
    assert page.status_code == 200
    assert client.post("/btn/click").status_code == 200
    return len(set_cookies(page))


def visit_until(app: Flask, done: Callable[[], bool]) -> int:
    """Visit until something has happened; return how many decisions were acknowledged."""
    deadline = time.monotonic() + PATIENCE
    acknowledged = 0
    while not done():
        assert time.monotonic() < deadline
        acknowledged += visit(app)
    return acknowledged


def test_killed_and_restarted(
    app: Flask, server: RedisServer, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    acknowledged = 0
    for outage in range(1, 4):
        acknowledged += sum(visit(app) for _ in range(20))
        server.kill()
        acknowledged += sum(visit(app) for _ in range(20))
        assert heard.said == ["failed", "recovered"] * (outage - 1) + ["failed"]
        server.start()
        back = time.monotonic()
        acknowledged += visit_until(app, lambda n=outage: len(heard.said) == 2 * n)  # type: ignore[misc]
        # Half a second between probes; the rest is for a busy machine.
        assert heard.recovered_at - back < 5.0
        acknowledged += visit(app)
    assert heard.said == ["failed", "recovered"] * 3
    logged = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(logged) == 3
    assert "cannot be reached" in caplog.text
    assert acknowledged >= 3 * 21
    assert acknowledged <= pulls(app)
    assert rewards(app) <= pulls(app)


def test_hanging(app: Flask, server: RedisServer, heard: Heard) -> None:
    visit(app)
    server.pause()
    started = time.monotonic()
    for _ in range(10):
        assert visit(app) == 0
    assert time.monotonic() - started < PATIENCE
    assert heard.said == ["failed"]
    server.resume()
    visit_until(app, lambda: heard.said == ["failed", "recovered"])
    assert visit(app) == 1


def test_full_memory(app: Flask, server: RedisServer, heard: Heard) -> None:
    """Reading works all the time; the outage ends with a write that does."""
    visit(app)
    with server.client() as client:
        client.config_set("maxmemory", "1")
        assert sum(visit(app) for _ in range(10)) == 0
        assert heard.said == ["failed"]
        client.config_set("maxmemory", "0")
    acknowledged = visit_until(app, lambda: len(heard.said) == 2)
    assert heard.said == ["failed", "recovered"]
    assert pulls(app) == 1 + acknowledged


# What a request costs


@pytest.fixture
def shop(server: RedisServer) -> Iterator[Flask]:
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=None, MAB_STORAGE_URI=server.uri, MAB_STATS_TTL=3600)

    @app.get("/all")
    def page() -> list[str]:
        return [suggest_arm_for(name)[0] for name in NAMES]

    @app.post("/buy")
    def buy() -> list[bool]:
        return [reward(name) for name in NAMES]

    yield app
    app.extensions["bandit"].storage.close()


def commands(client: Any) -> dict[str, int]:
    """Return how often each command came, from clients or scripts, and start to count anew."""
    stats = client.info("commandstats")
    client.config_resetstat()
    names = {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}
    return {name: names[name] for name in ("evalsha", "eval", "hgetall") if name in names}


def test_commands_on_the_server(shop: Flask, server: RedisServer) -> None:
    shop.test_client().get("/all")  # the script is loaded, and the counts are read for an hour
    with server.client() as client:
        commands(client)
        visitor = shop.test_client()
        visitor.get("/all")
        assert commands(client) == {"evalsha": 1}, "ten bandits, one write"
        for _ in range(5):
            visitor.get("/all")
            visitor.get("/b3")
        assert commands(client) == {}, "a returning visitor"
        visitor.post("/buy")
        assert commands(client) == {"evalsha": 1}, "ten rewards, one write"
        shop.test_client().get("/b3")
        assert commands(client) == {"evalsha": 1}
    assert [pulls(shop, name) for name in NAMES] == [2] * 3 + [3] + [2] * 6
    assert [rewards(shop, name) for name in NAMES] == [1] * 10


def test_counts_are_read_once_in_their_time_to_live(server: RedisServer) -> None:
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=None, MAB_STORAGE_URI=server.uri, MAB_STATS_TTL=0.2)
    with server.client() as client:
        commands(client)
        started = time.monotonic()
        visits = 0
        while time.monotonic() - started < 1.0:
            visits += 1
            app.test_client().get(f"/{NAMES[visits % 10]}")
        lasted = time.monotonic() - started
        counted = commands(client)
    assert counted["evalsha"] == visits
    assert 1 <= counted["hgetall"] <= lasted / 0.2 + 1
    app.extensions["bandit"].storage.close()


def test_by_default_counts_are_a_second_old_at_most(app: Flask) -> None:
    visit(app)
    assert app.extensions["bandit"].storage.default_stats_ttl == 1.0
