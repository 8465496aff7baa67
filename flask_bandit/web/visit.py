"""One request's dealings with the bandits: choose and reward while it runs, commit when it ends.

Lives in ``request.environ``, not in ``flask.g``: that belongs to the app context, which may outlive
a request or hold several.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from flask import Request, Response, has_request_context
from flask.globals import request_ctx

from ..bandits import Bandit
from ..breaker import Attempt
from ..engine import hash_decision, logger, reward_id
from ..errors import ConfigurationError, LateChoiceError
from ..model import Decision, Reward
from ..storage.base import CommitResult
from . import signals
from .assignments import Assignment, CookieContent, Pending, new_visitor
from .state import AppState, app_state
from .visitors import Counting, counting_of

IN_ERROR_HANDLER = "_flask_bandit_in_error_handler"
FINISHED = "_flask_bandit_finished"
"""Marks on the request object: one environ may be dispatched again, to this app or another."""

RewardRule = Callable[[Response], bool]


class Shown(NamedTuple):
    """The arm that this request showed, and why.

    :param how: ``decided``, ``remembered``, ``prefetch``, ``uncounted``, or ``control`` while the
        storage is down
    """

    arm: str
    how: str


@dataclass
class Earned:
    """What this request's views earned for a bandit, judged when the response is known."""

    decision: Decision
    parts: list[tuple[float, RewardRule]]

    @property
    def total(self) -> float:
        """Sum of all parts, whether or not their rules will accept the response."""
        return sum(value for value, _ in self.parts)


def on_success(response: Response) -> bool:
    """Accept what an inline ``reward()`` earned: the response is no error."""
    return response.status_code < 400


def _accepts(rule: RewardRule, response: Response) -> bool:
    """Ask a rule; one that raises rewards nothing, and must not cost the visitor's decisions."""
    try:
        return bool(rule(response))
    except Exception:
        logger.exception("A reward_if rule failed, so nothing was rewarded")
        return False


