"""The decorators for views; they know bandits by name only, so they work before any app exists."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from inspect import iscoroutinefunction
from numbers import Real
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, cast, overload

from flask import Response, current_app, redirect, request, url_for

from ..engine import logger
from ..errors import ConfigurationError
from .contexts import Context
from .earned import RewardRule
from .request import request_state, suggest_arm_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from werkzeug import Response as BaseResponse

View = TypeVar("View", bound=Callable[..., Any])
Arguments = ParamSpec("Arguments")
Location: TypeAlias = "str | Callable[[], str]"

MARK = "__flask_bandit__"
WRAPPERS = "__flask_bandit_wrappers__"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL_LETTERS = frozenset("/?#:")
"""Letters that tell a URL from an endpoint's name."""


@dataclass(frozen=True)
class Mark:
    """What one decorator does to a view; read when an app's wiring is checked.

    :param arg: the view's argument that receives the arm's value; ``None`` on a reward
    :param value: what the decorator rewards; ``None`` on a choice
    :param goal: what for; ``None``: the bandit's own goal
    """

    bandit: str
    arg: str | None = None
    value: float | None = None
    goal: str | None = None


def choose_arm(
    bandit: str,
    *,
    arg: str | None = None,
    context: Callable[[], Context | None] | None = None,
) -> Callable[[View], View]:
    """Pass the value of the visitor's arm to a view, as a keyword argument.

    Put it below ``@app.route``. Any number of them may be chained.

    :param bandit: the bandit's registered name
    :param arg: the argument's name; the bandit's name if left out
    :param context: a function without arguments, called inside the request: it returns what is
        known at this choice, a mapping of the bandit's features; the bandit's option ``context``
        if left out. The first choice of a request decides
    :raises ConfigurationError: the bandit's name is no Python identifier and ``arg`` is missing,
        or ``context`` is no function
    """
    _require_name("@choose_arm", bandit)
    name = bandit if arg is None else arg
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigurationError(
            f"the bandit {bandit!r} cannot name an argument of the view; write "
            f"@choose_arm({bandit!r}, arg='some_name')"
        )
    if context is not None and not callable(context):
        raise ConfigurationError(
            f"@choose_arm({bandit!r}, context={context!r}): give a function without arguments, "
            "which is called in each request"
        )

    def decorator(view: View) -> View:
        def choose(kwargs: dict[str, Any]) -> dict[str, Any]:
            if name in kwargs:
                raise ConfigurationError(_conflict(view, name, bandit))
            return {**kwargs, name: suggest_arm_for(bandit, context=context)[1]}

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
    bandit: str,
    reward_val: float = 1.0,
    *,
    reward_if: RewardRule | None = None,
    goal: str | None = None,
) -> Callable[[View], View]:
    """Reward the visitor's arm when a view has answered with 2xx or 303.

    Put it below ``@app.route``, and below decorators that turn visitors away, such as a required
    login.

    :param bandit: the bandit's registered name
    :param reward_val: the reward, a finite number
    :param reward_if: takes the final response and says whether to reward, in place of the rule
        above
    :param goal: what was reached, for bandits with several goals; the bandit's own if left out
    :raises ConfigurationError: the reward is not a finite number
    """
    _require_name("@reward_endpt", bandit)
    _require_finite("@reward_endpt", bandit, reward_val)
    rule = _default_rule(bandit) if reward_if is None else reward_if

    def decorator(view: View) -> View:
        def note(answer: Any) -> Any:
            request_state().reward(bandit, reward_val, rule, goal=goal)
            _warn_of_get(bandit)
            return answer

        if iscoroutinefunction(view):

            @wraps(view)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                return note(await view(*args, **kwargs))
        else:

            @wraps(view)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                return note(view(*args, **kwargs))

        return _marked(wrapper, view, Mark(bandit, value=reward_val, goal=goal))

    return decorator


