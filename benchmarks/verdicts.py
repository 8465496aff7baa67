"""Verdicts, intervals and alarms: how often they are wrong, and how often they come.

All runs of a scenario go in step, as rows of arrays. Visitors come in batches of 50; after each,
Thompson's probabilities are computed anew, and somebody looks whether a test decides. The tests'
thresholds are the library's own, and some runs are held against the library's verdict.

Run ``python -m benchmarks.verdicts``; ``--runs`` for more of them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from flask_bandit.analysis.digest import Digest, Ratio, Span
from flask_bandit.analysis.distributions import beta_cdf
from flask_bandit.analysis.ratio import check_ratio
from flask_bandit.analysis.reading import Question, read_results
from flask_bandit.analysis.regions import budget, divergence
from flask_bandit.analysis.results import SEQUENCE
from flask_bandit.analysis.sequences import (
    FEWEST_REWARDS,
    GAIN_RHO,
    LEAST_CHANCE,
    PAIR_RHO,
    boundary,
)
from flask_bandit.model import ArmStats, FloatArray
from flask_bandit.options import DEFAULT_FLOOR

BATCH = 50
ALPHA = 0.05
LOST = (0.0, 0.03, 0.1)
"""Shares of the first arm's decisions that a counter loses."""
TESTS = "verdict", "region", "P(best) > .95"
INTERVALS = "Wald", "sequence", "region", "gain"
CHECKED = 3
"""Runs that are held against the library."""
_AROUND = np.concatenate(([-9.0, -7.0, -5.5], np.linspace(-4.5, 4.5, 28), [5.5, 7.0, 9.0]))


@dataclass(frozen=True)
class Scenario:
    """True rates, and the share of the traffic that is spread evenly."""

    rates: tuple[float, ...]
    floor: float

    @property
    def title(self) -> str:
        """Say it shortly, with the floor per arm."""
        rates = " ".join(f"{rate:g}".lstrip("0") for rate in self.rates)
        return f"{rates}, each arm >= {self.floor / len(self.rates):g}"


SCENARIOS = (
    Scenario((0.05, 0.05), 0.1),
    Scenario((0.05, 0.05), DEFAULT_FLOOR),
    Scenario((0.05,) * 3, 0.15),
    Scenario((0.05,) * 3, DEFAULT_FLOOR),
    Scenario((0.05,) * 5, 0.25),
    Scenario((0.05, 0.08), 0.1),
    Scenario((0.05, 0.08), DEFAULT_FLOOR),
    Scenario((0.05, 0.05, 0.08), 0.15),
    Scenario((0.05, 0.05, 0.05, 0.05, 0.08), 0.25),
    Scenario((0.02, 0.04), 0.0),
    Scenario((0.02, 0.04), 0.1),
)


@dataclass(frozen=True)
class Task:
    """All runs of a scenario."""

    scenario: Scenario
    visitors: int
    runs: int
    seed: int


def winning(pulls: FloatArray, rewards: FloatArray) -> FloatArray:
    """Return the probability of each arm to be the best, for all runs, from Beta(1, 1)."""
    a, b = 1.0 + rewards, 1.0 + pulls - rewards
    scale = np.sqrt((a + b) / (a * b))
    points = (np.log(a / b)[..., None] + scale[..., None] * _AROUND).reshape(len(a), 1, -1)
    points.sort(axis=2)
    below = beta_cdf(a[..., None], b[..., None], 1.0 / (1.0 + np.exp(-points)))
    mass = np.empty_like(a)
    for arm in range(a.shape[1]):
        others = np.delete(below, arm, axis=1).prod(axis=1)
        steps = np.diff(below[:, arm], axis=1)
        mass[:, arm] = (steps * (others[:, 1:] + others[:, :-1])).sum(axis=1)
    result: FloatArray = mass / mass.sum(axis=1, keepdims=True)
    return result


@dataclass
class Missed:
    """Runs whose interval missed the truth: at any look, and at the last one."""

    ever: npt.NDArray[np.bool_]
    last: npt.NDArray[np.bool_]

    def note(self, is_missed: npt.NDArray[np.bool_]) -> None:
        """Take down a look."""
        self.ever |= is_missed
        self.last = is_missed


@dataclass
class Batch:
    """What came: pulls, rewards and probabilities of each arm, shape (runs, K)."""

    pulls: FloatArray
    rewards: FloatArray
    chances: FloatArray