class RequestState:
    """What one request has read from the cookie, chosen and earned."""

    def __init__(self, state: AppState, request: Request) -> None:
        self.state = state
        self.request = request
        self.counting = counting_of(request)
        self.shown: dict[str, Shown] = {}
        self.earned: dict[str, Earned] = {}
        self.outcomes: dict[str, str] = {}
        """bandit -> what became of this request's reward, in words for the toolbar"""
        self.is_changed = False
        # A stream may touch its first bandit after the headers were sent.
        self.is_committed = hasattr(request, FINISHED)
        self._cookie: CookieContent | None = None
        self._decisions: dict[str, Decision] = {}
        self._reassigned: dict[str, int] = {}
        self._attempt: Attempt | None = None

    @property
    def is_loaded(self) -> bool:
        """True once the cookie was read, that is once an arm or a reward was asked for."""
        return self._cookie is not None

    @property
    def cookie(self) -> CookieContent:
        """What the visitor's cookie says, read once."""
        if self._cookie is None:
            text = self.request.cookies.get(self.state.config.cookie_name, "")
            self._cookie = self.state.codec.loads(text)
        return self._cookie

    @property
    def attempt(self) -> Attempt:
        """This request's deadline for the storage."""
        if self._attempt is None:
            self._attempt = self.state.engine.attempt()
        return self._attempt

    def choose(self, name: str) -> str:
        """Return the id of the visitor's arm, assigning one if there is none.

        :raises UnknownBanditError: no bandit has that name
        :raises LateChoiceError: in debug, if the response's headers are already on their way
        """
        bandit = self.state.bandits[name]
        shown = self.shown.get(name)
        if shown is None:
            shown = self.shown[name] = self._remembered(name, bandit) or self._new(name, bandit)
        return shown.arm

    def reward(self, name: str, value: float, rule: RewardRule = on_success) -> bool:
        """Note what the visitor's arm earned; it is stored when the response is known.

        :return: False if the visitor holds no arm of this bandit
        :raises ValueError: not a finite number, or with what this request earned before outside
            the range that the bandit can learn from
        """
        bandit = self.state.bandits[name]
        value = bandit.check_reward(value)
        decision = self._held_decision(name)
        if decision is None:
            self.outcomes[name] = "nothing to reward: the visitor holds no arm"
            return False
        if self.is_committed:
            self._too_late(f"reward({name!r})")
            return False
        earned = self.earned.setdefault(name, Earned(decision, []))
        bandit.check_reward(earned.total + value)
        earned.parts.append((value, rule))
        return True

    def commit(self, response: Response) -> None:
        """Store what this request chose and earned; does so once, however often it is called."""
        if self.is_committed:
            return
        self.is_committed = True
        if self.counting is not Counting.COUNTED:
            return
        rewards = self._accepted_rewards(response)
        rewarded = {reward.bandit for reward in rewards}
        decisions = [
            decision
            for name, decision in self._decisions.items()
            if name in rewarded or not 400 <= response.status_code < 500
        ]
        self._store(decisions, rewards)

    def commit_after_exception(self) -> None:
        """Store the decisions of a request that ends without a response; never its rewards.

        The request stays open: when a copied context fails, the request itself still goes on, and
        its own commit of the same decisions counts nothing twice.
        """
        if not self.is_committed and self.counting is Counting.COUNTED:
            self._store(list(self._decisions.values()), [])

    def _remembered(self, name: str, bandit: Bandit) -> Shown | None:
        held = self.cookie.assignments.get(name)
        if (
            held is None
            or held.version != self.state.engine.version(name)
            or held.arm not in bandit.arm_ids
        ):
            return None
        on_error_page = hasattr(self.request, IN_ERROR_HANDLER)
        if held.pending and not self.is_committed and not on_error_page:
            self._decisions[name] = self._from_cookie(name, held)
        return Shown(held.arm, "remembered")

    def _new(self, name: str, bandit: Bandit) -> Shown:
        control = bandit.arm_ids[0]
        if self.is_committed:
            self._too_late(f"choosing {name!r}")
            return Shown(control, "control")
        cookie, engine = self.cookie, self.state.engine
        held = cookie.assignments.get(name)
        # An assignment of this version that is not remembered names an arm that was removed.
        removed = held is not None and held.version == engine.version(name)
        reassigned = held.reassigned + 1 if held is not None and removed else 0
        cookie.visitor = cookie.visitor or new_visitor()
        decision = engine.decide(name, cookie.visitor, self.attempt, reassigned=reassigned)
        if decision is None:
            return Shown(control, "control")
        if self.counting is Counting.UNCOUNTED or hasattr(self.request, IN_ERROR_HANDLER):
            return Shown(decision.arm, "uncounted")
        if self.counting is Counting.PENDING:
            self._assign(name, decision, reassigned, pending=True)
            return Shown(decision.arm, "prefetch")
        self._decisions[name] = decision
        self._reassigned[name] = reassigned
        return Shown(decision.arm, "decided")

    def _assign(
        self, name: str, decision: Decision, reassigned: int, *, pending: bool = False
    ) -> None:
        propensity = (decision.propensities or {}).get(decision.arm, 0.0)
        self.cookie.assignments[name] = Assignment(
            decision.arm,
            decision.version,
            reassigned,
            Pending(propensity, decision.at, decision.policy_version) if pending else None,
        )
        self.is_changed = True

    def _from_cookie(self, name: str, held: Assignment) -> Decision:
        """Return the decision behind an assignment, as far as the cookie knows it."""
        self._reassigned[name] = held.reassigned
        return Decision(
            id=hash_decision(self.cookie.visitor, name, held.version, held.reassigned)[0],
            bandit=name,
            version=held.version,
            arm=held.arm,
            propensities={held.arm: held.pending.propensity} if held.pending else None,
            policy_version=held.pending.policy_version if held.pending else "",
            at=held.pending.at if held.pending else time.time(),
        )

    def _held_decision(self, name: str) -> Decision | None:
        decision = self._decisions.get(name)
        if decision is not None:
            return decision
        held = self.cookie.assignments.get(name)
        if held is None or held.version != self.state.engine.version(name):
            return None
        decision = self._from_cookie(name, held)
        if held.pending and not self.is_committed:
            self._decisions[name] = decision
        return decision

    def _accepted_rewards(self, response: Response) -> list[Reward]:
        rewards = []
        for name, earned in self.earned.items():
            accepted = [value for value, rule in earned.parts if _accepts(rule, response)]
            if not accepted:
                self.outcomes[name] = f"not rewarded: the response is a {response.status_code}"
                continue
            decision = earned.decision
            rewards.append(
                Reward(
                    id=reward_id(decision.id),
                    decision_id=decision.id,
                    bandit=name,
                    version=decision.version,
                    arm=decision.arm,
                    value=sum(accepted),
                    at=time.time(),
                )
            )
        return rewards

    def _store(self, decisions: list[Decision], rewards: list[Reward]) -> None:
        if not decisions and not rewards:
            return
        result = self.state.engine.commit(decisions, rewards, self.attempt)
        if result is None:
            for reward in rewards:
                self.outcomes[reward.bandit] = "not recorded: the storage is down"
            return
        for decision in decisions:
            stored = result.decisions[decision.id]
            self._assign(decision.bandit, stored, self._reassigned[decision.bandit])
        self._announce(result, rewards)

    def _announce(self, result: CommitResult, rewards: list[Reward]) -> None:
        app = self.state.app
        for decision in result.decisions.values():
            if decision.id in result.new:
                signals.send(signals.decision_made, app, decision=decision)
        for reward in rewards:
            is_new = reward.id in result.new
            self.outcomes[reward.bandit] = (
                f"rewarded with {reward.value:g}" if is_new else "rewarded before: counts once"
            )
            if is_new:
                signals.send(signals.reward_recorded, app, reward=reward)

    def _too_late(self, what: str) -> None:
        message = (
            f"{what} comes after the response's headers were sent, so it can be neither counted "
            "nor remembered: do it before the response starts to stream"
        )
        if self.state.app.debug:
            raise LateChoiceError(message)
        logger.error(message)


def request_state() -> RequestState:
    """Return the state of the request that is being answered.

    :raises ConfigurationError: outside a request
    """
    if not has_request_context():
        raise ConfigurationError(
            "arms are chosen for a visitor, inside a request; without one use "
            "bandit.suggest_arm(), or app.test_request_context() in a test"
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


def suggest_arm_for(name: str) -> tuple[str, Any]:
    """Return the visitor's arm of a bandit as (id, value), assigning one if there is none.

    The inline twin of :func:`~flask_bandit.choose_arm`.

    :param name: the bandit's registered name
    :raises UnknownBanditError: no bandit has that name
    """
    current = request_state()
    arm = current.choose(name)
    return arm, current.state.arm_value(name, arm)


def reward(name: str, value: float = 1.0) -> bool:
    """Reward the arm that the visitor holds, once per decision.

    The inline twin of :func:`~flask_bandit.reward_endpt`. It is stored when the response is known,
    unless that is an error (4xx or 5xx).

    :param name: the bandit's registered name
    :param value: a finite number, for most algorithms within [0, 1]
    :return: False if this visitor holds no arm, so that there is nothing to reward; whether a
        reward was new is told by the signal ``reward_recorded``
    :raises UnknownBanditError: no bandit has that name
    :raises ValueError: a value that the bandit cannot learn from
    """
    return request_state().reward(name, value)
