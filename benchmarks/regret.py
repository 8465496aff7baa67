"""Regret: what exploring costs, against showing the best arm from the first visitor on.

All runs of a cell go in step, as rows of arrays. Thompson's arm comes from a draw of the
posteriors, whose shares are the probabilities that the policy integrates; the upper bounds are the
library's own functions. Each rule is held against the library's policy twice per cell.

Run ``python -m benchmarks.regret``; ``--goals-only`` or ``--policies thompson`` for a part of it,
Ctrl-C for the table as far as it is.
"""

from __future__ import annotations

import argparse
import math
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from flask_bandit.algorithms import (
    EpsilonGreedyPolicy,
    Exp3Policy,
    KLUCBPolicy,
    Policy,
    SoftmaxPolicy,
    ThompsonPolicy,
    UCB1Policy,
    UCBTunedPolicy,
    UniformPolicy,
)
from flask_bandit.algorithms.ucb import _simple_bound, kl_upper_bound
from flask_bandit.model import FloatArray, IntArray, Stats
from flask_bandit.options import DEFAULT_FLOOR

FLOORS = (0.0, DEFAULT_FLOOR)
GOAL_STEPS = 10_000


@dataclass(frozen=True)
class Scenario:
    """True rates of the arms, how late a reward comes, and the goals at floor 0."""

    title: str
    rates: tuple[float, ...]
    delay: int
    goals: dict[str, float]


_EASY = tuple(n / 100 for n in range(5, 55, 5))
_HARD = tuple(n / 100 for n in range(10, 20))
SCENARIOS = {
    "easy": Scenario(
        ".05 to .50, rewards at once",
        _EASY,
        0,
        {"thompson": 125.0, "ucb_tuned": 110.0, "kl_ucb": 180.0, "epsilon_greedy": 345.0},
    ),
    "hard": Scenario(
        ".10 to .19, rewards at once", _HARD, 0, {"thompson": 160.0, "epsilon_greedy": 150.0}
    ),
    "late": Scenario(".05 to .50, rewards 100 steps late", _EASY, 100, {"thompson": 175.0}),
}


Cell = tuple[str, str, float]
"""Scenario, policy, floor."""

Results = dict[Cell, list[float]]

Rule = Callable[[Any, Stats, np.random.Generator], FloatArray]
"""A policy's probabilities for all runs: rows of the sums are runs, columns are arms."""


@dataclass(frozen=True)
class Task:
    """All runs of a cell; the same seed gives every policy the same luck."""

    cell: Cell
    runs: int
    steps: int
    seed: int


def thompson(policy: ThompsonPolicy, stats: Stats, rng: np.random.Generator) -> FloatArray:
    """Draw from the posteriors; the policy's probabilities are the shares of such draws."""
    a, b = policy.prior
    return best(rng.beta(a + stats.reward, b + stats.pulls - stats.reward))


def upper_bounds(
    policy: UCB1Policy | UCBTunedPolicy, stats: Stats, rng: np.random.Generator
) -> FloatArray:
    pulls, log_t = counted(stats)
    return best(np.where(stats.pulls > 0, policy.upper_bounds(stats, pulls, log_t), np.inf))  # type: ignore[arg-type]


def kl_upper_bounds(policy: KLUCBPolicy, stats: Stats, rng: np.random.Generator) -> FloatArray:
    """Solve only for arms that can have the largest bound, as the policy itself does."""
    pulls, log_t = counted(stats)
    mean, divergence = stats.reward / pulls, log_t / pulls
    bounds = _simple_bound(mean, divergence)
    first = np.arange(len(bounds)), bounds.argmax(axis=1)
    exact = kl_upper_bound(mean[first], divergence[first])
    able = bounds >= exact[:, None]
    bounds[able] = kl_upper_bound(mean[able], divergence[able])
    return best(np.where(stats.pulls > 0, bounds, np.inf))


def epsilon_greedy(
    policy: EpsilonGreedyPolicy, stats: Stats, rng: np.random.Generator
) -> FloatArray:
    return mixed(best(stats.reward / np.maximum(stats.pulls, 1)), policy.epsilon)


def softmax(policy: SoftmaxPolicy, stats: Stats, rng: np.random.Generator) -> FloatArray:
    return exponential(stats.reward / np.maximum(stats.pulls, 1) / policy.tau)


