"""How long the dashboard's pages take when little and much is logged.

A shop for each size, on SQLite, with the decisions of a month. Their pages are asked for in turns,
so that a busy machine slows all of them alike: read the ratios. An app reads its log while it
grows, a minute's decisions at a time; what reading all of it at once takes, as after an import, is
the column "whole log".
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

from flask import Flask
from rich.console import Console
from rich.progress import track
from rich.table import Table

from example.app import create_app
from example.replay import replay
from flask_bandit.control import Control
from flask_bandit.model import BanditKey

SIZES = (10_000, 100_000, 1_000_000)
DAYS = 30.0
BATCHES = 2_000
ROOT = "/admin/bandits/"
PAGES = {
    "all bandits": ROOT,
    "one bandit": f"{ROOT}bandit?name=color_btn",
    "refreshed": f"{ROOT}live?name=color_btn",
    "its log": f"{ROOT}log?name=color_btn",
}


class Shop:
    """A shop with so many decisions for each of its bandits, and what its pages took.

    :param whole_log: seconds for reading all of one bandit's log
    """

    def __init__(self, folder: str, decisions: int) -> None:
        self.decisions = decisions
        app = create_app({"MAB_STORAGE_URI": f"sqlite:///{folder}/bandits.db"})
        replay(app, decisions, DAYS, batch=max(50, decisions // BATCHES))
        self.whole_log = read_all(app)
        self._client = app.test_client()
        self.times: dict[str, list[float]] = {name: [] for name in PAGES}
        self.run()

    def run(self) -> None:
        """Ask for each page once."""
        for name, url in PAGES.items():
            started = time.perf_counter()
            response = self._client.get(url)
            self.times[name].append((time.perf_counter() - started) * 1e3)
            if response.status_code != 200:
                raise SystemExit(f"{url} answers {response.status}")


def read_all(app: Flask) -> float:
    """Let the logs of all bandits be read, and return the seconds that one of them took."""
    state = app.extensions["bandit"]
    took = 0.0
    for name in state.bandits:
        key = BanditKey(name, 1)
        started = time.perf_counter()
        state.digester.read(key, state.storage.read_counts()[key], Control())
        took = time.perf_counter() - started
    return took


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--decisions", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        shops = [
            Shop(stack.enter_context(tempfile.TemporaryDirectory()), decisions)
            for decisions in track(options.decisions, description="Replaying", transient=True)
        ]
        for shop in shops:
            # The first pages of a process load templates and packages.
            shop.times = {name: [] for name in PAGES}
        for _ in range(options.rounds):
            for shop in shops:
                shop.run()
    show(shops)


def show(shops: Sequence[Shop]) -> None:
    """Print medians, and their ratios to those of the first shop."""
    table = Table("decisions", "whole log, s", *(f"{name}, ms" for name in PAGES))
    for shop in shops:
        cells = [
            f"{median(times):.1f} ({median(times) / median(shops[0].times[name]):.2f})"
            for name, times in shop.times.items()
        ]
        table.add_row(f"{shop.decisions:,}", f"{shop.whole_log:.2f}", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
