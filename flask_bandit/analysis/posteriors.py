"""What is believed of each arm's mean: intervals, chances of being the best, expected losses.

Beta for rewards of 0 or 1, Student for any others, normal for weighted means. Pure; must not
import Flask or a storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..algorithms import ThompsonPolicy
from ..model import FloatArray, Stats
from .distributions import (
    beta_cdf,
    beta_quantile,
    normal_cdf,
    normal_quantile,
    student_cdf,
    student_quantile,
)

_CHANCES = np.concatenate(
    ([1e-8, 1e-6, 1e-4, 1e-3], np.linspace(0.005, 0.995, 28), [0.999, 0.9999, 1 - 1e-6, 1 - 1e-8])
)[:, None]
"""Quantiles of each arm that make the grid of the integrals; they are exact to about 1e-3."""


class Posterior(Protocol):
    """Independent beliefs about K arms' means."""

    def interval(self, level: float) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the equal-tailed intervals, each of shape (K,)."""

    def quantile(self, chance: FloatArray) -> FloatArray:
        """Return quantiles, shape (N, K), for chances of shape (N, 1)."""

    def below(self, points: FloatArray) -> FloatArray:
        """Return the mass below points of shape (N, 1), shape (N, K)."""

    def chances(self) -> FloatArray:
        """Return each arm's probability of being the best, shape (K,), summing to 1."""

    def pair(self, one: int, other: int) -> Posterior:
        """Return the beliefs about two of the arms."""


@dataclass(frozen=True, slots=True)
class BetaPosterior:
    """Beta(a + rewards, b + pulls - rewards) for each arm's rate, the prior being Beta(a, b).

    :param pulls: of any shape whose last axis is arms
    :param rewards: among these; likewise
    """

    pulls: FloatArray
    rewards: FloatArray
    prior: tuple[float, float]

    @property
    def shape(self) -> tuple[FloatArray, FloatArray]:
        """The parameters of the posteriors."""
        a, b = self.prior
        return a + self.rewards, b + self.pulls - self.rewards

    def interval(self, level: float) -> tuple[FloatArray, FloatArray]:
        """Return the ends of equal-tailed intervals, widened to hold rewards per pull.

        They would not hold it where an arm has no rewards, or nothing but rewards.
        """
        mean = self.rewards / np.maximum(self.pulls, 1.0)
        tail = (1.0 - level) / 2.0
        low, high = (beta_quantile(*self.shape, chance) for chance in (tail, 1.0 - tail))
        return np.minimum(low, mean), np.maximum(high, mean)

    def quantile(self, chance: FloatArray) -> FloatArray:
        """Return quantiles."""
        return beta_quantile(*self.shape, chance)

    def below(self, points: FloatArray) -> FloatArray:
        """Return the mass below points."""
        return beta_cdf(*self.shape, np.clip(points, 0.0, 1.0))

    def chances(self) -> FloatArray:
        """Return what Thompson sampling would draw the arms with."""
        arms = tuple(map(str, range(self.pulls.size)))
        pulls, rewards = self.pulls.astype(np.int64), self.rewards.astype(np.int64)
        stats = Stats(arms, pulls, rewards, self.rewards, self.rewards)
        return ThompsonPolicy(self.prior).propensities(stats)

    def pair(self, one: int, other: int) -> BetaPosterior:
        """Return the beliefs about two of the arms."""
        both = [one, other]
        return BetaPosterior(self.pulls[both], self.rewards[both], self.prior)


