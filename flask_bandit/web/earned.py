"""What views have earned in one visit, judged when the response is known."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from flask import Response

from ..bandits import Bandit
from ..engine import logger
from ..hashing import reward_id
from ..model import Decision, Reward
from ..options import is_clean

LONGEST_NAME = 100
"""Characters of a goal or an event."""

RewardRule = Callable[[Response], bool]


class EarnedKey(NamedTuple):
    """What counts as one reward.

    :param event: tells rewards for goals that count every time from each other; else empty
    """

    bandit: str
    goal: str
    event: str = ""


def goal_of(bandit: Bandit, goal: str | None) -> str:
    """Return a goal's name; the bandit's own if none is given.

    :raises ValueError: it cannot be one
    """
    return bandit.options.goal if goal is None else _name("goal", goal, shortest=1)


def earned_key(name: str, bandit: Bandit, goal: str | None, event: str) -> EarnedKey:
    """Return what a reward counts once by.

    :param event: of no meaning to a goal that counts once; made here for others if it is empty
    :raises ValueError: a goal or an event that cannot be one
    """
    goal, event = goal_of(bandit, goal), _name("event", event)
    if bandit.options.mode(goal) == "once":
        return EarnedKey(name, goal)
    return EarnedKey(name, goal, event or secrets.token_hex(8))


def _name(what: str, text: object, shortest: int = 0) -> str:
    # Checked here, since a storage that refuses it would look like an outage.
    if isinstance(text, str) and shortest <= len(text) <= LONGEST_NAME and is_clean(text):
        return text
    raise ValueError(
        f"the {what} is {text!r}; write a text of {shortest} to {LONGEST_NAME} characters, none of "
        "them a control"
    )


@dataclass
class Earned:
    """The parts of one reward; what several views or calls add is summed."""

    decision: Decision
    parts: list[tuple[float, RewardRule]] = field(default_factory=list)

    @property
    def total(self) -> float:
        """Sum of all parts, whether or not their rules will accept the response."""
        return sum(value for value, _ in self.parts)

    def judged(self, response: Response) -> float | None:
        """Return the sum of the parts whose rules accept the response, if there are any."""
        accepted = [value for value, rule in self.parts if _accepts(rule, response)]
        return sum(accepted) if accepted else None


def reward_for(decision: Decision, key: EarnedKey, value: float) -> Reward:
    """Return a reward of this moment for a decision."""
    return Reward(
        id=reward_id(decision.id, key.goal, key.event),
        decision_id=decision.id,
        bandit=key.bandit,
        version=decision.version,
        arm=decision.arm,
        value=value,
        at=time.time(),
        goal=key.goal,
    )


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
