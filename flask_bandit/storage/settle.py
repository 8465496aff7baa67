"""A commit in a database's transaction: which rows to read, and which to write then.

The rules are the ledger's. A storage reads the rows that :func:`touched` names, lets
:func:`settle` apply the commit to them, and writes the :class:`Change`. Imports no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from ..model import Decision, FloatArray, Reward, StatsDelta
from .base import Adjustment, Commit, CommitResult, DecisionWrite, RewardWrite
from .ledger import Ledger, Waiting, counts_only, total

_Counted = TypeVar("_Counted", DecisionWrite, Adjustment)


class CountKey(NamedTuple):
    """The key of one sum."""

    bandit: str
    version: int
    arm: str
    name: str


class ArrayKey(NamedTuple):
    """The key of one array of sums."""

    bandit: str
    version: int
    arm: str
    name: str


class Touched(NamedTuple):
    """Ids of what a commit concerns, each sorted and without duplicates.

    :param decisions: of the decisions that are sent, and of those that rewards are for
    :param sent: of the decisions that are sent; rewards that wait for them are concerned too
    """

    decisions: list[str]
    sent: list[str]
    rewards: list[str]
    adjustments: list[str]


def touched(commit: Commit) -> Touched:
    """Return what has to be read before a commit is applied."""
    sent = {write.decision.id for write in commit.decisions}
    rewarded = {write.reward.decision_id for write in commit.rewards}
    return Touched(
        decisions=sorted(sent | rewarded),
        sent=sorted(sent),
        rewards=sorted({write.reward.id for write in commit.rewards}),
        adjustments=sorted({item.id for item in commit.adjustments}),
    )


@dataclass(frozen=True, slots=True)
class StoredReward:
    """A reward as a row holds it.

    :param reward: as it was first sent
    :param arm: the arm that ``delta`` was computed for
    :param counted: whether ``delta`` is in the counts
    """

    reward: Reward
    arm: str
    delta: StatsDelta | None
    counted: bool

    @classmethod
    def from_writes(cls, writes: Sequence[RewardWrite], counted: bool) -> StoredReward:
        """Turn what :meth:`writes` returned back into the row."""
        last = writes[-1]
        return cls(writes[0].reward, last.reward.arm, last.delta, counted)

    def writes(self) -> tuple[RewardWrite, ...]:
        """Return what has to be sent to another storage to make an equal row."""
        if self.delta is None or self.arm == self.reward.arm:
            return (RewardWrite(self.reward, self.delta),)
        corrected = RewardWrite(replace(self.reward, arm=self.arm), self.delta)
        return (RewardWrite(self.reward, None), corrected)


@dataclass(slots=True)
class Change:
    """The rows to write, and the answer.

    :param decisions: to insert, in the order sent
    :param new_rewards: to insert, in the order sent
    :param updated_rewards: stored before, with another ``arm``, ``delta`` or ``counted`` now
    :param counts: what to add to each sum, sorted by key
    :param arrays: what to add to each array, likewise; no row keeps its terms
    """

    result: CommitResult
    decisions: list[DecisionWrite] = field(default_factory=list)
    new_rewards: list[StoredReward] = field(default_factory=list)
    updated_rewards: list[StoredReward] = field(default_factory=list)
    adjustments: list[Adjustment] = field(default_factory=list)
    counts: dict[CountKey, float] = field(default_factory=dict)
    arrays: dict[ArrayKey, FloatArray] = field(default_factory=dict)


def settle(
    commit: Commit,
    decisions: Mapping[str, Decision],
    rewards: Iterable[StoredReward],
    adjustments: Iterable[str],
) -> Change:
    """Apply a clean commit to the rows that it concerns.

    :param decisions: by id, the stored ones among ``touched(commit).decisions``, and those that
        ``rewards`` are for: a reward may come again for another decision
    :param rewards: the stored ones among ``touched(commit).rewards``, and those not counted whose
        decision is among ``touched(commit).sent``
    :param adjustments: the stored ones among ``touched(commit).adjustments``
    :raises StorageError: terms of this commit for one array are not of one length
    """
    ledger = Ledger()
    for decision in decisions.values():
        slot = ledger.slot(decision.bandit, decision.version, decision.arm)
        ledger.decisions[decision.id] = slot
    before = {stored.reward.id: stored for stored in rewards}
    for stored in before.values():
        ledger.rewards.add(stored.reward.id)
        if not stored.counted:
            ledger.wait(Waiting(stored.reward, stored.arm, stored.delta))
    ledger.adjustments.update(adjustments)
    outcome = ledger.apply(commit)
    known = {write.decision.id: write.decision for write in reversed(commit.decisions)}
    known.update(decisions)
    change = Change(
        CommitResult(
            decisions={write.decision.id: known[write.decision.id] for write in commit.decisions},
            new=frozenset(outcome.new),
            applied=tuple(outcome.applied),
            parked=frozenset(outcome.parked),
            unlearned=tuple((reward, known[reward.decision_id]) for reward in outcome.unlearned),
        )
    )
    # setdefault: the first of two with one id is stored.
    new: dict[str, DecisionWrite] = {}
    for write in commit.decisions:
        if write.decision.id not in decisions:
            new.setdefault(write.decision.id, write)
    change.decisions = [_without_terms(write) for write in new.values()]
    _add_rewards(change, commit, ledger, outcome.counted, before)
    items: dict[str, Adjustment] = {}
    for item in commit.adjustments:
        if item.id in outcome.new:
            items.setdefault(item.id, item)
    change.adjustments = [_without_terms(item) for item in items.values()]
    change.counts = _sums(outcome.applied)
    change.arrays = _array_sums(outcome.applied)
    return change


def _without_terms(item: _Counted) -> _Counted:
    return replace(item, delta=counts_only(item.delta)) if item.delta.terms else item


def grown(key: ArrayKey, stored: FloatArray | None, added: FloatArray) -> FloatArray:
    """Return the array to write in the place of the stored one.

    :param stored: ``None`` where there is none yet
    :raises StorageError: they are not of one length, or the sum is too large for a float
    """
    return total(key.arm, key.name, stored, added)


def _add_rewards(
    change: Change,
    commit: Commit,
    ledger: Ledger,
    counted: Mapping[str, Waiting],
    before: Mapping[str, StoredReward],
) -> None:
    concerned = dict.fromkeys(write.reward.id for write in commit.rewards)
    concerned.update(dict.fromkeys(before))
    for id_ in concerned:
        waiting = counted.get(id_) or ledger.waiting.get(id_)
        if waiting is None:
            continue
        row = StoredReward(
            waiting.reward,
            waiting.arm,
            None if waiting.delta is None else counts_only(waiting.delta),
            id_ in counted,
        )
        if id_ not in before:
            change.new_rewards.append(row)
        elif row != before[id_]:
            change.updated_rewards.append(row)


def _array_sums(
    applied: Iterable[tuple[tuple[str, int], StatsDelta]],
) -> dict[ArrayKey, FloatArray]:
    sums: dict[ArrayKey, FloatArray] = {}
    for (bandit, version), delta in applied:
        for term in delta.terms:
            key, added = ArrayKey(bandit, version, term.arm, term.name), term.expanded()
            sums[key] = grown(key, sums.get(key), added)
    return dict(sorted(sums.items()))


def _sums(applied: Iterable[tuple[tuple[str, int], StatsDelta]]) -> dict[CountKey, float]:
    sums: dict[CountKey, float] = {}
    for (bandit, version), delta in applied:
        for arm, row in delta.counts.items():
            for name, value in row.items():
                key = CountKey(bandit, version, arm, name)
                sums[key] = sums.get(key, 0) + value
    return dict(sorted(sums.items()))
