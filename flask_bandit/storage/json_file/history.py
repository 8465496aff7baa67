"""A journal read from its beginning: as a log, as commits, and as a journal with less details.

Every line is checked, and the file may be replaced meanwhile. Imports only the model, the errors
and the standard library.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from ...errors import StorageError, StorageTimeoutError
from ...model import Arrays, Decision, LogEntry, Reward, StatsDelta
from ..base import ARRAYS, Adjustment, Commit, DecisionWrite, RewardWrite, arrays_adjustment
from ..codec import commit_to_record, decision_from_record, reward_from_record
from ..files import storage_error
from ..ledger import without_terms
from ..locks import remaining
from ..settle import StoredReward
from .journal import Journal
from .replica import arrays_of, commit_of, control_of, encode, write_arrays


def read_log(reader: Journal, end: int, chosen: Callable[[Decision], bool]) -> Iterator[LogEntry]:
    """Yield the chosen decisions before ``end`` with their rewards.

    Reads the file twice, so that only the rewards have to be in memory.

    :param reader: at the beginning; closed at the end
    :raises StorageCorruptError: a line is not what was written
    """
    rewards: dict[str, list[Reward]] = {}
    try:
        start = reader.mark
        seen: set[str] = set()
        for item in _items(reader, end, "rewards"):
            # What comes again may name another decision; the first sending is what is stored.
            if item["id"] not in seen:
                seen.add(item["id"])
                rewards.setdefault(item["decision"], []).append(reward_from_record(item))
        reader.move_to(start)
        for item in _items(reader, end, "decisions"):
            decision = decision_from_record(item)
            if chosen(decision):
                yield LogEntry(decision, tuple(rewards.pop(decision.id, ())))
    finally:
        reader.close()


def read_commits(reader: Journal, end: int, arrays: Arrays) -> Iterator[Commit]:
    """Yield all before ``end``, as :meth:`BanditStorage.iter_commits` does.

    Reads the file twice, so that only rewards and adjustments have to be in memory.

    :param reader: at the beginning; closed at the end
    :param arrays: the sums of all terms before ``end``
    :raises StorageCorruptError: a line is not what was written
    """
    try:
        start = reader.mark
        rewards, adjustments = _rewards_and_adjustments(reader, end)
        reader.move_to(start)
        for item in _items(reader, end, "decisions"):
            write = DecisionWrite(decision_from_record(item), StatsDelta(item["delta"]))
            yield Commit((write,), _writes(rewards.pop(write.decision.id, ())))
        for waiting in rewards.values():
            for row in waiting:
                yield Commit(rewards=row.writes())
        for adjustment in adjustments:
            if not adjustment.id.startswith(ARRAYS):
                yield Commit(adjustments=(adjustment,))
        for key, arms in arrays.items():
            yield Commit(adjustments=(arrays_adjustment(key, arms),))
    finally:
        reader.close()


def _items(reader: Journal, end: int, kind: str) -> Iterator[Any]:
    for _, record in reader.pull(end):
        yield from record.get(kind, ())


def _rewards_and_adjustments(
    reader: Journal, end: int
) -> tuple[dict[str, list[StoredReward]], list[Adjustment]]:
    """Return the rewards by decision id, and the adjustments."""
    rows: dict[str, StoredReward] = {}
    adjustments: list[Adjustment] = []
    for _, record in reader.pull(end):
        if not record.keys() - {"decisions"}:
            continue
        commit = without_terms(commit_of(reader, record))
        adjustments += commit.adjustments
        for write in commit.rewards:
            reward = write.reward
            if reward.id not in rows:
                rows[reward.id] = StoredReward(reward, reward.arm, write.delta, counted=False)
            elif write.delta is not None:
                # Only what changes a reward is in the journal: this increment corrects the one
                # before it.
                rows[reward.id] = replace(rows[reward.id], arm=reward.arm, delta=write.delta)
    rewards: dict[str, list[StoredReward]] = {}
    for row in rows.values():
        rewards.setdefault(row.reward.decision_id, []).append(row)
    return rewards, adjustments


def _writes(rows: Iterable[StoredReward]) -> tuple[RewardWrite, ...]:
    return tuple(write for row in rows for write in row.writes())


class Rewriting:
    """A journal written beside another one, line by line, with other decisions in the same places.

    Terms are left out of its lines, since they say what was known of somebody: their sums stand in
    one line behind them. The caller keeps others from writing to ``path``.

    :param source: a reader at the beginning of the journal to take over
    :param change: returns what is to be written of a decision, ``None`` if that is all of it
    :param deadline: a time of the monotonic clock after which it gives up
    """

    def __init__(
        self,
        source: Journal,
        path: str,
        change: Callable[[Decision], Decision | None],
        deadline: float | None,
    ) -> None:
        self.count = 0
        self.places: dict[str, int] = {}
        self.journal = Journal(path)
        self._path = path
        self._source = source
        self._change = change
        self._deadline = deadline

    def begin(self) -> None:
        """Write the first line.

        :raises StorageError: it cannot be written
        """
        _prepare(self._path, self._source.path)
        self.journal.create(after=self._source)
        self.journal.open()

    def close(self) -> None:
        """Give the source back; and the new journal, unless it took the place of the old one."""
        self._source.close()
        if self.journal.path == self._path:
            self.journal.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def copy(self, end: int) -> None:
        """Take over the lines before ``end`` of the source that were not taken over yet.

        :raises StorageTimeoutError: the deadline has passed
        """
        for _, record in self._source.pull(end):
            if remaining(self._deadline) == 0:
                raise StorageTimeoutError(
                    f"{self._source.path} is too large to be written anew until the deadline;"
                    " nothing was changed. Try again with more time."
                )
            if control_of(self._source, record) is not None:
                self.journal.append(encode(record).encode())
            elif arrays_of(self._source, record) is None:
                self._take_over(commit_of(self._source, record))
        self.journal.sync()

    def finish(self, arrays: Arrays) -> None:
        """Write the sums of all terms that were left out, if there were any.

        :raises StorageError: they cannot be written
        """
        if arrays:
            write_arrays(self.journal, arrays)
            self.journal.sync()

    def _take_over(self, commit: Commit) -> None:
        kept = without_terms(commit)
        decisions = tuple(map(self._changed, kept.decisions))
        payload = encode(commit_to_record(replace(kept, decisions=decisions)))
        offset = self.journal.append(payload.encode())
        for write in decisions:
            self.places.setdefault(write.decision.id, offset)

    def is_complete(self, original: Journal) -> bool:
        """Tell whether everything that ``original`` has read so far was taken over."""
        return self._source.mark == original.mark

    def _changed(self, write: DecisionWrite) -> DecisionWrite:
        changed = self._change(write.decision)
        if changed is None:
            return write
        self.count += 1
        return DecisionWrite(changed, write.delta)


def _prepare(path: str, like: str) -> None:
    """Empty a file and give it the owner and the rights of another one."""
    try:
        os.truncate(path, 0)
        model, mine = os.stat(like), os.stat(path)
        os.chmod(path, model.st_mode & 0o7777)
        if (model.st_uid, model.st_gid) != (mine.st_uid, mine.st_gid):
            os.chown(path, model.st_uid, model.st_gid)
    except PermissionError as error:
        raise StorageError(
            f"{like} belongs to another user, and a new file in its place would not: {error}. Run"
            " this as its owner; nothing was changed."
        ) from error
    except OSError as error:
        raise storage_error(error, path, "prepare") from error
