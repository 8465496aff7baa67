"""The page is answered whatever the storage does."""

from __future__ import annotations

import logging
import time
from itertools import count
from typing import Any

import pytest
from flask import Flask

from flask_bandit import StorageError, storage_failed, storage_recovered
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import Commit, CommitResult
from flask_bandit.web.reports import Stored, report

from .conftest import make_app, pulls, rewards, set_cookies


class Faulty(MemoryBanditStorage):
    """Fails where it is told to, and counts who asks it."""

    default_stats_ttl = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.calls: list[str] = []
        self.delay = 0.0

    def _pass(self, what: str, timeout: float | None) -> None:
        self.calls.append(what)
        if self.delay:
            time.sleep(min(self.delay, timeout or self.delay))
            raise StorageError("too slow")
        if what in self.broken:
            raise OSError(f"{what} is broken")

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        self._pass("commit", timeout)
        return super().commit(commit, timeout)

    def read_counts(self, timeout: float | None = None) -> Any:
        self._pass("read", timeout)
        return super().read_counts(timeout)


@pytest.fixture
def storage() -> Faulty:
    return Faulty()


@pytest.fixture
def app(storage: Faulty) -> Flask:
    return make_app(MAB_STORAGE_ENGINE=storage)


def let_a_probe_through(app: Flask) -> None:
    """Let the breaker's half second pass, without waiting for it."""
    app.extensions["bandit"].engine._breaker._next_probe = 0.0


@pytest.mark.parametrize("broken", [{"read"}, {"commit"}, {"read", "commit"}])
def test_a_new_visitor_gets_a_page_and_no_cookie(
    app: Flask, storage: Faulty, broken: set[str]
) -> None:
    storage.broken = broken
    client = app.test_client()
    # The first request discovers the outage and may show a drawn arm; then it is the control.
    response = client.get("/btn")
    assert response.status_code == 200
    assert not set_cookies(response)
    for _ in range(5):
        response = client.get("/btn")
        assert (response.status_code, response.text) == (200, "#green")
        assert not set_cookies(response)
    storage.broken = set()
    assert pulls(app) == 0


@pytest.mark.parametrize("broken", ["read", "commit"])
def test_who_met_an_outage_is_told_when_it_is_over(
    app: Flask, storage: Faulty, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = app.extensions["bandit"]
    monkeypatch.setattr(state.tally, "_clock", count(step=1000).__next__)
    holder = app.test_client()
    holder.get("/btn")
    storage.broken = {broken}
    for _ in range(7):
        app.test_client().get("/btn")
    # Who holds an arm keeps it, and misses nothing.
    holder.get("/btn")
    storage.broken = set()
    for _ in range(3):
        let_a_probe_through(app)
        app.test_client().get("/btn")
    with app.app_context():
        assert report(Stored.read(state.bandits, storage), "btn").not_counted == {"outage": 7}
    assert pulls(app) == 4


def test_an_open_breaker_asks_the_storage_nothing(app: Flask, storage: Faulty) -> None:
    storage.broken = {"read"}
    app.test_client().get("/btn")
    asked = len(storage.calls)
    for _ in range(10):
        app.test_client().get("/btn")
    assert len(storage.calls) <= asked + 1  # a probe, if half a second has passed


def test_a_returning_visitor_keeps_the_arm_and_earns_nothing(app: Flask, storage: Faulty) -> None:
    client = app.test_client()
    arm = client.get("/btn").text
    storage.broken = {"read", "commit"}
    app.test_client().get("/btn")
    assert client.get("/btn").text == arm
    assert client.post("/btn/click").status_code == 200
    storage.broken = set()
    assert rewards(app) == 0


@pytest.mark.parametrize("broken", ["read", "commit"])
def test_it_resumes_by_itself_and_tells_once(
    app: Flask, storage: Faulty, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def on_failed(sender: Flask, error: Exception) -> None:
        heard.append(f"failed: {error}")

    def on_recovered(sender: Flask) -> None:
        heard.append("recovered")

    with (
        storage_failed.connected_to(on_failed, app),
        storage_recovered.connected_to(on_recovered, app),
    ):
        storage.broken = {broken}
        for _ in range(5):
            app.test_client().get("/btn")
            let_a_probe_through(app)
        storage.broken = set()
        let_a_probe_through(app)
        response = app.test_client().get("/btn")
        assert set_cookies(response)
        app.test_client().get("/btn")
    assert heard == [f"failed: {broken} is broken", "recovered"]
    assert pulls(app) == 2
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 1


def test_one_request_spends_one_deadline(storage: Faulty) -> None:
    app = make_app("one", "two", "three", MAB_STORAGE_ENGINE=storage, MAB_STORAGE_TIMEOUT=0.2)
    client = app.test_client()
    storage.delay = 30.0
    started = time.monotonic()
    client.get("/one")
    client.get("/two")
    client.post("/three/click")
    # Two orders of magnitude below the storage's 30 s: a bound, not a measurement.
    assert time.monotonic() - started < 10
    assert storage.calls == ["read"]


def test_the_signal_s_error_is_the_storage_s(app: Flask, storage: Faulty) -> None:
    storage.broken = {"commit"}
    errors: list[Exception] = []

    def hear(sender: Flask, error: Exception) -> None:
        errors.append(error)

    with storage_failed.connected_to(hear, app):
        app.test_client().get("/btn")
    assert [str(error) for error in errors] == ["commit is broken"]


def test_memory_outside_debug_and_testing_warns(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(MAB_STORAGE_ENGINE=None)
    app.test_client().get("/btn")
    assert "MAB_STORAGE_URI" in caplog.text
    caplog.clear()
    app = make_app(MAB_STORAGE_ENGINE=None, TESTING=True)
    app.test_client().get("/btn")
    assert not caplog.text
