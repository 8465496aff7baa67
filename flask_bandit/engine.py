"""Decide and commit: the only place where a policy meets a storage.

Knows no Flask. A decision's id and the uniform number that draws its arm come from one hash, so
the request path has no random generator, and what is sent twice counts once.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import TypeVar

from .algorithms.base import PolicyProtocol
from .bandits import Bandit, DrawTable
from .breaker import Attempt, CircuitBreaker
from .errors import StorageError, StorageTimeoutError
from .model import (
    DEFAULT_GOAL,
    ArmStats,
    BanditKey,
    Counts,
    Decision,
    Reward,
    StatsDelta,
    add_counts,
)
from .storage.base import (
    BanditStorage,
    Commit,
    CommitResult,
    DecisionWrite,
    RewardWrite,
)

logger = logging.getLogger("flask_bandit")

FIRST_VERSION = 1

_T = TypeVar("_T")


def hash_decision(visitor: str, bandit: str, version: int, reassigned: int) -> tuple[str, float]:
    """Return a decision's id (32 hex digits) and its uniform number in [0, 1).

    :param reassigned: how often this visitor was re-assigned because an arm had been removed
    """
    text = "\x1f".join((visitor, bandit, str(version), str(reassigned)))
    digest = hashlib.blake2b(text.encode(), digest_size=24, person=b"flask-bandit").digest()
    # 53 bits: a float holds no more, and 64 could round up to 1.0.
    return digest[:16].hex(), (int.from_bytes(digest[16:], "big") >> 11) / 2**53


def reward_id(decision_id: str, goal: str = DEFAULT_GOAL) -> str:
    """Return the id under which a decision's reward for a goal counts once."""
    return f"{decision_id}:{goal}"


class Snapshot:
    """Counts as read at one moment, plus what this process has committed since."""

    def __init__(self, counts: Counts, read_at: float) -> None:
        self.read_at = read_at
        self._counts = dict(counts)
        self._tables: dict[BanditKey, DrawTable] = {}

    def table(self, key: BanditKey, bandit: Bandit) -> DrawTable:
        """Return the bandit's probabilities, computed once until its counts change."""
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = bandit.draw_table(self._counts.get(key, {}))
        return table

    def add(self, key: BanditKey, delta: StatsDelta) -> None:
        """Add an increment of this process."""
        # A copy, and then one assignment: other threads read while this one adds.
        old = self._counts.get(key, {})
        changed = {arm: dict(old.get(arm, {})) for arm in delta.counts}
        add_counts(changed, delta)
        self._counts[key] = {**old, **changed}
        self._tables.pop(key, None)


