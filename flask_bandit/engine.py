"""Decide and commit: the only place where a policy meets a storage.

Knows no Flask. A decision's id and the uniform number that draws its arm come from one hash, so
the request path has no random generator, and what is sent twice counts once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

from .bandits import Bandit
from .breaker import Attempt, Call, CircuitBreaker
from .control import Control, act
from .controls import Controls
from .counting import decision_delta, needs_decision, reward_delta
from .drawing import DrawTable
from .errors import StorageError, StorageTimeoutError
from .hashing import hash_decision, is_held_out
from .learned import Learned
from .model import HELD_OUT, ArmStats, BanditKey, Counts, Decision, Reward, StatsDelta
from .snapshot import Snapshot
from .storage.base import (
    Adjustment,
    BanditStorage,
    Commit,
    CommitResult,
    DecisionWrite,
    RewardWrite,
)

logger = logging.getLogger("flask_bandit")

LATE_DECISION = 10.0
"""Seconds between making and storing a decision, after which it counts as made when stored."""

_T = TypeVar("_T")

forced_arms: ContextVar[Mapping[str, str]] = ContextVar("flask_bandit_forced_arms")
"""Bandit -> the arm that tests draw in place of chance; see :func:`flask_bandit.testing.force`."""


class Engine:
    """Decides for all bandits of one app on one storage.

    :param timeout: seconds that one request may spend on storage
    :param stats_ttl: seconds for which read counts are used; ``None``: the storage's default
    :param control_ttl: seconds for which what operators decided is used
    :param learn_ttl: seconds for which what policies learned from contexts is used
    :param on_failed: called once when an outage begins, with the error
    :param on_recovered: called once when it ends
    :param on_changed: called with a bandit's name, its control and what was done, after a change
    """

    def __init__(
        self,
        storage: BanditStorage,
        bandits: Mapping[str, Bandit],
        *,
        timeout: float = 1.0,
        stats_ttl: float | None = None,
        control_ttl: float = 1.0,
        learn_ttl: float = 1.0,
        on_failed: Callable[[Exception], object] = lambda error: None,
        on_recovered: Callable[[], object] = lambda: None,
        on_changed: Callable[[str, Control, str], object] = lambda name, control, action: None,
    ) -> None:
        self.storage = storage
        self.bandits = bandits
        self.timeout = timeout
        self._stats_ttl = storage.default_stats_ttl if stats_ttl is None else stats_ttl
        self._on_failed = on_failed
        self._on_recovered = on_recovered
        self._on_changed = on_changed
        self._breaker = CircuitBreaker()
        self._controls = Controls(
            storage,
            ttl=control_ttl,
            timeout=timeout,
            guard=self._guarded,
            is_down=lambda: self._breaker.is_open,
        )
        self._learned = Learned(storage, bandits, ttl=learn_ttl, guard=self._guarded)
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None

    @property
    def is_storage_down(self) -> bool:
        """True during an outage."""
        return self._breaker.is_open

    def attempt(self) -> Attempt:
        """Return a fresh deadline, one for each request."""
        return Attempt(self.timeout)

    def control(self, name: str, attempt: Attempt | None = None) -> Control:
        """Return what operators decided about a bandit, as of ``control_ttl`` seconds ago at most.

        While the storage is down it is what was known before.

        :param attempt: a request's, which asks the storage at most once
        """
        return self._controls.get(name, self.attempt() if attempt is None else attempt)

    def change(self, name: str, action: str, subject: Any = None, by: str = "") -> Control:
        """Do one of :data:`~flask_bandit.control.ACTIONS` to a bandit, for all workers.

        :param subject: the arm to declare, or the weights
        :param by: who does it, for the history
        :raises LifecycleError: not in its present state
        :raises StorageError: the storage is down
        """
        arms = self.bandits[name].arm_ids
        before, control = self.update_control(
            name, lambda control: act(control, action, arms, time.time(), subject, by)
        )
        if control != before:
            self._on_changed(name, control, action)
        return control

    def update_control(
        self, name: str, update: Callable[[Control], Control]
    ) -> tuple[Control, Control]:
        """Change a bandit's stored control by compare-and-swap, and return it before and after."""
        return self._controls.update(name, update)

    def version(self, name: str) -> int:
        """Return the bandit's version in force."""
        return self.control(name).version

    def table(
        self, name: str, attempt: Attempt, context: Mapping[str, Any] | None = None
    ) -> DrawTable | None:
        """Return the bandit's present probabilities; ``None`` while the storage is down.

        :param context: features of the choice, for what learns from them
        """
        found = self._drawing(name, attempt, context)
        return None if found is None else found[0]

    def _drawing(
        self, name: str, attempt: Attempt, context: Mapping[str, Any] | None
    ) -> tuple[DrawTable, str] | None:
        """Return the probabilities, and the version of the policy that gave them."""
        bandit, control = self.bandits[name], self.control(name, attempt)
        snapshot = self._fresh_snapshot(attempt)
        if snapshot is None:
            return None
        if not (bandit.is_contextual or control.model or name in self._learned.serving):
            return snapshot.table(name, bandit, control), bandit.policy_version
        counts = snapshot.counts(BanditKey(name, control.version))
        chances = self._learned.chances(name, control, counts, context, attempt)
        if chances is None:
            return snapshot.table(name, bandit, control), bandit.policy_version
        drawing = control.drawing(bandit.arm_ids)
        return bandit.draw_table(counts, drawing=drawing, chances=chances.of), chances.version

    def decide(
        self,
        name: str,
        visitor: str,
        attempt: Attempt,
        *,
        reassigned: int = 0,
        subject: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Decision | None:
        """Draw an arm for a visitor; nothing is stored yet.

        :param visitor: what the decision's id is made of, see :func:`hash_decision`
        :param reassigned: how often the visitor was re-assigned before
        :param subject: pseudonym to store with the decision
        :param context: features of the choice, checked; they are stored with the decision, as an
            empty context if left out
        :return: ``None`` while the storage is down
        """
        bandit, control = self.bandits[name], self.control(name, attempt)
        forced = forced_arms.get({}).get(name)
        held_out = forced is None and is_held_out(visitor, name, bandit.options.holdout)
        drawing: tuple[DrawTable, str] | None
        if forced is not None:
            drawing = DrawTable.certain(bandit.arm_ids, forced), "forced"
        elif held_out:
            drawing = DrawTable.certain(bandit.arm_ids, bandit.arm_ids[0]), "holdout"
        else:
            drawing = self._drawing(name, attempt, context)
        if drawing is None:
            return None
        table, policy = drawing
        if context is None and bandit.features is not None:
            # Nothing was known. None is for what is not known any more.
            context = {}
        id_, uniform = hash_decision(visitor, name, control.version, reassigned)
        return Decision(
            id=id_ + HELD_OUT if held_out else id_,
            bandit=name,
            version=control.version,
            arm=table.draw(uniform),
            propensities=table.propensities,
            policy_version=policy,
            at=time.time(),
            context=context,
            subject=subject,
        )

    def commit(
        self,
        decisions: Iterable[Decision],
        rewards: Iterable[Reward],
        attempt: Attempt,
        adjustments: tuple[Adjustment, ...] = (),
    ) -> CommitResult | None:
        """Store decisions and rewards in one atomic step, each counted once however often sent.

        :return: what is stored; ``None`` while the storage is down, and then nothing is
        """
        # In the order of their ids: requests that lock the same rows do it in the same order.
        decisions = tuple(sorted(map(_as_of_now, decisions), key=attrgetter("id")))
        rewards = tuple(sorted(rewards, key=attrgetter("id")))
        known = self._known_decisions(decisions, rewards, attempt)
        if known is None:
            return None
        made = [DecisionWrite(d, self._decision_delta(d)) for d in decisions]
        earned = [RewardWrite(r, self._reward_delta(r, known.get(r.decision_id))) for r in rewards]
        commit = Commit(tuple(made), tuple(earned), adjustments)
        result = self._guarded(partial(self.storage.commit, commit), attempt, Call.WRITE)
        if result is not None:
            self._add_own(result)
            if result.unlearned:
                self._learn(result.unlearned, attempt)
        return result

    def get_decisions(self, ids: Iterable[str], attempt: Attempt) -> Mapping[str, Decision] | None:
        """Return the stored decisions among ``ids``; ``None`` while the storage is down."""
        return self._guarded(partial(self.storage.get_decisions, tuple(ids)), attempt)

    def erase(self, ids: Iterable[str], attempt: Attempt) -> bool:
        """Remove the subjects and contexts of decisions; False while the storage is down."""
        erased = self._guarded(partial(self.storage.erase, tuple(ids)), attempt, Call.WRITE)
        return erased is not None

    def read_counts(self) -> Counts:
        """Read all sums from storage.

        :raises StorageError: the storage is down
        """
        try:
            return self.storage.read_counts(self.timeout)
        except StorageError:
            raise
        except Exception as error:
            raise StorageError(f"the bandits' storage cannot be read: {error}") from error

    def counts(self, attempt: Attempt) -> Counts | None:
        """Read all sums within a request's deadline; ``None`` while the storage is down."""
        return self._guarded(self.storage.read_counts, attempt)

    def stats(self) -> dict[str, dict[str, ArmStats]]:
        """Read the counts of all bandits from storage in one go, arms in the order of the code.

        :raises StorageError: the storage is down
        """
        counts = self.read_counts()
        found = {}
        for name, bandit in self.bandits.items():
            arms = counts.get(BanditKey(name, self.version(name)), {})
            found[name] = {arm: ArmStats.from_counts(arms.get(arm, {})) for arm in bandit.arm_ids}
        return found

    def _fresh_snapshot(self, attempt: Attempt) -> Snapshot | None:
        snapshot = self._snapshot
        now = time.monotonic()
        if (
            snapshot is not None
            and not self._breaker.is_open
            and (attempt.has_read or now - snapshot.read_at < self._stats_ttl)
        ):
            return snapshot
        counts = self.counts(attempt)
        if counts is None:
            return None
        attempt.has_read = True
        with self._lock:
            self._snapshot = Snapshot(counts, now, time.time())
            return self._snapshot

    def _guarded(
        self, ask: Callable[[float], _T], attempt: Attempt, call: Call = Call.READ
    ) -> _T | None:
        """Call the storage within the deadline; ``None`` if it is down or just failed."""
        if not self._breaker.allows(attempt):
            return None
        try:
            with attempt as timeout:
                if timeout <= 0.0:
                    raise StorageTimeoutError(f"nothing left of the deadline of {self.timeout} s")
                result = ask(timeout)
        except Exception as error:  # whatever a storage raises, the page is still answered
            if self._breaker.failed(attempt, call):
                logger.exception("The bandits' storage failed; control arms until it is back")
                self._on_failed(error)
            return None
        if self._breaker.succeeded(call):
            logger.warning("The bandits' storage is back")
            self._on_recovered()
        return result

    def _known_decisions(
        self, decisions: tuple[Decision, ...], rewards: tuple[Reward, ...], attempt: Attempt
    ) -> dict[str, Decision] | None:
        """Return the decisions that rewards are learned with, read in one go where needed."""
        if not rewards:
            return {}
        sent = {decision.id: decision for decision in decisions}
        missing = {
            reward.decision_id
            for reward in rewards
            if reward.decision_id not in sent and self._needs_decision(reward)
        }
        # The stored decision may have another context than the one that is sent, so a reward of
        # the same commit is counted once it is known which of them it is.
        known = {id_: d for id_, d in sent.items() if not self.bandits[d.bandit].is_contextual}
        if missing:
            read = self.get_decisions(missing, attempt)
            if read is None:
                return None
            known.update(read)
        return known

    def _decision_delta(self, decision: Decision) -> StatsDelta:
        bandit = self.bandits[decision.bandit]
        return decision_delta(bandit.policy, bandit.options, decision)

    def _needs_decision(self, reward: Reward) -> bool:
        bandit = self.bandits[reward.bandit]
        return needs_decision(bandit.policy, bandit.options, reward.decision_id, reward.goal)

    def _reward_delta(self, reward: Reward, decision: Decision | None) -> StatsDelta | None:
        bandit = self.bandits[reward.bandit]
        if decision is None:
            if self._needs_decision(reward):
                return None
            decision = Decision(
                id=reward.decision_id,
                bandit=reward.bandit,
                version=reward.version,
                arm=reward.arm,
                propensities=None,
                policy_version="",
                at=reward.at,
            )
        return reward_delta(bandit.policy, bandit.options, decision, reward)

    def _learn(self, unlearned: Iterable[tuple[Reward, Decision]], attempt: Attempt) -> None:
        """Count rewards whose increment had to wait for the decision as it is stored."""
        writes = tuple(
            RewardWrite(replace(reward, arm=stored.arm), self._reward_delta(reward, stored))
            for reward, stored in unlearned
        )
        commit = Commit(rewards=writes)
        result = self._guarded(partial(self.storage.commit, commit), attempt, Call.WRITE)
        if result is not None:
            self._add_own(result)

    def _add_own(self, result: CommitResult) -> None:
        if self._stats_ttl <= 0.0:  # the next decision reads the counts anew
            return
        with self._lock:
            if self._snapshot is not None:
                for key, delta in result.applied:
                    self._snapshot.add(BanditKey(*key), delta)


def _as_of_now(decision: Decision) -> Decision:
    """Let a decision that was made long before it is stored be made now.

    Who closes windows and who sums up the log rely on it: nothing is stored with a time that is
    over.
    """
    now = time.time()
    return replace(decision, at=now) if now - decision.at > LATE_DECISION else decision
