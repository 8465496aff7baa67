"""The control."""

from __future__ import annotations

import numpy as np

from flask_bandit.algorithms import UniformPolicy
from flask_bandit.model import Stats
from flask_bandit.testing import PolicySuite


class TestUniform(PolicySuite):
    converges = False

    def make_policy(self) -> UniformPolicy:
        return UniformPolicy()


def test_rewards_change_nothing() -> None:
    counts = {"a": {"pulls": 10, "rewards": 10, "reward": 10.0, "reward_sq": 10.0}}
    stats = Stats.from_counts(("a", "b", "c", "d"), counts)
    np.testing.assert_array_equal(UniformPolicy().propensities(stats), [0.25] * 4)


def test_version() -> None:
    assert UniformPolicy().version == "uniform()"
