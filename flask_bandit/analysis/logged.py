"""The log as arrays, a batch at a time: what off-policy evaluation and training read.

Leaves out, and counts, what says nothing about a policy. Pure; must not import Flask or a storage.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model import Decision, FloatArray, IntArray, LogEntry

BATCH = 2000
"""Decisions that are read at once."""
FORCED, HOLDOUT = "forced", "holdout"
"""The policy versions of decisions that no policy made."""
TOLERANCE = 1e-6
"""How far from 1 the logged probabilities of all eligible arms may sum."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Logged:
    """Some n decisions between K arms, in the order of the log.

    :param arms: the K arm ids; of what is logged, only these are here
    :param arm: place in ``arms`` of the arm that was taken, shape (n,)
    :param reward: what each decision earned, the sum of its rewards for the goal, shape (n,)
    :param propensity: probability of the arm that was taken, above 0, shape (n,)
    :param propensities: of all arms, shape (n, K); 0 for an arm that was not eligible
    :param eligible: which arms could be chosen, shape (n, K)
    :param contexts: features as logged, without private ones
    :param clusters: subject, or for an anonymous visitor the decision's id
    :param alone: whether the cluster is this decision only, shape (n,)
    :param at: seconds since the epoch, shape (n,)
    :param version: of the bandit, shape (n,)
    :param ids: of the decisions
    """

    arms: tuple[str, ...]
    arm: IntArray
    reward: FloatArray
    propensity: FloatArray
    propensities: FloatArray
    eligible: BoolArray
    contexts: Sequence[Mapping[str, Any] | None]
    clusters: Sequence[str]
    alone: BoolArray
    at: FloatArray
    version: IntArray
    ids: Sequence[str]

    def __len__(self) -> int:
        return int(self.arm.size)

    def taken(self, values: FloatArray) -> FloatArray:
        """Return of each row of ``values``, shape (n, K), that of the arm taken, shape (n,)."""
        picked: FloatArray = values[np.arange(self.arm.size), self.arm]
        return picked


@dataclass
class Left:
    """How many decisions were left out of a log, by reason; filled while it is read.

    :ivar forced: a test asked for the arm
    :ivar holdout: visitors who always get the control
    :ivar pruned: only the counts of the decision are left
    :ivar unknown: the probabilities are not known, or only the one of the arm taken
    :ivar gone: the arm taken is none of the arms that are asked about
    :ivar immature: the reward window was open
    :ivar unseen: there was no context, and it is needed
    """

    forced: int = 0
    holdout: int = 0
    pruned: int = 0
    unknown: int = 0
    gone: int = 0
    immature: int = 0
    unseen: int = 0

    @property
    def total(self) -> int:
        """All that were left out."""
        return sum(asdict(self).values())

    def __str__(self) -> str:
        parts = [f"{n:,} {_REASONS[name]}" for name, n in asdict(self).items() if n]
        return ", ".join(parts) or "none"


_REASONS = {
    "forced": "forced by a test",
    "holdout": "of the holdout",
    "pruned": "pruned",
    "unknown": "without known probabilities",
    "gone": "of an arm that is gone",
    "immature": "whose reward window was open",
    "unseen": "without a context",
}


def read_log(
    entries: Iterable[LogEntry],
    arms: Sequence[str],
    *,
    goal: str,
    window: float | None = None,
    private: Collection[str] = (),
    size: int = BATCH,
    now: float | None = None,
    needs_context: bool = False,
    left: Left | None = None,
) -> Iterator[Logged]:
    """Yield a log as arrays, in constant memory.

    A decision between some of ``arms`` and others that are gone counts as one between ``arms``
    alone, if it took one of them: its probabilities are divided by their sum.

    :param entries: of one bandit
    :param arms: what is asked about, such as the arms in the code
    :param goal: whose rewards count
    :param window: seconds within which a reward must come; ``None``: whenever
    :param private: features that are not read
    :param size: decisions in a batch
    :param now: seconds since the epoch; decisions whose window is open then are left out, by
        default none
    :param needs_context: leave out decisions without a context
    :param left: counts what is left out
    :raises ValueError: an arm is named twice, or none is
    """
    if len(set(arms)) != len(arms) or not arms:
        raise ValueError(f"the arms are {list(arms)}; name at least one, and each once")
    reader = _Reader(tuple(arms), goal, window, frozenset(private), now, needs_context)
    left = Left() if left is None else left
    rows = (row for entry in entries if (row := reader.row(entry, left)) is not None)
    while batch := list(islice(rows, size)):
        yield reader.lined_up(batch)


