"""What a request costs over the same view without bandits, side by side with Flask-MAB 3.0.4.

Calls each app's WSGI callable in this process, all apps in turn in every round, and measures CPU
time, so that a busy machine distorts little. Flask-MAB is measured with its no-op storage and with
its JSON one.
"""

from __future__ import annotations

import argparse
import gc
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import flask_mab
import flask_mab.bandits
from flask import Flask
from rich.console import Console
from rich.progress import track
from rich.table import Table
from werkzeug.test import EnvironBuilder

from flask_bandit import BanditMiddleware, choose_arm, reward_endpt
from flask_bandit.bandits import EpsilonGreedyBandit

ARMS = {"green": "#00FF00", "red": "#FF0000", "blue": "#0000FF"}
SCENARIOS = ("undecorated view", "returning visitor", "new visitor", "reward")


@dataclass
class Subject:
    """One app under test, with what it needs to play each visitor."""

    name: str
    app: Flask
    close: Callable[[], None] = lambda: None


def with_arms(bandit: Any) -> Any:
    for arm, value in ARMS.items():
        bandit.add_arm(arm, value)
    return bandit


def add_views(
    app: Flask, choose: Callable[..., Any] | None, reward: Callable[..., Any] | None
) -> Flask:
    def page(color: str = "#00FF00") -> str:
        return color

    def click() -> str:
        return "thanks"

    app.add_url_rule("/plain", "plain", lambda: "#00FF00")
    app.add_url_rule("/page", "page", choose(page) if choose else page)
    app.add_url_rule("/click", "click", reward(click) if reward else click)
    return app


def new_app(name: str) -> Flask:
    """Make an app with a secret key, whose sessions cost something in every app that has one."""
    app = Flask(name)
    app.config["SECRET_KEY"] = "benchmark"
    return app


def bare() -> Subject:
    return Subject("bare view", add_views(new_app("bare"), None, None))


def ours(bandits: int, storage: str, uri: str) -> Subject:
    app = new_app("ours")
    app.config["MAB_STORAGE_URI"] = uri
    mab = BanditMiddleware(app)
    for index in range(bandits):
        mab.add_bandit("color" if index == 0 else f"b{index}", with_arms(EpsilonGreedyBandit(0.1)))
    add_views(app, choose_arm("color"), reward_endpt("color", 1.0))
    close = app.extensions["bandit"].storage.close
    return Subject(f"Flask-Bandit, {storage}", app, close)


def theirs(bandits: int, storage: str, engine: str, options: tuple[str, ...]) -> Subject:
    app = new_app("theirs")
    app.config.update(MAB_STORAGE_ENGINE=engine, MAB_STORAGE_OPTS=options, MAB_DEBUG_HEADERS=False)
    flask_mab.BanditMiddleware(app)
    for index in range(bandits):
        name = "color" if index == 0 else f"b{index}"
        bandit = with_arms(flask_mab.bandits.EpsilonGreedyBandit(0.1))
        flask_mab.add_bandit(app, name, bandit)
    add_views(app, flask_mab.choose_arm("color"), flask_mab.reward_endpt("color", 1.0))
    return Subject(f"Flask-MAB, {storage}", app)


def call(app: Flask, path: str, cookie: str = "") -> list[tuple[str, str]]:
    environ = EnvironBuilder(path, base_url="https://localhost").get_environ()
    if cookie:
        environ["HTTP_COOKIE"] = cookie
    return run(app, environ)


def run(app: Flask, environ: dict[str, Any]) -> list[tuple[str, str]]:
    answer: list[tuple[str, str]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        assert status.startswith("200"), status
        answer.extend(headers)

    body: Any = app.wsgi_app(environ, start_response)
    for _ in body:
        pass
    body.close()
    return answer


def assigned_cookie(app: Flask) -> str:
    """Visit the page once and return the cookie header to come back with."""
    jar: SimpleCookie = SimpleCookie()
    for name, value in call(app, "/page"):
        if name == "Set-Cookie":
            jar.load(value)
    return "; ".join(f"{name}={part.coded_value}" for name, part in jar.items())


def environs(app: Flask, scenario: str, count: int) -> list[dict[str, Any]]:
    """Build the requests beforehand, so that only their answering is timed."""
    path = {"undecorated view": "/plain", "reward": "/click"}.get(scenario, "/page")
    built = []
    kept = assigned_cookie(app) if scenario == "returning visitor" else ""
    for _ in range(count):
        environ = EnvironBuilder(path, base_url="https://localhost").get_environ()
        cookie = assigned_cookie(app) if scenario == "reward" else kept
        if cookie:
            environ["HTTP_COOKIE"] = cookie
        built.append(environ)
    return built


def time_batch(subject: Subject, scenario: str, count: int) -> float:
    """Return CPU seconds per request."""
    batch = environs(subject.app, scenario, count)
    gc.collect()
    started = time.process_time()
    for environ in batch:
        run(subject.app, environ)
    return (time.process_time() - started) / count


def measure(bandits: int, rounds: int, count: int) -> dict[tuple[str, str], float]:
    """Return the median seconds per request by (subject, scenario)."""
    with tempfile.TemporaryDirectory() as folder:
        subjects = [
            bare(),
            ours(bandits, "memory", "memory://"),
            ours(bandits, "JSON", f"json:///{Path(folder) / 'ours.json'}"),
            theirs(bandits, "no-op storage", "BanditStorage", ()),
            theirs(bandits, "JSON", "JSONBanditStorage", (str(Path(folder) / "theirs.json"),)),
        ]
        times: dict[tuple[str, str], list[float]] = {}
        for _ in track(range(rounds), description=f"{bandits} bandits", transient=True):
            for scenario in SCENARIOS:
                for subject in subjects:
                    # Its whole-file rewrite at each response takes milliseconds: fewer are enough.
                    slow = subject.name == "Flask-MAB, JSON" and bandits >= 100
                    seconds = time_batch(subject, scenario, 3 if slow else count)
                    times.setdefault((subject.name, scenario), []).append(seconds)
        for subject in subjects:
            subject.close()
    return {key: statistics.median(values) for key, values in times.items()}


def report(bandits: int, medians: dict[tuple[str, str], float]) -> Table:
    table = Table(
        "request",
        *dict.fromkeys(name for name, _ in medians),
        title=f"{bandits} registered bandits: bare view in µs, the others as µs added to it",
    )
    for scenario in SCENARIOS:
        base = medians["bare view", scenario]
        cells: Iterable[str] = (
            f"{base * 1e6:.0f}"
            if name == "bare view"
            else f"+{(medians[name, scenario] - base) * 1e6:.0f}"
            for name in dict.fromkeys(name for name, _ in medians)
        )
        table.add_row(scenario, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bandits", type=int, nargs="*", default=[1, 10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=100, help="per round, app and scenario")
    options = parser.parse_args()
    logging.getLogger("flask_bandit").setLevel(logging.ERROR)
    console = Console()
    for bandits in options.bandits:
        console.print(report(bandits, measure(bandits, options.rounds, options.requests)))


if __name__ == "__main__":
    main()
