"""Contextual policies: what they earn, and what a step costs, beside other libraries.

Classification data as bandit problems (an arm is right if it is the label), synthetic clicks, with
rewards at once and only every 500 decisions, and arms whose rewards have nothing to do with the
context. All contenders meet the same rows with the same luck, in turns.

Run ``python -m benchmarks.contextual``; ``--problems digits --learners LinThompson`` for a part of
it, ``--quick`` for a look, Ctrl-C for the table as far as it is. ``OPENBLAS_NUM_THREADS=1`` keeps
numpy from starting threads that such small matrices do not need.
"""

from __future__ import annotations

import argparse
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from statistics import fmean, median, stdev

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from flask_bandit.model import FloatArray

from .contextual_learners import LEARNERS, Problem

GOAL_ROUNDS = 10_000
LATE = 500

REWARD_GOALS = {
    ("digits", "LinThompson"): 0.945,
    ("cancer", "LinThompson"): 0.975,
    ("wine", "LinThompson"): 0.990,
    ("digits", "LinUCB(.25)"): 0.950,
    ("cancer", "LinUCB(.25)"): 0.978,
    ("wine", "LinUCB(.25)"): 0.994,
}
"""Mean reward at least, over 10,000 decisions."""

TIME_GOALS = {"LinThompson": 250.0, "LinUCB(.25)": 30.0}
"""Microseconds at most for a step with 10 arms and 64 columns."""

LATE_GOALS = {"LinThompson": 0.95}
"""Share of its immediate reward that is left where rewards come late."""


