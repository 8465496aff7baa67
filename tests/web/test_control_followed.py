"""Every worker follows what operators decide, at the cost of one read per ``MAB_CONTROL_TTL``."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_bandit import BanditMiddleware, suggest_arm_for

from .conftest import colours, make_app, pulls, set_cookies
from .test_failure import let_a_probe_through
from .test_signals import Controlled

NAMES = ("one", "two", "three")
TTL = 1.0
PATIENCE = 60.0
"""Seconds after which a worker that does not follow has failed; nothing waits so long."""

WORKER = textwrap.dedent(
    """
    import json, sys, time
    from tests.web.test_control_followed import TTL, shop

    app = shop(sys.argv[1])
    storage = app.extensions["bandit"].storage
    real, reads = storage.read_control, []
    storage.read_control = lambda timeout=None: reads.append(timeout) or real(timeout)
    client, started = app.test_client(), time.monotonic()
    for line in sys.stdin:
        pages = [client.get("/all").json for _ in range(int(line))]
        allowed = 1 + (time.monotonic() - started) / TTL
        print(json.dumps([pages[-1], len(reads), allowed]), flush=True)
    """
)


def shop(path: str | Path) -> Flask:
    """Return an app on a database, with a page that shows an arm of each bandit."""
    app = Flask("shop")
    # What is tested is not whether this machine is busy.
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_TIMEOUT=PATIENCE, MAB_CONTROL_TTL=TTL)
    app.config.update(MAB_STORAGE_URI=f"sqlite:///{path}", MAB_STATS_TTL=3600)
    mab = BanditMiddleware(app)
    for name in NAMES:
        mab.add_bandit(name, colours())
    app.add_url_rule("/all", view_func=lambda: [suggest_arm_for(name)[0] for name in NAMES])
    return app


class Worker:
    """A process with an app of its own and a visitor who returns."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WORKER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, times: int = 1) -> tuple[list[str], int, float]:
        """Return the last page, the reads so far, and how many there may be by its clock."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        page, reads, allowed = json.loads(self._process.stdout.readline())
        return page, reads, allowed

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Worker]]:
    found = [Worker(tmp_path / "bandits.db") for _ in range(4)]
    yield found
    for worker in found:
        worker.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the workers do not follow"


def test_four_workers_follow_and_read_once_for_all_bandits_and_requests(
    workers: list[Worker], tmp_path: Path
) -> None:
    app = shop(tmp_path / "bandits.db")
    engine = app.extensions["bandit"].engine
    before = [worker.ask()[0] for worker in workers]

    def pages() -> list[list[str]]:
        return [worker.ask(20)[0] for worker in workers]

    assert pages() == before
    # Two bandits at once; the third goes on.
    engine.change("one", "declare", "blue")
    engine.change("two", "pause")
    followed = [["blue", "green", third] for _, _, third in before]
    until(lambda: pages() == followed)
    engine.change("one", "reopen")
    engine.change("two", "resume")
    until(lambda: pages() == before)
    for worker in workers:
        _, reads, allowed = worker.ask()
        # Hundreds of requests for three bandits; by the worker's own clock, so no timing.
        assert reads <= allowed
    engine.storage.close()


@pytest.fixture
def storage() -> Controlled:
    return Controlled()


@pytest.fixture
def app(storage: Controlled) -> Flask:
    return make_app(*NAMES, MAB_STORAGE_ENGINE=storage, MAB_CONTROL_TTL=0)


def engine_of(app: Flask) -> Any:
    return app.extensions["bandit"].engine


def test_a_returning_visitor_costs_one_read_per_time_to_live(storage: Controlled) -> None:
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=storage, MAB_CONTROL_TTL=3600, MAB_STATS_TTL=3600)
    client = app.test_client()
    for name in NAMES:
        client.get(f"/{name}")
    assert storage.calls.count("control") == 1
    storage.calls.clear()
    for _ in range(20):
        for name in NAMES:
            client.get(f"/{name}")
    assert storage.calls == []
    engine_of(app)._controls._read_at -= 3600
    for _ in range(20):
        for name in NAMES:
            client.get(f"/{name}")
    assert storage.calls == ["control"]


def test_a_time_to_live_longer_than_the_machine_is_up(
    storage: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_of(make_app("btn", MAB_STORAGE_ENGINE=storage)).change("btn", "declare", "blue")
    app = make_app("btn", MAB_STORAGE_ENGINE=storage, MAB_CONTROL_TTL=3600)
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    assert {app.test_client().get("/btn").text for _ in range(20)} == {"#blue"}


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_during_an_outage_what_was_known_stays_in_force(storage: Controlled, how: str) -> None:
    """The declared winner, else the cookie's arm, else the control."""
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=storage, MAB_CONTROL_TTL=0, MAB_STORAGE_TIMEOUT=0.2)
    holder = app.test_client()
    before = {name: holder.get(f"/{name}").text for name in NAMES}
    engine_of(app).change("one", "declare", "blue")
    engine_of(app).change("two", "pause")
    counted = pulls(app, "three")
    storage.calls.clear()
    if how == "raises":
        storage.broken = {"control", "read", "commit"}
    else:
        storage.delay = 30.0
    engine_of(app)._breaker._probe_every = 3600.0
    for _ in range(5):
        for client, third in ((holder, before["three"]), (app.test_client(), "#green")):
            pages = [client.get(f"/{name}") for name in NAMES]
            assert [page.status_code for page in pages] == [200] * 3
            assert [page.text for page in pages] == ["#blue", "#green", third]
            assert not any(map(set_cookies, pages))
    # One deadline for all of them.
    assert storage.calls == ["control"]
    storage.broken, storage.delay = set(), 0.0
    let_a_probe_through(app)
    engine_of(app).change("one", "reopen")
    engine_of(app).change("two", "resume")
    assert {name: holder.get(f"/{name}").text for name in NAMES} == before
    assert set_cookies(app.test_client().get("/three"))
    assert pulls(app, "three") == counted + 1


