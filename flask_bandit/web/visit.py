"""One visitor's dealings with the bandits: choose and reward while it lasts, commit when it ends.

A request is a visit with a cookie (:mod:`.request`); outside of one there is a subject only.
"""

from __future__ import annotations

from flask import Response

from ..bandits import Bandit
from ..engine import forced_arms, logger
from ..errors import LateChoiceError
from ..forcing import require_known
from ..model import Decision
from .admission import Shown, common_arm, refusal
from .assignments import Assignment, new_visitor
from .contexts import Context, ContextSource, context_of, require_features
from .earned import Earned, EarnedKey, RewardRule, earned_key, on_success, reward_for
from .identity import StorageAwayError, Subject
from .keeping import FURTHEST, Keeper
from .state import AppState
from .visitors import Counting


class Visit(Keeper):
    """What one visitor has chosen and earned."""

    def __init__(self, state: AppState, subject: Subject | None = None) -> None:
        super().__init__(state, subject)
        self.shown: dict[str, Shown] = {}
        self.contexts: dict[str, Context | None] = {}
        """bandit -> what its arm was drawn by, where one was drawn"""
        require_known(forced_arms.get({}), state.bandits)

    @property
    def has_consent(self) -> bool:
        """Whether the visitor may be remembered."""
        return True

    def override(self, name: str) -> str | None:
        """Return the arm that the visitor asks to see, if that is allowed."""
        return None

    def choose(self, name: str, context: ContextSource = None) -> str:
        """Return the id of the visitor's arm, assigning one if there is none.

        :param context: of the first choice in a visit, which decides; later ones give the same arm
        :raises UnknownBanditError: no bandit has that name
        :raises LateChoiceError: in debug, if the response's headers are already on their way
        """
        bandit = self.state.bandits[name]
        shown = self.shown.get(name)
        if shown is None:
            _ = self.cookie
            require_features(self.state, name, bandit, context)
            shown = self.shown[name] = self._show(name, bandit, context)
        return shown.arm

    def reward(
        self,
        name: str,
        value: float,
        rule: RewardRule = on_success,
        *,
        goal: str | None = None,
        event: str = "",
    ) -> bool:
        """Note what the visitor's arm earned; it is stored when the response is known.

        :param goal: the bandit's own if left out
        :param event: for goals that count every time: makes a repeated call count once
        :return: False if the visitor holds no arm of this bandit, or nothing counts now
        :raises ValueError: not a finite number, or with what this visit earned before outside
            the range that the bandit can learn from
        """
        bandit = self.state.bandits[name]
        key = earned_key(name, bandit, goal, event)
        value = bandit.check_reward(value, key.goal)
        _ = self.cookie
        common = common_arm(self, name, bandit)
        if common is not None:
            self.outcomes[name] = f"not counted: {common.how.replace('_', ' ')}"
            return False
        decision = self.held_decision(name)
        if decision is None:
            self.outcomes[name] = "nothing to reward: the visitor holds no arm"
            return False
        if self.is_committed:
            self._too_late(f"reward({name!r})")
            return False
        if self.forced(name) not in (None, decision.arm):
            self.outcomes[name] = "not counted: forced"
            return False
        earned = self._earned.setdefault((decision.id, key), Earned(decision))
        bandit.check_reward(earned.total + value, key.goal)
        earned.parts.append((value, rule))
        return True

    def held_decision(self, name: str) -> Decision | None:
        """Return the decision behind the visitor's arm, as far as it is known here."""
        decision = self._decisions.get(name)
        if decision is not None:
            return decision
        try:
            held = self._held(name) or self._removed(name)
        except StorageAwayError:
            return None
        if held is None or (held.pending and self._is_over_limit):
            return None
        decision = self._decision_behind(name, held)
        if held.pending and not self.is_committed:
            self._decisions[name] = decision
        return decision

    def forced(self, name: str) -> str | None:
        """Return the arm that a test forces now."""
        return forced_arms.get({}).get(name)

    def finish(self, response: Response) -> None:
        """Store what was chosen and earned; does so once, however often it is called."""
        if self.is_committed:
            return
        self.is_committed = True
        if not self.state.config.enabled or self.is_forgotten or not (self.shown or self._earned):
            return
        if self.verdict.counting is not Counting.COUNTED:
            self._store([], [])
            return
        accepted = self._accepted(response)
        rewarded = {earned.decision.id for earned, _, _ in accepted}
        decisions = [
            decision
            for decision in self._decisions.values()
            if decision.id in rewarded or not 400 <= response.status_code < 500
        ]
        # A reward needs the id that its decision gets in the end.
        first = [d for d in decisions if d.id in rewarded and not self.is_sticky(d.bandit)]
        if first and not self._store(first, []):
            accepted = [found for found in accepted if not self._is_lost(found[0])]
        rest = [decision for decision in decisions if decision not in first]
        rewards = [reward_for(earned.decision, key, value) for earned, key, value in accepted]
        self._store(rest, rewards)
        self._close_windows()

    def forget(self) -> bool:
        """Erase the visitor; nothing more is stored of this visit.

        :return: False if the storage is down, or bandits are switched off
        """
        if not self.state.config.enabled:
            return False
        self.is_forgotten = True
        cookie, subject = self.cookie, self.subject
        ids: set[str] = set()
        for name, row in cookie.assignments.items():
            # Of windows that were open at once, the last to answer need not have the last number.
            is_kept = name in self.state.bandits and self.is_sticky(name)
            ids |= row.decision_ids(cookie.visitor, name, ahead=0 if is_kept else FURTHEST)
        if subject is not None:
            # Each decision has left a pull, also where the code has the bandit no more.
            counted = self.state.engine.counts(self.attempt)
            if counted is None:
                return False
            try:
                for name, version in counted:
                    ids |= subject.decision_ids(name, version, self.attempt)
            except StorageAwayError:
                return False
        return self.state.engine.erase(ids, self.attempt)

    def _show(self, name: str, bandit: Bandit, context: ContextSource) -> Shown:
        shown = common_arm(self, name, bandit)
        if shown is None:
            try:
                held = self._held(name)
                if held is not None and bandit.is_sticky:
                    shown = self._remembered(name, held)
                else:
                    shown = self._new(name, bandit, context, takes_part=held is not None)
            except StorageAwayError:
                shown = Shown(bandit.arm_ids[0], "outage")
        self._note(name, shown.how)
        return shown

    def _note(self, name: str, how: str) -> None:
        """Count what is not counted, by reason."""
        if how not in (
            "decided",
            "remembered",
            "forced",
            "control",
            "disabled",
            "error_page",
            "forgotten",
        ):
            self.state.tally.note(name, self.control(name).version, how)

    def _remembered(self, name: str, held: Assignment) -> Shown:
        forced = self.forced(name)
        if forced not in (None, held.arm):
            return Shown(str(forced), "forced")
        if held.pending and self._is_over_limit:
            return Shown(held.arm, "limit")
        if held.pending and not self.is_ending:
            self._decisions[name] = self._decision_behind(name, held)
        return Shown(held.arm, "remembered")

    def _new(self, name: str, bandit: Bandit, context: ContextSource, *, takes_part: bool) -> Shown:
        control_arm = bandit.arm_ids[0]
        if self.is_committed:
            self._too_late(f"choosing {name!r}")
            return Shown(control_arm, "control")
        if self.is_forgotten:
            return Shown(control_arm, "forgotten")
        reason = None if takes_part else refusal(self, name, bandit)
        if reason is not None:
            return Shown(control_arm, reason)
        if not takes_part and self._is_over_limit:
            return Shown(control_arm, "limit")
        decision = self._drawn(name, context_of(self.state, name, context))
        if decision is None:
            is_counted = self.verdict.counting is Counting.COUNTED
            return Shown(control_arm, "outage" if is_counted else self.verdict.reason)
        return self._noted(name, decision, bandit)

    def _noted(self, name: str, decision: Decision, bandit: Bandit) -> Shown:
        """Keep a decision as far as it counts."""
        counting = self.verdict.counting
        if counting is Counting.UNCOUNTED:
            return Shown(decision.arm, self.verdict.reason)
        if self.is_on_error_page:
            return Shown(decision.arm, "error_page")
        if counting is Counting.PENDING:
            if self.keeps_prefetched(name):
                self._assign(decision, pending=True)
            return Shown(decision.arm, "prefetch")
        if self.subject is None or not bandit.is_sticky:
            self._decisions[name] = decision
            return Shown(decision.arm, "decided")
        # At once: whatever device or worker is first, all of them show the arm that is stored.
        stored = self._store_now([decision]).decisions[decision.id]
        self._own_rows()[name] = self.subject.assignment(stored, self._reassigned.get(name, 0))
        self.is_changed = True
        return Shown(stored.arm, "decided")

    @property
    def _is_over_limit(self) -> bool:
        """True if this visitor would be counted, and may not be."""
        would_count = self.verdict.counting is Counting.COUNTED and not self.is_ending
        return would_count and not self.within_limit()

    def _drawn(self, name: str, context: Context | None) -> Decision | None:
        subject, cookie = self.subject, self.cookie
        self.contexts[name] = context
        is_cookies = subject is None or not self.is_sticky(name)
        if is_cookies:
            held = cookie.assignments.get(name)
            # An assignment of this version that is not remembered names an arm that was removed,
            # or one of a bandit that draws anew each time.
            is_next = held is not None and held.version == self.control(name).version
            self._reassigned[name] = held.reassigned + 1 if held is not None and is_next else 0
            cookie.visitor = cookie.visitor or new_visitor()
        return self.state.engine.decide(
            name,
            cookie.visitor if subject is None or is_cookies else subject.pseudonym,
            self.attempt,
            reassigned=self._reassigned.get(name, 0),
            subject=None if subject is None else subject.pseudonym,
            context=context,
        )

    def _accepted(self, response: Response) -> list[tuple[Earned, EarnedKey, float]]:
        """Return what has earned something now, for what, and how much."""
        found = []
        for (_, key), earned in self._earned.items():
            value = earned.judged(response)
            if value is None:
                self.outcomes[key.bandit] = (
                    f"not rewarded: the response is a {response.status_code}"
                )
            else:
                found.append((earned, key, value))
        return found

    def _is_lost(self, earned: Earned) -> bool:
        """Tell whether the decision that earned something could not be stored."""
        name = earned.decision.bandit
        is_lost = earned.decision is self._decisions.get(name) and not self.is_sticky(name)
        if is_lost:
            self.outcomes[name] = "not recorded: the storage is down"
        return is_lost

    def settled_decision(self, name: str) -> Decision | None:
        """Return the decision behind the visitor's arm, under the id that it has for good.

        Where the bandit is not sticky, it is stored for that.

        :return: ``None`` if there is none, or it could not be stored
        """
        decision = self._decisions.get(name)
        if decision is None or self.is_sticky(name):
            return self.held_decision(name)
        if self.is_committed or not self._store([decision], []):
            self._decisions.pop(name, None)
            return None
        return self.held_decision(name)

    def _close_windows(self) -> None:
        for name in self.shown:
            if self.state.bandits[name].options.reward_window is not None:
                self.state.closer.poke(name)

    def _too_late(self, what: str) -> None:
        message = (
            f"{what} comes after the response's headers were sent, so it can be neither counted "
            "nor remembered: do it before the response starts to stream"
        )
        if self.state.app.debug:
            raise LateChoiceError(message)
        logger.error(message)