def exp3(policy: Exp3Policy, stats: Stats, rng: np.random.Generator) -> FloatArray:
    gain = stats.extra["exp3_gain"]
    return mixed(exponential(gain * (policy.gamma / gain.shape[1])), policy.gamma)


def uniform(policy: UniformPolicy, stats: Stats, rng: np.random.Generator) -> FloatArray:
    return np.full(stats.pulls.shape, 1.0 / stats.pulls.shape[1])


def counted(stats: Stats) -> tuple[FloatArray, FloatArray]:
    """Return pulls, at least 1, and the logarithm of each run's decisions, as a column."""
    pulls = np.maximum(stats.pulls, 1).astype(np.float64)
    return pulls, np.log(pulls.sum(axis=1, keepdims=True))


def best(scores: FloatArray) -> FloatArray:
    """Return probability 1 shared by the largest scores of each row."""
    largest = scores == scores.max(axis=1, keepdims=True)
    result: FloatArray = largest / largest.sum(axis=1, keepdims=True)
    return result


def mixed(probabilities: FloatArray, share: float) -> FloatArray:
    """Spread a share of the traffic evenly."""
    result: FloatArray = (1.0 - share) * probabilities + share / probabilities.shape[1]
    return result


def exponential(values: FloatArray) -> FloatArray:
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    result: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return result


POLICIES: dict[str, tuple[type[Policy], Rule]] = {
    "thompson": (ThompsonPolicy, thompson),
    "ucb_tuned": (UCBTunedPolicy, upper_bounds),
    "kl_ucb": (KLUCBPolicy, kl_upper_bounds),
    "ucb1": (UCB1Policy, upper_bounds),
    "epsilon_greedy": (EpsilonGreedyPolicy, epsilon_greedy),
    "softmax": (SoftmaxPolicy, softmax),
    "exp3": (Exp3Policy, exp3),
    "uniform": (UniformPolicy, uniform),
}


