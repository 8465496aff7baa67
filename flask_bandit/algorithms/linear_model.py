"""Ridge regressions, one per arm, from sums that commute: fitted at once, or updated in place.

Numbers are standardised when the sums are read, never when they are added: an affine map of the
sums is exact, also where the features drift.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from ..features import Features
from ..model import FloatArray, Stats, StatsDelta

GROWTH = 1.5
"""Learning in place, the map is renewed whenever there are so many times the decisions."""
_FLUSH = 256
_FLAT = 1e-9
"""Of a column's mean square: less variance than this is rounding."""
_SMALLEST_SQUARE = 1e-60


def array_names(features: Features) -> tuple[str, str]:
    """Return the names of the sums of y yT and of r y; another set of features has others."""
    return f"{features.schema}:xx", f"{features.schema}:xr"


class LinearModel:
    """What K arms' rewards are expected to be, given a context.

    With y = (1, x), x the encoded features less their pivots, the sums of an arm are M = sum y yT
    and b = sum r y. All arms' M together give the mean mu and the deviation sigma of each numeric
    column, so the map T = [[1, 0], [-mu / sigma, diag(1 / sigma)]] standardises it; a column that
    never varied is left out. Rewards are standardised likewise: what is known of an arm without
    data is the mean reward of all. With z = T y, A = T M TT + ridge I and b' = T (b - mean m), m
    the first column of M, theta = A^-1 b' is the ridge regression on standardised data (Hoerl and
    Kennard 1970).

    :param ridge: what is added to the diagonal: so many decisions' worth of doubt, above 0
    :param stats: the arms and their sums; without arrays, nothing is known
    """

    def __init__(self, features: Features, ridge: float, stats: Stats) -> None:
        self.features = features
        self.ridge = ridge
        self.arms = stats.arms
        self._index = {arm: row for row, arm in enumerate(stats.arms)}
        k, size = len(stats.arms), features.dimension + 1
        products, sums = (stats.arrays.get(name) for name in array_names(features))
        self._products = np.zeros((k, size, size))
        if products is not None:
            rows, columns = np.triu_indices(size)
            self._products[:, rows, columns] = products
            self._products[:, columns, rows] = products
        self._sums = np.zeros((k, size)) if sums is None else sums.astype(np.float64)
        # Not numpy's sum, which warns where this one is infinite.
        self._squares = sum(stats.reward_sq.tolist())
        self._waiting: list[tuple[int, FloatArray]] = []
        self._seen: tuple[FloatArray, FloatArray, FloatArray | None] | None = None
        self._fit()

    def vector(self, context: Mapping[str, Any] | None) -> FloatArray:
        """Return y = (1, x) of a context, shape (dimension + 1,)."""
        y = np.empty(self.features.dimension + 1)
        y[0] = 1.0
        y[1:] = self.features.encode(context)
        return y

    def standardised(self, y: FloatArray) -> FloatArray:
        """Return z = T y."""
        z: FloatArray = self._scale * y
        z += self._shift * y[0]
        self._seen = y, z, None
        return z

    def means(self, z: FloatArray) -> FloatArray:
        """Return the expected rewards of the arms, shape (K,)."""
        result: FloatArray = self._theta @ z
        result += self._center
        result *= self._unit
        return result

    def variances(self, z: FloatArray) -> FloatArray:
        """Return zT A^-1 z of each arm, shape (K,), above 0: how little is known of it here."""
        solved = (self._inverses.reshape(-1, z.size) @ z).reshape(self._theta.shape)
        if self._seen is not None and self._seen[1] is z:
            self._seen = self._seen[0], z, solved
        result: FloatArray = solved @ z
        return np.maximum(result, 1e-300, out=result)

    @property
    def decisions(self) -> float:
        """Number of decisions that were learned from; old ones may count less."""
        return self._decisions

    @property
    def residual_deviation(self) -> float:
        """Root mean square of what the regressions leave of the rewards, all arms together.

        From sums only: RSS = sum r^2 - 2 bT theta + thetaT (A - ridge I) theta. It is divided by
        n - df, df = sum of tr(A^-1 (A - ridge I)) being the columns that were used up. One more
        observation is added with the variance of all rewards, so a few rewards that fit are no
        certainty. 0.0 where all rewards were equal, or there were none.
        """
        n, center = self._decisions, self._center
        if n <= 0.0:
            return 0.0
        squares = self._squares / self._unit / self._unit
        total = squares - 2.0 * center * self._rewards + n * center * center
        mean = self._rewards / n
        spread = squares / n - mean * mean
        if not spread > 1e-12 * squares / n:
            return 0.0
        theta = self._theta.reshape(-1)
        rss = total - self._fitted.reshape(-1) @ theta - self.ridge * (theta @ theta)
        used = theta.size - self.ridge * self._traces
        variance = (max(rss, 0.0) + spread) / (max(n - used, 0.0) + 1.0)
        return self._unit * math.sqrt(variance)

    def learn(self, delta: StatsDelta) -> None:
        """Add what a policy's ``on_decision``, ``on_reward`` or ``on_mature`` returned, in place.

        Each decision changes one arm's inverse by Sherman and Morrison's formula (1950), and the
        map T is renewed now and then; the result is that of a new model but for T being older.
        Arms and arrays that the model does not have are passed over.
        """
        products, sums = array_names(self.features)
        for arm, row in delta.counts.items():
            if arm in self._index:
                self._squares += row.get("reward_sq", 0.0)
        for term in delta.terms:
            arm_row = self._index.get(term.arm)
            if arm_row is None:
                continue
            vector = np.array(term.vector, dtype=np.float64)
            if term.name == products:
                self._add_decision(arm_row, vector)
            elif term.name == sums:
                self._add_reward(arm_row, vector)
        self._keep_up()

    def learn_at(self, row: int, y: FloatArray, value: float) -> None:
        """Add a decision and what it earned, in place: the same without names and deltas.

        :param row: which of the arms
        :param y: what :meth:`vector` returned, as it was
        """
        self._squares += value * value
        if value:
            self._sums[row] += value * y
            self._rewards += value / self._unit
        self._add_decision(row, y, value / self._unit)
        self._keep_up()

    def _add_decision(self, row: int, y: FloatArray, earned: float = 0.0) -> None:
        """Add a decision, and to the regression what it earned, in units."""
        self._waiting.append((row, y))
        inverse, theta = self._inverses[row], self._theta[row]
        z, known = self._standardised_before(y)
        solved = inverse @ z if known is None else known[row]
        earned -= self._center
        gain = 1.0 + float(solved @ z)
        change = solved / gain
        inverse -= np.dot(solved[:, None], change[None, :], out=self._space)
        self._traces -= float(solved @ change)
        theta += (earned - float(theta @ z)) * change
        self._fitted[row] += earned * z
        self._decisions += 1.0

    def _standardised_before(self, y: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """Return T y and the A^-1 T y of all arms, if the last choice was for the same ``y``.

        What is learned is mostly what was chosen just before, and this is a fourth of the work.
        """
        seen, self._seen = self._seen, None
        if seen is None or seen[0] is not y:
            z, self._seen = self.standardised(y), None
            return z, None
        return seen[1], seen[2]

    def _add_reward(self, row: int, vector: FloatArray) -> None:
        self._sums[row] += vector
        self._rewards += float(vector[0]) / self._unit
        fitted = self.standardised(vector / self._unit)
        self._fitted[row] += fitted
        self._theta[row] += self._inverses[row] @ fitted

    def _keep_up(self) -> None:
        if self._decisions > GROWTH * self._fitted_at:
            self._flush()
            self._fit()
        elif len(self._waiting) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        """Add up the vectors that wait: many at a time cost less."""
        for row in {row for row, _ in self._waiting}:
            vectors = np.array([y for at, y in self._waiting if at == row])
            self._products[row] += vectors.T @ vectors
        self._waiting.clear()

    def _fit(self) -> None:
        """Set the map, and factorise all arms at once."""
        pooled = self._products.sum(axis=0)
        self._fitted_at = self._decisions = n = float(pooled[0, 0])
        self._scale, self._shift = self._map(pooled, n)
        self._unit = math.sqrt(min(self._squares, 1e300) / n) if n > 0.0 else 0.0
        self._unit = self._unit if self._unit > 1e-150 else 1.0
        self._rewards = float((self._sums[:, 0] / self._unit).sum())
        self._center = self._rewards / n if n > 0.0 else 0.0
        size = self._scale.size
        mapping = np.diag(self._scale)
        mapping[:, 0] += self._shift
        centered = self._sums / self._unit - self._center * self._products[:, 0]
        self._fitted = centered @ mapping.T
        matrices = mapping @ self._products @ mapping.T + self.ridge * np.eye(size)
        self._inverses = _inverses(matrices, self.ridge)
        self._traces = float(np.einsum("kii->", self._inverses))
        self._theta = (self._inverses @ self._fitted[:, :, None])[:, :, 0]
        self._space = np.empty((size, size))

    def _map(self, pooled: FloatArray, n: float) -> tuple[FloatArray, FloatArray]:
        """Return the diagonal of T and what else its first column has."""
        scale, shift = np.ones(pooled.shape[0]), np.zeros(pooled.shape[0])
        if n <= 0.0:
            return scale, shift
        mean, square = pooled[0, 1:] / n, pooled.diagonal()[1:] / n
        variance = square - mean * mean
        varies = variance > np.maximum(_FLAT * square, _SMALLEST_SQUARE)
        inverse = np.where(varies, 1.0 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
        numeric = self.features.numeric
        scale[1:][numeric] = inverse[numeric]
        shift[1:][numeric] = (-mean * inverse)[numeric]
        return scale, shift


def _inverses(matrices: FloatArray, ridge: float) -> FloatArray:
    """Return the inverses of K matrices whose eigenvalues are not below ``ridge``."""
    try:
        np.linalg.cholesky(matrices)
        return cast(FloatArray, np.linalg.inv(matrices))
    except np.linalg.LinAlgError:
        # Only by rounding, where numbers are huge or nearly the same.
        values, vectors = np.linalg.eigh(matrices)
        scaled = vectors / np.maximum(values, ridge)[:, None, :]
        result: FloatArray = scaled @ vectors.transpose(0, 2, 1)
        return result
