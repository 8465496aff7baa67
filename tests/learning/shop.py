"""A shop whose visitors earn by what is known of them, and its log, written in one go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from flask_bandit.analysis.logged import Logged
from flask_bandit.bandits import Bandit
from flask_bandit.engine import Engine
from flask_bandit.model import Decision, Reward, StatsDelta
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import BanditStorage, Commit, DecisionWrite, RewardWrite

ARMS = ("trial", "discount", "bundle")
FEATURES: Mapping[str, Any] = {"age": {"low": 0, "high": 100, "pivot": 50}, "country": ["de", "fr"]}


def make_bandit(arms: tuple[str, ...] = ARMS, **options: Any) -> Bandit:
    bandit = Bandit(**{"features": FEATURES, "evaluation": 0.5, **options})
    for arm in arms:
        bandit.add_arm(arm)
    return bandit


def make_engine(storage: BanditStorage | None = None, **options: Any) -> Engine:
    """Return an engine with one bandit, ``offer``."""
    bandits = {"offer": make_bandit(**options)}
    return Engine(storage or MemoryBanditStorage(), bandits, control_ttl=0.0)


def context_of(rng: np.random.Generator) -> dict[str, Any]:
    return {"age": float(rng.integers(18, 80)), "country": ("de", "fr", "it")[rng.integers(3)]}


def rate_of(arm: str, context: Mapping[str, Any]) -> float:
    """Return how probable a reward is: each arm has visitors of its own."""
    best = (
        "discount" if context["country"] == "fr" else "trial" if context["age"] < 45 else "bundle"
    )
    return 0.6 if arm == best else 0.1


def write_log(
    storage: BanditStorage,
    count: int,
    seed: int,
    *,
    arms: tuple[str, ...] = ARMS,
    at: float | None = None,
    policy: str = "uniform()",
    subjects: int = 0,
    prefix: str = "d",
    **fields: Any,
) -> None:
    """Write decisions of a uniform policy with their rewards, an hour and less old.

    :param subjects: how many known visitors they are of; by default of anonymous ones
    """
    rng, now = np.random.default_rng(seed), time.time() - 3600.0 if at is None else at
    made, earned = [], []
    for number in range(count):
        context = context_of(rng)
        arm = arms[rng.integers(len(arms))]
        id_ = f"{prefix}{seed}-{number}"
        decision = Decision(
            **{
                "id": id_,
                "bandit": "offer",
                "version": 1,
                "arm": arm,
                "propensities": {each: 1.0 / len(arms) for each in arms},
                "policy_version": policy,
                "at": now + number * 1e-3,
                "context": context,
                "subject": f"s{rng.integers(subjects)}" if subjects else None,
                **fields,
            }
        )
        made.append(DecisionWrite(decision, StatsDelta({arm: {"pulls": 1}})))
        if rng.random() < rate_of(arm, decision.context or context):
            reward = Reward(f"{id_}:r", id_, "offer", decision.version, arm, 1.0, decision.at + 1.0)
            sums = {"rewards": 1, "reward": 1.0, "reward_sq": 1.0}
            earned.append(RewardWrite(reward, StatsDelta({arm: sums})))
    storage.commit(Commit(tuple(made), tuple(earned)))


def window(
    rng: np.random.Generator,
    count: int,
    rates: tuple[float, ...],
    chances: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3),
) -> Logged:
    """Return decisions that were drawn with the same probabilities."""
    arm = rng.choice(len(ARMS), size=count, p=chances)
    propensities = np.tile(np.array(chances), (count, 1))
    ids = [str(number) for number in range(count)]
    return Logged(
        arms=ARMS,
        arm=arm,
        reward=(rng.random(count) < np.array(rates)[arm]).astype(float),
        propensity=propensities[np.arange(count), arm],
        propensities=propensities,
        eligible=np.ones((count, len(ARMS)), dtype=bool),
        contexts=[None] * count,
        clusters=ids,
        alone=np.ones(count, dtype=bool),
        at=np.zeros(count),
        version=np.ones(count, dtype=np.int64),
        ids=ids,
    )
