"""What templates can call: the visitor's arm, and the token that rewards it."""

from __future__ import annotations

from typing import Any

from flask import Flask
from jinja2 import Environment

from .contexts import ContextSource
from .request import suggest_arm_for
from .tokens import reward_token


def bandit_arm(name: str, context: ContextSource = None) -> Any:
    """Return the value of the visitor's arm of a bandit."""
    return suggest_arm_for(name, context=context)[1]


def bandit_arm_id(name: str, context: ContextSource = None) -> str:
    """Return the id of the visitor's arm of a bandit, as for a class of a style sheet."""
    return suggest_arm_for(name, context=context)[0]


def bandit_token(name: str, goal: str | None = None, context: ContextSource = None) -> str:
    """Return the token that rewards the visitor's arm later; empty for those not counted."""
    return reward_token(name, goal=goal, context=context)


TEMPLATE_GLOBALS = {
    function.__name__: function for function in (bandit_arm, bandit_arm_id, bandit_token)
}


def add_globals(app: Flask) -> None:
    """Let all templates of an app, their macros too, call these functions.

    The environment is not made yet where that can be helped: once it is, Flask's
    ``jinja_options`` have no effect.
    """
    if "jinja_env" in vars(app):
        app.jinja_env.globals.update(TEMPLATE_GLOBALS)
        return
    create = app.create_jinja_environment

    def create_with_globals() -> Environment:
        environment = create()
        environment.globals.update(TEMPLATE_GLOBALS)
        return environment

    app.create_jinja_environment = create_with_globals  # type: ignore[method-assign, assignment]
