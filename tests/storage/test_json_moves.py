"""The JSON storage: pruning while others read and write, and killing who prunes."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_bandit.errors import StorageCorruptError, StorageError
from flask_bandit.storage import JSONBanditStorage
from flask_bandit.storage.base import Commit
from flask_bandit.storage.json_file import history, journal, upkeep
from flask_bandit.storage.json_file.journal import Journal
from flask_bandit.testing.storage_arrays import seen, sums
from flask_bandit.testing.storage_moves import NEW, fill, state
from flask_bandit.testing.storage_processes import run_processes, start_process
from flask_bandit.testing.storage_samples import (
    KEY,
    decision,
    decisions,
    earn,
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


def learned_from(storage: JSONBanditStorage) -> float:
    """Return how many decisions are in the sums of terms."""
    count = sums(storage)[KEY]["green"]["s:xx"]
    assert count == [count[0], 2 * count[0], 4 * count[0]]
    return count[0]


def write(storage: JSONBanditStorage, count: int, first: int = 0) -> None:
    """Write decisions of a minute each, with details, and a reward for each."""
    for number in range(first, first + count):
        made = decision(f"d{number}", at=60.0 * number, context={"secret": number}, subject="me")
        storage.commit(Commit((seen(made, (1.0, 2.0)),), (earn(reward(made)),)))


# What is in the file


def test_details_are_gone_from_the_disk(storage: JSONBanditStorage, path: Path) -> None:
    write(storage, 10)
    before = log_of(path).stat()
    assert storage.prune(300.0) == 5
    storage.close()
    text = log_of(path).read_text()
    assert text.count('"secret"') == text.count('"subject"') == 5
    # One for each commit, the header, and the sums.
    assert len(text.splitlines()) == 12
    after = log_of(path).stat()
    assert after.st_size < before.st_size
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert sorted(os.listdir(path.parent)) == [
        f"{path.name}{suffix}" for suffix in ("", ".lock", ".log")
    ]


def test_a_journal_without_old_decisions_stays_the_same_file(
    storage: JSONBanditStorage, path: Path
) -> None:
    write(storage, 3)
    before = log_of(path).stat().st_ino, log_of(path).read_bytes()
    assert storage.prune(0.0) == storage.prune(float("nan")) == 0
    assert (log_of(path).stat().st_ino, log_of(path).read_bytes()) == before
    assert not path.with_name(f"{path.name}.log.tmp").exists()


def test_pruning_nothing_creates_nothing(storage: JSONBanditStorage, path: Path) -> None:
    assert storage.prune(1e12) == 0
    assert list(storage.iter_commits()) == []
    assert os.listdir(path.parent) == []


def test_rights_are_kept_and_a_link_stays_a_link(storage: JSONBanditStorage, path: Path) -> None:
    write(storage, 3)
    storage.close()
    elsewhere = path.with_name("elsewhere.log")
    log_of(path).rename(elsewhere)
    elsewhere.chmod(0o640)
    log_of(path).symlink_to(elsewhere)
    assert storage.prune(1e12) == 3
    assert log_of(path).is_symlink()
    assert elsewhere.stat().st_mode & 0o777 == 0o640
    write(storage, 1, first=3)
    assert pulls(JSONBanditStorage(path)) == 4


def test_twice_and_go_on(storage: JSONBanditStorage, path: Path) -> None:
    write(storage, 10)
    for number in range(1, 6):
        assert storage.prune(60.0 * number) == 1
        write(storage, 1, first=9 + number)
        fresh = JSONBanditStorage(path)
        assert state(fresh) == state(storage)
        assert learned_from(fresh) == learned_from(storage) == 10 + number
        fresh.close()
    assert pulls(storage) == 15


@pytest.mark.parametrize("index", [1, 1 << 20])
def test_index_fits_the_pruned_journal(
    storage: JSONBanditStorage, path: Path, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "INDEX_BYTES", index)
    fill(storage)
    storage.prune(NEW)
    expected = state(storage)
    assert path.with_name(f"{path.name}.index").exists() == (index == 1)
    again = JSONBanditStorage(path)
    assert state(again) == expected
    again.close()
    path.with_name(f"{path.name}.index").unlink(missing_ok=True)
    again = JSONBanditStorage(path)
    assert state(again) == expected
    again.close()


# Others that have the files open


def test_others_go_on_with_the_pruned_journal(storage: JSONBanditStorage, path: Path) -> None:
    fill(storage)
    reader, writer, idle = (JSONBanditStorage(path) for _ in range(3))
    for other in (reader, writer, idle):
        assert other.read_counts() == storage.read_counts()
    assert storage.prune(1e12) == 4
    assert state(reader) == state(storage)
    assert writer.commit(decisions(decision("after"))).new == {"after"}
    assert storage.prune(2e12) == writer.prune(2e12) + 1 == 1
    assert state(reader) == state(storage)
    # Two prunes and a commit later.
    assert idle.commit(rewards(reward(decision("after")))).new == {"after:reward"}
    for other in (storage, reader, writer, idle):
        assert state(other) == state(storage)
        other.close()


def test_a_late_writer_that_was_pruned_meanwhile_counts_once(
    storage: JSONBanditStorage, path: Path
) -> None:
    write(storage, 5)
    other = JSONBanditStorage(path)
    assert pulls(other) == 5
    storage.prune(1e12)
    write(other, 5)
    assert pulls(other) == pulls(storage) == pulls(JSONBanditStorage(path)) == 5
    other.close()


def test_iterators_finish_on_the_old_file(storage: JSONBanditStorage) -> None:
    write(storage, 10)
    begun, not_begun = storage.iter_log(), storage.iter_log()
    commits, not_begun_commits = storage.iter_commits(), storage.iter_commits()
    first, first_commit = next(begun), next(commits)
    expected = list(storage.iter_log()), list(storage.iter_commits())
    assert storage.prune(1e12) == 10
    assert [first, *begun] == list(not_begun) == expected[0]
    assert [first_commit, *commits] == list(not_begun_commits) == expected[1]
    assert list(storage.iter_log()) == []


def test_iterators_give_their_files_back(storage: JSONBanditStorage) -> None:
    write(storage, 3)
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        for log in (storage.iter_log(), storage.iter_commits()):
            next(iter(log), None)
        storage.iter_log()
        list(storage.iter_commits())
        storage.prune(0.0)
    assert len(os.listdir("/proc/self/fd")) <= files + 2


def test_an_older_backup_is_not_taken_for_a_pruned_journal(
    storage: JSONBanditStorage, path: Path, tmp_path: Path
) -> None:
    write(storage, 5)
    backup = log_of(path).read_bytes()
    storage.prune(120.0)
    write(storage, 5, first=5)
    storage.close()
    assert pulls(storage) == 10
    (tmp_path / "old").write_bytes(backup)
    os.replace(tmp_path / "old", log_of(path))
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match="was replaced"):
            storage.read_counts()
        with pytest.raises(StorageCorruptError, match="was replaced"):
            storage.commit(decisions(decision("x")))
    # Nor by a new process: the readable file knows that there was more.
    with pytest.raises(StorageCorruptError, match="6 whole lines, and 12 were there"):
        JSONBanditStorage(path).read_counts()


def test_a_pruned_journal_that_lacks_commits_is_refused(
    storage: JSONBanditStorage, path: Path, tmp_path: Path
) -> None:
    """A backup was restored elsewhere and pruned there: it knows less than this process."""
    write(storage, 5)
    other = JSONBanditStorage(tmp_path / "other.json")
    log_of(tmp_path / "other.json").write_bytes(log_of(path).read_bytes())
    assert other.prune(1e12) == 5
    other.close()
    write(storage, 1, first=5)
    os.replace(tmp_path / "other.json.log", log_of(path))
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match="was replaced"):
            storage.read_counts()
        with pytest.raises(StorageCorruptError, match="was replaced"):
            write(storage, 1, first=6)


# What fails


def test_failing_in_between_changes_nothing(
    storage: JSONBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(storage, 5)
    complete, content = state(storage), log_of(path).read_bytes()
    real: Callable[..., int] = os.write

    def full(fd: int, data: bytes) -> int:
        return real(fd, data[:10]) if b'"d3"' in data else real(fd, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="full"):
        storage.prune(1e12)
    monkeypatch.undo()

    def refuse(*args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    for name in ("replace", "chmod", "truncate", "fsync"):
        monkeypatch.setattr(os, name, refuse)
        with pytest.raises(StorageError, match="ot permitted"):
            storage.prune(1e12)
        monkeypatch.undo()
        assert log_of(path).read_bytes() == content
        assert state(storage) == complete
        assert not path.with_name(f"{path.name}.log.tmp").exists()
    assert storage.prune(1e12) == 5


def test_directory_that_cannot_be_synced(
    storage: JSONBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is pruned, but a power failure may undo it: the caller is told, and goes on."""
    write(storage, 5)

    def refuse(folder: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(journal, "sync_directory", refuse)
    with pytest.raises(StorageError, match="Input/output"):
        storage.prune(1e12)
    monkeypatch.undo()
    write(storage, 6)
    assert pulls(storage) == pulls(JSONBanditStorage(path)) == 6
    assert [entry.decision.id for entry in storage.iter_log()] == ["d5"]
    assert storage.prune(1e12) == 1


def test_replaced_by_a_copy_while_it_is_pruned(
    storage: JSONBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits that went to the copy are not in the file that is being read: nothing is lost."""
    write(storage, 5)
    other = JSONBanditStorage(path)
    copy = history.Rewriting.copy

    def meanwhile(self: history.Rewriting, end: int) -> None:
        monkeypatch.undo()
        copy(self, end)
        path.with_name("copy").write_bytes(log_of(path).read_bytes())
        os.replace(path.with_name("copy"), log_of(path))
        write(other, 1, first=5)

    monkeypatch.setattr(history.Rewriting, "copy", meanwhile)
    with pytest.raises(StorageError, match="Try again"):
        storage.prune(1e12)
    assert pulls(storage) == pulls(other) == 6
    assert storage.prune(1e12) == 6
    other.close()


def test_commits_go_on_while_the_log_is_rewritten(
    storage: JSONBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(storage, 5)
    other = JSONBanditStorage(path)
    copy = history.Rewriting.copy

    def meanwhile(self: history.Rewriting, end: int) -> None:
        monkeypatch.undo()
        write(other, 1, first=5)
        copy(self, end)
        write(other, 1, first=6)
        assert self.count == 5

    monkeypatch.setattr(history.Rewriting, "copy", meanwhile)
    assert storage.prune(1e12) == 7
    assert pulls(other) == pulls(storage) == 7
    assert learned_from(other) == learned_from(storage) == 7
    assert list(other.iter_log()) == []
    other.close()


# Many processes


def write_many(path: Path, worker: int, count: int) -> None:
    storage = JSONBanditStorage(path)
    for number in range(count):
        made = decision(f"w{worker}-{number}", at=float(number), context={"n": number})
        storage.commit(Commit((seen(made, (1.0, 2.0)),)), PATIENCE)
        assert storage.commit(rewards(reward(made)), PATIENCE).new == {f"{made.id}:reward"}
        if number % 50 == 0:
            assert storage.get_decisions([made.id])[made.id].arm == "green"
            assert len(list(storage.iter_commits())) > number
    storage.close()


def prune_until(path: Path, total: int) -> None:
    """Prune a little more each time until all is written; two share what there is to prune."""
    storage = JSONBanditStorage(path)
    before = 0.0
    deadline = time.monotonic() + PATIENCE
    while pulls(storage) < total:
        assert time.monotonic() < deadline
        storage.prune(before)
        before += 5
    storage.close()


def test_writers_lose_nothing_while_two_prune(path: Path) -> None:
    """Four writers and two who prune all the time: exact counts, from whoever asks."""
    run_processes(_write_or_prune, [(path, n) for n in range(6)])
    storage = JSONBanditStorage(path)
    row = storage.read_counts()[KEY]["green"]
    assert (row["pulls"], row["rewards"], learned_from(storage)) == (2000, 2000, 2000)
    assert storage.prune(1e12) + storage.prune(1e12) < 2000, "nothing was pruned meanwhile"
    commits = [commit for commit in storage.iter_commits() if commit.decisions]
    assert len({c.decisions[0].decision.id for c in commits}) == len(commits) == 2000
    assert all(len(commit.rewards) == 1 for commit in commits)
    header = json.loads(log_of(path).read_bytes().split(b"\n")[0])[2]
    assert header["prunes"] >= 2
    storage.close()


def _write_or_prune(path: Path, worker: int) -> None:
    if worker < 4:
        write_many(path, worker, 500)
    else:
        prune_until(path, 2000)


def prune_forever(path: Path, first: int) -> None:
    storage = JSONBanditStorage(path)
    for number in range(first, 1_000_000):
        storage.prune(60.0 * number)


def kill_while_pruning(path: Path, first: int, chance: random.Random) -> None:
    """Kill who prunes at any moment, mostly after some prunes."""
    process, connection = start_process(prune_forever, path, first)
    deadline = time.monotonic() + PATIENCE
    for _ in range(chance.randint(0, 3)):
        inode = log_of(path).stat().st_ino
        while log_of(path).stat().st_ino == inode:
            assert process.is_alive(), connection.recv()
            assert time.monotonic() < deadline
            time.sleep(0.0005)
    time.sleep(chance.random() * 0.02)
    process.kill()
    process.join()
    process.close()
    connection.close()


def test_killed_while_pruning(path: Path) -> None:
    """After each of 30 kills all is there, once, for old processes and new ones."""
    storage = JSONBanditStorage(path)
    write(storage, 400)
    chance = random.Random(3)
    pruned = 0
    for written in range(400, 430):
        kill_while_pruning(path, pruned + 1, chance)
        write(storage, 1, first=written)
        fresh = JSONBanditStorage(path)
        assert pulls(fresh) == pulls(storage) == written + 1
        assert learned_from(fresh) == learned_from(storage) == written + 1
        left = [entry.decision for entry in fresh.iter_log()]
        # What is pruned is an old part of the log, and what was pruned stays so.
        assert written + 1 - len(left) >= pruned
        pruned = written + 1 - len(left)
        assert [one.id for one in left] == [f"d{n}" for n in range(pruned, written + 1)]
        assert all(one.context for one in left)
        fresh.close()
    assert pruned >= 30
    storage.close()


def test_the_pruned_header_is_read_by_its_kind(storage: JSONBanditStorage, path: Path) -> None:
    """A pruned journal that is cut inside its first line is not taken for a new one."""
    write(storage, 2)
    storage.prune(1e12)
    storage.close()
    content = log_of(path).read_bytes()
    assert Journal(str(log_of(path))).open()
    for size in range(content.index(b"\n")):
        log_of(path).write_bytes(content[:size])
        with pytest.raises(StorageCorruptError):
            JSONBanditStorage(path).commit(decisions(decision("x")))
