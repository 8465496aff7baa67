"""Policies: pure functions from statistics to probabilities, a file per family."""

from __future__ import annotations

from .base import Policy, PolicyProtocol, Prepared
from .epsilon_greedy import AnnealingEpsilonGreedyPolicy, EpsilonGreedyPolicy
from .exp3 import Exp3Policy
from .linear import (
    LinearPolicy,
    LinEpsilonGreedyPolicy,
    LinThompsonPolicy,
    LinUCBPolicy,
    SquareCBPolicy,
)
from .softmax import AnnealingSoftmaxPolicy, SoftmaxPolicy
from .stochastic import NaiveStochasticPolicy
from .thompson import GaussianThompsonPolicy, ThompsonPolicy
from .ucb import KLUCBPolicy, UCB1Policy, UCBTunedPolicy
from .uniform import UniformPolicy

_BUILT_IN: tuple[type[Policy], ...] = (
    UniformPolicy,
    EpsilonGreedyPolicy,
    AnnealingEpsilonGreedyPolicy,
    SoftmaxPolicy,
    AnnealingSoftmaxPolicy,
    NaiveStochasticPolicy,
    UCB1Policy,
    UCBTunedPolicy,
    KLUCBPolicy,
    ThompsonPolicy,
    GaussianThompsonPolicy,
    Exp3Policy,
)

POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in _BUILT_IN}
"""Family name, as used in configuration -> class."""

CONTEXTUAL_POLICIES: dict[str, type[LinearPolicy]] = {
    policy.name: policy
    for policy in (LinThompsonPolicy, LinUCBPolicy, SquareCBPolicy, LinEpsilonGreedyPolicy)
}
"""The same for the families whose first parameter is ``features``."""

__all__ = [
    "CONTEXTUAL_POLICIES",
    "POLICIES",
    "AnnealingEpsilonGreedyPolicy",
    "AnnealingSoftmaxPolicy",
    "EpsilonGreedyPolicy",
    "Exp3Policy",
    "GaussianThompsonPolicy",
    "KLUCBPolicy",
    "LinEpsilonGreedyPolicy",
    "LinThompsonPolicy",
    "LinUCBPolicy",
    "LinearPolicy",
    "NaiveStochasticPolicy",
    "Policy",
    "PolicyProtocol",
    "Prepared",
    "SoftmaxPolicy",
    "SquareCBPolicy",
    "ThompsonPolicy",
    "UCB1Policy",
    "UCBTunedPolicy",
    "UniformPolicy",
]