@dataclass(frozen=True, slots=True)
class _Row:
    decision: Decision
    arm: int
    reward: float
    chances: Mapping[int, float]
    context: Mapping[str, Any] | None


class _Reader:
    """Makes rows of entries, and batches of rows."""

    def __init__(
        self,
        arms: tuple[str, ...],
        goal: str,
        window: float | None,
        private: frozenset[str],
        now: float | None,
        needs_context: bool,
    ) -> None:
        self._arms, self._goal, self._private = arms, goal, private
        self._window = math.inf if window is None else window
        self._until = math.inf if now is None or window is None else now - window
        self._needs_context = needs_context
        self._places = {arm: place for place, arm in enumerate(arms)}

    def row(self, entry: LogEntry, left: Left) -> _Row | None:
        """Return what an entry says, or count why it says nothing."""
        decision = entry.decision
        reason = self._obstacle(decision)
        if reason:
            setattr(left, reason, getattr(left, reason) + 1)
            return None
        assert decision.propensities is not None
        known = {
            self._places[arm]: chance
            for arm, chance in decision.propensities.items()
            if arm in self._places
        }
        if len(known) < len(decision.propensities):
            total = sum(known.values())
            known = {place: chance / total for place, chance in known.items()}
        last = decision.at + self._window
        reward = sum(
            one.value for one in entry.rewards if one.goal == self._goal and one.at <= last
        )
        place = self._places[decision.arm]
        return _Row(decision, place, reward, known, self._public(decision.context))

    def _obstacle(self, decision: Decision) -> str:
        """Return the reason for which a decision is left out; empty if it is not."""
        reason = why_no_choice(decision)
        if reason:
            return reason
        if not is_whole(decision.propensities or {}):
            return "unknown"
        if decision.arm not in self._places:
            return "gone"
        if decision.at > self._until:
            return "immature"
        return "unseen" if self._needs_context and decision.context is None else ""

    def _public(self, context: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if context is None or not self._private:
            return context
        return {name: value for name, value in context.items() if name not in self._private}

    def lined_up(self, rows: Sequence[_Row]) -> Logged:
        """Return rows as arrays."""
        propensities = np.zeros((len(rows), len(self._arms)))
        eligible = np.zeros(propensities.shape, dtype=bool)
        for number, row in enumerate(rows):
            places = list(row.chances)
            propensities[number, places] = list(row.chances.values())
            eligible[number, places] = True
        decisions = [row.decision for row in rows]
        arm = np.array([row.arm for row in rows], dtype=np.int64)
        return Logged(
            arms=self._arms,
            arm=arm,
            reward=np.array([row.reward for row in rows], dtype=np.float64),
            propensity=propensities[np.arange(len(rows)), arm],
            propensities=propensities,
            eligible=eligible,
            contexts=[row.context for row in rows],
            clusters=[made.id if made.subject is None else made.subject for made in decisions],
            alone=np.array([made.subject is None for made in decisions]),
            at=np.array([made.at for made in decisions]),
            version=np.array([made.version for made in decisions], dtype=np.int64),
            ids=[made.id for made in decisions],
        )


def why_no_choice(decision: Decision) -> str:
    """Return why a decision is no policy's, as :class:`Left` calls it; empty if it is."""
    if decision.policy_version == FORCED:
        return "forced"
    if decision.is_held_out or decision.policy_version == HOLDOUT:
        return "holdout"
    if decision.is_pruned:
        return "pruned"
    return "" if (decision.propensities or {}).get(decision.arm) else "unknown"


def is_whole(propensities: Mapping[str, float]) -> bool:
    """Return whether these are the probabilities of all eligible arms, not of one only."""
    return abs(sum(propensities.values()) - 1.0) < TOLERANCE
