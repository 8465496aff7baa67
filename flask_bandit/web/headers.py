"""What a response says: the cookie, what caches may do with it, and what debugging shows."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any, cast
from urllib.parse import quote

from flask import Response
from werkzeug.http import dump_cookie

from ..engine import logger
from .assignments import Assignment, CookieContent
from .request import RequestState
from .visitors import Counting

MAX_COOKIE = 4093
MAX_DEBUG_HEADER = 1000
_COUNTED = frozenset({"decided", "prefetch"})
_UNCOUNTED = frozenset({"head", "bot", "network", "filter", "limit", "error_page"})


def set_headers(current: RequestState, response: Response) -> None:
    """Set the headers of a response whose request has asked for an arm or a reward."""
    if not current.is_loaded:
        return
    _keep_out_of_shared_caches(response)
    config = current.state.config
    if current.is_forgotten:
        _delete_cookie(current, response)
    elif _wants_cookie(current):
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
    if not current.has_consent or not current.state.config.enabled:
        return False
    if current.is_changed:
        return True
    if current.verdict.counting is not Counting.COUNTED or not (cookie.assignments or cookie.own):
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


def _delete_cookie(current: RequestState, response: Response) -> None:
    config = current.state.config
    if config.cookie_name in current.request.cookies:
        response.delete_cookie(
            config.cookie_name, path=config.cookie_path, domain=config.cookie_domain
        )


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
        rows: dict[str, Assignment] = cookie.own or cookie.assignments
        if len(header.encode()) <= MAX_COOKIE or not rows:
            return header, dropped
        # First those that storage can tell again.
        oldest = next(iter(rows))
        del rows[oldest]
        dropped.append(oldest)


def _debug_header(current: RequestState) -> str:
    hows = {shown.how for shown in current.shown.values()}
    if hows <= {"remembered"}:
        word = "SAVED"
    elif hows & _COUNTED:
        word = "STORE"
    elif hows & _UNCOUNTED:
        word = "UNCOUNTED"
    elif hows & {"override", "forced"}:
        word = "FORCED"
    else:
        word = "CONTROL"
    held = {**current.cookie.assignments, **current.cookie.own}
    arms = {name: row.arm for name, row in held.items()}
    arms.update((name, shown.arm) for name, shown in current.shown.items())
    # Percent-encoded, since a header is Latin-1 and an arm may be in any script.
    pairs = ";".join(f"{quote(name, safe='')}:{quote(arm, safe='')}" for name, arm in arms.items())
    text = f"{word}; {pairs}"
    return text if len(text) <= MAX_DEBUG_HEADER else text[: MAX_DEBUG_HEADER - 3] + "..."
