"""How decisions, rewards and counts lie in a ZODB: BTrees of the libraries' own classes and text.

No class of this package is stored, so data never depends on our names. Knows nothing of
connections, transactions or retries; everything here happens inside a transaction of the caller.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeAlias

from BTrees.Length import Length
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree, OOTreeSet
from persistent.mapping import PersistentMapping

from ...errors import StorageError
from ...model import Arrays, BanditKey, Counts, Decision, FloatArray
from ..base import (
    ARRAYS,
    Adjustment,
    Commit,
    CommitResult,
    ControlState,
    DecisionWrite,
    StoredDigest,
)
from ..codec import commit_from_record, control_from_text, decision_from_record
from ..digests import digest_from_text
from ..ledger import is_prunable
from ..settle import ArrayKey, Change, grown, settle, touched
from ..values import array_bytes, array_from_bytes
from .rows import Entry, adjustment_text, load_decision, load_reward, put_decision, put_reward

LAYOUT = 2
"""The layout that this code reads and writes."""
LAYOUT_KEY = "flask_bandit_layout"

NEAR = 3600.0
"""Seconds between the time of a decision and that of storing it which are nothing special."""

Part: TypeAlias = tuple[int, int] | list[int]
"""A part of the log: the numbers above one and up to another, or just these."""


class Tables:
    """What is under our key of the root object.

    * ``decisions``: decision id -> row
    * ``log``: number -> row of a decision that is stored, in the order of storing
    * ``parked``: number -> row of a decision that is not, because a reward came first
    * ``owners``: reward id -> id of its decision
    * ``adjustments``: id -> (number, text)
    * ``counts``: (bandit, version, arm, name) -> sum
    * ``arrays``: (bandit, version, arm, name) -> bytes of the sums, in an object; made with the
      first one, so that processes of before go on
    * ``control``: bandit -> (id of the call that wrote it, text)
    * ``digests``: (bandit, version) -> revision, id of the call that wrote it, and text; made with
      the first one, so that processes of before go on
    * ``strays``: (time of a decision, number) of those that were stored at quite another time
    * ``strays_after``: the number above which ``strays`` has them all

    A row is an object of its own, because ZODB writes a whole bucket for each change in it. It
    holds the decision and all its rewards: a decision and a reward for it that are stored at the
    same time change the same object, so that one of them conflicts, is sent again and sees the
    other. Sums are ``Length`` objects, which ZODB adds up instead of reporting a conflict; two who
    add to an array conflict.

    The numbers of the log are times of storing. So a stretch of time is found by them, and only
    the decisions of another time, as those of an import, need an index.
    """

    def __init__(self, home: Any) -> None:
        self.home = home
        self.decisions: Any = home["decisions"]
        self.log: Any = home["log"]
        self.parked: Any = home["parked"]
        self.owners: Any = home["owners"]
        self.adjustments: Any = home["adjustments"]
        self.counts: Any = home["counts"]
        self.control: Any = home["control"]
        self.strays: Any = home["strays"]
        self.strays_after: int = home["strays_after"]

    def commit(self, commit: Commit) -> CommitResult:
        """Apply a clean commit."""
        need = touched(commit)
        rows = {id_: self.decisions.get(id_) for id_ in need.decisions}
        for owner in map(self.owners.get, need.rewards):
            if owner is not None and owner not in rows:
                rows[owner] = self.decisions[owner]
        sent, asked = set(need.sent), set(need.rewards)
        decisions, rewards = {}, []
        for id_, row in rows.items():
            if row is None:
                continue
            if row["decision"] is not None:
                decisions[id_] = decision_from_record(json.loads(row["decision"]))
            for reward in map(load_reward, row["rewards"].values()):
                if reward.reward.id in asked or (id_ in sent and not reward.counted):
                    rewards.append(reward)
        known = [id_ for id_ in need.adjustments if id_ in self.adjustments]
        change = settle(commit, decisions, rewards, known)
        self._write(change, rows)
        return change.result

    def _write(self, change: Change, rows: dict[str, Any]) -> None:
        for write in change.decisions:
            row = self._row(write.decision.id, rows)
            put_decision(row, write)
            if row["parked"] is not None:
                del self.parked[row["parked"]]
                row["parked"] = None
            number = _next_number(self.log)
            self.log[number] = row
            at = write.decision.at
            if abs(at - number / 1e9) > NEAR:
                self.strays.add((at, number))
        for reward in change.new_rewards:
            decision_id = reward.reward.decision_id
            row = self._row(decision_id, rows)
            self.owners[reward.reward.id] = decision_id
            put_reward(row, reward)
            if row["decision"] is None and row["parked"] is None:
                row["parked"] = _next_number(self.parked)
                self.parked[row["parked"]] = row
        for reward in change.updated_rewards:
            put_reward(rows[reward.reward.decision_id], reward)
        for number, item in enumerate(change.adjustments, time.time_ns()):
            self.adjustments[item.id] = (number, adjustment_text(item))
        for key, value in change.counts.items():
            total = self.counts.get(tuple(key))
            if total is None:
                self.counts[tuple(key)] = Length(value)
            else:
                total.change(value)
        for place, added in change.arrays.items():
            self._add_array(place, added)

    def _add_array(self, key: ArrayKey, added: FloatArray) -> None:
        arrays = self.home.setdefault("arrays", OOBTree())
        row = arrays.get(tuple(key))
        if row is None:
            arrays[tuple(key)] = PersistentMapping(sums=array_bytes(added))
        else:
            row["sums"] = array_bytes(grown(key, _array_of(key, row), added))

    def _row(self, decision_id: str, rows: dict[str, Any]) -> Any:
        row = rows.get(decision_id)
        if row is None:
            row = PersistentMapping({"decision": None, "parked": None, "rewards": {}})
            self.decisions[decision_id] = rows[decision_id] = row
        return row

    def read_counts(self) -> Counts:
        """Return all sums."""
        counts: dict[BanditKey, dict[str, dict[str, float]]] = {}
        items = list(self.counts.items())
        _fetch(self.counts, [total for _, total in items])
        for (bandit, version, arm, name), total in items:
            counts.setdefault(BanditKey(bandit, version), {}).setdefault(arm, {})[name] = total()
        return counts

    def read_arrays(self) -> Arrays:
        """Return all arrays."""
        items = list(self.home.get("arrays", {}).items())
        _fetch(self.counts, [row for _, row in items])
        arrays: dict[BanditKey, dict[str, dict[str, FloatArray]]] = {}
        for key, row in ((ArrayKey(*place), row) for place, row in items):
            arms = arrays.setdefault(BanditKey(key.bandit, key.version), {})
            arms.setdefault(key.arm, {})[key.name] = _array_of(key, row)
        return arrays

    def get_decisions(self, ids: Iterable[str]) -> dict[str, Decision]:
        """Return the stored decisions among ``ids``."""
        rows = {id_: row for id_ in ids if (row := self.decisions.get(id_)) is not None}
        _fetch(self.decisions, rows.values())
        return {
            id_: decision_from_record(json.loads(row["decision"]))
            for id_, row in rows.items()
            if row["decision"] is not None
        }

    def page(self, tree: str, after: int, end: int, size: int) -> list[Entry]:
        """Return up to ``size`` entries of ``log`` or ``parked``, by number."""
        items = islice(getattr(self, tree).items(after, end, excludemin=True), size)
        return self._read(list(items))

    def listed(self, numbers: Iterable[int]) -> list[Entry]:
        """Return the entries of ``log`` with these numbers."""
        return self._read([(number, self.log[number]) for number in numbers])

    def _read(self, items: list[tuple[int, Any]]) -> list[Entry]:
        _fetch(self.log, [row for _, row in items])
        return [
            Entry(number, load_decision(row), list(map(load_reward, row["rewards"].values())))
            for number, row in items
        ]

    def parts(self, since: float | None, until: float | None) -> list[Part]:
        """Return the parts of the log that hold all decisions of a stretch of time, in order."""
        end = self.last("log")
        if since is None and until is None:
            return [(0, end)]
        # A second more, since numbers that are made of times are not exact.
        low = 0 if since is None else _number_at(since - NEAR - 1)
        high = end if until is None else min(end, _number_at(until + NEAR + 1))
        old = min(self.strays_after, end)
        spans = [(0, max(old, high))] if low <= old else [(0, old), (low, high)]
        first = None if since is None else (since,)
        last = None if until is None else (until,)
        strays = [number for _, number in self.strays.keys(first, last)]
        parts: list[Part] = []
        for after, up_to in [*spans, (end, end)]:
            before = sorted(number for number in strays if number <= after)
            strays = [number for number in strays if number > max(after, up_to)]
            parts += [before, (after, up_to)]
        return parts

    def last(self, tree: str) -> int:
        """Return the largest number in ``log`` or ``parked``, 0 if it is empty."""
        numbers = getattr(self, tree)
        return int(numbers.maxKey()) if numbers else 0

    def all_adjustments(self) -> list[Adjustment]:
        """Return all adjustments but those of whole arrays, in the order of storing."""
        records = [json.loads(text) for _, text in sorted(self.adjustments.values())]
        items = commit_from_record({"adjustments": records}).adjustments
        return [item for item in items if not item.id.startswith(ARRAYS)]

    def prune_page(self, before: float, after: int, end: int, size: int) -> tuple[int, int]:
        """Prune old decisions among the next ``size`` entries of the log.

        :return: the last number seen, 0 at the end, and how many were pruned
        """
        items = list(islice(self.log.items(after, end, excludemin=True), size))
        _fetch(self.log, [row for _, row in items])
        pruned = 0
        for _, row in items:
            write = load_decision(row)
            if write is None or not is_prunable(write.decision, before):
                continue
            put_decision(row, DecisionWrite(write.decision.pruned(), write.delta))
            pruned += 1
        return (items[-1][0] if items else 0), pruned

    def change(
        self,
        ids: Iterable[str],
        concerns: Callable[[Decision], bool],
        change: Callable[[Decision], Decision],
    ) -> int:
        """Replace the stored decisions that it concerns; return how many."""
        rows = [row for id_ in ids if (row := self.decisions.get(id_)) is not None]
        _fetch(self.decisions, rows)
        count = 0
        for row in rows:
            write = load_decision(row)
            if write is not None and concerns(write.decision):
                put_decision(row, DecisionWrite(change(write.decision), write.delta))
                count += 1
        return count

    def read_control(self) -> dict[str, ControlState]:
        """Return all control states."""
        return {bandit: control_from_text(text) for bandit, (_, text) in self.control.items()}

    def write_control(self, bandit: str, expected: str | None, text: str, call: str) -> bool:
        """Replace a control state if it is still as expected, or is there by the same call."""
        by, stored = self.control.get(bandit, (None, None))
        if by == call:
            return True
        if stored != expected:
            return False
        self.control[bandit] = (call, text)
        return True

    def read_digest(self, key: BanditKey) -> StoredDigest | None:
        """Return the summary of a version's log, if there is one."""
        stored = self._digest(key)
        return None if stored is None else digest_from_text(stored["revision"], stored["text"])

    def write_digest(self, key: BanditKey, revision: int, text: str, call: str) -> bool:
        """Replace a summary if it still has the revision, or is there by the same call."""
        stored = self._digest(key)
        if stored is not None and stored["call"] == call:
            return True
        if revision != (0 if stored is None else stored["revision"]):
            return False
        if stored is None:
            # An object of its own: a bucket would be written with all summaries in it.
            stored = PersistentMapping()
            self.home.setdefault("digests", OOBTree())[tuple(key)] = stored
        stored.update(revision=revision + 1, text=text, call=call)
        return True

    def _digest(self, key: BanditKey) -> Any:
        return self.home.get("digests", {}).get(tuple(key))


