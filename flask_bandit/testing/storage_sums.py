"""The part of ``StorageSuite`` about what is kept of terms: sums, when all else moves or goes."""

from __future__ import annotations

import io
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ..errors import StorageError
from ..model import BanditKey, Decision, LogEntry
from ..storage.base import ARRAYS, BanditStorage, Commit, arrays_adjustment
from ..storage.memory import MemoryBanditStorage
from ..storage.transfer import audit, read_import, write_export
from .storage_arrays import (
    SECRET,
    YY,
    Y,
    added,
    everything,
    fill_arrays,
    item,
    learned,
    seen,
    sums,
)
from .storage_moves import NEW, OLD, copy, move
from .storage_processes import (
    PATIENCE,
    StorageFactory,
    needs_durable,
    needs_shared,
    run_processes,
)
from .storage_samples import KEY, TWO, decision, decisions, reward


def shrink_one(make: StorageFactory, location: Path, id_: str) -> None:
    """Replace the context of one decision."""
    storage = make(location)
    assert storage.redact({id_: {"page": "home"}}, PATIENCE) == 1
    storage.close()


def _people() -> list[Decision]:
    return [
        decision("r0", context={"page": "home", "age": 41}, subject="Ann", at=NEW),
        decision("r1", "red", context={"age": 42, "n": [1, None]}, at=NEW),
        decision("r2", context={"age": 43}, at=NEW),
        decision("r3", context={"age": 44}, at=OLD),
        decision("r4", context={"age": 45}, at=NEW),
        decision("r5", at=NEW),
    ]


