"""How much an arm earns more than another, and the bandit more than an equal split.

Pure; must not import Flask or a storage.
"""

from __future__ import annotations

import numpy as np

from .distributions import normal_quantile
from .evidence import Evidence
from .regions import Region
from .results import REGION, SEQUENCE, WEIGHTED, Contrast, Interval
from .sequences import FEWEST_REWARDS, Sequence
from .twin import Weighted


def gained(evidence: Evidence) -> tuple[Interval | None, str]:
    """Return the reward beyond that of an equal split, or else why it is not known.

    Its expectation, given the decisions. Without weights, and so also for rates that change,
    where no arm was ever less probable than :data:`~.sequences.LEAST_CHANCE`; that is the gain of
    the decisions in the log that can earn nothing more. Otherwise for steady rates, of all
    decisions: from the differences between arms, or from the region. Where arms are chosen by
    context, from decisions that count one over their probability.
    """
    question = evidence.question
    if not evidence.visitors:
        return None, f"No {evidence.noun}s yet."
    if len(question.arms) < 2:
        return None, "There is nothing to split between fewer than two arms."
    if not evidence.test and not evidence.is_waiting:
        return None, f"Not estimable: {evidence.obstacle}."
    poor = lacking(evidence)
    if poor:
        return None, f"Not estimable yet: {poor}."
    found = evidence.test
    if not isinstance(found, Sequence):
        return _gained_by_region(evidence), ""
    if evidence.weighted and not found.is_floored:
        return _gained_by_weights(evidence, evidence.weighted)
    if found.is_floored:
        estimate, reach = found.gained(question.alpha)
    else:
        estimate, reach = _gained_by_pairs(found, evidence)
    low, high = estimate - reach, estimate + reach
    return Interval(estimate, low, high, question.confidence, SEQUENCE), ""


def lacking(evidence: Evidence) -> str:
    """Say which arm has too little for the test that is used; empty if none has."""
    arms, found = evidence.question.arms, evidence.test
    if evidence.is_waiting:
        return "no reward window is over"
    if isinstance(found, Sequence):
        poorest = int(found.rewards.argmin())
        count = int(found.rewards[poorest])
        if count < FEWEST_REWARDS:
            return f"{arms[poorest]} has {count} of the {FEWEST_REWARDS} rewards that it needs"
        return ""
    none = int(evidence.pulls[: len(arms)].argmin())
    return "" if evidence.pulls[none] else f"{arms[none]} has no visitors"


def _gained_by_pairs(found: Sequence, evidence: Evidence) -> tuple[float, float]:
    """Return the gain and how far off it may be, from differences that all hold together.

    An arm that has more visitors than an equal split gives it took them from the others.
    """
    k = evidence.played
    pulls = evidence.pulls[:k]
    moved = pulls - pulls.sum() / k
    most = int(pulls.argmax())
    alpha = evidence.question.alpha * 2.0 / (k * (k - 1))
    pairs = [(moved[i], *found.difference(i, most, alpha)) for i in range(k) if i != most]
    estimate = sum(count * difference for count, difference, _ in pairs)
    return float(estimate), float(sum(abs(count) * reach for count, _, reach in pairs))


def _gained_by_region(evidence: Evidence) -> Interval:
    """Weigh each rate with the visitors that its arm has more than an equal split gives it."""
    question, played = evidence.question, evidence.played
    weights = evidence.pulls.copy()
    weights[:played] -= evidence.visitors / played
    seen = evidence.reward / np.maximum(evidence.pulls, 1.0)
    low, high = Region(evidence.pulls, evidence.reward).extent(weights, question.alpha)
    return Interval(float(weights @ seen), low, high, question.confidence, REGION)


def _gained_by_weights(evidence: Evidence, found: Weighted) -> tuple[Interval | None, str]:
    """Compare what was earned with the mean of all arms' weighted estimates."""
    if poor := found.lacking():
        return None, f"Not estimable yet: {poor}."
    k, level = evidence.played, evidence.question.confidence
    estimate, error = (float(each[0]) for each in found.beyond(np.full((1, k), 1.0 / k)))
    reach = float(normal_quantile((1.0 + level) / 2.0)) * error
    total = evidence.visitors
    low, high = total * (estimate - reach), total * (estimate + reach)
    return Interval(total * estimate, low, high, level, WEIGHTED), ""


def contrasts(evidence: Evidence) -> tuple[Contrast, ...]:
    """Return each arm's difference to the control's, where it can be told.

    Each interval holds by itself with the confidence that is asked for, not all together.
    """
    question, found = evidence.question, evidence.test
    result: list[Contrast] = []
    for place, arm in enumerate(question.arms[1:], 1):
        if isinstance(found, Sequence) and found.is_ripe:
            estimate, reach = found.difference(place, 0, question.alpha)
            low, high, method = estimate - reach, estimate + reach, SEQUENCE
        elif isinstance(found, Region) and found.pulls[[place, 0]].all():
            weights = np.zeros(len(question.arms))
            weights[place], weights[0] = 1.0, -1.0
            estimate = float(weights @ (found.rewards / np.maximum(found.pulls, 1.0)))
            (low, high), method = found.extent(weights, question.alpha), REGION
        else:
            continue
        interval = Interval(estimate, low, high, question.confidence, method)
        result.append(Contrast(arm, question.arms[0], interval))
    return tuple(result)
