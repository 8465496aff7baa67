"""Apps on each storage: how often a request asks it, and settings that concern storages."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_bandit import StorageError, reward, suggest_arm_for
from flask_bandit.plugins import storage_from_uri
from flask_bandit.storage import BanditStorage, SQLiteBanditStorage

from ..servers.postgres import PostgresServer
from ..servers.redis import RedisServer
from .conftest import make_app, pulls, rewards

NAMES = [f"b{i}" for i in range(10)]
STORAGES = ["memory", "json", "sqlite", "sqlalchemy", "postgresql", "redis", "zodb"]


@pytest.fixture
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty place on the storage that the test is parametrized with."""
    files = {
        "memory": "memory://",
        "json": f"json:///{tmp_path / 'bandits.json'}",
        "sqlite": f"sqlite:///{tmp_path / 'bandits.db'}",
        "sqlalchemy": f"sqlite+pysqlite:///{tmp_path / 'bandits.db'}",
        "zodb": f"zodb:///{tmp_path / 'bandits.fs'}",
    }
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        return postgres.new_database()
    if request.param == "redis":
        redis_server: RedisServer = request.getfixturevalue("redis_server")
        return redis_server.uri
    return files[request.param]


@pytest.fixture
def storage(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    options = {"prefix": str(tmp_path)} if uri.startswith("redis") else {}
    made = storage_from_uri(uri, options)
    yield made
    made.close()


@pytest.fixture
def calls(storage: BanditStorage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the storage's methods, as they are called."""
    heard: list[str] = []

    def listen(name: str) -> None:
        method: Callable[..., Any] = getattr(storage, name)

        def heard_method(*args: Any) -> Any:
            heard.append(name)
            return method(*args)

        monkeypatch.setattr(storage, name, heard_method)

    for name in (
        "commit",
        "read_counts",
        "read_control",
        "get_decisions",
        "iter_log",
        "iter_commits",
    ):
        listen(name)
    return heard


def ten_bandits(storage: BanditStorage, **config: Any) -> Flask:
    # Counts are what is tested: a busy machine must not make the storage seem to be down.
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=storage, MAB_STORAGE_TIMEOUT=60, **config)

    @app.get("/all")
    def page() -> list[str]:
        return [suggest_arm_for(name)[0] for name in NAMES]

    @app.post("/buy")
    def buy() -> list[bool]:
        return [reward(name) for name in NAMES]

    return app


@pytest.mark.parametrize("uri", STORAGES, indirect=True)
def test_round_trips(storage: BanditStorage, calls: list[str]) -> None:
    app = ten_bandits(storage, MAB_STATS_TTL=3600, MAB_CONTROL_TTL=3600)
    first, second = app.test_client(), app.test_client()
    first.get("/all")
    assert calls == ["read_control", "read_counts", "commit"]
    calls.clear()
    # Within the time to live of what was read: one write for ten bandits, and no read.
    second.get("/all")
    assert calls == ["commit"]
    calls.clear()
    for path in ("/all", "/b3", "/b4"):
        assert second.get(path).status_code == 200
    assert calls == []
    second.post("/buy")
    assert calls == ["commit"]
    calls.clear()
    assert [pulls(app, name) for name in NAMES] == [2] * 10
    assert [rewards(app, name) for name in NAMES] == [1] * 10


@pytest.mark.parametrize("uri", STORAGES, indirect=True)
def test_the_recommended_time_to_live(storage: BanditStorage, calls: list[str]) -> None:
    """Each storage's own recommendation is kept: reads are at least that far apart."""
    app = ten_bandits(storage)
    ttl = storage.default_stats_ttl
    started = time.monotonic()
    visitors = 20
    for _ in range(visitors):
        app.test_client().get("/all")
    reads = calls.count("read_counts")
    assert calls.count("commit") == visitors
    if ttl == 0:
        assert reads == visitors
    else:
        assert 1 <= reads <= 1 + (time.monotonic() - started) / ttl


@pytest.mark.parametrize("uri", ["memory", "sqlite", "redis", "postgresql"], indirect=True)
def test_own_commits_count_before_the_next_read(storage: BanditStorage, calls: list[str]) -> None:
    app = ten_bandits(storage, MAB_STATS_TTL=3600)
    engine = app.extensions["bandit"].engine
    for _ in range(5):
        app.test_client().get("/all")
    assert calls.count("read_counts") == 1
    table = engine._snapshot._counts
    assert {sum(row["pulls"] for row in arms.values()) for arms in table.values()} == {5}


@pytest.mark.parametrize(
    ("setting", "fails"),
    [({}, False), ({"MAB_SQL_AUTO_MIGRATE": "true"}, False)]
    + [({"MAB_SQL_AUTO_MIGRATE": value}, True) for value in (False, "False", "0")],
)
@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
def test_auto_migrate(scheme: str, setting: dict[str, Any], fails: bool, tmp_path: Path) -> None:
    app = make_app(
        MAB_STORAGE_ENGINE=None, MAB_STORAGE_URI=f"{scheme}:///{tmp_path / 'b.db'}", **setting
    )
    storage = app.extensions["bandit"].storage
    if fails:
        with pytest.raises(StorageError, match="flask bandit db upgrade"):
            storage.read_counts()
        assert app.test_client().get("/btn").status_code == 200
        storage.upgrade()
    assert storage.read_counts() == {}
    storage.close()


def test_without_the_setting_the_storage_s_own_option_holds(tmp_path: Path) -> None:
    storage = SQLiteBanditStorage(tmp_path / "b.db", auto_migrate=False)
    app = make_app(MAB_STORAGE_ENGINE=storage)
    assert app.extensions["bandit"].storage.auto_migrate is False
    app = make_app(MAB_STORAGE_ENGINE=storage, MAB_SQL_AUTO_MIGRATE=True)
    assert app.extensions["bandit"].storage.auto_migrate is True
    assert app.extensions["bandit"].storage.read_counts() == {}
    storage.close()
