"""The SQLite storage when the system refuses, others hold the file, or processes are killed."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from flask_bandit.errors import StorageCorruptError, StorageError, StorageTimeoutError
from flask_bandit.storage import SQLiteBanditStorage
from flask_bandit.storage.base import Commit
from flask_bandit.storage.sqlite import storage as sqlite
from flask_bandit.testing.storage_processes import (
    PATIENCE,
    run_processes,
    start_process,
    write_until_killed,
)
from flask_bandit.testing.storage_samples import KEY, decision, decisions, earn, pull, reward

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bandits.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SQLiteBanditStorage]:
    storage = SQLiteBanditStorage(path)
    yield storage
    storage.close()


def pulls(storage: SQLiteBanditStorage) -> float:
    return storage.read_counts().get(KEY, {}).get("green", {}).get("pulls", 0)


# No room


def large(number: int) -> Commit:
    """A commit of about 40 kB."""
    return decisions(
        *(decision(f"{number}-{part}", context={"x": "y" * 4000}) for part in range(10))
    )


def commit_until_refused(storage: SQLiteBanditStorage) -> int:
    """Commit until there is no room; return how many were acknowledged, ten decisions each."""
    number, refused = 0, -1
    while True:
        try:
            storage.commit(large(number))
            number += 1
        except StorageError as error:
            says_why = "make room" in str(error) or "file size limit" in str(error)
            if not says_why or storage.path not in str(error):
                raise
            # The second time in a row: what is in the log was moved into the database meanwhile.
            if refused == number:
                return number
            refused = number


def resumes(storage: SQLiteBanditStorage, acknowledged: int) -> None:
    assert storage.commit(large(acknowledged)).new == {f"{acknowledged}-{n}" for n in range(10)}
    assert pulls(storage) == 10 * (acknowledged + 1)
    assert storage.check() == []
    assert len(list(storage.iter_log())) == 10 * (acknowledged + 1)


def reach_the_file_size_limit(path: Path) -> None:
    storage = SQLiteBanditStorage(path)
    storage.commit(decisions())
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    acknowledged = commit_until_refused(storage)
    assert acknowledged > 5
    assert pulls(storage) == 10 * acknowledged
    assert SQLiteBanditStorage(path).read_counts() == storage.read_counts()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    resumes(storage, acknowledged)
    storage.close()


def test_file_size_limit(path: Path) -> None:
    run_processes(reach_the_file_size_limit, [(path,)])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_disk_full(small_disk: Path) -> None:
    storage = SQLiteBanditStorage(small_disk / "bandits.db")
    storage.commit(decisions())
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    acknowledged = commit_until_refused(storage)
    assert acknowledged > 2
    assert pulls(storage) == 10 * acknowledged, "what is stored can be read"
    with pytest.raises(StorageError, match="make room"):
        storage.commit(large(acknowledged))
    ballast.unlink()
    resumes(storage, acknowledged)
    storage.close()


def test_disk_full_at_the_first_commit(small_disk: Path) -> None:
    ballast = (small_disk / "ballast").open("wb", buffering=0)
    with ballast, contextlib.suppress(OSError):
        while ballast.write(bytes(4096)):
            pass
    storage = SQLiteBanditStorage(small_disk / "bandits.db")
    for _ in range(2):
        with pytest.raises(StorageError, match="bandits.db"):
            storage.commit(decisions(decision("1")))
    (small_disk / "ballast").unlink()
    assert storage.commit(decisions(decision("1"))).new == {"1"}
    storage.close()


# Files that cannot be used


def as_nobody(work: partial[None]) -> None:
    """Call ``work`` without the rights of root."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        work()
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


def refuse_to_write(path: Path, words: str, readable: bool) -> None:
    storage = SQLiteBanditStorage(path)
    for _ in range(2):
        with pytest.raises(StorageError, match=words) as caught:
            storage.commit(decisions(decision("2")))
        assert str(path) in str(caught.value)
    (problem,) = storage.check()
    assert words in problem
    if readable:
        assert pulls(storage) == 1
    storage.close()


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "readable"),
    [(0o444, 0o777, True), (0o666, 0o555, False), (0o000, 0o777, False)],
)
def test_files_without_permission(
    tmp_path: Path, file_mode: int, folder_mode: int, readable: bool
) -> None:
    for folder in tmp_path.parents[:3]:
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "bandits.db"
    storage = SQLiteBanditStorage(path)
    storage.commit(decisions(decision("1")))
    storage.close()
    path.chmod(file_mode)
    folder.chmod(folder_mode)
    work = partial(refuse_to_write, path, "let this process", readable)
    run_processes(as_nobody, [(work,)])
    folder.chmod(0o777)
    path.chmod(0o666)
    assert pulls(storage) == 1
    storage.close()


def test_directory_missing(tmp_path: Path) -> None:
    storage = SQLiteBanditStorage(tmp_path / "no" / "bandits.db")
    for _ in range(2):
        with pytest.raises(StorageError, match=f"{tmp_path}/no does not exist: create it"):
            storage.commit(decisions(decision("1")))
    (tmp_path / "no").mkdir()
    storage.commit(decisions(decision("1")))
    storage.close()


