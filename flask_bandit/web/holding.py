"""What a visitor holds: the assignments of a cookie, and those that storage knows of a subject."""

from __future__ import annotations

import time

from ..breaker import Attempt
from ..control import CLOSED, PAUSED, RUNNING, Control
from ..model import HELD_OUT, Decision, Reward
from ..storage.base import CommitResult
from . import signals
from .assignments import Assignment, CookieContent, Pending, new_visitor
from .identity import StorageAwayError, Subject
from .state import AppState
from .visitors import Counting, Verdict

COUNTED = Verdict(Counting.COUNTED, "")
GOING_ON = frozenset({RUNNING, CLOSED, PAUSED})
"""States in which who holds an arm takes part: a pause is not the end."""


class Holder:
    """A visitor with a cookie, or a known subject, or both.

    :param subject: the known user; ``None`` for a visitor who is only a cookie
    """

    def __init__(self, state: AppState, subject: Subject | None = None) -> None:
        self.state = state
        self.outcomes: dict[str, str] = {}
        """bandit -> what became of this visit's reward, in words for the toolbar"""
        self.is_changed = False
        """True if the cookie has to be set."""
        self.is_committed = False
        self.is_forgotten = False
        """True once the visitor asked to be erased."""
        self._subject = subject
        self._cookie: CookieContent | None = None
        self._reassigned: dict[str, int] = {}
        self._controls: dict[str, Control] = {}
        self._attempt: Attempt | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether the visit's choices count."""
        return COUNTED

    @property
    def is_on_error_page(self) -> bool:
        """True while an error handler answers."""
        return False

    @property
    def is_loaded(self) -> bool:
        """True once the cookie was read, that is once an arm or a reward was asked for."""
        return self._cookie is not None

    @property
    def cookie(self) -> CookieContent:
        """What the visitor's cookie says, read once."""
        if self._cookie is None:
            self._cookie = self._read_cookie()
        return self._cookie

    @property
    def subject(self) -> Subject | None:
        """The known user behind the visit."""
        return self._subject

    def within_limit(self) -> bool:
        """Return whether one more visitor may be counted."""
        return True

    @property
    def attempt(self) -> Attempt:
        """This visit's deadline for the storage."""
        if self._attempt is None:
            self._attempt = self.state.engine.attempt()
        return self._attempt

    @property
    def is_ending(self) -> bool:
        """True once nothing new is counted: after the commit, and on an error page."""
        return self.is_committed or self.is_on_error_page

    @property
    def _may_store(self) -> bool:
        """True while a subject's decisions may be stored at once."""
        is_over = self.is_ending or self.is_forgotten
        return self.verdict.counting is Counting.COUNTED and not is_over

    def control(self, name: str) -> Control:
        """Return what operators decided about a bandit; the same for all of the visit."""
        if name not in self._controls:
            self._controls[name] = self.state.engine.control(name, self.attempt)
        return self._controls[name]

    def _read_cookie(self) -> CookieContent:
        return CookieContent()

    def is_sticky(self, name: str) -> bool:
        """Return whether visitors keep their arm of a bandit."""
        return self.state.bandits[name].is_sticky

    def keeps_prefetched(self, name: str) -> bool:
        """Return whether the arm that a prefetch shows is the visitor's from then on.

        The context of such a choice would be lost: no cookie has it, and later it is another one.
        """
        return self.is_sticky(name) and self.state.bandits[name].features is None

    def _is_subjects(self, name: str) -> bool:
        """Return whether an arm of a bandit is the known user's, in place of the cookie's."""
        return self.is_sticky(name) and self.subject is not None

    def _own_rows(self) -> dict[str, Assignment]:
        """Return the subject's assignments; those of another subject are forgotten."""
        if self.subject is None:
            return {}
        if self.cookie.subject != self.subject.tag:
            self.cookie.subject, self.cookie.own = self.subject.tag, {}
        return self.cookie.own

    def _is_valid(self, name: str, row: Assignment | None) -> bool:
        control = self.control(name)
        if row is None or row.version != control.version:
            return False
        is_held_out = Decision.is_id_held_out(row.origin)
        return control.holds(row.arm, self.state.bandits[name].arm_ids, is_held_out=is_held_out)

    def _held(self, name: str) -> Assignment | None:
        """Return the visitor's assignment, from the cookie or, for a subject, from storage.

        Of a bandit that is not sticky it is the last one, whatever became of its arm.

        :raises StorageAwayError: only the storage knows, and it is down
        """
        row = self.cookie.assignments.get(name)
        if not self.is_sticky(name):
            return self._removed(name)
        anonymous = row if self._is_valid(name, row) else None
        if self.subject is None:
            return anonymous
        found = self._known(name, self.subject)
        is_free = anonymous is not None and not anonymous.adopted
        if found is not None and found.pending and self._may_store and self.within_limit():
            return self._settled(name, found, self.subject)
        if found is not None or not is_free or self.verdict.counting is Counting.UNCOUNTED:
            return found
        assert anonymous is not None
        if self.is_elsewhere(name):
            return None
        return self._adopted(name, anonymous, self.subject)

    def _known(self, name: str, subject: Subject) -> Assignment | None:
        """Return the subject's own assignment; the storage is asked once."""
        own = self._own_rows().get(name)
        if self._is_valid(name, own):
            return own
        if name in self._reassigned or self.verdict.counting is Counting.UNCOUNTED:
            return None
        found, self._reassigned[name] = subject.find(name, self.control(name), self.attempt)
        if found is not None:
            self._own_rows()[name] = found
            self.is_changed = True
        return found

    def _removed(self, name: str) -> Assignment | None:
        """Return an assignment whose arm is gone: it is not shown, and may still be rewarded."""
        rows = self._own_rows() if self._is_subjects(name) else self.cookie.assignments
        row = rows.get(name)
        return row if row is not None and row.version == self.control(name).version else None

    def _adopted(self, name: str, anonymous: Assignment, subject: Subject) -> Assignment:
        """Let a subject without a decision go on with the one made before they signed in."""
        decision = self._decision_of(name, anonymous, self.cookie.visitor)
        if not self._may_store or (anonymous.pending and not self.within_limit()):
            # Not the subject's yet: what is not stored, no other device would find.
            return anonymous._replace(origin=decision.id)
        reassigned = self._reassigned.get(name, 0)
        stand_in = subject.stand_in(decision, reassigned)
        made = [decision, stand_in] if anonymous.pending else [stand_in]
        result = self._store_now(made)
        self.cookie.assignments[name] = anonymous._replace(pending=None, adopted=True)
        found = subject.assignment(result.decisions[stand_in.id], reassigned)
        self._own_rows()[name] = found
        self.is_changed = True
        return found

    def _settled(self, name: str, pending: Assignment, subject: Subject) -> Assignment:
        """Store what a prefetch showed a subject, and return what they hold after all.

        Before it is rewarded: another device may have gone on with another decision meanwhile.
        """
        decision = self._decision_behind(name, pending)
        stored = self._store_now([decision]).decisions[decision.id]
        found = subject.assignment(stored, pending.reassigned)
        self._own_rows()[name] = found
        self.is_changed = True
        return found

    def _assign(self, decision: Decision, *, pending: bool = False) -> None:
        propensity = (decision.propensities or {}).get(decision.arm, 0.0)
        row = Assignment(
            decision.arm,
            decision.version,
            self._reassigned.get(decision.bandit, 0),
            Pending(propensity, decision.at, decision.policy_version) if pending else None,
            HELD_OUT if decision.is_held_out else "",
        )
        if decision.subject is None or self.subject is None or not self.is_sticky(decision.bandit):
            self.cookie.assignments[decision.bandit] = row
        elif pending:
            self._own_rows()[decision.bandit] = row
        else:
            found = self.subject.assignment(decision, row.reassigned)
            self._own_rows()[decision.bandit] = found
        self.is_changed = True

    def _decision_behind(self, name: str, held: Assignment) -> Decision:
        self._reassigned[name] = held.reassigned
        if self.subject is None or not self.is_sticky(name):
            return self._decision_of(name, held, self.cookie.visitor)
        return self._decision_of(name, held, self.subject.pseudonym, self.subject.pseudonym)

    def _decision_of(
        self, name: str, held: Assignment, holder: str, subject: str | None = None
    ) -> Decision:
        """Return the decision behind an assignment, as far as the cookie knows it."""
        return Decision(
            id=held.decision_id(holder, name),
            bandit=name,
            version=held.version,
            arm=held.arm,
            propensities={held.arm: held.pending.propensity} if held.pending else None,
            policy_version=held.pending.policy_version if held.pending else "",
            at=held.pending.at if held.pending else time.time(),
            subject=subject,
        )

    def _store_now(self, decisions: list[Decision]) -> CommitResult:
        """Store decisions before the visit ends.

        :raises StorageAwayError: it could not be done
        """
        result = self.state.engine.commit(decisions, [], self.attempt)
        if result is None:
            raise StorageAwayError
        self._announce(result, [])
        return result

    def _announce(self, result: CommitResult, rewards: list[Reward]) -> None:
        app = self.state.app
        for decision in result.decisions.values():
            if decision.id in result.new and decision.stands_for is None:
                signals.send(signals.decision_made, app, decision=decision)
        for reward in rewards:
            is_new = reward.id in result.new
            self.outcomes[reward.bandit] = (
                f"rewarded with {reward.value:g}" if is_new else "rewarded before: counts once"
            )
            if is_new:
                signals.send(signals.reward_recorded, app, reward=reward)

    def holds_arm(self, name: str) -> bool:
        """Return whether the visitor's cookie has an arm of a bandit that is going on."""
        if self.control(name).state not in GOING_ON:
            return False
        if not self.is_sticky(name):
            return self._removed(name) is not None
        anonymous = self.cookie.assignments.get(name)
        if self.subject is None:
            return self._is_valid(name, anonymous)
        if self._is_valid(name, self._own_rows().get(name)):
            return True
        # It will be the subject's, unless it is another's.
        is_free = anonymous is not None and not anonymous.adopted
        return is_free and self._is_valid(name, anonymous)

    def others_of_group(self, name: str) -> list[str]:
        """Return the other bandits of a bandit's group; none without a group."""
        bandits = self.state.bandits
        group = bandits[name].options.group
        if group is None:
            return []
        return [n for n, other in bandits.items() if n != name and other.options.group == group]

    def is_elsewhere(self, name: str) -> bool:
        """Return whether the subject takes part in another bandit of the group, on any device.

        :raises StorageAwayError: only the storage knows, and it is down
        """
        subject = self.subject
        return subject is not None and any(
            self.control(other).state in GOING_ON and self._known(other, subject) is not None
            for other in self.others_of_group(name)
            if self.is_sticky(other)
        )

    def lasting_holder(self) -> str:
        """Return who the visitor is, and see to it that they are the same next time."""
        if self.subject is not None:
            return self.subject.pseudonym
        if not self.cookie.visitor:
            self.cookie.visitor = new_visitor()
            is_kept = not (self.is_ending or self.state.engine.is_storage_down)
            if is_kept and self.verdict.counting is not Counting.UNCOUNTED:
                self.is_changed = True
        return self.cookie.visitor
