"""A new visitor's view on each storage, against the same view written by hand for that storage.

The view by hand looks for an itsdangerous cookie, draws an arm at random, adds 1 to its count and
sets the cookie: no log, no probabilities, nothing that makes a replay count once. All apps answer
in turn in every round, in this process or each on a gunicorn of its own; the time is the wall
clock's, since servers of databases work too.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import flask_mab
import flask_mab.bandits
from flask import Flask, make_response, request
from flask.typing import ResponseReturnValue
from itsdangerous import BadSignature, URLSafeSerializer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from werkzeug.test import EnvironBuilder

from flask_bandit import BanditMiddleware, choose_arm
from flask_bandit.bandits import Bandit, EpsilonGreedyBandit, ThompsonBandit

from .gunicorn_app import served
from .places import NAMES, Increment, Place, open_places
from .requests import ARMS, new_app, run, with_arms

ALGORITHMS: dict[str, type[Bandit]] = {
    "epsilon_greedy": EpsilonGreedyBandit,
    "thompson": ThompsonBandit,
}
ONE_YEAR = 365 * 24 * 3600


Maker = Callable[[ExitStack], Flask]
"""Makes an app; what has to be closed at the end is given to the stack."""


def ours(uri: str, algorithm: str, stack: ExitStack) -> Flask:
    app = new_app("ours")
    app.config["MAB_STORAGE_URI"] = uri
    mab = BanditMiddleware(app)
    mab.add_bandit("color", with_arms(ALGORITHMS[algorithm]()))
    stack.callback(app.extensions["bandit"].storage.close)

    @app.get("/page")
    @choose_arm("color")
    def page(color: str) -> str:
        return color

    return app


def by_hand(place: Callable[[ExitStack], Increment], stack: ExitStack) -> Flask:
    app, increment = new_app("by hand"), place(stack)
    serializer = URLSafeSerializer("benchmark")

    @app.get("/page")
    def page() -> ResponseReturnValue:
        try:
            return ARMS[serializer.loads(request.cookies.get("arm", ""))]
        except BadSignature:
            arm = random.choice(list(ARMS))
        increment(arm)
        response = make_response(ARMS[arm])
        value = serializer.dumps(arm)
        response.set_cookie(
            "arm", value, max_age=ONE_YEAR, secure=True, httponly=True, samesite="Lax"
        )
        return response

    return app


def flask_mab_json(folder: Path) -> Flask:
    app = new_app("Flask-MAB")
    app.config.update(
        MAB_STORAGE_ENGINE="JSONBanditStorage",
        MAB_STORAGE_OPTS=(str(folder / "flask_mab.json"),),
        MAB_DEBUG_HEADERS=False,
    )
    flask_mab.BanditMiddleware(app)
    flask_mab.add_bandit(app, "color", with_arms(flask_mab.bandits.EpsilonGreedyBandit(0.1)))

    @app.get("/page")
    @flask_mab.choose_arm("color")  # type: ignore[untyped-decorator]
    def page(color: str) -> str:
        return color

    return app


Batch = Callable[[int], float]
"""Lets that many new visitors come, and returns the seconds that each took."""


def in_process(app: Flask) -> Batch:
    """Call the app in this process."""

    def batch(count: int) -> float:
        environs: list[dict[str, Any]] = [
            EnvironBuilder("/page", base_url="https://localhost").get_environ()
            for _ in range(count)
        ]
        gc.collect()
        started = time.perf_counter()
        for environ in environs:
            run(app, environ)
        return (time.perf_counter() - started) / count

    return batch


def measure(batches: dict[tuple[str, str], Batch], rounds: int, count: int) -> dict[Any, float]:
    """Return the median seconds per request by (storage, how)."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in batches}
    for round_ in track(range(rounds + 1), description="rounds", transient=True):
        for key, batch in batches.items():
            seconds = batch(count)
            if round_:  # the first one opens files and connections
                times[key].append(seconds)
    return {key: statistics.median(values) for key, values in times.items()}


def report(places: list[Place], medians: dict[Any, float]) -> Table:
    table = Table(
        "storage", "ours, per second", "by hand, per second", "ours µs", "by hand µs", "ratio"
    )
    for place in places:
        mine = medians[place.name, "ours"]
        row = [place.name, f"{1 / mine:.0f}", "-", f"{mine * 1e6:.0f}", "-", "-"]
        if (place.name, "by hand") in medians:
            theirs = medians[place.name, "by hand"]
            row[2], row[4] = f"{1 / theirs:.0f}", f"{theirs * 1e6:.0f}"
            row[5] = f"{mine / theirs:.2f}"
        table.add_row(*row)
    peer = medians["", "Flask-MAB"]
    table.add_row("Flask-MAB, json", f"{1 / peer:.0f}", "", f"{peer * 1e6:.0f}", "", "")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storages", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=100, help="per round and app")
    parser.add_argument("--algorithm", choices=sorted(ALGORITHMS), default="epsilon_greedy")
    parser.add_argument(
        "--served", action="store_true", help="ask gunicorn over HTTP, not the app in this process"
    )
    options = parser.parse_args()
    logging.getLogger("flask_bandit").setLevel(logging.ERROR)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = stack.enter_context(open_places(folder, tuple(options.storages)))
        makers: dict[tuple[str, str], Maker] = {
            ("", "Flask-MAB"): lambda stack: flask_mab_json(folder)
        }
        for place in places:
            makers[place.name, "ours"] = partial(ours, place.uri, options.algorithm)
            if place.by_hand is not None:
                makers[place.name, "by hand"] = partial(by_hand, place.by_hand)
        batches = {
            key: served(make, stack) if options.served else in_process(make(stack))
            for key, make in makers.items()
        }
        medians = measure(batches, options.rounds, options.requests)
        Console(width=100).print(report(places, medians))


if __name__ == "__main__":
    main()
