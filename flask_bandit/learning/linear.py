"""A ridge regression per arm, fitted from the log, and how its predictions share out visitors.

Loaded where a request is answered. Must not import a storage or Flask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..algorithms.base import argmax_ties
from ..analysis.logged import Logged
from ..errors import ConfigurationError
from ..features import Features
from ..model import FloatArray, IntArray, Stats
from .fitted import Places

if TYPE_CHECKING:
    from .data import TrainingData

MOST_COLUMNS = 2000
"""Columns of features; the normal equations need their square for each arm."""


def _epsilon_greedy(values: FloatArray, epsilon: float) -> FloatArray:
    greedy: FloatArray = (1.0 - epsilon) * argmax_ties(values) + epsilon / values.size
    return greedy


def _softmax(values: FloatArray, tau: float) -> FloatArray:
    weights = np.exp((values - values.max()) / tau)
    shares: FloatArray = weights / weights.sum()
    return shares


def _square_cb(values: FloatArray, gamma: float) -> FloatArray:
    best = int(values.argmax())
    shares: FloatArray = 1.0 / (values.size + gamma * (values[best] - values))
    shares[best] = 0.0
    shares[best] = 1.0 - shares.sum()
    return shares


EXPLORE: Mapping[str, Callable[[FloatArray, float], FloatArray]] = {
    "epsilon_greedy": _epsilon_greedy,
    "softmax": _softmax,
    "square_cb": _square_cb,
}
"""Predicted rewards and an amount -> probabilities."""


class LinearModel:
    """Predicts what each arm earns as a linear function of the features, and explores around it.

    :param features: ``None`` if it knows only the arms
    :param arms: that it has seen
    :param coefficients: of (1, features), a row per arm, shape (K, 1 + dimension)
    :param explore: ``epsilon_greedy``; ``softmax``; or ``square_cb``, 1 / (K + amount * gap) for
        all but the best (Foster and Rakhlin 2020, "Beyond UCB")
    :param amount: epsilon, tau or gamma
    """

    kind = "linear"

    def __init__(
        self,
        features: Features | None,
        arms: Sequence[str],
        coefficients: FloatArray,
        explore: str,
        amount: float,
    ) -> None:
        self._features, self._arms = features, tuple(arms)
        self._coefficients = coefficients
        self._explore, self._amount = explore, amount
        self._share = EXPLORE[explore]
        self._places = Places(self._arms)

    @property
    def version(self) -> str:
        """Name and parameters."""
        return f"linear({self._explore}={self._amount:g})"

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return one probability per eligible arm."""
        row = self._coefficients[:, 0]
        if self._features is not None:
            row = row + self._coefficients[:, 1:] @ self._features.encode(context)

        def of_known(places: IntArray) -> FloatArray:
            return self._share(row[places], self._amount)

        return self._places.spread(stats.arms, of_known)

    def dump(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "features": None if self._features is None else self._features.spec(),
            "arms": list(self._arms),
            "coefficients": self._coefficients.tolist(),
            "explore": self._explore,
            "amount": self._amount,
        }

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> LinearModel:
        """Read what :meth:`dump` gave."""
        features = stored["features"]
        return cls(
            None if features is None else Features.parse(features),
            stored["arms"],
            np.array(stored["coefficients"], dtype=np.float64),
            stored["explore"],
            stored["amount"],
        )


