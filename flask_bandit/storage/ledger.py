"""The rules of a commit, written once: what is new, what is counted, what waits; and of the log.

A pure state machine in memory. It is not thread-safe and does no I/O; a storage puts a lock around
it (:class:`MemoryBanditStorage`) or replays a journal into it (:class:`JSONBanditStorage`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from ..errors import StorageError
from ..model import (
    Arrays,
    BanditKey,
    Counts,
    Decision,
    FloatArray,
    Reward,
    StatsDelta,
    Term,
    add_counts,
)
from .base import Adjustment, Commit, DecisionWrite, RewardWrite


class Slot(NamedTuple):
    """Where a decision is counted; one object is shared by all decisions of an arm."""

    key: BanditKey
    arm: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A reward that is stored but not counted.

    :param reward: as it was first sent
    :param arm: the arm for which ``delta`` was computed; a later sending may correct both
    :param delta: without terms, unless it is counted in the same step: they are never kept
    """

    reward: Reward
    arm: str
    delta: StatsDelta | None

    def fits(self, slot: Slot) -> bool:
        """Tell whether ``delta`` may be added now that the decision is known."""
        return (
            self.delta is not None
            and self.arm == slot.arm
            and self.reward.bandit == slot.key.bandit
            and self.reward.version == slot.key.version
        )


@dataclass(slots=True)
class Outcome:
    """What one commit did, by ids; the storage that keeps the decisions makes the result of it."""

    new: set[str] = field(default_factory=set)
    applied: list[tuple[tuple[str, int], StatsDelta]] = field(default_factory=list)
    parked: set[str] = field(default_factory=set)
    unlearned: list[Reward] = field(default_factory=list)
    counted: dict[str, Waiting] = field(default_factory=dict)


