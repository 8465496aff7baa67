"""What an arm would have earned: a ridge regression per arm, fitted in one pass over the log.

Cross-fitted: no decision is predicted by a model that has seen it, or its subject. Pure; must not
import Flask or a storage.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..model import FloatArray, IntArray
from .logged import Logged

Model: TypeAlias = Callable[[Logged], FloatArray]
"""Returns what each of K arms is expected to earn at each of n decisions, shape (n, K)."""

FOLDS = 5


class Encoder(Protocol):
    """What turns a context into numbers; :class:`~flask_bandit.features.Features` does."""

    @property
    def dimension(self) -> int:
        """How many numbers."""
        ...

    def encode(self, context: Mapping[str, Any] | None) -> FloatArray:
        """Return them."""
        ...


class RidgeModel:
    """Expected rewards, linear in (1, features), for each arm by itself.

    theta = (sum of x x' + ridge I)^-1 (sum of r x), over the arm's decisions in other folds than
    the one that is predicted. A decision belongs to the fold that the hash of its cluster says.

    :param encoder: of contexts; without one, an arm earns the same everywhere
    :param arms: how many
    :param folds: 1 predicts each decision by a model that has seen it
    :param ridge: what pulls all coefficients to 0, that of the constant too
    :raises ValueError: a number that cannot be meant
    """

    def __init__(
        self, encoder: Encoder | None, arms: int, *, folds: int = FOLDS, ridge: float = 1.0
    ) -> None:
        if folds < 1 or not ridge > 0.0:
            raise ValueError(f"folds is {folds} and ridge {ridge}; write 1 or more, and above 0")
        self._encoder, self._folds = encoder, folds
        width = 1 if encoder is None else 1 + encoder.dimension
        self._products: FloatArray = np.zeros((folds, arms, width, width))
        self._rewards: FloatArray = np.zeros((folds, arms, width))
        self._ridge = ridge * np.eye(width)
        self._coefficients: FloatArray | None = None

    def add(self, batch: Logged) -> None:
        """Learn from some decisions."""
        rows, folds = self._encoded(batch), self._fold(batch.clusters)
        places = folds * len(batch.arms) + batch.arm
        for place in np.unique(places).tolist():
            here = places == place
            fold, arm = divmod(place, len(batch.arms))
            self._products[fold, arm] += rows[here].T @ rows[here]
            self._rewards[fold, arm] += rows[here].T @ batch.reward[here]
        self._coefficients = None

    def __call__(self, batch: Logged) -> FloatArray:
        """Return what each arm is expected to earn, shape (n, K)."""
        if self._coefficients is None:
            self._coefficients = self._solved()
        rows, folds = self._encoded(batch), self._fold(batch.clusters)
        expected = np.empty((len(batch), len(batch.arms)))
        for fold in range(self._folds):
            here = folds == fold
            expected[here] = rows[here] @ self._coefficients[fold].T
        return expected

    def _solved(self) -> FloatArray:
        """Return the coefficients for each fold and arm, shape (folds, K, width)."""
        solved = np.empty_like(self._rewards)
        for fold in range(self._folds):
            # Added up without the fold, not subtracted: no rounding of it stays behind.
            others = [other for other in range(self._folds) if other != fold] or [fold]
            products = self._products[others].sum(axis=0) + self._ridge
            rewards = self._rewards[others].sum(axis=0)
            solved[fold] = np.linalg.solve(products, rewards[..., None])[..., 0]
        return solved

    def _encoded(self, batch: Logged) -> FloatArray:
        rows = np.ones((len(batch), self._ridge.shape[0]))
        if self._encoder is not None:
            for row, context in zip(rows, batch.contexts, strict=True):
                row[1:] = self._encoder.encode(context)
        return rows

    def _fold(self, clusters: Sequence[str]) -> IntArray:
        hashes = (zlib.crc32(cluster.encode()) % self._folds for cluster in clusters)
        return np.fromiter(hashes, dtype=np.int64, count=len(clusters))


def fit_rewards(
    batches: Iterable[Logged],
    encoder: Encoder | None,
    arms: int,
    *,
    folds: int = FOLDS,
    ridge: float = 1.0,
) -> RidgeModel:
    """Return the model of a whole log, read once; the parameters are those of the class."""
    model = RidgeModel(encoder, arms, folds=folds, ridge=ridge)
    for batch in batches:
        model.add(batch)
    return model
