"""The bandits' panel for Flask-DebugToolbar (extra ``toolbar``); loaded only when it is named."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask, Request, Response, current_app
from flask.globals import request_ctx
from flask_debugtoolbar.panels import DebugPanel
from jinja2 import Environment, PackageLoader

from ..control import Control
from ..errors import BanditError
from ..model import Counts
from .cli_show import not_counted
from .reports import BanditReport, Stored, report
from .request import RequestState, current_request_state
from .state import AppState, app_state

_HOW = {
    "decided": "drawn for this visitor now, and counted",
    "remembered": "remembered from the cookie; not counted again",
    "prefetch": "drawn for a prefetch; counted when the visitor comes",
    "forced": "forced by a test; the visitor holds another arm, and this one is not counted",
    "override": "asked for by the query string; not counted, not remembered",
    "head": "drawn, but not counted: a HEAD or OPTIONS request",
    "bot": "drawn, but not counted: a robot, by its user agent",
    "network": "drawn, but not counted: MAB_EXCLUDED_NETWORKS",
    "filter": "drawn, but not counted: the visitor_filter says no",
    "error_page": "drawn, but not counted: an error page",
    "limit": "not counted: MAB_NETWORK_LIMIT is reached",
    "no_consent": "the control: the visitor has not consented",
    "not_targeted": "the control: the bandit's targeting says no",
    "other_experiment": "the control: the visitor is in another bandit of the group",
    "closed": "the control: the bandit is closed to new visitors",
    "paused": "the control: the bandit is paused",
    "declared": "everybody's: a winner is declared",
    "archived": "everybody's: the bandit is archived",
    "disabled": "the control: bandits are switched off by MAB_ENABLED",
    "forgotten": "the control: this request has erased the visitor",
    "control": "the control: the storage is down, or the response was on its way already",
}
_templates = Environment(
    loader=PackageLoader("flask_bandit.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


class BanditDebugPanel(DebugPanel):  # type: ignore[misc]
    """Shows the cookie, the counts and what this request decided, remembered and rewarded.

    Name it in ``DEBUG_TB_PANELS`` as ``flask_bandit.web.debug_panels.BanditDebugPanel``.
    """

    name = "Bandits"
    has_content = True

    def nav_title(self) -> str:
        """Return the title in the toolbar."""
        return "Bandits"

    def nav_subtitle(self) -> str:
        """Return what the request touched, in two words."""
        return f"{len(self._shown)} shown" if self._shown else "none shown"

    def title(self) -> str:
        """Return the panel's heading."""
        return "Bandits"

    def url(self) -> str:
        """Return no URL: the panel is part of the page."""
        return ""

    def process_request(self, request: Request) -> None:
        """Start with nothing: a request that touches no bandit has no state."""
        self._current: RequestState | None = None
        self._raw = ""

    def process_response(self, request: Request, response: Response) -> None:
        """Commit what the request chose, so that the panel shows it as it is stored."""
        state = app_state()
        self._raw = request.cookies.get(state.config.cookie_name, "")
        self._current = current_request_state(state, request_ctx.request)
        if self._current is not None:
            self._current.finish(response)

    def content(self) -> str:
        """Return the panel's HTML."""
        state = app_state()
        stored, problem = _read(state)
        enabled = state.config.enabled
        return _templates.get_template("debug_panel.html").render(
            app=current_app.name,
            cookie_name=state.config.cookie_name,
            raw=self._raw,
            cookie=state.codec.loads(self._raw),
            enabled=enabled,
            subject=self._subject(state),
            storage=_storage_name(state) if enabled else "not opened",
            is_down=enabled and (state.engine.is_storage_down or bool(problem)),
            problem=problem,
            is_known=enabled and not problem,
            bandits=[self._row(state, report(stored, name)) for name in state.bandits],
        )

    @property
    def _shown(self) -> dict[str, Any]:
        return {} if self._current is None else dict(self._current.shown)

    def _subject(self, state: AppState) -> str:
        if self._current is None or not self._current.is_loaded or not state.config.enabled:
            return "not looked up: this request asked for no arm"
        return "no: an anonymous visitor" if self._current.subject is None else "yes: a known user"

    def _row(self, state: AppState, found: BanditReport) -> dict[str, Any]:
        shown = self._shown.get(found.name)
        cookie = state.codec.loads(self._raw)
        held = cookie.own.get(found.name) or cookie.assignments.get(found.name)
        why = "not asked for by this request"
        if shown is not None:
            # An app may have verdicts that this table does not know.
            why = _HOW.get(shown.how, f"not counted: {shown.how}")
        return {
            "report": found,
            "mine": shown.arm if shown else held.arm if held else None,
            "why": why,
            "not_counted": not_counted(found.not_counted),
            "reward": self._current.outcomes.get(found.name, "") if self._current else "",
        }

    @classmethod
    def init_app(cls, app: Flask) -> None:
        """Do nothing: the panel has no routes of its own."""


def _read(state: AppState) -> tuple[Stored, str]:
    """Return what is stored within the app's deadline, and what is wrong with the storage."""
    counts: Counts = {}
    controls: dict[str, Control] = {}
    problem = ""
    if state.config.enabled:
        attempt = state.engine.attempt()
        controls = {name: state.engine.control(name, attempt) for name in state.bandits}
        try:
            counts = state.engine.read_counts()
        except BanditError as error:
            problem = str(error)
    return Stored(dict(state.bandits), counts, controls, time.time()), problem


def _storage_name(state: AppState) -> str:
    """Name the storage without its arguments, which may hold a password."""
    return type(state.storage).__name__
