"""Off-policy evaluation: time and memory of a long log, and how far to trust each estimator.

The log is made entry by entry while it is read, so that only what the library keeps is in memory;
each size has a process of its own. The truth of the simulated logs is known.

Run ``python -m benchmarks.ope``; ``--rows`` and ``--runs`` for less of it.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from flask_bandit.analysis.estimators import ESTIMATORS
from flask_bandit.analysis.logged import Logged, read_log
from flask_bandit.analysis.ope import evaluate
from flask_bandit.analysis.paired import Paired, compare, power
from flask_bandit.analysis.reward_models import fit_rewards
from flask_bandit.analysis.targets import Target, constant_target
from flask_bandit.features import Features
from flask_bandit.model import DEFAULT_GOAL, Decision, FloatArray, LogEntry, Reward

ARMS, FEATURES, BLOCK = 5, 8, 1000
NAMES = tuple(f"arm{place}" for place in range(ARMS))
BASE, LIFT = 0.08, 0.25
DECISIONS = (100, 2000, 10_000)


class World:
    """Clicks: 5 arms, 8 features, about 8 % of all decisions are rewarded.

    :param sharpness: how sure the logged policy is of its taste; 0 is uniform
    :param floor: least probability of an arm
    """

    def __init__(self, sharpness: float = 2.0, floor: float = 0.02) -> None:
        rng = np.random.default_rng(0)
        self.slopes: FloatArray = rng.normal(0.0, 0.4, (FEATURES, ARMS))
        self.taste: FloatArray = rng.normal(0.0, 0.4, (FEATURES, ARMS))
        self.sharpness, self.floor = sharpness, floor

    def rates(self, x: FloatArray) -> FloatArray:
        """Return the chance of a reward of each arm, shape (n, K)."""
        logits = x @ self.slopes - 2.7
        result: FloatArray = 1.0 / (1.0 + np.exp(-logits))
        return result

    def logged(self, x: FloatArray) -> FloatArray:
        """Return the probabilities of the policy in charge, which has a taste of its own."""
        return self._soft(self.sharpness * (x @ self.taste))

    def target(self, x: FloatArray) -> FloatArray:
        """Return those of a policy that mostly takes the best arm."""
        return self._soft(4.0 * (x @ self.slopes))

    def _soft(self, scores: FloatArray) -> FloatArray:
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares = weights / weights.sum(axis=1, keepdims=True)
        result: FloatArray = (1.0 - ARMS * self.floor) * shares + self.floor
        return result

    def truth(self) -> float:
        """Return what the target earns, from a million visitors."""
        x = np.random.default_rng(1).normal(0.0, 1.0, (1_000_000, FEATURES))
        return float((self.target(x) * self.rates(x)).sum(axis=1).mean())

    def log(self, n: int, rng: np.random.Generator) -> Logged:
        """Return n decisions."""
        x = rng.normal(0.0, 1.0, (n, FEATURES))
        propensities, rates = self.logged(x), self.rates(x)
        passed = propensities.cumsum(axis=1) < rng.random(n)[:, None]
        arm = np.minimum(passed.sum(axis=1), ARMS - 1)
        rows = np.arange(n)
        ids = [str(row) for row in range(n)]
        return Logged(
            arms=NAMES,
            arm=arm,
            reward=(rng.random(n) < rates[rows, arm]).astype(np.float64),
            propensity=propensities[rows, arm],
            propensities=propensities,
            eligible=np.ones((n, ARMS), dtype=bool),
            contexts=[{"x": row} for row in x],
            clusters=ids,
            alone=np.ones(n, dtype=bool),
            at=np.arange(n, dtype=np.float64),
            version=np.ones(n, dtype=np.int64),
            ids=ids,
        )

    def of_batch(self, batch: Logged) -> FloatArray:
        """Return the target's probabilities at logged decisions."""
        return self.target(np.array([context["x"] for context in batch.contexts if context]))


class Vector:
    """Encodes a context that is a vector already."""

    dimension = FEATURES

    def encode(self, context: Mapping[str, Any] | None) -> FloatArray:
        """Return it."""
        assert context is not None
        vector: FloatArray = context["x"]
        return vector


def entries(world: World, count: int) -> Iterator[LogEntry]:
    """Yield a log as a storage does, with features by name."""
    rng = np.random.default_rng(2)
    for start in range(0, count, BLOCK):
        batch = world.log(BLOCK, rng)
        for row in range(min(BLOCK, count - start)):
            context = batch.contexts[row]
            assert context is not None
            named = {f"x{n}": value for n, value in enumerate(context["x"].tolist())}
            chances = dict(zip(NAMES, batch.propensities[row].tolist(), strict=True))
            key, arm, at = f"{start + row:032x}", NAMES[batch.arm[row]], float(start + row)
            decision = Decision(key, "b", 1, arm, chances, "p", at, named)
            reward = Reward(key, key, "b", 1, arm, 1.0, at)
            yield LogEntry(decision, (reward,) if batch.reward[row] else ())


def measure(count: int) -> dict[str, float]:
    """Read, fit and evaluate a log; processor seconds of each alone, and the peak in megabytes."""
    world = World()
    features = Features.parse({f"x{n}": "numeric" for n in range(FEATURES)})

    def batches() -> Iterator[Logged]:
        return read_log(entries(world, count), NAMES, goal=DEFAULT_GOAL)

    def target(batch: Logged) -> FloatArray:
        rows = [
            [context[f"x{n}"] for n in range(FEATURES)] for context in batch.contexts if context
        ]
        return world.target(np.array(rows))

    made = timed(lambda: deque(entries(world, count), maxlen=0))
    read = timed(lambda: deque(batches(), maxlen=0))
    started = time.process_time()
    model = fit_rewards(batches(), features, ARMS)
    fitted = time.process_time() - started
    started = time.process_time()
    found = evaluate(batches(), target, model)
    evaluated = time.process_time() - started
    assert found.decisions == count
    # Of Linux, in kilobytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return {
        "rows": count,
        "read": read - made,
        "fit": fitted - read,
        "evaluate": evaluated - read,
        "peak": peak,
    }


