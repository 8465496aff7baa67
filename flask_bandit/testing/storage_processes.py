"""The part of ``StorageSuite`` with several threads or processes, and what runs in them.

Children come from a fork server, which has no threads and has imported this module already.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from ..model import StatsDelta, Term
from ..storage.base import BanditStorage, Commit, DecisionWrite
from .storage_samples import KEY, decision, decisions, earn, pull, reward, rewards

StorageFactory = Callable[[Path], BanditStorage]
_F = TypeVar("_F", bound=Callable[..., Any])

PATIENCE = 60.0
"""Seconds after which a test on a busy machine gives up; none takes a tenth of it when idle."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def needs_shared(test: _F) -> _F:
    """Mark a test that only a storage with ``shared = True`` has."""
    test.__dict__["needs_shared"] = True
    return test


def needs_durable(test: _F) -> _F:
    """Mark a test that only a storage with ``durable = True`` has."""
    test.__dict__["needs_durable"] = True
    return test


def start_process(work: Callable[..., None], *args: Any) -> tuple[BaseProcess, Connection]:
    """Run ``work(*args)`` in another process; the connection tells how it ended."""
    process, connection = _prepare_process(work, args)
    _let_go(connection)
    return process, connection


def _prepare_process(
    work: Callable[..., None], args: tuple[Any, ...]
) -> tuple[BaseProcess, Connection]:
    ours, theirs = _context.Pipe()
    process = _context.Process(target=_report, args=(theirs, work, args))
    process.start()
    theirs.close()
    return process, ours


def _let_go(connection: Connection) -> None:
    assert connection.poll(PATIENCE), "a process did not start in time"
    assert connection.recv() == "ready"
    connection.send("go")


