"""The shop: two bandits on one button, and pages that show how the traffic moves.

Runs with nothing but Flask-Bandit itself; the debug toolbar comes along where it is installed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from flask import Flask, Response, jsonify, redirect, render_template, url_for
from werkzeug.wrappers import Response as AnyResponse

from flask_bandit import (
    BanditMiddleware,
    StorageError,
    add_bandit,
    choose_arm,
    reward_endpt,
    suggest_arm_for,
)
from flask_bandit.bandits import Bandit, EpsilonGreedyBandit, ThompsonBandit

DEFAULT_STORAGE = "sqlite:///bandits.db"
# So that the demo starts at once. In an app of yours this is a long random secret.
DEMO_KEY = "everybody knows this key, so use it for nothing but the demo"
PANEL = "flask_bandit.web.debug_panels.BanditDebugPanel"

TITLES = {"color_btn": "The button's colour", "txt_btn": "The button's text"}

mab = BanditMiddleware()


def color_bandit() -> Bandit:
    """Return the bandit that picks the button's colour."""
    # Thompson sampling is the algorithm to begin with: nothing to tune, and late clicks do it
    # little harm. The text below uses epsilon-greedy, the classic, so that you can compare them.
    bandit = ThompsonBandit()
    bandit.add_arm("green", "#1a7f37")
    bandit.add_arm("red", "#c62828")
    bandit.add_arm("blue", "#1d4ed8")
    return bandit


def text_bandit() -> Bandit:
    """Return the bandit that picks the button's text."""
    bandit = EpsilonGreedyBandit(0.2)
    bandit.add_arm("casual", "Ooh, gimme that mug")
    bandit.add_arm("neutral", "Add to basket")
    bandit.add_arm("formal", "I should like to purchase this")
    return bandit


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the shop.

    :param config: settings that win over the defaults and the environment's ``MAB_*`` and
        ``SECRET_KEY``
    """
    app = Flask(__name__)
    app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY") or DEMO_KEY
    app.config["MAB_STORAGE_URI"] = DEFAULT_STORAGE
    app.config.update({k: v for k, v in os.environ.items() if k.startswith("MAB_") and v})
    app.config.update(config or {})
    mab.init_app(app)
    add_bandit(app, "color_btn", color_bandit())
    add_bandit(app, "txt_btn", text_bandit())
    add_views(app)
    if app.debug:
        add_toolbar(app)
    return app


def add_views(app: Flask) -> None:
    """Add the shop's pages."""

    @app.get("/")
    @choose_arm("color_btn")
    @choose_arm("txt_btn")
    def home(color_btn: str, txt_btn: str) -> str:
        # The decorators hand over the arms' values. Within a request the inline twin names the
        # same arms, here for the line at the foot of the page.
        arms = {name: suggest_arm_for(name)[0] for name in TITLES}
        return render_template("shop.html", color=color_btn, text=txt_btn, arms=arms)

    @app.post("/btnclick")
    @reward_endpt("color_btn", 1.0)
    @reward_endpt("txt_btn", 1.0)
    def btnclick() -> AnyResponse:
        return redirect(url_for("thanks"), code=303)

    @app.get("/thanks")
    def thanks() -> str:
        return render_template("thanks.html")

    @app.get("/results")
    def results() -> str:
        reports = [report(app, name) for name in TITLES]
        return render_template("results.html", reports=reports)

    @app.get("/counts.json")
    def counts() -> Response:
        return jsonify({name: stored_counts(name) for name in TITLES})

    @app.errorhandler(StorageError)
    def storage_away(error: StorageError) -> tuple[str, int]:
        # Only pages that show counts get here: the shop goes on without its storage.
        app.logger.error("the counts cannot be shown: %s", error)
        return render_template("away.html"), 503


def stored_counts(name: str) -> dict[str, dict[str, int]]:
    """Return a bandit's counts as they are in storage, by arm."""
    return {
        arm: {"pulls": stats.pulls, "clicks": stats.rewards}
        for arm, stats in mab.stats(name).items()
    }


def report(app: Flask, name: str) -> dict[str, Any]:
    """Return what the results page says of a bandit."""
    bandit: Bandit = app.extensions["bandit"].bandits[name]
    counts = mab.stats(name)
    chances = bandit.propensities(bandit.stats_from({a: asdict(s) for a, s in counts.items()}))
    rows = [
        {
            "arm": arm,
            "value": bandit.value_of(arm),
            "pulls": stats.pulls,
            "clicks": stats.rewards,
            "rate": stats.mean,
            "chance": float(chance),
        }
        for (arm, stats), chance in zip(counts.items(), chances, strict=True)
    ]
    return {"name": name, "title": TITLES[name], "rows": rows}


def add_toolbar(app: Flask) -> None:
    """Add Flask-DebugToolbar with the bandits' panel, as far as they are installed."""
    if find_spec("flask_debugtoolbar") is None:
        return
    from flask_debugtoolbar import DebugToolbarExtension

    # Off, or the toolbar would answer a click with a page of its own.
    app.config.setdefault("DEBUG_TB_INTERCEPT_REDIRECTS", False)
    panels = [
        "flask_debugtoolbar.panels.timer.TimerDebugPanel",
        "flask_debugtoolbar.panels.headers.HeaderDebugPanel",
        "flask_debugtoolbar.panels.request_vars.RequestVarsDebugPanel",
        "flask_debugtoolbar.panels.logger.LoggingPanel",
    ]
    if find_spec(PANEL.rpartition(".")[0]) is not None:
        panels.insert(0, PANEL)
    app.config.setdefault("DEBUG_TB_PANELS", panels)
    DebugToolbarExtension(app)
