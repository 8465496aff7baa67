"""One arm for everybody, estimated from decisions that were made by context."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from flask_bandit.analysis.digest import PULLS, REWARD, REWARD_SQ, REWARDS, ArmRow, Span, moment
from flask_bandit.analysis.reading import Question, read_results
from flask_bandit.analysis.results import NOT_YET, SEQUENCE, WEIGHTED, Results, Twin
from flask_bandit.analysis.twin import Weighted, compare
from flask_bandit.model import FloatArray

from .logs import Seen, counts, digest

ARMS = ("green", "red", "blue")
RATES = np.array([[0.30, 0.05, 0.10], [0.05, 0.20, 0.10]])
"""Reward per decision: two kinds of visitors, three arms."""
LIKED = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
"""Probabilities of a policy that knows whom it sees."""
ASKED = Question(ARMS, is_once=True, by_context=True)


def drawn(
    generator: np.random.Generator, count: int, rates: FloatArray, chances: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the arm, its probability and the reward of each decision."""
    kind = generator.integers(0, 2, count)
    uniform = generator.random(count)[:, None]
    arm = (chances[kind].cumsum(axis=1) < uniform).sum(axis=1)
    reward = (generator.random(count) < rates[kind, arm]).astype(np.float64)
    return arm, chances[kind, arm], reward


def span(arm: FloatArray, chance: FloatArray, reward: FloatArray) -> Span:
    """Add decisions up as the digest does."""
    result = Span(0.0, 1.0, 2.0, vectors=arm.size)
    for place, name in enumerate(ARMS):
        p, r = chance[arm == place], reward[arm == place]
        row = result.arms[name] = ArmRow()
        row.sums[PULLS], row.sums[REWARDS] = p.size, float(r.astype(bool).sum())
        row.sums[REWARD], row.sums[REWARD_SQ] = r.sum(), (r * r).sum()
        for i in range(3):
            for j in range(3):
                row.sums[moment(i, j)] = (r**i / p**j).sum()
    return result


def twin_of(weighted: Weighted) -> Twin:
    found, why = compare(weighted, ASKED, is_binary=True)
    assert found is not None, why
    return found


def simulated(
    seed: int, count: int, rates: FloatArray = RATES, chances: FloatArray = LIKED
) -> Weighted:
    return Weighted.of([span(*drawn(np.random.default_rng(seed), count, rates, chances))], ARMS)


def logged(count: int) -> list[Seen]:
    """Return the decisions one by one, with all probabilities."""
    arm, chance, reward = drawn(np.random.default_rng(1), count, RATES, LIKED)
    seen = []
    for n, (place, likely) in enumerate(zip(arm, chance > 0.5, strict=True)):
        # Whom the policy knows it to see: those who like green, or those who like red.
        kind = place if likely else 1 - place if place < 2 else 0
        chances = dict(zip(ARMS, LIKED[kind].tolist(), strict=True))
        seen.append(Seen(float(n), ARMS[place], chances, float(reward[n])))
    return seen


def results(seen: list[Seen], **changes: object) -> Results:
    return read_results(counts(seen), digest(seen), replace(ASKED, **changes))  # type: ignore[arg-type]


def test_each_decision_counts_one_over_its_probability() -> None:
    arm = np.array([0, 0, 1, 1, 1])
    chance = np.array([0.5, 0.25, 0.5, 0.5, 0.1])
    reward = np.array([1.0, 0.0, 2.0, 0.0, 1.0])
    found = Weighted.of([span(arm, chance, reward)], ARMS)
    assert found.mean.tolist() == pytest.approx([2 / 6, (4 + 10) / 14, 0.0])
    green = [(1 - 1 / 3) ** 2 * 4, (1 / 3) ** 2 * 16]
    red = [(2 - 1) ** 2 * 4, 1.0 * 4, 0.0]
    truth = [sum(green) ** 0.5 / 6, sum(red) ** 0.5 / 14, 0.0]
    assert found.error.tolist() == pytest.approx(truth)
    assert found.earned == pytest.approx(0.8)
    assert found.rewards.tolist() == pytest.approx([1 * 36 / 20 / 2, 2 * 196 / 108 / 3, 0.0])


def test_the_difference_is_that_of_pairs() -> None:
    """Its error is what each decision adds to both sides, added up one by one."""
    arm, chance, reward = drawn(np.random.default_rng(3), 400, RATES, LIKED)
    found = Weighted.of([span(arm, chance, reward)], ARMS)
    for shares in (np.eye(3)[1], np.full(3, 1 / 3), np.array([0.5, 0.2, 0.3])):
        apart, error = found.beyond(shares[None, :])
        total = np.array([(1 / chance[arm == a]).sum() for a in range(3)])
        theirs = shares[arm] * (reward - found.mean[arm]) / chance / total[arm]
        mine = (reward - reward.mean()) / reward.size
        assert apart[0] == pytest.approx(reward.mean() - shares @ found.mean)
        assert error[0] == pytest.approx(float(((mine - theirs) ** 2).sum()) ** 0.5)


