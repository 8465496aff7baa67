"""What an arm would have earned."""

from __future__ import annotations

import numpy as np
import pytest

from flask_bandit.analysis.reward_models import RidgeModel, fit_rewards
from flask_bandit.features import Features

from .ope_logs import Slope, World, batch, part


def test_it_is_the_ridge_regression_of_each_arm() -> None:
    log = World().log(200, np.random.default_rng(1))
    model = fit_rewards([part(log, slice(0, 90)), part(log, slice(90, 200))], Slope(), 2, folds=1)
    x = np.array([[1.0, context["x"]] for context in log.contexts if context])
    for arm in (0, 1):
        here = log.arm == arm
        product = x[here].T @ x[here] + np.eye(2)
        expected = x @ np.linalg.solve(product, x[here].T @ log.reward[here])
        assert model(log)[:, arm] == pytest.approx(expected)


def test_no_decision_is_predicted_by_a_model_that_has_seen_it_or_its_subject() -> None:
    log = World().log(100, np.random.default_rng(2))
    subjects = [f"s{number // 4}" for number in range(100)]

    def expected(folds: int, reward: list[float]) -> list[float]:
        changed = batch(
            log.arm.tolist(), reward, log.propensities, contexts=log.contexts, subjects=subjects
        )
        row: list[float] = fit_rewards([changed], Slope(), 2, folds=folds)(changed)[8].tolist()
        return row

    reward = log.reward.tolist()
    others = [*reward[:8], *(5.0 + value for value in reward[8:12]), *reward[12:]]
    assert expected(5, reward) == expected(5, others)
    assert expected(1, reward) != expected(1, others)
    # Others' rewards do matter.
    assert expected(5, reward) != expected(5, [1.0 + value for value in reward])


def test_without_features_an_arm_earns_its_mean() -> None:
    log = batch([0, 0, 1], [1.0, 0.0, 1.0], np.full((3, 2), 0.5))
    # Pulled to 0 as if one decision more had earned nothing.
    assert fit_rewards([log], None, 2, folds=1)(log).tolist() == [pytest.approx([1 / 3, 1 / 2])] * 3


def test_what_is_asked_before_anything_is_learned_is_0() -> None:
    log = batch([0, 1], [1.0, 1.0], np.full((2, 2), 0.5))
    model = RidgeModel(None, 2, folds=1)
    assert model(log).tolist() == [[0.0, 0.0]] * 2
    model.add(log)
    assert model(log).any()


def test_declared_features_are_encoders_and_a_missing_context_is_no_error() -> None:
    features = Features.parse({"x": "numeric", "country": ["de", "fr"]})
    log = batch(
        [0, 1, 0, 1],
        [1.0, 0.0, 1.0, 0.0],
        np.full((4, 2), 0.5),
        contexts=[{"x": 1.0, "country": "de"}, None, {"x": 2.0}, {"country": "it"}],
    )
    expected = fit_rewards([log], features, 2)(log)
    assert expected.shape == (4, 2)
    assert np.isfinite(expected).all()


@pytest.mark.parametrize("wrong", [{"folds": 0}, {"ridge": 0.0}, {"ridge": float("nan")}])
def test_numbers_that_cannot_be_meant(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="write 1 or more, and above 0"):
        RidgeModel(None, 2, **wrong)  # type: ignore[arg-type]
