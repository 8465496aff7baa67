"""The shop: two bandits on one button, and pages that show how the traffic moves.

Runs with nothing but Flask-Bandit itself; the debug toolbar comes along where it is installed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any
from uuid import UUID, uuid4

from flask import (
    Flask,
    Response,
    abort,
    jsonify,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from werkzeug.wrappers import Response as AnyResponse

from flask_bandit import (
    BanditMiddleware,
    StorageError,
    add_bandit,
    choose_arm,
    reward,
    reward_endpt,
    suggest_arm_for,
)
from flask_bandit.bandits import Bandit, EpsilonGreedyBandit, ThompsonBandit
from flask_bandit.control import RUNNING, Control
from flask_bandit.model import ArmStats

DEFAULT_STORAGE = "sqlite:///bandits.db"
# So that the demo starts at once. In an app of yours this is a long random secret.
DEMO_KEY = "everybody knows this key, so use it for nothing but the demo"
PANEL = "flask_bandit.web.debug_panels.BanditDebugPanel"

TITLES = {"color_btn": "The button's colour", "txt_btn": "The button's text"}
PRICE = 18.0
LONGEST_NAME = 40

# What a visitor may reach besides the click. The bandits learn from the click alone; the others
# are counted for the report, "once" per visitor and arm, or each time if they are "numeric".
GOALS = {"looked": "once", "order": "once", "revenue": "numeric"}

# All of it comes from here, but for what gives each button its colour, and for the sign of the
# dashboard's menu on a phone.
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src-attr 'unsafe-inline'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)

mab = BanditMiddleware()


def color_bandit() -> Bandit:
    """Return the bandit that picks the button's colour."""
    # Thompson sampling is the algorithm to begin with: nothing to tune, and late clicks do it
    # little harm. The text below uses epsilon-greedy, the classic, so that you can compare them.
    # Each colour keeps 5 % of the visitors, so that the dashboard can soon prove which is best.
    bandit = ThompsonBandit(goal="click", goals=GOALS, min_propensity=0.05)
    bandit.add_arm("green", "#1a7f37")
    bandit.add_arm("red", "#c62828")
    bandit.add_arm("blue", "#1d4ed8")
    return bandit


def text_bandit() -> Bandit:
    """Return the bandit that picks the button's text."""
    bandit = EpsilonGreedyBandit(0.2, goal="click", goals=GOALS)
    bandit.add_arm("casual", "Ooh, gimme that mug")
    bandit.add_arm("neutral", "Add to basket")
    bandit.add_arm("formal", "I should like to purchase this")
    return bandit


