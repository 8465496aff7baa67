"""The part of ``StorageSuite`` about arrays of sums, which contextual policies learn from."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ..errors import StorageError
from ..model import Arrays, BanditKey, Decision, Reward, StatsDelta, Term
from ..storage.base import (
    Adjustment,
    BanditStorage,
    Commit,
    DecisionWrite,
    RewardWrite,
)
from ..storage.memory import MemoryBanditStorage
from ..storage.transfer import audit
from .storage_control import NAMES, run_threads
from .storage_moves import NEW, OLD, copy, fill, state
from .storage_processes import (
    PATIENCE,
    StorageFactory,
    needs_durable,
    needs_shared,
    run_processes,
)
from .storage_samples import BANDIT, KEY, TWO, decision, earn, pull, reward

COUNT = 25
Y = (1.0, 2.0, 3.0)
YY = [1.0, 2.0, 3.0, 4.0, 6.0, 9.0]
"""The upper triangle of ``Y``'s product with itself, by rows."""
SECRET = (1.0, 0.12345678987, -987.65432198)
"""Numbers that no sum of others is."""


def seen(made: Decision, vector: tuple[float, ...] = Y, name: str = "s:xx") -> DecisionWrite:
    """Make a decision that adds to an array, by a product."""
    return DecisionWrite(made, pull(made).delta + added(made.arm, name, vector, outer=True))


def learned(given: Reward, vector: tuple[float, ...] = Y, name: str = "s:xr") -> RewardWrite:
    """Make a reward that adds to an array."""
    delta = earn(given).delta
    assert delta is not None
    return RewardWrite(given, delta + added(given.arm, name, vector))


def added(arm: str, name: str, vector: tuple[float, ...], outer: bool = False) -> StatsDelta:
    """Make an increment of one array."""
    return StatsDelta({}, (Term(arm, name, vector, outer),))


def item(id_: str, delta: StatsDelta, key: BanditKey = KEY) -> Commit:
    """Make a commit of one adjustment."""
    return Commit(adjustments=(Adjustment(id_, key.bandit, key.version, delta),))


def plain(arrays: Arrays) -> dict[BanditKey, dict[str, dict[str, list[float]]]]:
    """Turn arrays into what can be compared."""
    return {
        key: {arm: {name: row[name].tolist() for name in row} for arm, row in arms.items()}
        for key, arms in arrays.items()
    }


def sums(storage: BanditStorage) -> dict[BanditKey, dict[str, dict[str, list[float]]]]:
    """Return the arrays of a storage, after a look at their type."""
    arrays = storage.read_arrays(PATIENCE)
    for arms in arrays.values():
        for row in arms.values():
            for one in row.values():
                assert (str(one.dtype), one.ndim) == ("float64", 1)
    return plain(arrays)


def everything(storage: BanditStorage) -> Any:
    """Return all that can be read from a storage."""
    return state(storage), sums(storage)


def fill_arrays(storage: BanditStorage) -> None:
    """Store one of each, of two bandits, with sums that are not round."""
    fill(storage)
    made = [decision("a0", at=OLD), decision("a1", "red", subject="ü", at=NEW)]
    given = [reward(made[0], value=0.1), reward(made[1], value=1 / 3)]
    storage.commit(Commit((seen(made[0], (1.0, 0.1, 0.2)), seen(made[1], (1.0, 1 / 3, 1e-9)))))
    storage.commit(Commit(rewards=(learned(given[0], (0.1, 0.01, 0.02)), learned(given[1]))))
    other = BanditKey("zöld", 2)
    storage.commit(item("sums", added("a:b", "s:xr", (0.7, -1e300)) + TWO, other))


def add_many(make: StorageFactory, location: Path, worker: int) -> None:
    """Do what ``add_some`` does, in a storage of one's own."""
    storage = make(location)
    add_some(storage, worker)
    storage.close()


def add_some(storage: BanditStorage, worker: int) -> None:
    """Add to an array that the others add to, and to one's own; half of it is sent twice."""
    for number in range(COUNT):
        made = decision(f"w{worker}-{number}")
        own = added("green", f"own{worker}", (float(number),))
        write = seen(made)
        commit = Commit((replace(write, delta=write.delta + own),), (learned(reward(made)),))
        for _ in range(1 + number % 2):
            storage.commit(commit, PATIENCE)


