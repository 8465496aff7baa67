"""The extension object and its hooks: where a request is committed and its headers are set."""

from __future__ import annotations

import time
import types
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast
from urllib.parse import quote

from flask import Flask, Response, has_app_context, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException
from werkzeug.http import dump_cookie

from ..bandits import Bandit
from ..engine import logger
from ..errors import BanditError, ConfigurationError
from ..model import ArmStats
from . import decorators, visit
from .assignments import CookieContent
from .state import EXTENSION_KEY, AppState, app_state
from .visit import FINISHED, IN_ERROR_HANDLER, RequestState, current_request_state
from .visitors import Counting
from .wiring import wiring_problems

MAX_COOKIE = 4093
MAX_DEBUG_HEADER = 1000


class BanditMiddleware:
    """The extension. One object may serve several apps.

    :param app: the app to start with; more may be given to :meth:`init_app`
    """

    choose_arm = staticmethod(decorators.choose_arm)
    reward_endpt = staticmethod(decorators.reward_endpt)
    suggest_arm_for = staticmethod(visit.suggest_arm_for)
    reward = staticmethod(visit.reward)

    def __init__(self, app: Flask | None = None) -> None:
        self._bandits: dict[str, Bandit] = {}
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Attach bandits to an app; nothing is read from its configuration before first use.

        Reads ``MAB_STORAGE_URI``, ``MAB_STORAGE_ENGINE``, ``MAB_STORAGE_OPTS``,
        ``MAB_STORAGE_TIMEOUT``, ``MAB_SQL_AUTO_MIGRATE``, ``MAB_STATS_TTL``, ``MAB_COOKIE_NAME``,
        ``MAB_COOKIE_PATH``, ``MAB_COOKIE_DOMAIN``, ``MAB_COOKIE_TTL``, ``MAB_COOKIE_SECURE``,
        ``MAB_COOKIE_SAMESITE``, ``MAB_DEBUG_HEADERS`` and ``MAB_BANDITS``, and Flask's
        ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``.

        :raises ConfigurationError: the app has bandits already
        """
        if EXTENSION_KEY in app.extensions:
            raise ConfigurationError(
                "init_app was called twice for this app: one BanditMiddleware is enough, and its "
                "add_bandit() takes any number of bandits"
            )
        state = app.extensions[EXTENSION_KEY] = AppState(app)
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

    def stats(self, name: str) -> dict[str, ArmStats]:
        """Read a bandit's counts from storage, by arm id.

        Outside an app context, the extension's only app is meant.

        :raises UnknownBanditError: no bandit has that name
        :raises StorageError: the storage is down
        """
        state = self._state()
        state.bandits.require(name)
        return state.engine.stats()[name]

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
            current.commit(response)
            _set_headers(current, response)
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


def _set_headers(current: RequestState, response: Response) -> None:
    if not current.is_loaded:
        return
    _keep_out_of_shared_caches(response)
    config = current.state.config
    if _wants_cookie(current):
        _set_cookie(current, response)
    debug = current.state.app.debug if config.debug_headers is None else config.debug_headers
    if debug:
        response.headers["X-MAB-Debug"] = _debug_header(current)


def _keep_out_of_shared_caches(response: Response) -> None:
    headers = response.headers
    present = {name.lower() for name, _ in headers}
    if "vary" not in present and "cache-control" not in present:
        headers.extend((("Vary", "Cookie"), ("Cache-Control", "private")))
        return
    for name in ("Vary", "Cache-Control"):
        lines = headers.getlist(name)
        if len(lines) > 1:  # werkzeug reads the first line only, and would drop the others
            headers[name] = ", ".join(lines)
    if "Vary" in headers:
        response.vary.add("Cookie")
    else:
        headers["Vary"] = "Cookie"
    if "Cache-Control" in headers:
        response.cache_control.public = False
        # None, not False: werkzeug would write "s-maxage=False".
        cast(Any, response.cache_control).s_maxage = None
        response.cache_control.private = True
    else:
        headers["Cache-Control"] = "private"


def _wants_cookie(current: RequestState) -> bool:
    cookie = current.cookie
    if current.is_changed:
        return True
    if current.counting is not Counting.COUNTED or not cookie.assignments:
        return False
    if current.state.engine.is_storage_down:
        return False
    half_life = current.state.config.cookie_ttl / 2
    return cookie.outdated or time.time() - cookie.issued_at > half_life


def _set_cookie(current: RequestState, response: Response) -> None:
    cookie = current.cookie
    cookie.issued_at = int(time.time())
    header, dropped = _fitting_cookie(current, cookie)
    if dropped:
        logger.warning(
            "The cookie would pass %s bytes, so its oldest assignments were dropped: %s. Their "
            "decisions count no second time, but their arms may change: use shorter arm ids or "
            "remove finished bandits.",
            MAX_COOKIE,
            ", ".join(dropped),
        )
    response.headers.add("Set-Cookie", header)
    current.is_changed = False


@lru_cache
def _cookie_attributes(
    ttl: int, path: str, domain: str | None, samesite: str | None, secure: bool
) -> str:
    """Return what follows a cookie's value; the same for all visitors."""
    # Without Expires, which would change each second, and which nothing reads beside Max-Age.
    header = dump_cookie(
        "_",
        max_age=ttl,
        path=path,
        domain=domain,
        secure=secure,
        httponly=True,
        sync_expires=False,
        samesite=samesite,
    )
    return header.removeprefix("_=")


def _fitting_cookie(current: RequestState, cookie: CookieContent) -> tuple[str, list[str]]:
    config = current.state.config
    secure = current.request.is_secure if config.cookie_secure is None else config.cookie_secure
    dropped: list[str] = []
    attributes = _cookie_attributes(
        config.cookie_ttl, config.cookie_path, config.cookie_domain, config.cookie_samesite, secure
    )
    while True:
        # The signed text is URL-safe base64, which needs no quoting.
        header = f"{config.cookie_name}={current.state.codec.dumps(cookie)}{attributes}"
        if len(header.encode()) <= MAX_COOKIE or not cookie.assignments:
            return header, dropped
        oldest = next(iter(cookie.assignments))
        del cookie.assignments[oldest]
        dropped.append(oldest)


def _debug_header(current: RequestState) -> str:
    hows = {shown.how for shown in current.shown.values()}
    if "control" in hows:
        word = "CONTROL"
    elif "uncounted" in hows:
        word = "UNCOUNTED"
    elif hows & {"decided", "prefetch"}:
        word = "STORE"
    else:
        word = "SAVED"
    arms = {name: held.arm for name, held in current.cookie.assignments.items()}
    arms.update((name, shown.arm) for name, shown in current.shown.items())
    # Percent-encoded, since a header is Latin-1 and an arm may be in any script.
    pairs = ";".join(f"{quote(name, safe='')}:{quote(arm, safe='')}" for name, arm in arms.items())
    text = f"{word}; {pairs}"
    return text if len(text) <= MAX_DEBUG_HEADER else text[: MAX_DEBUG_HEADER - 3] + "..."
