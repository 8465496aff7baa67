"""The reference storage: the shared suite, and what only it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_bandit.errors import ConfigurationError, StorageTimeoutError
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.testing.storage_samples import KEY, decision, decisions
from flask_bandit.testing.storages import StorageSuite


class TestMemoryStorage(StorageSuite):
    shared = False
    durable = False

    def make_storage(self, location: Path) -> MemoryBanditStorage:
        return MemoryBanditStorage()


def test_suite_leaves_out_what_does_not_apply() -> None:
    names = {name for name in dir(TestMemoryStorage) if callable(getattr(TestMemoryStorage, name))}
    assert "test_threads" in names
    assert "test_killed_while_writing" not in names
    assert "test_everything_is_there_after_reopening" not in names


def test_uri() -> None:
    assert isinstance(MemoryBanditStorage.from_uri("memory://"), MemoryBanditStorage)
    with pytest.raises(ConfigurationError, match="use 'memory://'"):
        MemoryBanditStorage.from_uri("memory://host/name")
    with pytest.raises(ConfigurationError, match="remove fsync"):
        MemoryBanditStorage.from_uri("memory://", fsync=True)


def test_timeout() -> None:
    storage = MemoryBanditStorage()
    storage._lock.acquire(None)
    for call in (
        lambda: storage.commit(decisions(decision("d")), 0.01),
        lambda: storage.read_counts(0.01),
        lambda: storage.get_decisions(["d"], 0.01),
        lambda: storage.erase(["d"], 0.01),
        lambda: storage.read_control(0.01),
        lambda: storage.write_control("b", {}, None, 0.01),
        lambda: storage.read_digest(KEY, 0.01),
        lambda: storage.write_digest(KEY, {}, 0, 0.01),
    ):
        with pytest.raises(StorageTimeoutError, match="until the deadline"):
            call()
    storage._lock.release()
    assert storage.commit(decisions(decision("d")), 0.01).new == {"d"}
