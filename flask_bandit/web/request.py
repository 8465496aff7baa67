"""One request's visit: who is behind it, its cookie, and the commit when its response is known.

Lives in ``request.environ``, not in ``flask.g``: that belongs to the app context, which may outlive
a request or hold several.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from flask import Request, has_request_context
from flask.globals import request_ctx

from ..engine import logger
from ..errors import ConfigurationError
from ..plugins import nearest
from .assignments import CookieContent
from .contexts import ContextSource
from .identity import Subject, subject_of
from .state import AppState, app_state
from .visit import Visit
from .visitors import Counting, Verdict, ask, has_consent, verdict_of, within_limit

IN_ERROR_HANDLER = "_flask_bandit_in_error_handler"
FINISHED = "_flask_bandit_finished"
"""Marks on the request object: one environ may be dispatched again, to this app or another."""
OVERRIDE = "mab_"
"""How the names of query arguments begin that ask to see an arm."""
_OVERRIDE = OVERRIDE.encode()


class RequestState(Visit):
    """What one request has read from the cookie, chosen and earned."""

    def __init__(self, state: AppState, request: Request) -> None:
        super().__init__(state)
        self.request = request
        self._overrides: dict[str, str | None] = {}
        # A stream may touch its first bandit after the headers were sent.
        self.is_committed = hasattr(request, FINISHED)

    @cached_property
    def verdict(self) -> Verdict:
        """Whether this request's choices count."""
        return verdict_of(self.state, self.request)

    @cached_property
    def has_consent(self) -> bool:
        """Whether the visitor may be remembered."""
        return has_consent(self.state)

    @cached_property
    def subject(self) -> Subject | None:
        """The signed-in user."""
        subject = subject_of(self.state.app, self.state.hooks)
        return None if subject is None else self.state.subject(subject)

    @property
    def is_on_error_page(self) -> bool:
        """True while an error handler answers."""
        return hasattr(self.request, IN_ERROR_HANDLER)

    def override(self, name: str) -> str | None:
        """Return the arm that the query string asks for, if this request may."""
        if name not in self._overrides:
            self._overrides[name] = self._override(name)
        return self._overrides[name]

    def _override(self, name: str) -> str | None:
        query = self.request.query_string
        # Parsing takes longer than the rest of this; letters may be written with per cent signs.
        if _OVERRIDE not in query and b"%" not in query:
            return None
        asked = self.request.args.get(OVERRIDE + name)
        if asked is None or not self._may_override:
            return None
        arms = self.state.bandits[name].arm_ids
        if asked in arms:
            return asked
        if self.state.app.debug:
            logger.warning(
                "?%s%s asks for the arm %r, which the bandit does not have, and is ignored; %s",
                OVERRIDE,
                name,
                asked[:100],
                nearest(asked[:100], arms),
            )
        return None

    @cached_property
    def _may_override(self) -> bool:
        state = self.state
        if state.hooks.override is not None:
            return ask(state, state.hooks.override, "override_guard", otherwise=False)
        allowed = state.config.overrides
        return state.app.debug if allowed is None else allowed

    @cached_property
    def _is_within_limit(self) -> bool:
        return within_limit(self.state, self.request)

    def within_limit(self) -> bool:
        """Return whether the visitor's network may have one more visitor counted."""
        return self._is_within_limit

    def _read_cookie(self) -> CookieContent:
        if not self.state.config.enabled:
            return CookieContent()
        text = self.request.cookies.get(self.state.config.cookie_name, "")
        return self.state.codec.loads(text)

    def commit_after_exception(self) -> None:
        """Store the decisions of a request that ends without a response; never its rewards.

        The request stays open: when a copied context fails, the request itself still goes on, and
        its own commit of the same decisions counts nothing twice.
        """
        if self.is_committed or self.is_forgotten:
            return
        if self.verdict.counting is Counting.COUNTED:
            self._store(list(self._decisions.values()), [])


def request_state() -> RequestState:
    """Return the state of the request that is being answered.

    :raises ConfigurationError: outside a request
    """
    if not has_request_context():
        raise ConfigurationError(
            "arms are chosen for a visitor, inside a request; without one use "
            "mab.visit(subject=...), or app.test_request_context() in a test"
        )
    # The request's own app: an app context of another one may have been pushed above it.
    state, request = app_state(request_ctx.app), request_ctx.request
    found = current_request_state(state, request)
    if found is None:
        found = request.environ[state.environ_key] = RequestState(state, request)
    return found


def current_request_state(state: AppState, request: Request) -> RequestState | None:
    """Return the state of a request if it has touched a bandit, else ``None``."""
    found: RequestState | None = request.environ.get(state.environ_key)
    # An environ may be dispatched again: what an earlier request left in it is not ours.
    return found if found is not None and found.request is request else None


def suggest_arm_for(name: str, *, context: ContextSource = None) -> tuple[str, Any]:
    """Return the visitor's arm of a bandit as (id, value), assigning one if there is none.

    The inline twin of :func:`~flask_bandit.choose_arm`.

    :param name: the bandit's registered name
    :param context: what is known at this choice, a mapping of the bandit's features or a function
        that returns one; the bandit's option ``context`` if left out. The first choice of a
        request decides
    :raises UnknownBanditError: no bandit has that name
    """
    current = request_state()
    arm = current.choose(name, context)
    return arm, current.state.arm_value(name, arm)


def reward(name: str, value: float = 1.0, *, goal: str | None = None, event: str = "") -> bool:
    """Reward the arm that the visitor holds, once per decision and goal.

    The inline twin of :func:`~flask_bandit.reward_endpt`. It is stored when the response is known,
    unless that is an error (4xx or 5xx).

    :param name: the bandit's registered name
    :param value: a finite number, for most algorithms within [0, 1]
    :param goal: what was reached, for bandits with several goals; the bandit's own if left out
    :param event: for goals that count every time: an id of what happened, such as an order's
        number, so that telling it twice counts once
    :return: False if there is nothing to reward, since this visitor holds no arm of the bandit or
        it is paused or over; whether a reward was new is told by the signal ``reward_recorded``
    :raises UnknownBanditError: no bandit has that name
    :raises ValueError: a value that the bandit cannot learn from
    """
    return request_state().reward(name, value, goal=goal, event=event)