def timed(run: Callable[[], object]) -> float:
    """Return the processor seconds that it takes."""
    started = time.process_time()
    run()
    return time.process_time() - started


def in_a_process(count: int) -> dict[str, float]:
    """Measure in a process of its own, so that its peak is its own too."""
    command = [sys.executable, "-m", "benchmarks.ope", "--measure", str(count)]
    result: dict[str, float] = json.loads(subprocess.check_output(command))
    return result


@dataclass
class Score:
    """How an estimator did over all runs."""

    values: list[float]
    errors: list[float]
    covered: int = 0


def score(world: World, truth: float, decisions: int, runs: int) -> tuple[dict[str, Score], float]:
    """Evaluate the target from many logs; also return the mean effective sample size."""
    effective = 0.0
    scores = {name: Score([], []) for name in ESTIMATORS}
    for seed in track(range(runs), f"logs of {decisions:,}"):
        log = world.log(decisions, np.random.default_rng((3, seed)))
        found = evaluate([log], world.of_batch, fit_rewards([log], Vector(), ARMS))
        effective += found.effective / runs
        for name, estimate in found.estimates.items():
            scores[name].values.append(estimate.value)
            scores[name].errors.append(estimate.error)
            scores[name].covered += estimate.low <= truth <= estimate.high
    return scores, effective


def flat(decisions: int, runs: int) -> tuple[float, float]:
    """Return how often a better policy is found, and how often one that is no better.

    A uniform log of five arms; the champion always takes one that earns 8 %, the candidate another
    one that earns a fourth more, or the same.
    """
    champion: Target = constant_target(np.eye(ARMS)[0])
    candidates = [constant_target(np.eye(ARMS)[place]) for place in (1, 2)]
    rates = np.full(ARMS, BASE)
    rates[1] *= 1.0 + LIFT
    calls = [0, 0]
    for seed in range(runs):
        rng = np.random.default_rng((4, seed))
        arm = rng.integers(0, ARMS, decisions)
        log = World(0.0, 1.0 / ARMS).log(1, rng)
        even = np.full((decisions, ARMS), 1.0 / ARMS)
        ids = [str(row) for row in range(decisions)]
        log = Logged(
            log.arms,
            arm,
            (rng.random(decisions) < rates[arm]).astype(np.float64),
            even[:, 0],
            even,
            even > 0.0,
            [None] * decisions,
            ids,
            np.ones(decisions, dtype=bool),
            np.zeros(decisions),
            np.ones(decisions, dtype=np.int64),
            ids,
        )
        model = fit_rewards([log], None, ARMS)
        for place, candidate in enumerate(candidates):
            found: Paired = compare([log], candidate, champion, model)
            calls[place] += found.is_better()
    return calls[0] / runs, calls[1] / runs


def report_estimators(console: Console, runs: int, decisions: tuple[int, ...]) -> None:
    """Print bias, spread and coverage."""
    worlds = {"uniform": World(0.0), "one of another taste": World()}
    for logged, world in worlds.items():
        truth = world.truth()
        for count in decisions:
            scores, effective = score(world, truth, count, runs)
            table = Table(
                title=f"logged: {logged}; {count:,} decisions, worth {effective:.0f} of the "
                f"target's own; it earns {truth:.4f}"
            )
            for column in ("estimator", "bias", "± noise", "spread", "error told", "95 % covers"):
                table.add_column(column, justify="left" if column == "estimator" else "right")
            for name, one in scores.items():
                bias, spread = np.mean(one.values) - truth, np.std(one.values, ddof=1)
                figures = (spread / math.sqrt(runs), spread, np.mean(one.errors))
                covered = f"{one.covered / runs:.1%}"
                table.add_row(name, f"{bias:+.4f}", *(f"{each:.4f}" for each in figures), covered)
            console.print(table)


def report_power(console: Console, runs: int) -> None:
    """Print how often the paired test finds a lift.

    Whoever is lucky is called better too: in 5 % of the runs where there is no lift.
    """
    table = Table(title=f"{BASE:.0%} and a lift of {LIFT:.0%}: called better at alpha .05")
    for column in ("decisions", "better", "by formula", "no better"):
        table.add_column(column, justify="right")
    for count in track(DECISIONS, "power"):
        better, same = flat(count, runs)
        table.add_row(
            f"{count:,}", f"{better:.3f}", f"{power(LIFT, BASE, count):.3f}", f"{same:.3f}"
        )
    console.print(table)


def report_cost(console: Console, sizes: list[int]) -> None:
    """Print seconds and memory."""
    table = Table(title=f"{ARMS} arms, {FEATURES} features: processor seconds, peak megabytes")
    for column in ("rows", "read", "fit", "evaluate", "peak"):
        table.add_column(column, justify="right")
    for size in sizes:
        found = in_a_process(size)
        cells = [f"{found[name]:.1f}" for name in ("read", "fit", "evaluate")]
        table.add_row(f"{size:,}", *cells, f"{found['peak']:.0f}")
    console.print(table)


def main(arguments: Any = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--decisions", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    console = Console()
    report_cost(console, options.rows)
    report_estimators(console, options.runs, tuple(options.decisions))
    report_power(console, 2 * options.runs)


if __name__ == "__main__":
    main()
