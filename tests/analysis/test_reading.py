"""All of it together, for whatever is stored."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_bandit.analysis.digest import Digest
from flask_bandit.analysis.reading import Question, read_results
from flask_bandit.model import ArmStats

from .logs import Seen, counts, digest, plain

ARMS = ("a", "b", "c")


@st.composite
def logs(draw: st.DrawFn) -> list[Seen]:
    value = draw(st.sampled_from([1.0, -2.5, 1e6]))
    result = []
    for at in range(draw(st.integers(0, 60))):
        arm = draw(st.sampled_from(ARMS))
        vector = draw(st.sampled_from([None, {arm: 1.0}, dict.fromkeys(ARMS, 1 / 3), {arm: 0.2}]))
        result.append(Seen(float(at), arm, vector, draw(st.sampled_from([0.0, value]))))
    return result


@settings(max_examples=60)
@given(
    logs(),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([None, 20.0]),
    st.sampled_from([None, "a"]),
)
def test_whatever_was_logged_can_be_read(
    log: list[Seen], played: int, is_once: bool, window: float | None, winner: str | None
) -> None:
    question = Question(ARMS[:played], is_once, window=window, winner=winner)
    found = read_results(counts(log), digest(log, window, 60.0), question)
    assert found.verdict.sentence.endswith(".")
    assert "\n" not in found.verdict.sentence
    assert {row.arm for row in found.arms} == {*question.arms, *(seen.arm for seen in log)}
    assert sum(row.share for row in found.arms) == pytest.approx(1.0 if log else 0.0)
    assert (found.gained is None) == bool(found.why_no_gain)
    assert found.logged == len(log)
    assert found.missing == 0
    json.dumps(asdict(found), allow_nan=False)


@pytest.mark.parametrize("pulls", [10**9, 3])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_counts_of_any_size(pulls: int, share: float) -> None:
    stats = {arm: plain(pulls, int(pulls * share)) for arm in ARMS}
    found = read_results(stats, Digest(), Question(ARMS, is_once=True))
    if share:
        assert [row.p_best for row in found.arms] == pytest.approx([1 / 3] * 3, abs=1e-3)
        assert not found.verdict.is_decided
    for row in found.arms:
        assert row.mean is not None
        assert 0.0 <= row.mean.low <= row.mean.estimate <= row.mean.high <= 1.0
        assert math.isfinite(row.expected_loss or 0.0)


def test_what_the_log_does_not_have() -> None:
    log = [Seen(float(n), "ab"[n % 2], None, float(n % 5 == 0)) for n in range(20)]
    stats = {"a": plain(30, 8), "b": plain(20, 5)}
    found = read_results(stats, digest(log), Question(("a", "b"), is_once=True))
    assert (found.logged, found.unknown, found.missing) == (20, 20, 9)
    assert found.ratio is None


def test_it_is_a_function_of_what_it_reads() -> None:
    log = [Seen(float(n), "ab"[n % 2], {"a": 0.5, "b": 0.5}, float(n % 5 == 0)) for n in range(80)]
    stored = digest(log)
    before = stored.dump()
    one, other = (
        read_results(counts(log), stored, Question(("a", "b"), is_once=True)) for _ in range(2)
    )
    assert one == other
    assert stored.dump() == before
    assert isinstance(next(iter(counts(log).values())), ArmStats)
