"""An app with one bandit, ``offer``, for visitors of whom something is known.

Declared by the environment, so that gunicorn and the tests make the same app. Each answer tells
which process gave it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import Flask, Response, request

from flask_bandit import BanditMiddleware
from flask_bandit.learning.data import TrainingData
from flask_bandit.learning.linear import LinearModel, RidgeTrainer

PREFIX = "LOOP"


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the app.

    :param config: in place of the environment's ``LOOP_...``
    """
    app = Flask(__name__, instance_path=os.path.abspath("instance"))
    # Counts are what is tested: a busy machine must not make the storage seem to be down.
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_TIMEOUT=60)
    if config is None:
        app.config.from_prefixed_env(PREFIX)
    else:
        app.config.update(config)
    mab = BanditMiddleware(app)

    @app.get("/offer")
    @mab.choose_arm("offer", context=known)
    def show(offer: str) -> str:
        return offer

    @app.post("/click")
    @mab.reward_endpt("offer")
    def click() -> str:
        return "thanks"

    @app.get("/thanks")
    def is_up() -> str:
        return "yes"

    @app.after_request
    def name_worker(response: Response) -> Response:
        response.headers["X-Worker"] = str(os.getpid())
        return response

    return app


def known() -> dict[str, Any]:
    """Return what the request says of the visitor."""
    found: dict[str, Any] = json.loads(request.args["known"])
    return found


class Contrary:
    """A trainer of the app's own, which takes a click for no click, and no click for one."""

    def __init__(self, epsilon: float) -> None:
        self._ridge = RidgeTrainer(epsilon=epsilon)

    def fit(self, data: TrainingData) -> LinearModel:
        """Return the model of what was not clicked."""
        return self._ridge.fit(_Flipped(data))  # type: ignore[arg-type]


class _Flipped:
    def __init__(self, data: TrainingData) -> None:
        self._data = data
        self.arms, self.features = data.arms, data.features

    def __iter__(self) -> Any:
        for batch in self._data:
            yield replace(batch, reward=1.0 - batch.reward)
