"""Sums over decisions from which ratios and their standard errors follow, by cluster.

Constant memory where each decision is a cluster of its own; otherwise a row per cluster. Pure;
must not import Flask or a storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..model import FloatArray, IntArray
from .logged import Logged

LEVEL = 0.95
"""Of all intervals."""
ROUNDING = 1e-7


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value in reward per decision, or a mean weight, with its 95 % interval.

    :param error: standard error
    """

    value: float
    error: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, error: float) -> Estimate:
        """Return the estimate with its normal interval."""
        value = float(value)
        reach = quantile((1.0 + LEVEL) / 2.0) * error
        return cls(value, error, value - reach, value + reach)

    @property
    def is_flat(self) -> bool:
        """True where there is no variation: what is left of it is rounding."""
        return self.error <= ROUNDING * abs(self.value)


def quantile(chance: float) -> float:
    """Return where the standard normal distribution has so much mass below."""
    return NormalDist().inv_cdf(chance)


class ClusterSums:
    """Sums of rows of m numbers by stratum, and how the sums of clusters vary.

    The variance of a function of the totals follows from its gradient (the delta method), where
    clusters are independent. A cluster may be in several strata.

    :param width: m
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._totals: list[FloatArray] = []
        self._products: list[FloatArray] = []
        self._alone = 0
        self._clusters: dict[str, int] = {}
        self._places: dict[tuple[int, int], int] = {}
        self._sums: FloatArray = np.zeros((64, width))

    @property
    def clusters(self) -> int:
        """How many there are."""
        return self._alone + len(self._clusters)

    @property
    def totals(self) -> FloatArray:
        """Sums of all rows, shape (strata, m)."""
        return np.array(self._totals).reshape(-1, self._width)

    def add(self, rows: FloatArray, batch: Logged, strata: IntArray | None = None) -> None:
        """Add the decisions of a batch.

        :param rows: shape (n, m); a row that is not a number is left out
        :param strata: of each decision, counted from 0, shape (n,); all 0 if left out
        """
        strata = np.zeros(len(rows), dtype=np.int64) if strata is None else strata
        kept = ~np.isnan(rows).any(axis=1)
        for stratum in range(len(self._totals), int(strata.max(initial=-1)) + 1):
            assert stratum == len(self._totals)
            self._totals.append(np.zeros(self._width))
            self._products.append(np.zeros((self._width, self._width)))
        for stratum in np.unique(strata).tolist():
            here = kept & (strata == stratum)
            self._totals[stratum] = self._totals[stratum] + rows[here].sum(axis=0)
            single = rows[here & batch.alone]
            self._products[stratum] += single.T @ single
            self._alone += len(single)
            shared = np.flatnonzero(here & ~batch.alone)
            self._add_shared(rows[shared], stratum, [batch.clusters[i] for i in shared.tolist()])

    def _add_shared(self, rows: FloatArray, stratum: int, clusters: Sequence[str]) -> None:
        places = [
            self._places.setdefault(
                (stratum, self._clusters.setdefault(cluster, len(self._clusters))),
                len(self._places),
            )
            for cluster in clusters
        ]
        while len(self._places) > len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
        np.add.at(self._sums, places, rows)

    def variance(self, gradient: FloatArray) -> float:
        """Return the variance of a function of the totals that stays as it is when all double.

        :param gradient: of the function at the totals, shape (strata, m)
        """
        total = sum(
            float(one @ product @ one)
            for one, product in zip(gradient, self._products, strict=True)
        )
        if self._places:
            stratum, cluster = np.array(list(self._places)).T
            moved = (self._sums[: len(self._places)] * gradient[stratum]).sum(axis=1)
            total += float((np.bincount(cluster, moved) ** 2).sum())
        return max(total, 0.0) * self.clusters / (self.clusters - 1)

    def square(self, column: int) -> float:
        """Return the sum over clusters of a column's sum, squared."""
        total = float(sum(product[column, column] for product in self._products))
        if self._places:
            cluster = np.array(list(self._places))[:, 1]
            total += float((np.bincount(cluster, self._sums[: cluster.size, column]) ** 2).sum())
        return total
