"""What another policy would have earned."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flask_bandit.analysis.logged import Logged
from flask_bandit.analysis.ope import Evaluation, evaluate
from flask_bandit.analysis.reward_models import fit_rewards
from flask_bandit.analysis.targets import constant_target, logged_target
from flask_bandit.model import FloatArray

from .ope_logs import TRUTH, Slope, World, batch, part, target

DATA = Path(__file__).parent.parent / "data"
EXPECTED = json.loads((DATA / "ope_small_expected.json").read_text())
ALL = ["DM", "DR", "IPS", "SNDR", "SNIPS", "Switch-DR", "clipped DR", "clipped IPS"]


class Plane:
    """Encodes x1 and x2 as they are."""

    dimension = 2

    def encode(self, context: Mapping[str, Any] | None) -> FloatArray:
        assert context is not None
        return np.array([context["x1"], context["x2"]])


def ope_small() -> tuple[Logged, FloatArray]:
    """Return the log and the target's probabilities.

    Of the arms that were not taken the file has no probability; no estimate needs them.
    """
    with open(DATA / "ope_small.csv", newline="") as lines:
        rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(lines)]
    arm = [int(row["arm"]) for row in rows]
    propensity = np.array([row["propensity"] for row in rows])
    propensities = np.repeat((1.0 - propensity)[:, None] / 2.0, 3, axis=1)
    propensities[np.arange(len(rows)), arm] = propensity
    log = batch(arm, [row["reward"] for row in rows], propensities, contexts=rows)
    return log, np.array([[row[f"target_{k}"] for k in range(3)] for row in rows])


def small_target(log: Logged) -> FloatArray:
    """Return the probabilities that stand beside each row."""
    return np.array([[row[f"target_{k}"] for k in range(3)] for row in log.contexts if row])


@pytest.mark.parametrize("size", [600, 7])
def test_the_oracle_is_met_whatever_the_size_of_a_batch(size: int) -> None:
    log, _ = ope_small()
    batches = [part(log, slice(start, start + size)) for start in range(0, 600, size)]
    model = fit_rewards(batches, Plane(), 3, folds=1)
    found = evaluate(batches, small_target, model)
    assert found.decisions == EXPECTED["rows"]
    for name in ("IPS", "SNIPS", "DM", "DR"):
        estimate = found.estimates[name]
        assert estimate.value == pytest.approx(EXPECTED[name]["value"], abs=1e-9), name
        assert estimate.error == pytest.approx(EXPECTED[name]["se"], abs=1e-9), name
        assert estimate.high - estimate.low == pytest.approx(2 * 1.959964 * estimate.error)
        assert estimate.low < EXPECTED["truth_in_sample"] < estimate.high
    assert found.effective == pytest.approx(EXPECTED["ESS"], abs=1e-9)
    assert found.largest == pytest.approx(EXPECTED["max_weight"], abs=1e-9)
    assert found.warnings == found.refusals == ()
    assert sorted(found.estimates) == ALL


def test_without_a_model_there_is_what_needs_none() -> None:
    log, chances = ope_small()
    assert sorted(evaluate([log], lambda _: chances).estimates) == ["IPS", "SNIPS", "clipped IPS"]


def test_the_logged_policy_itself_earns_what_was_earned() -> None:
    log = World().log(500, np.random.default_rng(1))
    found = evaluate([log], logged_target)
    assert found.logged is not None
    for name in ("IPS", "SNIPS"):
        assert found.estimates[name].value == pytest.approx(found.logged.value)
        assert found.estimates[name].error == pytest.approx(found.logged.error)
    assert found.effective == pytest.approx(500.0)
    assert found.mean_weight is not None
    assert found.mean_weight.value == pytest.approx(1.0)
    assert found.warnings == ()


def test_clipping_and_switching() -> None:
    log = World(floor=0.02).log(800, np.random.default_rng(2))
    model = fit_rewards([log], Slope(), 2)
    plain = evaluate([log], target, model, clip=1e9, switch=1e9).estimates
    assert plain["clipped IPS"] == plain["IPS"]
    assert plain["clipped DR"] == plain["Switch-DR"] == plain["DR"]
    cut = evaluate([log], target, model, clip=2.0, switch=2.0).estimates
    weights = log.taken(target(log)) / log.propensity
    q, surprise = model(log), log.reward - log.taken(model(log))
    direct = (target(log) * q).sum(axis=1)
    assert weights.max() > 2.0
    assert cut["clipped IPS"].value == pytest.approx(
        float((np.minimum(weights, 2.0) * log.reward).mean())
    )
    switched = direct + np.where(weights <= 2.0, weights, 0.0) * surprise
    assert cut["Switch-DR"].value == pytest.approx(float(switched.mean()))
    assert cut["Switch-DR"].error == pytest.approx(float(switched.std(ddof=1)) / 800**0.5)
    none = evaluate([log], target, model, switch=0.0).estimates
    assert none["Switch-DR"].value == pytest.approx(none["DM"].value)


def test_intervals_cover_the_truth_and_a_model_makes_them_shorter() -> None:
    """Of 300 logs of 400 decisions; seeded.

    An interval that covers in 95 % of all logs has less than 91 % of 300 once in 500 times.
    """
    covered = dict.fromkeys(ALL, 0)
    errors = dict.fromkeys(ALL, 0.0)
    for seed in range(300):
        log = World().log(400, np.random.default_rng(seed))
        found = evaluate([log], target, fit_rewards([log], Slope(), 2))
        for name, estimate in found.estimates.items():
            covered[name] += estimate.low < TRUTH < estimate.high
            errors[name] += estimate.error
    for name in ("IPS", "SNIPS", "DR", "SNDR"):
        assert covered[name] >= 273, covered
    assert errors["DR"] < 0.99 * errors["SNIPS"] < 0.9 * errors["IPS"]
    # Its errors do not know how wrong the model may be.
    assert covered["DM"] < 200


def doubled(log: Logged, times: int, version: list[int] | None = None) -> Logged:
    """Return each decision several times, each time of the same subject."""
    places = np.tile(np.arange(len(log)), times)
    return batch(
        log.arm[places].tolist(),
        log.reward[places],
        log.propensities[places],
        contexts=[log.contexts[place] for place in places],
        subjects=[log.ids[place] for place in places],
        version=version,
    )


def test_decisions_of_the_same_subject_are_no_news() -> None:
    log = World().log(300, np.random.default_rng(3))
    model = fit_rewards([log], Slope(), 2, folds=1)
    single = evaluate([log], target, model)
    log = doubled(log, 4)
    batches = [part(log, slice(start, start + 70)) for start in range(0, 1200, 70)]
    again = evaluate(batches, target, model)
    assert (single.clusters, again.clusters, again.decisions) == (300, 300, 1200)
    for name, estimate in single.estimates.items():
        assert again.estimates[name].value == pytest.approx(estimate.value), name
        assert again.estimates[name].error == pytest.approx(estimate.error), name


def test_a_subject_may_be_in_several_strata() -> None:
    log = World().log(300, np.random.default_rng(4))
    single = evaluate([log], target)
    again = evaluate([doubled(log, 2, [1] * 300 + [2] * 300)], target)
    assert [(one.version, one.share) for one in again.strata] == [(1, 0.5), (2, 0.5)]
    for name, estimate in single.estimates.items():
        assert again.estimates[name].error == pytest.approx(estimate.error), name


def two_versions(rng: np.random.Generator) -> Logged:
    """Return decisions of two versions, which earned and weigh differently."""
    n = 600
    version = np.where(rng.random(n) < 0.7, 1, 2)
    first = np.where(version == 1, 0.8, 0.3)
    arm = (rng.random(n) >= first).astype(np.int64)
    rate = np.where(version == 1, 0.2, 0.6) + 0.2 * arm
    reward = (rng.random(n) < rate).astype(np.float64)
    propensities = np.column_stack([first, 1.0 - first])
    return batch(arm.tolist(), reward, propensities, version=version.tolist())


def test_self_normalised_estimates_are_made_by_version() -> None:
    """Their standard error is held against the spread of 400 seeded logs."""
    always = constant_target([0.0, 1.0])
    log = two_versions(np.random.default_rng(5))
    found = evaluate([log], always)
    by_hand = sum(
        float((log.version == version).mean())
        * float(log.reward[(log.version == version) & (log.arm == 1)].mean())
        for version in (1, 2)
    )
    assert found.estimates["SNIPS"].value == pytest.approx(by_hand)
    others = [
        evaluate([two_versions(np.random.default_rng(seed))], always).estimates["SNIPS"].value
        for seed in range(400)
    ]
    assert found.estimates["SNIPS"].error == pytest.approx(float(np.std(others)), rel=0.12)
    assert float(np.mean(others)) == pytest.approx(0.7 * 0.4 + 0.3 * 0.8, abs=0.01)
    assert [(one.version, one.decisions) for one in found.strata] == [
        (1, int((log.version == 1).sum())),
        (2, int((log.version == 2).sum())),
    ]
    assert "version 1 with arm0, arm1: 7" in found.estimand


def test_versions_with_few_decisions_are_taken_together() -> None:
    n = 400
    version = [1] * 300 + list(range(2, 102))
    arm = [0, 1] * 150 + [0, 0, 0, 1] * 25
    reward = [float(place % 3 == 0 or place >= 350) for place in range(n)]
    log = batch(arm, reward, np.full((n, 2), 0.5), version=version)
    found = evaluate([log], constant_target([1.0, 0.0]))
    taken = np.array(arm) == 0
    by_hand = sum(
        len(rows) / n * float(log.reward[rows][taken[rows]].mean())
        for rows in (np.arange(300), np.arange(300, 400))
    )
    assert found.estimates["SNIPS"].value == pytest.approx(by_hand)
    assert "; and 96 more" in found.estimand


def test_versions_with_few_decisions_even_together_go_with_the_largest() -> None:
    version = [1] * 80 + [2] * 60 + [3] * 10
    arm = [0, 1] * 75
    reward = [float(place % 3 == 0) for place in range(150)]
    log = batch(arm, reward, np.full((150, 2), 0.5), version=version)
    found = evaluate([log], constant_target([1.0, 0.0]))
    first = log.arm == 0
    by_hand = sum(
        float(here.mean()) * float(log.reward[here & first].mean())
        for here in (log.version != 2, log.version == 2)
    )
    assert found.estimates["SNIPS"].value == pytest.approx(by_hand)


def test_for_an_arm_that_was_not_there_the_others_have_its_share() -> None:
    propensities = np.array([[0.5, 0.5, 0.0]] * 60 + [[0.25, 0.25, 0.5]] * 60)
    log = batch(
        [0, 1] * 30 + [0, 1, 2] * 20,
        [1.0, 0.0] * 30 + [0.0] * 60,
        propensities,
        eligible=propensities > 0.0,
    )
    found = evaluate([log], constant_target([0.2, 0.3, 0.5]))
    assert found.renormalised == 60
    assert found.unsupported == 0.0
    # Half of the decisions: .2 / (.2 + .3) of the target's choices earn 1.
    assert found.estimates["IPS"].value == pytest.approx(0.2)
    assert found.refusals == ()
    assert [one.arms for one in found.strata] == [("arm0", "arm1"), ("arm0", "arm1", "arm2")]
    assert "60 of them it also wanted an arm that was not eligible" in found.estimand


def test_decisions_without_any_arm_of_the_target_are_left_out_and_told() -> None:
    propensities = np.array([[1.0, 0.0]] * 40 + [[0.5, 0.5]] * 60)
    log = batch([0] * 40 + [0, 1] * 30, [1.0] * 100, propensities, eligible=propensities > 0.0)
    found = evaluate([log], constant_target([0.0, 1.0]))
    assert (found.decisions, found.impossible) == (60, 40)
    assert found.estimates["IPS"].value == pytest.approx(1.0)
    assert any("40 decisions are left out" in text for text in found.warnings)
    none = evaluate([part(log, slice(0, 40))], constant_target([0.0, 1.0]))
    assert none.estimates == {}
    assert "never chooses an arm that was eligible" in none.refusals[0]


def test_what_was_never_tried_is_refused() -> None:
    propensities = np.array([[1.0, 0.0]] * 46 + [[0.5, 0.5]] * 54)
    log = batch([0] * 46 + [0, 1] * 27, [1.0] * 100, propensities)
    found = evaluate([log], constant_target([0.5, 0.5]))
    assert found.estimates == {}
    assert found.unsupported == pytest.approx(0.23)
    (text,) = found.refusals
    assert text.startswith("23 % of the target's choices had probability 0 under the logged policy")
    assert "(at 46 % of the decisions)" in text
    assert "floor" in text
    nearly = evaluate([log], constant_target([0.99, 0.01]))
    assert nearly.refusals == ()
    assert "0.46 % of the target's choices had probability 0" in nearly.warnings[0]


def test_nothing_and_a_single_subject_are_refused() -> None:
    assert "No decision in the log can be used" in evaluate([], logged_target).refusals[0]
    log = batch([0, 1], [1.0, 0.0], np.full((2, 2), 0.5), subjects=["ann", "ann"])
    found = evaluate([log], logged_target)
    assert "single subject" in found.refusals[0]
    assert found.logged is found.mean_weight is None
    never = batch([0, 0, 0], [1.0, 0.0, 1.0], np.array([[0.999, 0.001]] * 3))
    assert (
        "none of the arms that were taken"
        in evaluate([never], constant_target([0.0, 1.0])).refusals[0]
    )


def alarms(found: Evaluation) -> list[str]:
    """Return the warnings of a mean weight."""
    return [text for text in found.warnings if "should average" in text]


def test_wrong_probabilities_are_told_and_right_ones_hardly_ever() -> None:
    """With weights of up to 500. The bound of a false alarm is 1 in 500; of 800 seeded logs."""
    wrong = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        first = rng.choice([0.5, 0.02, 0.002], 200)
        arm = (rng.random(200) >= first).astype(np.int64)
        log = batch(arm.tolist(), arm * 1.0, np.column_stack([first, 1.0 - first]))
        wrong += bool(alarms(evaluate([log], constant_target([1.0, 0.0]))))
    assert wrong <= 2
    rare = np.array([[0.002, 0.998]] * 200)
    for seed in range(400):
        arm = (np.random.default_rng(seed).random(200) >= 0.002).astype(np.int64)
        log = batch(arm.tolist(), arm * 1.0, rare)
        wrong += bool(alarms(evaluate([log], constant_target([1.0, 0.0]))))
    assert wrong <= 2
    log = World().log(2000, np.random.default_rng(7))
    # The arm's mean probability over its own decisions instead of that of the draw.
    means = [float(log.propensity[log.arm == place].mean()) for place in (0, 1)]
    biased = batch(log.arm.tolist(), log.reward, np.broadcast_to(means, (2000, 2)).copy())
    (text,) = alarms(evaluate([biased], constant_target([0.5, 0.5])))
    assert "the logged probabilities are wrong" in text
    half = batch(log.arm.tolist(), log.reward, log.propensities * [[0.5, 1.5]])
    assert alarms(evaluate([half], constant_target([0.0, 1.0])))
    (text,) = alarms(evaluate([log], lambda log: 2.6 * log.propensities))
    assert "average 2.6 ± 0" in text
    assert "sum to 2.6; they must sum to 1" in text


def test_few_and_unequal_weights_are_told() -> None:
    arm = [1] * 499 + [0]
    propensities = np.array([[0.002, 0.998]] * 500)
    found = evaluate([batch(arm, [1.0] * 500, propensities)], constant_target([0.5, 0.5]))
    assert any("effective sample size" in text for text in found.warnings)
    assert any("One decision has 50 % of all weight, with 250" in text for text in found.warnings)


def test_rewards_that_are_all_alike_are_told() -> None:
    log = batch([0, 1] * 100, [0.0] * 200, np.full((200, 2), 0.5))
    (text,) = evaluate([log], constant_target([1.0, 0.0])).warnings
    assert text.startswith("All decisions in the log earned the same")


@pytest.mark.parametrize(
    "bad", [[[0.5, 0.5]], [[0.5, -0.5]] * 4, [[np.nan, 1.0]] * 4, [[np.inf, 1.0]] * 4]
)
def test_what_are_no_probabilities_is_an_error(bad: Any) -> None:
    log = batch([0, 1, 0, 1], [1.0] * 4, np.full((4, 2), 0.5))
    with pytest.raises(ValueError, match="the target returned"):
        evaluate([log], lambda _: np.array(bad))
    with pytest.raises(ValueError, match="the reward model returned"):
        evaluate([log], logged_target, lambda _: np.full((4, 3), 0.5))
    with pytest.raises(ValueError, match="the reward model returned"):
        evaluate([log], logged_target, lambda _: np.full((4, 2), np.nan))


def test_memory_does_not_grow_with_the_log() -> None:
    log = World().log(500, np.random.default_rng(8))
    model = fit_rewards([log], Slope(), 2)

    def peak(batches: int) -> int:
        tracemalloc.start()
        try:
            evaluate((log for _ in range(batches)), target, model)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(3)
    assert peak(60) < 1.2 * peak(6)