def require_many(storage: BanditStorage, workers: int) -> None:
    """Compare the arrays with what ``add_some`` adds, all of it whole numbers."""
    times = workers * COUNT
    own = {f"own{worker}": [float(sum(range(COUNT)))] for worker in range(workers)}
    shared = {"s:xx": [times * y for y in YY], "s:xr": [times * y for y in Y]}
    assert sums(storage) == {KEY: {"green": {**shared, **own}}}
    row = storage.read_counts()[KEY]["green"]
    assert (row["pulls"], row["rewards"]) == (times, times)


# Each is refused where "s:xx" of green has 6 numbers, and nothing else is stored.
WRONG_LENGTH: dict[str, Commit] = {
    "decision": Commit((seen(decision("bad"), (1.0, 2.0)),)),
    "not-outer": item("bad", added("green", "s:xx", Y)),
    "reward": Commit((pull(decision("bad")),), (learned(reward(decision("bad")), Y, "s:xx"),)),
    "adjustment": item("bad", added("green", "s:xx", (1.0,))),
    "one-commit": item("bad", added("red", "s:xx", (1.0,)) + added("red", "s:xx", (1.0, 2.0))),
    "two-writes": Commit((seen(decision("bad", "red"), Y), seen(decision("b2", "red"), Y[:2]))),
}

_wrong: Any = ("1.0", None, 2**63)
NOT_STORABLE: dict[str, StatsDelta] = {
    "nan": added("green", "s:xr", (1.0, math.nan)),
    "inf": added("green", "s:xr", (-math.inf,)),
    "product": added("green", "s:xx", (1.0, 1e200), outer=True),
    "empty": added("green", "s:xr", ()),
    "name": added("green", "a\x00b", Y),
    "arm": added("gr\neen", "s:xr", Y),
    **{f"type-{value!r}": added("green", "s:xr", (value,)) for value in _wrong},
}


