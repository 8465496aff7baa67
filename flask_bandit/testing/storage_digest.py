"""The part of ``StorageSuite`` about summaries of logs: kept by comparing revisions."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest

from ..errors import StorageError
from ..model import BanditKey
from ..storage.base import BanditStorage, StoredDigest
from ..storage.memory import MemoryBanditStorage
from ..storage.transfer import write_export
from .storage_control import NAMES, REFUSED, STATE, kinds, run_threads
from .storage_moves import fill, move, state
from .storage_processes import (
    PATIENCE,
    StorageFactory,
    needs_durable,
    needs_shared,
    run_processes,
)
from .storage_samples import BANDIT, KEY

COUNT = 25
COPIES = 500


def digest(storage: BanditStorage, key: BanditKey = KEY) -> Any:
    """Return the revision of a summary and its state, with the types of what is in it."""
    found = storage.read_digest(key, PATIENCE)
    return None if found is None else (found.revision, kinds(found.state))


def add_to_digest(storage: BanditStorage, key: BanditKey) -> int:
    """Increment all numbers of a summary, as often as it takes to be the first; the revision."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        revision, seen = storage.read_digest(key, PATIENCE) or (0, {"n": [0] * COPIES})
        assert seen["n"] == [revision] * COPIES, "what was read is of two writers"
        if storage.write_digest(key, {"n": [revision + 1] * COPIES}, revision, PATIENCE):
            return revision + 1
    raise AssertionError("others came first all the time")


def add_many(make: StorageFactory, location: Path, worker: int) -> None:
    """Increment a summary that the others increment too, and one's own."""
    storage = make(location)
    for number in range(COUNT):
        add_to_digest(storage, KEY)
        assert add_to_digest(storage, BanditKey(BANDIT, 2 + worker)) == number + 1
    storage.close()