def test_an_outage_that_was_there_first_shows_the_cookie_s_arm_and_ends_by_itself(
    storage: Controlled,
) -> None:
    old = make_app(*NAMES, MAB_STORAGE_ENGINE=storage)
    client = old.test_client()
    held = client.get("/one").text
    engine_of(old).change("two", "declare", "blue")
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=storage)
    later = app.test_client()
    later.set_cookie("MAB", client.get_cookie("MAB").value)  # type: ignore[union-attr]
    storage.broken = {"control"}
    for _ in range(3):
        assert later.get("/one").text == held
        assert app.test_client().get("/two").text == "#green"
    storage.broken = set()
    let_a_probe_through(app)
    assert app.test_client().get("/two").text == "#blue"
    assert later.get("/one").text == held


def test_threads_that_know_nothing_yet_wait_for_one_reading_only(storage: Controlled) -> None:
    app = make_app(*NAMES, MAB_STORAGE_ENGINE=storage, MAB_STORAGE_TIMEOUT=0.2)
    storage.delay = 30.0
    engine_of(app)._breaker._probe_every = 3600.0
    barrier = threading.Barrier(8)

    def visit(_: int) -> int:
        client = app.test_client()
        barrier.wait(PATIENCE)
        return client.get("/one").status_code

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(visit, range(8))) == [200] * 8
    assert storage.calls == ["control"]


def test_nobody_waits_for_the_one_that_tries_during_an_outage(
    app: Flask, storage: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.broken = {"control"}
    app.test_client().get("/one")
    trying, go_on = threading.Event(), threading.Event()

    def hang(timeout: float | None = None) -> Any:
        trying.set()
        go_on.wait(PATIENCE)
        raise OSError("still away")

    monkeypatch.setattr(storage, "read_control", hang)
    let_a_probe_through(app)
    with ThreadPoolExecutor(2) as pool:
        probe = pool.submit(lambda: app.test_client().get("/one").status_code)
        assert trying.wait(PATIENCE)
        other = pool.submit(lambda: app.test_client().get("/one").text)
        try:
            assert other.result(PATIENCE / 2) == "#green"
            assert not probe.done()
        finally:
            go_on.set()
        assert probe.result(PATIENCE) == 200


def test_without_a_time_to_live_no_thread_shows_what_is_over(app: Flask) -> None:
    clients = [app.test_client() for _ in range(4)]

    def read(client: Any) -> str:
        return str(client.get("/one").text)

    with ThreadPoolExecutor(4) as pool:
        for arm in ("blue", "red", "green") * 10:
            engine_of(app).change("one", "declare", arm)
            assert set(pool.map(read, clients)) == {f"#{arm}"}


def test_without_a_time_to_live_a_reading_that_began_before_is_waited_for(
    app: Flask, storage: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_app(*NAMES, MAB_STORAGE_ENGINE=storage)
    app.test_client().get("/one")
    real, has_read, go_on = storage.read_control, threading.Event(), threading.Event()

    def read_slowly(timeout: float | None = None) -> Any:
        monkeypatch.setattr(storage, "read_control", real)
        found = real(timeout)
        has_read.set()
        go_on.wait(PATIENCE)
        return found

    monkeypatch.setattr(storage, "read_control", read_slowly)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lambda: app.test_client().get("/one").status_code)
        assert has_read.wait(PATIENCE)
        engine_of(other).change("one", "declare", "blue")
        threading.Timer(0.3, go_on.set).start()
        assert {app.test_client().get("/one").text for _ in range(20)} == {"#blue"}
        assert slow.result(PATIENCE) == 200


def test_changes_by_several_at_once_are_all_kept(app: Flask, storage: Controlled) -> None:
    others = [make_app(*NAMES, MAB_STORAGE_ENGINE=storage, MAB_CONTROL_TTL=0) for _ in range(3)]
    barrier, arms = threading.Barrier(3), ("green", "red", "blue")

    def weigh(place: int) -> None:
        barrier.wait(PATIENCE)
        for weight in range(2, 7):
            engine_of(others[place]).change("one", "weights", {arms[place]: weight})

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(weigh, range(3)))
    control = engine_of(app).control("one")
    assert dict(control.weights) == {"green": 6.0, "red": 6.0, "blue": 6.0}
    assert len(control.history) == 15
