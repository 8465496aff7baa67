"""Decisions, rewards and increments as rows of the SQLite storage, and back.

Imports only the model, the rows' rules and the standard library.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from ...errors import StorageCorruptError
from ...model import MERGED, Arrays, BanditKey, Decision, FloatArray, Reward, StatsDelta
from ..base import ARRAYS, Adjustment, DecisionWrite
from ..codec import control_from_text, control_text
from ..settle import ArrayKey, Change, CountKey, StoredReward, grown
from ..values import LARGEST_INTEGER, array_bytes, array_from_bytes

IDS_PER_QUERY = 500

Row: TypeAlias = Sequence[Any]
Page: TypeAlias = tuple[list[Row], dict[str, list[StoredReward]]]
"""Rows of decisions, and the rewards of each decision by its id."""

USUAL = ""
"""Stored in place of the increment that nearly every decision and reward has."""

_DECISION = "id, bandit, version, arm, propensities, policy_version, at, context, subject, delta"
_REWARD = "id, decision_id, bandit, version, arm, value, at, goal, delta_arm, delta, counted"

_INSERT_DECISION = (
    f"INSERT INTO bandit_decisions ({_DECISION}, propensity) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
)
_INSERT_REWARD = f"INSERT INTO bandit_rewards ({_REWARD}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
_UPDATE_REWARD = "UPDATE bandit_rewards SET delta_arm = ?, delta = ?, counted = ? WHERE id = ?"
_INSERT_ADJUSTMENT = "INSERT INTO bandit_adjustments (id, bandit, version, delta) VALUES (?,?,?,?)"
_ADD_COUNT = (
    "INSERT INTO bandit_counts (bandit, version, arm, name, value) VALUES (?,?,?,?,?)"
    " ON CONFLICT (bandit, version, arm, name) DO UPDATE SET value = value + excluded.value"
)
_PRUNE = (
    "UPDATE bandit_decisions SET propensity = NULL, propensities = NULL, policy_version = '',"
    " context = NULL, subject = NULL"
    " WHERE seq > ? AND seq <= ? AND at < ? AND policy_version <> ''"
    f" AND substr(policy_version, 1, {len(MERGED)}) <> '{MERGED}'"
)
_ERASE = (
    "UPDATE bandit_decisions SET context = NULL, subject = NULL"
    " WHERE (context IS NOT NULL OR subject IS NOT NULL) AND id"
)
_REDACT = "UPDATE bandit_decisions SET context = ? WHERE context IS NOT NULL AND id = ?"
_SELECT_ARRAY = (
    "SELECT value FROM bandit_arrays WHERE bandit = ? AND version = ? AND arm = ? AND name = ?"
)
_WRITE_ARRAY = (
    "INSERT INTO bandit_arrays (bandit, version, arm, name, value) VALUES (?,?,?,?,?)"
    " ON CONFLICT (bandit, version, arm, name) DO UPDATE SET value = excluded.value"
)
SELECT_ARRAYS = "SELECT bandit, version, arm, name, value FROM bandit_arrays"
_INSERT_CONTROL = "INSERT INTO bandit_control (bandit, state) VALUES (?,?)"
_UPDATE_CONTROL = "UPDATE bandit_control SET state = ? WHERE bandit = ?"
_SELECT_STATE = "SELECT bandit, state FROM bandit_control WHERE bandit = ?"
SELECT_CONTROL = "SELECT bandit, state FROM bandit_control"
_REPLACE_DIGEST = "REPLACE INTO bandit_digest (bandit, version, revision, state) VALUES (?,?,?,?)"
_SELECT_REVISION = "SELECT revision FROM bandit_digest WHERE bandit = ? AND version = ?"
# Of a text that is damaged the module would make an error.
SELECT_DIGEST = (
    "SELECT revision, CAST(state AS BLOB) FROM bandit_digest WHERE bandit = ? AND version = ?"
)
SELECT_COUNTS = "SELECT bandit, version, arm, name, value FROM bandit_counts"
SELECT_ADJUSTMENTS = (
    "SELECT id, bandit, version, delta, seq FROM bandit_adjustments"
    f" WHERE seq > ? AND substr(id, 1, {len(ARRAYS)}) <> '{ARRAYS}' ORDER BY seq LIMIT ?"
)
_SELECT_DECISIONS = f"SELECT {_DECISION} FROM bandit_decisions WHERE "
_SELECT_REWARDS = f"SELECT {_REWARD} FROM bandit_rewards WHERE "
_BY_SEQ = _SELECT_DECISIONS + "seq > ? AND seq <= ? AND at >= ? AND at < ? ORDER BY seq"
SELECT_NUMBERS = (
    "SELECT at, seq FROM bandit_decisions"
    " WHERE bandit = ? AND (at, seq) > (?, ?) AND at < ? AND seq <= ? ORDER BY at, seq LIMIT ?"
)
WITHOUT_DECISION = (
    f"SELECT {_REWARD}, seq FROM bandit_rewards AS r WHERE counted = 0 AND seq > ? AND NOT EXISTS"
    " (SELECT 1 FROM bandit_decisions AS d WHERE d.id = r.decision_id) ORDER BY seq LIMIT ?"
)

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@lru_cache(IDS_PER_QUERY)
def _marks(count: int) -> str:
    return ",".join("?" * count)


def _in(
    connection: sqlite3.Connection, query: str, ids: Sequence[str | int], rest: str = ""
) -> list[Row]:
    rows: list[Row] = []
    for start in range(0, len(ids), IDS_PER_QUERY):
        some = ids[start : start + IDS_PER_QUERY]
        rows += connection.execute(f"{query} IN ({_marks(len(some))}){rest}", some).fetchall()
    return rows


def decisions_by_id(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Decision]:
    """Return the stored decisions among ``ids``."""
    rows = _in(connection, _SELECT_DECISIONS + "id", ids)
    return {row[0]: decision_of(row) for row in rows}


def rewards_by_id(connection: sqlite3.Connection, ids: Sequence[str]) -> list[StoredReward]:
    """Return the stored rewards among ``ids``."""
    return [reward_of(row) for row in _in(connection, _SELECT_REWARDS + "id", ids)]


def waiting_rewards(connection: sqlite3.Connection, decisions: Sequence[str]) -> list[StoredReward]:
    """Return the rewards of some decisions that are not counted."""
    rows = _in(connection, _SELECT_REWARDS + "counted = 0 AND decision_id", decisions)
    return [reward_of(row) for row in rows]


def rewards_of(
    connection: sqlite3.Connection, decisions: Sequence[str]
) -> dict[str, list[StoredReward]]:
    """Return all rewards of some decisions, by decision, in the order in which they were stored."""
    found: dict[str, list[StoredReward]] = {}
    for row in _in(connection, _SELECT_REWARDS + "decision_id", decisions, " ORDER BY seq"):
        found.setdefault(row[1], []).append(reward_of(row))
    return found


def read_page(
    start: int, end: int, since: float, until: float
) -> Callable[[sqlite3.Connection], Page]:
    """Return what reads the decisions after ``start`` up to ``end``, with their rewards.

    :param since: only those made at this time or later
    :param until: only those made before this time
    """

    def read(connection: sqlite3.Connection) -> Page:
        found = connection.execute(_BY_SEQ, (start, end, since, until)).fetchall()
        return found, rewards_of(connection, [row[0] for row in found])

    return read


def read_numbered(numbers: Sequence[int]) -> Callable[[sqlite3.Connection], Page]:
    """Return what reads the decisions of some numbers, with their rewards."""

    def read(connection: sqlite3.Connection) -> Page:
        found = _in(connection, _SELECT_DECISIONS + "seq", numbers, " ORDER BY seq")
        return found, rewards_of(connection, [row[0] for row in found])

    return read


def prune_page(start: int, end: int, before: float) -> Callable[[sqlite3.Connection], int]:
    """Return what prunes the decisions after ``start`` up to ``end``, and counts them."""
    return lambda connection: connection.execute(_PRUNE, (start, end, before)).rowcount


def erase(ids: Sequence[str]) -> Callable[[sqlite3.Connection], int]:
    """Return what removes subject and context of some decisions, and counts those that had any."""
    query = f"{_ERASE} IN ({_marks(len(ids))})"
    return lambda connection: connection.execute(query, ids).rowcount


def redact(
    contexts: Iterable[tuple[str, Mapping[str, Any] | None]],
) -> Callable[[sqlite3.Connection], int]:
    """Return what replaces the contexts of some decisions, and counts those that had any."""
    values = [(None if rest is None else encode(rest), id_) for id_, rest in contexts]
    return lambda connection: connection.executemany(_REDACT, values).rowcount


def replace_control(
    bandit: str, text: str, expected: str | None
) -> Callable[[sqlite3.Connection], bool]:
    """Return what writes a bandit's state where ``expected`` is stored, and tells if it was.

    :param text: of :func:`control_text`, as ``expected``, which is ``None`` for nothing
    """

    def replace(connection: sqlite3.Connection) -> bool:
        found = connection.execute(_SELECT_STATE, (bandit,)).fetchall()
        stored = control_of(found).get(bandit)
        if (None if stored is None else control_text(stored)) != expected:
            return False
        if found:
            connection.execute(_UPDATE_CONTROL, (text, bandit))
        else:
            connection.execute(_INSERT_CONTROL, (bandit, text))
        return True

    return replace


def control_of(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Turn rows of bandits and their states into the states, by bandit.

    :raises StorageCorruptError: somebody wrote what is no state
    """
    states = {}
    for bandit, text in rows:
        try:
            states[bandit] = control_from_text(text)
        except ValueError:
            raise StorageCorruptError(
                f"bandit_control holds {text!r} for the bandit {bandit!r}, which is not a JSON"
                " object: delete that row, and what was decided about the bandit is forgotten, or"
                " restore it from a backup."
            ) from None
    return states


