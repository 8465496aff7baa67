"""How well a log covers a target policy: weights, what they should average, and what is missing.

Pure; must not import Flask or a storage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..model import FloatArray
from .logged import Logged
from .targets import Target

UNSUPPORTED = 0.01
"""Share of the target's choices that may be of probability 0 in the log."""
FALSE_ALARM = 1e-3
"""At most so often right probabilities are called wrong."""
FAR = 0.01
"""A mean weight nearer to 1 than this is not worth a word."""
ENOUGH = 100.0
"""Effective sample size below which estimates are rough."""
LARGE = 0.05
"""Share of all weight that one decision should not have."""


class Weighted(NamedTuple):
    """A batch with a target.

    :param chances: the target's probabilities between the eligible arms, shape (n, K); not a
        number where it chooses none of them
    :param weights: the target's probability of the arm taken by the logged one, shape (n,)
    """

    chances: FloatArray
    weights: FloatArray


@dataclass
class Overlap:
    """Adds up how a target's choices compare with what was logged.

    :ivar decisions: those at which the target chooses an eligible arm
    :ivar impossible: the others; they are left out
    :ivar renormalised: decisions at which the target wanted an arm that was not eligible too
    :ivar weight: sum of the weights
    :ivar weight_sq: sum of their squares
    :ivar largest: weight
    :ivar unsupported: sum of the target's probabilities of arms whose logged one was 0
    :ivar bare: decisions at which there was such an arm
    """

    decisions: int = 0
    impossible: int = 0
    renormalised: int = 0
    weight: float = 0.0
    weight_sq: float = 0.0
    largest: float = 0.0
    unsupported: float = 0.0
    bare: int = 0
    _mass: float = 0.0
    _square: float = 0.0
    _supported_sq: float = 0.0
    _possible: float = 0.0

    def add(self, batch: Logged, target: Target) -> Weighted:
        """Add a batch, and return its weights.

        :raises ValueError: what the target returned are no probabilities
        """
        raw = _checked(target(batch), batch)
        mass = raw.sum(axis=1)
        chances = np.where(batch.eligible, raw, 0.0)
        left = chances.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            # What a target that does not sum to 1 sums to stays, so that the weights show it.
            scale = np.where(left > 0.0, mass / left, np.nan)
        is_cut = (left > 0.0) & (left < mass * (1.0 - 1e-9))
        chances = np.where(is_cut[:, None], chances * scale[:, None], chances)
        chances[~(left > 0.0)] = np.nan
        weights = batch.taken(chances) / batch.propensity
        self._note(batch, chances, weights, mass)
        self.renormalised += int(is_cut.sum())
        return Weighted(chances, weights)

    def _note(
        self, batch: Logged, chances: FloatArray, weights: FloatArray, mass: FloatArray
    ) -> None:
        kept = ~np.isnan(weights)
        weights, mass = weights[kept], mass[kept]
        self.decisions += int(kept.sum())
        self.impossible += int((~kept).sum())
        if not weights.size:
            return
        self.weight += float(weights.sum())
        self.weight_sq += float((weights * weights).sum())
        self.largest = max(self.largest, float(weights.max()))
        self._mass += float(mass.sum())
        logged = batch.propensities[kept]
        # As a policy, whatever it sums to.
        policy = chances[kept] / mass[:, None]
        is_bare = (logged <= 0.0) & (policy > 0.0)
        unsupported = np.where(is_bare, policy, 0.0).sum(axis=1)
        self.unsupported += float(unsupported.sum())
        self.bare += int(is_bare.any(axis=1).sum())
        ratios = np.divide(policy, logged, out=np.zeros_like(policy), where=logged > 0.0)
        self._square += float((policy * ratios).sum())
        self._supported_sq += float(((1.0 - unsupported) ** 2).sum())
        self._possible = max(self._possible, float(ratios.max()))

    @property
    def effective(self) -> float:
        """The effective sample size: (sum of w)^2 / sum of w^2."""
        return self.weight**2 / self.weight_sq if self.weight_sq else 0.0

    @property
    def bare_share(self) -> float:
        """Share of the target's choices that had probability 0 under the logged policy."""
        return self.unsupported / self.decisions if self.decisions else 0.0

    @property
    def is_wrong(self) -> bool:
        """True where the mean weight is too far from 1 to be chance.

        With right probabilities, the sum of w - E[w] is a martingale whose variance the logged
        probabilities tell (Freedman 1975, "On tail probabilities for martingales"; below, for
        variables that are not negative, its second moments will do). So the false alarms are at
        most :data:`FALSE_ALARM` on each side, however unequal the weights.
        """
        off = self.weight - (self.decisions - self.unsupported)
        if abs(off) <= FAR * self.decisions:
            return False
        if off < 0.0:
            return off * off > 2.0 * math.log(1.0 / FALSE_ALARM) * self._square
        variance = max(self._square - self._supported_sq, 0.0)
        spread = 2.0 * (variance + off * self._possible / 3.0)
        return off * off > math.log(1.0 / FALSE_ALARM) * spread

    def refusals(self) -> Iterator[str]:
        """Yield why there is no estimate, and what to do."""
        if not self.decisions:
            yield (
                "No decision in the log can be used: log some with known probabilities first."
                if not self.impossible
                else "The target never chooses an arm that was eligible: evaluate it for the arms "
                "that the log has."
            )
            return
        if self.bare_share > UNSUPPORTED:
            yield (
                f"{_percent(self.bare_share)} of the target's choices had probability 0 under the "
                f"logged policy (at {_percent(self.bare / self.decisions)} of the decisions), so no"
                " log can tell what they would have earned. Give the bandit a floor, such as"
                " floor=0.05, let it log for some time, and evaluate on what was logged since; or"
                " evaluate a target that keeps to arms with a probability."
            )
        if not self.weight:
            yield (
                "The target would have chosen none of the arms that were taken: log more"
                " decisions, with a larger floor."
            )

    def warnings(self, error: float) -> Iterator[str]:
        """Yield what to be careful about.

        :param error: standard error of the mean weight
        """
        if not self.decisions:
            return
        if self.is_wrong:
            yield self._alarm(error)
        if 0.0 < self.bare_share <= UNSUPPORTED:
            yield (
                f"{_percent(self.bare_share)} of the target's choices had probability 0 under the"
                " logged policy and count as if they earned nothing."
            )
        if self.effective < ENOUGH:
            yield (
                f"All weights together are worth {self.effective:.0f} decisions of the target's"
                f" own (effective sample size; {ENOUGH:.0f} are needed for a reliable interval):"
                " log more decisions, or with a larger floor."
            )
        if self.weight and self.largest > LARGE * self.weight:
            yield (
                f"One decision has {_percent(self.largest / self.weight)} of all weight, with"
                f" {self.largest:.3g}: prefer SNIPS, or the clipped estimates."
            )
        if self.impossible:
            yield (
                f"{self.impossible:,} decisions are left out: none of the arms that the target"
                " would choose was eligible."
            )

    def _alarm(self, error: float) -> str:
        mean, total = self.weight / self.decisions, self._mass / self.decisions
        text = (
            f"The weights average {mean:.3g} ± {error:.2g} and should average"
            f" {1.0 - self.bare_share:.3g}: the logged probabilities are wrong, or the target's,"
            " and so is each estimate that uses them."
        )
        if abs(total - 1.0) > FAR:
            return f"{text} The target's probabilities sum to {total:.3g}; they must sum to 1."
        return (
            f"{text} Log for each eligible arm the probability with which the draw chose it, of"
            " the moment of the draw; a mean over decisions for the same arm is none."
        )


def _checked(raw: FloatArray, batch: Logged) -> FloatArray:
    values = np.asarray(raw, dtype=np.float64)
    if values.shape != batch.eligible.shape:
        raise ValueError(
            f"the target returned an array of shape {values.shape}; return a probability for each"
            f" decision and arm, shape {batch.eligible.shape}"
        )
    # Written so that a NaN fails.
    if not (values >= 0.0).all() or not np.isfinite(values).all():
        raise ValueError("the target returned what is negative or no number; return probabilities")
    return values


def _percent(share: float) -> str:
    return f"{100.0 * share:.2g} %"