class Runs:
    """All runs of a task, changed in place."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.rates = np.array(task.scenario.rates)
        self.shape = task.runs, self.rates.size
        self.rng = np.random.default_rng(task.seed)
        self.seen = 0
        k = self.rates.size
        self.pulls, self.rewards, self.sums, self.squares = np.zeros((4, *self.shape))
        self.ahead, self.variance, self.weights = np.zeros((3, task.runs, k, k))
        self.before = np.full(self.shape, 1.0 / k)
        self.gain, self.gain_sq, self.true_gain = np.zeros((3, task.runs))
        self.counters = {share: Counted(*self.shape) for share in LOST}
        self.history: list[Batch] = []
        # The arm that each run decided for; -1 for none yet.
        self.decided = {n: np.full(task.runs, -1) for n in TESTS}
        self.missed = {name: Missed(*np.zeros((2, task.runs), dtype=bool)) for name in INTERVALS}

    def note(self, test: str, is_best: npt.NDArray[np.bool_]) -> None:
        """Take down what a test says, shape (runs, K), where nothing was decided before."""
        arm = self.decided[test]
        is_new = (arm < 0) & is_best.any(axis=1)
        arm[is_new] = is_best.argmax(axis=1)[is_new]

    def serve(self) -> None:
        """Let the next batch come."""
        k, floor = self.rates.size, self.task.scenario.floor
        best = winning(self.pulls, self.rewards)
        self.note("P(best) > .95", best > 1.0 - ALPHA)
        chances = np.maximum((1.0 - floor) * best + floor / k, 1e-9)
        chances /= chances.sum(axis=1, keepdims=True)
        pulls = self.rng.multinomial(BATCH, chances)
        rewards = self.rng.binomial(pulls, self.rates)
        self._add(Batch(pulls.astype(np.float64), rewards.astype(np.float64), chances))
        for share, counter in self.counters.items():
            counted = pulls.copy()
            counted[:, 0] -= self.rng.binomial(pulls[:, 0], share)
            counter.add(counted, chances)

    def _add(self, batch: Batch) -> None:
        """Add to the sums as the library does, with the batch as a span."""
        k, n, r, p = self.rates.size, batch.pulls, batch.rewards, batch.chances
        total = np.maximum(self.pulls.sum(axis=1, keepdims=True), 1.0)
        pooled = self.rewards.sum(axis=1, keepdims=True) / total
        q = np.where(self.pulls > 0.0, self.rewards / np.maximum(self.pulls, 1.0), pooled)
        sums, squares = BATCH * q + (r - q * n) / p, (r - 2.0 * q * r + q * q * n) / p**2
        one, other = self.before[:, :, None], self.before[:, None, :]
        weights = one * other / (one + other)
        self.ahead += weights * (sums[:, :, None] - sums[:, None, :])
        self.variance += weights**2 * (squares[:, :, None] + squares[:, None, :])
        self.weights += BATCH * weights
        mean, share = q.mean(axis=1, keepdims=True), 1.0 / (k * p)
        hit, miss = 1.0 - mean + (q - 1.0) * share, q * share - mean
        self.gain += (r * hit + (n - r) * miss).sum(axis=1)
        self.gain_sq += (r * hit**2 + (n - r) * miss**2).sum(axis=1)
        self.true_gain += BATCH * (p @ self.rates - self.rates.mean())
        self.sums += sums
        self.squares += squares
        self.pulls += n
        self.rewards += r
        self.before, self.seen = p, self.seen + BATCH
        self.history.append(Batch(n[:CHECKED], r[:CHECKED], p[:CHECKED]))

    def look(self) -> None:
        """Take down what the tests and the intervals say now."""
        k, mean_square = self.rates.size, self.rewards.sum(axis=1) / self.seen
        is_ripe = self.rewards.min(axis=1) >= FEWEST_REWARDS
        rho = np.maximum(PAIR_RHO * mean_square, 1e-9)[:, None, None]
        is_ahead = self.ahead > boundary(self.variance, rho, ALPHA / (k - 1))
        is_ahead |= np.eye(k, dtype=bool)
        by_region = self._by_region()
        is_best = np.where(is_ripe[:, None], is_ahead.all(axis=2), by_region)
        self.note("verdict", is_best)
        self.note("region", by_region)
        self._look_at_intervals(rho[:, 0, 0], is_ripe)
        off, reach = self._gain_by_pairs(rho)
        if self.task.scenario.floor >= LEAST_CHANCE * k:
            rho = np.maximum(GAIN_RHO * mean_square, 1e-9)
            off, reach = self.gain - self.true_gain, boundary(self.gain_sq, rho, ALPHA)
        far = divergence(self.pulls, self.rewards, self.rates)
        is_outside = far > budget(self.pulls, self.rewards, ALPHA)
        self.missed["gain"].note(np.where(is_ripe, np.abs(off) > reach, is_outside))

    def _gain_by_pairs(self, rho: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return how far the library's estimate without a floor is off, and may be."""
        k = self.rates.size
        moved = self.pulls - self.seen / k
        rows, most = np.arange(len(moved)), self.pulls.argmax(axis=1)
        reach = boundary(self.variance, rho, ALPHA * 2.0 / (k * (k - 1)))
        differences, reach = (each[rows, :, most] for each in (self.ahead, reach))
        weights = self.weights[rows, :, most]
        estimate = (moved * differences / weights).sum(axis=1)
        is_other = np.arange(k) != most[:, None]
        return estimate - moved @ self.rates, (np.abs(moved) * reach / weights * is_other).sum(1)

    def _by_region(self) -> npt.NDArray[np.bool_]:
        """Return which arm is best by the region, shape (runs, K)."""
        runs, k = self.shape
        best = (self.rewards / np.maximum(self.pulls, 1.0)).argmax(axis=1)
        is_best = np.zeros(self.shape, dtype=bool)
        is_best[np.arange(runs), best] = True
        for arm in range(k):
            pair = np.stack((best, np.where(best == arm, (best + 1) % k, arm)), axis=1)
            pulls = np.take_along_axis(self.pulls, pair, axis=1)
            rewards = np.take_along_axis(self.rewards, pair, axis=1)
            pooled = rewards.sum(axis=1) / np.maximum(pulls.sum(axis=1), 1.0)
            apart = divergence(pulls, rewards, pooled[:, None])
            is_best &= (apart > budget(pulls, rewards, ALPHA / (k - 1)))[:, None]
        return is_best

    def _look_at_intervals(self, rho: FloatArray, is_ripe: npt.NDArray[np.bool_]) -> None:
        """Compare the last arm with the first."""
        true = self.rates[-1] - self.rates[0]
        error = np.sqrt(self.squares[:, -1] + self.squares[:, 0])
        plain = np.abs(self.sums[:, -1] - self.sums[:, 0] - self.seen * true)
        has_both = (self.rewards[:, [0, -1]] > 0.0).all(axis=1)
        self.missed["Wald"].note((plain > 1.96 * error) & has_both)
        off = np.abs(self.ahead[:, -1, 0] - self.weights[:, -1, 0] * true)
        reach = boundary(self.variance[:, -1, 0], rho, ALPHA)
        self.missed["sequence"].note((off > reach) & is_ripe)
        both = [0, -1]
        pulls, rewards = self.pulls[:, both], self.rewards[:, both]
        far = divergence(pulls, rewards, self.rates[both])
        self.missed["region"].note(far > budget(pulls, rewards, ALPHA))

    def check(self) -> None:
        """Hold some runs against the library.

        :raises SystemExit: the library says something else
        """
        for run in range(min(CHECKED, self.task.runs)):
            results = read_results(*self.counts(run))
            if results.verdict.is_decided and self.decided["verdict"][run] < 0:
                raise SystemExit("the library decided where the rule here did not")
            for contrast in results.contrasts:
                if contrast.difference.method != SEQUENCE:
                    continue
                arm = int(contrast.arm)
                mine = self.ahead[run, arm, 0] / self.weights[run, arm, 0]
                if abs(contrast.difference.estimate - mine) > 1e-9:
                    raise SystemExit("the sums here are not what the library adds up")

    def counts(self, run: int) -> tuple[dict[str, ArmStats], Digest, Question]:
        """Return what the library reads."""
        arms = tuple(map(str, range(self.rates.size)))
        stats = {
            arm: ArmStats(int(n), int(r), r, r)
            for arm, n, r in zip(arms, self.pulls[run], self.rewards[run], strict=True)
        }
        spans = []
        for t, batch in enumerate(self.history):
            span = Span(float(t), t + 1.0, math.inf, vectors=BATCH)
            columns = batch.pulls[run], batch.rewards[run], batch.chances[run]
            for arm, n, r, p in zip(arms, *(column.tolist() for column in columns), strict=True):
                row = span.row(arm)
                moments = [n, n / p, n / p**2, *([r, r / p, r / p**2] * 2)]
                row.sums = [n, r, r, r, float(BATCH), BATCH * p, *moments]
                row.least = p
            spans.append(span)
        return stats, Digest(spans), Question(arms, is_once=True)