class RewardingRedirect:
    """A view's answer that rewards and redirects, and a decorator for views that end with it.

    Made by :func:`reward_and_redirect`.
    """

    def __init__(
        self, bandit: str, value: float, location: Location, code: int, goal: str | None
    ) -> None:
        self._mark = Mark(bandit, value=value, goal=goal)
        self._location = location
        self._code = code

    @overload
    def __call__(self, view: Callable[Arguments, Any], /) -> Callable[Arguments, Any]: ...

    @overload
    def __call__(self, environ: WSGIEnvironment, start: StartResponse, /) -> Iterable[bytes]: ...

    def __call__(self, first: Any, start: StartResponse | None = None, /) -> Any:
        """Decorate a view; or answer as a WSGI application, which Flask lets a view return."""
        if start is None:
            return self._decorate(first)
        return self._answer()(first, start)

    def _answer(self) -> BaseResponse:
        mark = self._mark
        assert mark.value is not None
        request_state().reward(mark.bandit, mark.value, goal=mark.goal)
        _warn_of_get(mark.bandit)
        where = self._location() if callable(self._location) else self._location
        # A mistyped endpoint is an error, and no link to nowhere.
        url = where if _URL_LETTERS & set(where) else url_for(where)
        return redirect(url, self._code)

    def _decorate(self, view: Callable[..., Any]) -> Callable[..., Any]:
        if iscoroutinefunction(view):

            @wraps(view)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                answer = await view(*args, **kwargs)
                return self if answer is None else answer
        else:

            @wraps(view)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                answer = view(*args, **kwargs)
                return self if answer is None else answer

        return _marked(wrapper, view, self._mark)


def reward_and_redirect(
    bandit: str, value: float, location: Location, *, code: int = 303, goal: str | None = None
) -> RewardingRedirect:
    """Reward the visitor's arm and send the browser on, as after a form.

    Inside a view: ``return reward_and_redirect(...)``. As a decorator below ``@app.route``: a view
    that returns ``None`` is answered so; whatever else it returns, such as the form with its
    mistakes, is the answer as it is, and rewards nothing.

    :param bandit: the bandit's registered name
    :param value: the reward, a finite number
    :param location: an endpoint's name, a URL with a ``/`` in it, or a function without arguments
        that returns one of them. Never take it from the request: that would send visitors wherever
        a link says
    :param code: a redirect's status; 303 makes the browser ``GET`` the location
    :param goal: what was reached, for bandits with several goals; the bandit's own if left out
    :raises ConfigurationError: the reward is not a finite number, or the code no redirect
    """
    _require_name("reward_and_redirect", bandit)
    _require_finite("reward_and_redirect", bandit, value)
    if code not in _REDIRECTS:
        raise ConfigurationError(
            f"reward_and_redirect(..., code={code!r}): write one of {sorted(_REDIRECTS)}"
        )
    return RewardingRedirect(bandit, value, location, code, goal)


def _require_name(where: str, bandit: object) -> None:
    """Raise for what cannot name a bandit, such as the view under a decorator without brackets."""
    if not isinstance(bandit, str):
        raise ConfigurationError(
            f"{where} needs the name of a bandit, as in {where}('color_btn', ...), and is given "
            f"{bandit!r}"
        )


def _require_finite(where: str, bandit: str, value: float) -> None:
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ConfigurationError(
            f"{where}({bandit!r}, {value!r}): write a finite number as the reward"
        )


def _warn_of_get(bandit: str) -> None:
    """Say in debug, once per endpoint, that a ``GET`` should change nothing."""
    if request.method != "GET" or not current_app.debug:
        return
    warned = request_state().state.warned_endpoints
    if request.endpoint in warned:
        return
    warned.add(request.endpoint)
    logger.warning(
        "%s rewarded %r on a GET, which robots, link previews and prefetching browsers send as "
        "well: let the route take POST, methods=['POST']",
        request.path,
        bandit,
    )


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
