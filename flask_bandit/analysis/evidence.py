"""What is known of a bandit's arms, lined up for the statistics, and which test may use it.

Pure; must not import Flask or a storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..model import ArmStats, FloatArray
from .digest import Digest, Span
from .posteriors import BetaPosterior, Posterior, StudentPosterior
from .reading import Question
from .regions import Region
from .results import NOT_YET, REGION, SEQUENCE
from .sequences import Sequence, mature, sequence
from .twin import Weighted

LOGGED_SHARE = 0.9
"""With less of the pulls in the log, the counts tell more of 0/1 rewards than the log does."""
FEWEST_PULLS = 2
"""A single pull shows no variance."""


@dataclass(frozen=True)
class Evidence:
    """Counts and log of one version."""

    stats: Mapping[str, ArmStats]
    digest: Digest
    question: Question

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Those in play, the control first, and then those that are gone."""
        return tuple(dict.fromkeys([*self.question.arms, *self.stats]))

    @property
    def played(self) -> int:
        """How many of the arms are in play."""
        return len(self.question.arms)

    @cached_property
    def pulls(self) -> FloatArray:
        """Decisions for each arm."""
        return self._column("pulls")

    @cached_property
    def rewards(self) -> FloatArray:
        """Rewards counted for each arm."""
        return self._column("rewards")

    @cached_property
    def reward(self) -> FloatArray:
        """What each arm earned."""
        return self._column("reward")

    @cached_property
    def reward_sq(self) -> FloatArray:
        """Sum of the squares of what each arm's decisions earned."""
        squares = self._column("reward_sq")
        if self.question.is_once:
            return squares
        # The counts have the squares of single rewards; those of whole decisions are in the log.
        rows = [self.total.arms.get(arm) for arm in self.arms]
        known = [row.moment(0, 0) if row else 0.0 for row in rows]
        logged = np.array([row.moment(2, 0) if row else 0.0 for row in rows])
        scaled = logged * self.pulls / np.maximum(known, 1.0)
        return np.where(np.array(known) > 0.0, scaled, squares)

    def _column(self, name: str) -> FloatArray:
        return np.array([float(getattr(self._stats(arm), name)) for arm in self.arms])

    def _stats(self, arm: str) -> ArmStats:
        return self.stats.get(arm) or ArmStats()

    @cached_property
    def total(self) -> Span:
        """The whole log as one span."""
        return self.digest.total()

    @cached_property
    def visitors(self) -> int:
        """All decisions that are counted."""
        return int(self.pulls.sum())

    @property
    def noun(self) -> str:
        """What they are called: by context, each request may make a choice of its own."""
        return "decision" if self.question.by_context else "visitor"

    @cached_property
    def is_binary(self) -> bool:
        """True if each decision earned 0 or 1."""
        stats = map(self._stats, self.arms)
        return self.question.is_once and all(
            each.reward == each.reward_sq and 0.0 <= each.reward <= each.pulls for each in stats
        )

    @cached_property
    def spread(self) -> float:
        """Variance of all arms' rewards per pull; 0 where all are equal or nothing is known."""
        if not self.visitors:
            return 0.0
        mean = float(self.reward.sum()) / self.visitors
        square = float(self.reward_sq.sum()) / self.visitors
        spread = square - mean * mean
        return spread if spread > 1e-12 * max(mean * mean, square) else 0.0

    def posterior(
        self, pulls: FloatArray, reward: FloatArray, reward_sq: FloatArray
    ) -> Posterior | None:
        """Return what is believed after such counts; ``None`` where they say nothing.

        :param pulls: of any shape whose last axis is arms
        """
        if self.is_binary:
            return BetaPosterior(pulls, np.clip(reward, 0.0, pulls), self.question.prior)
        if not self.spread or pulls.size == 0 or pulls.min() < FEWEST_PULLS:
            return None
        return StudentPosterior(pulls, reward, reward_sq, self.spread)

    @cached_property
    def sequence(self) -> Sequence | None:
        """What the logged probabilities tell, where the log has most of the decisions."""
        if self._has_little:
            return None
        if not self.total.vectors or self.played < 2:
            return None
        return sequence(mature(self.digest.spans, self.question.window), self.question.arms)

    @cached_property
    def region(self) -> Region | None:
        """The counts of the arms in play, where rewards are 0 or 1 and arms are for all alike."""
        if not self.is_binary or self.question.by_context:
            return None
        return Region(self.pulls[: self.played], self.reward[: self.played])

    @cached_property
    def weighted(self) -> Weighted | None:
        """What each arm in play earns if everybody gets it; ``None`` if arms are for all alike."""
        if not self.question.by_context:
            return None
        return Weighted.of(mature(self.digest.spans, self.question.window), self.question.arms)

    @property
    def test(self) -> Sequence | Region | None:
        """What decides now: the sequence, or before it is ripe the region if there is one."""
        if self.sequence and (self.sequence.is_ripe or not self.region):
            return self.sequence
        return self.region

    @property
    def method(self) -> str:
        """The word for it."""
        if not self.test:
            return NOT_YET
        return SEQUENCE if self.test is self.sequence else REGION

    def would_decide(self, scale: float) -> bool:
        """Tell whether a test decides if there are so many times as many decisions as now."""
        tests = {id(test): test for test in (self.test, self.sequence) if test}
        return any(t.decides(self.question.alpha, scale) is not None for t in tests.values())

    @property
    def obstacle(self) -> str:
        """Why there is no test, and what to change."""
        if not self.total.vectors:
            why = "the log has no probabilities"
            return why if self.question.by_context else f"{why}, and rewards are not 0 or 1"
        if self._has_little:
            return "the log has less than nine tenths of the decisions; the others were pruned"
        return "two of the arms were never offered together; reset the bandit"

    @property
    def _has_little(self) -> bool:
        return self.is_binary and self.total.known < LOGGED_SHARE * self.visitors

    @property
    def is_waiting(self) -> bool:
        """True if there will be a test as soon as decisions can earn nothing more."""
        has_mature = mature(self.digest.spans, self.question.window)
        return self.test is None and bool(self.total.vectors) and not has_mature
