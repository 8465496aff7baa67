"""How probable it is that each of K independent posteriors holds the largest value.

p_i = integral of f_i(t) prod_{j != i} F_j(t) dt, by Gauss-Legendre panels that are as narrow as
the narrowest posterior that has mass there: a function of its arguments, not a count of draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..model import FloatArray, IntArray

_NODES = 6
_PANEL_WIDTH = 3.5
"""Widest panel, in standard deviations; 6 nodes then integrate a normal density to 1e-5."""

_X, _W = np.polynomial.legendre.leggauss(_NODES)


def _integrals() -> FloatArray:
    """Return R with (f @ R)[n] = integral from node n to 1, and (f @ R)[-1] = from -1 to 1."""
    powers = np.vander(_X, increasing=True)
    degrees = np.arange(_NODES) + 1
    right = (1.0 - np.append(_X, -1.0)[:, None] ** degrees) / degrees
    result: FloatArray = np.linalg.solve(powers.T, right.T)
    return result


_RIGHT = _integrals()


@dataclass(frozen=True)
class Posteriors:
    """K independent densities on one axis.

    :param scale: standard deviation of the normal density that fits the mode, shape (K,)
    :param low: below it the density has a mass of about 1e-6 or less, shape (K,)
    :param high: above it the density has a mass of about 1e-6 or less, shape (K,)
    :param log_density: takes indices of M arms, N points and their lowest possible value, gives
        shape (M, N)
    """

    scale: FloatArray
    low: FloatArray
    high: FloatArray
    log_density: Callable[[IntArray, FloatArray, float], FloatArray]


def winning_probabilities(posteriors: Posteriors) -> FloatArray:
    """Return each posterior's probability of being the largest, shape (K,), summing to 1."""
    floor = float(posteriors.low.max())
    (rows,) = (posteriors.high > floor).nonzero()
    result = np.zeros(posteriors.scale.size)
    if rows.size == 1:
        result[rows] = 1.0
        return result
    middle, half = _panels(posteriors, rows, floor)
    points = (middle[:, None] + half[:, None] * _X).ravel()
    density = np.exp(posteriors.log_density(rows, points, floor))
    in_panel = (density.reshape(-1, _NODES) @ _RIGHT).reshape(rows.size, half.size, _NODES + 1)
    in_panel *= half[:, None]
    # What lies to the right of a node: the rest of its panel, and all later panels.
    whole = in_panel[:, :, -1]
    later = whole[:, ::-1].cumsum(axis=1)[:, ::-1] - whole
    below = 1.0 - in_panel[:, :, :-1] - later[:, :, None]
    below = np.maximum(below, 1e-300).reshape(density.shape)
    mass = below.prod(axis=0) * (half[:, None] * _W).ravel()
    density /= below
    wins = density @ mass
    result[rows] = wins / wins.sum()
    return result


def _panels(posteriors: Posteriors, rows: IntArray, floor: float) -> tuple[FloatArray, FloatArray]:
    """Return the panels' middles and half widths, narrowest posteriors served first."""
    scale, high = posteriors.scale[rows], posteriors.high[rows]
    order = scale.argsort(kind="stable")
    free = [(floor, float(high.max()))]
    panels: list[tuple[float, float]] = []
    for first, last, width in zip(
        posteriors.low[rows][order].tolist(),
        high[order].tolist(),
        (_PANEL_WIDTH * scale[order]).tolist(),
        strict=True,
    ):
        rest = []
        for start, stop in free:
            left, right = max(start, first), min(stop, last)
            if left >= right:
                rest.append((start, stop))
                continue
            count = math.ceil((right - left) / width)
            half = 0.5 * (right - left) / count
            panels += [(left + (2 * n + 1) * half, half) for n in range(count)]
            if start < left:
                rest.append((start, left))
            if right < stop:
                rest.append((right, stop))
        free = rest
        if not free:
            break
    table = np.array(sorted(panels))
    return table[:, 0], table[:, 1]
