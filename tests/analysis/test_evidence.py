"""What is lined up, and which test may use it."""

from __future__ import annotations

import numpy as np
import pytest

from flask_bandit.analysis.evidence import Evidence
from flask_bandit.analysis.posteriors import BetaPosterior, StudentPosterior
from flask_bandit.analysis.reading import Question
from flask_bandit.analysis.results import NOT_YET, REGION, SEQUENCE
from flask_bandit.model import ArmStats

from .logs import Seen, counts, digest, plain

HALVES = {"a": 0.5, "b": 0.5}
ONCE = Question(("a", "b"), is_once=True)


def log(count: int, value: float = 1.0, step: float = 1.0) -> list[Seen]:
    return [Seen(step * n, "ab"[n % 2], HALVES, value * (n % 5 == 0)) for n in range(count)]


def evidence(
    seen: list[Seen], question: Question = ONCE, stats: dict[str, ArmStats] | None = None
) -> Evidence:
    return Evidence(counts(seen) if stats is None else stats, digest(seen), question)


def test_arms_that_are_gone_come_last_and_missing_ones_are_zero() -> None:
    stats = {"old": plain(5, 1), "b": plain(7, 2)}
    found = evidence([], stats=stats)
    assert found.arms == ("a", "b", "old")
    assert found.pulls.tolist() == [0.0, 7.0, 5.0]
    assert found.visitors == 12


@pytest.mark.parametrize(
    ("stats", "is_once", "is_binary"),
    [
        (plain(10, 3), True, True),
        (plain(10, 0), True, True),
        (plain(10, 10), True, True),
        (plain(10, 3), False, False),
        (plain(10, 11), True, False),
        (ArmStats(10, 3, 6.0, 12.0), True, False),
        (ArmStats(10, 3, -3.0, 3.0), True, False),
    ],
)
def test_rewards_of_0_or_1(stats: ArmStats, is_once: bool, is_binary: bool) -> None:
    found = evidence([], Question(("a",), is_once), {"a": stats})
    assert found.is_binary is is_binary


def test_the_sequence_decides_wherever_it_can() -> None:
    assert evidence(log(300)).method == SEQUENCE
    assert evidence(log(300, value=3.0)).method == SEQUENCE


def test_before_each_arm_has_enough_rewards_the_region_decides_if_there_is_one() -> None:
    assert evidence(log(40)).method == REGION
    assert evidence(log(40, value=3.0)).method == SEQUENCE
    assert not evidence(log(40, value=3.0)).would_decide(1.0)
    assert evidence(log(40)).would_decide(1e6) is evidence(log(400)).would_decide(1e5)


def test_imported_counts_are_for_the_region() -> None:
    seen = log(400)
    found = evidence(seen, stats={"a": plain(1000, 50), "b": plain(1000, 80)})
    assert found.method == REGION


def test_by_context_imported_or_pruned_decisions_leave_no_test() -> None:
    """Whoever reset the bandit then would lose what was learned for nothing."""
    question = Question(("a", "b"), is_once=True, by_context=True)
    stats = {"a": plain(1000, 50), "b": plain(1000, 80)}
    found = Evidence(stats, digest(log(400)), question)
    assert found.test is None
    assert "less than nine tenths" in found.obstacle
    assert "reset" not in found.obstacle


def test_without_probabilities_only_0_and_1_can_be_tested() -> None:
    blind = [Seen(each.at, each.arm, None, each.earned) for each in log(40)]
    assert evidence(blind).method == REGION
    found = evidence([Seen(e.at, e.arm, None, 2.0 * e.earned) for e in blind])
    assert found.method == NOT_YET
    assert found.test is None
    assert "no probabilities" in found.obstacle
    assert not found.is_waiting


def test_arms_that_were_never_offered_together() -> None:
    seen = [Seen(float(n), "ab"[n // 20], {"ab"[n // 20]: 1.0}, 2.0) for n in range(40)]
    found = evidence(seen)
    assert found.test is None
    assert "never offered together" in found.obstacle


def test_it_waits_for_the_first_window() -> None:
    question = Question(("a", "b"), is_once=True, window=1000.0)
    found = Evidence(counts(log(40, 2.0)), digest(log(40, 2.0), 1000.0, 500.0), question)
    assert found.is_waiting
    late = Evidence(counts(log(40, 2.0)), digest(log(40, 2.0), 1000.0, 5000.0), question)
    assert not late.is_waiting
    assert late.method == SEQUENCE


def test_the_spread_is_that_of_all_pulls() -> None:
    found = evidence(log(40, value=3.0))
    assert found.spread == pytest.approx(9.0 * 0.2 * 0.8)
    assert evidence([]).spread == 0.0
    assert evidence([Seen(1.0, "a", HALVES, 2.0)] * 9).spread == 0.0


def test_squares_of_decisions_that_earn_several_times_are_those_of_the_log() -> None:
    """The counts know each reward by itself: 1 + 1 = 2; the decision's is (1 + 1)^2 = 4."""
    seen = [Seen(float(n), "ab"[n % 2], HALVES, 2.0) for n in range(10)]
    stats = {"a": ArmStats(10, 20, 20.0, 20.0), "b": ArmStats(5, 10, 10.0, 10.0)}
    found = evidence(seen, Question(("a", "b"), is_once=False), stats)
    assert found.reward_sq.tolist() == [40.0, 20.0]
    assert evidence([], Question(("a",), is_once=False), stats).reward_sq[0] == 20.0


def test_posteriors_fit_the_rewards() -> None:
    n, r = np.array([9.0, 9.0]), np.array([1.0, 10.0])
    assert isinstance(evidence(log(40)).posterior(n, r, r), BetaPosterior)
    real = evidence(log(40, value=3.0))
    assert isinstance(real.posterior(n, r, r), StudentPosterior)
    assert real.posterior(np.array([1.0, 9.0]), r, r) is None
    assert evidence([Seen(1.0, "a", HALVES, 2.0)] * 9).posterior(n, r, r) is None


def test_the_probability_of_an_error_is_a_round_number() -> None:
    assert ONCE.alpha == 0.05