def test_directory_in_place_of_the_file(tmp_path: Path) -> None:
    storage = SQLiteBanditStorage(tmp_path)
    with pytest.raises(StorageError, match="is a directory"):
        storage.read_counts()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"no database", b'{"bandits": {}}\n' * 1000, b"SQLite format 3\x00" + b"\xff" * 5000],
)
def test_no_database(storage: SQLiteBanditStorage, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match="bandits.db is"):
            storage.commit(decisions(decision("1")))
        with pytest.raises(StorageCorruptError, match="bandits.db is"):
            storage.read_counts()
    assert [str(path) in problem for problem in storage.check()] == [True]
    assert path.read_bytes() == content


def test_damaged_pages(path: Path) -> None:
    storage = SQLiteBanditStorage(path)
    storage.commit(decisions(*(decision(f"d{n}") for n in range(2000))))
    storage.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096 * 20)
        file.write(os.urandom(size - 4096 * 40))
    before = path.read_bytes()
    with pytest.raises(StorageCorruptError, match="bandits.db is damaged.*backup"):
        list(storage.iter_log())
    with pytest.raises(StorageCorruptError, match="bandits.db is damaged"):
        storage.get_decisions([f"d{number}" for number in range(2000)])
    problems = storage.check()
    assert problems
    assert all(str(path) in problem for problem in problems)
    storage.close()
    assert path.read_bytes() == before


# The file changed under a running process


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_file_changed_while_in_use(
    storage: SQLiteBanditStorage, path: Path, tmp_path: Path, what: str
) -> None:
    storage.commit(decisions(decision("1")))
    if what == "removed":
        path.unlink()
    else:
        shutil.copy(path, tmp_path / "copy.db")
        os.replace(tmp_path / "copy.db", path)
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match=f"was {what} while"):
            storage.commit(decisions(decision("2")))
        with pytest.raises(StorageCorruptError, match=f"was {what} while"):
            storage.read_counts()
    assert len(storage.check()) == 1
    assert path.exists() == (what == "replaced")


def test_closing_leaves_the_log_of_the_new_file(
    storage: SQLiteBanditStorage, path: Path, tmp_path: Path
) -> None:
    """SQLite removes the write-ahead log by its name when the last connection closes."""
    storage.commit(decisions(decision("1")))
    for part in ("", "-wal", "-shm"):
        os.rename(f"{path}{part}", f"{tmp_path}/old.db{part}")
    new = SQLiteBanditStorage(path)
    new.commit(decisions(decision("new")))
    storage.close()
    assert path.with_name("bandits.db-wal").exists()
    assert pulls(new) == 1
    new.close()


def forked_after_the_file_was_removed(path: Path) -> None:
    """The fork closes the connection, and nothing may be forgotten with it."""
    storage = SQLiteBanditStorage(path)
    storage.commit(decisions(decision("1")))
    path.unlink()
    pid = os.fork()
    if pid == 0:
        try:
            storage.commit(decisions(decision("2")))
        except StorageCorruptError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(StorageCorruptError, match="was removed"):
        storage.commit(decisions(decision("2")))
    assert not path.exists()


def test_fork_after_the_file_was_removed(path: Path) -> None:
    run_processes(forked_after_the_file_was_removed, [(path,)])


def test_restored_into_the_file_in_place(storage: SQLiteBanditStorage, path: Path) -> None:
    storage.commit(decisions(decision("1")))
    with (
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(path.with_name("backup.db"))) as backup,
    ):
        source.backup(backup)
        storage.commit(decisions(decision("2")))
        backup.backup(source)
    assert pulls(storage) == 1
    storage.commit(decisions(decision("3")))
    assert pulls(storage) == 2


# Locked by others


