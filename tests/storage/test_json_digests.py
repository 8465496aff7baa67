"""The JSON storage: digests in files of their own, which may be lost but are never wrong."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_bandit.errors import StorageError, StorageTimeoutError
from flask_bandit.model import BanditKey
from flask_bandit.storage import JSONBanditStorage
from flask_bandit.storage.locks import FileLock
from flask_bandit.testing.storage_moves import fill
from flask_bandit.testing.storage_processes import kill_after
from flask_bandit.testing.storage_samples import BANDIT, KEY, decision, decisions

DEADLINE = 0.1
STATE = {"text": "zöld", "sums": [1, 0.5]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bandits.json"


@pytest.fixture
def storage(path: Path) -> Iterator[JSONBanditStorage]:
    storage = JSONBanditStorage(path)
    yield storage
    storage.close()


def beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def digest_file(path: Path) -> Path:
    (file,) = beside(path, "digests").iterdir()
    return file


def test_digests_are_not_in_the_journal(storage: JSONBanditStorage, path: Path) -> None:
    fill(storage)
    before = beside(path, "log").read_bytes()
    for revision in range(20):
        assert storage.write_digest(KEY, {"n": revision}, revision)
    assert beside(path, "log").read_bytes() == before
    assert digest_file(path).read_bytes().count(b'"n"') == 1


def test_names_that_file_systems_do_not_tell_apart(storage: JSONBanditStorage, path: Path) -> None:
    names = ["a" * 300, "../a", "A", "a", "ä", "a\u0308", ".", "nul"]
    for number, name in enumerate(names):
        assert storage.write_digest(BanditKey(name, 1), {"n": number}, 0)
    for number, name in enumerate(names):
        assert storage.read_digest(BanditKey(name, 1)) == (1, {"n": number})
    files = [file.name for file in beside(path, "digests").iterdir()]
    assert len({name.casefold() for name in files}) == len(names)
    assert sorted(file.name for file in path.parent.iterdir() if "digests" in file.name) == [
        "bandits.json.digests"
    ]


def test_damaged_digest_is_none(storage: JSONBanditStorage, path: Path) -> None:
    """Cut anywhere, changed anywhere, or something else."""
    storage.commit(decisions(decision("1")))
    storage.write_digest(KEY, STATE, 0)
    file = digest_file(path)
    whole = file.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    for place in range(len(whole)):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    damaged += [b"\x00" * len(whole), b"{}", b"[1]", whole * 2, path.read_bytes()]
    for content in damaged:
        file.write_bytes(content)
        assert storage.read_digest(KEY) is None, content
    assert not storage.write_digest(KEY, {"n": 1}, 1)
    assert storage.write_digest(KEY, {"n": 1}, 0)
    assert storage.read_digest(KEY) == (1, {"n": 1})
    file.write_bytes(whole)
    assert storage.read_digest(KEY) == (1, STATE)


def test_missing_digest_is_none(storage: JSONBanditStorage, path: Path) -> None:
    for remove in (digest_file, lambda path: beside(path, "digests")):
        assert storage.write_digest(KEY, STATE, 0)
        found = remove(path)
        shutil.rmtree(found) if found.is_dir() else found.unlink()
        assert storage.read_digest(KEY) is None
    assert storage.check() == []


def test_digest_of_another_version_is_none(storage: JSONBanditStorage, path: Path) -> None:
    storage.write_digest(KEY, STATE, 0)
    file = digest_file(path)
    shutil.copy(file, file.with_name(file.name.replace("-1.", "-2.")))
    assert storage.read_digest(BanditKey(BANDIT, 2)) is None
    assert storage.read_digest(KEY) == (1, STATE)


def test_digest_that_cannot_be_written(storage: JSONBanditStorage, path: Path) -> None:
    beside(path, "digests").write_bytes(b"in the way")
    assert storage.read_digest(KEY) is None
    with pytest.raises(StorageError, match=r"Could not write .*bandits\.json\.digests"):
        storage.write_digest(KEY, STATE, 0)
    beside(path, "digests").unlink()
    storage.write_digest(KEY, STATE, 0)
    temporary = digest_file(path).with_name(f"{digest_file(path).name}.tmp")
    temporary.mkdir()
    with pytest.raises(StorageError, match=r"Could not write"):
        storage.write_digest(KEY, {"n": 1}, 1)
    assert storage.read_digest(KEY) == (1, STATE)
    # Neither is what an interrupted write left.
    temporary.rmdir()
    temporary.write_bytes(b"{")
    assert storage.write_digest(KEY, {"n": 1}, 1)
    assert not temporary.exists()


def test_moved_and_copied_digests(path: Path, tmp_path: Path) -> None:
    storage = JSONBanditStorage(path)
    fill(storage)
    storage.write_digest(KEY, STATE, 0)
    storage.close()
    for name in ("copied", "moved"):
        folder = tmp_path / name
        if name == "copied":
            shutil.copytree(path.parent, folder, ignore=lambda *_: ["copied"])
        else:
            folder.mkdir()
            for file in path.parent.glob("bandits.json*"):
                file.rename(folder / file.name)
        moved = JSONBanditStorage(folder / "bandits.json")
        assert moved.read_digest(KEY) == (1, STATE)
        assert moved.write_digest(KEY, {"n": 1}, 1)
        moved.close()


def test_digest_of_another_journal_is_none(path: Path) -> None:
    """The bandits begin anew, and the directory was forgotten."""
    storage = JSONBanditStorage(path)
    fill(storage)
    storage.write_digest(KEY, STATE, 0)
    storage.close()
    for file in (path, beside(path, "log"), beside(path, "index")):
        file.unlink(missing_ok=True)
    storage = JSONBanditStorage(path)
    assert storage.read_digest(KEY) is None
    fill(storage)
    assert storage.read_digest(KEY) is None
    assert storage.write_digest(KEY, {"n": 1}, 0)
    assert storage.read_digest(KEY) == (1, {"n": 1})
    storage.close()


def test_digest_of_commits_that_are_gone_is_none(path: Path) -> None:
    """The log was restored from a backup."""
    storage = JSONBanditStorage(path)
    storage.commit(decisions(decision("1")))
    storage.write_digest(KEY, STATE, 0)
    backup = beside(path, "log").read_bytes()
    storage.commit(decisions(decision("2")))
    assert storage.read_digest(KEY) == (1, STATE)
    storage.write_digest(KEY, {"n": 1}, 1)
    storage.close()
    beside(path, "log").write_bytes(backup)
    for file in (path, beside(path, "index")):
        file.unlink(missing_ok=True)
    storage = JSONBanditStorage(path)
    assert storage.read_digest(KEY) is None
    assert storage.write_digest(KEY, STATE, 0)
    storage.close()


def test_digest_of_what_is_committed_while_it_is_read(
    storage: JSONBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.commit(decisions(decision("1")))
    other, find = JSONBanditStorage(path), storage._digests.find

    def find_later(key: BanditKey) -> dict[str, Any] | None:
        other.commit(decisions(decision("2")))
        assert other.write_digest(KEY, STATE, 0)
        return find(key)

    monkeypatch.setattr(storage._digests, "find", find_later)
    assert storage.read_digest(KEY) == (1, STATE)
    other.close()


def test_digests_wait_for_the_lock(storage: JSONBanditStorage, path: Path) -> None:
    storage.write_digest(KEY, STATE, 0)
    lock = FileLock(str(beside(path, "lock")))
    lock.acquire(None)
    with pytest.raises(StorageTimeoutError):
        storage.write_digest(KEY, {"n": 1}, 1, DEADLINE)
    assert storage.read_digest(KEY, DEADLINE) == (1, STATE)
    lock.close()
    assert storage.write_digest(KEY, {"n": 1}, 1, DEADLINE)


def write_digests_until_killed(path: Path, diary: Path) -> None:
    storage = JSONBanditStorage(path)
    revision, _ = storage.read_digest(KEY) or (0, {})
    with diary.open("ab", buffering=0) as notes:
        for number in range(revision, 1_000_000):
            assert storage.write_digest(KEY, {"n": [number + 1] * 5000}, number)
            notes.write(b"%d\n" % (number + 1))


def test_killed_while_writing_digests(path: Path, tmp_path: Path) -> None:
    """What is found is whole, and not older than what was acknowledged."""
    diary = tmp_path / "diary.txt"
    chance = random.Random(3)
    diary.touch()
    for _ in range(10):
        size = diary.stat().st_size + chance.randint(1, 100)
        kill_after(size, diary, write_digests_until_killed, path, diary)
        acknowledged = int(diary.read_text().split()[-1])
        storage = JSONBanditStorage(path)
        found = storage.read_digest(KEY)
        storage.close()
        assert found is not None
        assert acknowledged <= found.revision <= acknowledged + 1
        assert found.state == {"n": [found.revision] * 5000}
