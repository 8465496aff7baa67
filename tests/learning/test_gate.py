"""Judging: what it allows, what it finds, and what it says where it finds nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from flask_bandit.analysis.targets import constant_target, logged_target
from flask_bandit.features import Features
from flask_bandit.learning.fitted import FixedModel
from flask_bandit.learning.gate import (
    NotYetError,
    as_logged,
    decisions_needed,
    error_rate,
    judge,
    look,
    obstacle,
    served,
)
from flask_bandit.learning.records import EvaluationRecord
from flask_bandit.options import Options

from .shop import ARMS, window


def looks_until_deployed(
    rng: np.random.Generator, rates: tuple[float, ...], looks: int, *, is_spent: bool = True
) -> int:
    """Return at which look a candidate for the second arm is deployed; 0 if it never is."""
    candidate = constant_target([0.0, 1.0, 0.0])
    for attempt in range(1, looks + 1):
        batches = [window(rng, 400, rates)]
        assert look(batches, candidate).effective >= 100.0
        rate = error_rate(attempt) if is_spent else 0.05
        if judge(batches, len(ARMS), None, candidate, logged_target, rate).lower > 0.0:
            return attempt
    return 0


def record(**changes: float) -> EvaluationRecord:
    values = {
        "n": 1,
        "bandit_version": 1,
        "champion": 0,
        "attempt": 2,
        "error_rate": error_rate(2),
        "since": 0.0,
        "until": 1.0,
        "decisions": 2000,
        "clusters": 2000,
        "value": 0.09,
        "value_error": 0.01,
        "champion_value": 0.08,
        "difference": 0.01,
        "standard_error": 0.008,
        "lower": -0.0094,
        "effective_size": 500.0,
        "mean_weight": 1.0,
        "mean_weight_error": 0.02,
        "largest_weight": 3.0,
        "power": 0.53,
        "at": 2.0,
        **changes,
    }
    return EvaluationRecord(left_out="none", **values)  # type: ignore[arg-type]


def test_all_attempts_together_have_five_percent() -> None:
    rates = [error_rate(attempt) for attempt in range(1, 100_000)]
    assert sum(rates) == pytest.approx(0.05, abs=1e-6)
    assert sum(rates) < 0.05
    assert rates == sorted(rates, reverse=True)


def test_twenty_looks_seldom_deploy_what_is_not_better() -> None:
    """At most 5 % of lives may deploy the null; of 60, 9 or more come with a chance of 0.3 %."""
    rng = np.random.default_rng(2)
    wrong = sum(looks_until_deployed(rng, (0.08, 0.08, 0.08), 20) > 0 for _ in range(60))
    assert wrong < 9


def test_twenty_looks_at_five_percent_each_often_do() -> None:
    """So that the test above can fail: 1 - .95^20 is 64 %, and 6 or less of 25 come in < 1e-4."""
    rng = np.random.default_rng(2)
    wrong = [looks_until_deployed(rng, (0.08, 0.08, 0.08), 20, is_spent=False) for _ in range(25)]
    assert sum(at > 0 for at in wrong) > 6


def test_what_is_better_is_deployed() -> None:
    """Each of 20 lives, within a few looks: an arm of .25 against a mean of .1367 (se .028)."""
    rng = np.random.default_rng(3)
    found = [looks_until_deployed(rng, (0.08, 0.25, 0.08), 20) for _ in range(20)]
    assert all(found)
    assert np.median(found) == 1


def test_a_look_does_not_read_what_was_earned() -> None:
    batch = window(np.random.default_rng(1), 500, (0.1, 0.5, 0.2))
    other = replace(batch, reward=np.full(500, math.nan))
    candidate = constant_target([0.1, 0.8, 0.1])
    assert look([batch], candidate) == look([other], candidate)


def test_a_look_refuses_what_says_too_little() -> None:
    batch = window(np.random.default_rng(1), 200, (0.1, 0.5, 0.2))
    with pytest.raises(NotYetError, match=r"200 held-out decisions .* 100 are needed"):
        look([batch], constant_target([0.0, 1.0, 0.0])).require()
    with pytest.raises(NotYetError, match="0 held-out decisions"):
        look([], constant_target([0.0, 1.0, 0.0])).require()


def test_a_look_counts_users() -> None:
    """Four decisions of one user say as much as one, where the weights are the same."""
    batch = window(np.random.default_rng(1), 800, (0.1, 0.5, 0.2))
    users = [str(number // 4) for number in range(800)]
    shared = replace(batch, clusters=users, alone=np.zeros(800, dtype=bool))
    even = constant_target([1 / 3, 1 / 3, 1 / 3])
    assert look([batch], even).effective == pytest.approx(800.0)
    assert look([shared], even).effective == pytest.approx(200.0)


def test_a_look_refuses_wrong_probabilities() -> None:
    batch = window(np.random.default_rng(1), 3000, (0.1, 0.5, 0.2), (0.8, 0.1, 0.1))
    even = np.full((3000, 3), 1 / 3)
    wrong = replace(batch, propensities=even, propensity=even[:, 0])
    with pytest.raises(NotYetError, match="the logged probabilities are wrong"):
        look([wrong], constant_target([0.0, 1.0, 0.0])).require()


def test_a_look_refuses_what_the_log_never_tried() -> None:
    batch = window(np.random.default_rng(1), 1000, (0.1, 0.5, 0.2), (0.5, 0.0, 0.5))
    with pytest.raises(NotYetError, match="had probability 0"):
        look([batch], constant_target([0.0, 1.0, 0.0])).require()


def test_the_power_that_is_foretold_is_the_power_there_is() -> None:
    """Of 300 windows, the share that finds a lift of a quarter, within 4 standard errors (.11)."""
    rng, candidate = np.random.default_rng(4), constant_target([0.0, 1.0, 0.0])
    # The champion is the logged policy: .24 on average, and the candidate is worth .30.
    rates = (0.21, 0.30, 0.21)
    foretold = look([window(rng, 500, rates)], candidate).power(0.24, 0.24 * 0.76, 0.05)
    found = [
        judge([window(rng, 500, rates)], 3, None, candidate, logged_target, 0.05).lower > 0.0
        for _ in range(300)
    ]
    assert 0.5 < foretold < 0.95
    assert np.mean(found) == pytest.approx(foretold, abs=0.11)


def test_a_target_is_what_visitors_would_get() -> None:
    batch = window(np.random.default_rng(1), 5, (0.1, 0.5, 0.2))
    model = FixedModel(ARMS, [0.5, 0.5, 0.0])
    plain = served(model, Options(floor=0.3), None)(batch)
    assert plain == pytest.approx(np.tile([0.45, 0.45, 0.1], (5, 1)))
    weighted = served(model, Options(floor=0.0), {"trial": 1.0, "discount": 3.0, "bundle": 1.0})(
        batch
    )
    assert weighted == pytest.approx(np.tile([0.25, 0.75, 0.0], (5, 1)))
    without_second = served(model, Options(floor=0.2), {"trial": 1.0, "bundle": 1.0})(batch)
    assert without_second == pytest.approx(np.tile([0.9, 0.0, 0.1], (5, 1)))


def test_an_arm_that_was_taken_away_is_no_merit_of_a_model() -> None:
    batch = window(np.random.default_rng(1), 2, (0.1, 0.5, 0.2), (0.6, 0.2, 0.2))
    assert as_logged(None)(batch) == pytest.approx(batch.propensities)
    without_third = as_logged({"trial": 2.0, "discount": 1.0})(batch)
    assert without_third == pytest.approx(np.array([[0.75, 0.25, 0.0]] * 2))
    only_third = replace(batch, propensities=np.array([[0.5, 0.5, 0.0]] * 2))
    assert as_logged({"bundle": 1.0})(only_third) == pytest.approx(only_third.propensities)


def test_features_that_are_too_many_to_be_solved_for_do_not_hinder() -> None:
    batch = window(np.random.default_rng(1), 500, (0.1, 0.5, 0.2))
    batch = replace(batch, contexts=[{"text": "a word"}] * 500)
    many = Features.parse({"text": {"hashed": 4096}})
    candidate = constant_target([0.0, 1.0, 0.0])
    found = judge([batch], len(ARMS), many, candidate, logged_target, 0.05)
    assert found == judge([batch], len(ARMS), None, candidate, logged_target, 0.05)


def test_a_target_keeps_to_what_was_eligible() -> None:
    batch = window(np.random.default_rng(1), 2, (0.1, 0.5, 0.2))
    two = replace(batch, eligible=np.array([[True, True, False]] * 2))
    chances = served(FixedModel(ARMS, [0.2, 0.2, 0.6]), Options(floor=0.2), None)(two)
    assert chances == pytest.approx(np.array([[0.5, 0.5, 0.0]] * 2))
    only_third = {"bundle": 1.0}
    # Nothing of what is left then was eligible.
    chances = served(FixedModel(ARMS, [0.2, 0.2, 0.6]), Options(floor=0.2), only_third)(two)
    assert chances == pytest.approx(np.array([[0.5, 0.5, 0.0]] * 2))


def test_the_refusal_tells_the_power_and_what_it_takes() -> None:
    text = obstacle(record())
    assert "+0.01 +- 0.008" in text
    assert "attempt 2, error rate 0.0076" in text
    assert "2,000 held-out decisions" in text
    assert "25% more than the champion is recognised with probability 0.53" in text
    assert f"about {decisions_needed(record()):,} make it 0.8" in text


def test_what_clears_the_margin_is_not_refused() -> None:
    better = record(lower=0.002)
    assert obstacle(better) == ""
    assert "better by more than 0.002" in obstacle(better, 0.002)
    assert "100 are needed" in obstacle(record(lower=0.002, effective_size=99.0))


def test_the_decisions_that_are_needed_have_the_power() -> None:
    """With z for the next attempt and for 80 %, gain / error is their sum."""
    exact = 2000 * ((2.7085 + 0.8416) * 0.008 / 0.02) ** 2
    needed = decisions_needed(record())
    assert needed is not None
    assert exact <= needed <= exact * 1.03
    assert decisions_needed(record(), margin=0.02) is None
    assert decisions_needed(record(champion_value=0.0)) is None
