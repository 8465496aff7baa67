"""A shop whose bandit ``offer`` has contexts, for the tests of them."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, abort, request
from flask.testing import FlaskClient

from flask_bandit import BanditMiddleware, suggest_arm_for
from flask_bandit.bandits import Bandit
from flask_bandit.model import Decision, LogEntry
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import BanditStorage
from flask_bandit.web.state import AppState

USER = "X-User"
FEATURES = {"age": "numeric", "country": ["de", "fr"], "words": {"hashed": 4}}
ARMS = ("a", "b", "c", "d")


def offers(arms: tuple[str, ...] = ARMS, **options: Any) -> Bandit:
    """Return a uniform bandit with features that is not sticky, unless told otherwise."""
    bandit = Bandit(**{"features": FEATURES, "sticky": False, **options})
    for arm in arms:
        bandit.add_arm(arm, f"<{arm}>")
    return bandit


def asked_context() -> dict[str, Any]:
    """Return what the query string says, numbers as numbers."""
    asked: dict[str, Any] = request.args.to_dict()
    if "age" in asked:
        asked["age"] = float(asked["age"])
    return asked


def shop(
    bandit: Bandit | None = None, storage: BanditStorage | None = None, **config: Any
) -> Flask:
    """Return an app whose user is whoever a header names.

    ``/offer`` shows an arm by the context of its query string, ``/status/CODE`` does so and answers
    with a status, ``/token`` answers with a token for the arm it has drawn; ``/buy`` rewards.
    """
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_CONTROL_TTL=0, **config)
    app.config["MAB_STORAGE_ENGINE"] = MemoryBanditStorage() if storage is None else storage
    mab = BanditMiddleware(app)
    mab.subject_loader(lambda: request.headers.get(USER))
    mab.add_bandit("offer", offers() if bandit is None else bandit)

    @app.get("/offer")
    def offer() -> str:
        return suggest_arm_for("offer", context=asked_context)[0]

    @app.get("/status/<int:code>")
    def status(code: int) -> Response:
        return Response(suggest_arm_for("offer", context=asked_context)[0], code)

    @app.get("/fails")
    def fails() -> str:
        suggest_arm_for("offer", context=asked_context)
        abort(500)

    @app.get("/token")
    def token() -> str:
        return mab.reward_token("offer", context=asked_context)

    @app.post("/buy")
    def buy() -> Response:
        return Response(str(mab.reward("offer")), mimetype="text/plain")

    @app.post("/forget")
    def forget() -> str:
        return str(mab.forget())

    return app


def state_of(app: Flask) -> AppState:
    state: AppState = app.extensions["bandit"]
    return state


def entries(app: Flask) -> list[LogEntry]:
    return list(state_of(app).storage.iter_log())


def decisions(app: Flask) -> list[Decision]:
    return [entry.decision for entry in entries(app)]


def rewarded(app: Flask) -> list[str]:
    """Return the ids of the decisions that have a reward."""
    return [entry.decision.id for entry in entries(app) if entry.rewards]


def last_of(app: Flask, client: FlaskClient) -> tuple[str, int]:
    """Return the id of the decision that a client's cookie is at, and its number."""
    cookie = client.get_cookie("MAB")
    content = state_of(app).codec.loads(cookie.value if cookie else "")
    row = content.assignments["offer"]
    return row.decision_id(content.visitor, "offer"), row.reassigned
