"""The JSON storage: control and erasing in its files, and what earlier files lack."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_bandit.errors import StorageCorruptError, StorageError, StorageTimeoutError
from flask_bandit.storage import JSONBanditStorage
from flask_bandit.storage.base import Commit
from flask_bandit.storage.json_file import history, upkeep
from flask_bandit.storage.json_file.checkpoint import seal, unseal
from flask_bandit.storage.json_file.journal import Journal
from flask_bandit.storage.locks import FileLock
from flask_bandit.testing.storage_control import add_one
from flask_bandit.testing.storage_moves import fill, state
from flask_bandit.testing.storage_processes import run_processes
from flask_bandit.testing.storage_samples import (
    KEY,
    decision,
    decisions,
    earn,
    pull,
    reward,
    rewards,
)

PATIENCE = 60.0
PAUSED = {"state": "paused"}


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


def index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.index")


def write(storage: JSONBanditStorage, count: int) -> None:
    """Write decisions of somebody each, and a reward for each."""
    for number in range(count):
        made = decision(
            f"d{number}", subject=f"Subject{number}.", context={"page": f"Page{number}."}
        )
        storage.commit(Commit((pull(made),), (earn(reward(made)),)))


def files_with(folder: Path, text: str) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if text.encode() in file.read_bytes())


# Erasing


@pytest.mark.parametrize("index", [1, 1 << 20])
def test_what_is_erased_is_in_no_file(
    storage: JSONBanditStorage, path: Path, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "INDEX_BYTES", index)
    write(storage, 10)
    assert (
        files_with(path.parent, "Subject3.")
        == files_with(path.parent, "Page3.")
        == ["bandits.json.log"]
    )
    assert storage.erase(["d3", "d4"]) == 2
    for closed in (False, True):
        if closed:
            storage.close()
        for text in ("Subject3.", "Page3.", "Subject4.", "Page4."):
            assert files_with(path.parent, text) == []
        assert files_with(path.parent, "Subject5.") == ["bandits.json.log"]
    assert len(log_of(path).read_bytes().splitlines()) == 11
    assert not path.with_name(f"{path.name}.log.tmp").exists()


def test_others_follow_what_was_erased(storage: JSONBanditStorage, path: Path) -> None:
    write(storage, 5)
    reader, writer = JSONBanditStorage(path), JSONBanditStorage(path)
    for other in (reader, writer):
        other.read_counts()
    begun = reader.iter_log()
    first = next(begun).decision.subject
    assert storage.erase(["d0", "d1"]) == 2
    # What is being read is read to its end.
    assert [first, *(entry.decision.subject for entry in begun)][:2] == ["Subject0.", "Subject1."]
    assert [entry.decision.subject for entry in reader.iter_log()][:3] == [None, None, "Subject2."]
    assert writer.erase(["d0", "d1", "d2"]) == 1
    assert writer.commit(decisions(decision("d0"), decision("new"))).new == {"new"}
    for other in (storage, reader, writer, JSONBanditStorage(path)):
        assert state(other) == state(storage)
        other.close()


def test_erasing_nothing_leaves_the_files_alone(storage: JSONBanditStorage, path: Path) -> None:
    assert storage.erase(["d0"]) == 0
    assert os.listdir(path.parent) == []
    write(storage, 3)
    storage.erase(["d0"])
    before = log_of(path).stat().st_ino, log_of(path).read_bytes()
    for ids in ([], ["unknown"], ["d0"]):
        assert storage.erase(ids) == 0
    assert (log_of(path).stat().st_ino, log_of(path).read_bytes()) == before
    assert not path.with_name(f"{path.name}.log.tmp").exists()


def test_erasing_keeps_its_deadline(
    storage: JSONBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(storage, 5)
    complete, content = state(storage), log_of(path).read_bytes()
    lock = FileLock(f"{log_of(path)}.tmp")
    lock.acquire(None)
    with pytest.raises(StorageTimeoutError, match=r"\.log\.tmp"):
        storage.erase(["d0"], 0.01)
    lock.close()
    copy = history.Rewriting.copy

    def slow(self: history.Rewriting, end: int) -> None:
        assert self._deadline is not None
        while time.monotonic() < self._deadline:
            time.sleep(0.001)
        copy(self, end)

    monkeypatch.setattr(history.Rewriting, "copy", slow)
    with pytest.raises(StorageTimeoutError, match="Try again with more time"):
        storage.erase(["d0"], 0.01)
    monkeypatch.undo()
    assert (state(storage), log_of(path).read_bytes()) == (complete, content)
    assert storage.erase(["d0"], PATIENCE) == 1


# Control


@pytest.mark.parametrize("index", [1, 1 << 20])
def test_control_is_followed_and_indexed(
    storage: JSONBanditStorage, path: Path, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "INDEX_BYTES", index)
    other = JSONBanditStorage(path)
    expected: dict[str, Any] = {}
    for number in range(4):
        fill(storage)
        for name in ("a", "ü"):
            assert other.write_control(name, {"n": number, "of": name}, expected.get(name))
            expected[name] = {"n": number, "of": name}
            assert storage.read_control() == other.read_control() == expected
        storage.commit(decisions(decision(f"later{number}")))
    # Now the index, if there is one, covers all lines.
    other.write_control("last", {}, None)
    other.close()
    fresh = JSONBanditStorage(path)
    assert fresh.read_control() == {**expected, "last": {}}
    assert index_of(path).exists() == (index == 1)
    assert state(fresh) == state(storage) == state(other)
    fresh.close()
    other.close()


def test_control_outlives_what_is_written_anew(storage: JSONBanditStorage, path: Path) -> None:
    """Line by line: how many lines there were is how a cut journal is noticed."""
    storage.write_control("a", PAUSED, None)
    write(storage, 3)
    storage.write_control("a", {"n": [1.5, "ü"]}, PAUSED)
    storage.write_control("b", {}, None)
    storage.commit(decisions(decision("last")))
    other = JSONBanditStorage(path)
    expected = {"a": {"n": [1.5, "ü"]}, "b": {}}
    assert other.read_control() == expected
    lines = log_of(path).read_bytes().count(b"\n")
    assert storage.erase(["d1"]) == 1
    assert storage.prune(1e12) == 4
    assert log_of(path).read_bytes().count(b"\n") == lines == 8
    for one in (storage, other, JSONBanditStorage(path)):
        assert one.read_control() == expected
        one.close()
    index_of(path).unlink(missing_ok=True)
    assert JSONBanditStorage(path).read_control() == expected


def test_unchanged_control_does_not_grow_the_journal(
    storage: JSONBanditStorage, path: Path
) -> None:
    storage.write_control("a", PAUSED, None)
    size = log_of(path).stat().st_size
    assert not storage.write_control("a", PAUSED, None)
    assert log_of(path).stat().st_size == size


def test_an_index_of_before_there_was_control(
    storage: JSONBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written by a process of an older version, which passed over what is decided here."""
    monkeypatch.setattr(upkeep, "INDEX_BYTES", 1)
    fill(storage)
    storage.write_control("b", PAUSED, None)
    expected = state(storage)
    storage.close()
    document = unseal(index_of(path).read_bytes())
    assert document is not None
    assert document.pop("control") == {"b": PAUSED}
    document["format"] = 1
    del document["checksum"]
    mark = json.dumps(document.pop("journal"))
    index_of(path).write_bytes(seal(f'{{"journal": {mark},\n{json.dumps(document)[1:-1]}'))
    assert state(storage) == expected
    assert storage.read_control() == {"b": PAUSED}
    assert storage.write_control("a", PAUSED, None)
    storage.close()
    # Replaced, although it covers nearly all of the journal.
    document = unseal(index_of(path).read_bytes())
    assert document is not None
    assert document["control"] == {"a": PAUSED, "b": PAUSED}
    assert JSONBanditStorage(path).read_control() == {"a": PAUSED, "b": PAUSED}


