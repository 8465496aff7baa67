"""Commits: the short way for what is new, and the long way that holds for everything.

The short way is one statement of PostgreSQL. It applies a commit if all of it is new and nothing
waits for it, and does nothing otherwise. Then, and on SQLite always, the long way locks the rows
that are concerned, reads them, and writes what :func:`settle` says.

A reward that comes before its decision leaves a row in ``bandit_decisions`` that is ``awaited``.
So the unique index on decision ids makes one of the two wait for the other, whoever is first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any
from uuid import uuid4

from sqlalchemy import BindParameter, Connection, bindparam, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from ...model import Decision, Reward, StatsDelta, Term
from ..base import Adjustment, Commit, CommitResult, DecisionWrite, RewardWrite
from ..settle import Change, StoredReward, Touched, settle, touched
from . import edits
from .arrays import ADD, add_arrays, arrays_text
from .rows import (
    Row,
    adjustment_row,
    awaited_row,
    count_rows,
    decision_of,
    decision_row,
    dump,
    reward_of,
    reward_row,
)
from .tables import adjustments, columns, counts, decisions, recordset, rewards

SLOTS = 16
"""Rows per sum: one would be a queue for all commits that count the same arm."""

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Whatever the database's default: each statement shall see what was committed before it."""

CHUNK = 300
"""How many ids a query names at most, some of them three times; an old SQLite takes 999 values."""


_DECISIONS = f"""new_decisions AS (
    INSERT INTO bandit_decisions ({columns(decisions)})
    SELECT {columns(decisions)} FROM {recordset("made", decisions)}
    ON CONFLICT (id) DO NOTHING RETURNING 1)"""
# One value for each reward: of EXISTS the planner would make a join that reads the whole table.
_REWARDS = f"""new_rewards AS (
    INSERT INTO bandit_rewards ({columns(rewards)})
    SELECT {columns(rewards)} FROM {recordset("given", rewards, "here boolean")}
    WHERE here OR (
        SELECT d.bandit = given.bandit AND d.version = given.version AND d.arm = given.arm
        AND NOT d.awaited FROM bandit_decisions AS d WHERE d.id = given.decision_id)
    ON CONFLICT (id) DO NOTHING RETURNING 1)"""
_COUNTS = f"""new AS (SELECT %s AS number),
counted AS (
    INSERT INTO bandit_counts AS old ({columns(counts)})
    SELECT sums.* FROM {recordset("sums", counts)}, new WHERE new.number = :number
    ON CONFLICT (bandit, version, arm, name, slot) DO UPDATE
    SET count = old.count + excluded.count, total = old.total + excluded.total RETURNING 1)"""
# After the counts, as everywhere: of two commits that go another way, one waits for the other.
_AFTER = ", new, (SELECT count(*) FROM counted) AS before WHERE new.number = :number"
_ARRAYS = f"added AS ({ADD % _AFTER})"


def _short(made: bool, given: bool, learned: bool) -> Any:
    parts = {"new_decisions": _DECISIONS} if made else {}
    if given:
        parts["new_rewards"] = _REWARDS
    number = " + ".join(f"(SELECT count(*) FROM {name})" for name in parts)
    ctes = [*parts.values(), _COUNTS % number, *([_ARRAYS] if learned else [])]
    return text(f"WITH {', '.join(ctes)} SELECT number FROM new")


_SHORT = {
    (made, given, learned): _short(made, given, learned)
    for made, given in ((True, False), (False, True), (True, True))
    for learned in (False, True)
}

# Made once: making one costs more than SQLite takes to execute it, and others wait meanwhile.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_DECISIONS_BY_ID = select(decisions).where(decisions.c.id.in_(_IDS), ~decisions.c.awaited)
_LOCK = select(decisions).where(decisions.c.id.in_(_IDS)).order_by(decisions.c.id).with_for_update()
_REWARDS_BY_ID = select(rewards).where(rewards.c.id.in_(_IDS))
_WAITING = select(rewards).where(rewards.c.decision_id.in_(_IDS), ~rewards.c.counted)
_ADJUSTMENTS_BY_ID = select(adjustments.c.id).where(adjustments.c.id.in_(_IDS))