def replace_digest(
    key: BanditKey, text: str, revision: int
) -> Callable[[sqlite3.Connection], bool]:
    """Return what writes a digest over that of a revision, 0 for none, and tells if it did."""

    def replace(connection: sqlite3.Connection) -> bool:
        (stored,) = connection.execute(_SELECT_REVISION, key).fetchone() or (0,)
        if stored != revision:
            return False
        connection.execute(_REPLACE_DIGEST, (*key, revision + 1, text))
        return True

    return replace


def adjustments_among(connection: sqlite3.Connection, ids: Sequence[str]) -> list[str]:
    """Return which of ``ids`` are stored."""
    return [row[0] for row in _in(connection, "SELECT id FROM bandit_adjustments WHERE id", ids)]


def probe_writing(connection: sqlite3.Connection) -> None:
    """Write a row and take it back."""
    connection.execute("SAVEPOINT probe")
    connection.execute("INSERT OR REPLACE INTO bandit_control (bandit, state) VALUES ('', '{}')")
    connection.execute("ROLLBACK TO probe")


def write_change(connection: sqlite3.Connection, change: Change) -> None:
    """Write everything that a commit changes."""
    for write in change.decisions:
        connection.execute(_INSERT_DECISION, _decision_row(write))
    for stored in change.new_rewards:
        connection.execute(_INSERT_REWARD, _reward_row(stored))
    for stored in change.updated_rewards:
        row = (stored.arm, _reward_delta(stored), stored.counted, stored.reward.id)
        connection.execute(_UPDATE_REWARD, row)
    for item in change.adjustments:
        delta = encode(item.delta.counts)
        connection.execute(_INSERT_ADJUSTMENT, (item.id, item.bandit, item.version, delta))
    connection.executemany(_ADD_COUNT, _count_rows(change.counts))
    for key, added in change.arrays.items():
        found = connection.execute(_SELECT_ARRAY, key).fetchone()
        sum_ = grown(key, None if found is None else _array_of(key, found[0]), added)
        connection.execute(_WRITE_ARRAY, (*key, array_bytes(sum_)))


