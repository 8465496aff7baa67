"""What 0/1 rewards alone tell of steady rates, valid however often one looks.

A fixed mixture of beta-binomials against the likelihood: no probabilities are needed, and no
policy can fool it, but rates that drift can. Pure; must not import Flask or a storage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..model import FloatArray
from .distributions import bernoulli_divergence, log_beta

_ALIKE = 6.0
"""Precision of the arms' log odds around a common centre: they differ by a factor of 1.5 or so."""
_CENTRES = 1.0 / (1.0 + np.exp(-np.arange(-8.0, 8.25, 0.5)))
_A = np.append(_ALIKE / (1.0 - _CENTRES), 1.0)
_B = np.append(_ALIKE / _CENTRES, 1.0)
_WEIGHTS = np.append(np.full(_CENTRES.size, 0.9 / _CENTRES.size), 0.1)
"""Rates that are alike, around any centre; and, as the last part, rates that can be anything."""


def log_mixture(pulls: FloatArray, rewards: FloatArray) -> FloatArray:
    """Return the log probability of the rewards, averaged over a prior for all rates together.

    :param pulls: shape (..., K)
    """
    hits, misses = rewards[..., None], (pulls - rewards)[..., None]
    parts = (log_beta(_A + hits, _B + misses) - log_beta(_A, _B)).sum(axis=-2)
    top = parts.max(axis=-1, keepdims=True)
    result: FloatArray = np.log(np.exp(parts - top) @ _WEIGHTS) + top[..., 0]
    return result


def budget(pulls: FloatArray, rewards: FloatArray, alpha: float) -> FloatArray:
    """Return how far the true rates can be from those seen: the sum of n kl(seen, true).

    By Ville's inequality the mixture is ever 1 / alpha times as likely as the true rates with
    a probability of at most alpha (Kaufmann and Koolen 2021, "Mixture martingales revisited").

    :param pulls: shape (..., K)
    :return: shape (...)
    """
    seen = rewards / np.maximum(pulls, 1.0)
    entropy = bernoulli_divergence(seen, np.full_like(seen, 0.5)) - np.log(2.0)
    likelihood = (pulls * entropy).sum(axis=-1)
    result: FloatArray = likelihood - log_mixture(pulls, rewards) - np.log(alpha)
    return result


def divergence(pulls: FloatArray, rewards: FloatArray, rates: FloatArray) -> FloatArray:
    """Return the sum of n kl(seen, rate) over the last axis."""
    seen = rewards / np.maximum(pulls, 1.0)
    # An arm without pulls excludes no rate, though its "seen" is infinitely far from a rate of 1.
    apart = np.where(pulls > 0.0, bernoulli_divergence(seen, rates), 0.0)
    result: FloatArray = (pulls * apart).sum(axis=-1)
    return result


@dataclass(frozen=True, slots=True)
class Region:
    """Counts of K arms whose rewards are 0 or 1, shape (K,) each."""

    pulls: FloatArray
    rewards: FloatArray

    def decides(self, alpha: float, scale: float = 1.0) -> int | None:
        """Return which arm is the best by the test, if it tells.

        It tells where no other arm's rate can be as large. A wrong arm beats the best one in one
        of K - 1 pairs, so that alpha / (K - 1) for a pair is enough for all.

        :param scale: as if there were so many times as many decisions, all like those there are
        """
        k = self.pulls.size
        best = int((self.rewards / np.maximum(self.pulls, 1.0)).argmax())
        others = np.delete(np.arange(k), best)
        pairs = np.stack((np.full(k - 1, best), others), axis=1)
        pulls, rewards = scale * self.pulls[pairs], scale * self.rewards[pairs]
        pooled = rewards.sum(axis=1, keepdims=True) / np.maximum(
            pulls.sum(axis=1, keepdims=True), 1.0
        )
        apart = divergence(pulls, rewards, pooled)
        return best if (apart > budget(pulls, rewards, alpha / (k - 1))).all() else None

    def extent(self, weights: FloatArray, alpha: float) -> tuple[float, float]:
        """Return the least and the largest value of a weighted sum of the rates.

        :param weights: shape (K,); arms of weight 0 do not widen it
        :param alpha: probability that the truth is ever outside
        """
        used = weights != 0.0
        pulls, rewards, weights = self.pulls[used], self.rewards[used], weights[used]
        allowed = float(budget(pulls, rewards, alpha))
        low, high = (
            float(weights @ _furthest(pulls, rewards, side * weights, allowed)) for side in (-1, 1)
        )
        return low, high


def _furthest(
    pulls: FloatArray, rewards: FloatArray, weights: FloatArray, allowed: float
) -> FloatArray:
    """Return the rates with the largest weighted sum among those that are near enough.

    Each maximises weight * rate - price * n kl(seen, rate); the price is found by bisection.
    """
    seen = rewards / np.maximum(pulls, 1.0)
    flip = weights < 0.0
    start, push = np.where(flip, 1.0 - seen, seen), np.abs(weights)
    low, high = -80.0, 80.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        rates = _pushed(start, push, np.exp(middle) * pulls)
        is_near = divergence(pulls, rewards, np.where(flip, 1.0 - rates, rates)) <= allowed
        low, high = (low, middle) if is_near else (middle, high)
    rates = _pushed(start, push, np.exp(high) * pulls)
    return np.where(flip, 1.0 - rates, rates)


def _pushed(start: FloatArray, push: FloatArray, drag: FloatArray) -> FloatArray:
    """Return the rate x >= start where push x (1 - x) = drag (x - start); 1 without drag."""
    rest = drag - push
    root = np.sqrt(rest * rest + 4.0 * push * drag * start)
    # Of the two forms of the solution, the one in which nothing cancels.
    with np.errstate(divide="ignore", invalid="ignore"):
        steep = 2.0 * drag * start / (rest + root)
        flat = (root - rest) / (2.0 * push)
    result: FloatArray = np.clip(np.where(rest > 0.0, steep, flat), start, 1.0)
    return result