def test_a_cut_control_line_is_missed(storage: JSONBanditStorage, path: Path) -> None:
    storage.write_control("a", {}, None)
    storage.write_control("a", PAUSED, {})
    storage.close()
    content = log_of(path).read_bytes()
    log_of(path).write_bytes(content[: content[:-1].rindex(b"\n") + 1])
    with pytest.raises(StorageCorruptError, match="2 whole lines, and 3 were there"):
        storage.read_control()


def test_a_pruned_journal_that_lacks_control_is_refused(
    storage: JSONBanditStorage, path: Path, tmp_path: Path
) -> None:
    """A backup was restored elsewhere and pruned there: it does not know what was decided."""
    write(storage, 2)
    other = JSONBanditStorage(tmp_path / "other.json")
    log_of(tmp_path / "other.json").write_bytes(log_of(path).read_bytes())
    assert other.prune(1e12) == 2
    other.close()
    storage.write_control("a", PAUSED, None)
    os.replace(tmp_path / "other.json.log", log_of(path))
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match="was replaced"):
            storage.read_control()
        with pytest.raises(StorageCorruptError, match="was replaced"):
            storage.write_control("a", {}, PAUSED)


@pytest.mark.parametrize(
    "content",
    [
        3,
        None,
        {},
        {"bandit": "a"},
        {"state": {}},
        {"bandit": "a", "state": []},
        {"bandit": 1, "state": {}},
        {"bandit": ["a"], "state": {}},
    ],
)
def test_a_control_line_that_is_none(
    storage: JSONBanditStorage, path: Path, content: object
) -> None:
    """As another program may have written it, with all checksums right."""
    write(storage, 1)
    storage.close()
    other = Journal(str(log_of(path)))
    assert other.open()
    for _ in other.pull(other.size()):
        pass
    other.append(json.dumps({"control": content}).encode())
    other.close()
    calls: list[Callable[[], object]] = [
        storage.read_control,
        storage.read_counts,
        lambda: storage.write_control("a", {}, None),
        lambda: storage.prune(1e12),
    ]
    for call in calls:
        with pytest.raises(StorageCorruptError, match="line 3 .*control"):
            call()


