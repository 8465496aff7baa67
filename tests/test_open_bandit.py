"""Real clicks: what a policy earned, estimated from another one's log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("rich", reason="part of the extra bench")

from benchmarks import open_bandit
from benchmarks.open_bandit import Outcome, judge, rst


@pytest.fixture(scope="module")
def wheel() -> Path:
    """Return the wheel that has the data; only where all tests are demanded it must be there."""
    try:
        return open_bandit.fetch()
    except OSError as error:
        if os.environ.get("FLASK_BANDIT_SKIP_NOTHING"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def outcomes(wheel: Path) -> dict[str, Outcome]:
    return {campaign: judge(wheel, campaign) for campaign in ("all", "women")}


@pytest.mark.parametrize(
    ("campaign", "estimated", "error", "earned"),
    [("all", 0.0050, 0.0013, 0.0042), ("women", 0.0058, 0.0012, 0.0046)],
)
def test_the_uniform_log_tells_what_thompson_earned(
    outcomes: dict[str, Outcome], campaign: str, estimated: float, error: float, earned: float
) -> None:
    outcome = outcomes[campaign]
    ips = outcome.right.estimates["IPS"]
    assert ips.value == pytest.approx(estimated, abs=5e-5)
    assert ips.error == pytest.approx(error, abs=5e-5)
    assert outcome.earned.value == pytest.approx(earned, abs=5e-5)
    for name in ("IPS", "SNIPS", "DR", "SNDR"):
        found = outcome.right.estimates[name]
        assert found.low < outcome.earned.value < found.high, name
    assert outcome.right.refusals == outcome.right.warnings == ()
    assert outcome.right.decisions == 10_000


def test_mean_propensities_are_no_probabilities_and_the_weights_say_so(
    outcomes: dict[str, Outcome],
) -> None:
    wrong = outcomes["all"].wrong
    assert wrong.mean_weight is not None
    assert wrong.mean_weight.value == pytest.approx(2.6, abs=0.01)
    (text,) = wrong.warnings
    assert "The weights average 2.6" in text
    assert "they must sum to 1" in text


def test_the_table_for_the_documentation(outcomes: dict[str, Outcome]) -> None:
    text = rst([outcomes["all"]])
    assert text.startswith(".. list-table::\n   :header-rows: 1\n\n   * - campaign\n")
    assert "\n   * - all\n     - 0.0038 ± 0.0006\n     - 0.0050 ± 0.0013\n" in text
    assert text.endswith("     - 0.96 ± 0.02\n     - 2.60 ± 0.04")