def arrays_of(rows: Iterable[Row]) -> Arrays:
    """Turn rows into arrays, by bandit and version, arm and name.

    :raises StorageCorruptError: somebody wrote what is no array
    """
    arrays: dict[BanditKey, dict[str, dict[str, FloatArray]]] = {}
    for *place, content in rows:
        key = ArrayKey(*place)
        arms = arrays.setdefault(BanditKey(key.bandit, key.version), {})
        arms.setdefault(key.arm, {})[key.name] = _array_of(key, content)
    return arrays


def _array_of(key: ArrayKey, content: object) -> FloatArray:
    return array_from_bytes(content, f"array {key.name!r} of {key.bandit!r} in bandit_arrays")


def _count_rows(counts: dict[CountKey, float]) -> Iterator[tuple[Any, ...]]:
    for key, value in counts.items():
        # A sum of several increments may be an int that SQLite has no room for.
        yield (*key, value if abs(value) <= LARGEST_INTEGER else float(value))


def _decision_row(write: DecisionWrite) -> tuple[Any, ...]:
    made = write.decision
    propensities, context = made.propensities, made.context
    usual = write.delta.counts == {made.arm: {"pulls": 1}}
    return (
        made.id,
        made.bandit,
        made.version,
        made.arm,
        None if propensities is None else encode(propensities),
        made.policy_version,
        made.at,
        None if context is None else encode(context),
        made.subject,
        USUAL if usual else encode(write.delta.counts),
        None if propensities is None else propensities.get(made.arm),
    )