def _report(connection: Connection, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    connection.send("ready")
    connection.recv()
    try:
        work(*args)
    except BaseException:
        connection.send(traceback.format_exc())
    else:
        connection.send(None)


def run_processes(work: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Run ``work`` once per tuple of arguments, at the same time.

    :raises AssertionError: with the traceback of one that failed
    """
    started = [_prepare_process(work, args) for args in arguments]
    # All of them have started before the first one works, or they would not meet.
    for _, connection in started:
        assert connection.poll(PATIENCE), "a process did not start in time"
    for _, connection in started:
        _let_go(connection)
    failures = []
    for process, connection in started:
        outcome = connection.recv() if connection.poll(PATIENCE) else "no answer in time"
        if outcome is not None:
            failures.append(outcome)
        connection.close()
        process.join(PATIENCE)
        process.close()
    assert not failures, f"{len(failures)} processes failed, the first with:\n{failures[0]}"


def kill_after(size: int, diary: Path, work: Callable[..., None], *args: Any) -> None:
    """Run ``work(*args)`` in a process, and kill it -9 once ``diary`` has ``size`` bytes."""
    process, connection = start_process(work, *args)
    deadline = time.monotonic() + PATIENCE
    while diary.stat().st_size < size:
        assert process.is_alive(), connection.recv()
        assert time.monotonic() < deadline, "the writer does not write"
        time.sleep(0.0005)
    process.kill()
    process.join()
    process.close()
    connection.close()


def write_own(make: StorageFactory, location: Path, worker: int, count: int) -> None:
    """Write ``count`` decisions and rewards that nobody else writes, in two commits each."""
    storage = make(location)
    for number in range(count):
        made = decision(f"w{worker}-{number}", ("green", "red")[number % 2])
        storage.commit(decisions(made), PATIENCE)
        storage.commit(rewards(reward(made)), PATIENCE)
    storage.close()


def replay_all(make: StorageFactory, location: Path, count: int) -> None:
    """Send the same ``count`` rewards, with their decisions, as every other process does."""
    storage = make(location)
    for number in range(count):
        made = decision(f"d{number}")
        # Without a deadline, which may be another code path.
        result = storage.commit(Commit((pull(made),), (earn(reward(made)),)))
        assert result.decisions[made.id] == made
    storage.close()


def write_one(make: StorageFactory, location: Path, id_: str) -> None:
    """Write one decision and close the storage."""
    storage = make(location)
    storage.commit(decisions(decision(id_)), PATIENCE)
    storage.close()


def write_until_killed(make: StorageFactory, location: Path, diary: Path, first: int) -> None:
    """Write one after the other, noting before and after each commit."""
    storage = make(location)
    with diary.open("ab", buffering=0) as notes:
        for number in range(first, first + 1_000_000):
            notes.write(b"sent %d\n" % number)
            made = decision(f"k{number}")
            delta = pull(made).delta + StatsDelta({}, (Term("green", "s:xx", (1.0, 2.0), True),))
            write = DecisionWrite(made, delta)
            storage.commit(Commit((write,), (earn(reward(made)),)), PATIENCE)
            notes.write(b"done %d\n" % number)


def fork_and_write(make: StorageFactory, location: Path, children: int, count: int) -> None:
    """Use a storage before and after a fork, in the parent and in the children at once."""
    storage = make(location)
    storage.commit(decisions(decision("before the fork")), PATIENCE)
    pids = []
    for child in range(children):
        pid = os.fork()
        if pid == 0:
            os._exit(_write_forked(storage, child, count))
        pids.append(pid)
    assert _write_forked(storage, children, count) == 0
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    assert statuses == [0] * children, statuses
    storage.close()


def _write_forked(storage: BanditStorage, child: int, count: int) -> int:
    """Write ``count`` decisions; an exit code."""
    try:
        for number in range(count):
            storage.commit(decisions(decision(f"f{child}-{number}")), PATIENCE)
        storage.close()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


class ProcessTests:
    """What must hold for a storage that several threads and processes share."""

    commits_per_process: int = 1000
    """How many decisions, and as many rewards, each of eight processes writes at once; fewer for a
    storage that takes longer than a minute for them."""

    def make_storage(self, location: Path) -> BanditStorage:
        """Open the storage kept at ``location``."""
        raise NotImplementedError

    def _total(self, location: Path) -> dict[str, float]:
        total: dict[str, float] = {"pulls": 0, "rewards": 0, "reward": 0}
        storage = self.make_storage(location)
        for row in storage.read_counts()[KEY].values():
            for name in total:
                total[name] += row.get(name, 0)
        storage.close()
        return total

    def test_threads(self, storage: BanditStorage) -> None:
        """Eight threads share one object; half of what they send is a replay."""
        failures: list[BaseException] = []

        def work(worker: int) -> None:
            try:
                for number in range(100):
                    for made in (decision(f"w{worker}-{number}"), decision(f"all-{number}")):
                        storage.commit(Commit((pull(made),), (earn(reward(made)),)), PATIENCE)
                        assert storage.read_counts(PATIENCE)[KEY]["green"]["pulls"] > 0
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        row = storage.read_counts()[KEY]["green"]
        assert (row["pulls"], row["rewards"]) == (900, 900)

    @needs_shared
    def test_processes_lose_no_count(self, tmp_path: Path) -> None:
        count = self.commits_per_process
        run_processes(write_own, [(self.make_storage, tmp_path, n, count) for n in range(8)])
        total = self._total(tmp_path)
        assert total == {"pulls": 8 * count, "rewards": 8 * count, "reward": 8 * count}

    @needs_shared
    def test_processes_that_replay_count_once(self, tmp_path: Path) -> None:
        run_processes(replay_all, [(self.make_storage, tmp_path, 300)] * 8)
        total = self._total(tmp_path)
        assert total == {"pulls": 300, "rewards": 300, "reward": 300}

    @needs_shared
    def test_other_process_is_seen(self, tmp_path: Path) -> None:
        storage = self.make_storage(tmp_path)
        storage.commit(decisions(decision("mine")))
        before = storage.read_counts()
        run_processes(write_one, [(self.make_storage, tmp_path, "theirs")])
        assert before[KEY] == {"green": {"pulls": 1}}
        assert storage.read_counts()[KEY] == {"green": {"pulls": 2}}
        assert set(storage.get_decisions(["mine", "theirs"])) == {"mine", "theirs"}
        assert [entry.decision.id for entry in storage.iter_log()] == ["mine", "theirs"]
        storage.close()

    @needs_shared
    def test_object_made_before_a_fork(self, tmp_path: Path) -> None:
        run_processes(fork_and_write, [(self.make_storage, tmp_path, 3, 50)])
        assert self._total(tmp_path)["pulls"] == 1 + 4 * 50

    @needs_shared
    def test_killed_while_writing(self, tmp_path: Path) -> None:
        """Acknowledged <= stored <= sent, and it opens, after each of 50 kills."""
        diary = tmp_path / "diary.txt"
        chance = random.Random(20)
        first = total = 0
        for _ in range(50):
            diary.write_bytes(b"")
            arguments = (self.make_storage, tmp_path, diary, first)
            kill_after(chance.randint(0, 2000), diary, write_until_killed, *arguments)
            notes = [line.split() for line in diary.read_text().splitlines()]
            sent = {f"k{number}" for word, number in notes if word == "sent"}
            acknowledged = {f"k{number}" for word, number in notes if word == "done"}
            storage = self.make_storage(tmp_path)
            candidates = [f"k{number}" for number in range(first, first + len(sent) + 5)]
            stored = set(storage.get_decisions(candidates))
            assert acknowledged <= stored <= sent
            total += len(stored)
            row = storage.read_counts().get(KEY, {}).get("green", {})
            assert row.get("pulls", 0) == row.get("rewards", 0) == total
            arrays = storage.read_arrays().get(KEY, {}).get("green", {})
            assert [one.tolist() for one in arrays.values()] == [[total, 2 * total, 4 * total]] * (
                total > 0
            )
            storage.close()
            first += len(sent)
        assert total > 50, "the writers were killed before they wrote anything"
