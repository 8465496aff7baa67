"""The reference storage: the rules of a commit with a lock around them, in one process.

Imports only the model, the errors and the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import ConfigurationError
from ..model import Arrays, BanditKey, Counts, Decision, LogEntry
from .base import (
    ARRAYS,
    Adjustment,
    BanditStorage,
    Commit,
    CommitResult,
    ControlState,
    DecisionWrite,
    RewardWrite,
    StoredDigest,
    arrays_adjustment,
)
from .codec import (
    clean_bandit,
    clean_commit,
    clean_contexts,
    clean_key,
    control_from_text,
    control_text,
)
from .digests import digest_from_text, digest_text
from .ledger import (
    Ledger,
    Outcome,
    counts_only,
    erased,
    is_erasable,
    is_logged,
    is_prunable,
    is_redactable,
)
from .locks import ThreadLock, deadline_of
from .settle import StoredReward


class MemoryBanditStorage(BanditStorage):
    """Keeps everything in this process and forgets it at the end: for tests and trials.

    It answers exactly as the storages that last, and refuses the same values.
    """

    def __init__(self) -> None:
        self._lock = ThreadLock("the counts in memory")
        self._ledger = Ledger()
        self._decisions: dict[str, DecisionWrite] = {}
        self._rewards: dict[str, dict[str, StoredReward]] = {}
        """By decision id, then by reward id."""
        self._adjustments: dict[str, Adjustment] = {}
        self._control: dict[str, str] = {}
        self._digests: dict[BanditKey, tuple[int, str]] = {}

    @classmethod
    def from_uri(cls, uri: str, **options: Any) -> MemoryBanditStorage:
        """Make a storage from ``memory://``.

        :raises ConfigurationError: the URI says more than that, or there are options
        """
        if uri not in ("memory:", "memory://", "memory:///"):
            raise ConfigurationError(f"{uri!r} is not a URI of a memory storage; use 'memory://'.")
        if options:
            raise ConfigurationError(
                f"A memory storage has no options; remove {', '.join(sorted(options))}."
            )
        return cls()

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        """Apply a commit atomically and idempotently; see :meth:`BanditStorage.commit`.

        :raises StorageTimeoutError: other threads kept it busy all the time
        :raises StorageError: a value cannot be stored
        """
        deadline = deadline_of(timeout)
        clean = clean_commit(commit)
        self._lock.acquire(deadline)
        try:
            outcome = self._ledger.apply(self._ledger.effective(clean), clean)
            self._keep(clean, outcome)
            stored = self._decisions
            return CommitResult(
                decisions={w.decision.id: stored[w.decision.id].decision for w in clean.decisions},
                new=frozenset(outcome.new),
                applied=tuple(outcome.applied),
                parked=frozenset(outcome.parked),
                unlearned=tuple((r, stored[r.decision_id].decision) for r in outcome.unlearned),
            )
        finally:
            self._lock.release()

    def _keep(self, commit: Commit, outcome: Outcome) -> None:
        """Remember what the ledger does not: everything but the sums."""
        for write in commit.decisions:
            kept = DecisionWrite(write.decision, counts_only(write.delta))
            self._decisions.setdefault(write.decision.id, kept)
        for item in commit.adjustments:
            self._adjustments.setdefault(item.id, replace(item, delta=counts_only(item.delta)))
        waiting = self._ledger.waiting
        for id_ in [*(write.reward.id for write in commit.rewards), *outcome.counted]:
            found = outcome.counted.get(id_) or waiting.get(id_)
            # Neither: it was counted by an earlier commit.
            if found is not None:
                delta = None if found.delta is None else counts_only(found.delta)
                row = StoredReward(found.reward, found.arm, delta, id_ in outcome.counted)
                self._rewards.setdefault(found.reward.decision_id, {})[id_] = row

    def read_counts(self, timeout: float | None = None) -> Counts:
        """Return the sums of all bandits and versions; see :meth:`BanditStorage.read_counts`.

        :raises StorageTimeoutError: other threads kept it busy all the time
        """
        self._lock.acquire(deadline_of(timeout))
        try:
            return self._ledger.snapshot()
        finally:
            self._lock.release()

    def read_arrays(self, timeout: float | None = None) -> Arrays:
        """Return the sums of all terms; see :meth:`BanditStorage.read_arrays`.

        :raises StorageTimeoutError: other threads kept it busy all the time
        """
        self._lock.acquire(deadline_of(timeout))
        try:
            return self._ledger.arrays_snapshot()
        finally:
            self._lock.release()

    def get_decisions(
        self, ids: Iterable[str], timeout: float | None = None
    ) -> Mapping[str, Decision]:
        """Return the stored decisions among ``ids``; see :meth:`BanditStorage.get_decisions`.

        :raises StorageTimeoutError: other threads kept it busy all the time
        """
        self._lock.acquire(deadline_of(timeout))
        try:
            known = self._decisions
            return {id_: known[id_].decision for id_ in ids if id_ in known}
        finally:
            self._lock.release()

    def iter_log(
        self,
        bandit: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[LogEntry]:
        """Yield the log as it was at the call; see :meth:`BanditStorage.iter_log`."""
        self._lock.acquire(None)
        try:
            entries = [
                LogEntry(write.decision, tuple(row.reward for row in self._rows(write.decision.id)))
                for write in self._decisions.values()
                if is_logged(write.decision, bandit, since, until)
            ]
        finally:
            self._lock.release()
        return iter(entries)

    def iter_commits(self) -> Iterator[Commit]:
        """Yield what is stored at the call; see :meth:`BanditStorage.iter_commits`."""
        self._lock.acquire(None)
        try:
            commits = [
                Commit((write,), self._writes(write.decision.id))
                for write in self._decisions.values()
            ]
            commits += [
                Commit(rewards=row.writes())
                for decision_id in self._rewards
                if decision_id not in self._decisions
                for row in self._rows(decision_id)
            ]
            commits += [
                Commit(adjustments=(item,))
                for item in self._adjustments.values()
                if not item.id.startswith(ARRAYS)
            ]
            commits += [
                Commit(adjustments=(arrays_adjustment(key, arrays),))
                for key, arrays in self._ledger.arrays_snapshot().items()
            ]
        finally:
            self._lock.release()
        return iter(commits)

    def prune(self, before: float) -> int:
        """Remove the details of old decisions; see :meth:`BanditStorage.prune`."""
        self._lock.acquire(None)
        try:
            old = (write.decision for write in self._decisions.values())
            return self._change(
                [one.id for one in old if is_prunable(one, before)], Decision.pruned
            )
        finally:
            self._lock.release()

    def erase(self, ids: Iterable[str], timeout: float | None = None) -> int:
        """Remove subjects and contexts; see :meth:`BanditStorage.erase`.

        :raises StorageTimeoutError: other threads kept it busy all the time
        """
        wanted = set(ids)
        self._lock.acquire(deadline_of(timeout))
        try:
            known = self._decisions
            found = [id_ for id_ in wanted if id_ in known and is_erasable(known[id_].decision)]
            return self._change(found, erased)
        finally:
            self._lock.release()

    def redact(
        self, contexts: Mapping[str, Mapping[str, Any] | None], timeout: float | None = None
    ) -> int:
        """Replace contexts; see :meth:`BanditStorage.redact`.

        :raises StorageTimeoutError: other threads kept it busy all the time
        :raises StorageError: a value cannot be stored
        """
        deadline = deadline_of(timeout)
        clean = clean_contexts(contexts)
        self._lock.acquire(deadline)
        try:
            known = self._decisions
            found = [id_ for id_ in clean if id_ in known and is_redactable(known[id_].decision)]
            return self._change(found, lambda made: replace(made, context=clean[made.id]))
        finally:
            self._lock.release()

    def _change(self, ids: list[str], change: Callable[[Decision], Decision]) -> int:
        for id_ in ids:
            write = self._decisions[id_]
            self._decisions[id_] = DecisionWrite(change(write.decision), write.delta)
        return len(ids)

    def read_control(self, timeout: float | None = None) -> Mapping[str, ControlState]:
        """Return what was decided about bandits; see :meth:`BanditStorage.read_control`.

        :raises StorageTimeoutError: other threads kept it busy all the time
        """
        self._lock.acquire(deadline_of(timeout))
        try:
            return {bandit: control_from_text(text) for bandit, text in self._control.items()}
        finally:
            self._lock.release()

    def write_control(
        self,
        bandit: str,
        state: ControlState,
        expected: ControlState | None,
        timeout: float | None = None,
    ) -> bool:
        """Replace what is still as expected; see :meth:`BanditStorage.write_control`.

        :raises StorageTimeoutError: other threads kept it busy all the time
        :raises StorageError: a value cannot be stored
        """
        deadline = deadline_of(timeout)
        name, text = clean_bandit(bandit), control_text(state)
        seen = None if expected is None else control_text(expected)
        self._lock.acquire(deadline)
        try:
            if self._control.get(name) != seen:
                return False
            self._control[name] = text
            return True
        finally:
            self._lock.release()

    def read_digest(self, key: BanditKey, timeout: float | None = None) -> StoredDigest | None:
        """Return the summary of a version's log; see :meth:`BanditStorage.read_digest`.

        :raises StorageTimeoutError: other threads kept it busy all the time
        """
        self._lock.acquire(deadline_of(timeout))
        try:
            found = self._digests.get(key)
        finally:
            self._lock.release()
        return None if found is None else digest_from_text(*found)

    def write_digest(
        self,
        key: BanditKey,
        state: Mapping[str, Any],
        revision: int,
        timeout: float | None = None,
    ) -> bool:
        """Keep a summary over the one that was seen; see :meth:`BanditStorage.write_digest`.

        :raises StorageTimeoutError: other threads kept it busy all the time
        :raises StorageError: a value cannot be stored
        """
        deadline = deadline_of(timeout)
        clean, text = clean_key(key), digest_text(state)
        self._lock.acquire(deadline)
        try:
            if self._digests.get(clean, (0, ""))[0] != revision:
                return False
            self._digests[clean] = (revision + 1, text)
            return True
        finally:
            self._lock.release()

    def _rows(self, decision_id: str) -> Iterable[StoredReward]:
        return self._rewards.get(decision_id, {}).values()

    def _writes(self, decision_id: str) -> tuple[RewardWrite, ...]:
        return tuple(write for row in self._rows(decision_id) for write in row.writes())
