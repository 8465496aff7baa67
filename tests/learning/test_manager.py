"""Train, judge, deploy, roll back: what the manager promises."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flask_bandit.engine import Engine
from flask_bandit.errors import (
    ConfigurationError,
    LifecycleError,
    StorageError,
    UnknownBanditError,
)
from flask_bandit.learned import model_key
from flask_bandit.learning import (
    Deployment,
    EvaluationRecord,
    ExperimentManager,
    Job,
    NotYetError,
    books,
    jobs,
    manager,
)
from flask_bandit.learning.data import TrainingData
from flask_bandit.learning.fitted import FixedModel
from flask_bandit.learning.gate import error_rate
from flask_bandit.learning.jobs import Lease
from flask_bandit.learning.records import Index
from flask_bandit.model import FloatArray, Stats
from flask_bandit.storage import MemoryBanditStorage
from tests.clock import Clock

from .shop import ARMS, make_engine, write_log


@pytest.fixture
def engine(clock: Clock) -> Engine:
    engine = make_engine()
    write_log(engine.storage, 1000, 1)
    return engine


@pytest.fixture
def experiment(engine: Engine, tmp_path: Path) -> ExperimentManager:
    return ExperimentManager(engine, "offer", backup=tmp_path / "backups", by="ann")


class Always:
    """A trainer for a model that always takes one arm."""

    def __init__(self, arm: str = "trial") -> None:
        self._arm = arm

    def fit(self, data: TrainingData) -> FixedModel:
        return FixedModel(data.arms, [float(arm == self._arm) for arm in data.arms])


def served(engine: Engine, visitors: int = 40) -> dict[str, int]:
    """Return how many new visitors get each policy's arms."""
    found: dict[str, int] = {}
    for number in range(visitors):
        context = {"age": 30.0, "country": "fr"}
        decision = engine.decide("offer", f"v{number}", engine.attempt(), context=context)
        assert decision is not None
        found[decision.policy_version] = found.get(decision.policy_version, 0) + 1
    return found


def more(engine: Engine, clock: Clock, seed: int, count: int = 1000, **fields: Any) -> None:
    """Write decisions that were not judged yet."""
    write_log(engine.storage, count, seed, at=clock.now, **fields)
    clock.now += 100.0


def test_a_model_comes_with_its_lineage(experiment: ExperimentManager, engine: Engine) -> None:
    record = experiment.train("ridge", epsilon=0.1)
    assert (record.n, record.state, record.trainer) == (1, "TRAINED", "ridge")
    assert (record.params, record.parent, record.by) == ({"epsilon": 0.1}, 0, "ann")
    assert record.version == "linear(epsilon_greedy=0.1)"
    assert record.created == record.trained_until == time.time()
    assert 0.0 < record.trained_from < record.trained_until
    assert 420 < record.decisions < 580
    assert 0.2 < record.reward_mean < 0.33
    assert experiment.models() == (record,)
    assert engine.control("offer").model == 0


def test_a_better_model_is_deployed_and_serves(
    experiment: ExperimentManager, engine: Engine
) -> None:
    experiment.train()
    done = experiment.deploy()
    assert done.deployed
    assert done.why == "it is better than what served"
    judged = done.evaluation
    assert judged is not None
    assert (judged.n, judged.champion, judged.attempt) == (1, 0, 1)
    assert judged.error_rate == error_rate(1)
    assert judged.lower > 0.15
    assert judged.value - judged.champion_value == pytest.approx(judged.difference)
    (record,) = experiment.models()
    assert record.state == "DEPLOYED"
    assert record.deployed_at is not None
    assert Path(record.backup).is_dir()
    assert engine.control("offer").history[-1][1] == "deploy 1 (by ann)"
    assert served(engine) == {"model:1:linear(epsilon_greedy=0.05)": 40}


def test_a_worse_model_is_not(experiment: ExperimentManager, engine: Engine) -> None:
    experiment.train(Always("trial"))
    done = experiment.deploy()
    assert not done.deployed
    assert "is not shown to be better by more than 0" in done.why
    assert "is recognised with probability" in done.why
    (record,) = experiment.models()
    assert (record.state, record.error) == ("REFUSED", done.why)
    assert engine.control("offer").model == 0
    assert done.backup == ""


