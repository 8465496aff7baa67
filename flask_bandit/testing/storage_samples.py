"""Decisions and rewards to write to a storage under test, and the increments that count them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ..model import BanditKey, Decision, Reward, StatsDelta
from ..storage.base import Adjustment, Commit, CommitResult, DecisionWrite, RewardWrite

BANDIT = "color_btn"
KEY = BanditKey(BANDIT, 1)


def decision(id_: str, arm: str = "green", bandit: str = BANDIT, **fields: Any) -> Decision:
    """Make a decision; ``fields`` replace the usual ones."""
    usual: dict[str, Any] = {
        "version": 1,
        "propensities": {"green": 0.5, "red": 0.25, "blue": 0.25},
        "policy_version": "epsilon_greedy(epsilon=0.1)",
        "at": 1_700_000_000.25,
    }
    return Decision(id=id_, bandit=bandit, arm=arm, **{**usual, **fields})


def reward(of: Decision, goal: str = "reward", value: float = 1.0, **fields: Any) -> Reward:
    """Make a reward of a decision; ``fields`` replace the usual ones."""
    usual: dict[str, Any] = {
        "id": f"{of.id}:{goal}",
        "decision_id": of.id,
        "bandit": of.bandit,
        "version": of.version,
        "arm": of.arm,
        "at": of.at + 1,
    }
    return Reward(value=value, goal=goal, **{**usual, **fields})


def pull(made: Decision) -> DecisionWrite:
    """Add the increment that counts a decision."""
    return DecisionWrite(made, StatsDelta({made.arm: {"pulls": 1}}))


def earn(given: Reward, arm: str | None = None) -> RewardWrite:
    """Add the increment that counts a reward.

    :param arm: the arm to count it for, if not the reward's
    """
    sums = {"rewards": 1, "reward": given.value, "reward_sq": given.value**2}
    return RewardWrite(given, StatsDelta({arm or given.arm: sums}))


def decisions(*made: Decision) -> Commit:
    """Make a commit of decisions."""
    return Commit(decisions=tuple(map(pull, made)))


def rewards(*given: Reward) -> Commit:
    """Make a commit of rewards."""
    return Commit(rewards=tuple(map(earn, given)))


def applied_arms(result: CommitResult) -> list[tuple[tuple[str, int], str, str]]:
    """Return what a result says was added, as sorted (key, arm, sum) triples."""
    return sorted(
        ((key[0], key[1]), arm, name)
        for key, delta in result.applied
        for arm, row in delta.counts.items()
        for name in row
    )


TWO = StatsDelta({"green": {"pulls": 20, "rewards": 2, "reward": 1.5}, "red": {"pulls": 7}})


def _broken_commits() -> dict[str, Commit]:
    """Make commits of which one part cannot be stored."""
    good, bad = decision("good"), decision("bad")
    earned = reward(good)
    parts: dict[str, tuple[DecisionWrite | RewardWrite | Adjustment, ...]] = {
        "context": (pull(replace(bad, context={"user": {1, 2}})),),
        "context-key": (pull(replace(bad, context={1: "one"})),),  # type: ignore[dict-item]
        "context-nan": (pull(replace(bad, context={"x": [math.nan]})),),
        "context-surrogate": (pull(replace(bad, context={"x": ["a\ud83d"]})),),
        "context-key-surrogate": (pull(replace(bad, context={"\ud83d": 1})),),
        "subject": (pull(replace(bad, subject="\ud83d")),),
        "subject-control-character": (pull(replace(bad, subject="a\x00b")),),
        "policy-version": (pull(replace(bad, policy_version="\x00")),),
        "version": (pull(replace(bad, version=2**63)),),
        "time": (pull(replace(bad, at=math.inf)),),
        "propensity": (pull(replace(bad, propensities={"green": math.nan})),),
        "control-character": (pull(replace(bad, arm="gr\neen")),),
        "surrogate": (pull(replace(bad, bandit="color\ud83d")),),
        "delta": (DecisionWrite(bad, StatsDelta({"green": {"pulls": 1, "x": math.nan}})),),
        "pulls": (DecisionWrite(bad, StatsDelta({"green": {"pulls": 0.5}})),),
        "value": (RewardWrite(replace(earned, value=math.inf), StatsDelta({})),),
        "value-type": (RewardWrite(replace(earned, value="1"), None),),  # type: ignore[arg-type]
        "goal": (RewardWrite(replace(earned, goal="\x00"), None),),
        "adjustment": (Adjustment("a", BANDIT, 1, StatsDelta({"red": {"reward": -math.inf}})),),
    }
    return {
        name: Commit(
            (pull(good), *(p for p in part if isinstance(p, DecisionWrite))),
            (earn(earned), *(p for p in part if isinstance(p, RewardWrite))),
            (Adjustment("ok", BANDIT, 1, TWO), *(p for p in part if isinstance(p, Adjustment))),
        )
        for name, part in parts.items()
    }


BROKEN = _broken_commits()
