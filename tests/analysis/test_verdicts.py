"""One sentence for each state of affairs."""

from __future__ import annotations

import pytest

from flask_bandit.analysis.digest import Digest
from flask_bandit.analysis.reading import Question, read_results
from flask_bandit.analysis.results import NOT_YET, REGION, SEQUENCE, Verdict
from flask_bandit.analysis.verdicts import percent, two_digits
from flask_bandit.model import ArmStats

from .logs import Seen, counts, digest, plain

HALVES = {"green": 0.5, "blue": 0.5}


def verdict(**stats: ArmStats) -> Verdict:
    return declared(None, **stats)


def declared(winner: str | None, /, **stats: ArmStats) -> Verdict:
    question = Question(tuple(stats), is_once=True, winner=winner)
    return read_results(stats, Digest(), question).verdict


def logged(count: int, value: float = 1.0, window: float | None = None) -> Verdict:
    """Green earns twice as often as blue."""
    seen = [
        Seen(float(n), ("green", "blue")[n % 2], HALVES, value * (n % 10 in (0, 2, 1)))
        for n in range(count)
    ]
    question = Question(("blue", "green"), is_once=True, window=window)
    return read_results(counts(seen), digest(seen, window, count + 20.0), question).verdict


def test_nothing_yet() -> None:
    assert verdict(green=plain(0, 0), blue=plain(0, 0)).sentence == "No visitors yet."
    found = verdict(green=plain(70, 0), blue=plain(1050, 0))
    assert found == Verdict(
        "empty", "No rewards yet: 1,120 visitors so far.", None, None, NOT_YET, None
    )
    first = verdict(green=plain(0, 0), blue=plain(1, 0))
    assert first.sentence == "No rewards yet: 1 visitor so far."
    assert verdict().sentence == "No arm is in play."


def test_undecided() -> None:
    found = verdict(green=plain(1000, 60), blue=plain(1000, 45))
    assert found.state == "undecided"
    assert found.method == REGION
    assert found.leader == "green"
    assert found.more is not None
    assert found.sentence == (
        f"green leads with 93 %; not decided: about {two_digits(found.more):,} more visitors."
    )


def test_that_many_more_visitors_do_decide() -> None:
    found = verdict(green=plain(1000, 60), blue=plain(1000, 45))
    assert found.more is not None
    scale = 1.0 + (found.more + 200) / 2000
    counts = {"green": (1000, 60), "blue": (1000, 45)}
    more = {arm: plain(round(scale * n), round(scale * r)) for arm, (n, r) in counts.items()}
    assert verdict(**more).is_decided
    less = 1.0 + 0.95 * found.more / 2000
    fewer = {arm: plain(round(less * n), round(less * r)) for arm, (n, r) in counts.items()}
    assert not verdict(**fewer).is_decided


def test_decided() -> None:
    found = logged(5120)
    assert found.is_decided
    assert found.method == SEQUENCE
    assert found.leader == "green"
    assert found.more == 0
    assert found.sentence == "green is best: decided at the 5 % level after 5,120 visitors."


def test_too_few_rewards() -> None:
    found = logged(150, 2.5)
    assert found.state == "undecided"
    assert found.method == SEQUENCE
    assert found.sentence.endswith("; not decided: blue has 15 of the 20 rewards that it needs.")


def test_before_that_0_and_1_are_for_the_region() -> None:
    found = logged(150)
    assert found.method == REGION
    assert found.sentence.endswith(" more visitors.")


def test_real_rewards_are_decided_as_well() -> None:
    assert logged(5120, 12.5).leader == "green"
    assert logged(5120, 12.5).is_decided


def test_no_test_holds() -> None:
    stats = {"green": ArmStats(900, 90, 300.0, 2000.0), "blue": ArmStats(900, 80, 200.0, 1500.0)}
    found = verdict(**stats)
    assert found.state == "untestable"
    assert found.leader == "green"
    assert found.sentence.startswith("green leads with 9")
    assert "; no test holds: the log has no probabilities" in found.sentence


def test_no_window_is_over() -> None:
    found = logged(200, 2.5, window=1000.0)
    assert found.state == "undecided"
    assert found.sentence.endswith("; not decided: no reward window is over.")


def test_alike() -> None:
    found = verdict(green=plain(5000, 250), blue=plain(5000, 250))
    assert found.state == "alike"
    assert found.more is None
    assert found.sentence == (
        "green leads with 50 %; not decided: so alike that 1,000,000 more visitors would not do."
    )


def test_too_early_to_call_them_alike() -> None:
    found = verdict(green=plain(10, 1), blue=plain(10, 1))
    assert found.state == "undecided"
    assert found.sentence.endswith("too early to tell how many more visitors it takes.")


def test_a_single_arm() -> None:
    found = verdict(green=plain(100, 10))
    assert found.state == "untestable"
    assert found.sentence == "green is the only arm: there is nothing to compare it with."


@pytest.mark.parametrize(
    ("green", "rest"),
    [
        (plain(5000, 500), "the test agrees"),
        (plain(5000, 260), "the test has not decided"),
        (plain(5000, 50), "the test says blue"),
    ],
)
def test_a_declared_winner(green: ArmStats, rest: str) -> None:
    found = declared("green", green=green, blue=plain(5000, 250))
    assert found.state == "declared"
    assert found.leader == "green"
    assert found.sentence == f"green was declared the winner; {rest}."
    assert not found.is_decided


def test_a_winner_of_one_arm_or_none() -> None:
    for stats in ({"green": plain(10, 1)}, {"green": plain(0, 0), "blue": plain(0, 0)}):
        found = declared("green", **stats)
        assert found.state == "declared"
        assert found.sentence.startswith("green was declared the winner; ")
    assert declared("gone", green=plain(5, 1), blue=plain(5, 1)).p_best is None


@pytest.mark.parametrize(
    ("chance", "text"),
    [
        (0.0, "0 %"),
        (0.934, "93 %"),
        (0.9949, "99 %"),
        (0.995, "99.5 %"),
        (0.99899, "99.8 %"),
        (0.9995, "over 99.9 %"),
        (1.0, "over 99.9 %"),
    ],
)
def test_percent(chance: float, text: str) -> None:
    assert percent(chance) == text


@pytest.mark.parametrize(
    ("count", "rounded"), [(1, 10), (10, 10), (99, 99), (101, 110), (1234, 1300), (20_000, 20_000)]
)
def test_two_digits(count: int, rounded: int) -> None:
    assert two_digits(count) == rounded
