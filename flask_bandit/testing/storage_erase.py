"""The part of ``StorageSuite`` about people: who is in the log, who stands for whom, who goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ..model import MERGED, Decision, LogEntry, StatsDelta
from ..storage.base import BanditStorage, Commit, DecisionWrite
from ..storage.memory import MemoryBanditStorage
from .storage_control import run_threads
from .storage_moves import NEW, OLD, copy, fill, state
from .storage_processes import (
    PATIENCE,
    StorageFactory,
    needs_durable,
    needs_shared,
    run_processes,
)
from .storage_samples import KEY, applied_arms, decision, decisions, earn, pull, reward, rewards

ANN = decision("ann", context={"page": "home", "n": [1]}, subject="Ann ü", at=OLD)
BOB = decision("bob", "red", subject="Bob", at=OLD)
ROOM = decision("room", context={"door": 1}, at=NEW)
PLAIN = decision("plain", at=NEW)
OTHER = decision("other", context={"stays": True}, subject="Ann ü", bandit="other", at=NEW)


def stand_in(id_: str, of: Decision, **fields: object) -> DecisionWrite:
    """Make a decision that stands for another one, as a merged visitor's does."""
    usual = {"policy_version": f"{MERGED}{of.id}", "propensities": None, "at": OLD}
    made = decision(id_, of.arm, of.bandit, version=of.version, **{**usual, **fields})
    return DecisionWrite(made, StatsDelta({}))


STANDING = stand_in("standing", ANN, subject="Ann ü", context={"device": "phone"})


def bare(made: Decision) -> Decision:
    """Return a decision as it is after it was erased."""
    return replace(made, subject=None, context=None)


def ids(storage: BanditStorage) -> list[str]:
    """Return the ids of all stored decisions, in their order."""
    return [w.decision.id for commit in storage.iter_commits() for w in commit.decisions]


def erase_one(make: StorageFactory, location: Path, id_: str) -> None:
    """Erase one decision that has something to erase."""
    storage = make(location)
    assert storage.erase([id_], PATIENCE) == 1
    storage.close()


