"""Everything is saved before a model is deployed, or nothing is deployed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import IO, Any, cast

import pytest

from flask_bandit.engine import Engine
from flask_bandit.errors import LifecycleError
from flask_bandit.learning import (
    ExperimentManager,
    JobStoppedError,
    backup,
    restore_models,
)
from flask_bandit.learning.backup import EXPORT, MODELS
from flask_bandit.learning.books import Books
from flask_bandit.plugins import model_from
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.transfer import read_import
from tests.clock import Clock

from .shop import make_engine, write_log


@pytest.fixture
def engine() -> Engine:
    engine = make_engine()
    write_log(engine.storage, 600, 1)
    return engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "instance" / "backups"


@pytest.fixture
def experiment(engine: Engine, folder: Path) -> ExperimentManager:
    made = ExperimentManager(engine, "offer", backup=str(folder))
    made.train("fixed")
    return made


def test_all_can_be_had_back(experiment: ExperimentManager, engine: Engine, folder: Path) -> None:
    engine.change("offer", "weights", {"trial": 2.0})
    saved = Path(experiment.deploy(force=True).backup)
    assert saved.parent == folder
    assert saved.name.endswith("-offer-before-model-1")
    assert list(folder.iterdir()) == [saved]
    other = MemoryBanditStorage()
    with gzip.open(saved / EXPORT) as content:
        imported = read_import(other, cast(IO[bytes], content), "it")
    assert imported.new.decisions == 600
    assert other.read_counts() == engine.storage.read_counts()
    # As it was before.
    assert other.read_control()["offer"]["model"] == 0
    assert other.read_control()["offer"]["weights"] == {"trial": 2.0}
    stored = json.loads(gzip.decompress((saved / MODELS).read_bytes()))
    assert stored["bandit"] == "offer"
    assert [record["n"] for record in stored["index"]["models"]] == [1]
    assert model_from(stored["models"]["1"]).version == experiment.models()[0].version


def test_models_come_back_with_what_is_known_about_them(
    experiment: ExperimentManager, engine: Engine
) -> None:
    experiment.evaluate()
    experiment.train("ridge")
    saved = Path(experiment.deploy(2, force=True).backup)
    other = MemoryBanditStorage()
    assert restore_models(other, saved / MODELS) == 2
    before, after = Books(engine.storage, "offer"), Books(other, "offer")
    index = after.read()
    assert (index.attempts, index.judged_until) == (1, before.read().judged_until)
    assert index.job is None
    assert [record.version for record in index.models] == [
        record.version for record in before.read().models
    ]
    assert after.read_document(2) == before.read_document(2)
    with pytest.raises(LifecycleError, match="knows models of 'offer' already"):
        restore_models(other, saved / MODELS)
    for file in (saved / EXPORT, saved / "nowhere"):
        with pytest.raises(LifecycleError, match=r"is no models\.json\.gz of a backup"):
            restore_models(MemoryBanditStorage(), file)


def test_two_in_one_second_are_two(experiment: ExperimentManager, clock: Clock) -> None:
    saved = [experiment.deploy(1, force=True).backup]
    experiment.rollback()
    saved.append(experiment.deploy(1, force=True).backup)
    assert saved[1] == f"{saved[0]}-2"


def test_only_the_owner_may_read_it(experiment: ExperimentManager) -> None:
    saved = Path(experiment.deploy(force=True).backup)
    for path in (saved, *saved.iterdir()):
        assert path.stat().st_mode & 0o077 == 0


def test_names_that_are_no_file_names(folder: Path) -> None:
    engine = make_engine()
    engine.bandits = {"../of fer": engine.bandits["offer"]}
    write_log(engine.storage, 60, 1, bandit="../of fer")
    experiment = ExperimentManager(engine, "../of fer", backup=folder)
    experiment.train("fixed")
    saved = Path(experiment.deploy(force=True).backup)
    assert saved.parent == folder
    assert saved.name.endswith("-___of_fer-before-model-1")


def refused(experiment: ExperimentManager, engine: Engine) -> str:
    with pytest.raises(LifecycleError, match="so nothing was deployed") as caught:
        experiment.deploy(force=True)
    assert engine.control("offer").model == 0
    assert experiment.models()[0].state == "FAILED"
    return str(caught.value)


def test_without_a_place_nothing_is_deployed(
    experiment: ExperimentManager, engine: Engine, folder: Path
) -> None:
    folder.parent.mkdir()
    folder.write_text("a file, and no folder")
    assert "name another folder" in refused(experiment, engine)


def test_without_room_nothing_is_deployed(
    experiment: ExperimentManager,
    engine: Engine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "No space left on device" in refused(experiment, engine)
    assert list(folder.iterdir()) == []


def test_a_file_that_cannot_be_read_back_is_no_backup(
    experiment: ExperimentManager,
    engine: Engine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = backup._write_models

    def damaged(*args: Any) -> None:
        write(*args)
        file = args[1]
        content = bytearray(file.read_bytes())
        content[-6] ^= 0xFF
        file.write_bytes(content)

    monkeypatch.setattr(backup, "_write_models", damaged)
    refused(experiment, engine)
    assert list(folder.iterdir()) == []


def test_it_stops_when_the_job_is_stopped(
    experiment: ExperimentManager, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(storage: Any, file: Any, progress: Any) -> None:
        raise JobStoppedError("it was stopped")

    monkeypatch.setattr(backup, "write_export", stopped)
    with pytest.raises(JobStoppedError):
        experiment.deploy(force=True)
    assert experiment.models()[0].state == "STOPPED"
    assert list(folder.iterdir()) == []
