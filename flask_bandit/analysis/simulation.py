"""What would happen: a bandit on visitors whose rates are known, many times over.

Pure: random numbers come from the caller's generator only. Must not import Flask or a storage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..algorithms import Policy, ThompsonPolicy
from ..algorithms.base import PolicyProtocol
from ..bandits import Bandit
from ..drawing import burnt_in, floored
from ..model import Decision, FloatArray, IntArray, Stats, StatsDelta

BATCH_SHARE = 0.01
"""Size of a batch as a share of the visitors before it."""
FIRST_CHECK = 100
"""Nobody decides before so many visitors, unless there are fewer."""
CHECK_GROWTH = 1.05
"""How many times as many visitors there are at the next check."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is simulated.

    :param rates: arm -> the probability in [0, 1] that a visitor who sees it is worth a reward of 1
    :param visitors: of each run, at least 1
    :param runs: at least 2, so that there is a standard error
    :param confidence: probability of being the best at which an arm is declared the winner
    """

    rates: Mapping[str, float]
    visitors: int = 10_000
    runs: int = 50
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it, over all runs.

    :param regret: rewards that the visitors would have brought more, had all seen the best arm:
        the mean of the runs, by the true rates
    :param regret_error: standard error of that mean
    :param shares: arm -> mean share of the visitors
    :param decided: share of the runs that came to a decision
    :param decided_after: visitors until then, the median of all runs; ``None`` if more than half
        of them did not get there
    :param right: share of the decisions that named a best arm; ``None`` if there was none
    """

    regret: float
    regret_error: float
    shares: Mapping[str, float]
    decided: float
    decided_after: int | None
    right: float | None


def batch_sizes(visitors: int) -> Iterator[int]:
    """Yield how many visitors come between two updates of the probabilities.

    One at first, later 1 % of those that have come so far.
    """
    seen = 0
    while seen < visitors:
        size = min(max(1, int(seen * BATCH_SHARE)), visitors - seen)
        yield size
        seen += size


def simulate(
    bandit: Bandit,
    plan: Plan,
    rng: np.random.Generator,
    progress: Callable[[int], object] = lambda count: None,
) -> Outcome:
    """Let a bandit's policy, floor and burn-in serve visitors whose rewards come at once.

    The probabilities are updated for each visitor at first, and later once per 1 % of the visitors
    so far (:func:`batch_sizes`), as workers also use counts that are a moment old. That makes the
    work logarithmic in the visitors. Upper bounds pay for it with somewhat more regret, KL-UCB
    most, since all of a batch gets the same arm.

    A run decides at the first check at which one arm is the best with probability
    ``plan.confidence``, by posteriors from Beta(1, 1). Checks are made at 100 visitors, whenever
    there are 5 % more, and at the end.

    :param bandit: its arms do not matter; those of the plan are used
    :param progress: called with 1 after each batch
    """
    sums = _Sums(bandit.policy, tuple(plan.rates), plan.runs)
    rates = np.array(list(plan.rates.values()))
    verdicts = _Verdicts(plan)
    seen = 0
    for size in batch_sizes(plan.visitors):
        probabilities = np.array(
            [_probabilities(bandit, sums.row(run)) for run in range(plan.runs)]
        )
        pulls = rng.multinomial(size, probabilities)
        sums.add(pulls, rng.binomial(pulls, rates), probabilities)
        seen += size
        verdicts.look(seen, sums)
        progress(1)
    shares = sums.pulls / plan.visitors
    regrets = plan.visitors * (shares @ (rates.max() - rates))
    return Outcome(
        regret=float(regrets.mean()),
        regret_error=float(regrets.std(ddof=1) / math.sqrt(plan.runs)),
        shares=dict(zip(plan.rates, shares.mean(axis=0).tolist(), strict=True)),
        decided=verdicts.decided,
        decided_after=verdicts.median,
        right=verdicts.right,
    )


def _probabilities(bandit: Bandit, stats: Stats) -> FloatArray:
    """Return what an arm is drawn with, shape (K,)."""
    burn_in = bandit.options.burn_in
    if not burn_in:
        return bandit.propensities(stats)
    values = burnt_in(bandit.policy.propensities(stats).tolist(), stats.pulls.tolist(), burn_in)
    return np.array(floored(values, bandit.options.share(len(values))))


