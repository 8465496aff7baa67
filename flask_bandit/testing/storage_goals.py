"""The part of ``StorageSuite`` about goals: no arm is rewarded more often than it was pulled."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from ..model import DEFAULT_GOAL, Decision, Reward, StatsDelta
from ..storage.base import BanditStorage, Commit, RewardWrite
from ..storage.transfer import audit
from .storage_control import run_threads
from .storage_processes import PATIENCE
from .storage_samples import BANDIT, KEY, decision, earn, pull, reward

GOALS = (DEFAULT_GOAL, "buy")
ARMS = ("green", "red", "blue")
DECISIONS = 40
NEVER = 5
"""How many decisions are never sent, though they are rewarded."""


def name_of(goal: str) -> str:
    """Return the sum that counts the rewards for a goal."""
    return "rewards" if goal == DEFAULT_GOAL else f"goal:{goal}:rewards"


def count(given: Reward) -> RewardWrite:
    """Add the increment that counts a reward for its goal."""
    if given.goal == DEFAULT_GOAL:
        return earn(given)
    return RewardWrite(given, StatsDelta({given.arm: {name_of(given.goal): 1}}))


def sendings(chance: random.Random) -> list[tuple[Decision | None, tuple[str, ...], str]]:
    """Return what one visitor's browser sends, in any order: the decision, rewards, or both."""
    found: list[tuple[Decision | None, tuple[str, ...], str]] = []
    for number in range(DECISIONS + NEVER):
        id_ = f"d{number}"
        # Each replay may think of another arm; the one that is stored first counts.
        made = decision(id_, chance.choice(ARMS)) if number < DECISIONS else None
        goals = tuple(chance.sample(GOALS, chance.randint(0, 2)))
        found += [(made, (), id_), (made, goals, id_), (None, goals, id_)]
    chance.shuffle(found)
    return found


def send(
    storage: BanditStorage, made: Decision | None, goals: tuple[str, ...], of: Decision
) -> None:
    """Send a commit, and what has to be computed anew because another arm is stored."""
    given = [count(reward(of, goal)) for goal in goals]
    result = storage.commit(Commit(() if made is None else (pull(made),), tuple(given)), PATIENCE)
    while result.unlearned:
        again = [count(replace(one, arm=known.arm)) for one, known in result.unlearned]
        result = storage.commit(Commit(rewards=tuple(again)), PATIENCE)


class GoalTests:
    """What must hold of rewards for goals that count once per decision."""

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_no_goal_is_rewarded_more_often_than_decided(
        self, storage: BanditStorage, seed: int
    ) -> None:
        """Six threads send one another's decisions and rewards again, in any order."""
        failures: list[BaseException] = []
        rewarded: set[tuple[str, str]] = set()

        def work(worker: int) -> None:
            chance = random.Random(100 * seed + worker)
            try:
                for made, goals, id_ in sendings(chance):
                    rewarded.update((id_, goal) for goal in goals)
                    # Who sends a reward alone knows the arm from a cookie, which may be old.
                    send(storage, made, goals, made or decision(id_, chance.choice(ARMS)))
            except BaseException as error:
                failures.append(error)

        run_threads([lambda worker=worker: work(worker) for worker in range(6)])  # type: ignore[misc]
        assert not failures, failures
        self._check(storage, rewarded)

    def _check(self, storage: BanditStorage, rewarded: set[tuple[str, str]]) -> None:
        counts = storage.read_counts()[KEY]
        log = list(storage.iter_log(BANDIT))
        assert len(log) == len({entry.decision.id for entry in log}) == DECISIONS
        pulls = Counter(entry.decision.arm for entry in log)
        found = Counter((e.decision.arm, given.goal) for e in log for given in e.rewards)
        for arm in ARMS:
            row = counts.get(arm, {})
            assert row.get("pulls", 0) == pulls[arm]
            for goal in GOALS:
                assert row.get(name_of(goal), 0) == found[arm, goal] <= pulls[arm]
        # Each one counts that was given for a decision that is there.
        stored = {entry.decision.id for entry in log}
        assert sum(found.values()) == len({one for one in rewarded if one[0] in stored})
        assert audit(storage) == []
