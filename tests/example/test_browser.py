"""A real Chromium in the shop."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator

import pytest

from example.visitors import Counts

from .conftest import Serve, Shop

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
# Headless Chromium calls itself HeadlessChrome, which is on the list of robots.
USER_AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36"
)
WAIT_SECONDS = 60
PATHS = ("/", "/results", "/thanks", "/ordered", "/sign-in")

Launch = Callable[..., webdriver.Chrome]


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Start browsers, each with a profile of its own."""
    drivers: list[webdriver.Chrome] = []

    def launch(*flags: str) -> webdriver.Chrome:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for flag in [*FLAGS, *flags, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
            options.add_argument(flag)
        # Named, so that selenium looks for no driver on the network.
        service = Service(shutil.which("chromedriver"))
        drivers.append(webdriver.Chrome(options=options, service=service))
        return drivers[-1]

    yield launch
    for driver in drivers:
        driver.quit()


@pytest.fixture(scope="module")
def chromium(launch: Launch) -> webdriver.Chrome:
    return launch(f"--user-agent={USER_AGENT}")


@pytest.fixture(scope="module")
def shop(serve: Serve) -> Shop:
    return serve("-m", "example", "--port", "PORT", "--workers", "2")


@pytest.fixture
def browser(chromium: webdriver.Chrome, shop: Shop) -> webdriver.Chrome:
    """Return the browser of somebody who was never here."""
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    # A click meanwhile would miss what it aims at.
    wait_for(lambda: widths(chromium)[1] > 500)
    return chromium


def seen(browser: webdriver.Chrome) -> dict[str, str]:
    """Return what the button shows, and which arms that is said to be."""
    button = browser.find_element(By.ID, "buy")
    return {
        "text": button.text,
        "color": button.value_of_css_property("background-color"),
        "color_btn": button.get_attribute("data-arm-color_btn"),
        "txt_btn": button.get_attribute("data-arm-txt_btn"),
    }


def buy(browser: webdriver.Chrome) -> None:
    browser.find_element(By.ID, "buy").click()
    WebDriverWait(browser, WAIT_SECONDS).until(lambda b: b.current_url.endswith("/thanks"))


def totals(shop: Shop) -> tuple[int, int]:
    """Return the stored pulls and clicks of both bandits, which must agree."""
    found = {
        tuple(sum(arm[key] for arm in arms.values()) for key in ("pulls", "clicks"))
        for arms in shop.counts().values()
    }
    ((pulls, clicks),) = found
    return pulls, clicks


COLORS = {
    "green": "rgba(26, 127, 55, 1)",
    "red": "rgba(198, 40, 40, 1)",
    "blue": "rgba(29, 78, 216, 1)",
}
TEXTS = {
    "casual": "Ooh, gimme that mug",
    "neutral": "Add to basket",
    "formal": "I should like to purchase this",
}


def test_the_button_has_its_color_and_text(browser: webdriver.Chrome, shop: Shop) -> None:
    browser.get(shop.url)
    button = seen(browser)
    assert button["color"] == COLORS[button["color_btn"]]
    assert button["text"] == TEXTS[button["txt_btn"]]
    foot = browser.find_element(By.TAG_NAME, "footer").text
    assert f"the {button['color_btn']} button" in foot
    assert f"the {button['txt_btn']} text" in foot


def test_reloading_keeps_them_and_counts_nothing(browser: webdriver.Chrome, shop: Shop) -> None:
    browser.get(shop.url)
    first, counted = seen(browser), totals(shop)
    # Drawn afresh each time, uniformly, they would all agree in one case of 9 ** 5.
    for _ in range(5):
        browser.refresh()
        assert seen(browser) == first
    assert totals(shop) == counted


def test_a_click_rewards_once(browser: webdriver.Chrome, shop: Shop) -> None:
    pulls, clicks = totals(shop)
    browser.get(shop.url)
    arm = seen(browser)["color_btn"]
    before = shop.counts()["color_btn"][arm]
    buy(browser)
    assert "Thank you" in browser.find_element(By.TAG_NAME, "h1").text
    assert totals(shop) == (pulls + 1, clicks + 1)
    after = shop.counts()["color_btn"][arm]
    assert after == {**before, "clicks": before["clicks"] + 1}


def test_going_back_and_clicking_again_rewards_nothing(
    browser: webdriver.Chrome, shop: Shop
) -> None:
    browser.get(shop.url)
    buy(browser)
    counted = totals(shop)
    browser.back()
    buy(browser)
    browser.get(shop.url)
    buy(browser)
    assert totals(shop) == counted


@pytest.mark.parametrize("nonsense", ["1.nonsense", "%00%ff", "{}", "1" + "A" * 3000])
def test_a_nonsense_cookie_gives_a_normal_page(
    browser: webdriver.Chrome, shop: Shop, nonsense: str
) -> None:
    browser.get(f"{shop.url}/thanks")
    browser.add_cookie({"name": "MAB", "value": nonsense, "path": "/"})
    browser.get(shop.url)
    assert seen(browser)["color_btn"] in COLORS
    cookie = browser.get_cookie("MAB")
    assert cookie is not None
    assert cookie["value"] != nonsense
    assert cookie["httpOnly"]


def sign_in(browser: webdriver.Chrome, shop: Shop, name: str) -> None:
    browser.get(f"{shop.url}/sign-in")
    browser.find_element(By.ID, "name").send_keys(name)
    browser.find_element(By.CSS_SELECTOR, ".name button").click()
    WebDriverWait(browser, WAIT_SECONDS).until(lambda b: b.find_elements(By.ID, "buy"))


def test_two_devices_show_one_button(browser: webdriver.Chrome, launch: Launch, shop: Shop) -> None:
    pulls, clicks = totals(shop)
    sign_in(browser, shop, "Bonnie")
    button = seen(browser)
    assert totals(shop) == (pulls + 1, clicks)
    phone = launch(f"--user-agent={USER_AGENT}")
    # Drawn afresh for each device, all would agree in one case of 9 ** 4.
    for _ in range(4):
        phone.execute_cdp_cmd("Network.clearBrowserCookies", {})
        sign_in(phone, shop, "Bonnie")
        assert seen(phone) == button
        assert "Signed in as Bonnie" in phone.find_element(By.TAG_NAME, "header").text
        buy(phone)
    buy(browser)
    assert totals(shop) == (pulls + 1, clicks + 1)


def test_signing_out_gives_the_browser_back(browser: webdriver.Chrome, shop: Shop) -> None:
    sign_in(browser, shop, "Clyde")
    browser.find_element(By.CSS_SELECTOR, ".account button").click()
    WebDriverWait(browser, WAIT_SECONDS).until(
        lambda b: "Sign in" in b.find_element(By.TAG_NAME, "header").text
    )
    assert browser.get_cookie("session") is None


def grown(before: Counts, after: Counts) -> dict[str, dict[str, dict[str, int]]]:
    """Return what is more, by bandit, arm and count; what did not change is left out."""
    return {
        name: {
            arm: {key: row[key] - before[name][arm][key] for key in row}
            for arm, row in arms.items()
            if row != before[name][arm]
        }
        for name, arms in after.items()
    }


def open_story(browser: webdriver.Chrome) -> None:
    browser.find_element(By.TAG_NAME, "summary").click()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def sent_beacons(browser: webdriver.Chrome) -> int:
    """Return how many tokens this page has sent and had answered."""
    entries = browser.execute_script(
        "return performance.getEntriesByType('resource')"
        ".filter(entry => entry.initiatorType === 'beacon' && entry.responseEnd > 0).length"
    )
    return int(entries)


def look_closer(browser: webdriver.Chrome) -> str:
    """Load the page anew and open the story; return the tokens that were sent."""
    browser.refresh()
    open_story(browser)
    wait_for(lambda: sent_beacons(browser) == 2)
    return str(browser.find_element(By.ID, "story").get_attribute("data-tokens"))


def test_looking_closer_arrives_once(browser: webdriver.Chrome, shop: Shop) -> None:
    before = shop.counts()
    browser.get(shop.url)
    button, first = seen(browser), look_closer(browser)
    # In another second the tokens are others. It is the goal that counts once, not the token.
    wait_for(lambda: look_closer(browser) != first)
    assert grown(before, shop.counts()) == {
        name: {button[name]: {"pulls": 1, "clicks": 0, "looked": 1, "orders": 0}}
        for name in ("color_btn", "txt_btn")
    }


def test_a_beacon_needs_no_cookie(browser: webdriver.Chrome, shop: Shop) -> None:
    browser.get(shop.url)
    button, before = seen(browser), shop.counts()
    browser.delete_all_cookies()
    open_story(browser)
    wait_for(lambda: sent_beacons(browser) == 2)
    assert grown(before, shop.counts()) == {
        name: {button[name]: {"pulls": 0, "clicks": 0, "looked": 1, "orders": 0}}
        for name in ("color_btn", "txt_btn")
    }


def test_an_order_follows_the_click(browser: webdriver.Chrome, shop: Shop) -> None:
    before = shop.counts()
    browser.get(shop.url)
    button = seen(browser)
    buy(browser)
    browser.find_element(By.ID, "order").click()
    WebDriverWait(browser, WAIT_SECONDS).until(lambda b: b.current_url.endswith("/ordered"))
    assert grown(before, shop.counts()) == {
        name: {button[name]: {"pulls": 1, "clicks": 1, "looked": 0, "orders": 1}}
        for name in ("color_btn", "txt_btn")
    }


def test_a_headless_browser_is_shown_an_arm_and_not_counted(launch: Launch, shop: Shop) -> None:
    pytest.importorskip("crawleruseragents")
    before, robot = shop.counts(), launch()
    robot.get(shop.url)
    assert "HeadlessChrome" in robot.execute_script("return navigator.userAgent")
    button = seen(robot)
    assert button["color"] == COLORS[button["color_btn"]]
    open_story(robot)
    buy(robot)
    assert robot.get_cookie("MAB") is None
    assert shop.counts() == before


def test_the_content_policy_stops_nothing_of_ours(browser: webdriver.Chrome, shop: Shop) -> None:
    browser.get_log("browser")
    for path in PATHS:
        browser.get(shop.url + path)
    assert browser.get_log("browser") == []
    # And it is in force.
    browser.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.wasRun = true';"
        "document.body.append(script)"
    )
    assert browser.execute_script("return window.wasRun") is None
    assert any(
        "Content Security Policy" in entry["message"] for entry in browser.get_log("browser")
    )