@mab.subject_loader
def signed_in() -> str | None:
    """Return who is signed in, so that they have the same arms on each of their devices."""
    name: str | None = session.get("name")
    # Ann is the same with a small letter.
    return None if name is None else name.casefold()


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the shop.

    :param config: settings that win over the defaults and the environment's ``MAB_*`` and
        ``SECRET_KEY``
    """
    app = Flask(__name__)
    app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY") or DEMO_KEY
    # The forms have no CSRF tokens: with Lax, and so is the bandits' cookie, a form on another
    # site's page sends none of these cookies. Where signing in takes a password, add tokens.
    app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
    app.config["MAB_STORAGE_URI"] = DEFAULT_STORAGE
    app.config.update({k: v for k, v in os.environ.items() if k.startswith("MAB_") and v})
    app.config.update(config or {})
    mab.init_app(app)
    add_bandit(app, "color_btn", color_bandit())
    add_bandit(app, "txt_btn", text_bandit())
    # Takes the tokens that static/story.js sends, at /bandit/reward.
    app.register_blueprint(mab.reward_blueprint())
    add_views(app)
    add_sign_in(app)
    add_results(app)
    add_dashboard(app)
    if app.debug:
        add_toolbar(app)
    else:
        app.after_request(add_content_policy)
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
        return render_template("thanks.html", price=PRICE, number=uuid4())

    @app.post("/order")
    def order() -> AnyResponse:
        number = request.form.get("number", type=UUID)
        if number is None:
            abort(400, "An order needs its number: place it from the page before.")
        for name in TITLES:
            reward(name, 1.0, goal="order")
            # Money is summed. The number tells a second order from a form that is sent twice.
            reward(name, PRICE, goal="revenue", event=str(number))
        return redirect(url_for("ordered"), code=303)

    @app.get("/ordered")
    def ordered() -> str:
        return render_template("ordered.html")


def add_sign_in(app: Flask) -> None:
    """Add the pages on which visitors tell their name."""

    @app.get("/sign-in")
    def sign_in() -> str:
        return render_template("sign_in.html", longest=LONGEST_NAME)

    @app.post("/sign-in")
    def take_name() -> AnyResponse | tuple[str, int]:
        name = " ".join(request.form.get("name", "").split())
        if not (0 < len(name) <= LONGEST_NAME and name.isprintable()):
            return render_template("sign_in.html", longest=LONGEST_NAME, refused=name), 400
        session["name"] = name
        return redirect(url_for("home"), code=303)

    @app.post("/sign-out")
    def sign_out() -> AnyResponse:
        session.clear()
        return redirect(url_for("home"), code=303)


def add_results(app: Flask) -> None:
    """Add the pages that show what was counted."""

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


def add_dashboard(app: Flask) -> None:
    """Add the dashboard, if what it needs is installed, for whoever sits at this computer."""
    app.jinja_env.globals["has_dashboard"] = find_spec("flask_admin") is not None
    if find_spec("flask_admin") is None:
        return
    from flask_admin import Admin

    from flask_bandit.web.admin import BanditAdmin

    # The shop has no passwords. Elsewhere it might be access=lambda: current_user.is_admin.
    admin = Admin(app, name="The shop", url="/admin")
    admin.add_view(BanditAdmin(access=is_at_this_computer, who=person))


def is_at_this_computer() -> bool:
    """Return whether a request comes from the computer that the shop runs on."""
    return request.remote_addr in ("127.0.0.1", "::1")


def person() -> str:
    """Return who changes a bandit on the dashboard, for the history."""
    return signed_in() or "somebody at this computer"


def read_goals(name: str) -> dict[str, dict[str, ArmStats]]:
    """Read from storage what a bandit's arms have earned, by goal."""
    # The clicks last, and the visitors with them: none is seen to have looked who is not there yet.
    return {goal: mab.stats(name, goal=goal) for goal in (*GOALS, "click")}


def stored_counts(name: str) -> dict[str, dict[str, int]]:
    """Return a bandit's counts as they are in storage, by arm."""
    goals = read_goals(name)
    return {
        arm: {
            "pulls": clicks.pulls,
            "clicks": clicks.rewards,
            "looked": goals["looked"][arm].rewards,
            "orders": goals["order"][arm].rewards,
        }
        for arm, clicks in goals["click"].items()
    }


def report(app: Flask, name: str) -> dict[str, Any]:
    """Return what the results page says of a bandit."""
    bandit: Bandit = app.extensions["bandit"].bandits[name]
    control: Control = app.extensions["bandit"].engine.control(name)
    goals = read_goals(name)
    chances = next_chances(bandit, control, goals["click"])
    rows = [
        {
            "arm": arm,
            "value": bandit.value_of(arm),
            "chance": chances.get(arm, 0.0),
            **{goal: stats[arm] for goal, stats in goals.items()},
        }
        for arm in bandit.arm_ids
    ]
    return {"name": name, "title": TITLES[name], "control": control, "rows": rows}


def next_chances(
    bandit: Bandit, control: Control, stats: Mapping[str, ArmStats]
) -> Mapping[str, float]:
    """Return the probability of each arm for the next new visitor."""
    arms = bandit.arm_ids
    if control.state != RUNNING:
        return {control.common_arm(arms): 1.0}
    sums = {arm: asdict(each) for arm, each in stats.items()}
    return bandit.draw_table(sums, drawing=control.drawing(arms)).propensities


def add_content_policy(response: Response) -> Response:
    """Let browsers refuse what the shop has not sent: no script but its own files."""
    response.headers["Content-Security-Policy"] = CONTENT_POLICY
    return response


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
