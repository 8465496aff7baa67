"""Decisions and rewards as an app makes them, to be committed by the benchmarks."""

from __future__ import annotations

import hashlib
import time

from flask_bandit.model import Decision, Reward, StatsDelta
from flask_bandit.storage import DecisionWrite, RewardWrite

ARMS = ("green", "red", "blue")
PROPENSITIES = dict.fromkeys(ARMS, 1 / 3)


class Samples:
    """An endless supply of decisions.

    :param bandits: how many bandits they are for, in turn
    :param name: what makes their ids differ from those of others
    """

    def __init__(self, bandits: int, name: str) -> None:
        self._bandits = bandits
        self._name = name
        self._number = 0

    def decision(self) -> DecisionWrite:
        """Make the next decision; its id is random to a database, as those of visitors are."""
        number = self._number
        self._number += 1
        arm = ARMS[number % 3]
        made = Decision(
            id=hashlib.blake2b(f"{self._name}:{number}".encode(), digest_size=16).hexdigest(),
            bandit=f"bandit_{number % self._bandits}",
            version=1,
            arm=arm,
            propensities=PROPENSITIES,
            policy_version="thompson(prior=(1.0, 1.0))",
            at=time.time(),
        )
        return DecisionWrite(made, StatsDelta({arm: {"pulls": 1}}))


def reward_of(made: Decision) -> RewardWrite:
    """Make the reward of a decision."""
    reward = Reward(
        f"{made.id}:reward", made.id, made.bandit, made.version, made.arm, 1.0, time.time()
    )
    sums = {"rewards": 1, "reward": 1.0, "reward_sq": 1.0}
    return RewardWrite(reward, StatsDelta({made.arm: sums}))