def all_runs(task: Task) -> list[float]:
    """Return each run's expected regret: sum of (best rate - rate of the drawn arm).

    :raises SystemExit: the rule here is not what the library's policy does
    """
    name, policy_name, floor = task.cell
    scenario, (family, rule) = SCENARIOS[name], POLICIES[policy_name]
    policy, rates, rows = family(), np.array(scenario.rates), np.arange(task.runs)
    luck, rng = np.random.default_rng(task.seed), np.random.default_rng((task.seed, 1))
    stats = no_sums(task.runs, rates.size)
    regret = np.zeros(task.runs)
    waiting: deque[tuple[IntArray, FloatArray, FloatArray]] = deque()
    for step in range(task.steps):
        if len(waiting) > scenario.delay:
            add_rewards(stats, *waiting.popleft())
        probabilities = mixed(rule(policy, stats, rng), floor)
        if step in (task.steps // 10, task.steps - 1):
            check(policy, rule, stats)
        draw, outcome = luck.random((2, task.runs))
        cumulative = probabilities.cumsum(axis=1)
        passed = cumulative <= draw[:, None] * cumulative[:, -1:]
        arm = np.minimum(passed.sum(axis=1), rates.size - 1)
        regret += rates.max() - rates[arm]
        stats.pulls[rows, arm] += 1
        reward = (outcome < rates[arm]).astype(np.float64)
        waiting.append((arm, reward, probabilities[rows, arm]))
    return [float(value) for value in regret]


def no_sums(runs: int, k: int) -> Stats:
    """Return sums that are changed in place, with a row per run."""
    pulls, rewards = np.zeros((2, runs, k), dtype=np.int64)
    reward, gain = np.zeros((2, runs, k))
    # A reward is 0 or 1, so its square is itself. All arms are always there, so their mean
    # increases are equal, and Exp3 needs no more than that they are.
    extra = {"exp3_gain": gain, "exp3_mean": np.zeros((runs, k))}
    return Stats(tuple(map(str, range(k))), pulls, rewards, reward, reward, extra)


def rows_of(stats: Stats, rows: Any) -> Stats:
    """Return the sums of some runs, or of one."""
    extra = {name: sums[rows] for name, sums in stats.extra.items()}
    sums = stats.pulls[rows], stats.rewards[rows], stats.reward[rows], stats.reward_sq[rows]
    return Stats(stats.arms, *sums, extra)


def add_rewards(stats: Stats, arm: IntArray, reward: FloatArray, propensity: FloatArray) -> None:
    rows = np.arange(arm.size)
    stats.rewards[rows, arm] += reward.astype(np.int64)
    stats.reward[rows, arm] += reward
    stats.extra["exp3_gain"][rows, arm] += reward / propensity


def check(policy: Policy, rule: Rule, stats: Stats) -> None:
    """Hold the rule against the library's policy, in up to 40 of the runs as they are now."""
    count = min(40, len(stats.pulls))
    own = np.array([policy.propensities(rows_of(stats, row)) for row in range(count)])
    times = 1000 if isinstance(policy, ThompsonPolicy) else 1
    many = rows_of(stats, np.tile(np.arange(count), times))
    drawn = rule(policy, many, np.random.default_rng(0))
    shares = drawn.reshape(times, count, -1).mean(axis=0)
    # Six standard errors of a share of 1000 draws; bounds are exact to 1e-9, so a tie may differ.
    far = np.abs(shares - own).max(axis=1) > (0.1 if times > 1 else 1e-9)
    if np.count_nonzero(far) > count // 20:
        raise SystemExit(f"the rule for {policy.name} is not what the library does")


def tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Go through the cells."""
    for name in options.scenarios:
        for policy in options.policies:
            for floor in options.floors:
                has_goal = policy in SCENARIOS[name].goals and floor == 0.0
                if has_goal or not options.goals_only:
                    yield Task((name, policy, floor), options.runs, options.steps, options.seed)


def measure(work: Iterable[Task], processes: int, console: Console) -> Results:
    """Do all tasks in a pool of processes; after Ctrl-C, return what there is."""
    results = Results()
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(processes, initializer=ignore_interrupts) as pool,
    ):
        futures = {pool.submit(all_runs, task): task for task in work}
        bar = progress.add_task("cells", total=len(futures))
        try:
            for done in as_completed(futures):
                results[futures[done].cell] = done.result()
                progress.advance(bar)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
    return results


def ignore_interrupts() -> None:
    """Let Ctrl-C be the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def describe(regrets: list[float] | None) -> str:
    """Return the mean, its standard error and the number of runs."""
    if not regrets:
        return "-"
    error = stdev(regrets) / math.sqrt(len(regrets)) if len(regrets) > 1 else math.nan
    return f"{fmean(regrets):.1f} ± {error:.1f} ({len(regrets)})"


def report(results: Results, options: argparse.Namespace, console: Console) -> bool:
    """Print a table per scenario; return whether each goal that was measured is met."""
    is_met = True
    for name in dict.fromkeys(name for name, _, _ in results):
        scenario = SCENARIOS[name]
        table = Table(title=f"{name}: {scenario.title}; regret after {options.steps} decisions")
        for column in ("policy", *(f"floor {floor:g}" for floor in options.floors), "goal", ""):
            table.add_column(column, justify="left" if column == "policy" else "right")
        for policy in options.policies:
            if not any((name, policy, floor) in results for floor in options.floors):
                continue
            cells = [describe(results.get((name, policy, floor))) for floor in options.floors]
            goal, at_zero = scenario.goals.get(policy), results.get((name, policy, 0.0))
            verdict = ""
            if goal is not None and at_zero and options.steps == GOAL_STEPS:
                verdict = "ok" if fmean(at_zero) <= goal else "MISSED"
                is_met = is_met and verdict == "ok"
            table.add_row(policy, *cells, "" if goal is None else f"<= {goal:g}", verdict)
        console.print(table)
    console.print("Mean ± standard error (runs). The goals are for floor 0 and 10,000 decisions.")
    return is_met


def main() -> int:
    """Measure and print; the exit code is 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=GOAL_STEPS)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--floors", nargs="+", type=float, default=list(FLOORS))
    parser.add_argument("--goals-only", action="store_true", help="only cells that have a goal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    console = Console()
    results = measure(tasks(options), options.processes, console)
    return 0 if report(results, options, console) else 1


if __name__ == "__main__":
    raise SystemExit(main())