def test_a_margin_is_asked_for(experiment: ExperimentManager) -> None:
    experiment.train()
    assert "better by more than 0.9" in experiment.deploy(margin=0.9).why
    # It was judged; a smaller margin needs no other window.
    assert experiment.deploy(margin=0.01).deployed
    assert experiment.status().attempts == 1


def test_it_may_be_forced(experiment: ExperimentManager, engine: Engine) -> None:
    experiment.train(Always("trial"))
    done = experiment.deploy(force=True)
    assert (done.deployed, done.why, done.evaluation) == (True, "it was forced", None)
    assert experiment.status().attempts == 0
    assert engine.control("offer").model == 1


def test_held_out_decisions_are_judged_once(
    experiment: ExperimentManager, engine: Engine, clock: Clock
) -> None:
    experiment.train(Always("trial"))
    first = experiment.evaluate()
    assert experiment.status().fresh == 0
    with pytest.raises(NotYetError, match=r"0 held-out .* Nothing was judged"):
        experiment.evaluate()
    assert experiment.status().attempts == 1
    more(engine, clock, 2)
    second = experiment.evaluate()
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.since == first.until
    assert second.error_rate == error_rate(2)
    assert 400 < second.decisions < 600
    # Another candidate begins where the last one ended, too.
    experiment.train("fixed")
    with pytest.raises(NotYetError):
        experiment.evaluate(2)
    more(engine, clock, 3)
    assert experiment.evaluate(2).attempt == 3


def test_too_few_decisions_use_up_nothing(experiment: ExperimentManager) -> None:
    experiment.train()
    with pytest.raises(NotYetError, match=r"and 5,000 are asked for"):
        experiment.evaluate(least=5000)
    done = experiment.deploy(least=5000)
    assert (done.deployed, done.evaluation) == (False, None)
    assert "5,000 are asked for" in done.why
    status = experiment.status()
    assert (status.attempts, status.judged_until) == (0, 0.0)
    assert status.fresh > 400
    assert experiment.evaluate(least=300).decisions == status.fresh


def test_what_was_found_not_better_is_judged_again_by_fresh_decisions(
    experiment: ExperimentManager, engine: Engine, clock: Clock
) -> None:
    experiment.train(Always("trial"))
    experiment.evaluate()
    assert experiment.deploy().why == experiment.deploy().why
    assert experiment.status().attempts == 1
    more(engine, clock, 2)
    done = experiment.deploy()
    assert done.evaluation is not None
    assert done.evaluation.attempt == 2


def test_status_tells_the_power(experiment: ExperimentManager) -> None:
    status = experiment.status()
    assert (status.champion, status.candidate, status.job) == (0, None, None)
    experiment.train()
    status = experiment.status()
    assert status.candidate == 1
    assert status.error_rate == error_rate(1)
    assert 100 < status.effective_size < status.fresh
    judged = experiment.evaluate()
    assert status.power == pytest.approx(judged.power, abs=0.1)
    assert status.effective_size == pytest.approx(judged.effective_size, rel=0.2)


def test_status_survives_a_model_that_is_gone(
    experiment: ExperimentManager, engine: Engine
) -> None:
    experiment.train()
    stored = engine.storage.read_digest(model_key("offer", 1))
    assert stored is not None
    broken = {"kind": "nowhere:Model", "params": {}}
    assert engine.storage.write_digest(model_key("offer", 1), broken, stored.revision)
    assert "cannot import 'nowhere:Model'" in experiment.status().obstacle
    assert engine.storage.write_digest(model_key("offer", 1), {}, stored.revision + 1)
    assert "train another, or roll back" in experiment.status().obstacle
    with pytest.raises(LifecycleError, match="does not have model 1"):
        experiment.deploy(force=True)
    assert engine.control("offer").model == 0


def test_the_next_champion_is_a_model(experiment: ExperimentManager, engine: Engine) -> None:
    experiment.train(Always("trial"))
    experiment.deploy(force=True)
    experiment.train()
    assert experiment.models()[1].parent == 1
    done = experiment.deploy()
    assert done.deployed
    assert done.evaluation is not None
    # The champion's own probabilities: nearly always 'trial', which earns some .27 of all.
    assert done.evaluation.champion == 1
    assert done.evaluation.champion_value == pytest.approx(0.25, abs=0.08)
    assert [record.state for record in experiment.models()] == ["REPLACED", "DEPLOYED"]


