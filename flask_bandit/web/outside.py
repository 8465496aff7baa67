"""Visits of known users outside a request: jobs, mails, queues."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from flask import Response

from ..errors import ConfigurationError
from .contexts import ContextSource
from .state import AppState
from .tokens import token_of
from .visit import Visit


class SubjectVisit:
    """What a known user chooses and earns while no request of theirs is answered.

    Made by :meth:`~flask_bandit.BanditMiddleware.visit` and used in a ``with`` statement.
    """

    def __init__(self, state: AppState, subject: str) -> None:
        self._state = state
        self._subject = subject
        self._visit: Visit | None = None

    def __enter__(self) -> SubjectVisit:
        state = self._state
        # Switched off, bandits open no storage, and everybody is alike.
        subject = state.subject(self._subject) if state.config.enabled else None
        self._visit = Visit(state, subject)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        visit, self._visit = self._visit, None
        if kind is None and visit is not None:
            visit.finish(Response())

    def choose(self, name: str, *, context: ContextSource = None) -> tuple[str, Any]:
        """Return the user's arm of a bandit as (id, value), assigning one if there is none.

        Where the bandit is not sticky, each visit has a choice of its own.

        :param context: what is known at this choice, see :func:`~flask_bandit.suggest_arm_for`
        :raises UnknownBanditError: no bandit has that name
        """
        arm = self._running.choose(name, context)
        return arm, self._state.arm_value(name, arm)

    def reward(
        self, name: str, value: float = 1.0, *, goal: str | None = None, event: str = ""
    ) -> bool:
        """Reward the arm that the user holds; see :func:`flask_bandit.reward`."""
        return self._running.reward(name, value, goal=goal, event=event)

    def token(self, name: str, goal: str | None = None, *, context: ContextSource = None) -> str:
        """Return a token that rewards the user's arm later, as for a link in a mail.

        See :meth:`~flask_bandit.BanditMiddleware.reward_token`.
        """
        return token_of(self._running, name, goal, context)

    @property
    def _running(self) -> Visit:
        if self._visit is None:
            raise ConfigurationError("use it inside 'with mab.visit(subject=...) as visit:'")
        return self._visit