class Counted:
    """How often arms were shown and should have been, of all runs."""

    def __init__(self, runs: int, k: int) -> None:
        self.shown, self.expected = np.zeros((2, runs, k))
        self.products = np.zeros((runs, k, k))

    def add(self, pulls: npt.NDArray[np.int64], chances: FloatArray) -> None:
        """Add a batch; what was lost is in neither sum."""
        count = pulls.sum(axis=1)
        self.shown += pulls
        self.expected += count[:, None] * chances
        self.products += count[:, None, None] * chances[:, :, None] * chances[:, None, :]

    @property
    def alarms(self) -> float:
        """Share of the runs that the library's check alarms in."""
        runs, k = self.shown.shape
        arms = tuple(map(str, range(k)))
        count = 0
        for run in range(runs):
            shown = {arm: int(n) for arm, n in zip(arms, self.shown[run], strict=True)}
            expected = dict(zip(arms, self.expected[run].tolist(), strict=True))
            pairs = ((i, j) for i in range(k) for j in range(i, k))
            products = {(arms[i], arms[j]): float(self.products[run, i, j]) for i, j in pairs}
            check = check_ratio(Ratio(shown, expected, products))
            count += check is not None and check.is_alarm
        return float(count / runs)


@dataclass(frozen=True)
class Outcome:
    """Shares of the runs; decided and wrong by test, missed at the end and ever by interval."""

    title: str
    decided: dict[str, float]
    wrong: dict[str, float]
    missed: dict[str, tuple[float, float]]
    alarms: dict[float, float]


