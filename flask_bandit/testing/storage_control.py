"""The part of ``StorageSuite`` about what operators decide: stored by comparing and swapping."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..errors import StorageError
from ..storage.base import BanditStorage, ControlState
from .storage_moves import fill, state
from .storage_processes import (
    PATIENCE,
    StorageFactory,
    kill_after,
    needs_durable,
    needs_shared,
    run_processes,
)
from .storage_samples import BANDIT

STATE: dict[str, Any] = {
    "state": "declared",
    "winner": "zöld 👩‍👩‍👧‍👦",
    "weights": {"green": 0.1, "red": 1 / 3, "אדום": 1e-300, "": 2},
    "flags": [True, False, None, 0, 1, 0.0, 1.0, -1.5, "", [], {}, [[{"deep": [1]}]]],
    "at": 1_700_000_000.25,
    "largest": 2**63 - 1,
    "text": "a\"b\\c\n\t\x00'%s {0} \u2028",
}


NAMES = [
    "a",
    "A",
    "ä",
    "a\u0308",
    "颜色按钮",
    "👩‍👩‍👧‍👦",
    'a"b\\c',
    "a:b{c}|d/e%f",
    "' OR 1=1",
    " ",
]


def _itself() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["itself"] = inner
    return inner


REFUSED: dict[str, Any] = {
    "set": {"arms": {"green"}},
    "nan": {"weights": {"green": float("nan")}},
    "infinity": {"at": [float("-inf")]},
    "key": {"by version": {1: "one"}},
    "surrogate": {"winner": "a\ud83d"},
    "key-surrogate": {"\ud83d": 1},
    "object": {"at": object()},
    "bytes": {"winner": b"green"},
    "large": {"n": 2**63},
    "itself": _itself(),
}


def kinds(value: Any) -> Any:
    """Return a value with the types in it: of 1, 1.0 and True each equals the others."""
    if isinstance(value, dict):
        return {key: kinds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [kinds(item) for item in value]
    return (type(value), value)


def stored(storage: BanditStorage) -> Any:
    """Return all control states, with the types of what is in them."""
    return kinds({bandit: dict(one) for bandit, one in storage.read_control().items()})


def add_one(storage: BanditStorage, bandit: str) -> None:
    """Increment the number in a control state, as often as it takes to be the first."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        seen = storage.read_control(PATIENCE).get(bandit)
        number = 1 if seen is None else seen["n"] + 1
        if storage.write_control(bandit, {"n": number, "by": ["someone"]}, seen, PATIENCE):
            return
    raise AssertionError("others came first all the time")


def add_many(make: StorageFactory, location: Path, worker: int, count: int) -> None:
    """Increment a number that all others increment too, and one's own."""
    storage = make(location)
    for _ in range(count):
        add_one(storage, "all")
        add_one(storage, f"w{worker}")
    storage.close()


def declare_winner(make: StorageFactory, location: Path, winner: str) -> None:
    """Write one control state after the one that is there."""
    storage = make(location)
    seen = storage.read_control(PATIENCE).get(BANDIT)
    assert storage.write_control(BANDIT, {"winner": winner}, seen, PATIENCE)
    storage.close()


def write_control_until_killed(make: StorageFactory, location: Path, diary: Path) -> None:
    """Count on from what is stored, noting each number before and after it is written."""
    storage = make(location)
    seen: ControlState | None = storage.read_control(PATIENCE).get(BANDIT)
    with diary.open("ab", buffering=0) as notes:
        for number in range(1 if seen is None else seen["n"] + 1, 1_000_000):
            notes.write(b"sent %d\n" % number)
            assert storage.write_control(BANDIT, {"n": number}, seen, PATIENCE)
            notes.write(b"done %d\n" % number)
            seen = {"n": number}


