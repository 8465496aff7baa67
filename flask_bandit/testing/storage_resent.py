"""The part of ``StorageSuite`` about one reward that is sent several times, each time otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ..storage.base import BanditStorage, Commit, CommitResult, RewardWrite
from ..storage.memory import MemoryBanditStorage
from ..storage.transfer import audit
from .storage_arrays import SECRET, everything, learned
from .storage_moves import copy
from .storage_processes import needs_durable
from .storage_samples import decision, decisions, earn, pull, reward

MADE = decision("d")
GIVEN = reward(MADE)
WRITES = {
    "green": earn(GIVEN),
    "red": earn(replace(GIVEN, arm="red")),
    "none": RewardWrite(GIVEN, None),
    "other": earn(replace(GIVEN, decision_id="e", arm="blue")),
    "other-green": earn(replace(GIVEN, decision_id="e")),
    "green-terms": learned(GIVEN),
    "red-terms": learned(replace(GIVEN, arm="red"), SECRET),
}

SENDINGS = [
    # The decision comes last, with the reward parked.
    "green; red green; decision",
    "green; red green red; decision",
    "green; none red; decision",
    "green; red none; decision",
    "green red; decision",
    "green red green; decision",
    "none; red green; decision",
    "none red green; decision",
    "red; green none; red decision; green",
    "red; green red decision; green",
    # The decision comes first, and red does not fit it.
    "decision; red; green red; red green",
    "decision; red green; red",
    "decision; none; red; red none green",
    # The same id for another decision: the one that it was sent for first is what counts.
    "decision; none; other-green",
    "decision; none; other; green",
    "decision; none other-green",
    "decision; red; green other; other-decision; green",
    "other-decision; green; other-green; decision",
    "other-decision; red; other; decision; other-green; green",
    "none; other-decision other-green; decision; green",
    # With terms, which are added at once or not at all.
    "green-terms; decision; green-terms; green-terms",
    "green-terms; none; red-terms decision; green-terms",
    "decision; red-terms; green-terms; red-terms",
    "decision; red-terms green-terms; green",
    "none; decision green-terms; red-terms green-terms",
    "other-decision; green-terms other-green; decision; green-terms",
]
"""Commits one after the other, with what is in each."""


def commits(sendings: str) -> list[Commit]:
    """Make the commits of one of ``SENDINGS``."""
    made = {"decision": pull(MADE), "other-decision": pull(decision("e"))}
    return [
        Commit(
            tuple(made[name] for name in names.split() if name in made),
            tuple(WRITES[name] for name in names.split() if name in WRITES),
        )
        for names in sendings.split("; ")
    ]


def answer(result: CommitResult) -> list[Any]:
    """Return a result without an order of what happened at once."""
    sums = sorted(repr((tuple(key), delta)) for key, delta in result.applied)
    unlearned = sorted(result.unlearned, key=repr)
    return [dict(result.decisions), result.new, sums, result.parked, unlearned]


class ResentTests:
    """What must hold of a reward whose sendings differ: it is stored and counted as in memory."""

    def make_storage(self, location: Path) -> BanditStorage:
        """Open the storage kept at ``location``."""
        raise NotImplementedError

    @pytest.mark.parametrize("sendings", SENDINGS)
    def test_sendings_that_differ(self, storage: BanditStorage, sendings: str) -> None:
        memory = MemoryBanditStorage()
        _send(commits(sendings), memory, storage)
        _compare(memory, storage)

    @needs_durable
    def test_sendings_that_differ_after_reopening(self, tmp_path: Path) -> None:
        """What was answered is what the next process finds, before and after the decision."""
        for number, sendings in enumerate(SENDINGS):
            location = tmp_path / str(number)
            location.mkdir()
            memory = MemoryBanditStorage()
            sent = commits(sendings)
            for one in sent:
                storage = self.make_storage(location)
                _send([one], memory, storage)
                storage.close()
            storage = self.make_storage(location)
            _compare(memory, storage)
            storage.commit(decisions(MADE, decision("e")))
            memory.commit(decisions(MADE, decision("e")))
            _compare(memory, storage)
            storage.close()


def _send(sent: Iterable[Commit], memory: BanditStorage, storage: BanditStorage) -> None:
    for one in sent:
        assert answer(storage.commit(one)) == answer(memory.commit(one))


def _compare(memory: BanditStorage, storage: BanditStorage) -> None:
    assert everything(storage) == everything(memory)
    assert audit(storage) == []
    moved = MemoryBanditStorage()
    copy(storage, moved)
    assert everything(moved) == everything(memory)