def simulate(task: Task) -> Outcome:
    """Do all runs."""
    runs = Runs(task)
    while runs.seen < task.visitors:
        runs.serve()
        runs.look()
    runs.check()
    is_best = runs.rates == runs.rates.max()
    # The last place is for those who decided nothing.
    is_right = np.append(is_best & (not is_best.all()), True)
    decided = runs.decided.items()
    return Outcome(
        task.scenario.title,
        {name: float((arm >= 0).mean()) for name, arm in decided},
        {name: float((~is_right[arm]).mean()) for name, arm in decided},
        {name: (float(m.last.mean()), float(m.ever.mean())) for name, m in runs.missed.items()},
        {share: counter.alarms for share, counter in runs.counters.items()},
    )


def report(outcomes: Iterable[Outcome], console: Console) -> None:
    """Print a table of decisions, one of intervals and one of alarms, in percent of the runs."""
    tests = Table(title="decided (wrong), %: looked at every 50 visitors")
    intervals = Table(title="intervals that miss, %: at the end / ever")
    alarms = Table(title="sample-ratio alarms, %")
    for table, columns in (
        (tests, TESTS),
        (intervals, INTERVALS),
        (alarms, [f"{share:.0%} of an arm lost" for share in LOST]),
    ):
        table.add_column("rates")
        for column in columns:
            table.add_column(column, justify="right")
    for outcome in outcomes:
        cells = [f"{100 * outcome.decided[n]:.1f} ({100 * outcome.wrong[n]:.1f})" for n in TESTS]
        tests.add_row(outcome.title, *cells)
        missed = [f"{100 * end:.1f} / {100 * ever:.1f}" for end, ever in outcome.missed.values()]
        intervals.add_row(outcome.title, *missed)
        alarms.add_row(outcome.title, *(f"{100 * rate:.2f}" for rate in outcome.alarms.values()))
    for table in (tests, intervals, alarms):
        console.print(table)


def main(arguments: Any = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--visitors", type=int, default=10_000)
    parser.add_argument("--scenarios", type=int, nargs="+", default=list(range(len(SCENARIOS))))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    console = Console()
    tasks = [
        Task(SCENARIOS[n], options.visitors, options.runs, options.seed + n)
        for n in options.scenarios
    ]
    with ProcessPoolExecutor(options.processes) as pool:
        done = list(track(pool.map(simulate, tasks), "scenarios", len(tasks), console=console))
    report(done, console)


if __name__ == "__main__":
    main()
