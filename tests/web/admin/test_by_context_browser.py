"""The page of a bandit that chooses by context in a real Chromium, under a strict policy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_bandit.web.state import app_state
from tests.example import test_dashboard
from tests.example.strict_workers import POLICY
from tests.example.test_browser import wait_for
from tests.example.test_dashboard import ALL, check_access, fits, look, screen, serving, tab_to

from . import test_models
from .conftest import ROOT

pytest.importorskip("axe_selenium_python", reason="axe-selenium-python is not installed")

from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = test_dashboard.pytestmark
launch = test_dashboard.launch
chromium = test_dashboard.chromium
browser = test_dashboard.browser
trained = test_models.trained

PATHS = (f"{ROOT}bandit?name=offer", f"{ROOT}do/deploy?name=offer")


@pytest.fixture(scope="module")
def url(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A shop that serves its first model, so that its page has all sections."""
    folder = tmp_path_factory.mktemp("shop")
    shutil.copy(trained, folder)
    app, _ = test_models.make_shop(folder / trained.name, folder)
    app_state(app).engine.change("offer", "deploy", 2)
    app_state(app).engine.change("offer", "deploy", 0)

    @app.after_request
    def add_policy(response: Any) -> Any:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    with serving(app) as found:
        yield found


@pytest.mark.parametrize(
    ("width", "schemes"), [(1280, ("light", "dark")), (390, ("dark",))], ids=["desk", "phone"]
)
def test_everybody_can_read_it(
    browser: Chrome, url: str, width: int, schemes: tuple[str, ...]
) -> None:
    screen(browser, width)
    for path in PATHS:
        browser.get(url + path)
        browser.execute_script("document.querySelector('details')?.setAttribute('open', '')")
        for scheme in schemes:
            look(browser, scheme)
            check_access(browser, f"{path}, {scheme}", ALL)


def test_nothing_scrolls_sideways(browser: Chrome, url: str) -> None:
    for path in PATHS:
        browser.get(url + path)
        for width in (1280, 1200, 1199, 992, 700, 390, 320):
            print(f"{path!r} at {width}")
            screen(browser, width)
            wait_for(lambda width=width: fits(browser, width))  # type: ignore[misc]


def test_a_model_is_deployed_by_the_keyboard_alone(browser: Chrome, url: str) -> None:
    browser.get(url + PATHS[0])
    tab_to(browser, lambda focused: focused.text == "Deploy model 1")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    wait_for(lambda: "Choose a model" in browser.find_element(By.TAG_NAME, "h1").text)
    tab_to(browser, lambda focused: focused.tag_name == "button" and "model" in focused.text)
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    wait_for(lambda: bool(browser.find_elements(By.CSS_SELECTOR, ".message-done")))
    done = browser.find_element(By.CSS_SELECTOR, ".message-done").text
    assert done.startswith("Model 1 draws the arms of offer.")
    assert browser.find_element(By.CSS_SELECTOR, '[data-model="1"] .badge').text == "serves"