class ArraysTests:
    """What must hold of ``StatsDelta.terms`` and ``read_arrays``."""

    def make_storage(self, location: Path) -> BanditStorage:
        """Open the storage kept at ``location``."""
        raise NotImplementedError

    # Adding up

    def test_no_arrays_without_terms(self, storage: BanditStorage) -> None:
        assert dict(storage.read_arrays()) == {}
        fill(storage)
        assert dict(storage.read_arrays(PATIENCE)) == {}

    def test_terms_are_added_with_the_counts(self, storage: BanditStorage) -> None:
        made, write = decision("d"), seen(decision("d"))
        result = storage.commit(Commit((write,)), PATIENCE)
        assert result.applied == ((KEY, write.delta),)
        assert sums(storage) == {KEY: {"green": {"s:xx": YY}}}
        given = learned(reward(made, value=2.0), (2.0, 4.0, 6.0))
        assert storage.commit(Commit(rewards=(given,))).applied == ((KEY, given.delta),)
        arrays = {"s:xx": YY, "s:xr": [2.0, 4.0, 6.0]}
        assert sums(storage) == {KEY: {"green": arrays}}
        storage.commit(item("a", TWO + added("green", "s:xr", (0.5, 0.25, -6.0))))
        assert sums(storage) == {KEY: {"green": {**arrays, "s:xr": [2.5, 4.25, 0.0]}}}
        row = {"pulls": 21, "rewards": 3, "reward": 3.5, "reward_sq": 4.0}
        assert storage.read_counts()[KEY]["green"] == row

    def test_terms_of_one_commit_add_up(self, storage: BanditStorage) -> None:
        made = [decision("d1"), decision("d2"), decision("d3", "red")]
        given = [reward(one) for one in made]
        storage.commit(Commit(tuple(map(seen, made)), tuple(map(learned, given))))
        two = {"s:xx": [2 * y for y in YY], "s:xr": [2 * y for y in Y]}
        assert sums(storage) == {KEY: {"green": two, "red": {"s:xx": YY, "s:xr": list(Y)}}}
        assert storage.read_counts()[KEY]["green"]["rewards"] == 2

    def test_terms_without_counts(self, storage: BanditStorage) -> None:
        assert storage.commit(item("a", added("green", "s:xr", Y))).new == {"a"}
        assert sums(storage) == {KEY: {"green": {"s:xr": list(Y)}}}
        assert dict(storage.read_counts()) == {}

    def test_resent_terms_are_added_once(self, storage: BanditStorage) -> None:
        made = decision("d")
        adjustment = item("a", added("green", "s:xr", Y)).adjustments
        # Also twice in one commit.
        commit = Commit((seen(made),) * 2, (learned(reward(made)),) * 2, adjustment * 2)
        expected = {KEY: {"green": {"s:xx": YY, "s:xr": [2 * y for y in Y]}}}
        for number in range(4):
            assert len(storage.commit(commit).applied) == (3 if number == 0 else 0)
            assert sums(storage) == expected
        storage.commit(Commit((seen(replace(made, arm="red"), SECRET),)))
        storage.commit(Commit(rewards=(learned(reward(made, value=9.0), SECRET),)))
        assert sums(storage) == expected

    def test_arrays_are_apart(self, storage: BanditStorage) -> None:
        """By bandit, version, arm and name, whatever the texts are."""
        keys = [BanditKey(name, version) for name in NAMES for version in (1, 11)]
        expected: dict[BanditKey, dict[str, dict[str, list[float]]]] = {}
        for number, key in enumerate(keys):
            arms = [key.bandit, f"{key.bandit}:1", "1"]
            names = ["s:xx", "s", key.bandit]
            vectors = {
                (arm, name): (float(number), 10.0 * i + j)
                for i, arm in enumerate(arms)
                for j, name in enumerate(names)
            }
            terms = tuple(Term(arm, name, vector) for (arm, name), vector in vectors.items())
            storage.commit(item(f"a{number}", StatsDelta({}, terms), key))
            expected[key] = {}
            for (arm, name), vector in vectors.items():
                expected[key].setdefault(arm, {})[name] = list(vector)
        assert sums(storage) == expected

    def test_long_array(self, storage: BanditStorage) -> None:
        """Of 500 features, which are 125,250 numbers."""
        vector = tuple(number / 7 for number in range(500))
        for id_ in ("d1", "d2"):
            storage.commit(Commit((seen(decision(id_), vector),)), PATIENCE)
        found = storage.read_arrays(PATIENCE)[KEY]["green"]["s:xx"]
        assert found.tolist() == (2 * Term("", "", vector, True).expanded()).tolist()

    def test_arrays_are_a_snapshot(self, storage: BanditStorage) -> None:
        storage.commit(Commit((seen(decision("1")),)))
        before = storage.read_arrays()
        storage.commit(Commit((seen(decision("2")), seen(decision("3", "red")))))
        storage.commit(Commit((seen(decision("4", bandit="other")),)))
        assert plain(before) == {KEY: {"green": {"s:xx": YY}}}
        assert set(sums(storage)) == {KEY, BanditKey("other", 1)}

    # What cannot be added

    @pytest.mark.parametrize("name", sorted(WRONG_LENGTH))
    def test_array_of_another_length(self, storage: BanditStorage, name: str) -> None:
        """It is refused, and so is the rest of the commit."""
        storage.commit(Commit((seen(decision("d")),)))
        before = everything(storage)
        wrong, good = WRONG_LENGTH[name], decision("good")
        with pytest.raises(StorageError):
            storage.commit(
                Commit(
                    (seen(good), *wrong.decisions),
                    (learned(reward(good)), *wrong.rewards),
                    (Adjustment("ok", BANDIT, 1, TWO), *wrong.adjustments),
                )
            )
        assert everything(storage) == before
        again = storage.commit(
            Commit((seen(good),), (learned(reward(good)),), (Adjustment("ok", BANDIT, 1, TWO),))
        )
        assert again.new == {"good", "good:reward", "ok"}
        assert sums(storage)[KEY]["green"]["s:xx"] == [2 * y for y in YY]
        # What is counted already adds nothing, of whatever length.
        assert storage.commit(Commit((seen(good, (1.0,)),))).applied == ()

    @pytest.mark.parametrize("name", sorted(NOT_STORABLE))
    def test_terms_that_are_refused(self, storage: BanditStorage, name: str) -> None:
        fill_arrays(storage)
        before = everything(storage)
        good, delta = decision("good"), NOT_STORABLE[name]
        for wrong in (
            Commit((seen(good), DecisionWrite(decision("bad"), delta))),
            Commit((seen(good),), (RewardWrite(reward(good), delta),)),
            Commit((seen(good),), (), item("bad", delta).adjustments),
        ):
            with pytest.raises(StorageError):
                storage.commit(wrong)
        assert everything(storage) == before
        assert storage.commit(Commit((pull(good),))).new == {"good"}

    # What waits

    def test_reward_with_terms_before_its_decision(self, storage: BanditStorage) -> None:
        """It is stored without its increment, and is counted with its terms when sent again."""
        made, given = decision("d"), reward(decision("d"))
        for new in ({given.id}, set()):
            result = storage.commit(Commit(rewards=(learned(given),)))
            assert result.new == new
            assert result.parked == {given.id}
            assert result.applied == ()
        assert list(storage.iter_commits()) == [Commit(rewards=(RewardWrite(given, None),))]
        for _ in range(2):
            result = storage.commit(Commit((seen(made),)))
            assert result.unlearned == ((given, made),)
        assert sums(storage) == {KEY: {"green": {"s:xx": YY}}}
        assert storage.read_counts()[KEY] == {"green": {"pulls": 1}}
        for applied in (1, 0):
            result = storage.commit(Commit(rewards=(learned(given),)))
            assert (result.new, result.unlearned) == (frozenset(), ())
            assert len(result.applied) == applied
        assert sums(storage) == {KEY: {"green": {"s:xx": YY, "s:xr": list(Y)}}}
        assert storage.read_counts()[KEY]["green"]["rewards"] == 1
        assert audit(storage) == []

    def test_reward_with_terms_and_its_decision_at_once(self, storage: BanditStorage) -> None:
        made = decision("d")
        storage.commit(Commit(rewards=(learned(reward(made)),)))
        result = storage.commit(Commit((seen(made),), (learned(reward(made)),)))
        assert (len(result.applied), result.unlearned) == (2, ())
        assert sums(storage) == {KEY: {"green": {"s:xx": YY, "s:xr": list(Y)}}}

    def test_reward_with_terms_for_another_arm(self, storage: BanditStorage) -> None:
        made = decision("d", "red")
        given = reward(made, arm="green")
        storage.commit(Commit((seen(made),)))
        for _ in range(2):
            result = storage.commit(Commit(rewards=(learned(given, SECRET),)))
            assert (result.unlearned, result.applied) == (((given, made),), ())
        assert sums(storage) == {KEY: {"red": {"s:xx": YY}}}
        for _ in range(2):
            storage.commit(Commit(rewards=(learned(replace(given, arm="red")),)))
            assert sums(storage) == {KEY: {"red": {"s:xx": YY, "s:xr": list(Y)}}}
        other = MemoryBanditStorage()
        copy(storage, other)
        assert everything(other) == everything(storage)

    # Several at once, and afterwards

    @needs_durable
    def test_arrays_are_there_after_reopening(self, tmp_path: Path) -> None:
        storage = self.make_storage(tmp_path)
        fill_arrays(storage)
        storage.commit(Commit(rewards=(learned(reward(decision("parked"))),)))
        expected = everything(storage)
        storage.close()
        storage = self.make_storage(tmp_path)
        assert everything(storage) == expected
        made = decision("parked")
        assert storage.commit(Commit((seen(made, SECRET),))).unlearned == ((reward(made), made),)
        assert sums(storage) != expected[1]
        storage.close()

    def test_threads_that_add_to_arrays(self, storage: BanditStorage) -> None:
        failures: list[BaseException] = []

        def work(worker: int) -> None:
            try:
                add_some(storage, worker)
            except BaseException as error:
                failures.append(error)

        run_threads([lambda worker=worker: work(worker) for worker in range(4)])  # type: ignore[misc]
        assert not failures, failures
        require_many(storage, 4)

    @needs_shared
    def test_processes_that_add_to_arrays(self, tmp_path: Path) -> None:
        """And this process, which has read before, sees it."""
        storage = self.make_storage(tmp_path)
        assert sums(storage) == {}
        run_processes(add_many, [(self.make_storage, tmp_path, worker) for worker in range(3)])
        require_many(storage, 3)
        add_many(self.make_storage, tmp_path, 3)
        require_many(storage, 4)
        storage.close()
