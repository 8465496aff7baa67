"""The leaderboard in words and characters, from results made by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bandit.analysis.results import (
    NOT_YET,
    POSTERIOR,
    REGION,
    SEQUENCE,
    WEIGHTED,
    ArmResult,
    Interval,
    RatioCheck,
    Results,
    Verdict,
)
from flask_bandit.web import cli_leaderboard
from flask_bandit.web.cli_leaderboard import BAR, bars, chance, gain, mismatch, plain, ranked
from flask_bandit.web.cli_show import WIDTH, show_lines
from flask_bandit.web.pages import BanditPage
from flask_bandit.web.reports import ArmReport, BanditReport, Sums

UNDECIDED = Verdict(
    "undecided", "b leads with 93 %; not decided: about 1,200 more visitors.", "b", 0.93, REGION, 1
)


def interval(estimate: float, low: float, high: float, method: str = POSTERIOR) -> Interval:
    return Interval(estimate, low, high, 0.95, method)


def row(arm: str, mean: Interval | None, p_best: float | None = 0.5) -> ArmResult:
    return ArmResult(arm, arm == "a", 1000, 50, 50.0, 0.5, mean, p_best, 0.001, None)


ROWS = (row("b", interval(0.06, 0.04, 0.08), 0.93), row("a", interval(0.05, 0.03, 0.07), 0.07))


def results(**fields: Any) -> Results:
    usual: dict[str, Any] = {
        "arms": ROWS,
        "is_binary": True,
        "verdict": UNDECIDED,
        "gained": interval(12.0, -3.0, 27.5, SEQUENCE),
        "why_no_gain": "",
        "contrasts": (),
        "ratio": None,
        "series": (),
        "logged": 2000,
        "unknown": 0,
        "missing": 0,
    }
    return Results(**{**usual, **fields})


def page(found: Results | None, *arms: str, gone: tuple[str, ...] = ()) -> BanditPage:
    sums = Sums(1000, 50, 50.0, 0.05, 0)
    reports = [ArmReport(arm, arm not in gone, 1.0, 0.5, sums, {}) for arm in arms or ("a", "b")]
    report = BanditReport(
        "btn",
        True,
        "running",
        1,
        True,
        (1,),
        None,
        "new visitors get an arm",
        None,
        {},
        tuple(reports),
        None,
        {},
        (),
    )
    why = "" if found else "the statistics need SciPy: pip install 'Flask-Bandit[analysis]'"
    return BanditPage(report, found, why, (), 0, 0.0)


def test_the_verdict_the_table_the_bars_and_the_gain() -> None:
    assert list(show_lines(page(results())))[2:] == [
        "",
        UNDECIDED.sentence,
        "",
        "arm  pulls  rewards  mean  P(best)    now",
        "b    1,000       50  0.05    93.0%  50.0%",
        "a    1,000       50  0.05     7.0%  50.0%",
        "",
        "95 % posterior intervals of the means, on an axis from 0.03 to 0.08",
        "b  0.04 to 0.08          ├───────────────●───────────────┤",
        "a  0.03 to 0.07  ├───────────────●───────────────┤",
        "",
        "Reward gained over an equal split: +12, 95 % interval -3 to 27.5, by a",
        "confidence sequence from the logged probabilities.",
    ]


def test_without_results_it_says_what_to_install() -> None:
    lines = list(show_lines(page(None)))
    assert "arm  pulls  rewards  mean    now" in lines
    assert lines[-1] == "The statistics need SciPy: pip install 'Flask-Bandit[analysis]'"
    assert [arm.arm for arm, found in ranked(page(None)) if found is None] == ["a", "b"]


def test_bars_in_ascii() -> None:
    _, rows = bars(page(results()), is_plain=True)
    assert rows[1][2].strip() == "|---------------o---------------|"
    assert all(text.isascii() for each in rows for text in each)


def test_all_bars_share_an_axis() -> None:
    _, ((_, _, first), (_, _, second)) = bars(page(results()), is_plain=True)
    assert len(first) == len(second) == BAR
    # 0.04 to 0.08, and 0.03 to 0.07, on an axis from 0.03 to 0.08.
    assert (first.index("|"), first.rindex("|")) == (8, BAR - 1)
    assert (second.index("|"), second.rindex("|")) == (0, 32)
    assert first.index("o") - first.index("|") == second.index("o") - second.index("|")


numbers = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5))
def test_any_bar_has_its_estimate_and_stays_on_the_axis(
    given_: list[tuple[float, float, float]],
) -> None:
    arms = [str(n) for n in range(len(given_))]
    found = [
        row(arm, interval(estimate, min(ends), max(ends)))
        for arm, (estimate, *ends) in zip(arms, given_, strict=True)
    ]
    _, rows = bars(page(results(arms=tuple(found)), *arms), is_plain=True)
    assert [arm for arm, _, _ in rows] == arms
    for _, _, bar in rows:
        assert len(bar) == BAR
        assert bar.count("o") == 1


def test_an_estimate_outside_its_interval_is_drawn_all_the_same() -> None:
    """As before the first reward: 0, and the posterior begins above it."""
    _, rows = bars(page(results(arms=(row("a", interval(0.0, 0.01, 0.05)),)), "a"), is_plain=True)
    assert rows[0][2].startswith("o       |---")


def test_arms_without_an_interval_have_no_bar() -> None:
    found = results(
        arms=(
            row("a", None),
            row("b", interval(1.0, 1.0, 1.0, NOT_YET)),
            row("c", interval(1.0, -math.inf, math.inf)),
            row("d", interval(1.0, 0.0, math.nan)),
        )
    )
    assert bars(page(found, "a", "b", "c", "d"), is_plain=True) == ("", [])
    assert not any("intervals" in line for line in show_lines(page(found, "a", "b", "c", "d")))


def test_an_arm_that_is_gone_does_not_squeeze_the_others() -> None:
    found = results(arms=(*ROWS, row("old", interval(0.0, 0.0, 0.9))))
    heading, rows = bars(page(found, "a", "b", "old", gone=("old",)), is_plain=True)
    assert heading.endswith("from 0.03 to 0.08")
    assert [arm for arm, _, _ in rows] == ["b", "a"]


def test_the_best_comes_first() -> None:
    assert [arm.arm for arm, _ in ranked(page(results()))] == ["b", "a"]


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (None, "-"),
        (0.0, "<0.1%"),
        (0.00099, "<0.1%"),
        (0.001, "0.1%"),
        (0.5, "50.0%"),
        (0.999, "99.9%"),
        (0.9995, ">99.9%"),
        (1.0, ">99.9%"),
    ],
)
def test_a_posterior_is_never_certain(probability: float | None, text: str) -> None:
    assert chance(probability) == text


def test_the_gain_by_a_region_and_where_there_is_none() -> None:
    by_region = replace(results(), gained=interval(-1.5, -2.0, 4.0, REGION))
    assert gain(by_region) == (
        "Reward gained over an equal split: -1.5, 95 % interval -2 to 4, by a joint confidence"
        " region, if the rates are steady."
    )
    none = replace(results(), gained=None, why_no_gain="Not estimable yet: a has no visitors.")
    assert gain(none) == "Reward gained over an equal split: not estimable yet: a has no visitors."


def test_before_the_first_reward_there_is_no_line_on_what_was_gained() -> None:
    empty = Verdict("empty", "No visitors yet.", None, None, NOT_YET, None)
    assert not any("gained" in line for line in show_lines(page(results(verdict=empty))))


def test_a_sample_ratio_mismatch_is_told_when_it_alarms() -> None:
    check = RatioCheck({"a": 1000.2, "b": 1000.0}, {"a": 900, "b": 1100}, 20.0, 1, 0.0001)
    words = mismatch(check)
    assert "(a 900 times instead of 1,000, b 1,100 times instead of 1,000)" in words
    assert "Sample-ratio mismatch" in " ".join(show_lines(page(results(ratio=check))))
    for quiet in (None, replace(check, p_value=0.01), replace(check, p_value=None)):
        assert mismatch(quiet) == ""
        assert "mismatch" not in " ".join(show_lines(page(results(ratio=quiet))))


def test_json_has_no_number_that_is_none() -> None:
    odd = interval(math.nan, -math.inf, math.inf)
    found = plain(results(gained=odd, ratio=RatioCheck({"a": math.inf}, {"a": 1}, 0.0, 0, None)))
    text = json.dumps(found, allow_nan=False)
    read = json.loads(text)
    assert read["gained"] == {
        "estimate": None,
        "low": None,
        "high": None,
        "level": 0.95,
        "method": POSTERIOR,
    }
    assert read["ratio"]["expected"] == {"a": None}
    assert read["arms"][0]["mean"]["low"] == 0.04
    assert plain(None) is None


@pytest.mark.parametrize("arm", ["é" * 150, "日本" * 60, "a b" * 60, "b"])
def test_odd_names_fit_in_80_columns(arm: str) -> None:
    found = results(arms=(row(arm, interval(1234567.891, -1234567.891, 9876543.21)), ROWS[1]))
    for is_plain in (False, True):
        lines = list(show_lines(page(found, arm, "a"), is_plain=is_plain))
        assert max(map(len, lines)) <= WIDTH


def test_each_method_has_words() -> None:
    assert cli_leaderboard._METHODS.keys() == {SEQUENCE, REGION, WEIGHTED}