def classes(name: str, rounds: int, seed: int) -> Problem:
    """Return a data set of scikit-learn, in shuffled passes."""
    from sklearn import datasets

    loaders = {"digits": "load_digits", "cancer": "load_breast_cancer", "wine": "load_wine"}
    raw, label = getattr(datasets, loaders[name])(return_X_y=True)
    # Most pixels are mostly empty: in their own deviations, a few rare ones would be all.
    form = {"scale": 16, "indicator": False} if name == "digits" else {"indicator": False}
    scaled = raw / 16 if name == "digits" else (raw - raw.mean(axis=0)) / raw.std(axis=0)
    rng = np.random.default_rng((seed, 1))
    passes = -(-rounds // len(raw))
    rows = np.concatenate([rng.permutation(len(raw)) for _ in range(passes)])[:rounds]
    spec = {f"x{column:02}": form for column in range(raw.shape[1])}
    return Problem(name, spec, raw[rows], scaled[rows], np.eye(label.max() + 1)[label[rows]])


def clicks(name: str, rounds: int, seed: int) -> Problem:
    """Return 5 arms and 8 features of which the logarithm of the odds is linear, 8 % base rate."""
    rng = np.random.default_rng((seed, 2))
    weights = rng.normal(0.0, 0.35, (8, 5))
    x = rng.normal(size=(rounds, 8))
    odds = x @ weights - 2.85  # which makes 8 % on the average
    return _plain(name, x, 1.0 / (1.0 + np.exp(-odds)))


def useless(name: str, rounds: int, seed: int) -> Problem:
    """Return 5 arms with rates of 4 to 12 %, and 8 features that do not matter."""
    x = np.random.default_rng((seed, 3)).normal(size=(rounds, 8))
    return _plain(name, x, np.tile([0.04, 0.06, 0.08, 0.10, 0.12], (rounds, 1)))


def _plain(name: str, x: FloatArray, chances: FloatArray) -> Problem:
    spec = {f"x{column}": {"indicator": False} for column in range(x.shape[1])}
    return Problem(name, spec, x, x, chances)


PROBLEMS: dict[str, tuple[Callable[[str, int, int], Problem], int]] = {
    "digits": (classes, 1),
    "cancer": (classes, 1),
    "wine": (classes, 1),
    "clicks": (clicks, 1),
    "clicks, late": (clicks, LATE),
    "useless": (useless, 1),
}
"""Name -> how its rows are made, and after how many decisions rewards come."""

Cell = tuple[str, str]
"""Problem, learner."""


@dataclass(frozen=True)
class Result:
    """Mean reward of the arms that were shown, and processor time of a step in microseconds."""

    reward: float
    microseconds: float


Results = dict[Cell, list[Result]]


@dataclass(frozen=True)
class Task:
    """One run of a cell."""

    cell: Cell
    rounds: int
    seed: int


def run(task: Task) -> Result:
    """Let a learner choose for all rows; its time is that of choosing and of learning."""
    problem_name, learner_name = task.cell
    make, every = PROBLEMS[problem_name]
    problem = make(problem_name, task.rounds, task.seed)
    learner = LEARNERS[learner_name](problem, task.seed)
    draws, luck = np.random.default_rng((task.seed, 4)).random((2, task.rounds)).tolist()
    earned, spent = 0.0, 0.0
    waiting: list[tuple[int, int, float, float]] = []
    for row in range(task.rounds):
        started = time.process_time()
        arm, probability = learner.choose(row, draws[row])
        spent += time.process_time() - started
        chance = float(problem.chances[row, arm])
        earned += chance
        waiting.append((row, arm, probability, float(luck[row] < chance)))
        if len(waiting) == every:
            started = time.process_time()
            for event in waiting:
                learner.learn(*event)
            spent += time.process_time() - started
            waiting.clear()
    return Result(earned / task.rounds, spent / task.rounds * 1e6)


def tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Go through the cells seed by seed, so that a busy minute meets all of them."""
    for seed in range(options.seeds):
        for problem in options.problems:
            for learner in options.learners:
                yield Task((problem, learner), options.rounds, seed)


def measure(work: Iterable[Task], processes: int, console: Console) -> Results:
    """Do all tasks in a pool of processes; after Ctrl-C, return what there is."""
    results = Results()
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(processes, initializer=ignore_interrupts) as pool,
    ):
        futures = {pool.submit(run, task): task for task in work}
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


def describe(rewards: Sequence[float]) -> str:
    """Return the mean and its standard error."""
    error = stdev(rewards) / math.sqrt(len(rewards)) if len(rewards) > 1 else math.nan
    return f"{fmean(rewards):.4f} ± {error:.4f}"


def rewards_of(results: Results, problem: str, learner: str) -> list[float]:
    return [result.reward for result in results.get((problem, learner), ())]


def missed(results: Results) -> Iterator[str]:
    """Tell each goal that was measured and not met."""
    for (problem, learner), goal in REWARD_GOALS.items():
        rewards = rewards_of(results, problem, learner)
        if rewards and fmean(rewards) < goal:
            yield f"{learner} earns {fmean(rewards):.4f} on {problem}, the goal is {goal}"
    for learner, most in TIME_GOALS.items():
        times = [result.microseconds for result in results.get(("digits", learner), ())]
        if times and median(times) > most:
            yield f"{learner} takes {median(times):.0f} us a step on digits, the goal is {most:g}"
    for learner, share in LATE_GOALS.items():
        late = rewards_of(results, "clicks, late", learner)
        at_once = rewards_of(results, "clicks", learner)
        if late and at_once and fmean(late) < share * fmean(at_once):
            yield f"{learner} keeps {fmean(late) / fmean(at_once):.1%} of its clicks, not {share}"


def report(results: Results, options: argparse.Namespace, console: Console) -> bool:
    """Print the tables; return whether each goal that was measured is met."""
    tables: dict[str, Callable[[list[Result]], str]] = {
        "mean reward": lambda cell: describe([one.reward for one in cell]),
        "microseconds a step": lambda cell: f"{median(one.microseconds for one in cell):.0f}",
    }
    for title, show in tables.items():
        table = Table(title=f"{title}, {options.rounds} decisions, {options.seeds} seeds")
        table.add_column("")
        for problem in options.problems:
            table.add_column(problem, justify="right")
        for learner in options.learners:
            cells = [results.get((problem, learner)) for problem in options.problems]
            table.add_row(learner, *("-" if cell is None else show(cell) for cell in cells))
        console.print(table)
    console.print("Mean ± standard error over the seeds; processor time, median of the runs.")
    # The goals are for 10,000 decisions.
    lines = list(missed(results)) if options.rounds == GOAL_ROUNDS else []
    for line in lines:
        console.print(f"MISSED: {line}")
    return not lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=GOAL_ROUNDS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="500 decisions, 2 seeds")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seeds = 500, 2
    console = Console()
    results = measure(tasks(options), options.processes, console)
    return 0 if report(results, options, console) else 1


if __name__ == "__main__":
    raise SystemExit(main())
