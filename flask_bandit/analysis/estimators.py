"""Estimators of what a policy would have earned, as sums of ratios of totals over the log.

With w the target's probability of the arm taken by the logged one, r the reward, q(a) what a model
expects of an arm, v the sum of q(a) times the target's probability of a, and e = r - q(arm taken).
Pure; must not import Flask or a storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..model import FloatArray
from .logged import Logged

ONE, REWARD, W, WR, V, WE, CLIPPED_R, CLIPPED_E, SWITCHED_E = range(9)
"""Columns: 1, r, w, w r, v, w e, min(w, clip) r, min(w, clip) e, and w e where w <= switch."""
WIDTH = 9

Ratios = tuple[tuple[int, int], ...]
"""Pairs of columns: numerator and denominator."""

LOGGED: Ratios = ((REWARD, ONE),)
MEAN_WEIGHT: Ratios = ((W, ONE),)
ESTIMATORS: Mapping[str, Ratios] = {
    "IPS": ((WR, ONE),),
    "SNIPS": ((WR, W),),
    "clipped IPS": ((CLIPPED_R, ONE),),
    "DM": ((V, ONE),),
    "DR": ((V, ONE), (WE, ONE)),
    "SNDR": ((V, ONE), (WE, W)),
    "Switch-DR": ((V, ONE), (SWITCHED_E, ONE)),
    "clipped DR": ((V, ONE), (CLIPPED_E, ONE)),
}
"""Inverse propensity scores (Horvitz and Thompson 1952); self-normalised (Swaminathan and Joachims
2015, "The self-normalized estimator for counterfactual learning"); direct method and doubly robust
(Dudik, Langford and Li 2011, "Doubly robust policy evaluation and learning"); switch (Wang,
Agarwal and Dudik 2017, "Optimal and adaptive off-policy evaluation in contextual bandits")."""
WITHOUT_MODEL = ("IPS", "SNIPS", "clipped IPS")


def columns(
    batch: Logged,
    chances: FloatArray,
    weights: FloatArray,
    expected: FloatArray | None,
    clip: float,
    switch: float,
) -> FloatArray:
    """Return a row per decision, shape (n, :data:`WIDTH`).

    :param chances: the target's probabilities, shape (n, K)
    :param weights: shape (n,)
    :param expected: the model's q, shape (n, K); ``None``: 0
    :param clip: largest weight of the clipped estimators
    :param switch: largest weight that Switch-DR uses
    """
    rows = np.empty((len(batch), WIDTH))
    reward, clipped = batch.reward, np.minimum(weights, clip)
    surprise = reward if expected is None else reward - batch.taken(expected)
    rows[:, ONE] = 1.0
    rows[:, REWARD] = reward
    rows[:, W] = weights
    rows[:, WR] = weights * reward
    rows[:, V] = 0.0 if expected is None else (chances * expected).sum(axis=1)
    rows[:, WE] = weights * surprise
    rows[:, CLIPPED_R] = clipped * reward
    rows[:, CLIPPED_E] = clipped * surprise
    rows[:, SWITCHED_E] = np.where(weights <= switch, weights, 0.0) * surprise
    return rows


def of_totals(ratios: Ratios, totals: FloatArray) -> tuple[float, FloatArray]:
    """Return an estimator's value and its gradient at the totals, shape (WIDTH,).

    :raises ZeroDivisionError: a denominator is 0
    """
    value, gradient = 0.0, np.zeros(totals.size)
    for top, bottom in ratios:
        ratio = float(totals[top]) / float(totals[bottom])
        value += ratio
        gradient[top] += 1.0 / totals[bottom]
        gradient[bottom] -= ratio / totals[bottom]
    return value, gradient


def over_strata(
    ratios: Ratios, totals: FloatArray, groups: Sequence[Sequence[int]]
) -> tuple[float, FloatArray]:
    """Return the mean of an estimator over groups of strata, by their share of the decisions.

    :param totals: shape (strata, WIDTH)
    :param groups: strata that are taken together
    :return: the value, and its gradient at the totals, of their shape
    :raises ZeroDivisionError: a denominator is 0
    """
    decisions, value = float(totals[:, ONE].sum()), 0.0
    gradient = np.zeros_like(totals)
    for group in map(list, groups):
        together = totals[group].sum(axis=0)
        mean, slope = of_totals(ratios, together)
        value += float(together[ONE]) / decisions * mean
        slope = slope * (together[ONE] / decisions)
        slope[ONE] += mean / decisions
        gradient[group] = slope
    gradient[:, ONE] -= value / decisions
    return value, gradient