class EraseTests:
    """What must hold of ``iter_log`` by time, of stand-ins and of ``erase``."""

    def make_storage(self, location: Path) -> BanditStorage:
        """Open the storage kept at ``location``."""
        raise NotImplementedError

    # The log by time

    @pytest.mark.parametrize("bandit", [None, "even", "odd", "unknown"])
    @pytest.mark.parametrize(
        ("since", "until"),
        [
            (None, None),
            (1002.0, None),
            (None, 1004.0),
            (1001.0, 1003.0),
            (1001.0, 1001.0),
            (1001.25, 1002.5),
            (1002, 1003),
            (0.0, 5e9),
            (1004.0, 1001.0),
            (9e9, None),
            (None, -1.0),
        ],
    )
    def test_log_by_time(
        self, storage: BanditStorage, since: float | None, until: float | None, bandit: str | None
    ) -> None:
        """From ``since`` on, which is in it, to ``until``, which is not, in the stored order.

        Of each bandit, since all were stored at the same moment.
        """
        made = [
            decision(f"d{number}", bandit=("even", "odd")[number % 2], at=1000.0 + number / 2)
            for number in (7, 3, 4, 5, 6, 0, 1, 2, 8)
        ]
        given = [reward(one, "buy", 2.0) for one in made]
        storage.commit(decisions(*made))
        storage.commit(rewards(*given))
        expected = [
            LogEntry(one, (its,))
            for one, its in zip(made, given, strict=True)
            if bandit in (None, one.bandit)
            and (since is None or one.at >= since)
            and (until is None or one.at < until)
        ]
        found = list(storage.iter_log(bandit, since=since, until=until))
        for name in ("even", "odd"):
            assert [one for one in found if one.decision.bandit == name] == [
                one for one in expected if one.decision.bandit == name
            ]
        assert len(found) == len(expected)

    def test_long_log_by_time(self, storage: BanditStorage) -> None:
        """Longer than a page of any storage, and what is sought is at its ends."""
        storage.commit(decisions(*(decision(f"d{n}", at=float(n)) for n in range(1200))))
        for since, until in ((0, 3), (598, 602), (1197, 5000)):
            found = [entry.decision.at for entry in storage.iter_log(since=since, until=until)]
            assert found == list(range(since, min(until, 1200)))

    # Decisions that stand for others

    def test_stand_in_is_stored_and_counts_nothing(self, storage: BanditStorage) -> None:
        assert storage.commit(Commit((STANDING,))).new == {"standing"}
        assert dict(storage.read_counts()) == {}
        storage.commit(decisions(ANN))
        for new in ({"again"}, set()):
            again = stand_in("again", ANN, subject="Ann's phone")
            result = storage.commit(Commit((STANDING, again)))
            assert result.new == new
            assert applied_arms(result) == []
            assert result.decisions["standing"] == STANDING.decision
        assert storage.read_counts() == {KEY: {"green": {"pulls": 1}}}
        found = storage.get_decisions(["standing", "again", "ann"])
        assert found["standing"] == STANDING.decision
        assert found["again"].subject == "Ann's phone"
        assert [found[id_].stands_for for id_ in ("standing", "again", "ann")] == [
            "ann",
            "ann",
            None,
        ]

    def test_stand_in_is_not_in_the_log_and_moves(self, storage: BanditStorage) -> None:
        storage.commit(Commit((STANDING, pull(ANN))))
        storage.commit(Commit((pull(BOB), stand_in("b", BOB)), (earn(reward(ANN)),)))
        assert [entry.decision.id for entry in storage.iter_log()] == ["ann", "bob"]
        assert [e.decision.id for e in storage.iter_log(since=OLD, until=NEW)] == ["ann", "bob"]
        commits = list(storage.iter_commits())
        assert commits[0] == Commit((STANDING,))
        assert ids(storage) == ["standing", "ann", "bob", "b"]
        other = MemoryBanditStorage()
        copy(storage, other)
        assert state(other) == state(storage)

    def test_stand_in_is_not_pruned(self, storage: BanditStorage) -> None:
        storage.commit(Commit((pull(ANN), STANDING, pull(BOB))))
        assert storage.prune(before=NEW) == 2
        assert storage.prune(before=1e12) == 0
        assert dict(storage.get_decisions(["ann", "standing"])) == {
            "ann": ANN.pruned(),
            "standing": STANDING.decision,
        }
        assert list(storage.iter_commits())[1] == Commit((STANDING,))
        assert list(storage.iter_log()) == []

    def test_only_stand_ins_are_nothing_to_prune(self, storage: BanditStorage) -> None:
        storage.commit(Commit((STANDING,)))
        assert storage.prune(before=1e12) == 0
        assert list(storage.iter_commits()) == [Commit((STANDING,))]

    @needs_durable
    def test_stand_in_is_there_after_reopening(self, tmp_path: Path) -> None:
        storage = self.make_storage(tmp_path)
        storage.commit(Commit((pull(ANN), STANDING)))
        expected = state(storage)
        storage.close()
        storage = self.make_storage(tmp_path)
        assert state(storage) == expected
        assert storage.get_decisions(["standing"])["standing"].stands_for == "ann"
        storage.close()

    # Erasing

    def _fill(self, storage: BanditStorage) -> None:
        """Store one of each, with rewards counted before and after."""
        storage.commit(Commit((pull(ANN), STANDING, pull(BOB)), (earn(reward(ANN)),)))
        storage.commit(decisions(ROOM, PLAIN, OTHER))
        storage.commit(rewards(reward(ROOM, value=0.5), reward(ANN, "buy", 20.0)))

    def test_erase_removes_subject_and_context(self, storage: BanditStorage) -> None:
        self._fill(storage)
        counts, commits = storage.read_counts(), list(storage.iter_commits())
        chosen = ["ann", "room", "standing", "plain", "unknown", "ann"]
        assert storage.erase(iter(chosen), PATIENCE) == 3
        standing = bare(STANDING.decision)
        assert dict(storage.get_decisions([*chosen, "bob", "other"])) == {
            "ann": bare(ANN),
            "room": bare(ROOM),
            "standing": standing,
            "plain": PLAIN,
            "bob": BOB,
            "other": OTHER,
        }
        assert standing.stands_for == "ann"
        assert list(storage.iter_log()) == [
            LogEntry(bare(ANN), (reward(ANN), reward(ANN, "buy", 20.0))),
            LogEntry(BOB),
            LogEntry(bare(ROOM), (reward(ROOM, value=0.5),)),
            LogEntry(PLAIN),
            LogEntry(OTHER),
        ]
        for number, one in ((0, bare(ANN)), (1, standing), (3, bare(ROOM))):
            write = replace(commits[number].decisions[0], decision=one)
            commits[number] = replace(commits[number], decisions=(write,))
        assert list(storage.iter_commits()) == commits
        assert storage.read_counts() == counts
        assert storage.erase(chosen) == 0
        assert list(storage.iter_commits()) == commits

    def test_what_is_erased_stays_so(self, storage: BanditStorage) -> None:
        """It is sent again, rewarded late, pruned, and moved elsewhere."""
        self._fill(storage)
        counts = storage.read_counts()
        assert storage.erase(["ann", "standing"]) == 2
        result = storage.commit(Commit((pull(ANN), STANDING), (earn(reward(ANN)),)))
        assert dict(result.decisions) == {"ann": bare(ANN), "standing": bare(STANDING.decision)}
        assert (result.new, applied_arms(result)) == (frozenset(), [])
        assert storage.read_counts() == counts
        assert storage.get_decisions(["ann"])["ann"] == bare(ANN)
        assert len(storage.commit(rewards(reward(ANN, "late"))).applied) == 1
        other = MemoryBanditStorage()
        copy(storage, other)
        assert state(other) == state(storage)
        assert storage.prune(before=NEW) == 2
        assert storage.erase(["ann", "bob", "standing"]) == 0
        assert storage.get_decisions(["ann"])["ann"] == ANN.pruned()
        assert storage.erase(["other"]) == 1

    def test_erase_nothing(self, storage: BanditStorage) -> None:
        assert storage.erase(["unknown"]) == 0
        fill(storage)
        complete = state(storage)
        # A reward waits for the first of these.
        assert storage.erase(["later", "unknown", "", "' OR 1=1"], PATIENCE) == 0
        assert storage.erase([]) == 0
        assert state(storage) == complete
        assert storage.commit(decisions(decision("later"))).applied

    def test_erase_many(self, storage: BanditStorage) -> None:
        """More ids than fit into one statement of some databases."""
        made = [decision(f"d{n}", subject=f"s{n}", context={"n": n}) for n in range(1500)]
        storage.commit(decisions(*made))
        assert storage.erase([one.id for one in made[:-1]]) == 1499
        assert [entry.decision for entry in storage.iter_log()] == [
            *map(bare, made[:-1]),
            made[-1],
        ]

    def test_erase_while_others_write(self, storage: BanditStorage) -> None:
        failures: list[BaseException] = []
        storage.commit(decisions(*(decision(f"old{n}", subject="s") for n in range(10))))

        def write(worker: int) -> None:
            try:
                for number in range(40):
                    made = decision(f"w{worker}-{number}", subject="s")
                    storage.commit(Commit((pull(made),), (earn(reward(made)),)), PATIENCE)
            except BaseException as error:
                failures.append(error)

        def erase() -> None:
            try:
                for number in range(10):
                    assert storage.erase([f"old{number}"], PATIENCE) == 1
            except BaseException as error:
                failures.append(error)

        run_threads([erase, *(lambda worker=worker: write(worker) for worker in range(4))])
        assert not failures, failures
        row = storage.read_counts()[KEY]["green"]
        assert (row["pulls"], row["rewards"]) == (170, 160)
        found = [entry.decision for entry in storage.iter_log()]
        assert len(found) == 170
        assert [one.id for one in found if one.subject is None] == [f"old{n}" for n in range(10)]

    @needs_durable
    def test_what_is_erased_is_gone_after_reopening(self, tmp_path: Path) -> None:
        storage = self.make_storage(tmp_path)
        self._fill(storage)
        assert storage.erase(["ann", "standing"]) == 2
        expected = state(storage)
        storage.close()
        storage = self.make_storage(tmp_path)
        assert state(storage) == expected
        assert storage.get_decisions(["ann"])["ann"] == bare(ANN)
        assert storage.erase(["ann", "standing"]) == 0
        storage.close()

    @needs_shared
    def test_what_another_process_erased_is_gone(self, tmp_path: Path) -> None:
        storage = self.make_storage(tmp_path)
        self._fill(storage)
        assert storage.get_decisions(["ann"])["ann"] == ANN
        run_processes(erase_one, [(self.make_storage, tmp_path, "ann")])
        assert storage.get_decisions(["ann"])["ann"] == bare(ANN)
        assert next(iter(storage.iter_log())).decision == bare(ANN)
        assert storage.erase(["ann", "bob"]) == 1
        assert storage.commit(decisions(decision("after"))).new == {"after"}
        storage.close()
