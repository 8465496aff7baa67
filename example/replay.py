"""Fills a storage with visitors of the past days, so that there is something to look at.

They decide and click as visitors of the shop do, by the same bandits and with the same counts; but
nobody sends a request, and the clock is the past's.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator

from flask import Flask

from flask_bandit.bandits import Bandit
from flask_bandit.counting import decision_delta, reward_delta
from flask_bandit.engine import Engine
from flask_bandit.hashing import reward_id
from flask_bandit.model import BanditKey, Counts, Decision, Reward
from flask_bandit.storage.base import Commit, DecisionWrite, RewardWrite

from .app import create_app
from .shopper import TRUE_RATES

DAY = 86400.0
BATCH = 50
"""Visitors of one commit, unless it is said otherwise."""
LONGEST_LATENESS = 1800.0
"""Seconds from a decision to its click, at most."""


def main() -> None:
    """Replay visitors into the storage that the shop uses."""
    parser = argparse.ArgumentParser("python -m example.replay", description=__doc__)
    parser.add_argument("--visitors", type=above_zero, default=5000)
    parser.add_argument("--days", type=above_zero, default=14, help="since the first (default: 14)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    app = create_app()
    state = app.extensions["bandit"]
    if state.storage.read_counts():
        print(
            f"note: {state.config.storage_uri} has visitors already. Those of the past decide by"
            " what is known now, so the charts show what could not have been."
        )
    counted = replay(app, args.visitors, args.days, args.seed)
    print(
        f"Replayed {args.visitors:,} visitors of {args.days:,} days; {counted:,} of them clicked."
    )


def above_zero(text: str) -> int:
    """Read a whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not above 0")
    return number


def replay(app: Flask, visitors: int, days: float = 14.0, seed: int = 1, batch: int = BATCH) -> int:
    """Store what visitors of the past days decided and earned.

    :param app: a shop
    :param days: since the first visitor
    :param batch: visitors that decide by the same counts, and are stored together
    :return: how many clicked
    """
    state = app.extensions["bandit"]
    engine = state.engine
    rng = random.Random(seed)
    began = time.time() - days * DAY
    moments = sorted(began + days * DAY * rng.random() for _ in range(visitors))
    clicked = 0
    for some in batches(moments, batch):
        commit, clicks = visits(engine, engine.storage.read_counts(), some, rng)
        engine.storage.commit(commit)
        clicked += clicks
    for name in engine.bandits:
        # What was decided in the past is not among what a page reads as new.
        state.digester.forget(name)
    return clicked


def batches(moments: list[float], size: int) -> Iterator[list[float]]:
    """Yield the moments, so many at a time."""
    for start in range(0, len(moments), size):
        yield moments[start : start + size]


def visits(
    engine: Engine, counts: Counts, moments: list[float], rng: random.Random
) -> tuple[Commit, int]:
    """Return what visitors at these moments store, and how many of them click."""
    bandits = engine.bandits
    keys = {name: BanditKey(name, engine.version(name)) for name in bandits}
    tables = {name: bandits[name].draw_table(counts.get(key, {})) for name, key in keys.items()}
    decisions: list[DecisionWrite] = []
    rewards: list[RewardWrite] = []
    clicks = 0
    for moment in moments:
        visitor = f"{rng.getrandbits(128):032x}"
        made = [
            Decision(
                id=f"{visitor}-{name}",
                bandit=name,
                version=keys[name].version,
                arm=table.draw(rng.random()),
                propensities=table.propensities,
                policy_version=bandits[name].policy_version,
                at=moment,
            )
            for name, table in tables.items()
        ]
        clicks_now = rng.random() < sum(TRUE_RATES[each.bandit][each.arm] for each in made)
        clicks += clicks_now
        at = min(moment + LONGEST_LATENESS * rng.random() ** 3, time.time())
        for decision in made:
            bandit = bandits[decision.bandit]
            delta = decision_delta(bandit.policy, bandit.options, decision)
            decisions.append(DecisionWrite(decision, delta))
            if clicks_now:
                rewards.append(click(bandit, decision, at))
    return Commit(tuple(decisions), tuple(rewards)), clicks


def click(bandit: Bandit, decision: Decision, at: float) -> RewardWrite:
    """Return a click on what was decided."""
    reward = Reward(
        id=reward_id(decision.id, bandit.options.goal),
        decision_id=decision.id,
        bandit=decision.bandit,
        version=decision.version,
        arm=decision.arm,
        value=1.0,
        at=at,
        goal=bandit.options.goal,
    )
    return RewardWrite(reward, reward_delta(bandit.policy, bandit.options, decision, reward))


if __name__ == "__main__":
    main()
