"""``StorageSuite``: inherit it in a test class, and it tests your storage as the built-in ones.

It knows the protocol and pytest, and no storage.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ..errors import StorageError
from ..model import BanditKey, Decision, LogEntry, Reward
from ..storage.base import Adjustment, BanditStorage, Commit, RewardWrite
from .storage_arrays import ArraysTests
from .storage_control import ControlTests
from .storage_digest import DigestTests
from .storage_erase import EraseTests
from .storage_goals import GoalTests
from .storage_moves import MoveTests
from .storage_network import NetworkTests
from .storage_processes import ProcessTests, needs_durable
from .storage_resent import ResentTests
from .storage_samples import (
    BANDIT,
    BROKEN,
    KEY,
    TWO,
    applied_arms,
    decision,
    decisions,
    earn,
    pull,
    reward,
    rewards,
)
from .storage_sums import SumsTests


class StorageSuite(
    ArraysTests,
    ControlTests,
    DigestTests,
    EraseTests,
    GoalTests,
    ProcessTests,
    MoveTests,
    ResentTests,
    SumsTests,
    NetworkTests,
):
    """Tests of everything that :class:`BanditStorage` guarantees.

    Inherit it in a class of your tests, at the top level of a module, and override
    :meth:`make_storage`. The tests need POSIX and pytest, and no fixture but ``tmp_path``.
    """

    shared: bool = True
    """Whether other processes see the data; ``False`` leaves the tests of it out."""

    durable: bool = True
    """Whether the data outlives the storage object; ``False`` leaves the tests of it out."""

    networked: bool = False
    """Whether a server keeps the data; ``True`` adds the tests of broken connections, which need
    :meth:`server_address` and :meth:`make_storage_at` too."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in dir(cls):
            marks = getattr(getattr(cls, name), "__dict__", {})
            if any(
                marks.get(f"needs_{what}") and not getattr(cls, what)
                for what in ("shared", "durable", "networked")
            ):
                setattr(cls, name, None)

    def make_storage(self, location: Path) -> BanditStorage:
        """Return a storage that keeps its data at ``location``, an empty directory at first.

        Called twice with one location, it opens the same data, as another process would.
        """
        raise NotImplementedError

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Any:
        """A new storage."""
        storage = self.make_storage(tmp_path)
        yield storage
        storage.close()

    # What is new

    def test_empty(self, storage: BanditStorage) -> None:
        assert dict(storage.read_counts()) == {}
        assert dict(storage.get_decisions(["x"])) == {}
        assert list(storage.iter_log()) == []
        result = storage.commit(Commit())
        assert (dict(result.decisions), result.new, result.applied) == ({}, frozenset(), ())

    def test_decision_is_counted(self, storage: BanditStorage) -> None:
        made = decision("d")
        result = storage.commit(decisions(made), 5.0)
        assert dict(result.decisions) == {"d": made}
        assert result.new == {"d"}
        assert applied_arms(result) == [((BANDIT, 1), "green", "pulls")]
        assert storage.read_counts(5.0) == {KEY: {"green": {"pulls": 1}}}
        assert dict(storage.get_decisions(["d", "no"], 5.0)) == {"d": made}

    def test_decision_and_reward_in_one_commit(self, storage: BanditStorage) -> None:
        made = decision("d", "red")
        result = storage.commit(Commit((pull(made),), (earn(reward(made, value=0.5)),)))
        assert result.new == {"d", "d:reward"}
        assert (result.parked, result.unlearned) == (frozenset(), ())
        row = {"pulls": 1, "rewards": 1, "reward": 0.5, "reward_sq": 0.25}
        assert storage.read_counts()[KEY] == {"red": row}

    def test_pulls_and_rewards_stay_integers(self, storage: BanditStorage) -> None:
        made = decision("d")
        storage.commit(Commit((pull(made),), (earn(reward(made)),)))
        storage.commit(Commit(adjustments=(Adjustment("a", BANDIT, 1, TWO),)))
        row = storage.read_counts()[KEY]["green"]
        assert (type(row["pulls"]), type(row["rewards"])) == (int, int)
        assert (row["pulls"], row["rewards"], row["reward"]) == (21, 3, 2.5)

    @pytest.mark.parametrize("name", sorted(BROKEN))
    def test_all_or_nothing(self, storage: BanditStorage, name: str) -> None:
        with pytest.raises(StorageError):
            storage.commit(BROKEN[name])
        assert dict(storage.read_counts()) == {}
        assert dict(storage.get_decisions(["good", "bad"])) == {}
        assert list(storage.iter_log()) == []
        made = decision("good")
        again = storage.commit(
            Commit((pull(made),), (earn(reward(made)),), (Adjustment("ok", BANDIT, 1, TWO),))
        )
        assert again.new == {"good", "good:reward", "ok"}

    # What is sent again

    def test_replays_count_once(self, storage: BanditStorage) -> None:
        made = decision("d")
        commit = Commit((pull(made),), (earn(reward(made)),), (Adjustment("once", BANDIT, 1, TWO),))
        storage.commit(commit)
        counts = storage.read_counts()
        for _ in range(5):
            result = storage.commit(commit)
            assert dict(result.decisions) == {"d": made}
            assert (result.new, result.applied) == (frozenset(), ())
            assert (result.parked, result.unlearned) == (frozenset(), ())
        assert storage.read_counts() == counts
        assert len(list(storage.iter_log())) == 1

    def test_first_decision_wins(self, storage: BanditStorage) -> None:
        first = decision("d", "green", context={"n": 1})
        storage.commit(decisions(first))
        result = storage.commit(decisions(decision("d", "red", at=1.0)))
        assert dict(result.decisions) == {"d": first}
        assert storage.read_counts()[KEY] == {"green": {"pulls": 1}}

    def test_duplicates_inside_a_commit(self, storage: BanditStorage) -> None:
        made = decision("d")
        given = earn(reward(made))
        item = Adjustment("a", BANDIT, 1, TWO)
        result = storage.commit(
            Commit((pull(made), pull(replace(made, arm="red"))), (given, given), (item, item))
        )
        assert dict(result.decisions) == {"d": made}
        assert len(result.applied) == 3
        assert storage.read_counts()[KEY]["green"]["pulls"] == 21
        assert storage.read_counts()[KEY]["red"]["pulls"] == 7

    def test_first_value_of_a_reward_stays(self, storage: BanditStorage) -> None:
        made = decision("d")
        storage.commit(Commit((pull(made),), (earn(reward(made, value=1.0)),)))
        storage.commit(rewards(reward(made, value=9.0)))
        assert storage.read_counts()[KEY]["green"]["reward"] == 1.0
        assert [entry.rewards for entry in storage.iter_log()] == [(reward(made, value=1.0),)]

    def test_two_goals(self, storage: BanditStorage) -> None:
        made = decision("d")
        storage.commit(decisions(made))
        for _ in range(2):
            storage.commit(rewards(reward(made, "click"), reward(made, "buy", 20.0)))
        row = storage.read_counts()[KEY]["green"]
        assert (row["rewards"], row["reward"], row["reward_sq"]) == (2, 21.0, 401.0)
        assert [r.goal for entry in storage.iter_log() for r in entry.rewards] == ["click", "buy"]

    # What waits

    def test_reward_before_its_decision(self, storage: BanditStorage) -> None:
        made = decision("d")
        for _ in range(2):
            result = storage.commit(rewards(reward(made), reward(made, "buy")))
            assert result.parked == {"d:reward", "d:buy"}
            assert result.applied == ()
        assert dict(storage.read_counts()) == {}
        assert list(storage.iter_log()) == []
        result = storage.commit(decisions(made))
        assert result.new == {"d"}
        assert (result.parked, result.unlearned) == (frozenset(), ())
        assert len(result.applied) == 3
        row = {"pulls": 1, "rewards": 2, "reward": 2.0, "reward_sq": 2.0}
        assert storage.read_counts()[KEY] == {"green": row}
        storage.commit(Commit((pull(made),), (earn(reward(made)),)))
        assert storage.read_counts()[KEY] == {"green": row}
        assert [len(entry.rewards) for entry in storage.iter_log()] == [2]

    def test_unknown_decision_stays_parked(self, storage: BanditStorage) -> None:
        storage.commit(decisions(decision("other")))
        result = storage.commit(rewards(reward(decision("unknown"))))
        assert result.parked == {"unknown:reward"}
        assert storage.read_counts() == {KEY: {"green": {"pulls": 1}}}

    def _learn(self, storage: BanditStorage, unlearned: tuple[Reward, Decision]) -> None:
        given, made = unlearned
        for new in (1, 0):
            result = storage.commit(Commit(rewards=(earn(replace(given, arm=made.arm)),)))
            assert (result.new, result.unlearned) == (frozenset(), ())
            assert len(result.applied) == new

    def test_reward_for_another_arm(self, storage: BanditStorage) -> None:
        made = decision("d", "red")
        storage.commit(decisions(made))
        given = reward(made, arm="green")
        for new in ({given.id}, set()):
            result = storage.commit(rewards(given))
            assert result.new == new
            assert result.applied == ()
            assert result.unlearned == ((given, made),)
        assert storage.read_counts()[KEY] == {"red": {"pulls": 1}}
        self._learn(storage, result.unlearned[0])
        row = {"pulls": 1, "rewards": 1, "reward": 1.0, "reward_sq": 1.0}
        assert storage.read_counts()[KEY] == {"red": row}

    def test_parked_reward_for_another_arm(self, storage: BanditStorage) -> None:
        made = decision("d", "red")
        given = reward(made, arm="green")
        storage.commit(rewards(given))
        for _ in range(2):
            # Told again with each replay of the decision: an answer may have been lost.
            result = storage.commit(decisions(made))
            assert result.unlearned == ((given, made),)
        self._learn(storage, result.unlearned[0])
        assert storage.read_counts()[KEY]["red"]["rewards"] == 1

    def test_policy_that_needs_the_decision(self, storage: BanditStorage) -> None:
        made = decision("d")
        given = reward(made)
        without = Commit(rewards=(RewardWrite(given, None),))
        assert storage.commit(without).parked == {given.id}
        result = storage.commit(decisions(made))
        assert result.unlearned == ((given, made),)
        assert storage.commit(without).unlearned == ((given, made),)
        self._learn(storage, result.unlearned[0])
        assert storage.commit(without).unlearned == ()
        assert storage.read_counts()[KEY]["green"]["rewards"] == 1

    def test_parked_reward_sent_again_with_an_increment(self, storage: BanditStorage) -> None:
        made = decision("d")
        storage.commit(Commit(rewards=(RewardWrite(reward(made), None),)))
        storage.commit(rewards(reward(made)))
        result = storage.commit(decisions(made))
        assert result.unlearned == ()
        assert storage.read_counts()[KEY]["green"]["rewards"] == 1

    def test_adjustment_is_added_once(self, storage: BanditStorage) -> None:
        item = Adjustment("import-2013", BANDIT, 1, TWO)
        assert storage.commit(Commit(adjustments=(item,))).new == {"import-2013"}
        assert storage.commit(Commit(adjustments=(item,))).applied == ()
        assert storage.read_counts() == {KEY: TWO.counts}

    # What comes back

    def test_log_round_trip(self, storage: BanditStorage) -> None:
        context = {"age": 31, "ok": True, "none": None, "list": [1, 2.5, "x"], "in": {"a": "ü"}}
        made = [
            decision("d1", context=context, subject="user 42", policy_version="ü(x=1)"),
            decision("d2", "red", propensities=None, at=0.1),
            decision("d3", "blue", propensities={"blue": 1 / 3}, version=7),
            decision("d0", context={}, bandit="other"),
        ]
        given = [reward(made[0], value=0.1, at=2.5), reward(made[1], "buy", -3.0)]
        for one in made:
            storage.commit(decisions(one))
        storage.commit(rewards(*given))
        entries = [LogEntry(made[0], (given[0],)), LogEntry(made[1], (given[1],))]
        entries += [LogEntry(made[2]), LogEntry(made[3])]
        assert list(storage.iter_log()) == entries
        assert list(storage.iter_log(BANDIT)) == entries[:3]
        assert list(storage.iter_log("unknown")) == []
        assert dict(storage.get_decisions(d.id for d in made)) == {d.id: d for d in made}

    def test_log_is_read_while_commits_go_on(self, storage: BanditStorage) -> None:
        storage.commit(decisions(decision("a"), decision("b")))
        seen = []
        for number, entry in enumerate(storage.iter_log()):
            seen.append(entry.decision.id)
            storage.commit(decisions(decision(f"later{number}")))
        assert seen[:2] == ["a", "b"]
        assert len(seen) <= 4
        assert len(list(storage.iter_log())) == 2 + len(seen)

    def test_tuples_in_a_context_come_back_as_lists(self, storage: BanditStorage) -> None:
        made = decision("d", context={"size": (1, 2)})
        result = storage.commit(decisions(made))
        expected = replace(made, context={"size": [1, 2]})
        assert dict(result.decisions) == {"d": expected}
        assert dict(storage.get_decisions(["d"])) == {"d": expected}

    def test_context_is_copied(self, storage: BanditStorage) -> None:
        context = {"page": ["home"]}
        storage.commit(decisions(decision("d", context=context)))
        context["page"].append("changed later")
        assert storage.get_decisions(["d"])["d"].context == {"page": ["home"]}

    def test_bandits_and_versions_are_apart(self, storage: BanditStorage) -> None:
        made = [decision("d1"), decision("d2", version=2), decision("d3", bandit="text_btn")]
        result = storage.commit(decisions(*made))
        storage.commit(rewards(reward(made[1])))
        assert {tuple(key) for key, _ in result.applied} == {
            (BANDIT, 1),
            (BANDIT, 2),
            ("text_btn", 1),
        }
        counts = storage.read_counts()
        assert set(counts) == {KEY, BanditKey(BANDIT, 2), BanditKey("text_btn", 1)}
        assert counts[KEY] == counts["text_btn", 1] == {"green": {"pulls": 1}}  # type: ignore[index]
        assert counts[BanditKey(BANDIT, 2)]["green"]["rewards"] == 1

    @pytest.mark.parametrize(
        "text",
        [
            "אדום",
            "zöld",
            "👩‍👩‍👧‍👦",
            "颜色按钮",
            "e\u0301",
            "\u00e9",
            'a"b\\c',
            "a:b{c}|d/e%f",
            "' OR 1=1",
            " ",
        ],
    )
    def test_ids_in_any_script(self, storage: BanditStorage, text: str) -> None:
        made = decision(f"d-{text}", text, bandit=text, propensities={text: 1.0}, subject=text)
        given = reward(made, text)
        storage.commit(Commit((pull(made),), (earn(given),)))
        assert storage.read_counts()[BanditKey(text, 1)][text]["rewards"] == 1
        assert list(storage.iter_log(text)) == [LogEntry(made, (given,))]

    def test_composed_and_decomposed_ids_differ(self, storage: BanditStorage) -> None:
        storage.commit(decisions(decision("1", "e\u0301"), decision("2", "\u00e9")))
        assert set(storage.read_counts()[KEY]) == {"e\u0301", "\u00e9"}

    def test_counts_are_a_snapshot(self, storage: BanditStorage) -> None:
        storage.commit(decisions(decision("1")))
        before = storage.read_counts()
        storage.commit(decisions(decision("2"), decision("3", bandit="other")))
        assert before == {KEY: {"green": {"pulls": 1}}}
        assert storage.read_counts()[KEY] == {"green": {"pulls": 2}}

    def test_close_and_use_again(self, storage: BanditStorage) -> None:
        storage.commit(decisions(decision("1")))
        storage.close()
        storage.close()
        storage.commit(decisions(decision("1"), decision("2")))
        assert storage.read_counts()[KEY] == {"green": {"pulls": 2}}

    @needs_durable
    def test_everything_is_there_after_reopening(self, tmp_path: Path) -> None:
        made = decision("d", context={"x": 1})
        first = self.make_storage(tmp_path)
        first.commit(Commit((pull(made),), (earn(reward(made)),), (Adjustment("a", "b", 1, TWO),)))
        first.commit(rewards(reward(decision("later"))))
        # Stored first, counted by another commit.
        first.commit(rewards(reward(made, "buy", arm="red")))
        first.commit(rewards(reward(made, "buy")))
        expected = first.read_counts(), list(first.iter_log())
        first.close()
        second = self.make_storage(tmp_path)
        assert (second.read_counts(), list(second.iter_log())) == expected
        assert second.commit(Commit((pull(made),), (earn(reward(made)),))).new == frozenset()
        assert second.commit(Commit(adjustments=(Adjustment("a", "b", 1, TWO),))).applied == ()
        assert len(second.commit(decisions(decision("later"))).applied) == 2
        second.close()
