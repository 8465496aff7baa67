"""What an operator does to a bandit of the shop, and how four workers follow."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from typing import NamedTuple

import pytest

from example.shopper import arms_on

from .conftest import Serve, Shop, environment

WORKERS = 4
GUNICORN = ("-m", "gunicorn", "-w", str(WORKERS), "-b", "127.0.0.1:PORT")
RETURNING = 12
AT_ONCE = 8
ANSWERS_EACH = 10
"""How often in a row each worker has to answer as it should: one that still draws among three arms
does so by chance in one case of 3 ** 10."""
FOLLOW_SECONDS = 60
"""They follow within one second. This is how long a busy machine may take."""


class Answer(NamedTuple):
    """The shop's page as somebody got it.

    :param cookie: what the visitor has to bring next time
    """

    worker: str
    arm: str
    cookie: str


class Town:
    """A shop and its visitors, of whom some have been there before. All open new connections."""

    def __init__(self, shop: Shop, pool: ThreadPoolExecutor) -> None:
        self.shop = shop
        self._pool = pool
        self.own = {seen.cookie: seen.arm for seen in pool.map(self.look, [""] * RETURNING)}

    def look(self, cookie: str) -> Answer:
        response, page = self._ask("GET", "/", cookie)
        assert response.status == 200
        given = response.getheader("Set-Cookie", "").partition(";")[0]
        return Answer(
            response.getheader("X-Worker", ""), arms_on(page)["color_btn"], cookie or given
        )

    def new_visitors(self) -> list[Answer]:
        """Let new visitors open the shop, at the same time."""
        return list(self._pool.map(self.look, [""] * AT_ONCE))

    def returning_visitors(self) -> list[Answer]:
        """Let those who have been there open the shop, at the same time."""
        return list(self._pool.map(self.look, self.own))

    def everybody(self) -> list[Answer]:
        return self.new_visitors() + self.returning_visitors()

    def returning_visitors_click(self) -> None:
        for cookie in self.own:
            assert self._ask("POST", "/btnclick", cookie)[0].status == 303

    def badges(self) -> str:
        """Return the results page."""
        return self._ask("GET", "/results", "")[1]

    def counted(self, bandit: str = "color_btn") -> Counter[str]:
        """Return the stored sums of all arms together."""
        total: Counter[str] = Counter()
        for row in self.shop.counts()[bandit].values():
            total.update(row)
        return total

    def operate(self, *arguments: str) -> None:
        """Run ``flask bandit`` as operators do, beside the workers."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "example.app", "bandit", *arguments],
            cwd=self.shop.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def _ask(self, method: str, path: str, cookie: str) -> tuple[HTTPResponse, str]:
        connection = HTTPConnection("127.0.0.1", self.shop.port, timeout=60)
        try:
            connection.request(method, path, headers={"Cookie": cookie} if cookie else {})
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def town(serve: Serve) -> Iterator[Town]:
    shop = serve(*GUNICORN, "tests.example.named_workers:create_app()")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        town = Town(shop, pool)
        # All of them hold the control in one case of 3 ** 12, and then nothing would be tested.
        assert set(town.own.values()) != {"green"}
        yield town


def wait_until_followed(
    visit: Callable[[], list[Answer]], is_right: Callable[[Answer], bool]
) -> None:
    """Let visitors come until every worker gives right answers only."""
    started = time.monotonic()
    followed_at, right = started, Counter[str]()
    while len(right) < WORKERS or min(right.values()) < ANSWERS_EACH:
        began = time.monotonic()
        assert began < started + FOLLOW_SECONDS, f"answers in a row: {right}"
        answers = visit()
        if not all(map(is_right, answers)):
            right.clear()
            continue
        followed_at = followed_at if right else began
        right.update(answer.worker for answer in answers)
    print(f"all workers followed after {followed_at - started:.2f} s")


def test_four_workers_follow_a_pause_and_its_end(town: Town) -> None:
    town.operate("pause", "color_btn")
    wait_until_followed(town.everybody, lambda answer: answer.arm == "green")
    assert '"badge paused">paused<' in town.badges()

    before, texts = town.counted(), town.counted("txt_btn")["pulls"]
    assert {answer.arm for answer in town.everybody()} == {"green"}
    town.returning_visitors_click()
    assert town.counted() == before
    assert town.counted("txt_btn")["pulls"] == texts + AT_ONCE, "the other bandit goes on"

    town.operate("resume", "color_btn")
    wait_until_followed(
        town.returning_visitors, lambda answer: answer.arm == town.own[answer.cookie]
    )
    assert "badge paused" not in town.badges()
    assert town.counted() == before
    town.new_visitors()
    town.returning_visitors_click()
    assert town.counted() - before == Counter(pulls=AT_ONCE, clicks=RETURNING)


def test_four_workers_follow_a_declared_winner(town: Town) -> None:
    town.operate("declare", "color_btn", "red", "--yes")
    wait_until_followed(town.everybody, lambda answer: answer.arm == "red")
    assert '"badge declared">declared: red<' in town.badges()

    before = town.counted()
    assert {answer.arm for answer in town.everybody()} == {"red"}
    town.returning_visitors_click()
    assert town.counted() == before

    town.operate("reopen", "color_btn")
    wait_until_followed(
        town.returning_visitors, lambda answer: answer.arm == town.own[answer.cookie]
    )
    town.returning_visitors_click()
    assert town.counted() - before == Counter(clicks=RETURNING)
