"""How probable it is that each of K independent posteriors holds the largest value.

p_i = integral of f_i(t) prod_{j != i} F_j(t) dt, by Gauss-Legendre panels that are as narrow as
the narrowest posterior that has mass there: a function of its arguments, not a count of draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..model import FloatArray

_NODES = 8
_PANEL_WIDTH = 3.5
"""Widest panel, in standard deviations; 8 nodes then integrate a normal density to 2e-8.

What they miss of a wide posterior is missing in the small chance of a narrow one to the left.
"""

_BLOCK = 8192
"""Most density values that are worked on at a time."""

_LOG_2PI = math.log(2.0 * math.pi)

_X, _W = np.polynomial.legendre.leggauss(_NODES)


def _integrals() -> FloatArray:
    """Return L with (L @ f)[n] = integral of f from -1 to node n, and (L @ f)[-1] = to 1."""
    powers = np.vander(_X, increasing=True)
    degrees = np.arange(_NODES) + 1
    left = (np.append(_X, 1.0)[:, None] ** degrees - (-1.0) ** degrees) / degrees
    result: FloatArray = np.linalg.solve(powers.T, left.T).T
    return result


_LEFT = _integrals()
_PLACES = np.array((np.ones(_NODES), _X))


class Posteriors(NamedTuple):
    """K independent densities on one axis.

    :param scale: standard deviation of the normal density that fits the mode, shape (K,)
    :param low: below it the density has a mass of about 1e-6 or less, shape (K,)
    :param high: above it the density has a mass of about 1e-6 or less, shape (K,)
    :param log_density: takes N points and a value below them all; gives matrices of shape
        (N, 3) and (3, K), whose product is the logarithm of the densities
    """

    scale: FloatArray
    low: FloatArray
    high: FloatArray
    log_density: Callable[[FloatArray, float], tuple[FloatArray, FloatArray]]


def normal_posteriors(mean: FloatArray, scale: FloatArray) -> Posteriors:
    """Return normal distributions; means and standard deviations have shape (K,)."""

    def log_density(points: FloatArray, floor: float) -> tuple[FloatArray, FloatArray]:
        precision = scale**-2.0
        distance = floor - mean
        constant = -0.5 * (precision * distance * distance + _LOG_2PI) - np.log(scale)
        basis = np.empty((3, points.size))
        np.subtract(points, floor, out=basis[1])
        np.square(basis[1], out=basis[0])
        basis[2] = 1.0
        return basis.T, np.array((-0.5 * precision, -precision * distance, constant))

    reach = 5.0 * scale
    return Posteriors(scale, mean - reach, mean + reach, log_density)


def winning_probabilities(posteriors: Posteriors) -> FloatArray:
    """Return each posterior's probability of being the largest, shape (K,), summing to 1."""
    floor = max(posteriors.low.tolist())
    order = posteriors.high.argsort()
    # Arms that end below the floor cannot win.
    rows = order[posteriors.high[order].searchsorted(floor, "right") :][::-1]
    result = np.zeros(order.size)
    if rows.size == 1:
        result[rows] = 1.0
        return result
    highs = posteriors.high[rows].tolist()
    panels = np.array(_panels(highs, posteriors.scale[rows].tolist(), floor))
    basis, terms = posteriors.log_density((panels @ _PLACES).reshape(-1), floor)
    # Blocks of arms that stay in the cache: with many arms, memory costs more than arithmetic.
    size = max(1, _BLOCK // len(basis))
    blocks, start, mass = [], 0, _W
    for first in range(0, rows.size, size):
        if first:  # The first panels may lie above the upper ends of all of a block's arms.
            start = int(np.count_nonzero(panels[:-1, 0] - panels[:-1, 1] >= highs[first]))
        block = rows[first : first + size]
        log_density = basis[start * _NODES :] @ terms.take(block, axis=1)
        ratio, product = _ratio(log_density, panels[start:, 1])
        if first:
            mass[start:] *= product
        else:
            mass = product * _W
        blocks.append((block, start, ratio))
    for block, start, ratio in blocks:
        result[block] = mass[start:].reshape(-1) @ ratio
    result /= np.add.reduce(result)
    return result


def _ratio(density: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return f / F at each node (row) of each arm (column), and the product of all F.

    :param density: logarithm of the densities f; it becomes the first result
    :param half: half widths of the panels
    """
    np.exp(density, out=density)
    by_panel = density.reshape(half.size, _NODES, -1)
    by_panel *= half[:, None, None]
    # What lies to the left of a node: all but the panels down to its own, and a part of that.
    to_left = _LEFT @ by_panel
    below = to_left[:, :-1]
    below += 1.0 - np.add.accumulate(to_left[:, -1:], axis=0)
    np.maximum(below, 1e-200, out=below)
    by_panel /= below
    return density, np.multiply.reduce(below, axis=2)


def _panels(highs: list[float], scales: list[float], floor: float) -> list[tuple[float, float]]:
    """Return (middle, half width) of each panel, from the highest down to the floor.

    All arms have mass at the floor, so what an arm's upper end asks for holds all the way down.

    :param highs: the arms' upper ends, from the highest to the lowest
    """
    panels: list[tuple[float, float]] = []
    stop, narrowest = highs[0], scales[0]
    for high, scale in zip([*highs, floor], [*scales, 0.0], strict=True):
        if scale >= narrowest:
            continue
        if high < stop:
            count = math.ceil((stop - high) / (_PANEL_WIDTH * narrowest))
            half = 0.5 * (stop - high) / count
            panels += [(stop - (2 * n + 1) * half, half) for n in range(count)]
        stop, narrowest = high, scale
    return panels
