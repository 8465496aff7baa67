"""What ``flask bandit list`` and ``show`` print for a person, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..analysis.results import ArmResult
from .cli_leaderboard import bars, chance, gain, mismatch, ranked, twin
from .pages import BanditPage
from .reports import ArmReport, BanditReport, HoldoutReport, Summary, Sums

WIDTH = 80
NARROWEST = 8
LATEST = 5
"""How many entries of the history are shown."""

_REASONS: Mapping[str, tuple[str, str]] = {
    "bot": ("bot", "bots"),
    "prefetch": ("prefetch", "prefetches"),
    "head": ("HEAD request", "HEAD requests"),
    "network": ("from an excluded network", "from excluded networks"),
    "filter": ("by the visitor filter", "by the visitor filter"),
    "limit": ("above the network's limit", "above the networks' limit"),
    "no_consent": ("without consent", "without consent"),
    "not_targeted": ("not targeted", "not targeted"),
    "other_experiment": ("in another experiment", "in another experiment"),
    "closed": ("while closed", "while closed"),
    "paused": ("while paused", "while paused"),
    "declared": ("after the winner was declared", "after the winner was declared"),
    "archived": ("while archived", "while archived"),
    "override": ("override", "overrides"),
    "disabled": ("while disabled", "while disabled"),
    "outage": ("while the storage was down", "while the storage was down"),
}
_UNITS = (("w", 604800.0), ("d", 86400.0), ("h", 3600.0), ("m", 60.0))
_SPANS = ("reward_window", "half_life")


def list_lines(summaries: Iterable[Summary]) -> Iterator[str]:
    """Yield the lines of a list."""
    rows = [("name", "state", "version", "decisions", "best so far", "policy")]
    for each in summaries:
        state = f"{each.state} {each.winner}" if each.winner is not None else each.state
        best = "-" if each.best_mean is None else f"{each.best} {each.best_mean:.4g}"
        rows.append(
            (
                each.name,
                state,
                str(each.version),
                f"{each.decisions:,}",
                best,
                "not in the code" if each.policy is None else each.policy,
            )
        )
    yield from _table(rows, flexible=(0, 1, 4, 5), right=(2, 3))


def show_lines(page: BanditPage, *, is_plain: bool = False) -> Iterator[str]:
    """Yield everything about one version of a bandit.

    :param is_plain: draw in ASCII
    """
    report = page.report
    yield from _head(report)
    yield ""
    if page.results is not None:
        yield from _filled("", page.results.verdict.sentence)
        if words := twin(page.results):
            yield from _filled("", words)
        yield ""
    yield from _arms(page)
    yield from _statistics(page, is_plain)
    yield from _goals(report)
    if report.holdout is not None:
        yield ""
        yield from _filled("", _lift(report.holdout))
    if report.not_counted:
        yield ""
        yield from _filled("not counted: ", not_counted(report.not_counted))


def _head(report: BanditReport) -> Iterator[str]:
    if report.is_current:
        state = f"{report.name}: {report.state}, version {report.version}"
        # Weights do not change the state.
        changes = [each for each in report.history if not each.what.startswith("weights ")]
        since = f", since {_minute(changes[-1].at)}" if changes else ""
        yield from _filled("", f"{state}{since}")
        yield from _filled("", f"{report.visitors[0].upper()}{report.visitors[1:]}.")
    else:
        newest = max(report.versions)
        yield from _filled("", f"{report.name}: version {report.version} of {newest}, read-only")
    # An older version may have had another policy than the code has now.
    if report.is_current and report.policy is not None:
        yield from _filled("policy    ", report.policy)
        yield from _filled("options   ", _options(report.options))
    if len(report.versions) > 1:
        yield from _filled("versions  ", ", ".join(map(str, report.versions)))
    if report.is_current:
        label = "history   "
        for each in report.history[-LATEST:]:
            yield from _filled(label, f"{_minute(each.at)}  {each.what}")
            label = " " * len(label)
        if len(report.history) > LATEST:
            yield from _filled(label, f"{len(report.history) - LATEST} before; --json has all")


def _arms(page: BanditPage) -> Iterator[str]:
    report = page.report
    heading = ["arm", "weight", "pulls", "rewards", "mean", "late", "P(best)", "now"]
    rows = [_arm_row(arm, row, page.by_context) for arm, row in ranked(page)]
    if report.holdout is not None:
        rows.append(["(holdout)", "", *_cells(report.holdout.sums), "", ""])
    dropped = {"P(best)"} if page.results is None else set()
    if not report.options.get("reward_window") and not any(arm.sums.late for arm in report.arms):
        dropped.add("late")
    if not report.is_current or all(arm.weight == 1.0 for arm in report.arms if arm.in_code):
        dropped.add("weight")
    if not report.is_current:
        dropped.add("now")
    kept = [place for place, name in enumerate(heading) if name not in dropped]
    table = [[row[place] for place in kept] for row in (heading, *rows)]
    yield from _table(table, flexible=(0,), right=range(1, len(kept)))
    gone = [arm.arm for arm in report.arms if not arm.in_code]
    if gone and report.in_code:
        yield from _filled("not in the code: ", ", ".join(gone))


def _arm_row(arm: ArmReport, row: ArmResult | None, by_context: bool) -> list[str]:
    weight = "off" if arm.weight is None else f"{arm.weight:g}"
    best = "" if row is None or row.p_best is None else chance(row.p_best)
    now = "by context" if by_context else ""
    if arm.probability is not None:
        now = f"{arm.probability:.1%}"
    in_code = [weight, now] if arm.in_code else ["", ""]
    return [arm.arm, in_code[0], *_cells(arm.sums), best, in_code[1]]


def _statistics(page: BanditPage, is_plain: bool) -> Iterator[str]:
    """Yield how sure the means are, and what the bandit was good for."""
    results = page.results
    if results is None:
        yield ""
        why = page.why_no_results
        yield from _filled("", f"{why[:1].upper()}{why[1:]}")
        return
    heading, rows = bars(page, is_plain)
    if rows:
        yield ""
        yield from _filled("", heading)
        yield from _table(rows, flexible=(0,), right=())
    if results.verdict.state != "empty":
        yield ""
        yield from _filled("", gain(results))
    if words := mismatch(results.ratio):
        yield ""
        yield from _filled("", words)


def _cells(sums: Sums) -> list[str]:
    mean = f"{sums.mean:.4g}" if sums.pulls else "-"
    return [f"{sums.pulls:,}", f"{sums.rewards:,}", mean, f"{sums.late:,}"]


def _goals(report: BanditReport) -> Iterator[str]:
    groups = [(arm.arm, arm.goals) for arm in report.arms]
    if report.holdout is not None:
        groups.append(("(holdout)", report.holdout.goals))
    rows = [
        [goal, arm, f"{sums.rewards:,}", f"{sums.reward:,.6g}", f"{sums.mean:.4g}"]
        for arm, goals in groups
        for goal, sums in goals.items()
    ]
    if rows:
        yield ""
        rows.sort(key=lambda row: row[0])
        heading = ["goal", "arm", "rewards", "sum", "per pull"]
        yield from _table([heading, *rows], flexible=(0, 1), right=(2, 3, 4))


def _lift(holdout: HoldoutReport) -> str:
    return (
        f"Mean of those who are not held out {holdout.others_mean:.4g}, of the holdout "
        f"{holdout.sums.mean:.4g}: lift {holdout.lift:+.4g}."
    )


def not_counted(reasons: Mapping[str, int]) -> str:
    """Return in words what was not counted, such as ``312 bots, 41 prefetches``."""
    return ", ".join(
        f"{number:,} {_REASONS.get(reason, (reason, reason))[number != 1]}"
        for reason, number in reasons.items()
    )


def _options(options: Mapping[str, Any]) -> str:
    """Return the options that do something."""
    parts = []
    for name, value in options.items():
        if not value:
            continue
        if name == "features":
            value = " ".join(value)
        elif isinstance(value, Mapping):
            value = " ".join(f"{goal}={mode}" for goal, mode in value.items())
        elif name in _SPANS:
            value = _span(value)
        parts.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)


def _span(seconds: float) -> str:
    for unit, length in _UNITS:
        if seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _minute(at: str) -> str:
    """Return an ISO time in UTC, to the minute."""
    return f"{at[:10]} {at[11:16]} UTC"


def _filled(label: str, text: str) -> list[str]:
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_on_hyphens=False,
    )
    return lines or [label.rstrip()]


def _table(
    rows: Sequence[Sequence[str]], *, flexible: Sequence[int], right: Iterable[int]
) -> Iterator[str]:
    """Yield aligned lines of at most 80 columns.

    :param flexible: columns that may be cut, the widest first
    :param right: columns of numbers
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = set(right)
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        widest = max(flexible, key=lambda place: widths[place])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    for row in rows:
        cells = [
            _cut(cell, width).rjust(width) if place in right else _cut(cell, width).ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