def test_roll_back_to_what_served_before(experiment: ExperimentManager, engine: Engine) -> None:
    experiment.train(Always("trial"))
    experiment.deploy(force=True)
    experiment.train(Always("bundle"))
    experiment.deploy(force=True)
    assert set(served(engine)) == {"model:2:fixed(bundle=1)"}
    assert experiment.rollback() == 1
    assert [record.state for record in experiment.models()] == ["DEPLOYED", "ROLLED_BACK"]
    assert experiment.models()[1].rolled_back_at is not None
    assert set(served(engine)) == {"model:1:fixed(trial=1)"}
    assert experiment.rollback() == 0
    assert [record.state for record in experiment.models()] == ["ROLLED_BACK", "ROLLED_BACK"]
    assert set(served(engine)) == {engine.bandits["offer"].policy_version}
    with pytest.raises(LifecycleError, match="the policy of the code serves already"):
        experiment.rollback()


def test_what_was_rolled_back_does_not_come_back_by_itself(
    experiment: ExperimentManager, engine: Engine, clock: Clock
) -> None:
    experiment.train()
    assert experiment.deploy().deployed
    experiment.rollback()
    with pytest.raises(LifecycleError, match="no trained model that is newer"):
        experiment.deploy()
    # By name it may, if it is found better again.
    assert not experiment.deploy(1).deployed
    more(engine, clock, 2)
    assert experiment.deploy(1).deployed


def test_a_model_is_deployed_once(experiment: ExperimentManager) -> None:
    experiment.train()
    experiment.deploy()
    with pytest.raises(LifecycleError, match="model 1 of 'offer' is deployed already"):
        experiment.deploy(1)
    with pytest.raises(LifecycleError, match="no trained model 7; trained: 1"):
        experiment.deploy(7)


def test_an_evaluation_against_another_champion_says_nothing(
    experiment: ExperimentManager, engine: Engine
) -> None:
    experiment.train()
    assert experiment.evaluate().lower > 0.0
    experiment.train(Always("bundle"))
    experiment.deploy(2, force=True)
    # Model 1 was better than the code's policy; against model 2 nothing is known.
    assert not experiment.deploy(1).deployed


def test_learn_does_all_at_once(experiment: ExperimentManager, engine: Engine) -> None:
    assert experiment.learn(epsilon=0.1).deployed
    assert experiment.models()[0].params == {"epsilon": 0.1}
    done = experiment.learn("fixed")
    assert not done.deployed
    assert [record.state for record in experiment.models()] == ["DEPLOYED", "REFUSED"]