@pytest.mark.parametrize(
    ("rates", "chances"),
    [
        (RATES, LIKED),
        (np.full((2, 3), 0.15), LIKED),
        (np.array([[0.2, 0.1, 0.1], [0.2, 0.1, 0.1]]), np.full((2, 3), 1 / 3)),
    ],
    ids=["the context matters", "all alike", "one arm is better"],
)
def test_the_intervals_hold_the_truth(rates: FloatArray, chances: FloatArray) -> None:
    """1,000 runs of 1,500 decisions each, in which 50 misses are allowed.

    False-alarm rate: 81 misses or more with a chance of 5 % each come less than once in 50,000
    times. The seeds are fixed.
    """
    best = rates.mean(axis=0).max()
    apart = (rates * chances).sum(axis=1).mean() - best
    misses = np.zeros(2)
    for seed in range(1000):
        found = twin_of(simulated(seed, 1500, rates, chances))
        misses += [
            not found.value.low <= best <= found.value.high,
            not found.difference.low <= apart <= found.difference.high,
        ]
    assert misses.max() <= 80
    # Neither is so wide that it says nothing; where all are alike, fewer may miss.
    assert misses.min() >= 5


def test_what_was_chosen_among_all_arms_is_paid_for() -> None:
    """The end that depends on which arm looks best holds for all three together."""
    weighted = simulated(5, 3000, np.full((2, 3), 0.15))
    found = twin_of(weighted)
    together, alone = NormalDist().inv_cdf(1 - 0.05 / 6), NormalDist().inv_cdf(0.975)
    mean, error = weighted.mean, weighted.error
    assert found.value.low == pytest.approx((mean - together * error).max())
    assert found.value.high == pytest.approx((mean + alone * error).max())
    apart, error = weighted.beyond(np.eye(3))
    assert found.difference.low == pytest.approx((apart - alone * error).min())
    assert found.difference.high == pytest.approx((apart + together * error).min())


def test_where_the_context_matters_it_is_worth_it() -> None:
    found = twin_of(simulated(1, 8000))
    assert found.best == "green"
    assert found.difference.low > 0.0
    assert found.value.low < 0.175 < found.value.high
    assert found.value.method == WEIGHTED
    # Its own visitors like it: unweighted, green would seem to earn .27.
    assert found.value.estimate == pytest.approx(0.175, abs=0.02)
    assert found.sentence == (
        f"Choosing by context is worth it: it earned {100 * found.earned:.3g} % per decision, and "
        f"green for everybody would have earned {100 * found.value.estimate:.3g} %."
    )


def test_where_the_context_is_useless_one_arm_does_as_well() -> None:
    found = twin_of(simulated(2, 3000, np.full((2, 3), 0.2)))
    assert found.difference.low < 0.0 < found.difference.high
    assert found.sentence == (
        f"{found.best} for everybody does as well as choosing by context, as far as can be told: "
        f"{100 * found.value.estimate:.3g} % per decision, against {100 * found.earned:.3g} %. By "
        f"context it may be up to {100 * found.difference.high:.2g} percentage points more."
    )


def test_where_the_context_costs_it_says_so() -> None:
    wrong = LIKED[::-1]
    found = twin_of(simulated(1, 8000, RATES, wrong))
    assert found.difference.high < 0.0
    assert found.sentence.startswith("green for everybody would have earned more than choosing")


def test_an_arm_with_too_few_rewards_is_left_out_and_named() -> None:
    rare = np.array([[0.8, 0.19, 0.01], [0.19, 0.8, 0.01]])
    found = twin_of(simulated(1, 3000, RATES, rare))
    assert found.left_out == ("blue",)
    assert found.sentence.endswith(" Left out, with too few rewards: blue.")


def test_before_there_are_enough_rewards_it_says_what_is_lacking() -> None:
    found, why = compare(simulated(1, 60), ASKED, is_binary=True)
    assert found is None
    assert why.startswith("Not known yet: ")
    assert "of the 20 rewards that it needs" in why
    found, why = compare(Weighted.of([], ARMS), ASKED, is_binary=True)
    assert (found, why) == (
        None,
        "Not known yet: no decision with a known probability can earn nothing more.",
    )


