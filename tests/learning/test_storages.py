"""The whole loop on storages that keep what they are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flask_bandit.engine import Engine
from flask_bandit.learning import ExperimentManager
from flask_bandit.storage import JSONBanditStorage
from flask_bandit.storage.base import BanditStorage
from flask_bandit.storage.sqlite import SQLiteBanditStorage

from .shop import make_engine, write_log

STORAGES: dict[str, Callable[[Path], BanditStorage]] = {
    "sqlite": lambda path: SQLiteBanditStorage(str(path / "bandits.db")),
    "json": lambda path: JSONBanditStorage(str(path / "bandits.json")),
}


@pytest.mark.parametrize("make", STORAGES.values(), ids=STORAGES)
def test_another_process_goes_on_where_one_ended(
    make: Callable[[Path], BanditStorage], tmp_path: Path
) -> None:
    def anew() -> tuple[Engine, ExperimentManager]:
        engine = make_engine(make(tmp_path))
        return engine, ExperimentManager(engine, "offer", backup=tmp_path / "backups")

    write_log(make(tmp_path), 1500, 1)
    trained = anew()[1].train()
    judged = anew()[1].evaluate()
    assert judged.lower > 0.0
    done = anew()[1].deploy()
    assert (done.deployed, done.evaluation) == (True, judged)
    engine, experiment = anew()
    decision = engine.decide("offer", "v", engine.attempt(), context={"country": "fr"})
    assert decision is not None
    assert decision.policy_version == f"model:1:{trained.version}"
    assert decision.propensities is not None
    assert decision.propensities["discount"] > 0.9
    assert anew()[1].rollback() == 0
    decision = engine.decide("offer", "v", engine.attempt(), context={"country": "fr"})
    assert decision is not None
    assert decision.policy_version == engine.bandits["offer"].policy_version
    assert [record.state for record in experiment.models()] == ["ROLLED_BACK"]
