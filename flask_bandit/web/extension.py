"""The extension object and its hooks: where a request is committed and its headers are set."""

from __future__ import annotations

import time
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, has_app_context, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException

from ..bandits import Bandit
from ..engine import Engine, logger
from ..errors import BanditError, ConfigurationError
from ..model import ArmStats
from . import beacon, decorators, templating, tokens
from .headers import set_headers
from .hooks import Hook, Hooks, function_of
from .identity import subject_id
from .outside import SubjectVisit
from .request import (
    FINISHED,
    IN_ERROR_HANDLER,
    current_request_state,
    request_state,
    reward,
    suggest_arm_for,
)
from .state import EXTENSION_KEY, AppState, app_state
from .totals import read_stats
from .wiring import wiring_problems


class BanditMiddleware:
    """The extension. One object may serve several apps.

    :param app: the app to start with; more may be given to :meth:`init_app`
    """

    choose_arm = staticmethod(decorators.choose_arm)
    reward_endpt = staticmethod(decorators.reward_endpt)
    reward_and_redirect = staticmethod(decorators.reward_and_redirect)
    reward_token = staticmethod(tokens.reward_token)
    reward_blueprint = staticmethod(beacon.reward_blueprint)
    suggest_arm_for = staticmethod(suggest_arm_for)
    reward = staticmethod(reward)

    def __init__(self, app: Flask | None = None) -> None:
        self._bandits: dict[str, Bandit] = {}
        self._hooks = Hooks()
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Attach bandits to an app; nothing is read from its configuration before first use.

        Reads the ``MAB_*`` keys that the reference lists under "Configuration", and Flask's
        ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``.

        :raises ConfigurationError: the app has bandits already
        """
        if EXTENSION_KEY in app.extensions:
            raise ConfigurationError(
                "init_app was called twice for this app: one BanditMiddleware is enough, and its "
                "add_bandit() takes any number of bandits"
            )
        state = app.extensions[EXTENSION_KEY] = AppState(app, self._hooks)
        for name, bandit in self._bandits.items():
            state.registry.add(name, bandit)
        self._apps.add(app)
        app.add_bandit = types.MethodType(add_bandit, app)  # type: ignore[attr-defined]
        _hook_into(app, state)

    def add_bandit(self, name: str, bandit: Bandit) -> None:
        """Register a bandit in all apps of this extension, before or after :meth:`init_app`.

        :raises ConfigurationError: the name is taken, or an app has served a request already
        """
        for app in self._apps:
            app_state(app).registry.add(name, bandit)
        self._bandits[name] = bandit

    def subject_loader(self, function: Hook) -> Hook:
        """Let a function tell who is signed in: it returns the user's id, or ``None``.

        A known user has the same arm on every device. Without a function, Flask-Login's current
        user is taken where that extension is active. The id is stored as a keyed pseudonym.
        """
        self._hooks.subject = function_of("subject_loader", function)
        return function

    def consent_loader(self, function: Hook) -> Hook:
        """Let a function tell whether the visitor has consented to be remembered and counted.

        Where it returns false, nothing is stored, no cookie is set, and the control is shown.
        """
        self._hooks.consent = function_of("consent_loader", function)
        return function

    def visitor_filter(self, function: Hook) -> Hook:
        """Let a function tell whether to count the visitor; others get an arm uncounted."""
        self._hooks.visitor_filter = function_of("visitor_filter", function)
        return function

    def override_guard(self, function: Hook) -> Hook:
        """Let a function tell who may pick an arm by ``?mab_<bandit>=<arm>``, for a look at it.

        Without one, ``MAB_OVERRIDES`` says so.
        """
        self._hooks.override = function_of("override_guard", function)
        return function

    @property
    def engine(self) -> Engine:
        """What decides and stores for the current app, as an ``ExperimentManager`` needs it."""
        return self._state().engine

    @property
    def backup_folder(self) -> Path:
        """Where an ``ExperimentManager`` keeps a copy of everything before it deploys a model."""
        return self._state().backup_folder

    def visit(self, subject: object) -> SubjectVisit:
        """Choose and reward for a known user outside a request, as in a job or for a mail.

        A context manager: rewards are stored when it ends, and not if it ends by an exception.
        Outside an app context, the extension's only app is meant.

        :param subject: the user's id, as the subject loader returns it
        :raises ConfigurationError: it is nobody's
        """
        id_ = subject_id(subject)
        if id_ is None:
            raise ConfigurationError(
                f"visit(subject={subject!r}): give the id of a user; all jobs without one would be "
                "one user"
            )
        return SubjectVisit(self._state(), id_)

    def forget(self) -> bool:
        """Erase what is stored about this request's visitor, and delete the cookie.

        Counts stay: what is erased is the subject and the context of their decisions. Nothing
        else that this request chose or earned is stored.

        :return: False if the storage is down, so that only the cookie is deleted; also while
            ``MAB_ENABLED`` is off, and then nothing is done
        """
        return request_state().forget()

    def reward_by_token(
        self, token: str, value: float = 1.0, *, goal: str | None = None, event: str = ""
    ) -> bool:
        """Reward the decision that a token is for, from wherever: a webhook, a job, a form.

        It is stored at once, once per decision and goal, whoever else has rewarded it. A token
        that overtakes its decision waits for it in the storage. Outside an app context, the
        extension's only app is meant.

        :param token: from :meth:`reward_token`
        :param value: a finite number that the bandit can learn from
        :param goal: the goal that the token has to be for
        :param event: for goals that count every time: an id of what happened, so that telling it
            twice counts once
        :return: True if it was new; False if it counted before, or the bandit is archived
        :raises TokenError: this app did not sign it, it has expired, or it is for another goal
        :raises UnknownBanditError: its bandit is gone
        :raises ValueError: a value that the bandit cannot learn from
        :raises StorageError: the storage is down; bring the token again later
        """
        return tokens.reward_by_token(self._state(), token, value, goal, event)

    def stats(
        self, name: str, *, version: int | None = None, goal: str | None = None
    ) -> dict[str, ArmStats]:
        """Read a bandit's counts from storage, by arm id.

        Outside an app context, the extension's only app is meant.

        :param version: one before a reset; then arms that the code has no more follow the others
        :param goal: whose rewards to read; the bandit's own if left out. The pulls are the arm's
        :raises UnknownBanditError: no bandit has that name
        :raises ValueError: there is no such version
        :raises StorageError: the storage is down
        """
        return read_stats(self._state(), name, version, goal)

    def healthcheck(self) -> dict[str, Any]:
        """Tell whether decisions and rewards are recorded, for a view such as ``/healthz``.

        Reads the counts once, within ``MAB_STORAGE_TIMEOUT``, and never raises for a storage that
        fails. Outside an app context, the extension's only app is meant.

        :return: ``ok``; ``storage``, the name of its class or ``None``; ``seconds`` that it took;
            ``error``, ``None`` or what is wrong, meant for operators
        """
        state, started = self._state(), time.monotonic()
        storage = error = None
        try:
            storage = type(state.storage).__name__
            state.engine.stats()
            if state.engine.is_storage_down:
                error = "it can be read, and nothing could be written since the last failure"
        except BanditError as failure:
            error = str(failure)
        return {
            "ok": error is None,
            "storage": storage,
            "seconds": time.monotonic() - started,
            "error": error,
        }

    def _state(self) -> AppState:
        if has_app_context():
            return app_state()
        if len(self._apps) == 1:
            return app_state(next(iter(self._apps)))
        raise ConfigurationError(
            "which app is meant? Use 'with app.app_context():' around the call"
        )


def add_bandit(app: Flask, name: str, bandit: Bandit) -> None:
    """Register a bandit in one app; the same object again changes nothing.

    :param app: an app that was given to :meth:`BanditMiddleware.init_app`
    :raises ConfigurationError: the name is taken, or the app has served a request already
    """
    app_state(app).registry.add(name, bandit)


def _hook_into(app: Flask, state: AppState) -> None:
    """Follow the app's requests, at next to no cost for those that touch no bandit.

    Flask's methods are wrapped on this app where its hooks would come too early: an after_request
    hook has not the last word on headers, and none sees an exception that escapes.
    """
    app.before_request(_wiring_check(app, state))
    templating.add_globals(app)
    methods: dict[str, Callable[..., Callable[..., Any]]] = {
        "process_response": _finishing,
        "handle_user_exception": _marking_errors,
        "handle_exception": _saving_decisions,
    }
    for name, wrap in methods.items():
        setattr(app, name, wrap(getattr(app, name), state))


def _wiring_check(app: Flask, state: AppState) -> Callable[[], None]:
    """Return a hook that looks at the first request whether views and bandits fit each other."""

    def check() -> None:
        if state.wiring_problems is None:
            state.wiring_problems = wiring_problems(app, state.bandits)
            for problem in state.wiring_problems:
                logger.error("%s", problem)
        if state.wiring_problems and app.debug:
            raise ConfigurationError("; ".join(state.wiring_problems))
        # Once is enough. A new list, since Flask is in the middle of the old one.
        hooks = app.before_request_funcs[None]
        app.before_request_funcs[None] = [hook for hook in hooks if hook is not check]

    return check


def _finishing(process_response: Callable[..., Response], state: AppState) -> Callable[..., Any]:
    """Wrap what runs all hooks: then commit what the request chose and earned, set the headers."""

    def finish(*args: Any) -> Response:
        try:
            response = process_response(*args)
        except Exception:
            # A hook that fails on the error page too: there will be no other chance.
            if hasattr(request, IN_ERROR_HANDLER):
                _save_decisions(state)
            raise
        # The request itself, since each look through the proxy costs as much as this line.
        answered = request_ctx.request
        current = current_request_state(state, answered)
        if current is not None:
            current.finish(response)
            set_headers(current, response)
        setattr(answered, FINISHED, True)
        return response

    return finish


def _marking_errors(handle: Callable[..., Any], state: AppState) -> Callable[..., Any]:
    """Wrap error handling, so that arms first chosen on an error page are not counted."""

    def mark(*args: Any) -> Any:
        setattr(request, IN_ERROR_HANDLER, True)
        return handle(*args)

    return mark


def _saving_decisions(handle: Callable[..., Any], state: AppState) -> Callable[..., Any]:
    """Wrap the last error handling: decisions outlive an exception that escapes, as in debug."""

    def save(*args: Any) -> Any:
        setattr(request, IN_ERROR_HANDLER, True)
        try:
            return handle(*args)
        except Exception as error:
            if not (isinstance(error, HTTPException) and (error.code or 500) < 500):
                _save_decisions(state)
            raise

    return save


def _save_decisions(state: AppState) -> None:
    current = current_request_state(state, request_ctx.request)
    if current is not None:
        current.commit_after_exception()