class Ledger:
    """Sums, and the ids that were added up in them."""

    def __init__(self) -> None:
        self.decisions: dict[str, Slot] = {}
        self.rewards: set[str] = set()
        self.adjustments: set[str] = set()
        self.counts: dict[BanditKey, dict[str, dict[str, float]]] = {}
        self.arrays: dict[BanditKey, dict[str, dict[str, FloatArray]]] = {}
        self.waiting: dict[str, Waiting] = {}
        self._waiting_for: dict[str, list[str]] = {}
        self._slots: dict[tuple[str, int, str], Slot] = {}
        self._changed: set[BanditKey] = set()
        self._snapshot: Counts = {}

    def effective(self, commit: Commit) -> Commit:
        """Return the part of ``commit`` that would change anything, each id at most once.

        Applying it gives the same state as applying all of ``commit``.

        :raises StorageError: it has terms that do not fit the arrays
        """
        decisions: dict[str, DecisionWrite] = {}
        for write in commit.decisions:
            if write.decision.id not in self.decisions:
                decisions.setdefault(write.decision.id, write)
        adjustments: dict[str, Adjustment] = {}
        for item in commit.adjustments:
            if item.id not in self.adjustments:
                adjustments.setdefault(item.id, item)
        effective = Commit(
            tuple(decisions.values()),
            tuple(self._effective_rewards(commit.rewards, decisions)),
            tuple(adjustments.values()),
        )
        self._require_fitting(effective)
        return effective

    def _effective_rewards(
        self, writes: Iterable[RewardWrite], new: Mapping[str, DecisionWrite]
    ) -> Iterator[RewardWrite]:
        """Yield the first sending of what is not stored yet, and the last increment of each."""
        first: dict[str, RewardWrite] = {}
        last: dict[str, RewardWrite] = {}
        for sent in writes:
            write = self._addable(sent, first.get(sent.reward.id, sent).reward, new)
            first.setdefault(write.reward.id, write)
            if write.delta is not None:
                last[write.reward.id] = write
        for reward_id, write in first.items():
            stored = self.waiting.get(reward_id)
            if reward_id not in self.rewards:
                yield write
                stored = Waiting(write.reward, write.reward.arm, write.delta)
            final = last.get(reward_id)
            if stored is None or final is None:
                continue
            # One that equals what is stored changes nothing, whatever was sent before it.
            if (final.reward.arm, final.delta) != (stored.arm, stored.delta):
                yield final

    def _addable(
        self, write: RewardWrite, first: Reward, new: Mapping[str, DecisionWrite]
    ) -> RewardWrite:
        """Return a reward without its increment where that has terms which cannot be added now.

        :param first: the reward as it was first sent, unless it is stored
        :param new: decisions that are stored in the same step
        """
        delta = write.delta
        if delta is None or not delta.terms:
            return write
        waiting = self.waiting.get(write.reward.id)
        if waiting is not None:
            first = waiting.reward
        slot = self.decisions.get(first.decision_id)
        made = new.get(first.decision_id)
        if made is not None:
            slot = Slot(made.decision.key, made.decision.arm)
        if slot is not None and Waiting(first, write.reward.arm, delta).fits(slot):
            return write
        return RewardWrite(write.reward, None)

    def _require_fitting(self, effective: Commit) -> None:
        """Refuse terms that cannot be added to the arrays, before anything is changed."""
        tried: dict[BanditKey, dict[str, dict[str, FloatArray]]] = {}
        for key, delta in _increments(effective):
            if delta.terms:
                arms = self.arrays.get(key, {})
                _add_terms(
                    tried.setdefault(key, {arm: dict(row) for arm, row in arms.items()}),
                    delta.terms,
                )

    def apply(self, commit: Commit, whole: Commit | None = None) -> Outcome:
        """Add a clean commit to the state: decisions first, then rewards, then adjustments.

        :param whole: the commit that ``commit`` is the effective part of: the outcome also tells
            of rewards that it concerns and does not change
        """
        outcome = Outcome()
        # Those of the effective part come first: their order is the order in which sums are added.
        concerned = self._concerned(commit)
        if whole is not None:
            concerned.update(self._concerned(whole))
        for write in commit.decisions:
            self._store_decision(write, outcome)
        for sent in commit.rewards:
            self._store_reward(sent, outcome)
        for reward_id in concerned:
            self._settle(reward_id, outcome)
        for item in commit.adjustments:
            if item.id not in self.adjustments:
                self.adjustments.add(item.id)
                outcome.new.add(item.id)
                self._add(BanditKey(item.bandit, item.version), item.delta, outcome)
        return outcome

    def _concerned(self, commit: Commit) -> dict[str, None]:
        """Return the ids of rewards to look at; a dict keeps the order and drops duplicates."""
        concerned: dict[str, None] = {}
        if self._waiting_for:
            for write in commit.decisions:
                concerned.update(dict.fromkeys(self._waiting_for.get(write.decision.id, ())))
        concerned.update(dict.fromkeys(sent.reward.id for sent in commit.rewards))
        return concerned

    def _store_decision(self, write: DecisionWrite, outcome: Outcome) -> None:
        decision = write.decision
        if decision.id in self.decisions:
            return
        slot = self.slot(decision.bandit, decision.version, decision.arm)
        self.decisions[decision.id] = slot
        outcome.new.add(decision.id)
        self._add(slot.key, write.delta, outcome)

    def _store_reward(self, write: RewardWrite, outcome: Outcome) -> None:
        reward = write.reward
        write = self._addable(write, reward, {})
        if reward.id not in self.rewards:
            self.rewards.add(reward.id)
            outcome.new.add(reward.id)
            self.wait(Waiting(reward, reward.arm, write.delta))
        elif reward.id in self.waiting and write.delta is not None:
            waiting = self.waiting[reward.id]
            self.waiting[reward.id] = replace(waiting, arm=reward.arm, delta=write.delta)

    def _settle(self, reward_id: str, outcome: Outcome) -> None:
        """Count a stored reward if it can be, and say so if it cannot."""
        waiting = self.waiting.get(reward_id)
        if waiting is None:
            return
        decision_id = waiting.reward.decision_id
        slot = self.decisions.get(decision_id)
        if slot is None:
            outcome.parked.add(reward_id)
        elif waiting.fits(slot):
            assert waiting.delta is not None
            del self.waiting[reward_id]
            siblings = self._waiting_for[decision_id]
            siblings.remove(reward_id)
            if not siblings:
                del self._waiting_for[decision_id]
            self._add(slot.key, waiting.delta, outcome)
            outcome.counted[reward_id] = waiting
        else:
            outcome.unlearned.append(waiting.reward)

    def _add(self, key: BanditKey, delta: StatsDelta, outcome: Outcome) -> None:
        if delta.terms:
            _add_terms(self.arrays.setdefault(key, {}), delta.terms)
        # A decision that stands for another one is no reason to name its bandit.
        if delta.counts:
            add_counts(self.counts.setdefault(key, {}), delta)
            self._changed.add(key)
        if delta.counts or delta.terms:
            outcome.applied.append((key, delta))

    def snapshot(self) -> Counts:
        """Return the sums as they are now; later commits do not change what was returned.

        Only bandits that changed since the last call are copied.
        """
        if self._changed:
            fresh = {
                key: {arm: dict(row) for arm, row in self.counts[key].items()}
                for key in self._changed
            }
            self._snapshot = {**self._snapshot, **fresh}
            self._changed.clear()
        return self._snapshot

    def arrays_snapshot(self) -> Arrays:
        """Return the arrays as they are now; later commits do not change what was returned."""
        return {
            key: {arm: dict(row) for arm, row in arms.items()} for key, arms in self.arrays.items()
        }

    def slot(self, bandit: str, version: int, arm: str) -> Slot:
        """Return the one slot object of this arm."""
        key = (bandit, version, arm)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = Slot(BanditKey(bandit, version), arm)
        return slot

    def slots(self) -> list[Slot]:
        """Return every arm that has a decision."""
        return list(self._slots.values())

    def wait(self, waiting: Waiting) -> None:
        """Remember a stored reward that is not counted yet."""
        reward = waiting.reward
        self.waiting[reward.id] = waiting
        self._waiting_for.setdefault(reward.decision_id, []).append(reward.id)

    def restore_counts(self, counts: Counts) -> None:
        """Take over sums that were saved, in place of replaying what led to them."""
        self.counts = {
            key: {arm: dict(row) for arm, row in arms.items()} for key, arms in counts.items()
        }
        self._changed = set(self.counts)

    def restore_arrays(self, arrays: Arrays) -> None:
        """Take over arrays that were saved, likewise."""
        self.arrays = {
            key: {arm: dict(row) for arm, row in arms.items()} for key, arms in arrays.items()
        }