@dataclass(frozen=True, slots=True)
class StudentPosterior:
    """Student's t with n degrees of freedom for the mean of n pulls.

    Flat prior for the mean. The prior of an arm's variance is worth one observation that is as
    far off as the spread of all arms' pulls, so that a few equal rewards are no certainty
    (scaled inverse chi-squared; Gelman et al. 2013, "Bayesian Data Analysis", section 3.3).

    :param pulls: each at least 1; of any shape whose last axis is arms
    :param spread: variance of all arms' rewards per pull, above 0
    """

    pulls: FloatArray
    reward: FloatArray
    reward_sq: FloatArray
    spread: float

    @property
    def mean(self) -> FloatArray:
        """Reward per pull."""
        return self.reward / self.pulls

    @property
    def scale(self) -> FloatArray:
        """What the t is multiplied with."""
        within = np.maximum(self.reward_sq - self.reward * self.mean, 0.0)
        result: FloatArray = np.sqrt((within + self.spread) / self.pulls / self.pulls)
        return result

    def interval(self, level: float) -> tuple[FloatArray, FloatArray]:
        """Return the ends of equal-tailed intervals."""
        reach = self.scale * student_quantile(self.pulls, (1.0 + level) / 2.0)
        return self.mean - reach, self.mean + reach

    def quantile(self, chance: FloatArray) -> FloatArray:
        """Return quantiles."""
        return self.mean + self.scale * student_quantile(self.pulls, chance)

    def below(self, points: FloatArray) -> FloatArray:
        """Return the mass below points."""
        return student_cdf(self.pulls, (points - self.mean) / self.scale)

    def chances(self) -> FloatArray:
        """Return each arm's probability of being the best."""
        return _chances(self)

    def pair(self, one: int, other: int) -> StudentPosterior:
        """Return the beliefs about two of the arms."""
        both = [one, other]
        return StudentPosterior(
            self.pulls[both], self.reward[both], self.reward_sq[both], self.spread
        )


@dataclass(frozen=True, slots=True)
class NormalPosterior:
    """A normal distribution for each arm's mean.

    :param mean: shape (K,)
    :param error: standard deviations, above 0; likewise
    """

    mean: FloatArray
    error: FloatArray

    def interval(self, level: float) -> tuple[FloatArray, FloatArray]:
        """Return the ends of equal-tailed intervals."""
        reach = self.error * normal_quantile((1.0 + level) / 2.0)
        return self.mean - reach, self.mean + reach

    def quantile(self, chance: FloatArray) -> FloatArray:
        """Return quantiles."""
        return self.mean + self.error * normal_quantile(chance)

    def below(self, points: FloatArray) -> FloatArray:
        """Return the mass below points."""
        return normal_cdf((points - self.mean) / self.error)

    def chances(self) -> FloatArray:
        """Return each arm's probability of being the best."""
        return _chances(self)

    def pair(self, one: int, other: int) -> NormalPosterior:
        """Return the beliefs about two of the arms."""
        both = [one, other]
        return NormalPosterior(self.mean[both], self.error[both])


def _chances(posterior: Posterior) -> FloatArray:
    """Return integral f_i(t) prod_{j != i} F_j(t) dt, on the grid of all arms' quantiles."""
    below = posterior.below(grid(posterior))
    others = _product_of_others(below)
    mass = (np.diff(below, axis=0) * (others[1:] + others[:-1])).sum(axis=0)
    result: FloatArray = mass / mass.sum()
    return result


def grid(posterior: Posterior) -> FloatArray:
    """Return points that are dense wherever an arm has mass, ascending, shape (N, 1)."""
    return np.sort(posterior.quantile(_CHANCES), axis=None)[:, None]


def expected_losses(posterior: Posterior) -> FloatArray:
    """Return E[max_j theta_j - theta_i] for each arm i, shape (K,).

    It is the integral of F_i (1 - prod_{j != i} F_j), where nothing cancels. Stucchio 2015,
    "Bayesian A/B testing at VWO".
    """
    points = grid(posterior)
    below = posterior.below(points)
    lost = below * (1.0 - _product_of_others(below))
    result: FloatArray = (np.diff(points, axis=0) * 0.5 * (lost[1:] + lost[:-1])).sum(axis=0)
    return result


def _product_of_others(below: FloatArray) -> FloatArray:
    """Return prod_{j != i} F_j, shape (N, K), without dividing by what may be 0."""
    from_left = np.cumprod(below, axis=1)
    from_right = np.cumprod(below[:, ::-1], axis=1)[:, ::-1]
    result = np.ones_like(below)
    result[:, 1:] *= from_left[:, :-1]
    result[:, :-1] *= from_right[:, 1:]
    return result
