"""Gains and differences: which way they are told, and what they are."""

from __future__ import annotations

import numpy as np
import pytest

from flask_bandit.analysis.estimates import contrasts, gained
from flask_bandit.analysis.evidence import Evidence
from flask_bandit.analysis.reading import Question
from flask_bandit.analysis.results import REGION, SEQUENCE
from flask_bandit.model import ArmStats

from .logs import Seen, counts, digest, plain

RATES = {"a": 0.2, "b": 0.5}
ARMS = ("a", "b")


def run(chance: float, value: float = 1.0, count: int = 4000, seed: int = 1) -> list[Seen]:
    """Show the better arm with a steady probability."""
    rng = np.random.default_rng(seed)
    vector = {"a": 1.0 - chance, "b": chance}
    result = []
    for at in range(count):
        arm = "ab"[int(rng.random() < chance)]
        result.append(Seen(float(at), arm, vector, value * float(rng.random() < RATES[arm])))
    return result


def evidence(seen: list[Seen], arms: tuple[str, ...] = ARMS) -> Evidence:
    return Evidence(counts(seen), digest(seen), Question(arms, is_once=True))


def from_counts(**stats: ArmStats) -> Evidence:
    return Evidence(stats, digest([]), Question(tuple(stats), is_once=True))


@pytest.mark.parametrize("chance", [0.9, 0.96])
@pytest.mark.parametrize("value", [1.0, 7.0])
def test_the_gain_over_an_equal_split(chance: float, value: float) -> None:
    """4,000 visitors earn .3 more where they see b: (chance - .5) of them more than by halves.

    With one arm below .05, by differences between arms. The seed is fixed; the interval misses
    in less than 5 % of all.
    """
    interval, why = gained(evidence(run(chance, value)))
    assert interval is not None
    assert why == ""
    assert interval.method == SEQUENCE
    true = 4000 * (chance - 0.5) * 0.3 * value
    assert interval.low < true < interval.high
    assert interval.low < interval.estimate < interval.high
    assert interval.high - interval.low < 2.0 * true


def test_differences_to_the_control() -> None:
    (contrast,) = contrasts(evidence(run(0.8)))
    assert (contrast.arm, contrast.other) == ("b", "a")
    assert contrast.difference.method == SEQUENCE
    assert 0.0 < contrast.difference.low < 0.3 < contrast.difference.high
    assert contrast.difference.level == 0.95


def test_counts_alone_are_told_by_the_region() -> None:
    found = from_counts(a=plain(1000, 100), b=plain(3000, 900), c=plain(500, 50))
    interval, _ = gained(found)
    assert interval is not None
    assert interval.method == REGION
    assert interval.estimate == pytest.approx(-500 * 0.1 + 1500 * 0.3 - 1000 * 0.1)
    assert interval.low < interval.estimate < interval.high
    b, c = contrasts(found)
    assert b.difference.method == c.difference.method == REGION
    assert b.difference.estimate == pytest.approx(0.2)
    assert 0.0 < b.difference.low < b.difference.high
    assert c.difference.low < 0.0 < c.difference.high


def test_visitors_of_an_arm_that_is_gone_would_have_been_split_as_well() -> None:
    stats = {"a": plain(1000, 100), "b": plain(1000, 300), "gone": plain(1000, 500)}
    interval, _ = gained(Evidence(stats, digest([]), Question(ARMS, is_once=True)))
    assert interval is not None
    assert interval.estimate == pytest.approx(900 - 3000 * 0.2)


def test_why_there_is_no_gain() -> None:
    blind = [Seen(each.at, each.arm, None, each.earned) for each in run(0.5, 7.0, 50)]
    for found, words in (
        (evidence([]), "No visitors yet"),
        (from_counts(a=plain(9, 1)), "fewer than two arms"),
        (evidence(run(0.5, 7.0, count=40)), "of the 20 rewards"),
        (from_counts(a=plain(9, 1), b=plain(0, 0)), "b has no visitors"),
        (evidence(blind), "no probabilities"),
    ):
        interval, why = gained(found)
        assert interval is None
        assert words in why
        assert why.endswith(".")


def test_there_are_no_differences_before_they_can_be_told() -> None:
    assert contrasts(evidence(run(0.5, 7.0, count=40))) == ()
    assert contrasts(from_counts(a=plain(9, 1), b=plain(0, 0))) == ()
    assert contrasts(from_counts(a=plain(9, 1))) == ()
    assert contrasts(Evidence({}, digest([]), Question((), is_once=True))) == ()
