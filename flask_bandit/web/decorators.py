"""The decorators for views; they know bandits by name only, so they work before any app exists."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from inspect import iscoroutinefunction
from numbers import Real
from typing import Any, TypeVar, cast

from flask import Response, current_app, request

from ..engine import logger
from ..errors import ConfigurationError
from .visit import RewardRule, request_state, suggest_arm_for

View = TypeVar("View", bound=Callable[..., Any])

MARK = "__flask_bandit__"
WRAPPERS = "__flask_bandit_wrappers__"


@dataclass(frozen=True)
class Mark:
    """What one decorator does to a view; read when an app's wiring is checked.

    :param arg: the view's argument that receives the arm's value; ``None`` on a reward
    :param value: what the decorator rewards; ``None`` on a choice
    """

    bandit: str
    arg: str | None = None
    value: float | None = None


def choose_arm(bandit: str, *, arg: str | None = None) -> Callable[[View], View]:
    """Pass the value of the visitor's arm to a view, as a keyword argument.

    Put it below ``@app.route``. Any number of them may be chained.

    :param bandit: the bandit's registered name
    :param arg: the argument's name; the bandit's name if left out
    :raises ConfigurationError: the bandit's name is no Python identifier and ``arg`` is missing
    """
    name = bandit if arg is None else arg
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigurationError(
            f"the bandit {bandit!r} cannot name an argument of the view; write "
            f"@choose_arm({bandit!r}, arg='some_name')"
        )

    def decorator(view: View) -> View:
        def choose(kwargs: dict[str, Any]) -> dict[str, Any]:
            if name in kwargs:
                raise ConfigurationError(_conflict(view, name, bandit))
            return {**kwargs, name: suggest_arm_for(bandit)[1]}

        if iscoroutinefunction(view):

            @wraps(view)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                return await view(*args, **choose(kwargs))
        else:

            @wraps(view)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                return view(*args, **choose(kwargs))

        return _marked(wrapper, view, Mark(bandit, arg=name))

    return decorator


def reward_endpt(
    bandit: str, reward_val: float = 1.0, *, reward_if: RewardRule | None = None
) -> Callable[[View], View]:
    """Reward the visitor's arm when a view has answered with 2xx or 303.

    Put it below ``@app.route``, and below decorators that turn visitors away, such as a required
    login.

    :param bandit: the bandit's registered name
    :param reward_val: the reward, a finite number
    :param reward_if: takes the final response and says whether to reward, in place of the rule
        above
    :raises ConfigurationError: the reward is not a finite number
    """
    if not isinstance(reward_val, Real) or not math.isfinite(reward_val):
        raise ConfigurationError(
            f"@reward_endpt({bandit!r}, {reward_val!r}): write a finite number as the reward"
        )
    rule = _default_rule(bandit) if reward_if is None else reward_if

    def decorator(view: View) -> View:
        if iscoroutinefunction(view):

            @wraps(view)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                answer = await view(*args, **kwargs)
                request_state().reward(bandit, reward_val, rule)
                return answer
        else:

            @wraps(view)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                answer = view(*args, **kwargs)
                request_state().reward(bandit, reward_val, rule)
                return answer

        return _marked(wrapper, view, Mark(bandit, value=reward_val))

    return decorator


def _default_rule(bandit: str) -> RewardRule:
    def rewards(response: Response) -> bool:
        status = response.status_code
        if 300 <= status < 400 and status != 303 and current_app.debug:
            # It may lead to the login page, so it does not count by itself.
            logger.warning(
                "%s answered %s, so %r was not rewarded: redirect with code=303, or say "
                "@reward_endpt(..., reward_if=lambda response: True)",
                request.path,
                status,
                bandit,
            )
        return 200 <= status < 300 or status == 303

    return rewards


def _marked(wrapper: Any, view: View, mark: Mark) -> View:
    """Leave on both functions what a later look at the app's views needs to know."""
    setattr(wrapper, MARK, (*getattr(view, MARK, ()), mark))
    # Lets the wiring check find a decorator above @app.route, whose wrapper no route leads to.
    with suppress(AttributeError):  # a bound method keeps no attributes, and @app.route no method
        setattr(view, WRAPPERS, (*getattr(view, WRAPPERS, ()), wrapper))
    wrapper.__dict__.pop(WRAPPERS, None)
    return cast(View, wrapper)


def _conflict(view: Callable[..., Any], name: str, bandit: str) -> str:
    view_name = getattr(view, "__name__", view)
    return (
        f"the view {view_name!r} has a URL argument {name!r}, the name under which "
        f"the bandit {bandit!r} passes its arm: write @choose_arm({bandit!r}, arg='another_name')"
    )
