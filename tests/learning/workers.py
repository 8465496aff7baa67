"""What runs in other processes, and a trainer that takes as long as a test wants."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flask_bandit.learning import ExperimentManager, JobStoppedError, jobs
from flask_bandit.learning.data import TrainingData
from flask_bandit.learning.fitted import FixedModel
from flask_bandit.storage.sqlite import SQLiteBanditStorage
from flask_bandit.testing.storage_processes import PATIENCE

from .shop import make_engine

PATH = f"{__name__}:Patient"


class Patient:
    """A trainer that reads the log again and again until a file is there."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)

    def fit(self, data: TrainingData) -> FixedModel:
        deadline = time.monotonic() + PATIENCE
        while not self._file.exists():
            assert time.monotonic() < deadline
            for batch in data:
                assert len(batch)
            time.sleep(0.01)
        return FixedModel(data.arms, [1.0] + [0.0] * (len(data.arms) - 1))


def manager_of(path: Path) -> ExperimentManager:
    engine = make_engine(SQLiteBanditStorage(str(path)))
    return ExperimentManager(engine, "offer", backup=path.parent / "backups", by="worker")


def train_patiently(path: Path, file: Path, lease: float, beat: float) -> None:
    """Train until a file is there, with another lease than usual."""
    jobs.LEASE, jobs.BEAT = lease, beat
    manager_of(path).train(PATH, file=str(file))


def train_until_stopped(path: Path, file: Path) -> None:
    with pytest.raises(JobStoppedError, match="it was stopped"):
        train_patiently(path, file, 60.0, 0.02)


def train_if_free(path: Path, diary: Path) -> None:
    """Train once, and write down how it went."""
    try:
        record = manager_of(path).train("fixed")
    except Exception as error:
        line = f"{type(error).__name__}: {error}"
    else:
        line = f"trained {record.n}"
    with diary.open("a") as file:
        file.write(f"{line}\n")
