"""Replay: what a policy would have earned that learns from its own choices, from a log of others'.

Unbiased where the log has an arm's exact probability (Li, Chu, Langford and Wang 2011, "Unbiased
offline evaluation of contextual-bandit-based news article recommendation algorithms"). Pure: the
same log gives the same numbers. Must not import Flask or a storage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..algorithms.base import Prepared
from ..bandits import Bandit
from ..errors import ConfigurationError
from ..hashing import hash_share
from ..model import (
    Decision,
    FloatArray,
    LogEntry,
    StatsDelta,
    add_counts,
    add_terms,
)
from .clustered import LEVEL, Estimate, quantile
from .logged import Left, is_whole, why_no_choice

FEWEST = 20.0
"""Events that a policy is expected to be replayed on, at least."""
POINTS = 60
"""Of a policy's curve."""
EVEN = 1e-3
"""How much an arm's probability may differ, as a share, in a uniform log."""


@dataclass
class Survey:
    """What is in a log, read once before it is replayed.

    :ivar events: that can be replayed
    :ivar arms: that were taken or could be
    :ivar least: smallest probability of an arm that was taken
    :ivar most: largest
    :ivar reward: sum of what the events earned
    :ivar other_goals: of rewards that do not count
    :ivar left: decisions that cannot be replayed, by reason
    :ivar certain: likewise, since an arm that could be chosen had probability 0
    """

    events: int = 0
    arms: list[str] = field(default_factory=list)
    least: float = 1.0
    most: float = 0.0
    reward: float = 0.0
    reward_sq: float = 0.0
    rewards: int = 0
    other_goals: set[str] = field(default_factory=set)
    left: Left = field(default_factory=Left)
    certain: int = 0

    @property
    def is_uniform(self) -> bool:
        """True if each event had the same probability."""
        return self.most - self.least <= EVEN * self.most

    @property
    def expected(self) -> float:
        """How many events each policy is replayed on, on average."""
        return self.events * self.least

    @property
    def logged(self) -> Estimate | None:
        """Reward per event as it was earned; ``None`` below two events."""
        return mean_of(self.events, self.reward, self.reward_sq)

    def require_enough(self) -> None:
        """Raise if nothing can be said.

        :raises ConfigurationError: too few events, or too unequal ones
        """
        if not self.events:
            raise ConfigurationError(
                f"no decision in the log can be replayed (left out: {self.left}); log decisions "
                "with their probabilities, and name a bandit that it has"
            )
        if self.expected < FEWEST:
            raise ConfigurationError(
                f"of {self.events:,} events only about {self.expected:.1f} would be replayed, since"
                f" the smallest logged probability of an arm is {self.least:.2g}; replay a log of"
                f" arms with equal probabilities, or one with at least {FEWEST / self.least:,.0f}"
                " events"
            )


def survey(
    entries: Iterable[LogEntry], goal: str, progress: Callable[[int], object] = lambda count: None
) -> Survey:
    """Read a log for what a replay needs to know of all of it.

    :param goal: whose rewards count
    :param progress: called with 1 after each entry
    """
    found = Survey()
    arms: dict[str, None] = {}
    for entry in entries:
        progress(1)
        propensities = _usable(entry.decision, found)
        if propensities is None:
            continue
        arms.update(dict.fromkeys(propensities))
        chance = propensities[entry.decision.arm]
        found.least, found.most = min(found.least, chance), max(found.most, chance)
        value = earned(entry, goal)
        found.events += 1
        found.reward += value
        found.reward_sq += value * value
        found.rewards += any(one.goal == goal for one in entry.rewards)
        found.other_goals.update(one.goal for one in entry.rewards if one.goal != goal)
    found.arms = list(arms)
    return found


def _usable(decision: Decision, tally: Survey | None = None) -> Mapping[str, float] | None:
    """Return a decision's probabilities, or count why it cannot be replayed."""
    reason = why_no_choice(decision)
    propensities = decision.propensities or {}
    is_certain = not reason and is_whole(propensities) and min(propensities.values()) <= 0.0
    if tally is not None and reason:
        setattr(tally.left, reason, getattr(tally.left, reason) + 1)
    if tally is not None and is_certain:
        tally.certain += 1
    return None if reason or is_certain else propensities


def earned(entry: LogEntry, goal: str) -> float:
    """Return what a decision earned for a goal."""
    return sum(one.value for one in entry.rewards if one.goal == goal)


@dataclass(frozen=True)
class Replay:
    """What came of a policy.

    :param version: name and parameters of the policy
    :param accepted: events at which it chose what was logged; it learned from these only
    :param reward: per accepted event; ``None`` if there are fewer than two
    :param shares: arm -> share of the accepted events
    :param curve: (events read, accepted so far, reward per accepted event so far)
    """

    version: str
    accepted: int
    reward: Estimate | None
    shares: Mapping[str, float]
    curve: tuple[tuple[int, int, float], ...]


