"""The control: every arm alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model import FloatArray, Stats
from .base import ArmSums, Policy, uniform


class UniformPolicy(Policy):
    """Every arm with the same probability, whatever the rewards: an A/B test.

    The control to hold other policies against, and the log from which any policy can be evaluated.
    Regret linear in the number of decisions.
    """

    name = "uniform"

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return 1 / K for each arm."""
        return uniform(len(stats.arms))

    def propensities_of_few(self, rows: list[ArmSums]) -> list[float]:
        """Return the same as a list."""
        return [1.0 / len(rows)] * len(rows)
