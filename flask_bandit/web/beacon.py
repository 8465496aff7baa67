"""The optional endpoint that takes reward tokens from browsers, without cookie and session.

The token is the permission. What it is worth, the server says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from hashlib import sha256
from numbers import Real
from typing import Any, TypeAlias

from flask import Blueprint, Request, Response, request

from ..engine import logger
from ..errors import ConfigurationError, StorageError, TokenError, UnknownBanditError
from .decorators import MARK, Mark
from .state import app_state
from .tokens import MAX_INBOUND, codec_of, spend

RewardValues: TypeAlias = Mapping[Any, float]
"""Goal, or (bandit, goal), -> value; a key type of its own would refuse plain dicts."""
NAME = "bandit_reward"
_NO_TOKEN = 'no token: send it as the body, as the form field "token", or as JSON {"token": ...}'
RETRY_AFTER = 5
"""Seconds after which a client may try again while the storage is down."""


def reward_blueprint(
    url: str = "/bandit/reward", *, values: RewardValues | None = None
) -> Blueprint:
    """Return a blueprint that takes reward tokens by ``POST``, for the app to register.

    The body is the token itself, as ``navigator.sendBeacon(url, token)`` sends it, a form with the
    field ``token``, or JSON ``{"token": ...}``. A token counts once here, for goals that count
    every time too. Answers 204 whether it was new or not, 400 for a token that cannot count, 413
    for a body above 4 kB, 503 while the storage is down. Sets and reads no cookie: where an
    extension asks for CSRF tokens, exempt the blueprint.

    :param url: where, below the blueprint's ``url_prefix``
    :param values: goal, or (bandit, goal), -> what it is worth; 1.0 if left out
    :raises ConfigurationError: a value is not a finite number
    """
    worth = dict(values or {})
    for key, value in worth.items():
        is_key = isinstance(key, str) or (isinstance(key, tuple) and len(key) == 2)
        if not is_key or not isinstance(value, Real) or not math.isfinite(value):
            raise ConfigurationError(
                f"reward_blueprint(values={{{key!r}: {value!r}}}): write a goal, or (bandit, "
                "goal), and a finite number"
            )

    def take() -> Response:
        """Count the reward that a token permits."""
        if "Transfer-Encoding" in request.headers:
            return _refusal(411, "send the token with a Content-Length")
        if (request.content_length or 0) > MAX_INBOUND:
            return _refusal(413, "a token is shorter")
        token = _token_in(request)
        if not token:
            return _refusal(400, _NO_TOKEN)
        return _answer(token, worth)

    marks = (Mark(k[0], value=v, goal=k[1]) for k, v in worth.items() if isinstance(k, tuple))
    setattr(take, MARK, tuple(marks))  # the wiring check looks at the names and values
    blueprint = Blueprint(NAME, __name__)
    blueprint.add_url_rule(url, "take", take, methods=["POST"])
    return blueprint


def _answer(text: str, worth: RewardValues) -> Response:
    state = app_state()
    try:
        token = codec_of(state).loads(text, time.time())
        value = worth.get((token.bandit, token.goal), worth.get(token.goal, 1.0))
        # Whoever repeats a token tells of one event, whatever its goal. Without the signature,
        # which can be spelt in many ways.
        payload = text.rpartition(".")[0]
        spend(state, token, value, event=sha256(payload.encode()).hexdigest()[:32])
    except TokenError as error:
        return _refusal(400, str(error))
    except UnknownBanditError:
        return _refusal(400, "the bandit of the token is gone")
    except ValueError as error:
        logger.error("reward_blueprint(values=...) does not fit %r: %s", token.bandit, error)
        return _refusal(400, "the token's reward cannot be counted")
    except StorageError:
        response = _refusal(503, "nothing can be counted now; bring the token again later")
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response
    return Response(status=204)


def _token_in(request: Request) -> str:
    """Return the token in a body, which may be anything; empty if there is none."""
    if request.is_json:
        try:
            body = request.get_json(silent=True)
        except RecursionError:  # brackets in brackets
            body = None
        token = body.get("token") if isinstance(body, dict) else None
        return token if isinstance(token, str) else ""
    if "token" in request.form:
        return request.form["token"].strip()
    return request.get_data(as_text=True).strip()


def _refusal(status: int, why: str) -> Response:
    return Response(f"{why}\n", status, mimetype="text/plain")