_CLAIM = postgresql.insert(decisions).on_conflict_do_nothing(index_elements=["id"])
_INSERT_REWARDS = insert(rewards)
_INSERT_ADJUSTMENTS = insert(adjustments)
_LEARNED = ("delta", "delta_arm", "counted")
_UPDATE_REWARD = (
    update(rewards)
    .where(rewards.c.id == bindparam("of"))
    .values({name: bindparam(f"new_{name}") for name in _LEARNED})
)


def _replacing(statement: postgresql.Insert) -> postgresql.Insert:
    """Let a decision take the row that was held for it, with a number of its own."""
    names = [c.name for c in decisions.columns if c.name != "id"]
    return statement.on_conflict_do_update(
        index_elements=["id"], set_={name: statement.excluded[name] for name in names}
    )


def _adding(statement: Any) -> Any:
    added = {name: counts.c[name] + statement.excluded[name] for name in ("count", "total")}
    return statement.on_conflict_do_update(
        index_elements=list(counts.primary_key.columns), set_=added
    )


_INSERT_DECISIONS: dict[str, Any] = {
    "postgresql": _replacing(postgresql.insert(decisions)),
    "sqlite": insert(decisions),
}
_ADD_COUNTS = {
    "postgresql": _adding(postgresql.insert(counts)),
    "sqlite": _adding(sqlite.insert(counts)),
}


def apply(connection: Connection, commit: Commit) -> CommitResult:
    """Apply a clean commit.

    The caller rolls back if it fails.

    :param connection: in autocommit mode, outside of a transaction
    """
    if connection.dialect.name == "postgresql":
        change = _if_all_is_new(commit)
        if change is not None and _apply_short(connection, change):
            return change.result
    return _apply_long(connection, commit)


def _slot() -> int:
    """Return this thread's slot, so that its own sums are added up in the order they came."""
    return hash((os.getpid(), threading.get_ident())) % SLOTS


def _if_all_is_new(commit: Commit) -> Change | None:
    """Return what to write if nothing of the commit is stored and all its decisions are."""
    if commit.adjustments:
        return None
    sent = {write.decision.id for write in commit.decisions}
    assumed = {
        given.decision_id: Decision(
            given.decision_id, given.bandit, given.version, given.arm, None, "", given.at
        )
        for given in (write.reward for write in commit.rewards)
        if given.decision_id not in sent
    }
    change = settle(commit, assumed, (), ())
    if (
        change.result.unlearned
        or len(change.decisions) != len(commit.decisions)
        or len(change.new_rewards) != len(commit.rewards)
    ):
        return None
    return change


def _apply_short(connection: Connection, change: Change) -> bool:
    """Write all or nothing of it; return whether it was written."""
    # In the order sent, which is the order of the log; the engine sends them sorted.
    made = [decision_row(write) for write in change.decisions]
    # Those of one decision stay in the order sent, in which the log shows them.
    given = sorted(map(reward_row, change.new_rewards), key=itemgetter("decision_id"))
    sent = {row["id"] for row in made}
    for row in given:
        row["here"] = row["decision_id"] in sent
    number = len(made) + len(given)
    values: Row = {"number": number, "sums": dump(count_rows(change.counts, _slot()))}
    if made:
        values["made"] = dump(made)
    if given:
        values["given"] = dump(given)
    if change.arrays:
        values["learned"] = arrays_text(change.arrays)
    statement = _SHORT[bool(made), bool(given), bool(change.arrays)]
    if number == 1:
        # One statement that is a transaction by itself.
        return connection.execute(statement, values).scalar() == 1
    connection.exec_driver_sql(BEGIN)
    done: bool = connection.execute(statement, values).scalar() == number
    connection.exec_driver_sql("COMMIT" if done else "ROLLBACK")
    return done


def _apply_long(connection: Connection, commit: Commit) -> CommitResult:
    _begin(connection)
    result = _settle(connection, commit)
    connection.exec_driver_sql("COMMIT")
    return result


