"""Whether a candidate is better than the champion."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flask_bandit.analysis.logged import Logged
from flask_bandit.analysis.ope import evaluate
from flask_bandit.analysis.paired import Paired, compare, power
from flask_bandit.analysis.reward_models import fit_rewards
from flask_bandit.analysis.targets import constant_target, logged_target
from flask_bandit.model import FloatArray

from .ope_logs import Slope, World, batch, target
from .test_ope import doubled

FIRST, SECOND = constant_target([1.0, 0.0]), constant_target([0.0, 1.0])


def judged(seed: int, champion: bool = False, alpha: float = 0.05) -> Paired:
    """Compare a policy that is better with the logged one, on 30 decisions."""
    log = World().log(30, np.random.default_rng(seed))
    model = fit_rewards([log], Slope(), 2)
    if champion:
        return compare([log], logged_target, nearly, model, alpha=alpha)
    return compare([log], nearly, logged_target, model, alpha=alpha)


def nearly(log: Logged) -> FloatArray:
    """Return the logged policy with a little of :func:`target`."""
    return 0.9 * log.propensities + 0.1 * target(log)


def test_it_is_the_difference_of_two_doubly_robust_estimates() -> None:
    log = World().log(300, np.random.default_rng(1))
    model = fit_rewards([log], Slope(), 2)
    found = compare([log], target, FIRST, model)
    assert found.candidate is not None
    assert found.champion is not None
    assert found.difference is not None
    for estimate, policy in ((found.candidate, target), (found.champion, FIRST)):
        by_itself = evaluate([log], policy, model).estimates["DR"]
        assert estimate.value == pytest.approx(by_itself.value)
        assert estimate.error == pytest.approx(by_itself.error)
    assert found.difference.value == pytest.approx(found.candidate.value - found.champion.value)
    assert found.lower == pytest.approx(found.difference.value - 1.644854 * found.difference.error)
    assert found.effective == pytest.approx(evaluate([log], target).effective)
    assert (found.decisions, found.clusters, found.refusals) == (300, 300, ())
    assert "300 logged decisions" in found.estimand


def test_what_both_have_in_common_falls_out() -> None:
    log = World().log(300, np.random.default_rng(2))
    same = compare([log], target, target)
    assert same.difference is not None
    assert (same.difference.value, same.difference.error) == (0.0, 0.0)
    assert not same.is_better()

    found = compare([log], nearly)
    assert found.difference is not None
    assert found.candidate is not None
    assert found.difference.error < 0.2 * found.candidate.error


def test_a_null_is_called_better_as_often_as_it_may_be() -> None:
    """Two arms that are alike, 1,000 seeded logs of 200 decisions, alpha .1.

    At a true rate of .1, more than .13 comes once in 1,000 times, and less than .07 likewise.
    """
    calls = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        arm, reward = rng.integers(0, 2, 200), (rng.random(200) < 0.3) * 1.0
        log = batch(arm.tolist(), reward, np.full((200, 2), 0.5))
        calls += compare([log], SECOND, FIRST, alpha=0.1).is_better()
    assert 70 <= calls <= 130


def test_the_power_it_tells_is_the_power_that_it_has() -> None:
    """200 seeded logs each; the true gain is about .025."""
    founds = [judged(seed) for seed in range(200)]
    gain = float(np.mean([found.difference.value for found in founds if found.difference]))
    share = float(np.mean([found.is_better() for found in founds]))
    told = float(np.mean([found.power(gain) for found in founds]))
    assert 0.2 < share < 0.95
    assert told == pytest.approx(share, abs=0.1)
    assert sum(judged(seed, champion=True).is_better() for seed in range(200)) <= 4


def test_a_margin_and_a_smaller_alpha_ask_for_more() -> None:
    found, strict = judged(3), judged(3, alpha=0.01)
    assert strict.lower < found.lower
    assert found.is_better(found.lower - 1e-9)
    assert not found.is_better(found.lower)
    assert found.power(0.05, margin=0.02) < found.power(0.05)
    assert found.power(0.0) == pytest.approx(0.05)


def test_decisions_of_the_same_subject_are_no_news() -> None:
    log = World().log(200, np.random.default_rng(4))
    single, again = compare([log], target), compare([doubled(log, 3)], target)
    assert single.difference is not None
    assert again.difference is not None
    assert again.difference.error == pytest.approx(single.difference.error)
    assert again.effective == pytest.approx(single.effective)
    assert (again.decisions, again.clusters) == (600, 200)


def test_what_cannot_be_told_is_refused_and_never_better() -> None:
    certain = batch([0] * 50, [1.0] * 50, np.array([[1.0, 0.0]] * 50))
    for found in (compare([certain], SECOND, FIRST), compare([certain], FIRST, SECOND)):
        assert found.difference is found.candidate is found.champion is None
        assert found.lower == -math.inf
        assert not found.is_better(-1e9)
        assert found.power(1.0) == 0.0
        assert "had probability 0" in found.refusals[0]
    assert compare([certain], SECOND, FIRST).refusals[0].startswith("Candidate: ")
    assert compare([certain], FIRST, SECOND).refusals[0].startswith("Champion: ")
    ann = batch([0, 1], [1.0, 0.0], np.full((2, 2), 0.5), subjects=["ann", "ann"])
    assert "single subject" in compare([ann], FIRST).refusals[0]
    assert "No decision" in compare([], FIRST).refusals[0]
    for reward in (0.0, 0.1):
        same = batch([0, 1] * 20, [reward] * 40, np.full((40, 2), 0.5))
        found = compare([same], FIRST)
        assert "All decisions in the log earned the same" in found.refusals[0]
        assert not found.is_better(-0.5)
    with pytest.raises(ValueError, match="alpha is 0"):
        compare([certain], FIRST, alpha=0.0)


def test_power_before_there_are_data() -> None:
    """At 8 % and a lift of a fourth; alpha .05."""
    told = [round(power(0.25, 0.08, decisions), 3) for decisions in (100, 2000, 10_000)]
    assert told == [0.078, 0.265, 0.736]
    assert power(0.0, 0.08, 1000, alpha=0.01) == pytest.approx(0.01)
    assert power(0.25, 0.08, 2000, spread=1.0) > 0.85


def test_an_arm_that_was_seldom_taken_is_not_taken_for_worthless() -> None:
    """Three arms earn the same. One, taken 8 times of 400, often has no reward by chance.

    At an error rate of 3 %, 300 candidates: the test fails by chance once in ten thousand times.
    """
    rng = np.random.default_rng(5)
    chances = np.tile([0.96, 0.02, 0.02], (400, 1))
    candidate, champion = constant_target([0.98, 0.01, 0.01]), constant_target([0.01, 0.98, 0.01])
    better = 0
    for _ in range(300):
        arm = rng.choice(3, size=400, p=chances[0])
        ids = [str(number) for number in range(400)]
        log = Logged(
            arms=("a", "b", "c"),
            arm=arm,
            reward=(rng.random(400) < 0.05).astype(float),
            propensity=chances[np.arange(400), arm],
            propensities=chances,
            eligible=np.ones((400, 3), dtype=bool),
            contexts=[None] * 400,
            clusters=ids,
            alone=np.ones(400, dtype=bool),
            at=np.zeros(400),
            version=np.ones(400, dtype=np.int64),
            ids=ids,
        )
        model = fit_rewards([log], None, 3)
        better += compare([log], candidate, champion, model, alpha=0.03).is_better()
    assert better <= 21
