"""The way in: counts and a log's sums become results. Pure; must not import Flask or a storage.

Loads what needs SciPy when it is asked, so that this module can be imported without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..model import ArmStats
from .digest import REWARDS, Digest
from .results import Results


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what the bandit's options say about its rewards.

    :param arms: in the code and in play, the control first
    :param is_once: the goal counts once per decision
    :param window: seconds within which a reward must come; ``None``: whenever
    :param prior: of the rates, Beta(a, b)
    :param winner: the arm that was declared
    :param confidence: of all intervals, and of a decision
    :param by_context: arms were not chosen for all alike, so that what an arm earned is no estimate
        of what it would earn for everybody
    """

    arms: tuple[str, ...]
    is_once: bool
    window: float | None = None
    prior: tuple[float, float] = (1.0, 1.0)
    winner: str | None = None
    confidence: float = 0.95
    by_context: bool = False

    @property
    def alpha(self) -> float:
        """How probable an error may be."""
        return round(1.0 - self.confidence, 12)


def read_results(
    stats: Mapping[str, ArmStats], digest: Digest, question: Question, *, with_series: bool = True
) -> Results:
    """Return everything that the statistics say about one version of a bandit.

    :param stats: exact counts of each arm, of those that are gone too
    :param digest: the version's log
    :param with_series: what happened over time too, which takes longest
    :raises ConfigurationError: SciPy is not installed
    """
    from . import estimates, ratio, tables, twin, verdicts
    from .evidence import Evidence

    evidence = Evidence(stats, digest, question)
    rows = tables.leaderboard(evidence)
    gained, why_no_gain = estimates.gained(evidence)
    found, why_no_twin = twin.compare(evidence.weighted, question, evidence.is_binary)
    seen = sum(row.sums[REWARDS] for row in evidence.total.arms.values())
    return Results(
        arms=rows,
        is_binary=evidence.is_binary,
        verdict=verdicts.judge(evidence, rows),
        gained=gained,
        why_no_gain=why_no_gain,
        contrasts=estimates.contrasts(evidence),
        ratio=ratio.check_ratio(digest.ratio),
        series=tables.series(evidence) if with_series else (),
        logged=digest.decisions,
        unknown=evidence.total.unknown,
        missing=max(0, int(evidence.rewards.sum() - seen)),
        twin=found,
        why_no_twin=why_no_twin,
    )
