"""Visitors of the app: through Flask's test client in processes of their own, or over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from itertools import count
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from flask import Flask

from flask_bandit.web.assignments import CookieContent
from flask_bandit.web.state import AppState

from .app import create_app

PROCESSES = 2
THREADS = 6


class World(Protocol):
    """Who comes, and whether they click."""

    def context(self, visitor: int) -> Mapping[str, Any]:
        """Return what is known of a visitor."""
        ...

    def clicks(self, visitor: int, arm: str) -> bool:
        """Return whether a visitor clicks on what is shown."""
        ...


class Seen(NamedTuple):
    """What a visitor got and did.

    :param decision: its id, as the cookie has it
    """

    visitor: int
    worker: str
    arm: str
    decision: str
    clicked: bool


class Reply(NamedTuple):
    """An answer of the app."""

    status: int
    text: str
    worker: str
    cookie: str


Ask = Callable[[str, str, str], Reply]
"""Method, path and cookie -> the app's answer."""


def visit(world: World, state: AppState, ask: Ask, visitor: int) -> Seen:
    """Look at the offer, and click or not. The visitor's number makes the visitor's id."""
    digest = hashlib.blake2b(str(visitor).encode(), digest_size=16).digest()
    id_ = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    cookie = state.codec.dumps(CookieContent(id_))
    known = quote(json.dumps(world.context(visitor)))
    page = ask("GET", f"/offer?known={known}", cookie)
    assert page.status == 200, page
    content = state.codec.loads(page.cookie)
    assert content.visitor == id_
    is_clicked = world.clicks(visitor, page.text)
    if is_clicked:
        answer = ask("POST", "/click", page.cookie)
        assert answer.status == 200, answer
    decision = content.assignments["offer"].decision_id(id_, "offer")
    return Seen(visitor, page.worker, page.text, decision, is_clicked)


def replay(
    make_world: Callable[[], World], config: Mapping[str, Any], visitors: range
) -> list[Seen]:
    """Let visitors come to apps in two processes, through the test client."""
    shares = [visitors[place::PROCESSES] for place in range(PROCESSES)]
    # Spawned: the tests' process has threads.
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        found = pool.map(partial(_replay, make_world, dict(config)), shares, 1)
    return [seen for share in found for seen in share]


def _replay(
    make_world: Callable[[], World], config: Mapping[str, Any], visitors: range
) -> list[Seen]:
    app, world = create_app(config), make_world()
    ask = _through_client(app)
    seen = [visit(world, app.extensions["bandit"], ask, visitor) for visitor in visitors]
    app.extensions["bandit"].storage.close()
    return seen


def _through_client(app: Flask) -> Ask:
    client = app.test_client(use_cookies=False)

    def ask(method: str, path: str, cookie: str) -> Reply:
        answer = client.open(path, method=method, headers={"Cookie": f"MAB={cookie}"})
        given = answer.headers.get("Set-Cookie", "")
        return Reply(
            answer.status_code, answer.text, answer.headers["X-Worker"], _value(given) or cookie
        )

    return ask


def over_http(port: int) -> Ask:
    """Return what asks a server, with a new connection each time."""

    def ask(method: str, path: str, cookie: str) -> Reply:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(method, path, headers={"Cookie": f"MAB={cookie}"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        given = answer.getheader("Set-Cookie", "")
        worker = answer.getheader("X-Worker", "")
        return Reply(answer.status, text, worker, _value(given) or cookie)

    return ask


def _value(header: str) -> str:
    return header.partition(";")[0].partition("=")[2]


@dataclass
class Load:
    """Visitors who come all the time, several at once.

    :ivar seen: what they got and did, the oldest first
    :ivar failures: what went wrong
    """

    seen: list[Seen] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def send(self, go: Callable[[int], Seen], numbers: Iterable[int]) -> None:
        """Let visitors come, one after the other."""
        for visitor in numbers:
            try:
                self.seen.append(go(visitor))
            except (AssertionError, OSError, HTTPException, KeyError) as error:
                self.failures.append(f"visitor {visitor}: {error!r}")


@contextmanager
def under_load(world: World, state: AppState, port: int, first: int) -> Iterator[Load]:
    """Let visitors come to a server for as long as the block lasts.

    :param first: number of the first visitor
    """
    load, numbers, is_over = Load(), count(first), threading.Event()
    go = partial(visit, world, state, over_http(port))

    def until_over() -> Iterator[int]:
        while not is_over.is_set():
            yield next(numbers)

    threads = [threading.Thread(target=lambda: load.send(go, until_over())) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