def rehearse(connection: Connection) -> None:
    """Write to every table as commits and operators do, and take it back.

    The caller rolls back if it fails.

    :param connection: in autocommit mode, outside of a transaction
    """
    id_ = f"check-{uuid4().hex}"
    made = Decision(id_, id_, 1, "arm", None, "check", 0.0)
    given = Reward(f"{id_}:reward", id_, id_, 1, "arm", 1.0, 0.0)
    one = StatsDelta({"arm": {"pulls": 1}})
    _begin(connection)
    # The reward first, so that it is parked and has to be updated.
    _settle(connection, Commit(rewards=(RewardWrite(given, one),)))
    learned = replace(one, terms=(Term("arm", "check", (1.0,)),))
    items = (Adjustment(id_, id_, 1, learned),)
    _settle(connection, Commit((DecisionWrite(made, one),), (), items))
    edits.write_control(connection, id_, "{}", None)
    edits.write_control(connection, id_, '{"checked": true}', "{}")
    for revision in range(2):
        edits.write_digest(connection, made.key, "{}", revision)
    connection.exec_driver_sql("ROLLBACK")


def _begin(connection: Connection) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else BEGIN)


def _settle(connection: Connection, commit: Commit) -> CommitResult:
    """Do a commit in a transaction that was begun."""
    concerned = touched(commit)
    read = read_decisions
    if connection.dialect.name == "postgresql":
        _claim(connection, commit)
        read = _lock
    stored = read(connection, concerned.decisions)
    given = _read_rewards(connection, concerned)
    # A reward stays with the decision it was first sent for, whichever it is sent for now.
    first = {row.reward.decision_id for row in given if not row.counted}
    others = sorted(first.difference(concerned.decisions))
    if others:
        stored.update(read(connection, others))
        given = _read_rewards(connection, concerned)
    change = settle(commit, stored, given, _read_adjustments(connection, concerned.adjustments))
    _write(connection, change)
    return change.result


def _claim(connection: Connection, commit: Commit) -> None:
    """Insert a row for each decision that is not there, to have something to lock."""
    places = {w.reward.decision_id: awaited_row(w.reward) for w in commit.rewards}
    places.update({w.decision.id: awaited_row(w.decision) for w in commit.decisions})
    if places:
        connection.execute(_CLAIM, [places[id_] for id_ in sorted(places)])


def _lock(connection: Connection, ids: Sequence[str]) -> dict[str, Decision]:
    """Lock the rows of decisions and return those that are stored.

    What is read by later statements was committed before the locks were got, or does not matter.
    """
    found = {}
    for some in chunks(ids):
        for row in connection.execute(_LOCK, {"ids": some}):
            if not row.awaited:
                found[row.id] = decision_of(row)
    return found


def _write(connection: Connection, change: Change) -> None:
    name = connection.dialect.name
    if change.decisions:
        rows = [decision_row(write) for write in change.decisions]
        connection.execute(_INSERT_DECISIONS[name], rows)
    if change.new_rewards:
        connection.execute(_INSERT_REWARDS, [reward_row(row) for row in change.new_rewards])
    for stored in change.updated_rewards:
        row = reward_row(stored)
        new = {f"new_{name}": row[name] for name in _LEARNED}
        connection.execute(_UPDATE_REWARD, {"of": row["id"], **new})
    if change.adjustments:
        connection.execute(_INSERT_ADJUSTMENTS, [adjustment_row(i) for i in change.adjustments])
    if change.counts:
        connection.execute(_ADD_COUNTS[name], count_rows(change.counts, _slot()))
    if change.arrays:
        add_arrays(connection, change.arrays)


def read_decisions(connection: Connection, ids: Sequence[str]) -> dict[str, Decision]:
    """Return the stored decisions among ``ids``."""
    found = {}
    for some in chunks(ids):
        for row in connection.execute(_DECISIONS_BY_ID, {"ids": some}):
            found[row.id] = decision_of(row)
    return found


def _read_rewards(connection: Connection, concerned: Touched) -> list[StoredReward]:
    found = {}
    for query, ids in ((_REWARDS_BY_ID, concerned.rewards), (_WAITING, concerned.sent)):
        for some in chunks(ids):
            for row in connection.execute(query, {"ids": some}):
                found[row.seq] = reward_of(row)
    return [found[seq] for seq in sorted(found)]


def _read_adjustments(connection: Connection, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for some in chunks(ids):
        found.update(connection.execute(_ADJUSTMENTS_BY_ID, {"ids": some}).scalars())
    return found


def chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    """Cut ``ids`` into pieces that one query can name."""
    return (ids[at : at + CHUNK] for at in range(0, len(ids), CHUNK))