class _Sums:
    """The sums of all runs: arrays of shape (runs, K), changed in place."""

    def __init__(self, policy: PolicyProtocol, arms: tuple[str, ...], runs: int) -> None:
        self._policy = policy
        self._arms = arms
        self._extra = tuple(getattr(policy, "extra", ()))
        self._version = str(getattr(policy, "version", ""))
        self.pulls: IntArray = np.zeros((runs, len(arms)), dtype=np.int64)
        self._rewards: IntArray = np.zeros((runs, len(arms)), dtype=np.int64)
        # A reward is 0 or 1, so it is its own square.
        self._reward: FloatArray = np.zeros((runs, len(arms)))
        self._own = {name: np.zeros((runs, len(arms))) for name in self._extra}
        self._has_plain_sums = all(
            getattr(getattr(policy, name), "__func__", None) is getattr(Policy, name)
            for name in ("on_decision", "on_reward")
        )

    def row(self, run: int) -> Stats:
        """Return one run's sums as a policy sees them."""
        reward = self._reward[run]
        own = {name: self._own[name][run] for name in self._extra}
        return Stats(self._arms, self.pulls[run], self._rewards[run], reward, reward, own)

    def add(self, pulls: IntArray, rewards: IntArray, probabilities: FloatArray) -> None:
        """Add a batch, each of shape (runs, K)."""
        self.pulls += pulls
        self._rewards += rewards
        self._reward += rewards
        if not self._has_plain_sums:
            for run in range(len(pulls)):
                self._add_own(run, pulls[run], rewards[run], probabilities[run])

    def _add_own(
        self, run: int, pulls: IntArray, rewards: IntArray, probabilities: FloatArray
    ) -> None:
        """Add the policy's own sums: all decisions of a batch for one arm add the same."""
        logged = dict(zip(self._arms, probabilities.tolist(), strict=True))
        counts = zip(self._arms, pulls.tolist(), rewards.tolist(), strict=True)
        for arm, decided, rewarded in counts:
            decision = Decision("", "", 0, arm, logged, self._version, 0.0)
            if decided:
                self._add_times(run, self._policy.on_decision(decision), decided)
            if rewarded:
                self._add_times(run, self._policy.on_reward(decision, 1.0), rewarded)

    def _add_times(self, run: int, delta: StatsDelta, times: int) -> None:
        for arm, row in delta.counts.items():
            for name in self._extra:
                if name in row:
                    self._own[name][run, self._arms.index(arm)] += times * row[name]


class _Verdicts:
    """When each run decided, and for which arm."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._posteriors = ThompsonPolicy((1.0, 1.0))
        self._next = FIRST_CHECK
        self._after = np.full(plan.runs, math.inf)
        self._is_right = np.zeros(plan.runs, dtype=bool)
        best = max(plan.rates.values())
        self._is_best = [rate == best for rate in plan.rates.values()]

    def look(self, seen: int, sums: _Sums) -> None:
        """Check the runs that have not decided, if it is time to."""
        if seen < self._next and seen < self._plan.visitors:
            return
        self._next = math.ceil(seen * CHECK_GROWTH)
        for run in np.flatnonzero(np.isinf(self._after)).tolist():
            chances = self._posteriors.propensities(sums.row(run))
            leader = int(chances.argmax())
            if chances[leader] >= self._plan.confidence:
                self._after[run] = seen
                self._is_right[run] = self._is_best[leader]

    @property
    def decided(self) -> float:
        """Share of the runs that decided."""
        return float(np.isfinite(self._after).mean())

    @property
    def median(self) -> int | None:
        """Visitors until half of the runs had decided; ``None`` if that did not happen."""
        middle = float(np.sort(self._after)[(self._after.size - 1) // 2])
        return int(middle) if math.isfinite(middle) else None

    @property
    def right(self) -> float | None:
        """Share of the decisions that named a best arm."""
        is_decided = np.isfinite(self._after)
        return float(self._is_right[is_decided].mean()) if is_decided.any() else None
