"""What a probability vector costs, and a draw from a cached one.

Run ``python -m benchmarks.propensities``. Cells are measured in turns, a slice of some warm calls
each, in processor time; a busy machine still slows all of them, and the yardstick tells how much.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from flask_bandit.algorithms import POLICIES
from flask_bandit.bandits import ThompsonBandit
from flask_bandit.model import FloatArray, Stats

SIZES = (3, 10, 100, 1000)
THOMPSON = ("thompson", "gaussian_thompson")
DRAW = "draw from the cache"
YARDSTICK, GRID = "yardstick: add 3 floats", "yardstick: fixed 128-node grid"


@dataclass
class Cell:
    """A call to time, and the seconds that one call took in each slice."""

    name: str
    size: int
    call: Callable[[], object]
    repeat: int = 1
    seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Time a slice of ``repeat`` calls."""
        call = self.call
        call()
        started = time.thread_time()
        for _ in range(self.repeat):
            call()
        self.seconds.append((time.thread_time() - started) / self.repeat)

    @property
    def microseconds(self) -> float:
        """The median of the slices."""
        return median(self.seconds) * 1e6

    @property
    def goal(self) -> float | None:
        """Most microseconds allowed; there are goals for 3 and for 1000 arms."""
        if self.name in (YARDSTICK, GRID) or self.size not in (3, 1000):
            return None
        if self.name == DRAW:
            return 5.0
        if self.name in THOMPSON:
            return 100.0 if self.size == 3 else 5000.0
        return 40.0 if self.size == 3 else 150.0


def some_stats(size: int, rng: np.random.Generator, extra: tuple[str, ...]) -> Stats:
    """Make counts as a running experiment has them: 50 to 2,000 pulls, rates of 2 to 10 %."""
    pulls = rng.integers(50, 2000, size)
    rewards = rng.binomial(pulls, rng.uniform(0.02, 0.10, size))
    value = rewards.astype(np.float64)
    gains: dict[str, FloatArray] = dict.fromkeys(extra, value * 2.0)
    return Stats(tuple(f"arm {n}" for n in range(size)), pulls, rewards, value, value, gains)


def vector_cell(name: str, size: int) -> Cell:
    """Make the cell of a policy; it meets several sets of counts in turn."""
    policy, rng = POLICIES[name](), np.random.default_rng(size)
    turns = cycle([some_stats(size, rng, policy.extra) for _ in range(8)])
    return Cell(name, size, lambda: policy.propensities(next(turns)), 1 if size > 100 else 10)


def draw_cell(size: int) -> Cell:
    """Make the cell of a draw from a bandit's table."""
    stats, bandit = some_stats(size, np.random.default_rng(size), ()), ThompsonBandit()
    for arm in stats.arms:
        bandit.add_arm(arm)
    sums = zip(stats.arms, stats.pulls.tolist(), stats.reward.tolist(), strict=True)
    table = bandit.draw_table({arm: {"pulls": n, "reward": value} for arm, n, value in sums})
    turns = cycle(np.random.default_rng(size).random(1000).tolist())
    return Cell(DRAW, size, lambda: table.draw(next(turns)), repeat=100)


def yardstick_cell(size: int) -> Cell:
    """Make a cell whose time depends on the machine only."""
    short = np.ones(3)
    return Cell(YARDSTICK, size, lambda: short + short, repeat=100)


def grid_cell(size: int) -> Cell:
    """Make a cell of Thompson's integral on 128 even nodes: simple, and wrong for mixed widths.

    The goals for Thompson were set where this took 70 us at 3 arms and 3,900 us at 1000.
    """
    stats = some_stats(size, np.random.default_rng(size), ())
    return Cell(GRID, size, lambda: fixed_grid(stats), 1 if size > 100 else 10)


def fixed_grid(stats: Stats) -> FloatArray:
    """Return Thompson's probabilities for Beta(1, 1) priors, from 128 even nodes."""
    a, b = 1.0 + stats.reward, 1.0 + stats.pulls - stats.reward
    mean = a / (a + b)
    scale = np.sqrt(mean * (1.0 - mean) / (a + b + 1.0))
    low, high = max(0.0, (mean - 5.0 * scale).max()), min(1.0, (mean + 5.0 * scale).max())
    nodes, step = np.linspace(low, high, 130, retstep=True)
    nodes = nodes[1:-1]
    pairs = zip(a.tolist(), b.tolist(), strict=True)
    peaks = np.array([math.lgamma(x + y) - math.lgamma(x) - math.lgamma(y) for x, y in pairs])
    logs = np.outer(a - 1.0, np.log(nodes)) + np.outer(b - 1.0, np.log1p(-nodes))
    density = np.exp(logs + peaks[:, None])
    above = np.cumsum(density[:, ::-1], axis=1)[:, ::-1] * step - 0.5 * step * density
    log_below = np.log(np.clip(1.0 - above, 1e-300, 1.0))
    wins = (density * np.exp(log_below.sum(axis=0) - log_below)).sum(axis=1)
    result: FloatArray = wins / wins.sum()
    return result


def report(cells: list[Cell], console: Console) -> bool:
    """Print microseconds per call, a row per policy; return whether the goals are met."""
    table = Table(title="microseconds per probability vector, by the number of arms")
    for column in ("", *map(str, SIZES), "goals (<=)", ""):
        table.add_column(column, justify="right" if column else "left")
    is_met = True
    for name in dict.fromkeys(cell.name for cell in cells):
        row = [cell for cell in cells if cell.name == name]
        times = [f"{cell.microseconds:.1f}" for cell in row]
        goals = [cell for cell in row if cell.goal is not None]
        missed = [f"{c.size}" for c in goals if c.goal is not None and c.microseconds > c.goal]
        is_met = is_met and not missed
        verdict = f"MISSED at {', '.join(missed)}" if missed else "ok" if goals else ""
        limits = " / ".join(f"{c.goal:g}" for c in goals if c.goal is not None)
        table.add_row(name, *times, limits, verdict)
    console.print(table)
    console.print("Processor time of the thread, median of the slices; goals at 3 / 1000 arms.")
    return is_met


def main() -> int:
    """Measure and print; the exit code is 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    options = parser.parse_args()
    console = Console()
    cells = [vector_cell(name, size) for name in options.policies for size in SIZES]
    for make in (draw_cell, yardstick_cell, grid_cell):
        cells += [make(size) for size in SIZES]
    for _ in track(range(options.rounds), "rounds", console=console):
        for cell in cells:
            cell.run()
    return 0 if report(cells, console) else 1


if __name__ == "__main__":
    raise SystemExit(main())
