"""The shop on each storage, with four workers and 2,000 visitors: equal to the unit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..servers.postgres import PostgresServer
from ..servers.redis import RedisServer
from ..servers.zeo import ZEOServer
from .conftest import Serve, Shop
from .test_visitors import GUNICORN, finish, pulls

VISITORS = 2000
FILES = {
    "json": "json:///bandits.json",
    "sqlite": "sqlite:///bandits.db",
    "sqlalchemy": "sqlite+pysqlite:///bandits.db",
}


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    """The URI of an empty place on the storage that the test is parametrized with."""
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        return postgres.new_database()
    if request.param == "redis":
        start: Callable[[], RedisServer] = request.getfixturevalue("start_redis")
        return start().uri
    if request.param == "zeo":
        start_zeo: Callable[[], ZEOServer] = request.getfixturevalue("start_zeo")
        return start_zeo().uri
    return FILES[request.param]


def assert_exact(output: str, shop: Shop) -> None:
    assert f"equal what the visitors saw, to the unit: {VISITORS:,} visitors" in output
    assert "WRONG" not in output
    assert pulls(shop.counts()) == {"color_btn": VISITORS, "txt_btn": VISITORS}


@pytest.mark.parametrize(
    "uri", ["json", "sqlite", "sqlalchemy", "postgresql", "redis", "zeo"], indirect=True
)
def test_four_workers_count_to_the_unit(serve: Serve, uri: str) -> None:
    shop = serve(*GUNICORN, MAB_STORAGE_URI=uri)
    assert_exact(finish(shop.visitors(VISITORS, "--seed", "3")), shop)
    assert len(shop.workers()) == 4
    assert "ERROR" not in shop.log


@pytest.mark.parametrize("uri", ["postgresql", "redis"], indirect=True)
def test_two_servers_are_one_experiment(serve: Serve, uri: str) -> None:
    """Each visitor's requests go to both servers in turn."""
    first = serve(*GUNICORN, MAB_STORAGE_URI=uri)
    second = serve(*GUNICORN, MAB_STORAGE_URI=uri)
    assert_exact(finish(first.visitors(VISITORS, "--url", second.url)), first)
    assert second.counts() == first.counts()