class ControlTests:
    """What must hold of ``read_control`` and ``write_control``."""

    commits_per_process: int

    def make_storage(self, location: Path) -> BanditStorage:
        """Open the storage kept at ``location``."""
        raise NotImplementedError

    def test_control_is_empty_at_first(self, storage: BanditStorage) -> None:
        assert dict(storage.read_control()) == {}
        fill(storage)
        assert dict(storage.read_control(PATIENCE)) == {}

    def test_control_is_written_over_what_was_seen(self, storage: BanditStorage) -> None:
        first, second = {"state": "paused"}, {"state": "running", "note": "ü"}
        assert storage.write_control(BANDIT, first, {"state": "running"}) is False
        assert dict(storage.read_control()) == {}
        assert storage.write_control(BANDIT, first, None, PATIENCE) is True
        assert stored(storage) == kinds({BANDIT: first})
        for wrong in (None, second, {}, {"state": "paused", "more": None}, {"State": "paused"}):
            assert storage.write_control(BANDIT, second, wrong) is False
            assert stored(storage) == kinds({BANDIT: first})
        assert storage.write_control(BANDIT, second, first) is True
        assert stored(storage) == kinds({BANDIT: second})
        assert storage.write_control(BANDIT, second, first) is False

    def test_control_is_written_over_what_was_read(self, storage: BanditStorage) -> None:
        storage.write_control(BANDIT, STATE, None)
        for number in range(3):
            seen = storage.read_control()[BANDIT]
            assert storage.write_control(BANDIT, {**STATE, "n": number}, seen)
        assert stored(storage) == kinds({BANDIT: {**STATE, "n": 2}})

    def test_control_comes_back_as_it_was(self, storage: BanditStorage) -> None:
        assert storage.write_control(BANDIT, STATE, None)
        assert stored(storage) == kinds({BANDIT: STATE})

    def test_empty_control_is_not_none(self, storage: BanditStorage) -> None:
        assert storage.write_control(BANDIT, {}, None)
        assert stored(storage) == {BANDIT: {}}
        assert not storage.write_control(BANDIT, {"a": 1}, None)
        assert storage.write_control(BANDIT, {"a": 1}, {})

    def test_control_is_compared_by_value(self, storage: BanditStorage) -> None:
        """The order of keys does not matter, also in what is nested; True is not 1."""
        storage.write_control(BANDIT, {"b": {"y": 1, "x": [1, "2"]}, "a": "é"}, None)
        for wrong in (
            {"a": "e\u0301", "b": {"x": [1, "2"], "y": 1}},
            {"a": "é", "b": {"x": ["2", 1], "y": 1}},
            {"a": "é", "b": {"x": [1, "2"], "y": True}},
            {"a": "é", "b": {"x": [1, 2], "y": 1}},
        ):
            assert not storage.write_control(BANDIT, {}, wrong)
        right = {"a": "é", "b": {"x": (1, "2"), "y": 1}}
        assert storage.write_control(BANDIT, {"n": True}, right)
        assert not storage.write_control(BANDIT, {}, {"n": 1})
        assert storage.write_control(BANDIT, {"n": 1}, {"n": True})
        assert stored(storage) == kinds({BANDIT: {"n": 1}})

    def test_control_is_copied(self, storage: BanditStorage) -> None:
        given: dict[str, Any] = {"weights": {"green": [1]}, "size": (1, 2)}
        storage.write_control(BANDIT, given, None)
        expected = kinds({BANDIT: {"weights": {"green": [1]}, "size": [1, 2]}})
        given["weights"]["green"].append("changed later")
        assert stored(storage) == expected
        before: Any = storage.read_control()
        before[BANDIT]["weights"]["green"].append("changed by a reader")
        assert stored(storage) == expected
        before = storage.read_control()
        storage.write_control(BANDIT, {"n": 1}, before[BANDIT])
        assert kinds({BANDIT: dict(before[BANDIT])}) == expected

    def test_control_of_bandits_is_apart(self, storage: BanditStorage) -> None:
        for number, name in enumerate(NAMES):
            assert storage.write_control(name, {"n": number}, None)
        expected = {name: {"n": number} for number, name in enumerate(NAMES)}
        assert stored(storage) == kinds(expected)
        for name in NAMES:
            assert not storage.write_control(name, {"n": -1}, None)
            assert storage.write_control(name, {"n": -1}, expected[name])
            expected[name] = {"n": -1}
            assert stored(storage) == kinds(expected)

    @pytest.mark.parametrize("name", sorted(REFUSED))
    def test_control_that_is_refused(self, storage: BanditStorage, name: str) -> None:
        storage.write_control(BANDIT, {"ok": 1}, None)
        for bandit, expected in ((BANDIT, {"ok": 1}), ("other", None)):
            with pytest.raises(StorageError):
                storage.write_control(bandit, REFUSED[name], expected)
        assert stored(storage) == kinds({BANDIT: {"ok": 1}})
        assert storage.write_control(BANDIT, {"ok": 2}, {"ok": 1})

    @pytest.mark.parametrize("name", ["color\ud83d", "a\x00b", "a\nb", 1, b"color", None])
    def test_control_of_a_name_that_is_refused(self, storage: BanditStorage, name: Any) -> None:
        """The same names as in a commit."""
        with pytest.raises(StorageError):
            storage.write_control(name, {"ok": 1}, None)
        assert dict(storage.read_control()) == {}

    @pytest.mark.parametrize("wrong", [[1], "paused", 1, None])
    def test_control_that_is_no_mapping_is_refused(
        self, storage: BanditStorage, wrong: Any
    ) -> None:
        storage.write_control("other", {"ok": 1}, None)
        with pytest.raises(StorageError):
            storage.write_control(BANDIT, wrong, None)
        if wrong is not None:
            with pytest.raises(StorageError):
                storage.write_control("other", {}, wrong)
        # A storage that lasts reads it anew.
        storage.close()
        assert stored(storage) == kinds({"other": {"ok": 1}})

    def test_control_leaves_the_rest_alone(self, storage: BanditStorage) -> None:
        fill(storage)
        before = state(storage)
        storage.write_control(BANDIT, STATE, None)
        storage.write_control(BANDIT, {"version": 2}, STATE)
        storage.write_control("other", STATE, None)
        assert state(storage) == before
        storage.prune(1e12)
        assert stored(storage) == kinds({BANDIT: {"version": 2}, "other": STATE})

    @needs_durable
    def test_control_is_there_after_reopening(self, tmp_path: Path) -> None:
        expected = {BANDIT: {"n": 0}, "other": STATE}
        storage = self.make_storage(tmp_path)
        storage.write_control(BANDIT, {"n": 0}, None)
        storage.write_control("other", STATE, None)
        for number in range(1, 4):
            storage.close()
            storage = self.make_storage(tmp_path)
            assert stored(storage) == kinds(expected)
            assert not storage.write_control("other", {}, None)
            assert storage.write_control(BANDIT, {"n": number}, expected[BANDIT])
            expected[BANDIT] = {"n": number}
            storage.prune(0.0)
        storage.close()

    def test_threads_that_swap_control(self, storage: BanditStorage) -> None:
        """Of eight threads that saw the same, one gets through, in each of 25 rounds."""
        failures: list[BaseException] = []
        through: list[int] = []
        barrier = threading.Barrier(8, timeout=PATIENCE)

        def work() -> None:
            try:
                for number in range(25):
                    seen = storage.read_control(PATIENCE).get(BANDIT)
                    barrier.wait()
                    if storage.write_control(BANDIT, {"n": number}, seen, PATIENCE):
                        through.append(number)
                    barrier.wait()
            except BaseException as error:
                barrier.abort()
                failures.append(error)

        run_threads([work] * 8)
        assert not failures, failures
        assert through == list(range(25))
        assert stored(storage) == kinds({BANDIT: {"n": 24}})

    def test_threads_that_add_up_in_control(self, storage: BanditStorage) -> None:
        """Eight threads increment one number; each increment is there at the end."""
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(25):
                    add_one(storage, BANDIT)
            except BaseException as error:
                failures.append(error)

        run_threads([work] * 8)
        assert not failures, failures
        assert stored(storage) == kinds({BANDIT: {"n": 200, "by": ["someone"]}})

    @needs_shared
    def test_processes_that_swap_control(self, tmp_path: Path) -> None:
        count = max(5, self.commits_per_process // 20)
        run_processes(add_many, [(self.make_storage, tmp_path, n, count) for n in range(8)])
        storage = self.make_storage(tmp_path)
        numbers = {bandit: one["n"] for bandit, one in storage.read_control().items()}
        storage.close()
        assert numbers == {"all": 8 * count, **{f"w{n}": count for n in range(8)}}

    @needs_shared
    def test_control_of_another_process_is_seen(self, tmp_path: Path) -> None:
        storage = self.make_storage(tmp_path)
        assert dict(storage.read_control()) == {}
        run_processes(declare_winner, [(self.make_storage, tmp_path, "green")])
        assert stored(storage) == kinds({BANDIT: {"winner": "green"}})
        assert storage.write_control(BANDIT, {"winner": None}, {"winner": "green"})
        run_processes(declare_winner, [(self.make_storage, tmp_path, "red")])
        assert not storage.write_control(BANDIT, {}, {"winner": None})
        assert stored(storage) == kinds({BANDIT: {"winner": "red"}})
        storage.close()

    @needs_shared
    def test_killed_while_writing_control(self, tmp_path: Path) -> None:
        """What is stored is what was acknowledged last, or what was sent then, after 15 kills."""
        diary = tmp_path / "diary.txt"
        chance = random.Random(8)
        number = 0
        for _ in range(15):
            diary.write_bytes(b"")
            arguments = (self.make_storage, tmp_path, diary)
            kill_after(chance.randint(1, 400), diary, write_control_until_killed, *arguments)
            notes = [line.split() for line in diary.read_text().splitlines()]
            acknowledged = max([number, *(int(n) for word, n in notes if word == "done")])
            sent = max(int(n) for word, n in notes if word == "sent")
            storage = self.make_storage(tmp_path)
            number = storage.read_control().get(BANDIT, {"n": 0})["n"]
            storage.close()
            assert acknowledged <= number <= sent
        assert number > 15, "the writers were killed before they wrote anything"


def run_threads(works: list[Callable[[], None]]) -> None:
    """Run all at the same time, and wait for them."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
