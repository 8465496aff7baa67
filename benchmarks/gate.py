"""Gates: how often a better policy is deployed, and one that is worse or no better.

A world with five arms and a linear truth. The champion has made the log, with known probabilities;
a candidate that picks the right arm more often, or less often, is judged on held-out decisions:

* by two scores: deployed if its importance-weighted score is at least the score that the champion
  had on held-out decisions of its own, made before;
* by the paired doubly robust difference of :mod:`flask_bandit.analysis.paired`: deployed if its
  lower bound is above 0.

Run ``python -m benchmarks.gate``; ``--runs`` for more of them.
"""

from __future__ import annotations

import argparse
import math
from statistics import NormalDist

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from flask_bandit.analysis.logged import Logged
from flask_bandit.analysis.paired import compare, power
from flask_bandit.analysis.reward_models import RidgeModel
from flask_bandit.features import Features
from flask_bandit.model import FloatArray

ARMS = ("a", "b", "c", "d", "e")
FEATURES = Features.parse({f"x{n}": {"indicator": False} for n in range(4)})
EXPLORES = 0.2
"""Share of its choices that a policy spreads evenly."""
TRAINED = 900
JUDGED = 100, 400, 1600
BETTER, WORSE = "better", "worse"
GATES = "two scores", "paired, 95 %"
LOOKS = 20
ALPHA = 0.05


class World:
    """Who is right how often: scores of the arms by context, more or less blurred.

    :param blur: of a policy's idea of the scores; the larger, the worse it is
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.truth = rng.normal(size=(4, len(ARMS)))

    def chances(self, contexts: FloatArray, idea: FloatArray) -> FloatArray:
        """Return a policy's probabilities, shape (n, K)."""
        best = (contexts @ idea).argmax(axis=1)
        spread = np.full((len(contexts), len(ARMS)), EXPLORES / len(ARMS))
        spread[np.arange(len(contexts)), best] += 1.0 - EXPLORES
        return spread

    def idea(self, blur: float) -> FloatArray:
        """Return what a policy believes of the truth."""
        return self.truth + blur * self.rng.normal(size=self.truth.shape)

    def log(self, count: int, idea: FloatArray) -> Logged:
        """Return decisions of a policy; nine of ten times the best arm is rewarded."""
        contexts = self.rng.normal(size=(count, 4))
        chances = self.chances(contexts, idea)
        arm = (chances.cumsum(axis=1) < self.rng.random((count, 1))).sum(axis=1)
        best = (contexts @ self.truth).argmax(axis=1)
        rewarded = self.rng.random(count) < np.where(arm == best, 0.9, 0.1)
        ids = [f"d{n}" for n in range(count)]
        return Logged(
            arms=ARMS,
            arm=arm,
            reward=rewarded.astype(np.float64),
            propensity=chances[np.arange(count), arm],
            propensities=chances,
            eligible=np.ones(chances.shape, dtype=np.bool_),
            contexts=[dict(zip(FEATURES.names, row, strict=True)) for row in contexts.tolist()],
            clusters=ids,
            alone=np.ones(count, dtype=np.bool_),
            at=np.arange(count, dtype=np.float64),
            version=np.ones(count, dtype=np.int64),
            ids=ids,
        )


def as_array(batch: Logged) -> FloatArray:
    """Return the contexts, shape (n, 4)."""
    return np.array([list(context.values()) for context in batch.contexts if context is not None])


def score(batch: Logged, chances: FloatArray) -> float:
    """Return the importance-weighted reward per decision."""
    return float(np.mean(batch.reward * batch.taken(chances) / batch.propensity))


