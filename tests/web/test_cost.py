"""How often a request asks the storage; how long it takes is for the benchmarks."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_bandit import reward, suggest_arm_for

from .conftest import make_app, pulls, rewards
from .test_signals import Controlled

NAMES = [f"b{i}" for i in range(10)]


@pytest.fixture
def storage() -> Controlled:
    return Controlled()


@pytest.fixture
def app(storage: Controlled) -> Flask:
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=storage, MAB_STATS_TTL=3600, MAB_CONTROL_TTL=3600)

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
    app: Flask, storage: Controlled
) -> None:
    app.test_client().get("/all")
    assert storage.calls == ["control", "read", "commit"]
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


def test_with_no_time_to_live_counts_are_read_once_for_each_new_visitor(
    storage: Controlled,
) -> None:
    app = make_app(MAB_STORAGE_ENGINE=storage, MAB_STATS_TTL=0, MAB_CONTROL_TTL=3600)
    for _ in range(3):
        client = app.test_client()
        client.get("/btn")
        client.get("/btn")
    assert storage.calls == ["control", *["read", "commit"] * 3]


def test_with_no_time_to_live_ten_bandits_on_a_page_are_read_once(
    app: Flask, storage: Controlled
) -> None:
    app.config["MAB_STATS_TTL"] = 0
    for _ in range(2):
        app.test_client().get("/all")
    assert storage.calls == ["control", *["read", "commit"] * 2]


def test_with_no_time_to_live_ten_bandits_are_controlled_by_one_reading(
    app: Flask, storage: Controlled
) -> None:
    app.config["MAB_CONTROL_TTL"] = 0
    client = app.test_client()
    client.get("/all")
    assert storage.calls == ["control", "read", "commit"]
    storage.calls.clear()
    client.get("/plain")
    assert storage.calls == []
    client.get("/all")
    assert storage.calls == ["control"]
    client.post("/buy")
    assert storage.calls == ["control", "control", "commit"]


def test_a_paused_or_declared_bandit_costs_nothing_more(app: Flask, storage: Controlled) -> None:
    engine = app.extensions["bandit"].engine
    for name in NAMES:
        engine.change(name, "pause")
    client = app.test_client()
    client.get("/all")
    storage.calls.clear()
    client.get("/all")
    client.post("/buy")
    assert storage.calls == []
