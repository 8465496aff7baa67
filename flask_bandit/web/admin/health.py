"""What may be wrong with a bandit's numbers, in words. Knows nothing of HTML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...analysis.results import RatioCheck, Results
from ..cli_show import not_counted
from ..pages import BanditPage
from .numbers import Numbers

GOOD, PLAIN, ALARM = "good", "note", "alarm"
_SEVERITY = (ALARM, PLAIN, GOOD)


@dataclass(frozen=True)
class Finding:
    """One line about the bandit's health.

    :param state: :data:`GOOD`, :data:`PLAIN` (worth to know) or :data:`ALARM` (do not trust it)
    :param rows: (name, first number, second number) of a small table
    """

    state: str
    title: str
    text: str
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def findings(page: BanditPage, numbers: Numbers) -> tuple[Finding, ...]:
    """Return what there is to say about a bandit's health, the worst first."""
    found = [*_of_log(page, numbers), *_of_counts(page, numbers)]
    return tuple(sorted(found, key=lambda each: _SEVERITY.index(each.state)))


def summary(page: BanditPage, numbers: Numbers) -> tuple[str, str]:
    """Return the health in a word or two, with its state."""
    alarms = [each.title for each in findings(page, numbers) if each.state == ALARM]
    if alarms:
        return ALARM, f"alarm: {alarms[0].lower()}"
    return GOOD, "no alarm"


def _of_log(page: BanditPage, numbers: Numbers) -> Iterator[Finding]:
    results = page.results
    if results is None:
        return
    if results.ratio is not None:
        yield _ratio(results.ratio, numbers)
    if page.unread:
        yield Finding(
            PLAIN,
            "Not read yet",
            "Decisions that are counted and not in the charts and tests yet:"
            f" {numbers.count(page.unread)}. They are read in the background; load the page again"
            " in a minute.",
        )
    yield from _gaps(results, numbers)


def _ratio(ratio: RatioCheck, numbers: Numbers) -> Finding:
    rows = tuple(
        (arm, numbers.number(expected, 6), numbers.count(ratio.shown.get(arm, 0)))
        for arm, expected in ratio.expected.items()
    )
    headings = ("Arm", "Expected", "Shown")
    title = "Arms shown as often as their probabilities say"
    if ratio.p_value is None:
        text = "Too few decisions to tell."
        return Finding(PLAIN, title, text, headings, rows)
    told = f"p = {numbers.number(ratio.p_value, 2)}"
    if ratio.is_alarm:
        title = "Arms not shown as often as their probabilities say"
        text = (
            f"By chance that comes less than once in 1,000 times ({told}). Something loses or"
            " repeats decisions of one arm, such as a page that fails or a robot; do not trust"
            " the rates until it is found."
        )
        return Finding(ALARM, title, text, headings, rows)
    return Finding(GOOD, title, f"What differs is within chance ({told}).", headings, rows)


def _gaps(results: Results, numbers: Numbers) -> Iterator[Finding]:
    if results.unknown:
        yield Finding(
            PLAIN,
            "Unknown probabilities",
            "Logged decisions without a probability, as after an import:"
            f" {numbers.count(results.unknown)} of {numbers.count(results.logged)}. The tests leave"
            " them out.",
        )
    if results.missing:
        yield Finding(
            PLAIN,
            "Rewards that the charts lack",
            "Rewards that are counted in the leaderboard and not in the charts:"
            f" {numbers.count(results.missing)}. They came after their part of the log was read, or"
            " its details were pruned.",
        )


def _of_counts(page: BanditPage, numbers: Numbers) -> Iterator[Finding]:
    report = page.report
    if report.not_counted:
        rows = tuple(
            # The words without their number, which is written for this reader.
            (not_counted({reason: number}).partition(" ")[2], numbers.count(number))
            for reason, number in report.not_counted.items()
        )
        total = numbers.count(sum(report.not_counted.values()))
        text = f"Choices of an arm that were left out, so that they bias nothing: {total}."
        yield Finding(PLAIN, "Not counted", text, ("Reason", "Choices"), rows)
    else:
        yield Finding(GOOD, "Not counted", "No bot or other visitor was left out so far.")
    missed = report.not_counted.get("outage", 0)
    if missed:
        text = "Choices that were not stored, because the storage was down: "
        yield Finding(PLAIN, "Storage outages", f"{text}{numbers.count(missed)}.")
    else:
        yield Finding(GOOD, "Storage outages", "No visitor met one so far.")
    late = [(each.arm, each.sums.late) for each in report.arms if each.sums.late]
    if late:
        rows = tuple((arm, numbers.count(number)) for arm, number in late)
        text = "They came after the reward window, and the policy does not learn from them."
        yield Finding(PLAIN, "Late rewards", text, ("Arm", "Rewards"), rows)
    elif report.options.get("reward_window"):
        yield Finding(GOOD, "Late rewards", "None came after the reward window.")