def _array_of(key: ArrayKey, row: Any) -> FloatArray:
    return array_from_bytes(row["sums"], f"array {key.name!r} of {key.bandit!r}")


def layout_of(root: Any, name: str) -> int:
    """Return the layout of what is stored under a key of the root object, 0 if nothing is.

    :raises StorageError: it is not ours, or newer than this code
    """
    home = root.get(name)
    if home is None:
        return 0
    layout = home.get(LAYOUT_KEY) if isinstance(home, PersistentMapping) else None
    if not isinstance(layout, int):
        raise StorageError(
            f"The root object of the ZODB has something else under {name!r}, which Flask-Bandit did"
            " not make and leaves alone; choose another key by the option root='...'."
        )
    if layout > LAYOUT:
        raise StorageError(
            f"The data under {name!r} has layout {layout}, and this version of Flask-Bandit knows"
            f" layouts up to {LAYOUT}; upgrade Flask-Bandit."
        )
    return layout


def upgrade_tables(root: Any, name: str) -> None:
    """Put empty tables under a key of the root object, or add what an older layout lacks."""
    home = root.get(name)
    if home is None:
        home = root[name] = PersistentMapping(log=LOBTree(), parked=LOBTree(), strays_after=0)
        home.update((key, OOBTree()) for key in ("decisions", "owners", "adjustments", "counts"))
    else:
        # A process that did not see the new layout yet may store a little longer.
        last = home["log"].maxKey() if home["log"] else 0
        home["strays_after"] = max(last, _number_at(time.time() + NEAR))
    home.update({LAYOUT_KEY: LAYOUT, "control": OOBTree(), "strays": OOTreeSet()})


def _next_number(tree: Any) -> int:
    """Return a number above all others; the clock's, so that two processes rarely take one."""
    number = time.time_ns()
    if tree:
        # This clock may be behind another machine's.
        number = max(number, tree.maxKey() + random.randint(1, 1000))
    return number


def _number_at(at: float) -> int:
    """Return about the number of what is stored at a time; a float has not all of its digits."""
    # The tree takes 63 bits.
    return int(min(max(at, 0.0) * 1e9, 9.2e18))


def _fetch(near: Any, objects: Iterable[Any]) -> None:
    """Ask the server for all objects that are not loaded yet, instead of for one by one."""
    missing = [one for one in objects if one._p_changed is None]
    if len(missing) > 1:
        near._p_jar.prefetch(missing)
