"""What a visit leaves in storage: rewards, and decisions, each under an id of its own.

Knows no request; :mod:`.visit` says what counts.
"""

from __future__ import annotations

from dataclasses import replace

from ..hashing import hash_decision
from ..model import HELD_OUT, Decision, Reward
from ..storage.base import CommitResult
from .earned import Earned, EarnedKey
from .holding import Holder
from .identity import Subject
from .state import AppState

NUMBERS_TRIED = 12
"""How many numbers a choice tries that other requests of the visitor may have taken."""
FURTHEST = 2 ** (NUMBERS_TRIED - 1) - 1
"""How far the last of them is from the first."""


class Keeper(Holder):
    """A holder with decisions and earnings that are not stored yet."""

    def __init__(self, state: AppState, subject: Subject | None = None) -> None:
        super().__init__(state, subject)
        self._earned: dict[tuple[str, EarnedKey], Earned] = {}
        self._decisions: dict[str, Decision] = {}

    def _store(self, decisions: list[Decision], rewards: list[Reward]) -> bool:
        """Store what the visit ends with, and what others were not counted for.

        :return: False if the storage is down
        """
        skipped = self.state.tally.due()
        if not decisions and not rewards and not skipped:
            return True
        result = self.state.engine.commit(decisions, rewards, self.attempt, skipped)
        if result is None:
            self.state.tally.put_back(skipped)
            for decision in decisions:
                self.state.tally.note(decision.bandit, decision.version, "outage")
            for reward in rewards:
                self.outcomes[reward.bandit] = "not recorded: the storage is down"
            return False
        is_stored = True
        for decision in decisions:
            if self.is_sticky(decision.bandit):
                self._assign(result.decisions[decision.id])
            else:
                is_stored &= self._number(decision, result)
            self.state.digester.poke(decision.bandit)
        self._announce(result, rewards)
        return is_stored

    def _number(self, decision: Decision, result: CommitResult) -> bool:
        """See to it that a decision of a bandit that is not sticky is stored under its own id.

        Other requests of the visitor at the same time count from the same number.

        :param result: of the commit that tried it first
        :return: False if the storage failed, or no number was free
        """
        name, sent, found = decision.bandit, decision, result
        for step in range(NUMBERS_TRIED):
            if step:
                # In growing steps: the cookie may have lost count, and be far behind.
                self._reassigned[name] += 2 ** (step - 1)
                sent = self._renumbered(sent)
                again = self.state.engine.commit([sent], [], self.attempt)
                if again is None:
                    break
                self._announce(again, [])
                found = again
            stored = found.decisions[sent.id]
            # The same request, sent again, is no decision of its own.
            is_same = (stored.arm, stored.context) == (sent.arm, sent.context)
            if sent.id in found.new or is_same:
                self._assign(stored)
                del self._decisions[name]
                for earned in self._earned.values():
                    if earned.decision.id == decision.id:
                        earned.decision = stored
                return True
        self.state.tally.note(name, decision.version, "outage")
        return False

    def _renumbered(self, decision: Decision) -> Decision:
        """Return a decision under the id of the visitor's present number."""
        name = decision.bandit
        id_, _ = hash_decision(self.cookie.visitor, name, decision.version, self._reassigned[name])
        return replace(decision, id=id_ + HELD_OUT if decision.is_held_out else id_)
