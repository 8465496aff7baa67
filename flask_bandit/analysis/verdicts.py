"""One sentence: which arm leads, whether that is decided, and how long it may take.

Pure; must not import Flask or a storage.
"""

from __future__ import annotations

import math

from .estimates import lacking
from .evidence import Evidence
from .results import NOT_YET, ArmResult, Verdict
from .sequences import FEWEST_REWARDS

MOST_MORE = 1_000_000
"""Visitors; arms that need more than that to be told apart are alike."""


def judge(evidence: Evidence, rows: tuple[ArmResult, ...]) -> Verdict:
    """Return the verdict.

    :param rows: the leaderboard
    """
    arms = evidence.question.arms
    by_name = {row.arm: row for row in rows}
    test = evidence.test if len(arms) > 1 else None
    found = test.decides(evidence.question.alpha) if test else None
    decided = None if found is None else arms[found]
    if evidence.question.winner is not None:
        return _declared(evidence, by_name.get(evidence.question.winner), decided)
    early = _early(evidence)
    if early:
        return Verdict("empty", early, None, None, NOT_YET, None)
    if len(arms) < 2:
        sentence = f"{arms[0]} is the only arm: there is nothing to compare it with."
        return Verdict("untestable", sentence, arms[0], None, NOT_YET, None)
    if decided is not None:
        sentence = (
            f"{_as_one(evidence)}{decided} is best: decided at the "
            f"{100 * evidence.question.alpha:.3g} % level after {evidence.visitors:,} "
            f"{evidence.noun}s."
        )
        chance = by_name[decided].p_best
        return Verdict("decided", sentence, decided, chance, evidence.method, 0)
    return _undecided(evidence, _leader([by_name[arm] for arm in arms]))


def _early(evidence: Evidence) -> str:
    if not evidence.question.arms:
        return "No arm is in play."
    if not evidence.visitors:
        return f"No {evidence.noun}s yet."
    if not evidence.rewards.any():
        noun = evidence.noun + ("" if evidence.visitors == 1 else "s")
        return f"No rewards yet: {evidence.visitors:,} {noun} so far."
    return ""


def _as_one(evidence: Evidence) -> str:
    """Say how arms are compared that are not chosen for all alike."""
    return "As one arm for everybody, " if evidence.question.by_context else ""


def _leader(rows: list[ArmResult]) -> ArmResult:
    """Return the arm that is best by what is believed; the first of several.

    One that nobody has seen leads nobody.
    """
    return max(
        [row for row in rows if row.pulls] or rows,
        key=lambda row: (row.p_best or 0.0, row.mean.estimate if row.mean else -math.inf),
    )


def _declared(evidence: Evidence, row: ArmResult | None, decided: str | None) -> Verdict:
    winner = evidence.question.winner
    if decided is None:
        rest = "the test has not decided" if evidence.test else "no test holds for this bandit"
    else:
        rest = "the test agrees" if decided == winner else f"the test says {decided}"
    if evidence.question.by_context:
        rest = f"as one arm for everybody, {rest}"
    sentence = f"{winner} was declared the winner; {rest}."
    chance = row.p_best if row else None
    return Verdict("declared", sentence, winner, chance, evidence.method, None)


def _undecided(evidence: Evidence, leader: ArmResult) -> Verdict:
    chance = leader.p_best
    leads = f"{_as_one(evidence)}{leader.arm} leads" + (
        f" with {percent(chance)}" if chance is not None else ""
    )
    if not evidence.test and not evidence.is_waiting:
        sentence = f"{leads}; no test holds: {evidence.obstacle}."
        return Verdict("untestable", sentence, leader.arm, chance, NOT_YET, None)
    poor, more, state = lacking(evidence), more_visitors(evidence), "undecided"
    if poor:
        rest = poor
    elif more is not None:
        rest = f"about {two_digits(more):,} more {evidence.noun}s"
    elif evidence.rewards[: evidence.played].min() < FEWEST_REWARDS:
        rest = f"too early to tell how many more {evidence.noun}s it takes"
    else:
        state, rest = "alike", f"so alike that {MOST_MORE:,} more {evidence.noun}s would not do"
    sentence = f"{leads}; not decided: {rest}."
    return Verdict(state, sentence, leader.arm, chance, evidence.method, more)


def more_visitors(evidence: Evidence) -> int | None:
    """Return how many more visitors the test needs if all sums grow as they did until now.

    :return: ``None`` if it would be more than :data:`MOST_MORE`
    """
    low, high = 1.0, 1.0 + MOST_MORE / evidence.visitors
    if not evidence.would_decide(high):
        return None
    while (high - low) * evidence.visitors > 0.5:
        middle = math.sqrt(low * high)
        if not low < middle < high:
            break
        low, high = (low, middle) if evidence.would_decide(middle) else (middle, high)
    return math.ceil((high - 1.0) * evidence.visitors)


def two_digits(count: int) -> int:
    """Round up to two digits, and to 10 at least."""
    unit = int(10.0 ** max(len(str(count)) - 2, 0))
    return max(10, -(-count // unit) * unit)


def percent(chance: float) -> str:
    """Write a probability; a posterior is never quite certain."""
    if chance > 0.999:
        return "over 99.9 %"
    if chance >= 0.995:
        return f"{math.floor(1000.0 * chance) / 10.0:.1f} %"
    return f"{100.0 * chance:.0f} %"
