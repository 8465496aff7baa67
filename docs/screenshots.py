"""Takes the pictures of the dashboard that the documentation shows, in a real Chromium.

Run it from the checkout, as ``make screenshots``. The visitors are seeded, so the pictures change
with the pages only, but for the dates.
"""

from __future__ import annotations

import base64
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from flask import Flask
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from werkzeug.serving import make_server

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from example.app import create_app
from example.replay import DAY, batches, visits
from flask_bandit.control import act
from flask_bandit.web.pages import read_page

IMAGES = Path(__file__).resolve().parent / "images"
VISITORS, DAYS, BATCH, SEED = 5000, 14.0, 50, 4
PAUSE = (6.0, 6.9)
"""When the bandits were paused, in days since the first visitor."""
DESK, PHONE = 1280, 390
BANDIT = "bandit?name=txt_btn"


@dataclass(frozen=True)
class Picture:
    """A picture of one page.

    :param ends_at: CSS selector of the first thing that is not on it; all is on it if empty
    """

    name: str
    path: str
    width: int = DESK
    scheme: str = "light"
    ends_at: str = ""


PICTURES = (
    Picture("dashboard-bandit", BANDIT, ends_at="[aria-labelledby=gain-heading]"),
    Picture("dashboard-bandit-dark", BANDIT, scheme="dark", ends_at=".figure-band"),
    Picture("dashboard-phone", BANDIT, PHONE, ends_at=".figure-band"),
    Picture("dashboard-index", ""),
    Picture("dashboard-log", "log?name=txt_btn&arm=neutral", ends_at="tbody tr:nth-child(11)"),
    Picture("dashboard-declare", "do/declare?name=txt_btn"),
)


def main() -> None:
    """Write all pictures."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        app = create_app({"MAB_STORAGE_URI": f"sqlite:///{folder}/bandits.db"})
        fill(app)
        with serving(app) as url, chromium(folder) as browser:
            for picture in PICTURES:
                path = IMAGES / f"{picture.name}.png"
                path.write_bytes(take(browser, url, picture))
                print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def fill(app: Flask) -> None:
    """Store visitors of the past two weeks, and a pause in between."""
    state = app.extensions["bandit"]
    engine, rng = state.engine, random.Random(SEED)
    first = time.time() - DAYS * DAY
    paused, resumed = (first + days * DAY for days in PAUSE)
    moments = sorted(first + DAYS * DAY * rng.random() for _ in range(VISITORS))
    for some in batches([at for at in moments if not paused < at < resumed], BATCH):
        commit, _ = visits(engine, engine.storage.read_counts(), some, rng)
        engine.storage.commit(commit)
    for name, bandit in engine.bandits.items():
        for action, at in (("pause", paused), ("resume", resumed)):
            engine.update_control(
                name,
                lambda control, action=action, at=at, arms=bandit.arm_ids: act(
                    control, action, arms, at, by="ann"
                ),
            )
    for name in engine.bandits:
        # As the background does, so that all pages know of the whole log.
        read_page(state, name, most=None)


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serve an app on a free port of this computer, and yield where its dashboard is."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}/admin/bandits/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def chromium(folder: str) -> Iterator[webdriver.Chrome]:
    """Start a browser that writes English."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    flags = ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-dev-shm-usage")
    for flag in (*flags, "lang=en-GB", "accept-lang=en-GB", f"user-data-dir={folder}/profile"):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def take(browser: webdriver.Chrome, url: str, picture: Picture) -> bytes:
    """Return a picture, as PNG."""
    is_phone = picture.width == PHONE
    scheme = {"name": "prefers-color-scheme", "value": picture.scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": picture.width, "height": 844, "deviceScaleFactor": 1, "mobile": is_phone},
    )
    browser.get(url + picture.path)
    height = browser.execute_script(
        "const end = arguments[0] && document.querySelector(arguments[0]);"
        "const page = document.querySelector('main').getBoundingClientRect();"
        "return end ? end.getBoundingClientRect().top : page.bottom",
        picture.ends_at,
    )
    clip = {"x": 0, "y": 0, "width": picture.width, "height": height, "scale": 1}
    taken = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
    )
    return base64.b64decode(taken["data"])


if __name__ == "__main__":
    main()
