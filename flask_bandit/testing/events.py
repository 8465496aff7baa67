"""``BanditEvents``: what a test's apps stored, and assertions about it. Imports no pytest."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

from ..model import Decision, Reward
from ..web.signals import decision_made, reward_recorded


class BanditEvents:
    """Notes the decisions and rewards that any app stores while the block is open.

    It listens to the signals :data:`~flask_bandit.decision_made` and
    :data:`~flask_bandit.reward_recorded`. So what counts no second time, and a visitor who is not
    counted, are not here.
    """

    def __init__(self) -> None:
        self._stored: list[Decision | Reward] = []
        self._connections = ExitStack()

    def __enter__(self) -> BanditEvents:
        self._connections.enter_context(decision_made.connected_to(self._note_decision))
        self._connections.enter_context(reward_recorded.connected_to(self._note_reward))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connections.close()

    @property
    def decisions(self) -> list[Decision]:
        """The decisions so far, in the order in which they were stored."""
        return [each for each in self._stored if isinstance(each, Decision)]

    @property
    def rewards(self) -> list[Reward]:
        """The rewards so far, likewise."""
        return [each for each in self._stored if isinstance(each, Reward)]

    def assert_decided(self, bandit: str, arm: str | None = None, *, times: int = 1) -> None:
        """Assert how many decisions were stored.

        :param arm: count decisions for this arm only
        """
        __tracebackhide__ = True
        found = [
            each
            for each in self.decisions
            if each.bandit == bandit and (arm is None or each.arm == arm)
        ]
        if len(found) != times:
            which = bandit if arm is None else f"{bandit}={arm}"
            raise AssertionError(self._report(times, "decision", which, len(found)))

    def assert_rewarded(
        self, bandit: str, value: Any = None, goal: str | None = None, *, times: int = 1
    ) -> None:
        """Assert how many rewards were stored.

        :param value: count rewards of this value only: a number, or ``pytest.approx(...)``
        :param goal: count rewards for this goal only
        """
        __tracebackhide__ = True
        found = [
            each
            for each in self.rewards
            if each.bandit == bandit
            and (value is None or each.value == value)
            and (goal is None or each.goal == goal)
        ]
        if len(found) != times:
            which = bandit if value is None else f"{bandit}, value {value}"
            which = which if goal is None else f"{which}, goal {goal!r}"
            raise AssertionError(self._report(times, "reward", which, len(found)))

    def assert_nothing(self) -> None:
        """Assert that neither a decision nor a reward was stored."""
        __tracebackhide__ = True
        if self._stored:
            raise AssertionError(f"Expected that nothing is stored. {self._story()}")

    def _note_decision(self, sender: Any, decision: Decision) -> None:
        self._stored.append(decision)

    def _note_reward(self, sender: Any, reward: Reward) -> None:
        self._stored.append(reward)

    def _report(self, times: int, what: str, which: str, found: int) -> str:
        plural = "" if times == 1 else "s"
        return f"Expected {times} {what}{plural} ({which}), found {found}. {self._story()}"

    def _story(self) -> str:
        if not self._stored:
            return "Nothing was stored."
        return "\n".join(("Stored, in this order:", *map(_line, self._stored)))


def _line(event: Decision | Reward) -> str:
    arm = f"{event.bandit}={event.arm}"
    if isinstance(event, Decision):
        return f"  decision {arm}"
    return f"  reward {arm}, value {event.value:g}, goal {event.goal!r}"
