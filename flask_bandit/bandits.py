"""The bandits to choose from: a class for each policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .algorithms import (
    AnnealingEpsilonGreedyPolicy,
    AnnealingSoftmaxPolicy,
    EpsilonGreedyPolicy,
    Exp3Policy,
    GaussianThompsonPolicy,
    KLUCBPolicy,
    NaiveStochasticPolicy,
    SoftmaxPolicy,
    ThompsonPolicy,
    UCB1Policy,
    UCBTunedPolicy,
)
from .bandit import Bandit
from .options import BanditOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "AnnealingEpsilonGreedyBandit",
    "AnnealingSoftmaxBandit",
    "Bandit",
    "EpsilonGreedyBandit",
    "Exp3Bandit",
    "GaussianThompsonBandit",
    "KLUCBBandit",
    "NaiveStochasticBandit",
    "SoftmaxBandit",
    "ThompsonBandit",
    "UCB1Bandit",
    "UCBTunedBandit",
]


class EpsilonGreedyBandit(Bandit):
    """A bandit with :class:`~flask_bandit.algorithms.EpsilonGreedyPolicy`."""

    def __init__(self, epsilon: float = 0.1, **options: Unpack[BanditOptions]) -> None:
        super().__init__(EpsilonGreedyPolicy(epsilon), **options)


class AnnealingEpsilonGreedyBandit(Bandit):
    """A bandit with :class:`~flask_bandit.algorithms.AnnealingEpsilonGreedyPolicy`."""

    def __init__(self, **options: Unpack[BanditOptions]) -> None:
        super().__init__(AnnealingEpsilonGreedyPolicy(), **options)


class SoftmaxBandit(Bandit):
    """A bandit with :class:`~flask_bandit.algorithms.SoftmaxPolicy`."""

    def __init__(self, tau: float = 0.1, **options: Unpack[BanditOptions]) -> None:
        super().__init__(SoftmaxPolicy(tau), **options)


class AnnealingSoftmaxBandit(Bandit):
    """A bandit with :class:`~flask_bandit.algorithms.AnnealingSoftmaxPolicy`."""

    def __init__(self, **options: Unpack[BanditOptions]) -> None:
        super().__init__(AnnealingSoftmaxPolicy(), **options)


class NaiveStochasticBandit(Bandit):
    """A bandit with :class:`~flask_bandit.algorithms.NaiveStochasticPolicy`."""

    def __init__(self, **options: Unpack[BanditOptions]) -> None:
        super().__init__(NaiveStochasticPolicy(), **options)


class UCB1Bandit(Bandit):
    """A bandit with :class:`~flask_bandit.algorithms.UCB1Policy`."""

    def __init__(self, **options: Unpack[BanditOptions]) -> None:
        super().__init__(UCB1Policy(), **options)


class UCBTunedBandit(Bandit):
    """A bandit with :class:`~flask_bandit.algorithms.UCBTunedPolicy`."""

    def __init__(self, **options: Unpack[BanditOptions]) -> None:
        super().__init__(UCBTunedPolicy(), **options)


class KLUCBBandit(Bandit):
    """A bandit with :class:`~flask_bandit.algorithms.KLUCBPolicy`."""

    def __init__(self, c: float = 0.0, **options: Unpack[BanditOptions]) -> None:
        super().__init__(KLUCBPolicy(c), **options)


class ThompsonBandit(Bandit):
    """A bandit with :class:`~flask_bandit.algorithms.ThompsonPolicy`; the one to start with."""

    def __init__(
        self, prior: tuple[float, float] = (1.0, 1.0), **options: Unpack[BanditOptions]
    ) -> None:
        super().__init__(ThompsonPolicy(prior), **options)


class GaussianThompsonBandit(Bandit):
    """A bandit with :class:`~flask_bandit.algorithms.GaussianThompsonPolicy`."""

    def __init__(self, **options: Unpack[BanditOptions]) -> None:
        super().__init__(GaussianThompsonPolicy(), **options)


class Exp3Bandit(Bandit):
    """A bandit with :class:`~flask_bandit.algorithms.Exp3Policy`."""

    def __init__(self, gamma: float = 0.1, **options: Unpack[BanditOptions]) -> None:
        super().__init__(Exp3Policy(gamma), **options)
