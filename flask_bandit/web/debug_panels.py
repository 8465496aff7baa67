"""The bandits' panel for Flask-DebugToolbar (extra ``toolbar``); loaded only when it is named."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask, Request, Response, current_app
from flask.globals import request_ctx
from flask_debugtoolbar.panels import DebugPanel
from jinja2 import Environment, PackageLoader

from ..control import Control
from .cli_leaderboard import chance, ends, gain, interval_of, level, mismatch, ranked
from .cli_show import not_counted
from .pages import BanditPage, read_pages
from .reports import BanditReport, Stored, report
from .request import RequestState, current_request_state
from .state import AppState, app_state
from .why import Tables, Why, explain, tables_of_draws

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
    "outage": "the control: the storage is down",
    "control": "the control: the response was on its way already",
}
_NOTHING = Why((), None)
_templates = Environment(
    loader=PackageLoader("flask_bandit.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_templates.filters.update(chance=chance, ends=ends, interval=interval_of, level=level)


class BanditDebugPanel(DebugPanel):  # type: ignore[misc]
    """Shows the cookie, the leaderboards, and what this request decided and rewarded, and why.

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
        self._tables: Tables = {}
        self._raw = ""

    def process_response(self, request: Request, response: Response) -> None:
        """Commit what the request chose, so that the panel shows it as it is stored."""
        state = app_state()
        self._raw = request.cookies.get(state.config.cookie_name, "")
        self._current = current_request_state(state, request_ctx.request)
        if self._current is not None:
            self._tables = tables_of_draws(self._current)
            self._current.finish(response)

    def content(self) -> str:
        """Return the panel's HTML."""
        state = app_state()
        enabled = state.config.enabled
        pages, problem = _read(state)
        whys = {} if self._current is None else explain(self._current, self._tables)
        return _templates.get_template("debug_panel.html").render(
            app=current_app.name,
            cookie_name=state.config.cookie_name,
            raw=self._raw,
            cookie=state.codec.loads(self._raw),
            enabled=enabled,
            subject=self._subject(state),
            storage=_storage_name(state) if enabled else "not opened",
            is_down=enabled and state.engine.is_storage_down,
            problem=problem,
            is_known=enabled and not problem,
            bandits=[self._part(state, page, whys) for page in pages],
        )

    @property
    def _shown(self) -> dict[str, Any]:
        return {} if self._current is None else dict(self._current.shown)

    def _forgets_prefetched(self, name: str) -> bool:
        return self._current is not None and not self._current.keeps_prefetched(name)

    def _subject(self, state: AppState) -> str:
        if self._current is None or not self._current.is_loaded or not state.config.enabled:
            return "not looked up: this request asked for no arm"
        return "no: an anonymous visitor" if self._current.subject is None else "yes: a known user"

    def _part(self, state: AppState, page: BanditPage, whys: dict[str, Why]) -> dict[str, Any]:
        name, results = page.report.name, page.results
        shown = self._shown.get(name)
        cookie = state.codec.loads(self._raw)
        held = cookie.own.get(name) or cookie.assignments.get(name)
        how = "not asked for by this request"
        if shown is not None:
            # An app may have verdicts that this table does not know.
            how = _HOW.get(shown.how, f"not counted: {shown.how}")
            if shown.how == "prefetch" and self._forgets_prefetched(name):
                how = "drawn for a prefetch; not counted, and the visitor will get another one"
        return {
            "page": page,
            "arms": ranked(page),
            "gain": gain(results) if results and results.verdict.state != "empty" else "",
            "mismatch": mismatch(results.ratio) if results else "",
            "mine": shown.arm if shown else held.arm if held else None,
            "how": how,
            "why": whys.get(name, _NOTHING),
            "not_counted": not_counted(page.report.not_counted),
            "reward": self._current.outcomes.get(name, "") if self._current else "",
        }

    @classmethod
    def init_app(cls, app: Flask) -> None:
        """Do nothing: the panel has no routes of its own."""


def _read(state: AppState) -> tuple[list[BanditPage], str]:
    """Return what there is to say about the app's bandits, and why it is not all there is."""
    problem = ""
    if state.config.enabled:
        try:
            return [page for page in read_pages(state) if page.report.in_code], ""
        except Exception as error:  # whatever a storage raises, the page is still answered
            problem = str(error) or type(error).__name__
    return [BanditPage(found, None, "", (), 0, 0.0) for found in _without_counts(state)], problem


def _without_counts(state: AppState) -> list[BanditReport]:
    """Return the bandits as the code has them, with what is known of their control."""
    controls: dict[str, Control] = {}
    if state.config.enabled:
        attempt = state.engine.attempt()
        controls = {name: state.engine.control(name, attempt) for name in state.bandits}
    stored = Stored(dict(state.bandits), {}, controls, time.time())
    return [report(stored, name) for name in state.bandits]


def _storage_name(state: AppState) -> str:
    """Name the storage without its arguments, which may hold a password."""
    return type(state.storage).__name__
