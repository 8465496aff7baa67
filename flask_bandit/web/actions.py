"""Something done to several bandits: to all of them or, where one cannot have it, to none.

What can be done, and when, is told by :mod:`flask_bandit.control`. Knows nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..control import Control, act
from ..errors import LifecycleError
from .reports import Stored, what_visitors_see
from .state import AppState

WITHOUT_CODE = ("archive", "reopen")
"""What can be done to a bandit that only the storage has: put it away, and back."""


@dataclass(frozen=True)
class Outcome:
    """What an action did to one bandit."""

    name: str
    changed: bool
    state: str
    version: int
    winner: str | None
    weights: Mapping[str, float | None]
    visitors: str
    followed_within: float


class Action:
    """Something that is done to bandits: to all of them, or to none if one cannot have it.

    Made when it is certain that it can be done to all of them.

    :param names: one or more bandits; the same name again is left out
    :param action: one of :data:`~flask_bandit.control.ACTIONS`
    :param subject: the arm to declare, or the weights
    :param by: who does it, for the history
    :param timeout: seconds for each reading before; ``None`` waits as long as it takes
    :raises UnknownBanditError: with the nearest name
    :raises LifecycleError: one of them cannot have it in its present state
    """

    def __init__(
        self,
        state: AppState,
        names: Iterable[str],
        action: str,
        subject: Any = None,
        by: str = "",
        timeout: float | None = None,
    ) -> None:
        self._state = state
        self._action = action
        self._subject = subject
        self._by = by
        self._stored = Stored.read(state.bandits, state.storage, timeout)
        self.names = tuple(dict.fromkeys(names))
        for name in self.names:
            self._require(name)
        # Tried on all before the first is changed.
        self._planned = {name: self._apply(name, self._stored.control(name)) for name in self.names}

    def _require(self, name: str) -> None:
        self._stored.require(name)
        if name not in self._state.bandits and self._action not in WITHOUT_CODE:
            raise LifecycleError(
                f"{name!r} is stored and not in the code; only {' and '.join(WITHOUT_CODE)} work"
            )

    def _apply(self, name: str, control: Control) -> Control:
        bandit = self._stored.bandits.get(name)
        arms = () if bandit is None else bandit.arm_ids
        try:
            return act(control, self._action, arms, self._stored.now, self._subject, self._by)
        except LifecycleError as error:
            raise LifecycleError(f"{name}: {error}") from None

    @property
    def changing(self) -> Mapping[str, Control]:
        """The bandits that are not as they shall be, and what becomes of them."""
        return {
            name: control
            for name, control in self._planned.items()
            if control != self._stored.control(name)
        }

    def visitors(self, name: str, control: Control) -> str:
        """Return in words what visitors see with a control."""
        return what_visitors_see(control, self._stored.bandits.get(name))

    def do(self, name: str) -> Outcome:
        """Change one bandit for all workers.

        :raises LifecycleError: somebody was faster, and it cannot be changed any more
        """
        before = self._stored.control(name)
        if name in self._state.bandits:
            try:
                control = self._state.engine.change(name, self._action, self._subject, self._by)
            except LifecycleError as error:
                raise LifecycleError(f"{name}: {error}") from None
        else:
            control = self._state.engine.update_control(
                name, lambda stored: self._apply(name, stored)
            )[1]
        return Outcome(
            name=name,
            changed=control.history != before.history,
            state=control.state,
            version=control.version,
            winner=control.winner,
            weights={**control.weights, **dict.fromkeys(control.removed)},
            visitors=self.visitors(name, control),
            followed_within=self._state.config.control_ttl,
        )
