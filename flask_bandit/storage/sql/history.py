"""The log read and pruned in pages: next to no memory, and no transaction that lasts.

What is stored while somebody reads has a larger number than the last one to be read.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf
from typing import Any, TypeVar

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Table,
    bindparam,
    exists,
    func,
    select,
    tuple_,
    update,
)

from ...model import MERGED, LogEntry, StatsDelta
from ..base import ARRAYS, Commit, DecisionWrite, arrays_adjustment
from ..settle import StoredReward
from .arrays import read_arrays
from .rows import adjustment_of, decision_of, reward_of
from .tables import adjustments, decisions, rewards

PAGE = 500
NUMBERS = 10_000
"""Decisions that are looked up at once, to be read later."""

_T = TypeVar("_T")
Run = Callable[[Callable[[Connection], _T]], _T]
"""Does some work on a connection."""

_STORED = ~decisions.c.awaited
_STANDS_FOR_ANOTHER = func.substr(decisions.c.policy_version, 1, len(MERGED)) == MERGED
_WHOLE = func.substr(adjustments.c.id, 1, len(ARRAYS)) == ARRAYS
_COMPLETE = _STORED & (decisions.c.policy_version != "") & ~_STANDS_FOR_ANOTHER


def _typed(name: str) -> BindParameter[Any]:
    return bindparam(name, type_=decisions.c[name].type)


_NUMBERS = (
    select(decisions.c.at, decisions.c.seq)
    .where(
        decisions.c.bandit == bindparam("bandit"),
        tuple_(decisions.c.at, decisions.c.seq) > tuple_(_typed("at"), _typed("seq")),
        # Follows from the line above, and lets the planner guess how many there are.
        decisions.c.at >= _typed("at"),
        decisions.c.at < bindparam("until"),
        decisions.c.seq <= bindparam("last"),
    )
    .order_by(decisions.c.at, decisions.c.seq)
    .limit(NUMBERS)
)


def _all(query: Any, connection: Connection) -> Sequence[Any]:
    return connection.execute(query).all()


def _count(statement: Any, connection: Connection) -> int:
    return connection.execute(statement).rowcount


def _rows(run: Run[Any], table: Table, condition: ColumnElement[bool]) -> Iterator[Any]:
    """Yield pages of rows in the order of their numbers, up to the largest one of now."""
    last = _last(run, table)
    after = 0
    while after < last:
        query = select(table).where(table.c.seq > after, table.c.seq <= last, condition)
        query = query.order_by(table.c.seq).limit(PAGE)
        page: Sequence[Any] = run(partial(_all, query))
        if page:
            yield page
        after = page[-1].seq if len(page) == PAGE else last


def _last(run: Run[Any], table: Table) -> int:
    found: int | None = run(lambda c: c.execute(select(func.max(table.c.seq))).scalar())
    return found or 0


def _rows_of(run: Run[Any], bandit: str, since: float, until: float) -> Iterator[Sequence[Any]]:
    """Yield pages of a bandit's decisions of some time, in the order of their numbers."""
    # By time they are found, and by number they are wanted: eight bytes for each in between.
    numbers = array("q", sorted(_numbers(run, bandit, since, until)))
    for start in range(0, len(numbers), PAGE):
        some = numbers[start : start + PAGE].tolist()
        query = select(decisions).where(decisions.c.seq.in_(some), _COMPLETE)
        yield run(partial(_all, query.order_by(decisions.c.seq)))


def _numbers(run: Run[Any], bandit: str, since: float, until: float) -> Iterator[int]:
    values = {"bandit": bandit, "until": until, "last": _last(run, decisions)}
    at, seq = since, 0
    while True:
        page: Sequence[Any] = run(partial(_all, _NUMBERS.params(at=at, seq=seq, **values)))
        yield from (row.seq for row in page)
        if len(page) < NUMBERS:
            return
        at, seq = page[-1]


def _joined(run: Run[Any], page: Sequence[Any]) -> dict[str, list[StoredReward]]:
    query = select(rewards).where(rewards.c.decision_id.in_([row.id for row in page]))
    found: dict[str, list[StoredReward]] = {}
    for row in run(partial(_all, query.order_by(rewards.c.seq))):
        found.setdefault(row.decision_id, []).append(reward_of(row))
    return found


def iter_log(
    run: Run[Any], bandit: str | None, since: float | None, until: float | None
) -> Iterator[LogEntry]:
    """Yield decisions that were not pruned, with their rewards."""
    start = -inf if since is None else float(since)
    end = inf if until is None else float(until)
    if bandit is None:
        of_then = _COMPLETE & (decisions.c.at >= start) & (decisions.c.at < end)
        pages = _rows(run, decisions, of_then)
    else:
        pages = _rows_of(run, bandit, start, end)
    for page in pages:
        joined = _joined(run, page)
        for row in page:
            given = tuple(stored.reward for stored in joined.get(row.id, ()))
            yield LogEntry(decision_of(row), given)


def iter_commits(run: Run[Any]) -> Iterator[Commit]:
    """Yield everything that is stored, as commits."""
    # Found first: the decision of one may come meanwhile, with a number beyond what is read.
    waiting = array("q")
    has_decision = exists().where(decisions.c.id == rewards.c.decision_id, _STORED)
    for page in _rows(run, rewards, ~rewards.c.counted & ~has_decision):
        waiting.extend(row.seq for row in page)
    for page in _rows(run, decisions, _STORED):
        joined = _joined(run, page)
        for row in page:
            made = DecisionWrite(decision_of(row), StatsDelta(json.loads(row.delta)))
            given = [w for stored in joined.get(row.id, ()) for w in stored.writes()]
            yield Commit((made,), tuple(given))
    for at in range(0, len(waiting), PAGE):
        query = select(rewards).where(rewards.c.seq.in_(waiting[at : at + PAGE].tolist()))
        for row in run(partial(_all, query.order_by(rewards.c.seq))):
            yield Commit(rewards=reward_of(row).writes())
    for page in _rows(run, adjustments, ~_WHOLE):
        for row in page:
            yield Commit(adjustments=(adjustment_of(row),))
    for key, arms in run(read_arrays).items():
        yield Commit(adjustments=(arrays_adjustment(key, arms),))


def prune(run: Run[Any], before: float) -> int:
    """Empty the details of decisions made before a time; return of how many."""
    old = _COMPLETE & (decisions.c.at < before)
    pruned = 0
    for page in _rows(run, decisions, old):
        numbers = [row.seq for row in page]
        emptied = (
            update(decisions)
            .where(decisions.c.seq.in_(numbers), old)
            .values(
                propensity=None, propensities=None, context=None, subject=None, policy_version=""
            )
        )
        pruned += run(partial(_count, emptied))
    return pruned