class DigestTests:
    """What must hold of ``read_digest`` and ``write_digest``."""

    def make_storage(self, location: Path) -> BanditStorage:
        """Open the storage kept at ``location``."""
        raise NotImplementedError

    def test_digest_is_none_at_first(self, storage: BanditStorage) -> None:
        assert storage.read_digest(KEY) is None
        fill(storage)
        assert storage.read_digest(KEY, PATIENCE) is None

    def test_digest_is_written_over_the_revision_that_was_seen(
        self, storage: BanditStorage
    ) -> None:
        for wrong in (1, 2, -1):
            assert storage.write_digest(KEY, {"n": wrong}, wrong) is False
            assert storage.read_digest(KEY) is None
        for revision in range(4):
            assert storage.write_digest(KEY, {"n": revision}, revision, PATIENCE) is True
            assert storage.read_digest(KEY) == StoredDigest(revision + 1, {"n": revision})
            for wrong in {0, revision, revision + 2}:
                assert storage.write_digest(KEY, {"n": -1}, wrong) is False
            assert digest(storage) == (revision + 1, kinds({"n": revision}))
        # The same once more is another revision.
        assert storage.write_digest(KEY, {"n": 3}, 4) is True
        assert storage.write_digest(KEY, {}, 5) is True
        assert digest(storage) == (6, {})

    def test_digest_comes_back_as_it_was(self, storage: BanditStorage) -> None:
        assert storage.write_digest(KEY, STATE, 0)
        assert digest(storage) == (1, kinds(STATE))
        assert type(storage.read_digest(KEY)) is StoredDigest

    def test_long_digest(self, storage: BanditStorage) -> None:
        """Of a megabyte, and not all of it plain letters; then a short one in its place."""
        long = {
            "days": [{"day": n, "arm": "zöld", "sums": [n / 7, 1e-9, n]} for n in range(20_000)]
        }
        assert storage.write_digest(KEY, long, 0, PATIENCE)
        assert storage.read_digest(KEY, PATIENCE) == (1, long)
        assert storage.write_digest(KEY, {"short": 1}, 1)
        assert storage.read_digest(KEY) == (2, {"short": 1})

    def test_digest_is_copied(self, storage: BanditStorage) -> None:
        given: dict[str, Any] = {"arms": {"green": [1]}, "size": (1, 2)}
        storage.write_digest(KEY, given, 0)
        expected = (1, kinds({"arms": {"green": [1]}, "size": [1, 2]}))
        given["arms"]["green"].append("changed later")
        assert digest(storage) == expected
        found: Any = storage.read_digest(KEY)
        found.state["arms"]["green"].append("changed by a reader")
        found.state["more"] = 1
        assert digest(storage) == expected
        before = storage.read_digest(KEY)
        storage.write_digest(KEY, {"n": 1}, 1)
        assert before == (1, {"arms": {"green": [1]}, "size": [1, 2]})

    def test_digests_of_bandits_and_versions_are_apart(self, storage: BanditStorage) -> None:
        keys = [BanditKey(name, version) for name in NAMES for version in (1, 11)]
        keys += [BanditKey("a1", 1), BanditKey("a:1", 1), BanditKey("a", 0)]
        for number, key in enumerate(keys):
            assert storage.read_digest(key) is None
            assert storage.write_digest(key, {"n": number}, 0)
        for number, key in enumerate(keys[::2]):
            assert storage.write_digest(key, {"again": number}, 1)
        for number, key in enumerate(keys):
            expected = {"n": number} if number % 2 else {"again": number // 2}
            assert storage.read_digest(key) == (2 - number % 2, expected)

    def test_digest_that_is_refused(self, storage: BanditStorage) -> None:
        storage.write_digest(KEY, {"ok": 1}, 0)
        for wrong in (*REFUSED.values(), [1], "text", 1, None):
            for key, revision in ((KEY, 1), (BanditKey("other", 1), 0)):
                with pytest.raises(StorageError):
                    storage.write_digest(key, wrong, revision)
        assert digest(storage) == (1, kinds({"ok": 1}))
        assert storage.read_digest(BanditKey("other", 1)) is None
        assert storage.write_digest(KEY, {"ok": 2}, 1)

    def test_digest_of_a_key_that_is_refused(self, storage: BanditStorage) -> None:
        """The same bandits and versions as in a commit."""
        wrong: Any
        for wrong in ("color\ud83d", "a\x00b", "a\nb", 1, b"color", None):
            with pytest.raises(StorageError):
                storage.write_digest(BanditKey(wrong, 1), {}, 0)
        for wrong in ("1", 1.5, None, 2**63):
            with pytest.raises(StorageError):
                storage.write_digest(BanditKey(BANDIT, wrong), {}, 0)
        assert storage.write_digest(KEY, {"ok": 1}, 0)

    def test_digest_is_apart_from_the_rest(self, storage: BanditStorage) -> None:
        """It is in no export, nothing else changes with it, and nothing else changes it."""
        fill(storage)
        storage.write_control(BANDIT, STATE, None)
        before = state(storage)
        exported = io.BytesIO()
        write_export(storage, exported)
        for key in (KEY, BanditKey("other", 3), BanditKey("third", 1)):
            assert storage.write_digest(key, {"n": 1}, 0)
        assert state(storage) == before
        assert set(storage.read_control()) == {BANDIT}
        again = io.BytesIO()
        write_export(storage, again)
        # Its first line may tell when it was made.
        assert again.getvalue().splitlines()[1:] == exported.getvalue().splitlines()[1:]
        other = MemoryBanditStorage()
        move(storage, other)
        assert other.read_digest(KEY) is None
        other.write_digest(KEY, {"n": 2}, 0)
        move(other, storage)
        assert storage.prune(1e12)
        storage.erase(["d0", "d1", "d2", "d3"])
        storage.write_control(BANDIT, {}, STATE)
        storage.upgrade()
        assert storage.check() == []
        for key in (KEY, BanditKey("other", 3), BanditKey("third", 1)):
            assert digest(storage, key) == (1, kinds({"n": 1}))

    def test_first_thing_that_is_stored_is_a_digest(self, storage: BanditStorage) -> None:
        assert storage.write_digest(KEY, {"n": 1}, 0, PATIENCE)
        assert state(storage) == ({}, [], [])
        assert dict(storage.read_control()) == {}
        fill(storage)
        assert digest(storage) == (1, kinds({"n": 1}))

    @needs_durable
    def test_digest_is_there_after_reopening(self, tmp_path: Path) -> None:
        for revision in range(3):
            storage = self.make_storage(tmp_path)
            expected = None if revision == 0 else (revision, kinds({"n": revision}))
            assert digest(storage) == expected
            assert storage.write_digest(KEY, {"n": revision + 1}, revision)
            storage.close()

    def test_threads_that_add_up_in_a_digest(self, storage: BanditStorage) -> None:
        """Four threads increment one summary; each increment has a revision of its own."""
        failures: list[BaseException] = []
        revisions: list[int] = []

        def work() -> None:
            try:
                for _ in range(COUNT):
                    revisions.append(add_to_digest(storage, KEY))
            except BaseException as error:
                failures.append(error)

        run_threads([work] * 4)
        assert not failures, failures
        assert sorted(revisions) == list(range(1, 4 * COUNT + 1))
        assert storage.read_digest(KEY) == (4 * COUNT, {"n": [4 * COUNT] * COPIES})

    @needs_shared
    def test_processes_that_add_up_in_a_digest(self, tmp_path: Path) -> None:
        storage = self.make_storage(tmp_path)
        assert add_to_digest(storage, KEY) == 1
        run_processes(add_many, [(self.make_storage, tmp_path, worker) for worker in range(2)])
        assert add_to_digest(storage, KEY) == 2 * COUNT + 2
        for version in (2, 3):
            assert add_to_digest(storage, BanditKey(BANDIT, version)) == COUNT + 1
        storage.close()