def test_nothing_is_deployed_if_the_champion_changed_meanwhile(
    experiment: ExperimentManager, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment.train(Always("trial"))
    experiment.train()

    def meanwhile(*args: Any) -> Path:
        engine.change("offer", "deploy", 1)
        return Path("nowhere")

    monkeypatch.setattr(manager, "back_up", meanwhile)
    with pytest.raises(LifecycleError, match="deployed or rolled back meanwhile"):
        experiment.deploy(2)
    assert engine.control("offer").model == 1
    assert experiment.models()[1].state == "FAILED"


def test_a_bandit_that_holds_nothing_out_is_an_error(tmp_path: Path) -> None:
    engine = make_engine(evaluation=0.0)
    experiment = ExperimentManager(engine, "offer", backup=tmp_path)
    for work in (experiment.train, experiment.evaluate, experiment.deploy, experiment.learn):
        with pytest.raises(ConfigurationError, match="give it evaluation=0.2"):
            work()
    assert experiment.models() == ()


def test_other_errors_tell_the_fix(experiment: ExperimentManager, engine: Engine) -> None:
    with pytest.raises(UnknownBanditError, match="did you mean 'offer'"):
        ExperimentManager(engine, "ofer")
    with pytest.raises(LifecycleError, match="no trained model that is newer"):
        experiment.evaluate()
    experiment.train()
    with pytest.raises(ConfigurationError, match="backup='backups'"):
        ExperimentManager(engine, "offer").deploy()
    with pytest.raises(NotYetError, match="no decision to learn from yet; left out: none"):
        ExperimentManager(make_engine(), "offer").train()


def test_it_takes_whatever_has_an_engine(engine: Engine, tmp_path: Path) -> None:
    class Extension:
        backup_folder = tmp_path / "instance"

    extension = Extension()
    extension.engine = engine  # type: ignore[attr-defined]
    experiment = ExperimentManager(extension, "offer")  # type: ignore[arg-type]
    experiment.train()
    assert experiment.deploy().backup.startswith(str(tmp_path / "instance"))


class Forgetful(FixedModel):
    """Says something else after it was stored."""

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> Forgetful:
        return cls(ARMS, [1.0, 0.0, 0.0])


class Numberless(FixedModel):
    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        return np.array([1.0])


@pytest.mark.parametrize("cls", [Forgetful, Numberless])
def test_a_model_that_is_not_the_same_when_it_is_read_is_an_error(
    experiment: ExperimentManager, cls: type[FixedModel]
) -> None:
    class Trainer:
        def fit(self, data: TrainingData) -> FixedModel:
            return cls(ARMS, [0.0, 0.5, 0.5])

    with pytest.raises(ConfigurationError, match=r"says something else after load\(dump\(\)\)"):
        experiment.train(Trainer())
    (record,) = experiment.models()
    assert record.state == "FAILED"
    assert "says something else" in record.error


def test_parameters_that_json_cannot_hold_are_an_error(experiment: ExperimentManager) -> None:
    with pytest.raises(ConfigurationError, match="kept as JSON"):
        experiment.train("ridge", epsilon={1, 2})
    assert experiment.models() == ()


def test_old_models_make_room(
    experiment: ExperimentManager, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "MOST_RECORDS", 4)
    for _ in range(2):
        experiment.train("fixed")
        experiment.deploy(force=True)
    for _ in range(5):
        experiment.train("fixed")
    # 1 and 2 may serve again; of the others the youngest are kept.
    assert [record.n for record in experiment.models()] == [1, 2, 6, 7]
    kept = engine.storage.read_digest(model_key("offer", 1))
    gone = engine.storage.read_digest(model_key("offer", 3))
    assert kept is not None
    assert kept.state
    assert gone is not None
    assert not gone.state
    assert experiment.rollback() == 1


def test_a_lost_index_gives_no_number_twice(experiment: ExperimentManager, engine: Engine) -> None:
    experiment.train("fixed")
    experiment.deploy(force=True)
    experiment.train("fixed")
    stored = engine.storage.read_digest(model_key("offer", 0))
    assert stored is not None
    assert engine.storage.write_digest(model_key("offer", 0), {}, stored.revision)
    assert experiment.models() == ()
    assert experiment.train("fixed").n == 3
    assert experiment.status().champion == 1
    assert experiment.rollback() == 0


def test_rollback_goes_to_the_code_if_the_model_before_is_gone(
    experiment: ExperimentManager, engine: Engine
) -> None:
    for _ in range(2):
        experiment.train("fixed")
        experiment.deploy(force=True)
    stored = engine.storage.read_digest(model_key("offer", 1))
    assert stored is not None
    assert engine.storage.write_digest(model_key("offer", 1), {}, stored.revision)
    assert experiment.rollback() == 0


def test_a_reset_starts_another_experiment(
    experiment: ExperimentManager, engine: Engine, clock: Clock
) -> None:
    experiment.train()
    assert experiment.evaluate().lower > 0.0
    engine.change("offer", "reset")
    assert not experiment.deploy().deployed
    with pytest.raises(NotYetError, match="no decision to learn from yet"):
        experiment.train()
    more(engine, clock, 2, version=2)
    assert experiment.deploy(1).deployed


def test_weights_are_part_of_what_is_judged(experiment: ExperimentManager, engine: Engine) -> None:
    """Without ``trial`` and ``bundle``, all models are the same."""
    experiment.train()
    engine.change("offer", "weights", {"trial": None, "bundle": None})
    experiment.train(Always("discount"))
    experiment.deploy(2, force=True)
    with pytest.raises(NotYetError, match="chooses as what serves does"):
        experiment.evaluate(1)
    # That is no attempt.
    assert experiment.status().attempts == 0


def test_only_what_was_always_held_out_judges(clock: Clock, tmp_path: Path) -> None:
    """Of a share that was raised, the model has been trained on a part."""
    engine = make_engine(evaluation=0.2)
    write_log(engine.storage, 2000, 1)
    trained = ExperimentManager(engine, "offer", backup=tmp_path).train()
    assert trained.held_out == 0.2
    raised = make_engine(engine.storage, evaluation=0.5)
    experiment = ExperimentManager(raised, "offer", backup=tmp_path)
    # A coin of .2 two thousand times: 5 standard errors.
    assert trained.decisions + experiment.status().fresh == 2000
    assert 310 < experiment.evaluate().decisions < 490


def test_a_champion_that_was_trained_with_another_share_is_judged_fairly(
    clock: Clock, tmp_path: Path
) -> None:
    engine = make_engine(evaluation=0.2)
    write_log(engine.storage, 2000, 1)
    manager_ = ExperimentManager(engine, "offer", backup=tmp_path)
    manager_.train()
    manager_.deploy(force=True)
    raised = make_engine(engine.storage, evaluation=0.5)
    experiment = ExperimentManager(raised, "offer", backup=tmp_path)
    assert experiment.train("fixed").held_out == 0.5
    assert 310 < experiment.evaluate().decisions < 490


def test_a_margin_that_is_no_number_uses_up_nothing(experiment: ExperimentManager) -> None:
    experiment.train()
    for margin in (float("nan"), float("-inf")):
        with pytest.raises(ConfigurationError, match="write a number, such as"):
            experiment.deploy(margin=margin)
        with pytest.raises(ConfigurationError, match="write a number, such as"):
            experiment.learn(margin=margin)
    assert experiment.status().attempts == 0
    assert len(experiment.models()) == 1


def test_nothing_is_deployed_if_the_bandit_was_reset_meanwhile(
    experiment: ExperimentManager, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment.train()

    def meanwhile(*args: Any) -> Path:
        engine.change("offer", "reset")
        return Path("nowhere")

    monkeypatch.setattr(manager, "back_up", meanwhile)
    with pytest.raises(LifecycleError, match="was reset"):
        experiment.deploy()
    assert engine.control("offer").model == 0


def test_a_rollback_that_failed_halfway_does_not_go_back_one_more(
    experiment: ExperimentManager, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arm in ("trial", "discount"):
        experiment.train(Always(arm))
        experiment.deploy(force=True)
    for method in ("write_digest", "write_control"):
        with monkeypatch.context() as patched:
            patched.setattr(engine.storage, method, down)
            with pytest.raises(StorageError, match="it is down"):
                experiment.rollback()
        assert engine.control("offer").model == 2
        assert [record.state for record in experiment.models()] == ["REPLACED", "DEPLOYED"]
    assert experiment.rollback() == 1
    assert [record.state for record in experiment.models()] == ["DEPLOYED", "ROLLED_BACK"]


def down(*args: Any, **kwargs: Any) -> None:
    raise StorageError("it is down")


@pytest.mark.parametrize("is_later", [False, True])
def test_what_serves_is_told_whatever_its_process_came_to_say(
    experiment: ExperimentManager,
    engine: Engine,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    is_later: bool,
) -> None:
    """The storage is down after the deployment; ``is_later``: and another job comes first."""
    experiment.train(Always("trial"))
    experiment.deploy(force=True)
    experiment.train(Always("discount"))
    with monkeypatch.context() as patched:
        if is_later:
            patched.setattr(jobs, "_fail", lambda *args: None)
        patched.setattr(Lease, "finish", failing_once(Lease.finish))
        with pytest.raises(StorageError, match="it is down"):
            experiment.deploy(2, force=True)
    assert engine.control("offer").model == 2
    if is_later:
        assert [record.state for record in experiment.models()] == ["REPLACED", "DEPLOYED"]
        clock.now += 100.0
        experiment.train("fixed")
    index = books.Books(engine.storage, "offer").read()
    assert [record.state for record in index.models[:2]] == ["REPLACED", "DEPLOYED"]
    assert index.job is None
    assert experiment.rollback() == 1


def failing_once(method: Any) -> Any:
    calls: list[int] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return down() if len(calls) == 1 else method(*args, **kwargs)

    return call


def dead(experiment: ExperimentManager, engine: Engine, work: str, n: int, **params: Any) -> None:
    """Leave behind what a process leaves that was killed at some work."""
    now = time.time()
    kept = books.Books(engine.storage, "offer")
    job = Job("x", work, n, "host:1", now - 99.0, now - 1.0, params=params)
    kept.update(lambda index: replace(index, job=job))
    assert experiment.status().is_dead


def test_a_judgement_that_died_is_done_again(experiment: ExperimentManager, engine: Engine) -> None:
    experiment.train()
    dead(experiment, engine, "evaluate", 1)
    judged = experiment.resume()
    assert isinstance(judged, EvaluationRecord)
    assert judged.attempt == 1


def test_a_judgement_that_died_asks_for_as_many_decisions_as_before(
    experiment: ExperimentManager, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment.train()
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "_fail", lambda *args: None)
        patched.setattr(manager, "Judgement", down)
        with pytest.raises(StorageError):
            experiment.evaluate(least=5000)
    kept = books.Books(engine.storage, "offer")
    job = kept.read().job
    assert job is not None
    kept.update(lambda index: replace(index, job=replace(job, until=0.0)))
    with pytest.raises(NotYetError, match="5,000 are asked for"):
        experiment.resume()
    assert experiment.status().attempts == 0


def test_a_training_by_an_object_cannot_be_done_again(
    experiment: ExperimentManager, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made of its class alone, it would be another one."""
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "_fail", lambda *args: None)
        patched.setattr(manager, "fitted_document", down)
        with pytest.raises(StorageError):
            experiment.train(Always("bundle"))
    kept = books.Books(engine.storage, "offer")
    job = kept.read().job
    assert job is not None
    kept.update(lambda index: replace(index, job=replace(job, until=0.0)))
    with pytest.raises(LifecycleError, match="gone with its process; train anew"):
        experiment.resume()
    experiment.train(Always("bundle"))
    assert [record.state for record in experiment.models()] == ["FAILED", "TRAINED"]


def test_a_deployment_that_died_is_done_again(
    experiment: ExperimentManager, engine: Engine
) -> None:
    experiment.train(Always("trial"))
    dead(experiment, engine, "deploy", 1, margin=0.0, force=True, least=0)
    done = experiment.resume()
    assert isinstance(done, Deployment)
    assert (done.deployed, done.why) == (True, "it was forced")
    assert experiment.status().job is None


def test_a_process_that_dies_after_the_deployment_loses_nothing(
    experiment: ExperimentManager, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arm in ("trial", "discount", "bundle"):
        experiment.train(Always(arm))
    experiment.deploy(2, force=True)
    before = books.Books(engine.storage, "offer")

    def die(*args: Any, **kwargs: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(Lease, "finish", die)
    with pytest.raises(SystemExit):
        experiment.deploy(3, force=True)
    monkeypatch.undo()
    assert engine.control("offer").model == 3
    job = before.read().job
    assert job is not None
    before.update(lambda index: replace(index, job=replace(job, until=0.0)))
    done = experiment.resume()
    assert isinstance(done, Deployment)
    assert (done.deployed, done.why) == (True, "it serves already")
    assert experiment.status().job is None
    assert [record.state for record in experiment.models()] == ["TRAINED", "REPLACED", "DEPLOYED"]
    assert experiment.models()[2].deployed_at is not None
    # Model 3 was trained before model 2 was deployed.
    assert experiment.rollback() == 2


def test_no_rollback_while_a_model_is_being_deployed(
    experiment: ExperimentManager, engine: Engine
) -> None:
    experiment.train("fixed")
    experiment.deploy(force=True)
    now = time.time()
    kept = books.Books(engine.storage, "offer")
    job = Job("x", "deploy", 2, "host:1", now, now + 60.0)
    kept.update(lambda index: replace(index, job=job))
    with pytest.raises(LifecycleError, match="being deployed in host:1; stop it first"):
        experiment.rollback()
    kept.update(lambda index: replace(index, job=replace(job, work="train")))
    assert experiment.rollback() == 0


def test_records_survive_json(experiment: ExperimentManager, engine: Engine) -> None:
    experiment.train()
    experiment.deploy()
    index = books.Books(engine.storage, "offer").read()
    assert Index.load(json.loads(json.dumps(index.dump()))) == index
    assert Index.load(None) == Index()


def test_the_clock_of_the_window_is_that_of_the_decisions(clock: Clock, tmp_path: Path) -> None:
    """A decision whose reward window is open now is judged later, not never."""
    engine = make_engine(MemoryBanditStorage(), reward_window=600.0)
    write_log(engine.storage, 1000, 1, at=clock.now)
    clock.now += 700.0
    experiment = ExperimentManager(engine, "offer", backup=tmp_path)
    experiment.train(Always("trial"))
    write_log(engine.storage, 1000, 2, at=clock.now)
    assert experiment.evaluate().decisions < 600
    assert experiment.status().fresh == 0
    clock.now += 700.0
    assert experiment.status().fresh > 400