class RidgeTrainer:
    """Fits :class:`LinearModel`: a ridge regression of the reward on the features, per arm.

    Numeric features are standardised by what all decisions had. Rewards are taken less their mean
    over all arms, so that an arm with few decisions is predicted to earn what all do.

    :param explore: ``epsilon_greedy``, ``softmax`` or ``square_cb``
    :param epsilon: share of visitors for ``epsilon_greedy`` that are spread evenly
    :param tau: temperature of ``softmax``, in units of the reward
    :param gamma: of ``square_cb``; by default the root of arms times decisions
    :param ridge: what pulls coefficients to 0
    :raises ConfigurationError: a value that cannot be meant
    """

    def __init__(
        self,
        explore: str = "epsilon_greedy",
        *,
        epsilon: float = 0.05,
        tau: float = 0.05,
        gamma: float | None = None,
        ridge: float = 1.0,
    ) -> None:
        if explore not in EXPLORE:
            raise ConfigurationError(f"explore is {explore!r}; known: {', '.join(EXPLORE)}")
        for name, value, most in (
            ("epsilon", epsilon, 1.0),
            ("tau", tau, 1e9),
            ("gamma", 1.0 if gamma is None else gamma, 1e9),
            ("ridge", ridge, 1e9),
        ):
            # Written so that a NaN fails.
            if isinstance(value, (str, bool)) or not 0.0 < value <= most:
                raise ConfigurationError(
                    f"{name} is {value!r}; write a number above 0, at most {most:g}"
                )
        self._explore, self._ridge = explore, ridge
        self._amounts = {"epsilon_greedy": epsilon, "softmax": tau, "square_cb": gamma}

    def fit(self, data: TrainingData) -> LinearModel:
        """Return the model of some decisions, read once.

        :raises ConfigurationError: more features than can be solved for
        """
        sums = _Sums(len(data.arms), data.features)
        for batch in data:
            sums.add(batch)
        seen = np.flatnonzero(sums.products[:, 0, 0] > 0.0)
        amount = self._amounts[self._explore]
        if amount is None:
            amount = math.sqrt(max(seen.size, 1) * max(float(sums.products[:, 0, 0].sum()), 1.0))
        return LinearModel(
            data.features,
            [data.arms[place] for place in seen.tolist()],
            sums.solved(self._ridge)[seen],
            self._explore,
            amount,
        )


class _Sums:
    """M = sum of y y' and b = sum of r y by arm, with y = (1, features)."""

    def __init__(self, arms: int, features: Features | None) -> None:
        width = 1 if features is None else 1 + features.dimension
        if width > MOST_COLUMNS:
            raise ConfigurationError(
                f"the features have {width - 1} columns, and ridge takes up to {MOST_COLUMNS}; "
                "hash texts to fewer, or train with 'vw'"
            )
        self._features = features
        self.products: FloatArray = np.zeros((arms, width, width))
        self.rewards: FloatArray = np.zeros((arms, width))

    def add(self, batch: Logged) -> None:
        """Add some decisions."""
        rows = np.ones((len(batch), self.products.shape[1]))
        if self._features is not None:
            rows[:, 1:] = encoded(self._features, batch.contexts)
        for place in np.unique(batch.arm).tolist():
            here = rows[batch.arm == place]
            self.products[place] += here.T @ here
            self.rewards[place] += here.T @ batch.reward[batch.arm == place]

    def solved(self, ridge: float) -> FloatArray:
        """Return the coefficients by arm, shape (K, width), for features as they are encoded."""
        total = self.products.sum(axis=0)
        count = max(float(total[0, 0]), 1.0)
        mean = float(self.rewards[:, 0].sum()) / count
        scale = self._standardised(total / count)
        products = scale @ self.products @ scale.T + ridge * np.eye(len(scale))
        rewards = (self.rewards - mean * self.products[:, 0]) @ scale.T
        coefficients: FloatArray = np.linalg.solve(products, rewards[..., None])[..., 0] @ scale
        coefficients[:, 0] += mean
        return coefficients

    def _standardised(self, moments: FloatArray) -> FloatArray:
        """Return T, so that T y has numeric columns of mean 0 and variance 1."""
        scale = np.eye(len(moments))
        if self._features is None:
            return scale
        for column in (np.flatnonzero(self._features.numeric) + 1).tolist():
            mean = moments[0, column]
            variance = moments[column, column] - mean * mean
            # A column that is always the same has nothing but rounding.
            deviation = math.sqrt(variance) if variance > 1e-12 * moments[column, column] else 1.0
            scale[column, 0] = -mean / deviation
            scale[column, column] = 1.0 / deviation
        return scale


def encoded(features: Features, contexts: Iterable[Mapping[str, Any] | None]) -> FloatArray:
    """Return a row for each context, shape (n, dimension)."""
    rows = [features.encode(context) for context in contexts]
    return np.array(rows).reshape(-1, features.dimension)
