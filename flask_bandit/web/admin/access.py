"""Who may enter the dashboard, and what their name is in the audit log.

Knows Flask's request and nothing of Flask-Admin.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

from flask import current_app, request

LONGEST_NAME = 100

logger = logging.getLogger("flask_bandit")


def may_enter(access: Callable[[], Any] | None) -> bool:
    """Return whether whoever sends this request may see and do everything.

    Without ``access``, only while the app is in debug mode. An ``access`` that raises, or returns
    anything but True, keeps the dashboard closed.
    """
    if access is None:
        return current_app.debug
    try:
        answer = current_app.ensure_sync(access)()
    except Exception:
        logger.exception("The dashboard's access function failed, so nobody may enter")
        return False
    if answer is None or isinstance(answer, bool):
        return answer is True
    # A method that was not called and a coroutine that was not awaited would let everybody in.
    logger.error(
        "The dashboard's access function returned %r, so nobody may enter; return True or False, "
        "such as bool(...) of it",
        answer,
    )
    return False


def person(who: Callable[[], Any] | None) -> str:
    """Return who sends this request, as one short line.

    :param who: the app's own function; by default the user of Flask-Login, the user name of Basic
        authentication, or the address
    """
    try:
        name = _known() if who is None else current_app.ensure_sync(who)()
    except Exception:
        logger.exception("The dashboard's who function failed; the address stands for the name")
        name = None
    return one_line(str(name or request.remote_addr or "somebody")[:LONGEST_NAME])


def one_line(text: str) -> str:
    """Return a text that makes no second line of a log."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _known() -> str | None:
    if hasattr(current_app, "login_manager"):
        user = import_module("flask_bandit.web.login").signed_in_user()
        if user:
            return str(user)
    given = request.authorization
    return given.username if given is not None and given.type == "basic" else None
