"""One process's copy of a journal: sums, ids, control, and where in the file each decision is.

Decisions and rewards stay in the file; memory holds their ids only. Not thread-safe, and methods
that write need the file lock. Imports only the model, the errors and the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from ...errors import StorageCorruptError
from ...model import Arrays, Decision
from ..base import Commit, CommitResult, ControlState
from ..codec import commit_from_record, commit_to_record, decision_from_record
from ..files import read_if_exists, require_directory, write_atomically
from ..ledger import Ledger, Outcome
from .arrays import arrays_from_record, arrays_to_record
from .checkpoint import (
    is_current_index,
    make_index,
    make_summary,
    mark_of,
    peek_mark,
    restore_index,
    unseal,
)
from .journal import Journal, Mark, PrunedError

# Made once: json.dumps would build it for each commit. A clean commit has no cycles.
encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode


class Replica:
    """Follows the journal of a JSON storage.

    :param path: the readable file; the journal is ``<path>.log``, the index ``<path>.index``
    """

    def __init__(self, path: str, fsync: bool = False) -> None:
        self.path = path
        self.index_path = f"{path}.index"
        self.ledger = Ledger()
        self.places: dict[str, int] = {}
        self.control: dict[str, ControlState] = {}
        self.journal = Journal(f"{path}.log", fsync)
        self._fsync = fsync
        self._loaded = False

    def close(self) -> None:
        """Give the file descriptors back."""
        self.journal.close()

    def follow(self, locked: bool) -> None:
        """Read what is new in the journal; without a journal there is nothing.

        :param locked: the caller holds the file lock: a journal is begun if there is none, and
            what an interrupted write left is removed
        :raises StorageCorruptError: the files are not what was written
        """
        try:
            if self._loaded:
                self._catch_up(locked)
            else:
                self._begin(locked)
        except PrunedError:
            self._begin_anew(locked)

    def _begin(self, locked: bool) -> None:
        expected = self._load(create=locked)
        if expected is None:
            return
        # In lines, since pruning changes their lengths but not their number.
        least = max((mark.lines for mark in expected), default=0)
        self._catch_up(locked, least)
        if self.journal.mark.lines < least:
            raise self._cut_journal(least)
        self._loaded = True

    def _begin_anew(self, locked: bool) -> None:
        """Read the pruned journal, and go on with it if all that was read before is in it."""
        fresh = Replica(self.path, self._fsync)
        try:
            fresh.follow(locked)
            old, new = self.ledger, fresh.ledger
            if not (
                # Pruning changes the lengths of lines but not their number.
                self.journal.mark.lines <= fresh.journal.mark.lines
                and old.decisions.keys() <= new.decisions.keys()
                and old.rewards <= new.rewards
                and old.adjustments <= new.adjustments
            ):
                raise self.journal.replaced()
        except BaseException:
            fresh.close()
            raise
        self._go_on(fresh.journal, fresh.places)
        self.ledger, self.control, self._loaded = fresh.ledger, fresh.control, fresh._loaded

    def _go_on(self, journal: Journal, places: dict[str, int]) -> None:
        self.journal.close()
        self.journal, self.places = journal, places

    def write(self, commit: Commit) -> Outcome:
        """Append what is new in a clean commit and apply it; the caller has followed, locked.

        :raises StorageError: not written, nothing changed
        """
        effective = self.ledger.effective(commit)
        if effective:
            payload = encode(commit_to_record(effective))
            offset = self.journal.append(payload.encode())
            self._place(effective, offset)
        # The same part: memory holds what a process that reads the journal holds.
        return self.ledger.apply(effective, commit)

    def result(self, commit: Commit, outcome: Outcome) -> CommitResult:
        """Make the answer to a clean commit, whose ``outcome`` :meth:`write` returned."""
        stored: dict[str, Decision] = {}
        for write in commit.decisions:
            id_ = write.decision.id
            if id_ not in stored:
                stored[id_] = write.decision if id_ in outcome.new else self.decision(id_)
        unlearned = []
        for reward in outcome.unlearned:
            id_ = reward.decision_id
            unlearned.append((reward, stored.get(id_) or self.decision(id_)))
        return CommitResult(
            decisions=stored,
            new=frozenset(outcome.new),
            applied=tuple(outcome.applied),
            parked=frozenset(outcome.parked),
            unlearned=tuple(unlearned),
        )

    def write_control(self, bandit: str, state: ControlState) -> None:
        """Append a clean control state and keep it; the caller has followed, locked.

        :raises StorageError: not written, nothing changed
        """
        record = {"control": {"bandit": bandit, "state": state}}
        self.journal.append(encode(record).encode())
        self.control[bandit] = state

    def decision(self, decision_id: str) -> Decision:
        """Read a stored decision back from the journal."""
        offset = self.places[decision_id]
        for record in self.journal.read_at(offset).get("decisions", ()):
            if record["id"] == decision_id:
                return decision_from_record(record)
        raise StorageCorruptError(
            f"{self.journal.path}, the line at byte {offset} does not hold the decision"
            f" {decision_id!r} any more. Restore the file from a backup; nothing was reset."
        )

    def write_summary(self) -> None:
        """Replace the readable file.

        :raises OSError: not written; the old one is untouched
        """
        mark = self.journal.mark
        content = make_summary(self.ledger.counts, mark, self.journal.path)
        write_atomically(self.path, content, self._fsync)

    def write_index(self) -> None:
        """Replace the index.

        :raises OSError: not written; the old one is untouched
        """
        content = make_index(self.ledger, self.places, self.control, self.journal.mark)
        write_atomically(self.index_path, content, self._fsync)

    def replace_journal(self, pruned: Journal, places: dict[str, int]) -> None:
        """Put a pruned journal in the place of this one, under the lock, both at the same commit.

        :param places: where in it the decisions are
        :raises StorageError: not done, nothing changed
        """
        # An index that is made for a longer file would not be rewritten for long.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.index_path)
        pruned.replace(self.journal)
        self._go_on(pruned, places)

    def indexed(self) -> int:
        """Return how many bytes of this journal the index on disk covers."""
        mark = peek_mark(self.index_path)
        same = mark is not None and mark.generation == self.journal.mark.generation
        return mark.offset if mark is not None and same else 0

    def _load(self, create: bool) -> list[Mark] | None:
        """Open the journal and take over the index.

        :return: marks of this journal that have to be reached; ``None`` if there is no journal
        """
        self.ledger, self.places, self.control = Ledger(), {}, {}
        # Read before the journal's size is: a mark is only made of lines that are there.
        contents = [read_if_exists(path) for path in (self.path, self.index_path)]
        summary, index = (None if content is None else unseal(content) for content in contents)
        if not self.journal.open():
            if contents != [None, None]:
                raise self._missing_journal(summary or index)
            if not create:
                require_directory(self.path)
                return None
            self.journal.create()
            self.journal.open()
        marks = [mark_of(document) for document in (summary, index) if document is not None]
        if index is not None and is_current_index(index) and self.journal.starts_with(marks[-1]):
            self.ledger, self.places, self.control = restore_index(index)
            self.journal.move_to(marks[-1])
        return [mark for mark in marks if mark.generation == self.journal.mark.generation]

    def _catch_up(self, locked: bool, least: int = 0) -> None:
        size = self.journal.size()
        if size == self.journal.offset:
            return
        self._pull(size)
        # A journal that was cut is left as it is, torn end included.
        if locked and self.journal.repair(size, cut=self.journal.mark.lines >= least):
            self._pull(self.journal.size())

    def _cut_journal(self, least: int) -> StorageCorruptError:
        return StorageCorruptError(
            f"{self.journal.path} has {self.journal.mark.lines} whole lines, and {least} were"
            f" there when the files made from it ({self.path} or {self.index_path}) were written:"
            " its end is missing. Restore it from a backup; or, to go on without the missing"
            f" commits, remove these two files and {self.path}.digests. Nothing was reset."
        )

    def _missing_journal(self, document: dict[str, Any] | None) -> StorageCorruptError:
        if document is not None:
            return StorageCorruptError(
                f"{self.journal.path} is missing or empty, and {self.path} or {self.index_path} was"
                " made from it. Restore it from a backup; or, to begin anew, remove these two"
                " files. Nothing was reset."
            )
        return StorageCorruptError(
            f"{self.path} exists and is not a file of this storage, or is damaged, and its journal"
            f" {self.journal.path} is missing. Configure another path, or move the file away; the"
            " counts of Flask-MAB's file are taken over by 'flask bandit import-flask-mab FILE'."
        )

    def _pull(self, size: int) -> None:
        for offset, record in self.journal.pull(size):
            control = control_of(self.journal, record)
            if control is not None:
                self.control.update([control])
                continue
            arrays = arrays_of(self.journal, record)
            if arrays is not None:
                self.ledger.restore_arrays(arrays)
                continue
            commit = commit_of(self.journal, record)
            self.ledger.apply(commit)
            self._place(commit, offset)

    def _place(self, commit: Commit, offset: int) -> None:
        for write in commit.decisions:
            self.places.setdefault(write.decision.id, offset)


def commit_of(journal: Journal, record: Any) -> Commit:
    """Read the commit in the line after the journal's mark.

    :raises StorageCorruptError: it holds none
    """
    try:
        return commit_from_record(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise journal.corrupt(f"it holds no commit ({error!r})") from None


def write_arrays(journal: Journal, arrays: Arrays) -> None:
    """Append a line that tells the sums of all terms before it.

    :raises StorageError: it cannot be written
    """
    journal.append(encode({"arrays": arrays_to_record(arrays)}).encode())


def arrays_of(journal: Journal, record: Any) -> Arrays | None:
    """Read the arrays in the line after the journal's mark, if it is such a line.

    :raises StorageCorruptError: it is neither whole nor something else
    """
    if not isinstance(record, dict) or "arrays" not in record:
        return None
    try:
        return arrays_from_record(record["arrays"])
    except (StorageCorruptError, TypeError, ValueError) as error:
        raise journal.corrupt(f"it holds no arrays ({error!r})") from None


def control_of(journal: Journal, record: Any) -> tuple[str, ControlState] | None:
    """Read the bandit and its control in the line after the journal's mark, if it is such a line.

    :raises StorageCorruptError: it is neither whole nor something else
    """
    if not isinstance(record, dict) or "control" not in record:
        return None
    try:
        bandit, state = record["control"]["bandit"], record["control"]["state"]
    except (KeyError, TypeError) as error:
        raise journal.corrupt(f"it holds no control of a bandit ({error!r})") from None
    if not isinstance(bandit, str) or not isinstance(state, dict):
        raise journal.corrupt("its control is not an object with the name of a bandit")
    return bandit, state
