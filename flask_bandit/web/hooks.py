"""What an app tells the extension by functions of its own: who a visitor is, and whether to count.

Set by the decorators of :class:`~flask_bandit.BanditMiddleware`; one object for all its apps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import ConfigurationError

Hook = TypeVar("Hook", bound=Callable[[], Any])


@dataclass
class Hooks:
    """The app's functions; each is called inside a request, at most once for it.

    :param subject: returns the signed-in user's id, or ``None`` for an anonymous visitor
    :param consent: returns whether the visitor may be remembered and counted
    :param visitor_filter: returns whether to count this visitor
    :param override: returns whether this request may pick its arms by the query string
    """

    subject: Callable[[], Any] | None = None
    consent: Callable[[], bool] | None = None
    visitor_filter: Callable[[], bool] | None = None
    override: Callable[[], bool] | None = None


def function_of(decorator: str, function: Hook) -> Hook:
    """Return what a decorator was given.

    :raises ConfigurationError: it is no function, and would fail in each request
    """
    if not callable(function):
        raise ConfigurationError(
            f"{decorator} is given {function!r}; give it a function without arguments, as a "
            f"decorator: @mab.{decorator}"
        )
    return function
