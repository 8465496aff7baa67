"""The leaderboard in words and characters: what the command line and the debug panel share.

Takes one reading of a bandit and gives cells and sentences; knows nothing of columns and colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from ..analysis.results import (
    NOT_YET,
    REGION,
    SEQUENCE,
    WEIGHTED,
    ArmResult,
    Interval,
    RatioCheck,
    Results,
)
from .pages import BanditPage
from .reports import ArmReport

BAR = 41
"""Characters of the axis that all bars share."""
_FINE, _PLAIN = ("├", "─", "┤", "●"), ("|", "-", "|", "o")
_METHODS: Mapping[str, str] = {
    SEQUENCE: "by a confidence sequence from the logged probabilities",
    REGION: "by a joint confidence region, if the rates are steady",
    WEIGHTED: "from weighted decisions, for a single look",
}


def ranked(page: BanditPage) -> list[tuple[ArmReport, ArmResult | None]]:
    """Return the arms with their statistics, the best first; in the code's order without any."""
    if page.results is None:
        return [(arm, None) for arm in page.report.arms]
    reports = {arm.arm: arm for arm in page.report.arms}
    return [(reports[row.arm], row) for row in page.results.arms]


def chance(probability: float | None) -> str:
    """Write a posterior probability, which is never quite 0 or 1."""
    if probability is None:
        return "-"
    if 0.001 <= probability <= 0.999:
        return f"{probability:.1%}"
    return "<0.1%" if probability < 0.5 else ">99.9%"


def interval_of(row: ArmResult | None) -> Interval | None:
    """Return the interval of an arm's mean, if there is one that says something."""
    if row is None or row.mean is None or row.mean.method == NOT_YET:
        return None
    return row.mean if math.isfinite(row.mean.high - row.mean.low) else None


def ends(interval: Interval) -> str:
    """Write from where to where."""
    return f"{interval.low:.4g} to {interval.high:.4g}"


def level(interval: Interval) -> str:
    """Write how sure an interval is, such as ``95 %``."""
    return f"{100.0 * interval.level:g} %"


def bars(page: BanditPage, is_plain: bool) -> tuple[str, list[list[str]]]:
    """Return a heading, and for each arm its name, its interval and that as a bar.

    An arm that the code has no more is left out: with few pulls, it would squeeze the others.

    :param is_plain: in ASCII
    :return: no rows if no arm has an interval
    """
    known = [
        (arm.arm, found)
        for arm, row in ranked(page)
        if (arm.in_code or not page.report.in_code) and (found := interval_of(row))
    ]
    if not known:
        return "", []
    low = min(min(each.low, each.estimate) for _, each in known)
    high = max(max(each.high, each.estimate) for _, each in known)
    what = "posterior intervals of the means"
    if page.by_context:
        what = "intervals of the reward per decision if everybody got the arm"
    heading = f"{level(known[0][1])} {what}, on an axis from {low:.4g} to {high:.4g}"
    return heading, [[arm, ends(each), _bar(each, low, high, is_plain)] for arm, each in known]


def _bar(interval: Interval, low: float, high: float, is_plain: bool) -> str:
    left, line, right, point = _PLAIN if is_plain else _FINE
    per_cell = (high - low) / (BAR - 1)
    start, end, middle = (
        round((value - low) / per_cell) if per_cell > 0.0 else 0
        for value in (interval.low, interval.high, interval.estimate)
    )
    cells = [line if start < place < end else " " for place in range(BAR)]
    cells[start], cells[end] = left, right
    cells[middle] = point
    return "".join(cells)


def gain(results: Results) -> str:
    """Return in one sentence what was gained over an equal split, or why nobody knows."""
    found, why = results.gained, results.why_no_gain
    if found is None:
        return f"Reward gained over an equal split: {_lower(why)}"
    return (
        f"Reward gained over an equal split: {_with_ends(found)},"
        f" {_METHODS.get(found.method, found.method)}."
    )


def twin(results: Results) -> str:
    """Return what one arm for everybody would have earned; empty for other bandits."""
    found = results.twin
    if results.verdict.state == "empty":
        return ""
    if found is None:
        why = results.why_no_twin
        return why and f"One arm for everybody, against choosing by context: {_lower(why)}"
    return f"{found.sentence} Difference {_with_ends(found.difference)}."


def _with_ends(found: Interval) -> str:
    return f"{found.estimate:+.4g}, {level(found)} interval {ends(found)}"


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def mismatch(check: RatioCheck | None) -> str:
    """Return in words that arms were not shown as their probabilities say; empty if they were."""
    if check is None or not check.is_alarm:
        return ""
    shown = ", ".join(
        f"{arm} {count:,} times instead of {check.expected.get(arm, 0.0):,.0f}"
        for arm, count in check.shown.items()
    )
    return (
        "Sample-ratio mismatch: the arms were not shown as often as their logged probabilities say"
        f" ({shown}); by chance, that comes less than once in 1,000 times. Look for decisions that"
        " are lost or doubled before you trust the rest."
    )


def plain(value: Any) -> Any:
    """Return results as values that JSON has; what is no number, or infinite, is ``None``."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
