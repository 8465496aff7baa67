"""Between rows and the model: a row is an object with the texts of a decision and its rewards.

Imports no database.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ..base import Adjustment, Commit, DecisionWrite, RewardWrite
from ..codec import (
    commit_from_record,
    commit_to_record,
    reward_write_from_record,
    reward_write_to_record,
)
from ..settle import StoredReward


class Entry(NamedTuple):
    """One row, read: a decision with its rewards, or rewards that wait for their decision."""

    number: int
    write: DecisionWrite | None
    rewards: list[StoredReward]


def dump(record: dict[str, Any]) -> str:
    """Write a record as text."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False)


def put_decision(row: Any, write: DecisionWrite) -> None:
    """Put a decision and its increment into a row."""
    row["decision"] = dump(commit_to_record(Commit((write,)))["decisions"][0])


def adjustment_text(item: Adjustment) -> str:
    """Write an adjustment as text."""
    return dump(commit_to_record(Commit(adjustments=(item,)))["adjustments"][0])


def load_decision(row: Any) -> DecisionWrite | None:
    """Return the decision of a row and its increment, if it is stored."""
    if row["decision"] is None:
        return None
    return commit_from_record({"decisions": [json.loads(row["decision"])]}).decisions[0]


def put_reward(row: Any, reward: StoredReward) -> None:
    """Put a reward into the row of its decision."""
    record = reward_write_to_record(RewardWrite(reward.reward, reward.delta))
    # The arm that the increment is for may not be the reward's own.
    record.update(counted_for=reward.arm, counted=reward.counted)
    row["rewards"] = {**row["rewards"], reward.reward.id: dump(record)}


def load_reward(text: str) -> StoredReward:
    """Turn one of a row's rewards back."""
    record = json.loads(text)
    write = reward_write_from_record(record)
    return StoredReward(write.reward, record["counted_for"], write.delta, record["counted"])


def decision_commit(entry: Entry) -> Commit:
    """Return a decision with its rewards as one commit."""
    assert entry.write is not None
    writes = tuple(write for reward in entry.rewards for write in reward.writes())
    return Commit((entry.write,), writes)
