"""A real Chromium in the shop."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

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
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    # Named, so that selenium looks for no driver on the network.
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def shop(serve: Serve) -> Shop:
    return serve("-m", "example", "--port", "PORT", "--workers", "2")


@pytest.fixture
def browser(chromium: webdriver.Chrome, shop: Shop) -> webdriver.Chrome:
    """Return the browser of somebody who was never here."""
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
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
    assert after == {"pulls": before["pulls"], "clicks": before["clicks"] + 1}


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


@pytest.mark.parametrize("path", ["/", "/results", "/thanks"])
@pytest.mark.parametrize("width", [390, 320, 1280])
def test_nothing_scrolls_sideways(
    browser: webdriver.Chrome, shop: Shop, path: str, width: int
) -> None:
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(shop.url + path)
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide == browser.execute_script("return document.documentElement.clientWidth")
    assert wide <= width


def test_the_page_asks_nothing_of_other_hosts(browser: webdriver.Chrome, shop: Shop) -> None:
    browser.get(shop.url)
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert any(name.endswith("shop.css") for name in loaded)
    assert all(name.startswith(shop.url) for name in loaded)


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
