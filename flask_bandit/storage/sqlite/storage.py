"""The recommended storage for one machine: a SQLite file, by the standard library's module.

Imports only the model, the errors and the standard library.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from operator import itemgetter
from typing import Any

from ...errors import ConfigurationError, StorageError
from ...model import Arrays, BanditKey, Counts, Decision, LogEntry
from ..base import (
    BanditStorage,
    Commit,
    CommitResult,
    ControlState,
    StoredDigest,
    arrays_adjustment,
    boolean_option,
)
from ..codec import clean_bandit, clean_commit, clean_contexts, clean_key, control_text
from ..digests import digest_from_text, digest_text
from ..locks import deadline_of
from ..settle import settle, touched
from . import rows
from .file import WAL_BYTES, SQLiteFile
from .pages import Pages
from .schema import (
    STEPS,
    migrate,
    missing_parts,
    read_schema,
    require_current,
    require_usable,
)

PRUNE_PAGE = 1000

_SYNCHRONOUS = ("normal", "full")


class SQLiteBanditStorage(BanditStorage):
    """Keeps counts and the log in a SQLite file, for any number of processes on one machine.

    The file is in WAL mode: readers and the one writer do not wait for each other. Each process
    opens one connection at its first use and closes it before it forks.

    :param path: the file, relative to the present working directory; its directory exists
    :param synchronous: ``"normal"``: a commit survives the end of every process, but a power
        failure may take the last ones; ``"full"``: each commit waits for the disk
    :param auto_migrate: whether tables are made and brought up to date at first use
    :raises ConfigurationError: the path is empty or in memory, or ``synchronous`` is unknown
    """

    default_stats_ttl = 0.1

    def __init__(
        self,
        path: str | os.PathLike[str],
        synchronous: str = "normal",
        auto_migrate: bool = True,
    ) -> None:
        name = os.fspath(path)
        if not name or name == ":memory:":
            raise ConfigurationError(
                f"A SQLite storage needs the path of a file, not {name!r}; to keep nothing, use"
                " 'memory://'."
            )
        if synchronous not in _SYNCHRONOUS:
            raise ConfigurationError(
                f"synchronous is {synchronous!r}; it must be 'normal' or 'full'."
            )
        self.path = os.path.abspath(name)
        self.synchronous = synchronous
        self.auto_migrate = boolean_option("auto_migrate", auto_migrate)
        self._file = SQLiteFile(self.path, self._prepare, lambda: self.auto_migrate)
        self._pages = Pages(self._file)

    @classmethod
    def from_uri(cls, uri: str, **options: Any) -> SQLiteBanditStorage:
        """Make a storage from ``sqlite:///relative.db`` or ``sqlite:////absolute/path.db``.

        :param options: as of the constructor
        :raises ConfigurationError: the URI is of another form, or an option is unknown
        """
        path = uri.removeprefix("sqlite:///")
        if path in (":memory:", "") or uri in ("sqlite:", "sqlite://", "sqlite://:memory:"):
            raise ConfigurationError(
                f"{uri!r} names no file; use 'memory://' for a storage in memory, or"
                " 'sqlite:///bandits.db'."
            )
        if path == uri or "?" in path:
            raise ConfigurationError(
                f"{uri!r} is not a URI of a SQLite storage; write 'sqlite:///relative.db' or"
                " 'sqlite:////absolute/path.db', options in MAB_STORAGE_OPTS."
            )
        unknown = sorted(set(options) - {"synchronous", "auto_migrate"})
        if unknown:
            raise ConfigurationError(
                f"A SQLite storage has no option {', '.join(unknown)}; it knows 'synchronous' and"
                " 'auto_migrate'."
            )
        return cls(path, **options)

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        """Apply a commit atomically and idempotently; see :meth:`BanditStorage.commit`.

        :raises StorageTimeoutError: the file was locked all the time
        :raises StorageCorruptError: the file is damaged, or was removed or replaced while in use
        :raises StorageError: a value cannot be stored or the file cannot be written
        """
        deadline = deadline_of(timeout)
        clean = clean_commit(commit)
        ids = touched(clean)

        def apply(connection: sqlite3.Connection) -> CommitResult:
            given = {row.reward.id: row for row in rows.rewards_by_id(connection, ids.rewards)}
            for row in rows.waiting_rewards(connection, ids.sent):
                given[row.reward.id] = row
            needed = {*ids.decisions, *(row.reward.decision_id for row in given.values())}
            stored = rows.decisions_by_id(connection, sorted(needed))
            added = rows.adjustments_among(connection, ids.adjustments)
            change = settle(clean, stored, given.values(), added)
            rows.write_change(connection, change)
            return change.result

        return self._file.write(apply, deadline)

    def read_counts(self, timeout: float | None = None) -> Counts:
        """Return the sums of all bandits and versions; see :meth:`BanditStorage.read_counts`.

        :raises StorageTimeoutError: the file was locked all the time
        :raises StorageError: the file cannot be read
        """
        found = self._file.select(rows.SELECT_COUNTS, (), deadline_of(timeout))
        counts: dict[BanditKey, dict[str, dict[str, float]]] = {}
        for bandit, version, arm, name, value in found:
            arms = counts.setdefault(BanditKey(bandit, version), {})
            arms.setdefault(arm, {})[name] = value
        return counts

    def read_arrays(self, timeout: float | None = None) -> Arrays:
        """Return the sums of all terms; see :meth:`BanditStorage.read_arrays`.

        :raises StorageTimeoutError: the file was locked all the time
        :raises StorageError: the file cannot be read
        """
        return rows.arrays_of(self._file.select(rows.SELECT_ARRAYS, (), deadline_of(timeout)))

    def get_decisions(
        self, ids: Iterable[str], timeout: float | None = None
    ) -> Mapping[str, Decision]:
        """Return the stored decisions among ``ids``; see :meth:`BanditStorage.get_decisions`.

        :raises StorageTimeoutError: the file was locked all the time
        :raises StorageError: the file cannot be read
        """
        wanted = list(ids)
        return self._file.read(lambda c: rows.decisions_by_id(c, wanted), deadline_of(timeout))

    def iter_log(
        self,
        bandit: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[LogEntry]:
        """Yield the log, as far as it goes at the start; see :meth:`BanditStorage.iter_log`.

        One bandit's decisions are found by an index, also those of some days; the times of all
        bandits together have none, and the whole file is read.

        :raises StorageError: the file cannot be read
        """
        start = -inf if since is None else float(since)
        end = inf if until is None else float(until)
        for found, given in self._pages.decisions(bandit, start, end):
            for row in found:
                made = rows.decision_of(row)
                if not made.is_pruned and made.stands_for is None:
                    rewards = tuple(stored.reward for stored in given.get(made.id, ()))
                    yield LogEntry(made, rewards)

    def iter_commits(self) -> Iterator[Commit]:
        """Yield everything that is stored; see :meth:`BanditStorage.iter_commits`.

        :raises StorageError: the file cannot be read
        """
        # Before the decisions: one that is stored later is not among them.
        waiting = {
            row[0]: rows.reward_of(row)
            for page in self._pages.scan(rows.WITHOUT_DECISION, "bandit_rewards")
            for row in page
        }
        for found, given in self._pages.decisions():
            for row in found:
                write = rows.decision_write_of(row)
                stored = given.get(write.decision.id, ())
                for one in stored:
                    waiting.pop(one.reward.id, None)
                yield Commit((write,), tuple(sent for one in stored for sent in one.writes()))
        for one in waiting.values():
            yield Commit(rewards=one.writes())
        for page in self._pages.scan(rows.SELECT_ADJUSTMENTS, "bandit_adjustments"):
            for item in rows.adjustments_of(page):
                yield Commit(adjustments=(item,))
        for key, arrays in self.read_arrays().items():
            yield Commit(adjustments=(arrays_adjustment(key, arrays),))

    def prune(self, before: float) -> int:
        """Remove the details of old decisions, some at a time; see :meth:`BanditStorage.prune`.

        The file does not shrink: new rows fill the space that is free now.

        :raises StorageError: it failed; sending it again goes on
        """
        last = self._pages.last("bandit_decisions")
        total = 0
        for start in range(0, last, PRUNE_PAGE):
            end = min(start + PRUNE_PAGE, last)
            started = time.monotonic()
            total += self._file.write(rows.prune_page(start, end, before), None)
            # As long again for those who wait to write, since who asks again at once comes first.
            time.sleep(time.monotonic() - started)
        return total

    def erase(self, ids: Iterable[str], timeout: float | None = None) -> int:
        """Remove the subject and the context of decisions; see :meth:`BanditStorage.erase`.

        They are overwritten in the file, and the write-ahead log, which has older copies, is
        emptied. What backups and the disk itself still hold is beyond it.

        :raises StorageTimeoutError: others wrote, or kept the log open by reading, all the time
        :raises StorageError: it failed; erasing again is safe
        """
        deadline = deadline_of(timeout)
        wanted = sorted(set(ids))
        total = 0
        for start in range(0, len(wanted), rows.IDS_PER_QUERY):
            some = wanted[start : start + rows.IDS_PER_QUERY]
            total += self._file.write(rows.erase(some), deadline)
        # Even where nothing was found: the time before may have failed at just this.
        self._file.empty_log(deadline)
        return total

    def redact(
        self, contexts: Mapping[str, Mapping[str, Any] | None], timeout: float | None = None
    ) -> int:
        """Replace contexts, and overwrite what was there; see :meth:`BanditStorage.redact`.

        The write-ahead log is emptied as by :meth:`erase`.

        :raises StorageTimeoutError: others wrote, or kept the log open by reading, all the time
        :raises StorageError: a value cannot be stored, or it failed; sending it again is safe
        """
        deadline = deadline_of(timeout)
        wanted = sorted(clean_contexts(contexts).items(), key=itemgetter(0))
        total = 0
        for start in range(0, len(wanted), rows.IDS_PER_QUERY):
            some = wanted[start : start + rows.IDS_PER_QUERY]
            total += self._file.write(rows.redact(some), deadline)
        self._file.empty_log(deadline)
        return total

    def read_control(self, timeout: float | None = None) -> Mapping[str, ControlState]:
        """Return the states of all bandits; see :meth:`BanditStorage.read_control`.

        :raises StorageTimeoutError: the file was locked all the time
        :raises StorageError: the file cannot be read
        """
        return rows.control_of(self._file.select(rows.SELECT_CONTROL, (), deadline_of(timeout)))

    def write_control(
        self,
        bandit: str,
        state: ControlState,
        expected: ControlState | None,
        timeout: float | None = None,
    ) -> bool:
        """Replace a bandit's state, if it is the expected one; in one transaction.

        See :meth:`BanditStorage.write_control`.

        :raises StorageTimeoutError: the file was locked all the time
        :raises StorageError: a value cannot be stored or the file cannot be written
        """
        deadline = deadline_of(timeout)
        seen = None if expected is None else control_text(expected)
        replace = rows.replace_control(clean_bandit(bandit), control_text(state), seen)
        return self._file.write(replace, deadline)

    def read_digest(self, key: BanditKey, timeout: float | None = None) -> StoredDigest | None:
        """Return the summary of a version's log; see :meth:`BanditStorage.read_digest`.

        :raises StorageTimeoutError: the file was locked all the time
        :raises StorageError: the file cannot be read
        """
        found = self._file.select(rows.SELECT_DIGEST, key, deadline_of(timeout))
        return digest_from_text(*found[0]) if found else None

    def write_digest(
        self,
        key: BanditKey,
        state: Mapping[str, Any],
        revision: int,
        timeout: float | None = None,
    ) -> bool:
        """Keep a summary over the one that was seen; in one transaction.

        See :meth:`BanditStorage.write_digest`.

        :raises StorageTimeoutError: the file was locked all the time
        :raises StorageError: a value cannot be stored or the file cannot be written
        """
        deadline = deadline_of(timeout)
        replace = rows.replace_digest(clean_key(key), digest_text(state), revision)
        return self._file.write(replace, deadline)

    def upgrade(self) -> str:
        """Make the tables, or bring them up to date; also where ``auto_migrate`` is off.

        :raises StorageError: it failed; what was there is as it was
        """
        file = SQLiteFile(self.path, self._configure, lambda: True)
        try:
            found = file.read(lambda c: migrate(c, self.path), None)
        finally:
            file.close()
        if found == len(STEPS):
            return f"{self.path} is up to date: schema {found}."
        if found:
            return f"Updated {self.path} from schema {found} to {len(STEPS)}."
        return f"Made the tables of schema {len(STEPS)} in {self.path}."

    def check(self) -> list[str]:
        """Return what is wrong with the file; reads all of it."""
        try:
            found = self._file.read(self._problems, None)
            if not found:
                # Nothing of it is stored, but whatever forbids to write, shows.
                self._file.write(rows.probe_writing, None)
            return found
        except StorageError as error:
            return [str(error)]

    def close(self) -> None:
        """Close this process's connection; the next use opens the file again.

        :raises StorageTimeoutError: another thread kept it busy for five seconds
        """
        self._file.close()

    def _problems(self, connection: sqlite3.Connection) -> list[str]:
        found = [
            f"{self.path} is damaged: {message}. Restore it from a backup, or save what can be"
            f" read with: sqlite3 {self.path} .recover"
            for (message,) in connection.execute("PRAGMA integrity_check").fetchall()
            if message != "ok"
        ]
        found += [
            f"{self.path} lacks {name}, which was removed: restore it from a backup."
            for name in missing_parts(connection)
        ]
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            found.append(
                f"{self.path} is in journal mode {mode}, in which readers and writers wait for each"
                " other: run 'PRAGMA journal_mode = WAL', and remove what switches it off."
            )
        return found

    # The connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._configure(connection)
        schema = read_schema(connection)
        if self.auto_migrate:
            migrate(connection, self.path)
        else:
            require_current(schema, self.path)

    def _configure(self, connection: sqlite3.Connection) -> None:
        require_usable(read_schema(connection), self.path)
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}").fetchone()
        # Always: where rows move to another page, a copy would stay that erasing cannot find.
        connection.execute("PRAGMA secure_delete = ON").fetchone()