class Engine:
    """Decides for all bandits of one app on one storage.

    :param timeout: seconds that one request may spend on storage
    :param stats_ttl: seconds for which read counts are used; ``None``: the storage's default
    :param on_failed: called once when an outage begins, with the error
    :param on_recovered: called once when it ends
    """

    def __init__(
        self,
        storage: BanditStorage,
        bandits: Mapping[str, Bandit],
        *,
        timeout: float = 1.0,
        stats_ttl: float | None = None,
        on_failed: Callable[[Exception], object] = lambda error: None,
        on_recovered: Callable[[], object] = lambda: None,
    ) -> None:
        self.storage = storage
        self.bandits = bandits
        self.timeout = timeout
        self._stats_ttl = storage.default_stats_ttl if stats_ttl is None else stats_ttl
        self._on_failed = on_failed
        self._on_recovered = on_recovered
        self._breaker = CircuitBreaker()
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None

    @property
    def is_storage_down(self) -> bool:
        """True during an outage."""
        return self._breaker.is_open

    def attempt(self) -> Attempt:
        """Return a fresh deadline, one for each request."""
        return Attempt(self.timeout)

    def version(self, name: str) -> int:
        """Return the bandit's version in force."""
        return FIRST_VERSION

    def table(self, name: str, attempt: Attempt) -> DrawTable | None:
        """Return the bandit's present probabilities; ``None`` while the storage is down."""
        snapshot = self._fresh_snapshot(attempt)
        if snapshot is None:
            return None
        return snapshot.table(BanditKey(name, self.version(name)), self.bandits[name])

    def decide(
        self, name: str, visitor: str, attempt: Attempt, *, reassigned: int = 0
    ) -> Decision | None:
        """Draw an arm for a visitor; nothing is stored yet.

        :param reassigned: how often the visitor was re-assigned before, see :func:`hash_decision`
        :return: ``None`` while the storage is down
        """
        table = self.table(name, attempt)
        if table is None:
            return None
        version = self.version(name)
        decision_id, uniform = hash_decision(visitor, name, version, reassigned)
        return Decision(
            id=decision_id,
            bandit=name,
            version=version,
            arm=table.draw(uniform),
            propensities=table.propensities,
            policy_version=self.bandits[name].policy_version,
            at=time.time(),
        )

    def commit(
        self, decisions: Iterable[Decision], rewards: Iterable[Reward], attempt: Attempt
    ) -> CommitResult | None:
        """Store decisions and rewards in one atomic step, each counted once however often sent.

        :return: what is stored; ``None`` while the storage is down, and then nothing is
        """
        # In the order of their ids: requests that lock the same rows do it in the same order.
        decisions = tuple(sorted(decisions, key=attrgetter("id")))
        rewards = tuple(sorted(rewards, key=attrgetter("id")))
        known = self._known_decisions(decisions, rewards, attempt)
        if known is None:
            return None
        made = [DecisionWrite(d, self._policy(d.bandit).on_decision(d)) for d in decisions]
        earned = [RewardWrite(r, self._reward_delta(r, known.get(r.decision_id))) for r in rewards]
        commit = Commit(tuple(made), tuple(earned))
        result = self._guarded(partial(self.storage.commit, commit), attempt, writing=True)
        if result is not None:
            self._add_own(result)
            if result.unlearned:
                self._learn(result.unlearned, attempt)
        return result

    def stats(self) -> dict[str, dict[str, ArmStats]]:
        """Read the counts of all bandits from storage in one go, arms in the order of the code.

        :raises StorageError: the storage is down
        """
        try:
            counts = self.storage.read_counts(self.timeout)
        except StorageError:
            raise
        except Exception as error:
            raise StorageError(f"the bandits' storage cannot be read: {error}") from error
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
        counts = self._guarded(self.storage.read_counts, attempt)
        if counts is None:
            return None
        attempt.has_read = True
        with self._lock:
            self._snapshot = Snapshot(counts, now)
            return self._snapshot

    def _guarded(
        self, call: Callable[[float], _T], attempt: Attempt, *, writing: bool = False
    ) -> _T | None:
        """Call the storage within the deadline; ``None`` if it is down or just failed."""
        if not self._breaker.allows(attempt):
            return None
        try:
            with attempt as timeout:
                if timeout <= 0.0:
                    raise StorageTimeoutError(f"nothing left of the deadline of {self.timeout} s")
                result = call(timeout)
        except Exception as error:  # whatever a storage raises, the page is still answered
            if self._breaker.failed(attempt, writing):
                logger.exception("The bandits' storage failed; control arms until it is back")
                self._on_failed(error)
            return None
        if self._breaker.succeeded(writing):
            logger.warning("The bandits' storage is back")
            self._on_recovered()
        return result

    def _known_decisions(
        self, decisions: tuple[Decision, ...], rewards: tuple[Reward, ...], attempt: Attempt
    ) -> dict[str, Decision] | None:
        """Return the decisions that rewards are learned with, read in one go where needed."""
        if not rewards:
            return {}
        known = {decision.id: decision for decision in decisions}
        missing = {
            reward.decision_id
            for reward in rewards
            if reward.decision_id not in known and self._needs_decision(reward.bandit)
        }
        if missing:
            read = self._guarded(partial(self.storage.get_decisions, missing), attempt)
            if read is None:
                return None
            known.update(read)
        return known

    def _policy(self, name: str) -> PolicyProtocol:
        return self.bandits[name].policy

    def _needs_decision(self, name: str) -> bool:
        return bool(getattr(self._policy(name), "reward_needs_decision", False))

    def _reward_delta(self, reward: Reward, decision: Decision | None) -> StatsDelta | None:
        if decision is None:
            if self._needs_decision(reward.bandit):
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
        return self._policy(reward.bandit).on_reward(decision, reward.value)

    def _learn(self, unlearned: Iterable[tuple[Reward, Decision]], attempt: Attempt) -> None:
        """Count rewards whose increment had to wait for the decision as it is stored."""
        writes = tuple(
            RewardWrite(replace(reward, arm=stored.arm), self._reward_delta(reward, stored))
            for reward, stored in unlearned
        )
        commit = Commit(rewards=writes)
        result = self._guarded(partial(self.storage.commit, commit), attempt, writing=True)
        if result is not None:
            self._add_own(result)

    def _add_own(self, result: CommitResult) -> None:
        if self._stats_ttl <= 0.0:  # the next decision reads the counts anew
            return
        with self._lock:
            if self._snapshot is not None:
                for key, delta in result.applied:
                    self._snapshot.add(BanditKey(*key), delta)