def replay(
    bandit: Bandit,
    entries: Iterable[LogEntry],
    found: Survey,
    goal: str,
    *,
    seed: int = 0,
    progress: Callable[[int], object] = lambda count: None,
) -> Replay:
    """Let a bandit go through a log, and learn from what it would have chosen too.

    An event with the arm a is accepted with the probability pi(a) m / p(a), where p was logged and
    m is the smallest p(a) of all: so each event is as likely to be accepted as any other, m, and
    given that it is, its arm has the probability pi(a). In a uniform log that is pi(a). All other
    events are as if they had never been. The coin follows from the event's id, and is the same for
    each policy.

    :param bandit: without arms; it gets those of the log
    :param entries: as surveyed
    :param found: the survey
    :param seed: another one tosses other coins
    :param progress: called with 1 after each entry
    :raises ConfigurationError: the policy cannot learn from a reward of the log, or fails
    """
    found.require_enough()
    player = _Player(bandit, found.arms)
    tally = _Tally(found.events)
    for entry in entries:
        progress(1)
        decision = entry.decision
        propensities = _usable(decision)
        if propensities is None:
            continue
        eligible = tuple(propensities) if is_whole(propensities) else tuple(found.arms)
        chances = player.chances(eligible, decision.context)
        chance = chances[decision.arm] * found.least / propensities[decision.arm]
        accepted = hash_share(decision.id, f"replay {seed}", "") < chance
        if accepted:
            value = _checked(bandit, decision, earned(entry, goal))
            player.learn(decision, chances, value, is_rewarded=bool(entry.rewards))
            tally.add(decision.arm, value)
        tally.step()
    return tally.result(bandit.policy_version)


def _checked(bandit: Bandit, decision: Decision, value: float) -> float:
    try:
        return bandit.check_reward(value)
    except ValueError as error:
        raise ConfigurationError(f"the event {decision.id!r}: {error}") from None


class _Player:
    """A bandit and what it has learned so far."""

    def __init__(self, bandit: Bandit, arms: Sequence[str]) -> None:
        for arm in arms:
            bandit.add_arm(arm)
        self._bandit = bandit
        self._counts: dict[str, dict[str, float]] = {}
        self._arrays: dict[str, dict[str, FloatArray]] = {}
        self._known: dict[tuple[str, ...], Mapping[str, float]] = {}
        self._prepared: dict[tuple[str, ...], Prepared] = {}

    def chances(
        self, eligible: tuple[str, ...], context: Mapping[str, Any] | None
    ) -> Mapping[str, float]:
        """Return the probabilities that an arm would be drawn with now."""
        drawing = dict.fromkeys(eligible, 1.0)
        if self._bandit.is_contextual:

            def of(arms: tuple[str, ...]) -> Sequence[float]:
                return self._bandit.plain(self._ready(arms).propensities(context), arms)

            return self._bandit.draw_table(self._counts, drawing=drawing, chances=of).propensities
        if eligible not in self._known:
            table = self._bandit.draw_table(self._counts, drawing=drawing)
            self._known[eligible] = table.propensities
        return self._known[eligible]

    def _ready(self, arms: tuple[str, ...]) -> Prepared:
        if arms not in self._prepared:
            self._prepared[arms] = self._bandit.prepare(arms, self._counts, self._arrays)
        return self._prepared[arms]

    def learn(
        self,
        logged: Decision,
        chances: Mapping[str, float],
        value: float,
        *,
        is_rewarded: bool,
    ) -> None:
        """Add a decision, made with the probabilities of this policy, and what it earned."""
        policy = self._bandit.policy
        made = Decision(
            logged.id,
            logged.bandit,
            logged.version,
            logged.arm,
            chances,
            self._bandit.policy_version,
            logged.at,
            logged.context,
            logged.subject,
        )
        delta: StatsDelta = policy.on_decision(made)
        if is_rewarded:
            delta = delta + policy.on_reward(made, value)
        add_counts(self._counts, delta)
        add_terms(self._arrays, delta.terms)
        self._known.clear()
        self._prepared.clear()


class _Tally:
    """Counts what a policy earned."""

    def __init__(self, events: int) -> None:
        self._every = max(1, events // POINTS)
        self._read = self._accepted = 0
        self._reward = self._reward_sq = 0.0
        self._pulls: dict[str, int] = {}
        self._curve: list[tuple[int, int, float]] = []

    def add(self, arm: str, value: float) -> None:
        self._accepted += 1
        self._reward += value
        self._reward_sq += value * value
        self._pulls[arm] = self._pulls.get(arm, 0) + 1

    def step(self) -> None:
        self._read += 1
        if self._read % self._every == 0 and self._accepted:
            self._curve.append((self._read, self._accepted, self._reward / self._accepted))

    def result(self, version: str) -> Replay:
        return Replay(
            version,
            self._accepted,
            mean_of(self._accepted, self._reward, self._reward_sq),
            {arm: pulls / self._accepted for arm, pulls in self._pulls.items()},
            tuple(self._curve),
        )


def mean_of(count: int, total: float, squares: float) -> Estimate | None:
    """Return a mean with its 95 % interval from sums; ``None`` below two values.

    For values of 0 and 1 it is Wilson's interval, which has a width when all are 0 too (Wilson
    1927, "Probable inference, the law of succession, and statistical inference").
    """
    if count < 2:
        return None
    mean = total / count
    variance = max(squares / count - mean * mean, 0.0)
    estimate = Estimate.of(mean, math.sqrt(variance / (count - 1)))
    if total != squares or not 0.0 <= total <= count:
        return estimate
    z = quantile((1.0 + LEVEL) / 2.0)
    scale = 1.0 + z * z / count
    middle = (mean + z * z / (2.0 * count)) / scale
    reach = z / scale * math.sqrt(variance / count + z * z / (4.0 * count * count))
    return replace(estimate, low=max(middle - reach, 0.0), high=min(middle + reach, 1.0))
