"""The dashboard in a real Chromium: its charts are true, and what is done there is done everywhere.

All of it under a strict content policy. After each test the browser must have had nothing to
complain of.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from math import nan
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest
from flask import Flask
from flask_admin import Admin
from werkzeug.serving import make_server

from example.replay import replay
from example.shopper import arms_on
from flask_bandit import BanditMiddleware
from flask_bandit.bandits import Bandit
from flask_bandit.model import BanditKey, Decision
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.testing.storage_samples import decision, decisions, reward, rewards
from flask_bandit.web.actions import Action
from flask_bandit.web.admin import BanditAdmin
from flask_bandit.web.pages import BanditPage, read_page
from tests.servers.redis import RedisServer

from . import test_browser
from .conftest import Serve, Shop
from .strict_workers import POLICY, create_app
from .test_browser import USER_AGENT, Launch, wait_for, widths

pytest.importorskip("axe_selenium_python", reason="axe-selenium-python is not installed")

from axe_selenium_python import Axe
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

pytestmark = test_browser.pytestmark
launch = test_browser.launch

WORKERS = 4
VISITORS = 5000
ROOT = "/admin/bandits/"
TILE = ".tile [data-value]"
"""The first has the number of visitors."""
COLOR, TEXT = f"{ROOT}bandit?name=color_btn", f"{ROOT}bandit?name=txt_btn"
HASTE = "const slow = setTimeout; window.setTimeout = (what, wait) => slow(what, wait / 40);"
"""Makes a page's clock run ahead, so that it refreshes itself four times a second."""
ANSWERS_EACH = 3
FOLLOW_SECONDS = 60


@pytest.fixture(scope="module")
def chromium(launch: Launch) -> Chrome:
    return launch(f"--user-agent={USER_AGENT}", "--accept-lang=en-US")


@pytest.fixture
def browser(chromium: Chrome) -> Iterator[Chrome]:
    """Return the browser of somebody at a desk; it must not complain of any page."""
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    look(chromium, "light")
    screen(chromium, 1280)
    # A click meanwhile would miss what it aims at.
    wait_for(lambda: widths(chromium)[1] > 500)
    chromium.get_log("browser")
    yield chromium
    # What is answered with an error is such a line too.
    said = [entry for entry in chromium.get_log("browser") if entry["source"] != "network"]
    assert said == []


def look(browser: Chrome, scheme: str) -> None:
    """Give the browser a colour scheme."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def screen(browser: Chrome, width: int) -> None:
    """Give the browser a screen, which it takes a little later."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@contextmanager
def haste(browser: Chrome) -> Iterator[None]:
    """Let the pages that are loaded meanwhile refresh themselves soon."""
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": HASTE})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


class Town:
    """A shop with four workers, and an app of this process on the same storage."""

    def __init__(self, shop: Shop, app: Flask) -> None:
        self.url, self.shop, self.app = shop.url, shop, app
        self.state = app.extensions["bandit"]

    def ask(self, method: str, path: str, cookie: str = "", body: str = "") -> Answer:
        """Send a request on a connection of its own."""
        with closing(HTTPConnection("127.0.0.1", self.shop.port, timeout=60)) as connection:
            headers = {"User-Agent": USER_AGENT, "Cookie": cookie}
            if body:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.read().decode(), response.headers)

    def counts(self, name: str, version: int = 1) -> Mapping[str, Mapping[str, float]]:
        rows: Mapping[str, Mapping[str, float]]
        rows = self.state.storage.read_counts()[BanditKey(name, version)]
        return rows

    def page(self, name: str) -> BanditPage:
        """Return what there is to say about version 1 of a bandit."""
        page: BanditPage = read_page(self.state, name, 1)
        return page


class Answer(NamedTuple):
    status: int
    text: str
    headers: Any