def attempt(world: World, judged: int, case: str) -> tuple[bool, bool]:
    """Judge one candidate; return what the gates say."""
    blurs = {BETTER: (1.0, 0.3), WORSE: (0.3, 1.0)}[case]
    champion, candidate = (world.idea(blur) for blur in blurs)
    trained = world.log(TRAINED, champion)
    model = RidgeModel(FEATURES, len(ARMS), folds=1)
    model.add(trained)
    before, held_out = world.log(judged, world.idea(2.0)), world.log(judged, champion)
    by_scores = score(held_out, world.chances(as_array(held_out), candidate)) >= score(
        before, world.chances(as_array(before), champion)
    )
    paired = compare(
        [held_out],
        lambda batch: world.chances(as_array(batch), candidate),
        model=model,
        alpha=ALPHA,
    )
    return by_scores, paired.is_better()


def gates(runs: int, seed: int) -> Table:
    """Return how often each gate deploys, by case and number of held-out decisions."""
    table = Table(title=f"Deployed, of {runs} candidates")
    for heading in ("held out", "candidate is", *GATES):
        table.add_column(heading, justify="right")
    for judged in JUDGED:
        for case in (BETTER, WORSE):
            deployed = np.zeros(2)
            for run in track(range(runs), f"{judged} {case}", transient=True):
                world = World(np.random.default_rng([seed, judged, run]))
                deployed += attempt(world, judged, case)
            shares = [f"{share:.0%}" for share in deployed / runs]
            table.add_row(str(judged), case, *shares)
    return table


def looks(runs: int, seed: int) -> Table:
    """Return how often a candidate that is no better is deployed within 20 attempts."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(runs, LOOKS))
    number = np.arange(1, LOOKS + 1)
    growing = steps.cumsum(axis=1) / np.sqrt(number)
    spent = np.array([_quantile(1.0 - ALPHA * 6.0 / (math.pi * j) ** 2) for j in number])
    table = Table(title=f"No better, and deployed at one of {LOOKS} attempts, of {runs}")
    table.add_column("rule")
    table.add_column("deployed", justify="right")
    rows = {
        "5 % each time, the same decisions and more": growing > _quantile(1.0 - ALPHA),
        "5 % each time, fresh decisions": steps > _quantile(1.0 - ALPHA),
        "fresh decisions, 5 % in all (.05 * 6 / (pi j)^2)": steps > spent,
    }
    for rule, clears in rows.items():
        table.add_row(rule, f"{clears.any(axis=1).mean():.1%}")
    return table


def powers() -> Table:
    """Return how probable a yes is for a lift of 25 % on a base of 8 %."""
    table = Table(title="Probability of a yes: 8 % base, 25 % lift, 5 arms of equal probability")
    table.add_column("held out", justify="right")
    table.add_column("power", justify="right")
    for judged in (100, 500, 2_000, 5_000, 10_000, 20_000):
        table.add_row(f"{judged:,}", f"{power(0.25, 0.08, judged):.2f}")
    return table


def counted(runs: int, seed: int) -> Table:
    """Return the mean weight of an arm whose probability is counted from M draws."""
    rng = np.random.default_rng(seed)
    table = Table(title="Mean weight of an arm of probability p: 1 if its probability is right")
    for heading in ("p", "counted from 100 draws", "1 - (1 - p)^100", "exact"):
        table.add_column(heading, justify="right")
    for chance in (0.5, 0.05, 0.01, 0.001):
        share = rng.binomial(100, chance, runs) / 100.0
        chosen, truly = rng.random(runs) < share, rng.random(runs) < chance
        # Target and log are the same policy, so each weight should be 1.
        weight = np.divide(1.0 * chosen, share, out=np.zeros(runs), where=share > 0.0)
        table.add_row(
            f"{chance:g}",
            f"{weight.mean():.2f}",
            f"{1.0 - (1.0 - chance) ** 100:.2f}",
            f"{(truly / chance).mean():.2f}",
        )
    return table


def _quantile(chance: float) -> float:
    return NormalDist().inv_cdf(chance)


def main(arguments: list[str] | None = None) -> None:
    """Run the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="candidates in each case")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    console = Console()
    console.print(gates(options.runs, options.seed))
    console.print(looks(20 * options.runs, options.seed))
    console.print(powers())
    console.print(counted(1000 * options.runs, options.seed))


if __name__ == "__main__":
    main()
