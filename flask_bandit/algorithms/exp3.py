"""Exp3: for rewards that follow no steady rates, even an adversary's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError
from ..model import Decision, FloatArray, Stats, StatsDelta
from .base import Policy, with_floor
from .softmax import softmax


class Exp3Policy(Policy):
    """Exponential weights of importance-weighted rewards in [0, 1], mixed with uniform.

    A reward r adds gamma r / (K p) to the log-weight of its arm, p being the *logged* probability
    of the decision, so that late rewards are weighted rightly; the probabilities are
    (1 - gamma) w / sum(w) + gamma / K. An arm that was not there at a decision takes part in the
    mean increase of those that were, so a new arm enters at their mean log-weight.

    Regret O(sqrt(T K ln K)) against the best fixed arm, whatever the rewards. Auer, Cesa-Bianchi,
    Freund and Schapire 2002, "The nonstochastic multiarmed bandit problem", section 3.

    :param gamma: share of uniform exploration, above 0 and at most 1
    :raises ConfigurationError: gamma is not in (0, 1]
    """

    name = "exp3"
    extra = ("exp3_gain", "exp3_mean")
    reward_range = (0.0, 1.0)
    reward_needs_decision = True

    def __init__(self, gamma: float = 0.1) -> None:
        if not isinstance(gamma, (int, float)) or not 0.0 < gamma <= 1.0:
            raise ConfigurationError(f"gamma is {gamma!r}; write a share above 0 and up to 1")
        self.gamma = float(gamma)

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return the mixture of the exponential weights and uniform."""
        mean = stats.extra["exp3_mean"]
        # What an arm missed is the mean increase of the decisions at which it was not there.
        gain = stats.extra["exp3_gain"] + mean.max() - mean
        return with_floor(softmax(gain, self.gamma / len(stats.arms)), self.gamma)

    def on_reward(self, decision: Decision, value: float) -> StatsDelta:
        """Return the counts, and the importance-weighted reward where all probabilities are known.

        A decision that a prefetch showed knows its own arm's only, and is counted without it.
        """
        counts = super().on_reward(decision, value)
        propensities = decision.propensities or {}
        propensity = propensities.get(decision.arm, 0.0)
        if propensity <= 0.0 or abs(sum(propensities.values()) - 1.0) > 1e-6:
            return counts
        gain = value / propensity
        weighted = {arm: {"exp3_mean": gain / len(propensities)} for arm in propensities}
        return counts + StatsDelta(weighted) + StatsDelta({decision.arm: {"exp3_gain": gain}})