def decision_of(row: Row) -> Decision:
    """Turn a row into its decision."""
    id_, bandit, version, arm, propensities, policy_version, at, context, subject = row[:9]
    return Decision(
        id_,
        bandit,
        version,
        arm,
        None if propensities is None else json.loads(propensities),
        policy_version,
        at,
        None if context is None else json.loads(context),
        subject,
    )


def decision_write_of(row: Row) -> DecisionWrite:
    """Turn a row into what has to be sent to another storage."""
    made = decision_of(row)
    counts = {made.arm: {"pulls": 1}} if row[9] == USUAL else json.loads(row[9])
    return DecisionWrite(made, StatsDelta(counts))


def _usual_reward(arm: str, value: float) -> dict[str, dict[str, float]]:
    return {arm: {"rewards": 1, "reward": value, "reward_sq": value * value}}


def _reward_delta(stored: StoredReward) -> str | None:
    if stored.delta is None:
        return None
    counts = stored.delta.counts
    usual = counts == _usual_reward(stored.arm, stored.reward.value)
    return USUAL if usual else encode(counts)


def _reward_row(stored: StoredReward) -> tuple[Any, ...]:
    given = stored.reward
    return (
        given.id,
        given.decision_id,
        given.bandit,
        given.version,
        given.arm,
        given.value,
        given.at,
        given.goal,
        stored.arm,
        _reward_delta(stored),
        stored.counted,
    )


def reward_of(row: Row) -> StoredReward:
    """Turn a row into its reward."""
    id_, decision_id, bandit, version, arm, value, at, goal, delta_arm, delta, counted = row[:11]
    counts = _usual_reward(delta_arm, value) if delta == USUAL else None
    if counts is None and delta is not None:
        counts = json.loads(delta)
    return StoredReward(
        Reward(id_, decision_id, bandit, version, arm, value, at, goal),
        delta_arm,
        None if counts is None else StatsDelta(counts),
        bool(counted),
    )


def adjustments_of(rows: Iterable[Row]) -> list[Adjustment]:
    """Turn rows into adjustments."""
    return [Adjustment(row[0], row[1], row[2], StatsDelta(json.loads(row[3]))) for row in rows]
