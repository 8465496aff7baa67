"""How much an arm earns more than another, and the bandit more than an equal split.

Pure; must not import Flask or a storage.
"""

from __future__ import annotations

import numpy as np

from .evidence import Evidence
from .regions import Region
from .results import REGION, SEQUENCE, Contrast, Interval
from .sequences import FEWEST_REWARDS, Sequence, boundary


def gained(evidence: Evidence) -> tuple[Interval | None, str]:
    """Return the reward beyond that of an equal split, or else why it is not known.

    Its expectation, given the decisions: by the sequence, that of the decisions in the log that can
    earn nothing more.
    """
    arms = evidence.question.arms
    if not evidence.visitors:
        return None, "No visitors yet."
    if len(arms) < 2:
        return None, "There is nothing to split between fewer than two arms."
    if not evidence.test:
        return None, f"Not estimable: {evidence.obstacle}."
    poor = lacking(evidence)
    if poor:
        return None, f"Not estimable yet: {poor}."
    if evidence.sequence:
        return _gained_by_sequence(evidence.sequence, evidence), ""
    return _gained_by_region(evidence), ""


def lacking(evidence: Evidence) -> str:
    """Say which arm has too little for the test that is used; empty if none has."""
    arms, found = evidence.question.arms, evidence.sequence
    if found:
        poorest = int(found.rewards.argmin())
        count = int(found.rewards[poorest])
        if count < FEWEST_REWARDS:
            return f"{arms[poorest]} has {count} of the {FEWEST_REWARDS} rewards that it needs"
        return ""
    none = int(evidence.pulls[: len(arms)].argmin())
    return "" if evidence.pulls[none] else f"{arms[none]} has no visitors"


def _gained_by_sequence(found: Sequence, evidence: Evidence) -> Interval:
    question = evidence.question
    reach = float(boundary(found.gain_sq, found.rho, question.alpha))
    low, high = found.gain - reach, found.gain + reach
    return Interval(found.gain, low, high, question.confidence, SEQUENCE)


def _gained_by_region(evidence: Evidence) -> Interval:
    """Weigh each rate with the visitors that its arm has more than an equal split gives it."""
    question, played = evidence.question, evidence.played
    weights = evidence.pulls.copy()
    weights[:played] -= evidence.visitors / played
    seen = evidence.reward / np.maximum(evidence.pulls, 1.0)
    low, high = Region(evidence.pulls, evidence.reward).extent(weights, question.alpha)
    return Interval(float(weights @ seen), low, high, question.confidence, REGION)


def contrasts(evidence: Evidence) -> tuple[Contrast, ...]:
    """Return each arm's difference to the control's, where it can be told.

    Each interval holds by itself with the confidence that is asked for, not all together.
    """
    question, found, region = evidence.question, evidence.sequence, evidence.region
    result: list[Contrast] = []
    for place, arm in enumerate(question.arms[1:], 1):
        if found and found.is_ripe:
            estimate, reach = found.difference(place, 0, question.alpha)
            low, high, method = estimate - reach, estimate + reach, SEQUENCE
        elif not found and region and region.pulls[[place, 0]].all():
            weights = np.zeros(len(question.arms))
            weights[place], weights[0] = 1.0, -1.0
            estimate = float(weights @ (region.rewards / np.maximum(region.pulls, 1.0)))
            (low, high), method = region.extent(weights, question.alpha), REGION
        else:
            continue
        interval = Interval(estimate, low, high, question.confidence, method)
        result.append(Contrast(arm, question.arms[0], interval))
    return tuple(result)