def widths(browser: webdriver.Chrome) -> tuple[int, int]:
    """Return the width that the page needs, and the width that there is."""
    needed, given = browser.execute_script(
        "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
    )
    return needed, given


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("width", [390, 320, 1280])
def test_nothing_scrolls_sideways(
    browser: webdriver.Chrome, shop: Shop, path: str, width: int
) -> None:
    # The longest name that fits.
    sign_in(browser, shop, "W" * 40)
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(shop.url + path)
    # The screen takes its new size after the answer to the command.
    wait_for(lambda: widths(browser)[1] <= width)
    needed, given = widths(browser)
    assert needed == given
    sticking_out = browser.execute_script(
        "return [...document.querySelectorAll('tbody *')].filter(element =>"
        " element.getBoundingClientRect().right"
        " > element.closest('table').getBoundingClientRect().right + 0.5"
        ").map(element => element.outerHTML)"
    )
    assert sticking_out == []


def test_the_page_asks_nothing_of_other_hosts(browser: webdriver.Chrome, shop: Shop) -> None:
    browser.get(shop.url)

    def loaded() -> list[str]:
        names: list[str] = browser.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        return names

    wait_for(lambda: any(name.endswith("mug.svg") for name in loaded()))
    wait_for(lambda: any(name.endswith("shop.css") for name in loaded()))
    assert all(name.startswith(shop.url) for name in loaded())


def test_the_toolbar_shows_the_bandits(browser: webdriver.Chrome, serve: Serve) -> None:
    pytest.importorskip("flask_debugtoolbar")
    shop = serve("-m", "example", "--port", "PORT", "--debug")
    browser.get(shop.url)
    button = seen(browser)
    toolbar = browser.find_element(By.ID, "flDebug")
    text = toolbar.get_attribute("textContent")
    assert "Bandits" in text
    for word in ("color_btn", "txt_btn", *COLORS, *TEXTS):
        assert word in text
    marked = [
        row.get_attribute("textContent")
        for row in toolbar.find_elements(By.CSS_SELECTOR, '[aria-current="true"]')
    ]
    assert len(marked) == 2
    assert button["color_btn"] in marked[0]
    assert button["txt_btn"] in marked[1]
