"""The benchmark of off-policy evaluation, with little of everything."""

from __future__ import annotations

import pytest

pytest.importorskip("rich", reason="part of the extra bench")

from benchmarks import ope
from flask_bandit.analysis.estimators import ESTIMATORS


def test_its_log_is_read_whole() -> None:
    found = ope.measure(1500)
    assert found["rows"] == 1500
    assert found["peak"] > 1.0


def test_it_prints_cost_coverage_and_power(capsys: pytest.CaptureFixture[str]) -> None:
    ope.main(["--rows", "1200", "--runs", "2", "--decisions", "50"])
    out = capsys.readouterr().out
    assert "1,200" in out
    for name in ESTIMATORS:
        assert name in out
    assert "10,000" in out


def test_a_better_policy_is_found_more_often_than_one_that_is_no_better() -> None:
    """200 seeded runs of 2,000 decisions: a power of .25, and 5 %; beyond once in 1,000 times."""
    better, same = ope.flat(2000, 200)
    assert 0.15 < better < 0.35
    assert same < 0.1
