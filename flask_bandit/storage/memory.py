"""The reference storage: the rules of a commit with a lock around them, in one process.

Imports only the model, the errors and the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import ConfigurationError
from ..model import Counts, Decision, LogEntry, Reward
from .base import BanditStorage, Commit, CommitResult
from .codec import clean_commit
from .ledger import Ledger
from .locks import ThreadLock, deadline_of


class MemoryBanditStorage(BanditStorage):
    """Keeps everything in this process and forgets it at the end: for tests and trials.

    It answers exactly as the storages that last, and refuses the same values.
    """

    def __init__(self) -> None:
        self._lock = ThreadLock("the counts in memory")
        self._ledger = Ledger()
        self._decisions: dict[str, Decision] = {}
        self._rewards: dict[str, list[Reward]] = {}

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
            outcome = self._ledger.apply(clean)
            for write in clean.decisions:
                self._decisions.setdefault(write.decision.id, write.decision)
            seen = set()
            for sent in clean.rewards:
                reward = sent.reward
                if reward.id in outcome.new and reward.id not in seen:
                    seen.add(reward.id)
                    self._rewards.setdefault(reward.decision_id, []).append(reward)
            return CommitResult(
                decisions={w.decision.id: self._decisions[w.decision.id] for w in clean.decisions},
                new=frozenset(outcome.new),
                applied=tuple(outcome.applied),
                parked=frozenset(outcome.parked),
                unlearned=tuple((r, self._decisions[r.decision_id]) for r in outcome.unlearned),
            )
        finally:
            self._lock.release()

    def read_counts(self, timeout: float | None = None) -> Counts:
        """Return the sums of all bandits and versions; see :meth:`BanditStorage.read_counts`.

        :raises StorageTimeoutError: other threads kept it busy all the time
        """
        self._lock.acquire(deadline_of(timeout))
        try:
            return self._ledger.snapshot()
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
            return {id_: self._decisions[id_] for id_ in ids if id_ in self._decisions}
        finally:
            self._lock.release()

    def iter_log(self, bandit: str | None = None) -> Iterator[LogEntry]:
        """Yield the log as it was at the call; see :meth:`BanditStorage.iter_log`."""
        self._lock.acquire(None)
        try:
            entries = [
                LogEntry(decision, tuple(self._rewards.get(decision.id, ())))
                for decision in self._decisions.values()
                if bandit is None or decision.bandit == bandit
            ]
        finally:
            self._lock.release()
        return iter(entries)
