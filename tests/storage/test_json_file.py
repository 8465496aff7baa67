"""The JSON storage: the shared suite, and what only files do."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flask_bandit.errors import (
    ConfigurationError,
    StorageTimeoutError,
)
from flask_bandit.storage import JSONBanditStorage
from flask_bandit.storage.base import Commit
from flask_bandit.storage.json_file import framing, journal, upkeep
from flask_bandit.storage.json_file import storage as json_file
from flask_bandit.storage.json_file.replica import Replica
from flask_bandit.testing import StorageSuite
from flask_bandit.testing.storage_processes import start_process
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


class TestJSONStorage(StorageSuite):
    def make_storage(self, location: Path) -> JSONBanditStorage:
        return JSONBanditStorage(location / "bandits.json")


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


def summary(path: Path) -> Any:
    return json.loads(path.read_text())["bandits"]["color_btn"]["1"]


# Construction


def test_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert JSONBanditStorage.from_uri("json:///a/b.json").path == str(tmp_path / "a/b.json")
    assert JSONBanditStorage.from_uri("json:////var/b.json").path == "/var/b.json"
    assert JSONBanditStorage.from_uri("json:///b.json", fsync=True).fsync


@pytest.mark.parametrize(
    "uri", ["json://", "json:///", "json://host/b.json", "b.json", "json:///b.json?fsync=1"]
)
def test_bad_uri(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"json:///relative\.json"):
        JSONBanditStorage.from_uri(uri)


def test_bad_options() -> None:
    with pytest.raises(ConfigurationError, match="no option fsink; it knows 'fsync'"):
        JSONBanditStorage.from_uri("json:///b.json", fsink=True)
    with pytest.raises(ConfigurationError, match="needs a path"):
        JSONBanditStorage("")


def test_relative_path_does_not_follow_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = JSONBanditStorage("bandits.json")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    storage.commit(decisions(decision("d")))
    storage.close()
    assert (tmp_path / "bandits.json").exists()


# The files


def test_reading_creates_nothing(storage: JSONBanditStorage, path: Path) -> None:
    assert storage.read_counts() == {}
    assert list(storage.iter_log()) == []
    assert os.listdir(path.parent) == []


def test_summary_is_for_people(storage: JSONBanditStorage, path: Path) -> None:
    storage.commit(decisions(decision("1"), decision("2", "אדום", bandit="ü")))
    text = path.read_text()
    assert '    "ü": {\n      "1": {\n        "אדום": {"pulls": 1}\n      }\n    }' in text
    assert summary(path) == {"green": {"pulls": 1}}
    assert "Edits here are ignored" in json.loads(text)["note"]


def test_summary_follows_while_traffic_goes_on(
    storage: JSONBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for number in range(10):
        storage.commit(decisions(decision(f"a{number}")))
    assert summary(path) == {"green": {"pulls": 1}}
    now += upkeep.SUMMARY_SECONDS
    storage.commit(decisions(decision("b")))
    assert summary(path) == {"green": {"pulls": 11}}
    storage.commit(decisions(decision("c")))
    storage.close()
    assert summary(path) == {"green": {"pulls": 12}}


def test_summary_is_complete_at_exit(path: Path) -> None:
    program = (
        "import sys; from flask_bandit.storage import JSONBanditStorage as S;"
        "from flask_bandit.testing.storage_samples import decision, decisions;"
        "s = S(sys.argv[1]); [s.commit(decisions(decision(str(n)))) for n in range(5)]"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(path)],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.stderr == b""
    assert summary(path) == {"green": {"pulls": 5}}


def test_exit_without_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    storage = JSONBanditStorage(folder / "bandits.json")
    storage.commit(decisions(decision("1")))
    storage.commit(decisions(decision("2")))
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    storage.close()
    assert not folder.exists()


def test_edited_summary_changes_no_count(storage: JSONBanditStorage, path: Path) -> None:
    storage.commit(decisions(decision("1")))
    storage.close()
    path.write_text(path.read_text().replace('"pulls": 1', '"pulls": 999'))
    assert pulls(storage) == 1
    storage.commit(decisions(decision("2")))
    assert summary(path) == {"green": {"pulls": 2}}


def test_replays_do_not_grow_the_journal(storage: JSONBanditStorage, path: Path) -> None:
    made = decision("d")
    commit = Commit((pull(made),), (earn(reward(made)),))
    storage.commit(commit)
    size = log_of(path).stat().st_size
    storage.commit(commit)
    assert log_of(path).stat().st_size == size


def test_index_spares_reading_the_journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "INDEX_BYTES", 1)
    storage = JSONBanditStorage(path)
    made = [decision(f"d{n}", ("green", "red")[n % 2], context={"n": n}) for n in range(50)]
    for one in made:
        storage.commit(Commit((pull(one),), (earn(reward(one)),)))
    storage.commit(rewards(reward(decision("later"), arm="blue")))
    expected = storage.read_counts()
    storage.close()
    parsed = []
    unframe = framing.unframe
    monkeypatch.setattr(journal, "unframe", lambda *a: parsed.append(a) or unframe(*a))  # type: ignore[func-returns-value]
    again = JSONBanditStorage(path)
    assert again.read_counts() == expected
    assert parsed == [], "only the header should be read"
    assert again.get_decisions(["d7"]) == {"d7": made[7]}
    assert again.commit(decisions(*made)).new == frozenset()
    assert again.commit(decisions(decision("later"))).unlearned
    again.close()


def test_index_is_rewritten_when_the_journal_has_doubled(
    storage: JSONBanditStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "INDEX_BYTES", 1000)
    sizes = []
    write = Replica.write_index

    def record(self: Replica) -> None:
        sizes.append(self.journal.offset)
        write(self)

    monkeypatch.setattr(Replica, "write_index", record)
    for number in range(300):
        storage.commit(decisions(decision(f"{number:03}")))
    assert 4 <= len(sizes) <= 10
    assert all(later >= 2 * sooner for sooner, later in pairwise(sizes))


def test_warns_once_above_many_decisions(
    storage: JSONBanditStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(json_file, "MANY_DECISIONS", 3)
    with caplog.at_level(logging.WARNING):
        for number in range(6):
            storage.commit(decisions(decision(str(number))))
    assert [record.getMessage().count("a storage on a database") for record in caplog.records] == [
        1
    ]


# Locks


def hold_lock(lock: Path, held: Path) -> None:
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        held.touch()
        time.sleep(PATIENCE)


def test_lock_held_by_another_process(storage: JSONBanditStorage, path: Path) -> None:
    storage.commit(decisions(decision("1")))
    lock = path.with_name(f"{path.name}.lock")
    held = path.with_name("held")
    process, connection = start_process(hold_lock, lock, held)
    deadline = time.monotonic() + PATIENCE
    while not held.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    started = time.monotonic()
    with pytest.raises(StorageTimeoutError, match=r"bandits\.json\.lock"):
        storage.commit(decisions(decision("2")), 0.1)
    assert 0.1 <= time.monotonic() - started < 5
    assert pulls(storage) == 1, "reading needs no lock"
    process.kill()
    process.join()
    process.close()
    connection.close()
    storage.commit(decisions(decision("2")), 5.0)
    assert pulls(storage) == 2


def test_lock_held_by_another_thread(storage: JSONBanditStorage) -> None:
    storage._access.lock.acquire(None)
    with pytest.raises(StorageTimeoutError, match="Another thread"):
        storage.commit(decisions(decision("1")), 0.01)
    storage._access.lock.release()
    storage.commit(decisions(decision("1")), 5.0)


def test_lock_file_removed_while_in_use(path: Path) -> None:
    one, two = JSONBanditStorage(path), JSONBanditStorage(path)
    one.commit(decisions(decision("1")))
    for first, second in ((one, two), (two, one)):
        path.with_name(f"{path.name}.lock").unlink()
        first._access.file_lock.acquire(None)
        with pytest.raises(StorageTimeoutError):
            second.commit(decisions(decision("2")), 0.01)
        first._access.file_lock.release()
    two.commit(decisions(decision("2")), 5.0)
    one.commit(decisions(decision("3")), 5.0)
    assert pulls(two) == 3
    one.close()
    two.close()
