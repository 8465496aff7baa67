"""Pages of bandits that were never run: their log and their counts are made up here."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from flask_bandit.analysis.digest import Reader
from flask_bandit.analysis.reading import Question, read_results
from flask_bandit.analysis.results import Results
from flask_bandit.model import DEFAULT_GOAL, ArmStats, Decision, LogEntry, Reward
from flask_bandit.web.pages import BanditPage, Mark, Models
from flask_bandit.web.reports import ArmReport, BanditReport, Change, Sums, moment

START = 1_795_000_000.0
"""A day in November 2026."""
HOUR = 3600.0
DRAWS = 8
"""From the posterior, of which the probabilities are made."""


def made_log(
    rates: Mapping[str, float], visitors: int, hours: float, *, size: float = 1.0, seed: int = 1
) -> list[LogEntry]:
    """Return what a bandit that learns would have logged.

    :param rates: arm -> probability of a reward of ``size``
    """
    generator, arms = random.Random(seed), list(rates)
    wins, losses, log = dict.fromkeys(arms, 1), dict.fromkeys(arms, 1), []
    for number in range(visitors):
        draws = [
            max(arms, key=lambda arm: generator.betavariate(wins[arm], losses[arm]))
            for _ in range(DRAWS)
        ]
        chances = {arm: 0.9 * draws.count(arm) / DRAWS + 0.1 / len(arms) for arm in arms}
        arm = generator.choices(arms, [chances[each] for each in arms])[0]
        at = START + hours * HOUR * number / max(visitors - 1, 1)
        made = Decision(f"d{number}", "btn", 1, arm, chances, "Thompson", at)
        rewards: tuple[Reward, ...] = ()
        if generator.random() < rates[arm]:
            wins[arm] += 1
            rewards = (Reward(f"r{number}", made.id, "btn", 1, arm, size, at + 5),)
        else:
            losses[arm] += 1
        log.append(LogEntry(made, rewards))
    return log


def made_results(
    log: Sequence[LogEntry], arms: Sequence[str], spans: int = 48, **question: Any
) -> tuple[Results, dict[str, ArmStats]]:
    """Return what the statistics say about a log."""
    times = [entry.decision.at for entry in log] or [START]
    cell = max((max(times) - min(times)) / spans, 1.0)
    reader = Reader(1, DEFAULT_GOAL, None, max(times) + 60, cell)
    reader.read(log)
    digest = reader.part(0.0, float("inf"))
    stats = {}
    for arm in arms:
        mine = [entry for entry in log if entry.decision.arm == arm]
        values = [reward.value for entry in mine for reward in entry.rewards]
        squares = sum(value * value for value in values)
        stats[arm] = ArmStats(len(mine), len(values), sum(values), squares)
    asked = Question(arms=tuple(arms), **{"is_once": True, **question})
    return read_results(stats, digest, asked), stats


def made_page(
    rates: Mapping[str, float],
    visitors: int = 1200,
    hours: float = 24.0,
    *,
    spans: int = 48,
    size: float = 1.0,
    marks: Sequence[tuple[float, str]] = (),
    results: bool = True,
    by_context: bool = False,
    models: Models | None = None,
    **report: Any,
) -> BanditPage:
    """Return a page.

    :param marks: (hours after the start, what was done)
    :param results: False leaves the statistics out, as without the extra
    :param report: fields of the report that shall be different
    """
    log = made_log(rates, visitors, hours, size=size)
    asked = {"winner": report.get("winner"), "by_context": by_context}
    found, stats = made_results(log, list(rates), spans, **asked)
    arms = tuple(
        ArmReport(
            arm=arm,
            in_code=True,
            weight=1.0,
            probability=None if by_context else 1.0 / len(rates),
            sums=_sums(stats[arm]),
            goals={},
        )
        for arm in rates
    )
    done = tuple(Mark(START + hour * HOUR, what) for hour, what in marks)
    plain: dict[str, Any] = {
        "name": "btn",
        "in_code": True,
        "state": "running",
        "version": 1,
        "is_current": True,
        "versions": (1,),
        "winner": None,
        "visitors": "new visitors get an arm by Thompson, and the others keep theirs",
        "policy": "ThompsonBandit()",
        "options": {"goal": DEFAULT_GOAL},
        "arms": arms,
        "holdout": None,
        "not_counted": {},
        "history": tuple(Change(moment(mark.at), mark.what) for mark in done),
    }
    return BanditPage(
        report=BanditReport(**{**plain, **report}),
        results=found if results else None,
        why_no_results="" if results else "pip install 'Flask-Bandit[analysis]'",
        marks=done,
        unread=0,
        read_at=START + hours * HOUR + 60,
        by_context=by_context,
        models=models,
    )


def _sums(stats: ArmStats) -> Sums:
    return Sums(stats.pulls, stats.rewards, stats.reward, stats.mean, 0)
