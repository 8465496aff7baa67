"""The bandits' panel for Flask-DebugToolbar (extra ``toolbar``); loaded only when it is named."""

from __future__ import annotations

from typing import Any

from flask import Flask, Request, Response, current_app
from flask.globals import request_ctx
from flask_debugtoolbar.panels import DebugPanel
from jinja2 import Environment, PackageLoader

from ..errors import BanditError
from .request import RequestState, current_request_state
from .state import AppState, app_state

_HOW = {
    "decided": "drawn for this visitor now, and counted",
    "remembered": "remembered from the cookie; not counted again",
    "prefetch": "drawn for a prefetch; counted when the visitor comes",
    "uncounted": "drawn, but not counted: a HEAD request or an error page",
    "control": "the control: the storage is down",
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
        try:
            stats, problem = state.engine.stats(), ""
        except BanditError as error:
            stats, problem = {}, str(error)
        return _templates.get_template("debug_panel.html").render(
            app=current_app.name,
            cookie_name=state.config.cookie_name,
            raw=self._raw,
            cookie=state.codec.loads(self._raw),
            storage=_storage_name(state),
            is_down=state.engine.is_storage_down or bool(problem),
            problem=problem,
            bandits=[self._row(state, name, stats.get(name, {})) for name in state.bandits],
        )

    @property
    def _shown(self) -> dict[str, Any]:
        return {} if self._current is None else dict(self._current.shown)

    def _row(self, state: AppState, name: str, stats: dict[str, Any]) -> dict[str, Any]:
        bandit = state.bandits[name]
        shown = self._shown.get(name)
        held = state.codec.loads(self._raw).assignments.get(name)
        table = state.engine.table(name, state.engine.attempt())
        mine = shown.arm if shown else held.arm if held else None
        return {
            "name": name,
            "policy": bandit.policy_version,
            "arms": [
                {
                    "id": arm,
                    "stats": stats.get(arm),
                    "propensity": None if table is None else table.propensities[arm],
                    "is_mine": arm == mine,
                }
                for arm in bandit.arm_ids
            ],
            "why": _HOW[shown.how] if shown else "not asked for by this request",
            "reward": self._current.outcomes.get(name, "") if self._current else "",
        }

    @classmethod
    def init_app(cls, app: Flask) -> None:
        """Do nothing: the panel has no routes of its own."""


def _storage_name(state: AppState) -> str:
    """Name the storage without its arguments, which may hold a password."""
    return type(state.storage).__name__