@pytest.fixture(scope="module")
def town(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    uri = f"sqlite:///{tmp_path_factory.mktemp('storage') / 'bandits.db'}"
    app = create_app({"MAB_STORAGE_URI": uri})
    replay(app, VISITORS)
    command = ("-m", "gunicorn", "-w", str(WORKERS), "--threads", "2", "-b", "127.0.0.1:PORT")
    shop = serve(*command, "tests.example.strict_workers:create_app()", MAB_STORAGE_URI=uri)
    yield Town(shop, app)
    app.extensions["bandit"].storage.close()


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serve an app of this process, and yield its URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.extensions["bandit"].storage.close()


@pytest.fixture
def small_shop(tmp_path: Path) -> Iterator[tuple[str, Flask]]:
    """A shop with few visitors that a test may spoil: its URL, and its app."""
    app = create_app({"MAB_STORAGE_URI": f"sqlite:///{tmp_path / 'bandits.db'}"})
    replay(app, 400, days=3)
    with serving(app) as url:
        yield url, app


def find(browser: Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def value_of(browser: Chrome, selector: str) -> float:
    return float(find(browser, selector).get_attribute("data-value") or "nan")


def text_of(browser: Chrome, selector: str) -> str:
    """Return a text as it is in the page, also where it cannot be seen now."""
    return " ".join((find(browser, selector).get_attribute("textContent") or "").split())


# What is drawn, and what the table below it says.

SPAN_VALUES: dict[str, Callable[[Any], Sequence[float | None]]] = {
    "traffic": lambda arm: (arm.share, None, None),
    "best": lambda arm: (arm.p_best, None, None),
    "probability": lambda arm: (arm.probability, None, None),
    "rate": lambda arm: (
        (None, None, None) if arm.rate is None else (arm.rate.estimate, arm.rate.low, arm.rate.high)
    ),
}


def drawn(browser: Chrome, figure: str) -> dict[str, list[list[float | None]]]:
    """Return what a figure's charts draw of each arm: start, end, value, low and high."""
    found = browser.execute_script(
        "return [...document.querySelectorAll(`[data-figure=${arguments[0]}] svg [data-values]`)]"
        ".map(each => [each.dataset.arm, JSON.parse(each.dataset.values)])",
        figure,
    )
    return dict(found)


def tabled(browser: Chrome, figure: str) -> list[list[tuple[float | None, str]]]:
    """Return the rows of a figure's table: each cell's exact value, and its text."""
    found = browser.execute_script(
        "const table = document.querySelector(`[data-figure=${arguments[0]}] table`);"
        "return [...table.tBodies[0].rows].map(row => [...row.cells].map(cell =>"
        " ['value' in cell.dataset ? Number(cell.dataset.value) : null, cell.textContent.trim()]))",
        figure,
    )
    return [[(value, text) for value, text in row] for row in found]


def exact(rows: Iterable[Iterable[float | None]]) -> Any:
    """Return what all values of all rows are compared with; NaN stands for those that are none."""
    return pytest.approx(flat(rows), rel=1e-6, nan_ok=True)


def flat(rows: Iterable[Iterable[float | None]]) -> list[float]:
    return [nan if value is None else value for row in rows for value in row]


def open_page(browser: Chrome, town: Town, name: str) -> BanditPage:
    """Open the page of a bandit's version 1, and return the same as it is read here."""
    deadline = time.monotonic() + FOLLOW_SECONDS
    while True:
        before = town.page(name)
        browser.get(f"{town.url}{ROOT}bandit?name={name}&version=1")
        after = town.page(name)
        # Each reading may store what it has read, and then the next one has other spans.
        if before.results == after.results:
            return after
        assert time.monotonic() < deadline, "each reading is another"


def check_figure(browser: Chrome, figure: str, page: BanditPage) -> None:
    """Compare a figure's charts and its table with the statistics of the storage."""
    assert page.results is not None
    series, arms = page.results.series, [each.arm for each in page.report.arms]
    read = SPAN_VALUES[figure]
    charts, table = drawn(browser, figure), tabled(browser, figure)
    assert list(charts) == arms
    assert len(table) == len(series) > 20
    for place, arm in enumerate(arms):
        wanted = [(span.start, span.end, *read(span.arms[arm])) for span in series]
        assert flat(charts[arm]) == exact(wanted), (figure, arm)
        assert any(row[2] is not None for row in wanted)
        cells = [row[3 + place] for row in table]
        assert flat([cell[:1] for cell in cells]) == exact([row[2:3] for row in wanted])
        for value, text in cells:
            if value is not None and 0.001 <= value <= 0.999:
                assert float(text.partition("%")[0]) == pytest.approx(100 * value, abs=0.1)
    whole = [[cell[0] for cell in row[:3]] for row in table]
    assert flat(whole) == exact((span.start, span.end, span.decisions) for span in series)


def check_leaderboard(browser: Chrome, town: Town, name: str) -> None:
    counts, results = town.counts(name), town.page(name).results
    assert results is not None
    for found in results.arms:
        row, stored = f'.leaderboard tr[data-arm="{found.arm}"]', counts[found.arm]
        shown = {
            key: value_of(browser, f"{row} [data-name={key}]")
            for key in ("pulls", "rewards", "mean", "p_best")
        }
        assert shown == pytest.approx(
            {
                "pulls": stored["pulls"],
                "rewards": stored["rewards"],
                "mean": stored["reward"] / stored["pulls"],
                "p_best": found.p_best,
            }
        )
        assert f"{int(stored['pulls']):,}" in text_of(browser, f"{row} [data-name=pulls]")
    # The bars are in the order of the rows: the best first.
    middles = browser.execute_script(
        "return [...document.querySelectorAll('.leaderboard .bar-mean')]"
        ".map(each => each.getBoundingClientRect().x)"
    )
    assert len(middles) == len(counts)
    assert middles == sorted(middles, reverse=True)


def check_lines(browser: Chrome, figure: str) -> None:
    """Measure a chart: each point of a line is where the axis has its value."""
    measured = browser.execute_script(
        "const svg = document.querySelector(`[data-figure=${arguments[0]}] svg`);"
        "const numbers = path => path.getAttribute('d').match(/-?[\\d.]+/g).map(Number);"
        "const axis = [...svg.querySelectorAll('.axis-y path')].map(path => numbers(path)[1]);"
        "const lines = [...svg.querySelectorAll('.line[data-values]')].map(line =>"
        " [JSON.parse(line.dataset.values), numbers(line.querySelector('path'))]);"
        "return [Math.max(...axis), Math.min(...axis), lines]",
        figure,
    )
    bottom, top, lines = measured
    assert bottom - top > 100
    for values, numbers in lines:
        heights = [(bottom - y) / (bottom - top) for y in numbers[1::2]]
        assert heights == pytest.approx([value[2] for value in values], abs=0.002)


def test_charts_tables_and_leaderboard_tell_what_is_stored(browser: Chrome, town: Town) -> None:
    for name in ("color_btn", "txt_btn"):
        page, stored = open_page(browser, town, name), Counter[str]()
        for row in town.counts(name).values():
            stored.update({key: int(row[key]) for key in ("pulls", "rewards")})
        assert stored["pulls"] >= VISITORS
        for figure in SPAN_VALUES:
            check_figure(browser, figure, page)
        check_lines(browser, "best")
        check_leaderboard(browser, town, name)
        tiles = browser.find_elements(By.CSS_SELECTOR, TILE)
        shown = [float(tile.get_attribute("data-value") or "nan") for tile in tiles]
        assert shown[:2] == [stored["pulls"], stored["rewards"]]
        assert page.results is not None
        assert text_of(browser, "[data-verdict]") == page.results.verdict.sentence


def test_the_list_says_what_the_pages_say(browser: Chrome, town: Town) -> None:
    browser.get(town.url + COLOR)
    sentence, visitors = text_of(browser, "[data-verdict]"), value_of(browser, TILE)
    browser.get(town.url + ROOT)
    listed = browser.find_elements(By.CSS_SELECTOR, ".bandit")
    (text,) = [" ".join(each.text.split()) for each in listed if "color_btn" in each.text]
    assert sentence in text
    assert f"{visitors:,.0f}" in text
    find(browser, '.bandit a[href$="color_btn"]').click()
    wait_for(lambda: find(browser, "h1").text == "color_btn")


# What is done there.


def press(browser: Chrome, title: str) -> None:
    """Go from a bandit's page to the form of an action."""
    browser.find_element(By.LINK_TEXT, title).click()
    wait_for(lambda: bool(browser.find_elements(By.CSS_SELECTOR, "form.confirm")))


def confirm(browser: Chrome) -> str:
    """Send an action's form; return what the next page says of it."""
    find(browser, "form.confirm button[type=submit]").click()
    wait_for(lambda: bool(browser.find_elements(By.CSS_SELECTOR, ".message-done")))
    return text_of(browser, ".message-done")


def wait_until_followed(
    town: Town, cookie: str, state: str, version: int, is_right: Callable[[str], bool]
) -> None:
    """Let a visitor of txt_btn come again and again until each worker answers as it should."""
    deadline, right = time.monotonic() + FOLLOW_SECONDS, Counter[str]()
    while len(right) < WORKERS or min(right.values()) < ANSWERS_EACH:
        assert time.monotonic() < deadline, f"answers in a row: {right}"
        answer = town.ask("GET", "/", cookie)
        assert answer.status == 200
        known = json.loads(answer.headers["X-Known"])["txt_btn"]
        if known == [state, version] and is_right(arms_on(answer.text)["txt_btn"]):
            right[answer.headers["X-Worker"]] += 1
        else:
            right.clear()


def choose_weights(browser: Chrome, **weights: str) -> None:
    for arm, weight in weights.items():
        off = find(browser, f'[name="off:{arm}"]')
        if off.is_selected() != (weight == "off"):
            off.click()
        if weight != "off":
            field = find(browser, f'[name="weight:{arm}"]')
            field.clear()
            field.send_keys(weight)


def check_history(browser: Chrome, town: Town, *done: str) -> None:
    """Look for what was done in the list of marks, on a chart, and in the server's log."""
    marks = browser.find_elements(By.CSS_SELECTOR, ".marks li")
    assert [mark.find_element(By.TAG_NAME, "span").text for mark in marks] == [
        f"{what} (by ann)" for what in done
    ]
    signs = browser.execute_script(
        "return [...document.querySelectorAll('[data-figure=traffic] .sign[data-entries]')]"
        ".map(sign => sign.dataset.entries)"
    )
    assert signs
    assert signs[-1].rpartition("-")[2] == str(len(done))
    audited = [line for line in town.shop.log.splitlines() if "flask_bandit.audit" in line]
    for what in done:
        action = what.partition(" ")[0]
        assert any(
            re.search(rf"\bann\b.*\b{action}\b.*'txt_btn': done$", line) for line in audited
        ), (what, audited)


def test_what_is_done_there_is_followed_by_all_workers(browser: Chrome, town: Town) -> None:
    test_browser.sign_in(browser, town.shop, "Ann")
    browser.get(town.url + TEXT)

    press(browser, "Weigh arms")
    choose_weights(browser, casual="off", neutral="0")
    confirm(browser)
    wait_until_followed(town, "", "running", 1, lambda arm: arm == "formal")
    # From here on the visitor is one who holds "formal".
    given = town.ask("GET", "/").headers.get_all("Set-Cookie")
    cookie = next(each for each in given if each.startswith("MAB=")).partition(";")[0]
    assert "off" in text_of(browser, '.leaderboard tr[data-arm="casual"]')

    press(browser, "Weigh arms")
    choose_weights(browser, casual="1", neutral="2", formal="off")
    confirm(browser)
    wait_until_followed(town, cookie, "running", 1, lambda arm: arm != "formal")
    press(browser, "Weigh arms")
    choose_weights(browser, formal="1")
    confirm(browser)

    for title, state, arm in (
        ("Pause", "paused", "casual"),
        ("Resume", "running", "formal"),
        ("Close", "closed", "formal"),
    ):
        press(browser, title)
        assert confirm(browser).startswith(f"txt_btn is {state}: ")
        assert find(browser, ".verdict .state").text == state
        wait_until_followed(town, cookie, state, 1, arm.__eq__)

    press(browser, "Declare a winner")
    find(browser, '[name=arm][value="neutral"]').click()
    confirm(browser)
    assert find(browser, ".verdict .state").text == "declared: neutral"
    assert "winner" in text_of(browser, '.leaderboard tr[data-arm="neutral"]')
    wait_until_followed(town, cookie, "declared", 1, "neutral".__eq__)
    press(browser, "Reopen")
    confirm(browser)
    wait_until_followed(town, cookie, "running", 1, "formal".__eq__)

    press(browser, "Archive")
    confirm(browser)
    wait_until_followed(town, cookie, "archived", 1, "casual".__eq__)
    check_history(
        browser,
        town,
        "weights casual=off neutral=0",
        "weights casual=1 neutral=2 formal=off",
        "weights formal=1",
        "pause",
        "resume",
        "close",
        "declare neutral",
        "reopen",
        "archive",
    )
    press(browser, "Reset")
    confirm(browser)
    wait_until_followed(town, cookie, "running", 2, lambda arm: True)
    before = town.counts("txt_btn")
    assert town.counts("txt_btn", 2).keys()
    town.ask("GET", "/")
    assert town.counts("txt_btn") == before


def test_forms_that_others_send_do_nothing(browser: Chrome, town: Town) -> None:
    before = town.state.storage.read_control()
    browser.get(town.url + COLOR)
    press(browser, "Reset")
    browser.execute_script(
        "const token = document.querySelector('[name=bandits_token]'); token.value += 'x'"
    )
    find(browser, "form.confirm button[type=submit]").click()
    wait_for(lambda: bool(browser.find_elements(By.CSS_SELECTOR, ".message-problem")))
    assert "Nothing was done" in text_of(browser, ".message-problem")
    for action in ("pause", "reset", "archive", "declare", "weights"):
        answer = town.ask("POST", f"{ROOT}do/{action}?name=color_btn", body="version=1&arm=red")
        assert answer.status == 400
    strange = town.app.test_client()
    strange.environ_base["REMOTE_ADDR"] = "203.0.113.9"
    for path in (
        "",
        "bandit?name=color_btn",
        "live?name=color_btn",
        "log?name=color_btn",
        "log.csv?name=color_btn",
        "log.jsonl?name=color_btn",
        "do/reset?name=color_btn",
    ):
        for method in ("GET", "HEAD", "POST"):
            answered = strange.open(ROOT + path, method=method).status_code
            # There is no view that takes it, so there is nothing to enter.
            takes_no_form = method == "POST" and not path.startswith("do/")
            assert answered == (405 if takes_no_form else 403), (method, path)
    assert town.state.storage.read_control() == before


# A page that stays open.


def test_the_page_follows_while_it_is_open(browser: Chrome, town: Town) -> None:
    with haste(browser):
        browser.get(town.url + COLOR)
    browser.execute_script("window.wasHere = true")
    before = value_of(browser, TILE)
    summary = find(browser, '[data-figure="rate"] summary')
    summary.send_keys(Keys.ENTER)
    assert town.ask("GET", "/").status == 200
    wait_for(lambda: stable(browser, TILE) == before + 1)
    assert stable(browser, '.leaderboard [data-name="pulls"]') > 0
    assert browser.execute_script("return window.wasHere") is True
    now = browser.execute_script(
        "return [document.activeElement.closest('[data-figure]')?.dataset.figure,"
        " document.activeElement.tagName,"
        " [...document.querySelectorAll('details[open]')].map(each => each.dataset.keep)]"
    )
    assert now == ["rate", "SUMMARY", ["rate"]]


def stable(browser: Chrome, selector: str) -> float:
    """Return a value of a page that may replace it between two commands."""
    found = browser.execute_script(
        "return document.querySelector(arguments[0]).dataset.value", selector
    )
    return float(found)


def banner(browser: Chrome) -> str:
    said: str = browser.execute_script("return document.querySelector('.live-state').textContent")
    return said


def test_an_outage_is_told_and_passes(
    browser: Chrome, start_redis: Callable[..., RedisServer]
) -> None:
    redis = start_redis()
    app = create_app({"MAB_STORAGE_URI": redis.uri, "MAB_STORAGE_TIMEOUT": 0.3})
    replay(app, 100, days=1)
    with serving(app) as url:
        with haste(browser):
            browser.get(url + COLOR)
        assert stable(browser, TILE) == 100
        redis.pause()
        wait_for(lambda: "The storage is down" in banner(browser))
        assert "The numbers below are from" in banner(browser)
        assert stable(browser, TILE) == 100
        for path in ("", "bandit?name=color_btn", "log?name=color_btn"):
            with closing(HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
                connection.request("GET", ROOT + path)
                response = connection.getresponse()
                assert response.status == 503
                assert "<h1>The storage is down</h1>" in response.read().decode()
        redis.resume()
        wait_for(lambda: banner(browser) == "")
        assert stable(browser, TILE) == 100
        browser.get(url + COLOR)
        assert browser.find_elements(By.CSS_SELECTOR, ".tile")
        browser.get("about:blank")


# Everybody can read it.


def check_access(browser: Chrome, what: str, options: Mapping[str, Any]) -> None:
    """Let axe look at the page."""
    wait_for(lambda: browser.execute_script("return document.getAnimations().length") == 0)
    axe = Axe(browser)
    axe.inject()
    violations = axe.run(options=options)["violations"]
    assert violations == [], f"{what}: {axe.report(violations)}"


ALL: dict[str, Any] = {}
CONTRAST: dict[str, Any] = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}


@pytest.mark.parametrize(
    ("width", "schemes"),
    [(1280, {"light": ALL, "dark": CONTRAST}), (390, {"dark": ALL})],
    ids=["desk", "phone"],
)
def test_everybody_can_read_it(
    browser: Chrome, small_shop: tuple[str, Flask], width: int, schemes: dict[str, dict[str, Any]]
) -> None:
    url, app = small_shop
    state = app.extensions["bandit"]
    Action(state, ["color_btn"], "weights", {"red": 0.5}, "ann").do("color_btn")
    Action(state, ["txt_btn"], "reset", None, "ann").do("txt_btn")
    screen(browser, width)

    def check(path: str) -> None:
        browser.get(url + ROOT + path)
        browser.execute_script("document.querySelector('details')?.setAttribute('open', '')")
        for scheme, options in schemes.items():
            look(browser, scheme)
            check_access(browser, f"{path}, {scheme}", options)

    check("")
    check("bandit?name=color_btn")
    check("bandit?name=txt_btn")
    check("bandit?name=txt_btn&version=1")
    check("log?name=color_btn&arm=red&since=2020-01-01T00:00")
    check("do/declare?name=color_btn")
    check("do/weights?name=color_btn")
    Action(state, ["color_btn"], "declare", "red", "ann").do("color_btn")
    check("bandit?name=color_btn")


def fits(browser: Chrome, width: int) -> bool:
    """Return whether a page has taken this width, but for a scroll bar, and needs no more."""
    needed, given = widths(browser)
    return needed == given and width - 50 < given <= width


def test_nothing_scrolls_sideways(browser: Chrome, small_shop: tuple[str, Flask]) -> None:
    url, _ = small_shop
    for path in ("", "bandit?name=color_btn", "log?name=color_btn", "do/weights?name=color_btn"):
        browser.get(url + ROOT + path)
        for width in (1280, 1200, 1199, 1000, 992, 991, 700, 390, 320):
            print(f"{path!r} at {width}")
            screen(browser, width)
            wait_for(lambda width=width: fits(browser, width))  # type: ignore[misc]


def test_it_works_without_scripts(browser: Chrome, small_shop: tuple[str, Flask]) -> None:
    url, app = small_shop
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(url + COLOR)
        assert len(browser.find_elements(By.CSS_SELECTOR, "svg.chart")) == 3 + 3
        find(browser, '[data-figure="best"] summary').click()
        rows = browser.find_elements(By.CSS_SELECTOR, '[data-figure="best"] tbody tr')
        assert rows[0].is_displayed()
        assert not browser.find_elements(By.CSS_SELECTOR, ".live-state")
        press(browser, "Close")
        confirm(browser)
        control = app.extensions["bandit"].storage.read_control()["color_btn"]
        assert control["state"] == "closed"
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def tab_to(browser: Chrome, is_it: Callable[[WebElement], bool]) -> None:
    """Press Tab until the right thing has the focus, and can be seen to have it."""
    for _ in range(40):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        focused = browser.switch_to.active_element
        if is_it(focused):
            assert focused.value_of_css_property("outline-style") != "none"
            return
    pytest.fail("Tab does not lead there")


def test_an_action_by_the_keyboard_alone(browser: Chrome, small_shop: tuple[str, Flask]) -> None:
    url, app = small_shop
    browser.get(url + ROOT)
    for step in ("color_btn", "Declare a winner"):
        tab_to(browser, lambda focused, step=step: focused.text == step)  # type: ignore[misc]
        ActionChains(browser).send_keys(Keys.ENTER).perform()
        wait_for(lambda step=step: step in find(browser, "h1").text)  # type: ignore[misc]
    tab_to(browser, lambda focused: focused.get_attribute("name") == "arm")
    ActionChains(browser).send_keys(Keys.SPACE, Keys.ARROW_DOWN).perform()
    tab_to(browser, lambda focused: focused.text == "Declare a winner")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    wait_for(lambda: bool(browser.find_elements(By.CSS_SELECTOR, ".message-done")))
    assert app.extensions["bandit"].storage.read_control()["color_btn"]["winner"] == "red"


# Names that were not meant to be nice.

RUN = "window.wasRun = true"
NAMES = (
    f"</script><script>{RUN}</script>",
    f'"><img src="x" onerror="{RUN}">',
    f"</title></svg><svg onload='{RUN}'>",
    f"javascript:{RUN}//",
    "{{ 7 * 191 }}\N{RIGHT-TO-LEFT OVERRIDE}]]>&lt;b&gt;",
)
HOSTILE = f"<svg/onload={RUN}>'\"&amp;"


def hostile_app() -> Flask:
    """Make an app in which every text that somebody may choose is a script."""
    app = Flask("hostile")
    storage = MemoryBanditStorage()
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage)
    mab, bandit = BanditMiddleware(app), Bandit(goals={HOSTILE: "numeric"})
    for name in NAMES:
        bandit.add_arm(name)
    mab.add_bandit(HOSTILE, bandit)
    Admin(app, name=HOSTILE).add_view(BanditAdmin(access=lambda: True, who=lambda: HOSTILE))

    @app.after_request
    def add_policy(response: Any) -> Any:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    began = time.time() - 86400
    made = [hostile_decision(number, began) for number in range(200)]
    storage.commit(decisions(*made))
    storage.commit(rewards(*(reward(each) for each in made[::3])))
    storage.commit(rewards(*(reward(each, HOSTILE, 2.0) for each in made[::5])))
    return app


def hostile_decision(number: int, began: float) -> Decision:
    return decision(
        f"{number}-{HOSTILE}",
        arm=NAMES[number % len(NAMES)],
        bandit=HOSTILE,
        propensities=dict.fromkeys(NAMES, 1 / len(NAMES)),
        policy_version=HOSTILE,
        at=began + 300 * number,
        subject=HOSTILE,
        context={HOSTILE: HOSTILE},
    )


def test_no_name_is_run(browser: Chrome) -> None:
    app = hostile_app()
    state = app.extensions["bandit"]
    with serving(app) as url:
        browser.get(url + ROOT)
        find(browser, ".bandit a").click()
        wait_for(lambda: find(browser, "h1").text == HOSTILE)
        press(browser, "Declare a winner")
        choices = browser.find_elements(By.CSS_SELECTOR, ".choice")
        assert [each.get_attribute("textContent").strip() for each in choices] == list(NAMES)
        choices[1].click()
        confirm(browser)
        here = browser.current_url
        assert list(drawn(browser, "traffic")) == list(NAMES)
        label = find(browser, '[data-figure="traffic"] svg').get_attribute("aria-label")
        assert all(name in label for name in NAMES)
        assert f"declare {NAMES[1]} (by {HOSTILE})" in text_of(browser, ".marks")
        assert text_of(browser, ".verdict .state") == f"declared: {NAMES[1]}"
        shown = [
            each.get_attribute("textContent")
            for each in browser.find_elements(By.CSS_SELECTOR, ".leaderboard .name bdi")
        ]
        assert sorted(shown) == sorted(NAMES)
        for path in (here, here.replace("/bandit?", "/live?"), here.replace("/bandit?", "/log?")):
            browser.get(path)
            found = browser.execute_script(
                "return [window.wasRun === undefined, document.querySelectorAll("
                "'img, script:not([src]), [onload], [onerror], [style]').length]"
            )
            assert found == [True, 0], path
        assert HOSTILE in text_of(browser, ".decisions")
        assert read_page(state, HOSTILE).report.winner == NAMES[1]
        browser.get("about:blank")


def test_the_policy_is_in_force(browser: Chrome, town: Town) -> None:
    browser.get(town.url + COLOR)
    browser.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.wasRun = true';"
        "document.body.append(script)"
    )
    assert browser.execute_script("return window.wasRun") is None
    said = browser.get_log("browser")
    assert any("Content Security Policy" in entry["message"] for entry in said)