def test_rewards_of_any_size_are_written_as_numbers() -> None:
    arm, chance, reward = drawn(np.random.default_rng(1), 8000, RATES, LIKED)
    weighted = Weighted.of([span(arm, chance, 12.5 * reward)], ARMS)
    found, _ = compare(weighted, ASKED, is_binary=False)
    assert found is not None
    assert f"it earned {found.earned:.4g} per decision" in found.sentence


# In the results of a bandit.


def test_the_leaderboard_tells_what_arms_earn_for_everybody() -> None:
    seen = logged(4000)
    found = results(seen)
    assert found.twin is not None
    rows = {row.arm: row for row in found.arms}
    weighted = Weighted.of(digest(seen).spans, ARMS)
    for place, arm in enumerate(ARMS):
        mean = rows[arm].mean
        assert mean is not None
        assert mean.method == WEIGHTED
        assert mean.estimate == pytest.approx(weighted.mean[place])
        assert mean.low < mean.estimate < mean.high
    assert sum(row.p_best or 0.0 for row in found.arms) == pytest.approx(1.0)
    assert max(found.arms, key=lambda row: row.p_best or 0.0).arm == found.twin.best
    assert rows["green"].p_beats_control is None
    assert rows["red"].p_beats_control is not None
    assert rows["green"].pulls == counts(seen)["green"].pulls


def test_an_arm_that_is_gone_was_earned_with_and_is_not_compared() -> None:
    seen = logged(3000)
    found = results(seen, arms=("green", "red"))
    assert found.twin is not None
    assert found.twin.earned == pytest.approx(np.mean([each.earned for each in seen]))
    assert found.arms[-1].arm == "blue"
    assert (found.arms[-1].mean, found.arms[-1].p_best) == (None, None)


def test_the_verdict_is_about_one_arm_for_everybody() -> None:
    found = results(logged(2000))
    assert found.verdict.sentence.startswith("As one arm for everybody, ")
    assert "visitors" not in found.verdict.sentence
    assert found.verdict.method == SEQUENCE
    declared = results(logged(500), winner="red").verdict.sentence
    assert declared.startswith("red was declared the winner; as one arm for everybody, the test ")
    nothing = results([])
    assert nothing.verdict.sentence == nothing.why_no_gain == "No decisions yet."


def test_without_probabilities_nothing_is_believed_and_the_region_is_not_used() -> None:
    """The counts alone would compare arms by those who like them."""
    seen = [replace(each, chances=None) for each in logged(2000)]
    found = results(seen)
    assert found.twin is None
    assert found.why_no_twin
    assert {row.p_best for row in found.arms} == {None}
    assert {row.mean.method for row in found.arms if row.mean} == {NOT_YET}
    assert found.verdict.state == "untestable"
    assert found.gained is None
    assert "rewards are not 0 or 1" not in found.verdict.sentence


def test_the_gain_is_weighted_where_an_arm_was_improbable() -> None:
    seen = logged(4000)
    assert results(seen).gained is not None
    rare = [replace(each, chances={**(each.chances or {})}) for each in seen]
    rare[0] = replace(rare[0], arm="green", chances={"green": 0.94, "red": 0.02, "blue": 0.04})
    gained = results(rare).gained
    assert gained is not None
    assert gained.method == WEIGHTED
    truth = 4000 * ((RATES * LIKED).sum(axis=1).mean() - RATES.mean())
    assert gained.low < truth < gained.high
    floored = results(seen).gained
    assert floored is not None
    assert floored.method == SEQUENCE


def test_over_time_it_has_a_rolling_mean_and_compares_no_arms() -> None:
    seen = logged(3000)
    found = results(seen)
    rates = [each.earned for each in seen]
    for point in found.series:
        assert point.rolling is not None
        assert {each.p_best for each in point.arms.values()} == {None}
        assert {each.rate for each in point.arms.values()} == {None}
        assert point.rolling.low <= point.rolling.estimate <= point.rolling.high
    last, window = found.series[-1], found.series[-6:]
    assert last.rolling is not None
    since = [rate for each, rate in zip(seen, rates, strict=True) if each.at >= window[0].start]
    assert last.rolling.estimate == pytest.approx(np.mean(since))
    assert found.series[0].rolling is not None
    first = [rate for each, rate in zip(seen, rates, strict=True) if each.at < found.series[0].end]
    assert found.series[0].rolling.estimate == pytest.approx(np.mean(first))


def test_other_bandits_have_nothing_of_it() -> None:
    found = results(logged(500), by_context=False)
    assert (found.twin, found.why_no_twin) == (None, "")
    assert {point.rolling for point in found.series} == {None}
    assert "everybody" not in found.verdict.sentence
