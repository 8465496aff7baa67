"""How often a request asks the storage; how long it takes is for the benchmarks."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_bandit import reward, suggest_arm_for

from .conftest import make_app, pulls, rewards
from .test_failure import Faulty

NAMES = [f"b{i}" for i in range(10)]


@pytest.fixture
def storage() -> Faulty:
    return Faulty()


@pytest.fixture
def app(storage: Faulty) -> Flask:
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=storage, MAB_STATS_TTL=60)

    @app.get("/all")
    def page() -> list[str]:
        return [suggest_arm_for(name)[0] for name in NAMES]

    @app.post("/buy")
    def buy() -> list[bool]:
        return [reward(name) for name in NAMES]

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    return app


def test_a_visitor_costs_one_write_for_ten_bandits_and_nothing_when_returning(
    app: Flask, storage: Faulty
) -> None:
    app.test_client().get("/all")
    assert storage.calls == ["read", "commit"]
    storage.calls.clear()
    client = app.test_client()
    client.get("/plain")
    assert storage.calls == []
    client.get("/all")
    assert storage.calls == ["commit"]
    client.get("/all")
    client.get("/b3")
    assert storage.calls == ["commit"]
    client.post("/buy")
    assert storage.calls == ["commit", "commit"]
    assert [pulls(app, name) for name in NAMES] == [2] * 10
    assert [rewards(app, name) for name in NAMES] == [1] * 10


def test_with_no_time_to_live_counts_are_read_once_for_each_new_visitor(storage: Faulty) -> None:
    app = make_app(MAB_STORAGE_ENGINE=storage, MAB_STATS_TTL=0)
    for _ in range(3):
        client = app.test_client()
        client.get("/btn")
        client.get("/btn")
    assert storage.calls == ["read", "commit"] * 3


def test_with_no_time_to_live_ten_bandits_on_a_page_are_read_once(
    app: Flask, storage: Faulty
) -> None:
    app.config["MAB_STATS_TTL"] = 0
    for _ in range(2):
        app.test_client().get("/all")
    assert storage.calls == ["read", "commit"] * 2
