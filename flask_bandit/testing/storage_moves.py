"""The part of ``StorageSuite`` about moving everything elsewhere, and pruning the log."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from ..model import Counts, Decision
from ..storage.base import Adjustment, BanditStorage, Commit, RewardWrite
from ..storage.memory import MemoryBanditStorage
from ..storage.transfer import read_import, write_export
from .storage_samples import BANDIT, KEY, TWO, decision, decisions, earn, pull, reward, rewards

OLD, NEW = 1_000.0, 2_000.0


def fill(storage: BanditStorage) -> list[Decision]:
    """Store one of each: counted, waiting, unlearned, corrected and imported; return decisions."""
    made = [
        decision("d0", context={"n": [1, None]}, subject="ü", at=OLD),
        decision("d1", "red", at=OLD + 1),
        decision("d2", "blue", propensities=None, at=NEW),
        decision("d3", bandit="other", version=3, at=NEW + 1),
    ]
    storage.commit(Commit((pull(made[0]),), (earn(reward(made[0], value=0.1)),)))
    storage.commit(decisions(*made[1:]))
    storage.commit(rewards(reward(made[0], "buy", 20.0)))
    # For another arm at first; the increment is corrected later.
    storage.commit(rewards(reward(made[1], arm="green")))
    storage.commit(Commit(rewards=(earn(reward(made[1], arm="red")),)))
    # Never corrected, never computed, and parked with and without an increment.
    storage.commit(rewards(reward(made[2], arm="green")))
    storage.commit(Commit(rewards=(RewardWrite(reward(made[3]), None),)))
    storage.commit(rewards(reward(decision("later"))))
    storage.commit(Commit(rewards=(RewardWrite(reward(decision("latest")), None),)))
    storage.commit(Commit(adjustments=(Adjustment("import", BANDIT, 1, TWO),)))
    return made


def copy(source: BanditStorage, target: BanditStorage) -> None:
    """Send everything in ``source`` to ``target``."""
    for commit in source.iter_commits():
        target.commit(commit)


def move(source: BanditStorage, target: BanditStorage) -> None:
    """Export ``source`` and import it into ``target``."""
    file = io.BytesIO()
    write_export(source, file)
    file.seek(0)
    read_import(target, file, "export")


def state(storage: BanditStorage) -> tuple[Counts, list[Any], list[Any]]:
    """Return everything that can be read from a storage, bandit by bandit.

    Within one of them in the order of storing; that of two bandits is free.
    """
    log = sorted(storage.iter_log(), key=lambda entry: entry.decision.bandit)
    return storage.read_counts(), log, sorted(storage.iter_commits(), key=_bandit_of)


def _bandit_of(commit: Commit) -> str:
    for write in commit.decisions:
        return write.decision.bandit
    for sent in commit.rewards:
        return sent.reward.bandit
    return commit.adjustments[0].bandit


class MoveTests:
    """What must hold of ``iter_commits`` and ``prune``."""

    def make_storage(self, location: Path) -> BanditStorage:
        """Open the storage kept at ``location``."""
        raise NotImplementedError

    def test_everything_moves_to_another_storage(self, storage: BanditStorage) -> None:
        fill(storage)
        other = MemoryBanditStorage()
        for _ in range(2):
            copy(storage, other)
            assert state(other) == state(storage)
        self._goes_on(storage)
        self._goes_on(other)
        assert state(other) == state(storage)

    def test_everything_moves_here(self, storage: BanditStorage) -> None:
        other = MemoryBanditStorage()
        fill(other)
        for _ in range(2):
            copy(other, storage)
            assert state(storage) == state(other)

    def _goes_on(self, storage: BanditStorage) -> None:
        """What waits is counted, and what was counted is not counted again."""
        fill(storage)
        storage.commit(decisions(decision("later"), decision("latest")))
        storage.commit(rewards(reward(decision("d2", "blue")), reward(decision("latest"))))

    def test_commits_are_one_for_each_decision(self, storage: BanditStorage) -> None:
        made = fill(storage)
        commits = list(storage.iter_commits())
        assert [[w.decision for w in commit.decisions] for commit in commits] == [
            *([one] for one in made),
            [],
            [],
            [],
        ]
        assert {w.reward.decision_id for c in commits[:4] for w in c.rewards} == {
            "d0",
            "d1",
            "d2",
            "d3",
        }
        assert [w.reward.id for c in commits[4:] for w in c.rewards] == [
            "later:reward",
            "latest:reward",
        ]
        assert commits[-1] == Commit(adjustments=(Adjustment("import", BANDIT, 1, TWO),))

    def test_the_log_keeps_the_order_inside_a_commit(self, storage: BanditStorage) -> None:
        names = ["m", "c", "x", "a", "q", "b"]
        storage.commit(decisions(*map(decision, names)))
        storage.commit(rewards(*(reward(decision(name)) for name in names)))
        storage.commit(decisions(decision("0")))
        assert [entry.decision.id for entry in storage.iter_log()] == [*names, "0"]
        stored = [w.decision.id for commit in storage.iter_commits() for w in commit.decisions]
        assert stored == [*names, "0"]

    def test_commits_are_read_while_others_write(self, storage: BanditStorage) -> None:
        fill(storage)
        for number, _ in enumerate(storage.iter_commits()):
            storage.commit(decisions(decision(f"meanwhile{number}")))
            assert number < 100
        other = MemoryBanditStorage()
        copy(storage, other)
        assert state(other) == state(storage)

    @pytest.mark.parametrize("first", [0, 600])
    def test_what_waits_moves_while_its_decision_comes(
        self, storage: BanditStorage, first: int
    ) -> None:
        """A reward that was acknowledged before the start is never left out.

        :param first: how many decisions are stored before; more than a page of any storage
        """
        made = [decision("late0"), decision("late1", "red"), decision("never")]
        storage.commit(decisions(*(decision(f"d{number}") for number in range(first))))
        storage.commit(decisions(decision("d")))
        for one in made:
            storage.commit(rewards(reward(one)))
        commits = storage.iter_commits()
        read = [next(commits)]
        storage.commit(decisions(made[0]))
        read += commits
        other = MemoryBanditStorage()
        for commit in read:
            other.commit(commit)
        # Whether the decision is in it or not, its reward counts once with it.
        other.commit(decisions(*made))
        row = other.read_counts()[KEY]
        assert row["green"]["rewards"] == 2
        assert row["red"]["rewards"] == 1
        sent = [write.reward.id for commit in read for write in commit.rewards]
        assert sorted(set(sent)) == ["late0:reward", "late1:reward", "never:reward"]

    def test_prune_keeps_counts_and_what_counts_once(self, storage: BanditStorage) -> None:
        made = fill(storage)
        counts = storage.read_counts()
        assert storage.prune(before=NEW) == 2
        assert storage.prune(before=NEW) == 0
        assert storage.read_counts() == counts
        assert [entry.decision.id for entry in storage.iter_log()] == ["d2", "d3"]
        stored = storage.get_decisions(["d0", "d3"])
        assert dict(stored) == {"d0": made[0].pruned(), "d3": made[3]}
        # Nothing that was counted counts again, and a late reward still does.
        result = storage.commit(Commit((pull(made[0]),), (earn(reward(made[0])),)))
        assert dict(result.decisions) == {"d0": made[0].pruned()}
        assert (result.new, result.applied) == (frozenset(), ())
        assert storage.read_counts() == counts
        assert len(storage.commit(rewards(reward(made[0], "late"))).applied) == 1
        assert storage.read_counts()[KEY]["green"]["rewards"] == (
            counts[KEY]["green"]["rewards"] + 1
        )

    def test_control_moves_where_there_is_none(self, storage: BanditStorage) -> None:
        """By an export and an import, in both directions, however often."""
        other = MemoryBanditStorage()
        fill(storage)
        storage.write_control(BANDIT, {"state": "paused", "weights": {"ü": 0.5}}, None)
        storage.write_control("other", {"version": 4}, None)
        other.write_control("other", {"version": 5}, None)
        other.write_control("third", {}, None)
        expected = {BANDIT: {"state": "paused", "weights": {"ü": 0.5}}, "other": {"version": 5}}
        for _ in range(2):
            move(storage, other)
            assert other.read_control() == {**expected, "third": {}}
            assert storage.read_control() == {**expected, "other": {"version": 4}}
        move(other, storage)
        assert storage.read_control() == {**expected, "other": {"version": 4}, "third": {}}
        assert state(other) == state(storage)

    def test_what_is_pruned_moves_too(self, storage: BanditStorage) -> None:
        fill(storage)
        storage.prune(before=NEW)
        other = MemoryBanditStorage()
        copy(storage, other)
        assert state(other) == state(storage)
        self._goes_on(other)
        self._goes_on(storage)
        assert other.read_counts() == storage.read_counts()

    @pytest.mark.parametrize("before", [OLD, 0.0, -1.0])
    def test_prune_nothing(self, storage: BanditStorage, before: float) -> None:
        fill(storage)
        complete = state(storage)
        assert storage.prune(before) == 0
        assert state(storage) == complete

    def test_check_finds_nothing(self, storage: BanditStorage) -> None:
        assert storage.check() == []
        fill(storage)
        assert storage.check() == []

    def test_upgrade_twice(self, storage: BanditStorage) -> None:
        for _ in range(2):
            assert storage.upgrade()
        made = fill(storage)
        storage.upgrade()
        assert set(storage.get_decisions([one.id for one in made])) == {one.id for one in made}