def hold_the_file(path: Path, locked: Path, release: Path, begin: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute(begin)
        connection.execute("UPDATE bandit_counts SET value = value")
        locked.touch()
        deadline = time.monotonic() + PATIENCE
        while not release.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        connection.execute("ROLLBACK")


@pytest.fixture
def holder(path: Path, tmp_path: Path) -> Iterator[Path]:
    """Another process holds the file until the file that is given here exists."""
    storage = SQLiteBanditStorage(path)
    storage.commit(decisions(decision("0")))
    storage.close()
    locked, release = tmp_path / "locked", tmp_path / "release"
    process, connection = start_process(hold_the_file, path, locked, release, "BEGIN EXCLUSIVE")
    deadline = time.monotonic() + PATIENCE
    while not locked.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    yield release
    release.touch()
    assert connection.recv() is None
    process.join(PATIENCE)
    process.close()
    connection.close()


def test_deadline_while_another_process_holds_the_file(
    storage: SQLiteBanditStorage, holder: Path
) -> None:
    for timeout in (0.0, 0.2):
        for call in (
            partial(storage.commit, decisions(decision("1")), timeout),
            partial(storage.read_counts, timeout),
            partial(storage.get_decisions, ["0"], timeout),
        ):
            started = time.monotonic()
            with pytest.raises(StorageTimeoutError, match="kept .*bandits.db locked"):
                call()
            assert timeout <= time.monotonic() - started < timeout + 2.0
    holder.touch()
    assert storage.commit(decisions(decision("1")), PATIENCE).new == {"1"}
    assert pulls(storage) == 2


def test_commands_wait(storage: SQLiteBanditStorage, holder: Path) -> None:
    timer = threading.Timer(1.0, holder.touch)
    timer.start()
    storage.commit(decisions(decision("1")))
    assert holder.exists()
    assert pulls(storage) == 2
    timer.join()


def test_deadline_while_another_thread_holds_the_connection(storage: SQLiteBanditStorage) -> None:
    storage.commit(decisions(decision("1")))
    inside, release = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        inside.set()
        release.wait(PATIENCE)

    thread = threading.Thread(target=lambda: storage._file.read(hold, None))
    thread.start()
    inside.wait(PATIENCE)
    started = time.monotonic()
    with pytest.raises(StorageTimeoutError, match="Another thread"):
        storage.commit(decisions(decision("2")), 0.1)
    assert time.monotonic() - started < 2.0
    release.set()
    thread.join()
    assert storage.commit(decisions(decision("2")), 5.0).new == {"2"}


def test_threads_read_while_one_waits_for_another_process(
    storage: SQLiteBanditStorage, path: Path
) -> None:
    storage.commit(decisions(decision("1")))
    results: list[frozenset[str]] = []
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(
            target=lambda: results.append(storage.commit(decisions(decision("2"))).new)
        )
        thread.start()
        for _ in range(100):
            assert storage.read_counts(1.0)[KEY] == {"green": {"pulls": 1}}
        assert not results
        other.execute("ROLLBACK")
        thread.join(PATIENCE)
    assert results == [{"2"}]


# Interrupted and killed


def test_interrupted_in_a_transaction(
    storage: SQLiteBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.commit(decisions(decision("1")))

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sqlite, "settle", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.commit(decisions(decision("2")))
    monkeypatch.undo()
    other = SQLiteBanditStorage(path)
    assert other.commit(decisions(decision("2")), 5.0).new == {"2"}
    assert pulls(storage) == 2
    other.close()


class RestlessStorage(SQLiteBanditStorage):
    """Moves its log into the database every few commits, so that kills hit that too."""

    def _configure(self, connection: sqlite3.Connection) -> None:
        super()._configure(connection)
        connection.execute("PRAGMA wal_autocheckpoint = 24").fetchone()


def make_restless(location: Path) -> RestlessStorage:
    return RestlessStorage(location / "bandits.db")


def kill_a_writer(diary: Path, location: Path, first: int, size: int) -> None:
    """Kill a writer -9 once it has noted at least ``size`` bytes."""
    process, connection = start_process(write_until_killed, make_restless, location, diary, first)
    deadline = time.monotonic() + PATIENCE
    while diary.stat().st_size < size:
        assert process.is_alive(), connection.recv()
        assert time.monotonic() < deadline, "the writer does not write"
        time.sleep(0.0002)
    process.kill()
    process.join()
    process.close()
    connection.close()


def test_killed_200_times(tmp_path: Path) -> None:
    """Acknowledged <= stored <= sent, and the file is whole, after each of 200 kills."""
    diary = tmp_path / "diary.txt"
    chance = random.Random(7)
    first = total = cut_short = 0
    for _ in range(200):
        diary.write_bytes(b"")
        kill_a_writer(diary, tmp_path, first, chance.randint(0, 700))
        notes = [line.split() for line in diary.read_text().splitlines()]
        sent = {f"k{number}" for word, number in notes if word == "sent"}
        acknowledged = {f"k{number}" for word, number in notes if word == "done"}
        storage = make_restless(tmp_path)
        stored = set(storage.get_decisions([f"k{n}" for n in range(first, first + len(sent) + 5)]))
        assert acknowledged <= stored <= sent
        cut_short += acknowledged != sent
        total += len(stored)
        row = storage.read_counts().get(KEY, {}).get("green", {})
        assert row.get("pulls", 0) == row.get("rewards", 0) == total
        assert storage.check() == []
        storage.close()
        first += len(sent)
    assert total > 200
    assert cut_short > 20, "hardly any kill came in the middle of a commit"


def test_replay_after_a_lost_answer(storage: SQLiteBanditStorage, path: Path) -> None:
    """The connection breaks after the commit: what is sent again counts once."""
    made = decision("1")
    commit = Commit((pull(made),), (earn(reward(made)),))
    storage.commit(commit)
    lost = storage._file

    def answer_is_lost(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StorageError, match="disk I/O error"):
        lost.read(answer_is_lost, None)
    assert storage.commit(commit).new == frozenset()
    assert pulls(storage) == 1
