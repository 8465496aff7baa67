"""Regret: what exploring costs, against showing the best arm from the first visitor on.

Run ``python -m benchmarks.regret``; ``--goals-only`` or ``--policies thompson`` for a part of it,
Ctrl-C for the table as far as it is. The policies are the library's own, asked at each step.
"""

from __future__ import annotations

import argparse
import math
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from statistics import fmean, stdev

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
from flask_bandit.algorithms.base import with_floor
from flask_bandit.bandits import DEFAULT_FLOOR, DrawTable
from flask_bandit.model import Decision, Stats, StatsDelta

POLICIES: dict[str, Callable[[], Policy]] = {
    "thompson": ThompsonPolicy,
    "ucb_tuned": UCBTunedPolicy,
    "kl_ucb": KLUCBPolicy,
    "ucb1": UCB1Policy,
    "epsilon_greedy": EpsilonGreedyPolicy,
    "softmax": SoftmaxPolicy,
    "exp3": Exp3Policy,
    "uniform": UniformPolicy,
}
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


@dataclass(frozen=True)
class Task:
    """One run of a cell; the same seed gives every policy the same luck."""

    cell: Cell
    steps: int
    seed: tuple[int, int]


@dataclass
class World:
    """The sums that a policy learns from, changed in place."""

    policy: Policy
    k: int
    arms: tuple[str, ...] = field(init=False)
    stats: Stats = field(init=False)

    def __post_init__(self) -> None:
        self.arms = tuple(map(str, range(self.k)))
        self.stats = Stats.from_counts(self.arms, {}, self.policy.extra)
        self._sums = {name: getattr(self.stats, name) for name in ("pulls", "rewards")}
        self._sums |= {"reward": self.stats.reward, "reward_sq": self.stats.reward_sq}
        self._sums |= self.stats.extra

    def add(self, delta: StatsDelta) -> None:
        """Add what a decision or a reward adds."""
        for arm, row in delta.counts.items():
            for name, value in row.items():
                self._sums[name][int(arm)] += value


def one_run(task: Task) -> float:
    """Return the expected regret of the arms drawn: sum of (best rate - rate of the drawn arm)."""
    name, policy_name, floor = task.cell
    scenario, policy = SCENARIOS[name], POLICIES[policy_name]()
    rng = np.random.default_rng(task.seed)
    draws, outcomes = rng.random((2, task.steps)).tolist()
    world = World(policy, len(scenario.rates))
    best, regret = max(scenario.rates), 0.0
    waiting: deque[tuple[int, Decision]] = deque()
    for step, (draw, outcome) in enumerate(zip(draws, outcomes, strict=True)):
        while waiting and waiting[0][0] <= step:
            world.add(policy.on_reward(waiting.popleft()[1], 1.0))
        probabilities = with_floor(policy.propensities(world.stats), floor)
        table = DrawTable.of(world.arms, probabilities.tolist())
        arm = table.draw(draw)
        rate = scenario.rates[int(arm)]
        regret += best - rate
        decision = Decision("", "", 1, arm, table.propensities, policy.name, 0.0)
        world.add(policy.on_decision(decision))
        if outcome < rate:
            waiting.append((step + 1 + scenario.delay, decision))
    return regret


def tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Go round all cells, so that an early end leaves about as many runs in each."""
    for number in range(options.runs):
        for name in options.scenarios:
            for policy in options.policies:
                for floor in options.floors:
                    has_goal = policy in SCENARIOS[name].goals and floor == 0.0
                    if has_goal or not options.goals_only:
                        yield Task((name, policy, floor), options.steps, (options.seed, number))


def measure(work: Iterable[Task], processes: int, console: Console) -> Results:
    """Run all tasks in a pool of processes; after Ctrl-C, return what there is."""
    results = Results()
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(processes, initializer=ignore_interrupts) as pool,
    ):
        futures = {pool.submit(one_run, task): task for task in work}
        bar = progress.add_task("runs", total=len(futures))
        try:
            for done in as_completed(futures):
                results.setdefault(futures[done].cell, []).append(done.result())
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