class SumsTests:
    """What must hold of arrays where they move or something is removed, and of ``redact``."""

    def make_storage(self, location: Path) -> BanditStorage:
        """Open the storage kept at ``location``."""
        raise NotImplementedError

    # What moves

    def test_terms_are_not_kept(self, storage: BanditStorage) -> None:
        """Only sums are: one adjustment for each bandit and version, after everything else."""
        fill_arrays(storage)
        commits = list(storage.iter_commits())
        whole = [one for commit in commits[-2:] for one in commit.adjustments]
        expected = [arrays_adjustment(*found) for found in storage.read_arrays().items()]
        assert sorted(whole, key=repr) == sorted(expected, key=repr)
        assert all(one.id.startswith(ARRAYS) for one in whole)
        for commit in commits[:-2]:
            deltas = [write.delta for write in commit.decisions]
            deltas += [write.delta for write in commit.rewards if write.delta is not None]
            deltas += [one.delta for one in commit.adjustments]
            assert all(delta.terms == () for delta in deltas)
        ids = {one.id: one.delta for commit in commits[:-2] for one in commit.adjustments}
        assert ids == {"import": TWO, "sums": TWO}

    def test_arrays_move_to_another_storage(self, storage: BanditStorage) -> None:
        """By export and import, in both directions, bit for bit, and once."""
        other = MemoryBanditStorage()
        fill_arrays(storage)
        before = everything(storage)
        for _ in range(2):
            move(storage, other)
            assert everything(other) == before
        for _ in range(2):
            move(other, storage)
            assert everything(storage) == before
        assert audit(other) == []

    def test_arrays_move_here(self, storage: BanditStorage) -> None:
        other = MemoryBanditStorage()
        fill_arrays(other)
        for _ in range(2):
            copy(other, storage)
            assert everything(storage) == everything(other)
        for _ in range(2):
            move(other, storage)
            assert everything(storage) == everything(other)
        for target in (storage, other):
            target.commit(Commit((seen(decision("later"), SECRET),)))
        assert everything(storage) == everything(other)

    def test_later_export_leaves_the_arrays(self, storage: BanditStorage) -> None:
        """Of a bandit that has any here; those of another one come."""
        other = MemoryBanditStorage()
        fill_arrays(storage)
        move(storage, other)
        other.commit(Commit((seen(decision("theirs"), SECRET),)))
        other.commit(item("new", added("green", "s:xr", Y), BanditKey("third", 1)))
        before = sums(storage)
        file = io.BytesIO()
        write_export(other, file)
        for unmerged in (1, 1):
            file.seek(0)
            assert read_import(storage, file, "export").unmerged == unmerged
            assert sums(storage) == {**before, BanditKey("third", 1): {"green": {"s:xr": list(Y)}}}
        assert storage.get_decisions(["theirs"]).keys() == {"theirs"}
        assert storage.read_counts() == other.read_counts()

    # What goes

    def test_erase_and_prune_leave_the_arrays(self, storage: BanditStorage) -> None:
        fill_arrays(storage)
        expected = sums(storage)
        assert storage.erase(["a1", "d0"]) == 2
        assert sums(storage) == expected
        assert storage.prune(NEW) == 3
        assert sums(storage) == expected
        assert storage.erase(["a1"]) == 0
        made = decision("a0", at=OLD)
        assert storage.commit(Commit((seen(made, SECRET),))).applied == ()
        assert sums(storage) == expected
        given = reward(made, "late")
        assert len(storage.commit(Commit(rewards=(learned(given, (0.0, 0.0, 5.0)),))).applied) == 1
        expected[KEY]["green"]["s:xr"][2] += 5.0
        assert sums(storage) == expected
        other = MemoryBanditStorage()
        copy(storage, other)
        assert everything(other) == everything(storage)

    @needs_durable
    @pytest.mark.parametrize("how", ["erase", "redact", "prune"])
    def test_nothing_of_a_vector_is_left(self, tmp_path: Path, how: str) -> None:
        """In no file of a storage that keeps its data in files, as text or as it is in memory."""
        storage = self.make_storage(tmp_path)
        fill_arrays(storage)
        made = decision("person", subject="Ann", context={"page": "home", "age": 41}, at=OLD)
        storage.commit(Commit((seen(made, SECRET),)))
        storage.commit(Commit(rewards=(learned(reward(made), SECRET),)))
        storage.commit(Commit(rewards=(learned(reward(made, "buy"), SECRET),)))
        storage.commit(Commit(rewards=(learned(reward(decision("x")), SECRET),)))
        expected = sums(storage)
        if how == "erase":
            assert storage.erase(["person"]) == 1
        elif how == "redact":
            assert storage.redact({"person": {"page": "home"}}) == 1
        else:
            assert storage.prune(OLD + 0.5) >= 1
        for open_again in (False, True):
            for path in filter(Path.is_file, tmp_path.rglob("*")):
                content = path.read_bytes()
                for number in SECRET[1:]:
                    for trace in (repr(number).encode(), struct.pack("<d", number)):
                        assert trace not in content, path
            assert sums(storage) == expected
            if not open_again:
                storage.close()
                storage = self.make_storage(tmp_path)
        storage.commit(Commit((seen(decision("after"), Y),)))
        storage.close()
        storage = self.make_storage(tmp_path)
        total = storage.read_arrays()[KEY]["green"]["s:xx"]
        assert total.tolist() == [
            a + b for a, b in zip(expected[KEY]["green"]["s:xx"], YY, strict=True)
        ]
        storage.close()

    def test_redact_replaces_contexts(self, storage: BanditStorage) -> None:
        fill_arrays(storage)
        made = _people()
        given = reward(made[0])
        storage.commit(Commit(tuple(map(seen, made)), (learned(given),)))
        storage.prune(OLD + 0.5)
        counts, arrays = storage.read_counts(), sums(storage)
        rest = {
            "r0": {"page": "home", "in": {"ü": (1, 2.5, True)}},
            "r1": {},
            "r2": None,
            "r3": {"age": 4},
            "r5": {"new": 1},
            "unknown": {"x": 1},
        }
        expected = {
            "r0": replace(made[0], context={"page": "home", "in": {"ü": [1, 2.5, True]}}),
            "r1": replace(made[1], context={}),
            "r2": replace(made[2], context=None),
            "r3": made[3].pruned(),
            "r4": made[4],
            "r5": made[5],
        }
        assert storage.redact(rest, PATIENCE) == 3
        for _ in range(2):
            assert dict(storage.get_decisions([*expected, "unknown"])) == expected
            found = {one.decision.id: one for one in storage.iter_log()}
            assert found["r0"] == LogEntry(expected["r0"], (given,))
            assert found["r1"] == LogEntry(expected["r1"])
            assert (storage.read_counts(), sums(storage)) == (counts, arrays)
            # Sent again, it changes nothing.
            storage.redact(rest)
        # What was there first stays, as it is now.
        result = storage.commit(Commit((seen(made[0]),)))
        assert dict(result.decisions) == {"r0": expected["r0"]}
        other = MemoryBanditStorage()
        copy(storage, other)
        assert everything(other) == everything(storage)

    def test_redact_nothing(self, storage: BanditStorage) -> None:
        assert storage.redact({}) == 0
        assert storage.redact({"unknown": {"x": 1}}) == 0
        fill_arrays(storage)
        complete = everything(storage)
        # A reward waits for the first of these.
        assert storage.redact({"later": {}, "unknown": None, "": {}, "d1": {"x": 1}}) == 0
        assert storage.redact({}, PATIENCE) == 0
        assert everything(storage) == complete

    def test_redact_that_is_refused(self, storage: BanditStorage) -> None:
        storage.commit(decisions(*(decision(f"d{n}", context={"n": n}) for n in range(2))))
        complete = everything(storage)
        wrong: Any
        for wrong in ({"x": math.nan}, {"x": {1, 2}}, {1: "one"}, {"x": "\ud83d"}, [1], "text"):
            with pytest.raises(StorageError):
                storage.redact({"d0": {}, "d1": wrong})
            assert everything(storage) == complete

    def test_redact_many(self, storage: BanditStorage) -> None:
        """More ids than fit into one statement of some databases."""
        made = [decision(f"d{n}", context={"n": n, "age": n}) for n in range(1500)]
        storage.commit(decisions(*made))
        assert storage.redact({f"d{n}": {"n": n} for n in range(1499)}) == 1499
        assert [entry.decision.context for entry in storage.iter_log()] == [
            *({"n": n} for n in range(1499)),
            {"n": 1499, "age": 1499},
        ]

    @needs_shared
    def test_what_another_process_redacted(self, tmp_path: Path) -> None:
        storage = self.make_storage(tmp_path)
        made = decision("d", context={"page": "home", "age": 41})
        storage.commit(Commit((seen(made),)))
        run_processes(shrink_one, [(self.make_storage, tmp_path, "d")])
        expected = replace(made, context={"page": "home"})
        assert dict(storage.get_decisions(["d"])) == {"d": expected}
        assert [entry.decision for entry in storage.iter_log()] == [expected]
        assert sums(storage) == {KEY: {"green": {"s:xx": YY}}}
        storage.commit(Commit((seen(decision("after")),)))
        assert sums(storage) == {KEY: {"green": {"s:xx": [2 * y for y in YY]}}}
        storage.close()
