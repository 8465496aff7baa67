"""What models are fitted on, and what they are judged by: two parts of one log that never meet.

Must not import Flask.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..analysis.logged import Left, Logged, read_log, why_no_choice
from ..bandits import Bandit
from ..counting import is_for_evaluation
from ..features import Features
from ..learned import MODEL
from ..model import LogEntry
from ..storage.base import BanditStorage

GRACE = 5.0
"""Seconds that a reward window stays open longer, for rewards on their way and clocks that differ.
"""


def public_features(bandit: Bandit) -> Features | None:
    """Return the features that the log keeps: without private ones, ``None`` if none are left."""
    features = bandit.features
    if features is None:
        return None
    private = bandit.options.private
    spec = {name: form for name, form in features.spec().items() if name not in private}
    return Features.parse(spec) if spec else None


def mature_until(bandit: Bandit) -> float:
    """Return the time before which all decisions have earned what counts, seconds since 1970."""
    window = bandit.options.reward_window
    return time.time() - (0.0 if window is None else window + GRACE)


@dataclass(frozen=True)
class LogPart:
    """Where a part of a bandit's log is.

    :param name: of the bandit
    :param version: of the bandit; its other versions are another experiment
    :param since: decisions made from here on, seconds since the epoch
    :param until: and before this
    :param check: called now and then; what it raises ends the reading
    :param share: that was held out when the models in question were trained, ``None``: as it is now
    """

    storage: BanditStorage
    bandit: Bandit
    name: str
    version: int
    since: float
    until: float
    check: Callable[[], object] = lambda: None
    share: float | None = None

    def entries(self, *, is_held_out: bool) -> Iterator[LogEntry]:
        """Yield the decisions that are kept apart for evaluation, or the others."""
        options, since = self.bandit.options, self.since or None
        if self.share is not None:
            options = replace(options, evaluation=self.share)
        for entry in self.storage.iter_log(self.name, since=since, until=self.until):
            decision = entry.decision
            if (
                decision.version == self.version
                and is_for_evaluation(options, decision) == is_held_out
            ):
                yield entry

    def batches(self, entries: Iterator[LogEntry], left: Left) -> Iterator[Logged]:
        """Yield decisions as arrays, in constant memory.

        :param left: counts what tells nothing
        """
        options = self.bandit.options
        for batch in read_log(
            self._tossable(entries, left),
            self.bandit.arm_ids,
            goal=options.goal,
            window=options.reward_window,
            private=options.private,
            left=left,
        ):
            self.check()
            yield batch

    def _tossable(self, entries: Iterator[LogEntry], left: Left) -> Iterator[LogEntry]:
        """Yield decisions without those that may have been erased for a user.

        Their coin was tossed for the user, so nobody knows any more on which side they were.
        """
        for entry in entries:
            made = entry.decision
            is_bare = made.context is None and made.subject is None
            if is_bare and self.bandit.features is not None and not why_no_choice(made):
                left.unseen += 1
            else:
                yield entry


class TrainingData:
    """The decisions that a model may learn from, as arrays, a batch at a time.

    Each iteration reads the log anew. Decisions kept apart for evaluation are in none.
    """

    def __init__(self, part: LogPart) -> None:
        self._part = part
        self.name = part.name
        """Of the bandit."""
        self.version = part.version
        """Of the bandit."""
        self.arms = part.bandit.arm_ids
        """The arms in the code; of the log, only these are here."""
        self.features = public_features(part.bandit)
        """Without private ones; ``None`` if there are no others."""
        self.left = Left()
        """What the last iteration left out."""
        self.first = part.until
        """When the oldest decision was made, seconds since the epoch."""
        self.decisions = 0
        """How many the last iteration had."""
        self._sum = self._squares = 0.0

    def __iter__(self) -> Iterator[Logged]:
        part, self.left = self._part, Left()
        self.decisions, self._sum, self._squares = 0, 0.0, 0.0
        for batch in part.batches(part.entries(is_held_out=False), self.left):
            self.decisions += len(batch)
            self._sum += float(batch.reward.sum())
            self._squares += float((batch.reward**2).sum())
            self.first = min(self.first, float(batch.at.min()))
            yield batch

    @property
    def mean(self) -> float:
        """Reward per decision."""
        return self._sum / self.decisions if self.decisions else 0.0

    @property
    def variance(self) -> float:
        """Of the rewards of decisions."""
        if not self.decisions:
            return 0.0
        return max(self._squares / self.decisions - self.mean**2, 0.0)


class HeldOut:
    """The decisions that judge a model, as arrays, a batch at a time.

    :param champion: the model that the other one is compared with. For the policy of the code, 0,
        what it did is known by what was logged, so decisions that a model made are left out, and
        those of a policy that the code had before.
    """

    def __init__(self, part: LogPart, champion: int) -> None:
        self._part = part
        self._champion = champion
        self.left = Left()
        """What the last iteration left out."""
        self.of_models = 0
        """How many more it left out, since a model made them and not the champion."""
        self.of_others = 0
        """Likewise, since the code had another policy then."""

    def __iter__(self) -> Iterator[Logged]:
        self.left, self.of_models, self.of_others = Left(), 0, 0
        yield from self._part.batches(self._entries(), self.left)

    def _entries(self) -> Iterator[LogEntry]:
        policy = self._part.bandit.policy_version
        for entry in self._part.entries(is_held_out=True):
            made = entry.decision
            if self._champion or why_no_choice(made) or made.policy_version == policy:
                yield entry
            elif made.policy_version.startswith(MODEL):
                self.of_models += 1
            else:
                self.of_others += 1

    @property
    def left_out(self) -> str:
        """What the last iteration left out, in words."""
        parts = [str(self.left)] if self.left.total else []
        if self.of_models:
            parts.append(f"{self.of_models:,} made by models")
        if self.of_others:
            parts.append(f"{self.of_others:,} made by an earlier policy of the code")
        return ", ".join(parts) or "none"
