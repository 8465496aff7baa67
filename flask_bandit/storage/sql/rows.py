"""Between rows and the model: which column holds what, and the JSON in them.

Imports no database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import StorageCorruptError
from ...model import BanditKey, Counts, Decision, Reward, StatsDelta
from ..base import Adjustment, DecisionWrite
from ..codec import control_from_text, is_whole
from ..settle import CountKey, StoredReward

Row = dict[str, Any]


def dump(value: object) -> str:
    """Write JSON in ASCII: an escaped NUL or surrogate is lawful in every database's text."""
    return json.dumps(value, separators=(",", ":"))


def decision_row(write: DecisionWrite) -> Row:
    """Turn a decision and its increment into a row of ``bandit_decisions``."""
    made = write.decision
    vector = made.propensities
    return {
        "id": made.id,
        "bandit": made.bandit,
        "version": made.version,
        "arm": made.arm,
        "propensity": None if vector is None else vector.get(made.arm),
        "propensities": None if vector is None else dump(vector),
        "context": None if made.context is None else dump(made.context),
        "subject": made.subject,
        "policy_version": made.policy_version,
        "at": made.at,
        "delta": dump(write.delta.counts),
        "awaited": False,
    }


def awaited_row(made: Decision | Reward) -> Row:
    """Make the row that holds the place of a decision for which rewards wait."""
    id_ = made.id if isinstance(made, Decision) else made.decision_id
    place = Decision(id_, made.bandit, made.version, made.arm, None, "", made.at)
    return {**decision_row(DecisionWrite(place, StatsDelta({}))), "awaited": True}


def decision_of(row: Any) -> Decision:
    """Turn a row of ``bandit_decisions`` back into a decision."""
    return Decision(
        id=row.id,
        bandit=row.bandit,
        version=row.version,
        arm=row.arm,
        propensities=None if row.propensities is None else json.loads(row.propensities),
        policy_version=row.policy_version,
        at=row.at,
        context=None if row.context is None else json.loads(row.context),
        subject=row.subject,
    )


def reward_row(stored: StoredReward) -> Row:
    """Turn a reward into a row of ``bandit_rewards``."""
    given = stored.reward
    return {
        "id": given.id,
        "decision_id": given.decision_id,
        "bandit": given.bandit,
        "version": given.version,
        "arm": given.arm,
        "goal": given.goal,
        "value": given.value,
        "at": given.at,
        "delta": None if stored.delta is None else dump(stored.delta.counts),
        "delta_arm": stored.arm,
        "counted": stored.counted,
    }


def reward_of(row: Any) -> StoredReward:
    """Turn a row of ``bandit_rewards`` back into a reward."""
    given = Reward(
        id=row.id,
        decision_id=row.decision_id,
        bandit=row.bandit,
        version=row.version,
        arm=row.arm,
        value=row.value,
        at=row.at,
        goal=row.goal,
    )
    delta = None if row.delta is None else StatsDelta(json.loads(row.delta))
    return StoredReward(given, row.delta_arm, delta, bool(row.counted))


def adjustment_row(item: Adjustment) -> Row:
    """Turn an adjustment into a row of ``bandit_adjustments``."""
    return {
        "id": item.id,
        "bandit": item.bandit,
        "version": item.version,
        "delta": dump(item.delta.counts),
    }


def adjustment_of(row: Any) -> Adjustment:
    """Turn a row of ``bandit_adjustments`` back into an adjustment."""
    return Adjustment(row.id, row.bandit, row.version, StatsDelta(json.loads(row.delta)))


def control_of(rows: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Turn rows of ``bandit_control`` back into states, by bandit.

    :raises StorageCorruptError: somebody wrote what is no state
    """
    states = {}
    for row in rows:
        try:
            states[row.bandit] = control_from_text(row.state)
        except ValueError:
            raise StorageCorruptError(
                f"bandit_control holds {row.state!r} for the bandit {row.bandit!r}, which is not a"
                " JSON object: delete that row, and what was decided about the bandit is"
                " forgotten, or restore it from a backup."
            ) from None
    return states


def count_rows(sums: Mapping[CountKey, float], slot: int) -> list[Row]:
    """Turn sums to add into rows of ``bandit_counts``, in the order in which to lock them."""
    rows = []
    for key, value in sums.items():
        whole = is_whole(key.name)
        rows.append(
            {
                **key._asdict(),
                "slot": slot,
                "count": value if whole else 0,
                "total": 0.0 if whole else float(value),
            }
        )
    return rows


def counts_of(rows: Iterable[Any]) -> Counts:
    """Turn sums of all slots back into counts."""
    found: dict[BanditKey, dict[str, dict[str, float]]] = {}
    for bandit, version, arm, name, count, total in rows:
        arms = found.setdefault(BanditKey(bandit, version), {})
        arms.setdefault(arm, {})[name] = int(count) if is_whole(name) else float(total)
    return found
