"""The leaderboard and the series."""

from __future__ import annotations

import pytest

from flask_bandit.analysis.digest import Digest
from flask_bandit.analysis.evidence import Evidence
from flask_bandit.analysis.reading import Question
from flask_bandit.analysis.results import NOT_YET, POSTERIOR
from flask_bandit.analysis.tables import leaderboard, series
from flask_bandit.model import ArmStats

from .logs import Seen, counts, digest, plain

VECTOR = {"a": 0.4, "b": 0.6}


def evidence(stats: dict[str, ArmStats], *arms: str, is_once: bool = True) -> Evidence:
    return Evidence(stats, Digest(), Question(arms or tuple(stats), is_once))


def test_the_best_comes_first_and_arms_without_pulls_last() -> None:
    stats = {"a": plain(100, 5), "new": plain(0, 0), "b": plain(100, 9)}
    rows = leaderboard(evidence(stats))
    assert [row.arm for row in rows] == ["b", "a", "new"]
    best, control, new = rows
    assert control.is_control
    assert control.p_beats_control is None
    assert (best.pulls, best.rewards, best.reward, best.share) == (100, 9, 9.0, 0.5)
    assert best.mean is not None
    assert best.mean.estimate == 0.09
    assert best.mean.method == POSTERIOR
    assert 0.0 < best.mean.low < 0.09 < best.mean.high < 1.0
    assert best.p_beats_control is not None
    assert best.p_beats_control > 0.8
    assert new.mean is None
    chances = [row.p_best for row in rows if row.p_best is not None]
    assert sum(chances) == pytest.approx(1.0)
    assert len(chances) == 3


def test_arms_that_are_gone_are_listed_and_do_not_compete() -> None:
    rows = leaderboard(evidence({"gone": plain(100, 90), "a": plain(50, 5)}, "a", "b"))
    gone = rows[0]
    assert gone.arm == "gone"
    assert gone.mean is not None
    assert gone.p_best is gone.expected_loss is gone.p_beats_control is None
    assert gone.share == pytest.approx(2 / 3)
    assert {row.arm for row in rows if row.is_control} == {"a"}


def test_nothing_is_known_before_the_first_pull() -> None:
    for row in leaderboard(evidence({"a": plain(0, 0), "b": plain(0, 0)})):
        assert row.mean is None
        assert row.p_best is row.expected_loss is row.p_beats_control is None
        assert row.share == 0.0
    assert leaderboard(Evidence({}, Digest(), Question((), is_once=True))) == ()


def test_real_rewards_may_be_of_any_size() -> None:
    stats = {"a": ArmStats(100, 20, -400.0, 9000.0), "b": ArmStats(100, 20, 500.0, 9000.0)}
    best, worst = leaderboard(evidence(stats))
    assert worst.mean is not None
    assert best.mean is not None
    assert worst.mean.low < -4.0 < worst.mean.high < best.mean.low
    assert best.p_beats_control == pytest.approx(1.0, abs=1e-6)


def test_a_single_real_reward_shows_no_spread() -> None:
    stats = {"a": ArmStats(1, 1, 7.5, 7.5**2), "b": ArmStats(50, 5, 20.0, 90.0)}
    rows = {row.arm: row for row in leaderboard(evidence(stats))}
    one, many = rows["a"].mean, rows["b"].mean
    assert one is not None
    assert many is not None
    assert (one.method, one.low, one.estimate, one.high) == (NOT_YET, 7.5, 7.5, 7.5)
    assert many.method == POSTERIOR
    assert rows["b"].p_best is None


@pytest.mark.parametrize("value", [1.0, 4.0])
def test_a_point_for_each_span(value: float) -> None:
    log = [Seen(float(n), "ab"[n % 2], VECTOR, value * (n % 4 == 1)) for n in range(40)]
    log += [Seen(50.0, "a", None)]
    found = Evidence(counts(log), digest(log), Question(("a", "b"), is_once=True))
    points = series(found)
    assert [(point.start, point.decisions) for point in points] == [
        (0.0, 10),
        (10.0, 10),
        (20.0, 10),
        (30.0, 10),
        (50.0, 1),
    ]
    b = points[0].arms["b"]
    assert (b.pulls, b.rewards, b.reward, b.share) == (5, 3, 3.0 * value, 0.5)
    assert b.probability == pytest.approx(0.6)
    # Its 20 pulls of four spans together are just enough for one rate.
    assert [point.arms["b"].rate for point in points[:4]] == [b.rate] * 4
    assert b.rate is not None
    assert b.rate.estimate == pytest.approx(0.5 * value)
    chances = [point.arms["b"].p_best for point in points]
    assert all(chance is not None for chance in chances)
    assert (chances[3] or 0.0) > (chances[0] or 1.0)
    last = points[-1].arms["b"]
    assert (last.rate, last.probability, last.share) == (None, None, 0.0)
    final = {row.arm: row.p_best for row in leaderboard(found)}
    assert last.p_best == pytest.approx(final["b"])


def test_rates_of_few_pulls_are_those_of_neighbouring_spans_together() -> None:
    earned = [1, 0, 1, 1, 0, 0]
    shown = [15, 15, 40, 0, 10, 5]
    log = [
        Seen(10.0 * span + n / 100, "a", VECTOR, float(n < earned[span] * 5))
        for span, pulls in enumerate(shown)
        for n in range(pulls)
    ]
    log += [Seen(30.0, "b", VECTOR)]
    found = Evidence(counts(log), digest(log), Question(("a", "b"), is_once=True))
    rates = [point.arms["a"].rate for point in series(found)]
    # 15 + 15 are enough, and so are 40, which take in the 10 + 5 that are not.
    assert [rate and rate.estimate for rate in rates] == [
        5 / 30,
        5 / 30,
        5 / 55,
        None,
        5 / 55,
        5 / 55,
    ]


def test_an_empty_log_has_no_points() -> None:
    assert series(evidence({"a": plain(10, 1)})) == ()
