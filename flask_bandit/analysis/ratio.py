"""Whether arms were shown as often as their logged probabilities say: sample-ratio mismatch.

Pure; must not import Flask or a storage.
"""

from __future__ import annotations

import numpy as np

from .digest import Ratio
from .distributions import chi_squared_tail
from .results import RatioCheck

FEWEST = 5.0
"""Least variance of an arm's count; with less, chi-squared is no good guess."""


def check_ratio(ratio: Ratio) -> RatioCheck | None:
    """Hold what was shown against the sums of the probabilities that were logged.

    D = sum of (1[A = a] - p_a) has the covariance V = sum of (diag p - p p'), also where the
    policy changes them all the time, and D' V^-1 D is about chi-squared. Left out are arms whose
    count varies too little, and directions in which D does, such as the sum of all others.

    :return: ``None`` where no decision has its probabilities
    """
    arms = sorted(ratio.expected)
    if not arms:
        return None
    shown = {arm: ratio.shown.get(arm, 0) for arm in arms}
    expected = {arm: ratio.expected[arm] for arm in arms}
    covariance = np.diag([expected[arm] for arm in arms])
    for i, one in enumerate(arms):
        for j, other in enumerate(arms):
            covariance[i, j] -= ratio.products.get(min((one, other), (other, one)), 0.0)
    kept = [i for i in range(len(arms)) if covariance[i, i] >= FEWEST]
    if not kept:
        return RatioCheck(expected, shown, 0.0, 0, None)
    variances, directions = np.linalg.eigh(covariance[np.ix_(kept, kept)])
    off = np.array([shown[arms[i]] - expected[arms[i]] for i in kept]) @ directions
    # Of length 1: the sum of two arms or more varies at least twice as much.
    is_free = variances >= FEWEST / 2.0
    statistic = float((off[is_free] ** 2 / variances[is_free]).sum())
    dof = int(is_free.sum())
    return RatioCheck(expected, shown, statistic, dof, chi_squared_tail(dof, statistic))
