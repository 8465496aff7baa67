"""One visitor of the shop: a cookie jar, a connection, and a true inclination to click.

Keeps account of what was sent and what was answered, also when a server dies in between.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.cookies import SimpleCookie

TRUE_RATES: dict[str, dict[str, float]] = {
    "color_btn": {"green": 0.05, "red": 0.10, "blue": 0.25},
    "txt_btn": {"casual": 0.25, "neutral": 0.05, "formal": 0.0},
}
"""What each arm adds to a visitor's probability to click."""

ATTEMPTS = 12
RELOADS = 0.3
CLICKS_TWICE = 0.3
_ARM = re.compile(r'data-arm-(\w+)="([^"]*)"')


class NoAnswerError(Exception):
    """The shop did not answer, however often it was asked."""


@dataclass
class Visit:
    """What became of one visitor.

    :param arms: bandit -> arm, as the page said
    :param probability: true probability that this visitor clicks
    :param clicked: a click was answered
    :param lost_pages: pages asked for as a new visitor that brought no cookie, because no answer
        came: the shop may have counted each of them, or not
    :param failures: requests without a good answer, of any kind
    :param moved: a later page showed another arm
    """

    index: int
    arms: dict[str, str] = field(default_factory=dict)
    probability: float = 0.0
    clicked: bool = False
    lost_pages: int = 0
    failures: int = 0
    moved: bool = False


Address = tuple[str, int]


class Browser:
    """A cookie jar and connections that are kept open.

    :param servers: host and port of each server of the shop; requests go to them in turn, as from
        a load balancer
    :param timeout: seconds to wait for an answer
    """

    def __init__(self, servers: Sequence[Address], timeout: float = 30.0) -> None:
        self.cookies: dict[str, str] = {}
        self.failures = 0
        self.trouble = ""
        self._connections = [HTTPConnection(*server, timeout=timeout) for server in servers]

    def ask(self, method: str, path: str) -> str | None:
        """Send one request and keep the cookies that it brings.

        :return: the page; ``None`` if no good answer came, and then ``trouble`` says why
        """
        connection = self._connections.pop(0)
        self._connections.append(connection)
        try:
            connection.request(method, path, headers=self._headers())
            response = connection.getresponse()
            page = response.read().decode()
        except (OSError, HTTPException) as error:
            connection.close()
            self._failed(str(error) or type(error).__name__)
            return None
        if response.status not in (200, 303):
            self._failed(f"status {response.status}")
            return None
        for text in response.headers.get_all("Set-Cookie", []):
            self.cookies.update((k, morsel.value) for k, morsel in SimpleCookie(text).items())
        return page

    def insist(self, method: str, path: str, attempts: int = ATTEMPTS) -> str:
        """Ask until an answer comes.

        :raises NoAnswerError: there was none, after many attempts
        """
        for attempt in range(attempts):
            page = self.ask(method, path)
            if page is not None:
                return page
            time.sleep(0.02 * 2 ** min(attempt, 6))
        raise NoAnswerError(f"{method} {path}, {attempts} times: {self.trouble}")

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    def _failed(self, trouble: str) -> None:
        self.failures += 1
        self.trouble = trouble

    def _headers(self) -> dict[str, str]:
        if not self.cookies:
            return {}
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}


def visit_shop(
    servers: Sequence[Address],
    index: int,
    seed: object,
    rates: Mapping[str, Mapping[str, float]] = TRUE_RATES,
) -> Visit:
    """Come as a new visitor: look, sometimes reload, perhaps click, sometimes twice.

    :param index: number of the visitor, which with the seed fixes its inclinations
    :raises NoAnswerError: the shop is gone
    """
    rng = random.Random(f"{seed}/{index}")
    visit, browser = Visit(index), Browser(servers)
    try:
        visit.arms = _arrive(browser, visit)
        visit.probability = sum(rates[name][arm] for name, arm in visit.arms.items())
        if rng.random() < RELOADS:
            visit.moved = arms_on(browser.insist("GET", "/")) != visit.arms
        if rng.random() < visit.probability:
            for _ in range(2 if rng.random() < CLICKS_TWICE else 1):
                browser.insist("POST", "/btnclick")
            visit.clicked = True
    finally:
        browser.close()
    visit.failures = browser.failures
    return visit


def _arrive(browser: Browser, visit: Visit) -> dict[str, str]:
    """Open the shop until it gives a cookie: only then does it say that it has counted."""
    for _ in range(ATTEMPTS):
        page = browser.ask("GET", "/")
        if page is not None and browser.cookies:
            return arms_on(page)
        visit.lost_pages += 1
        time.sleep(0.02 * 2 ** min(visit.lost_pages, 6))
    raise NoAnswerError(f"GET /, {ATTEMPTS} times: {browser.trouble or 'no cookie'}")


def arms_on(page: str) -> dict[str, str]:
    """Return the arms that a page of the shop shows, by bandit."""
    return dict(_ARM.findall(page))
