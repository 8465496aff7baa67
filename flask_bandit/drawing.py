"""From a policy's probabilities to those that an arm is drawn with: weights, burn-in, floor.

In this order, and then one draw. Pure: plain floats and no randomness.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import NamedTuple

POLICY, WEIGHTS, BURN_IN, FLOOR = "policy", "weights", "burn-in", "floor"
"""What makes probabilities of others, in this order."""
_NO_STAGES: Mapping[str, Sequence[float]] = MappingProxyType({})


class DrawTable(NamedTuple):
    """A probability vector, ready to draw from in O(log arms).

    :param stages: what made it -> the probabilities after that, in the order of ``arms``; empty
        where no policy was asked
    """

    arms: tuple[str, ...]
    propensities: Mapping[str, float]
    cumulative: tuple[float, ...]
    stages: Mapping[str, Sequence[float]] = _NO_STAGES

    @classmethod
    def of(
        cls,
        arms: tuple[str, ...],
        probabilities: Iterable[float],
        stages: Mapping[str, Sequence[float]] = _NO_STAGES,
    ) -> DrawTable:
        """Line up arms with their probabilities."""
        values = tuple(probabilities)
        propensities = dict(zip(arms, values, strict=True))
        return cls(arms, propensities, tuple(accumulate(values)), stages)

    @classmethod
    def certain(cls, arms: tuple[str, ...], arm: str) -> DrawTable:
        """Return the table that gives one arm to everybody."""
        return cls.of(arms, [1.0 if each == arm else 0.0 for each in arms])

    def draw(self, uniform: float) -> str:
        """Return the arm at ``uniform`` in [0, 1); an arm of probability 0 never comes."""
        # Scaled by the total, since a sum of floats may miss 1 by a rounding.
        place = bisect_right(self.cumulative, uniform * self.cumulative[-1])
        return self.arms[min(place, len(self.arms) - 1)]

    def interval(self, arm: str) -> tuple[float, float]:
        """Return from where to below where a uniform number draws an arm."""
        place, total = self.arms.index(arm), self.cumulative[-1]
        start = self.cumulative[place - 1] / total if place else 0.0
        return start, self.cumulative[place] / total


def weighted(values: Sequence[float], weights: Iterable[float]) -> list[float]:
    """Return probabilities times weights, so that they sum to 1 again.

    :param weights: one for each probability, each above 0
    """
    products = [value * weight for value, weight in zip(values, weights, strict=True)]
    total = sum(products)
    return [product / total for product in products]


def burnt_in(values: Sequence[float], pulls: Iterable[float], burn_in: int) -> list[float]:
    """Give an equal share to each arm that has fewer than ``burn_in`` pulls.

    The others divide the rest in proportion to ``values``, so an arm that is added to an old
    bandit is tried without upsetting what is known.
    """
    is_new = [count < burn_in for count in pulls]
    if not any(is_new):
        return list(values)
    share = 1.0 / len(values)
    known = sum(value for value, new in zip(values, is_new, strict=True) if not new)
    rest = 1.0 - share * sum(is_new)
    if known > 0.0:
        # Divided first: what is known may be so small that rest / known is no number.
        return [
            share if new else value / known * rest
            for value, new in zip(values, is_new, strict=True)
        ]
    return [share] * len(values)


def floored(values: Sequence[float], floor: float) -> list[float]:
    """Return (1 - F) p + F / K."""
    keep, rest = 1.0 - floor, floor / len(values)
    return [keep * value + rest for value in values]
