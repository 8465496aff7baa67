"""The bandits to choose from: a class for each policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .algorithms import (
    AnnealingEpsilonGreedyPolicy,
    AnnealingSoftmaxPolicy,
    EpsilonGreedyPolicy,
    Exp3Policy,
    GaussianThompsonPolicy,
    KLUCBPolicy,
    LinEpsilonGreedyPolicy,
    LinThompsonPolicy,
    LinUCBPolicy,
    NaiveStochasticPolicy,
    SoftmaxPolicy,
    SquareCBPolicy,
    ThompsonPolicy,
    UCB1Policy,
    UCBTunedPolicy,
)
from .bandit import Bandit
from .features import Features
from .options import BanditOptions, ContextualOptions

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
    "LinEpsilonGreedyBandit",
    "LinThompsonBandit",
    "LinUCBBandit",
    "NaiveStochasticBandit",
    "SoftmaxBandit",
    "SquareCBBandit",
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


class LinThompsonBandit(Bandit):
    """A contextual bandit with :class:`~flask_bandit.algorithms.LinThompsonPolicy`.

    The contextual one to start with.
    """

    def __init__(
        self,
        features: Features | Mapping[str, Any],
        scale: float = 0.5,
        *,
        ridge: float = 1.0,
        **options: Unpack[ContextualOptions],
    ) -> None:
        super().__init__(LinThompsonPolicy(features, scale, ridge=ridge), **options)


class LinUCBBandit(Bandit):
    """A contextual bandit with :class:`~flask_bandit.algorithms.LinUCBPolicy`."""

    def __init__(
        self,
        features: Features | Mapping[str, Any],
        alpha: float = 0.25,
        *,
        ridge: float = 1.0,
        **options: Unpack[ContextualOptions],
    ) -> None:
        super().__init__(LinUCBPolicy(features, alpha, ridge=ridge), **options)


class SquareCBBandit(Bandit):
    """A contextual bandit with :class:`~flask_bandit.algorithms.SquareCBPolicy`."""

    def __init__(
        self,
        features: Features | Mapping[str, Any],
        gamma: float = 30.0,
        *,
        ridge: float = 1.0,
        **options: Unpack[ContextualOptions],
    ) -> None:
        super().__init__(SquareCBPolicy(features, gamma, ridge=ridge), **options)


class LinEpsilonGreedyBandit(Bandit):
    """A contextual bandit with :class:`~flask_bandit.algorithms.LinEpsilonGreedyPolicy`."""

    def __init__(
        self,
        features: Features | Mapping[str, Any],
        epsilon: float = 0.1,
        *,
        ridge: float = 1.0,
        **options: Unpack[ContextualOptions],
    ) -> None:
        super().__init__(LinEpsilonGreedyPolicy(features, epsilon, ridge=ridge), **options)