def _increments(commit: Commit) -> Iterator[tuple[BanditKey, StatsDelta]]:
    for made in commit.decisions:
        yield made.decision.key, made.delta
    for given in commit.rewards:
        if given.delta is not None:
            yield given.reward.key, given.delta
    for item in commit.adjustments:
        yield BanditKey(item.bandit, item.version), item.delta


def _add_terms(arrays: dict[str, dict[str, FloatArray]], terms: Iterable[Term]) -> None:
    for term in terms:
        row = arrays.setdefault(term.arm, {})
        # In a new place: what was read before does not change.
        row[term.name] = total(term.arm, term.name, row.get(term.name), term.expanded())


def total(arm: str, name: str, stored: FloatArray | None, added: FloatArray) -> FloatArray:
    """Return the sum of an array, if there is one, and what is added to it.

    :raises StorageError: they are not of one length, or the sum is too large for a float
    """
    if stored is None:
        return added
    if stored.shape != added.shape:
        raise StorageError(
            f"The array {name!r} of arm {arm!r} has {stored.size} numbers, and {added.size} were to"
            " be added. Nothing was stored: other features need another name or version."
        )
    with np.errstate(over="ignore"):
        result: FloatArray = stored + added
    if not np.isfinite(result).all():
        raise StorageError(
            f"The array {name!r} of arm {arm!r} would be too large for floats. Nothing was stored:"
            " scale the features down."
        )
    return result


def counts_only(delta: StatsDelta) -> StatsDelta:
    """Return what is kept of an increment once it was added."""
    return StatsDelta(delta.counts) if delta.terms else delta


def without_terms(commit: Commit) -> Commit:
    """Return what is kept of a commit once it was applied."""
    return Commit(
        tuple(replace(made, delta=counts_only(made.delta)) for made in commit.decisions),
        tuple(
            replace(given, delta=None if given.delta is None else counts_only(given.delta))
            for given in commit.rewards
        ),
        tuple(replace(item, delta=counts_only(item.delta)) for item in commit.adjustments),
    )


def is_logged(
    decision: Decision, bandit: str | None, since: float | None, until: float | None
) -> bool:
    """Tell whether :meth:`BanditStorage.iter_log` yields a decision."""
    return (
        bandit in (None, decision.bandit)
        and (since is None or decision.at >= since)
        and (until is None or decision.at < until)
        and not decision.is_pruned
        and decision.stands_for is None
    )


def is_prunable(decision: Decision, before: float) -> bool:
    """Tell whether :meth:`BanditStorage.prune` has something to remove."""
    return decision.at < before and not decision.is_pruned and decision.stands_for is None


def is_erasable(decision: Decision) -> bool:
    """Tell whether :meth:`BanditStorage.erase` has something to remove."""
    return decision.subject is not None or decision.context is not None


def erased(decision: Decision) -> Decision:
    """Return a decision without what says who it was made for."""
    return replace(decision, subject=None, context=None)


def is_redactable(decision: Decision | None) -> bool:
    """Tell whether :meth:`BanditStorage.redact` may replace a decision's context."""
    return decision is not None and decision.context is not None