def test_a_full_disk_changes_no_control(
    storage: JSONBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_control("a", PAUSED, None)
    content = log_of(path).read_bytes()
    real: Callable[..., int] = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
    with pytest.raises(StorageError, match="full"):
        storage.write_control("a", {}, PAUSED)
    monkeypatch.undo()
    assert log_of(path).read_bytes() == content
    assert storage.read_control() == {"a": PAUSED}
    assert storage.write_control("a", {}, PAUSED)


# Many processes


def write_or_rewrite(path: Path, worker: int) -> None:
    storage = JSONBanditStorage(path)
    for number in range(60):
        if worker < 2:
            made = decision(f"w{worker}-{number}", subject=f"Subject{worker}.", at=float(number))
            storage.commit(decisions(made), PATIENCE)
            storage.commit(rewards(reward(made)), PATIENCE)
        elif worker < 4:
            add_one(storage, "all")
        elif worker == 4:
            storage.prune(number / 2)
        else:
            storage.erase([f"w0-{n}" for n in range(number)], PATIENCE)
    storage.close()


def test_all_at_once_lose_nothing(path: Path) -> None:
    """Two write, two swap control, one prunes and one erases all the time."""
    run_processes(write_or_rewrite, [(path, worker) for worker in range(6)])
    storage = JSONBanditStorage(path)
    row = storage.read_counts()[KEY]["green"]
    assert (row["pulls"], row["rewards"]) == (120, 120)
    assert storage.read_control()["all"]["n"] == 120
    storage.erase([f"w0-{number}" for number in range(60)])
    assert files_with(path.parent, "Subject0.") == []
    stored = [w.decision.id for commit in storage.iter_commits() for w in commit.decisions]
    assert len(stored) == len(set(stored)) == 120
    storage.close()
