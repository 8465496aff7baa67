"""The JSON storage when the system refuses, or when its files change while they are in use."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_bandit.errors import (
    StorageCorruptError,
    StorageError,
)
from flask_bandit.storage import JSONBanditStorage
from flask_bandit.storage.ledger import Ledger
from flask_bandit.testing.storage_processes import run_processes
from flask_bandit.testing.storage_samples import (
    KEY,
    decision,
    decisions,
    reward,
    rewards,
)

PATIENCE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bandits.json"


@pytest.fixture
def storage(path: Path) -> Iterator[JSONBanditStorage]:
    storage = JSONBanditStorage(path)
    yield storage
    storage.close()


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.log")


def pulls(storage: JSONBanditStorage) -> float:
    return storage.read_counts().get(KEY, {}).get("green", {}).get("pulls", 0)


# What the system refuses


def fill_the_disk(path: Path) -> None:
    storage = JSONBanditStorage(path)
    storage.commit(decisions(decision("1")))
    log = log_of(path)
    before = log.read_bytes()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for room in (0, 1, 100):
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, hard))
        with pytest.raises(StorageError, match="full") as caught:
            storage.commit(decisions(decision("2")))
        assert str(log) in str(caught.value)
        assert log.read_bytes() == before
        assert pulls(storage) == 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert storage.commit(decisions(decision("2"))).new == {"2"}
    assert pulls(storage) == pulls(JSONBanditStorage(path)) == 2
    storage.close()


def test_disk_full(path: Path) -> None:
    run_processes(fill_the_disk, [(path,)])


def test_disk_full_at_the_first_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = JSONBanditStorage(path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
    with pytest.raises(StorageError, match="only 20 of"):
        storage.commit(decisions(decision("1")))
    monkeypatch.undo()
    assert log_of(path).read_bytes() == b""
    storage.commit(decisions(decision("1")))
    assert pulls(storage) == 1
    storage.close()


def test_torn_line_that_cannot_be_taken_back(
    storage: JSONBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.commit(decisions(decision("1")))
    other = JSONBanditStorage(path)
    assert pulls(other) == 1
    write = os.write

    def refuse(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:50]))
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(StorageError, match="take back"):
        storage.commit(decisions(decision("2")))
    monkeypatch.undo()
    assert not log_of(path).read_bytes().endswith(b"\n")
    assert pulls(other) == pulls(JSONBanditStorage(path)) == 1, "readers stop at a newline"
    other.commit(decisions(decision("3")))
    assert pulls(storage) == pulls(JSONBanditStorage(path)) == 2
    assert [entry.decision.id for entry in storage.iter_log()] == ["1", "3"]
    other.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EACCES, "read and write"), (errno.EROFS, "is read-only"), (errno.EIO, "Input/output")],
)
def test_files_that_cannot_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    first = JSONBanditStorage(path)
    first.commit(decisions(decision("1")))
    first.close()
    before = log_of(path).read_bytes()
    real = os.open

    def refuse(name: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(code, os.strerror(code), name)
        return real(name, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    storage = JSONBanditStorage(path)
    with pytest.raises(StorageError, match=words) as caught:
        storage.commit(decisions(decision("2")))
    assert str(path) in str(caught.value)
    assert pulls(storage) == 1, "reading works"
    assert log_of(path).read_bytes() == before
    storage.close()


def test_directory_missing(tmp_path: Path) -> None:
    storage = JSONBanditStorage(tmp_path / "no" / "bandits.json")
    with pytest.raises(StorageError, match=f"{tmp_path}/no does not exist: create it"):
        storage.commit(decisions(decision("1")))
    (tmp_path / "file").touch()
    storage = JSONBanditStorage(tmp_path / "file" / "bandits.json")
    with pytest.raises(StorageError, match=f"{tmp_path}/file does not exist: create it"):
        storage.commit(decisions(decision("1")))
    with pytest.raises(StorageError, match=f"{tmp_path}/file does not exist: create it"):
        storage.read_counts()


def test_summary_that_cannot_be_written_fails_no_commit(
    storage: JSONBanditStorage, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.with_name(f"{path.name}.tmp").mkdir()
    storage.commit(decisions(decision("1")))
    assert pulls(storage) == 1
    assert "Could not rewrite the files" in caplog.text


def test_fsync(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    storage = JSONBanditStorage(path, fsync=True)
    storage.commit(decisions(decision("1")))
    storage.commit(rewards(reward(decision("1"))))
    assert len(synced) == 2

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StorageError, match="sync to the disk"):
        storage.commit(decisions(decision("2")))
    monkeypatch.setattr(os, "fdatasync", synced.append)
    storage.commit(decisions(decision("2")))
    assert pulls(storage) == pulls(JSONBanditStorage(path)) == 2
    storage.close()


def test_interrupted_between_file_and_memory(
    storage: JSONBanditStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.commit(decisions(decision("1")))

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "_add", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.commit(decisions(decision("2")))
    monkeypatch.undo()
    assert pulls(storage) == 2
    assert storage.commit(decisions(decision("2"))).new == frozenset()


# The journal changed under a running process


def test_journal_removed(storage: JSONBanditStorage, path: Path) -> None:
    storage.commit(decisions(decision("1")))
    log_of(path).unlink()
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match="was removed"):
            storage.commit(decisions(decision("2")))
        with pytest.raises(StorageCorruptError, match="was removed"):
            storage.read_counts()
    assert not log_of(path).exists()
    with pytest.raises(StorageCorruptError, match="is missing or empty"):
        JSONBanditStorage(path).commit(decisions(decision("2")))


def test_journal_cut(storage: JSONBanditStorage, path: Path) -> None:
    storage.commit(decisions(decision("1")))
    lines = log_of(path).read_bytes().splitlines(keepends=True)
    storage.commit(decisions(decision("2")))
    log_of(path).write_bytes(b"".join(lines))
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match="was cut"):
            storage.commit(decisions(decision("3")))
    assert log_of(path).read_bytes() == b"".join(lines)


def test_journal_replaced(storage: JSONBanditStorage, path: Path, tmp_path: Path) -> None:
    storage.commit(decisions(decision("1")))
    copy = tmp_path / "copy"
    copy.write_bytes(log_of(path).read_bytes())
    os.replace(copy, log_of(path))
    storage.commit(decisions(decision("2")))
    assert pulls(storage) == 2, "a copy with the same content is the same journal"
    other = JSONBanditStorage(tmp_path / "other.json")
    for number in range(9):
        other.commit(decisions(decision(f"other {number}")))
    other.close()
    os.replace(tmp_path / "other.json.log", log_of(path))
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match="was replaced"):
            storage.commit(decisions(decision("3")))


def test_foreign_file_is_not_overwritten(storage: JSONBanditStorage, path: Path) -> None:
    content = '{"bandits": {"color_btn": {"arms": []}}}'
    path.write_text(content)
    with pytest.raises(StorageCorruptError, match="import-flask-mab"):
        storage.commit(decisions(decision("1")))
    with pytest.raises(StorageCorruptError, match="import-flask-mab"):
        storage.read_counts()
    assert path.read_text() == content
    assert not log_of(path).exists()


def test_files_of_another_generation_are_ignored(tmp_path: Path) -> None:
    for name, count in (("a", 5), ("b", 2)):
        storage = JSONBanditStorage(tmp_path / f"{name}.json")
        for number in range(count):
            storage.commit(decisions(decision(f"{name}{number}")))
        storage.close()
    os.replace(tmp_path / "a.json", tmp_path / "b.json")
    assert pulls(JSONBanditStorage(tmp_path / "b.json")) == 2
