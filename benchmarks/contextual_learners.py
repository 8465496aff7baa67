"""The contenders of ``benchmarks.contextual``, all asked and taught in the same way.

Other libraries are imported where one of theirs is made, so that ours run without them.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from flask_bandit.algorithms import (
    LinearPolicy,
    LinEpsilonGreedyPolicy,
    LinThompsonPolicy,
    LinUCBPolicy,
    SquareCBPolicy,
    ThompsonPolicy,
)
from flask_bandit.model import FloatArray, Stats


@dataclass(frozen=True)
class Problem:
    """Rows of contexts, and what each arm would earn in each.

    :param spec: the features, for our policies, which take the rows of ``raw``
    :param scaled: the rows as the others need them: standardised with all the data beforehand,
        or divided by their scale
    :param chances: probability of a reward, a row per context and a column per arm
    """

    name: str
    spec: Mapping[str, Any]
    raw: FloatArray
    scaled: FloatArray
    chances: FloatArray

    @property
    def arms(self) -> int:
        return int(self.chances.shape[1])


class Learner(Protocol):
    """Chooses an arm for a row of the problem, and is told what the arm earned."""

    def choose(self, row: int, draw: float) -> tuple[int, float]:
        """Return an arm and its probability, which is 1 for those that tell none."""
        ...

    def learn(self, row: int, arm: int, probability: float, reward: float) -> None: ...


def drawn(probabilities: list[float], draw: float) -> tuple[int, float]:
    """Return the arm that a number in [0, 1) stands for, and its probability."""
    ends = list(accumulate(probabilities))
    arm = min(bisect(ends, draw * ends[-1]), len(ends) - 1)
    return arm, probabilities[arm]


class Ours:
    """A linear policy, learning in place; a context is a mapping, as in an app."""

    def __init__(self, problem: Problem, policy: LinearPolicy) -> None:
        names = policy.features.names
        self.contexts = [dict(zip(names, row, strict=True)) for row in problem.raw.tolist()]
        arms = tuple(str(arm) for arm in range(problem.arms))
        self.prepared = policy.prepare(Stats.from_counts(arms, {}))
        self.encoded: dict[int, FloatArray] = {}

    def choose(self, row: int, draw: float) -> tuple[int, float]:
        y = self.encoded[row] = self.prepared.model.vector(self.contexts[row])
        return drawn(self.prepared.propensities_at(y).tolist(), draw)

    def learn(self, row: int, arm: int, probability: float, reward: float) -> None:
        self.prepared.model.learn_at(arm, self.encoded[row], reward)


class Twin:
    """Thompson sampling without context."""

    def __init__(self, problem: Problem) -> None:
        self.policy = ThompsonPolicy()
        self.names = tuple(str(arm) for arm in range(problem.arms))
        self.pulls = np.zeros(problem.arms, dtype=np.int64)
        self.reward = np.zeros(problem.arms)

    def choose(self, row: int, draw: float) -> tuple[int, float]:
        stats = Stats(self.names, self.pulls, self.pulls, self.reward, self.reward)
        return drawn(self.policy.propensities(stats).tolist(), draw)

    def learn(self, row: int, arm: int, probability: float, reward: float) -> None:
        self.pulls[arm] += 1
        self.reward[arm] += reward


class VowpalWabbit:
    """``--cb_explore_adf``: a joint model of context and arm, updated by gradient steps."""

    def __init__(self, problem: Problem, exploration: str, seed: int) -> None:
        from vowpalwabbit import Workspace

        arguments = f"--cb_explore_adf {exploration} -q sa --quiet --random_seed {seed}"
        self.workspace = Workspace(arguments)
        self.arms = [f"|a arm{arm}" for arm in range(problem.arms)]
        self.shared = [
            "shared |s " + " ".join(f"{n}:{x:.6g}" for n, x in enumerate(row))
            for row in problem.scaled.tolist()
        ]

    def choose(self, row: int, draw: float) -> tuple[int, float]:
        return drawn(self.workspace.predict([self.shared[row], *self.arms]), draw)

    def learn(self, row: int, arm: int, probability: float, reward: float) -> None:
        lines = [self.shared[row], *self.arms]
        lines[arm + 1] = f"{arm}:{-reward}:{probability} {self.arms[arm]}"
        self.workspace.learn(lines)


class MABWiser:
    """Disjoint linear models, refitted by row."""

    def __init__(self, problem: Problem, family: str, alpha: float, seed: int) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self.rows = np.hstack([np.ones((len(problem.scaled), 1)), problem.scaled])
        policy = getattr(LearningPolicy, family)(alpha=alpha)
        self.mab = MAB(list(range(problem.arms)), policy, seed=seed)
        self.is_fitted = False

    def choose(self, row: int, draw: float) -> tuple[int, float]:
        if not self.is_fitted:
            return 0, 1.0
        return int(self.mab.predict(self.rows[row : row + 1])), 1.0

    def learn(self, row: int, arm: int, probability: float, reward: float) -> None:
        # Lists of one, since that is what it takes.
        learn = self.mab.partial_fit if self.is_fitted else self.mab.fit
        learn([arm], [reward], self.rows[row : row + 1])
        self.is_fitted = True


class River:
    """Its disjoint LinUCB, over mappings."""

    def __init__(self, problem: Problem, seed: int) -> None:
        from river.bandit import LinUCBDisjoint

        self.policy = LinUCBDisjoint(seed=seed)
        self.arms = list(range(problem.arms))
        self.contexts = [
            {"bias": 1.0, **{f"x{n}": x for n, x in enumerate(row)}}
            for row in problem.scaled.tolist()
        ]

    def choose(self, row: int, draw: float) -> tuple[int, float]:
        return int(self.policy.pull(self.arms, context=self.contexts[row])), 1.0

    def learn(self, row: int, arm: int, probability: float, reward: float) -> None:
        self.policy.update(arm, self.contexts[row], reward)


def vowpal_wabbit(exploration: str) -> Callable[[Problem, int], Learner]:
    return lambda problem, seed: VowpalWabbit(problem, exploration, seed)


LEARNERS: dict[str, Callable[[Problem, int], Learner]] = {
    "LinThompson": lambda problem, seed: Ours(problem, LinThompsonPolicy(problem.spec)),
    "LinUCB(.25)": lambda problem, seed: Ours(problem, LinUCBPolicy(problem.spec, 0.25)),
    "SquareCB": lambda problem, seed: Ours(problem, SquareCBPolicy(problem.spec)),
    "LinEpsilonGreedy(.05)": lambda problem, seed: Ours(
        problem, LinEpsilonGreedyPolicy(problem.spec, 0.05)
    ),
    "Thompson, no context": lambda problem, seed: Twin(problem),
    "VW squarecb": vowpal_wabbit("--squarecb"),
    "VW regcb": vowpal_wabbit("--regcb"),
    "VW cover 3": vowpal_wabbit("--cover 3"),
    "VW bag 5": vowpal_wabbit("--bag 5"),
    "VW egreedy .05": vowpal_wabbit("--epsilon 0.05"),
    "MABWiser LinUCB(.25)": lambda problem, seed: MABWiser(problem, "LinUCB", 0.25, seed),
    "MABWiser LinTS(.25)": lambda problem, seed: MABWiser(problem, "LinTS", 0.25, seed),
    "river LinUCBDisjoint": lambda problem, seed: River(problem, seed),
}
"""Name in the table -> how one is made, for a problem and a seed."""

OURS = tuple(LEARNERS)[:5]
