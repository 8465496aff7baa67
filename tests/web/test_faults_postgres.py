"""An app on PostgreSQL: what it costs, and what its visitors notice of an outage: nothing."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event

from flask_bandit import storage_failed, storage_recovered, suggest_arm_for
from flask_bandit.storage.sql import SQLBanditStorage
from tests.servers.postgres import PostgresServer

from .conftest import make_app, pulls, rewards, set_cookies

PATIENCE = 60.0
NAMES = [f"b{number}" for number in range(10)]


@pytest.fixture
def storage(postgres: PostgresServer) -> Iterator[SQLBanditStorage]:
    storage = SQLBanditStorage(postgres.new_database())
    storage.upgrade()
    yield storage
    storage.close()


@pytest.fixture
def statements(storage: SQLBanditStorage) -> list[str]:
    """Every statement that is sent to the server from now on."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        sent.append(statement.strip())

    assert storage._calls.links is not None
    event.listen(storage._calls.links.engine, "before_cursor_execute", note)
    return sent


def kinds(statements: list[str]) -> tuple[int, int]:
    """Return how many transactions wrote and how many read; all of one are sent in a row."""
    begun = sum(statement.startswith("BEGIN") for statement in statements)
    inside = writes = reads = 0
    for statement in statements:
        if statement.startswith("BEGIN"):
            inside = 1
        elif statement.startswith(("COMMIT", "ROLLBACK")):
            inside = 0
        elif not inside and statement.startswith("WITH"):
            writes += 1
        elif not inside:
            reads += 1
    statements.clear()
    return begun + writes, reads


def add_page_of_all(app: Flask) -> None:
    @app.get("/all")
    def page_of_all() -> str:
        return ",".join(suggest_arm_for(name)[0] for name in NAMES)


def test_what_a_request_costs(storage: SQLBanditStorage, statements: list[str]) -> None:
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=storage, MAB_STATS_TTL=3600.0)
    add_page_of_all(app)
    app.test_client().get("/b0")
    statements.clear()
    client = app.test_client()
    assert set_cookies(client.get("/b0"))
    assert kinds(statements) == (1, 0)
    client.get("/b0")
    assert kinds(statements) == (0, 0)
    client.post("/b0/click")
    assert kinds(statements) == (1, 0)
    assert len(app.test_client().get("/all").text.split(",")) == len(NAMES)
    assert kinds(statements) == (1, 0)
    client.get("/all")
    assert kinds(statements) == (1, 0)
    assert (pulls(app, "b0"), rewards(app, "b0"), pulls(app, "b9")) == (3, 1, 2)


def test_counts_are_read_once_for_all_bandits(
    storage: SQLBanditStorage, statements: list[str]
) -> None:
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=storage, MAB_STATS_TTL=0.0)
    add_page_of_all(app)
    app.test_client().get("/b0")
    statements.clear()
    ttls = {"MAB_STATS_TTL": 3600.0, "MAB_CONTROL_TTL": 3600.0}
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=storage, **ttls)
    add_page_of_all(app)
    for _ in range(5):
        app.test_client().get("/all")
    # The counts of all bandits, and what operators decided about all of them.
    assert kinds(statements) == (5, 2)


class Visitors:
    """Threads of visitors, each new one seeing a page and clicking."""

    def __init__(self, app: Flask, number: int) -> None:
        self.statuses: list[int] = []
        self.acknowledged = 0
        self._app = app
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._visit) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _visit(self) -> None:
        while not self._ends.is_set():
            client = self._app.test_client()
            seen = client.get("/btn")
            clicked = client.post("/btn/click")
            with self._lock:
                self.statuses += [seen.status_code, clicked.status_code]
                self.acknowledged += bool(set_cookies(seen))

    def go_on(self) -> None:
        """Wait until they were served some more pages."""
        served = len(self.statuses)
        until(lambda: len(self.statuses) > served + 200, "the site waits")

    def are_assigned(self) -> None:
        """Wait until some more got a cookie."""
        before = self.acknowledged
        until(lambda: self.acknowledged > before + 20, "nobody was assigned")

    def leave(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(PATIENCE)


def wait_for(events: list[Any], number: int) -> None:
    until(lambda: len(events) >= number, "it was not sent")


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def test_the_site_goes_on_while_the_server_is_away(
    postgres: PostgresServer, storage: SQLBanditStorage, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(MAB_STORAGE_ENGINE=storage)
    failures: list[Any] = []
    recoveries: list[float] = []

    def failed(sender: object, **about: object) -> None:
        failures.append(about)

    def recovered(sender: object, **about: object) -> None:
        recoveries.append(time.monotonic())

    storage_failed.connect(failed)
    storage_recovered.connect(recovered)
    caplog.set_level(logging.WARNING, "flask_bandit")
    visitors = Visitors(app, 3)
    try:
        visitors.are_assigned()
        for outage in (1, 2):
            postgres.stop_immediate()
            wait_for(failures, outage)
            visitors.go_on()
            assert len(recoveries) == outage - 1
            postgres.start()
            back = time.monotonic()
            wait_for(recoveries, outage)
            # One second is what is promised; the rest is for a busy machine.
            assert recoveries[-1] - back < 5.0
            visitors.are_assigned()
    finally:
        visitors.leave()
    assert set(visitors.statuses) == {200}
    assert (len(failures), len(recoveries)) == (2, 2)
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 2
    assert "secret" not in caplog.text
    stored = [entry for entry in storage.iter_log() if entry.decision.bandit == "btn"]
    assert visitors.acknowledged <= len(stored) == pulls(app)
    assert sum(len(entry.rewards) for entry in stored) == rewards(app)


def test_a_deadline_holds_for_a_page_while_the_server_hangs(
    postgres: PostgresServer, storage: SQLBanditStorage
) -> None:
    app = make_app(MAB_STORAGE_ENGINE=storage, MAB_STORAGE_TIMEOUT=0.3, MAB_STATS_TTL=0.0)
    app.test_client().get("/btn")
    stopped = postgres.pids()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert app.test_client().get("/btn").status_code == 200
        assert time.monotonic() - started < 5.0
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    until(lambda: set_cookies(app.test_client().get("/btn")), "it did not resume")
