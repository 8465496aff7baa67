"""A storage in files beside each other that needs no server and no extra, for small sites.

Imports only the model, the errors and the standard library.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from typing import Any

from ...errors import ConfigurationError, StorageError
from ...model import Arrays, BanditKey, Counts, Decision, LogEntry
from ..base import (
    BanditStorage,
    Commit,
    CommitResult,
    ControlState,
    StoredDigest,
    boolean_option,
)
from ..codec import (
    clean_bandit,
    clean_commit,
    clean_contexts,
    clean_control,
    clean_key,
    control_text,
)
from ..digests import digest_text
from ..ledger import erased, is_erasable, is_logged, is_prunable, is_redactable
from ..locks import FileLock, deadline_of, remaining
from .access import Access
from .digests import Digests, digest_of
from .history import Rewriting, read_commits, read_log
from .journal import Journal

logger = logging.getLogger(__name__)

MANY_DECISIONS = 100_000


class JSONBanditStorage(BanditStorage):
    """Keeps counts and the log in a JSON Lines file, for demos and small sites on one machine.

    ``<path>.log`` is the truth: one line with a checksum per commit, only ever appended to.
    ``<path>`` is a readable summary of the counts, at most about a second old under traffic,
    complete after :meth:`close` and at exit. ``<path>.index`` lets a new process skip what it
    covers; ``<path>.digests`` has what dashboards made of the log; ``<path>.lock`` is locked by
    who writes. Any number of processes may share them on a local file system; on network file
    systems locks are not reliable.

    A process keeps the ids of all decisions in memory, about 0.5 kB per rewarded decision; above
    100,000 decisions a warning recommends another storage.

    :param path: the readable file, relative to the present working directory; its directory exists
    :param fsync: wait at each commit until the disk has it, so that it survives a power failure;
        without, it survives the end of every process but not of the machine
    :raises ConfigurationError: the path is empty
    """

    default_stats_ttl = 0.1

    def __init__(self, path: str | os.PathLike[str], fsync: bool = False) -> None:
        if not os.fspath(path):
            raise ConfigurationError("A JSON storage needs a path, as 'bandit_storage.json'.")
        self.path = os.path.abspath(os.fspath(path))
        self.fsync = boolean_option("fsync", fsync)
        self._access = Access(self.path, self.fsync)
        self._digests = Digests(f"{self.path}.digests")
        self._warned = False

    @classmethod
    def from_uri(cls, uri: str, **options: Any) -> JSONBanditStorage:
        """Make a storage from ``json:///relative.json`` or ``json:////absolute/path.json``.

        :param options: as of the constructor
        :raises ConfigurationError: the URI is of another form, or an option is unknown
        """
        path = uri.removeprefix("json:///")
        if path == uri or not path or "?" in path:
            raise ConfigurationError(
                f"{uri!r} is not a URI of a JSON storage; write 'json:///relative.json' or"
                " 'json:////absolute/path.json', options in MAB_STORAGE_OPTS."
            )
        unknown = sorted(set(options) - {"fsync"})
        if unknown:
            raise ConfigurationError(
                f"A JSON storage has no option {', '.join(unknown)}; it knows 'fsync'."
            )
        return cls(path, **options)

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        """Apply a commit atomically and idempotently; see :meth:`BanditStorage.commit`.

        :raises StorageTimeoutError: other threads or processes held the lock all the time
        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: a value cannot be stored or the file cannot be written
        """
        clean = clean_commit(commit)
        return self._access.run(lambda: self._commit(clean), timeout, locked=True)

    def read_counts(self, timeout: float | None = None) -> Counts:
        """Return the sums of all bandits and versions; see :meth:`BanditStorage.read_counts`.

        :raises StorageTimeoutError: other threads kept this object busy all the time
        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: the files cannot be read
        """
        return self._access.run(lambda: self._access.replica.ledger.snapshot(), timeout)

    def read_arrays(self, timeout: float | None = None) -> Arrays:
        """Return the sums of all terms; see :meth:`BanditStorage.read_arrays`.

        :raises StorageTimeoutError: other threads kept this object busy all the time
        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: the files cannot be read
        """
        return self._access.run(lambda: self._access.replica.ledger.arrays_snapshot(), timeout)

    def get_decisions(
        self, ids: Iterable[str], timeout: float | None = None
    ) -> Mapping[str, Decision]:
        """Return the stored decisions among ``ids``; see :meth:`BanditStorage.get_decisions`.

        :raises StorageTimeoutError: other threads kept this object busy all the time
        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: the files cannot be read
        """
        wanted = list(ids)

        def read() -> dict[str, Decision]:
            replica = self._access.replica
            return {id_: replica.decision(id_) for id_ in wanted if id_ in replica.places}

        return self._access.run(read, timeout)

    def iter_log(
        self,
        bandit: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[LogEntry]:
        """Yield the log as it was at the call; see :meth:`BanditStorage.iter_log`.

        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: the files cannot be read
        """
        source = self._access.run(self._reader, None)
        if source is None:
            return iter(())
        return read_log(*source, lambda made: is_logged(made, bandit, since, until))

    def iter_commits(self) -> Iterator[Commit]:
        """Yield what is stored at the call; see :meth:`BanditStorage.iter_commits`.

        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: the files cannot be read
        """
        source, arrays = self._access.run(
            lambda: (self._reader(), self._access.replica.ledger.arrays_snapshot()), None
        )
        return iter(()) if source is None else read_commits(*source, arrays)

    def prune(self, before: float) -> int:
        """Remove the details of old decisions; see :meth:`BanditStorage.prune`.

        The log is written anew beside the old one, which it then replaces. Other processes commit
        meanwhile, except at the end, for as long as the index takes to write.

        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: the files cannot be written; nothing was pruned
        """
        if not self._access.run(lambda: self._access.replica.journal.offset, None):
            return 0
        return self._rewrite(lambda made: made.pruned() if is_prunable(made, before) else None)

    def erase(self, ids: Iterable[str], timeout: float | None = None) -> int:
        """Remove subjects and contexts from the file; see :meth:`BanditStorage.erase`.

        The log is written anew, as by :meth:`prune`: name all the decisions of a person at once.

        :raises StorageTimeoutError: it takes longer than that; nothing was erased
        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: the files cannot be written; nothing was erased
        """
        deadline = deadline_of(timeout)
        wanted = frozenset(ids)

        def change(made: Decision) -> Decision | None:
            return erased(made) if made.id in wanted and is_erasable(made) else None

        return self._rewrite_some(wanted, change, deadline)

    def redact(
        self, contexts: Mapping[str, Mapping[str, Any] | None], timeout: float | None = None
    ) -> int:
        """Replace contexts in the file; see :meth:`BanditStorage.redact`.

        The log is written anew, as by :meth:`prune`: name all decisions at once.

        :raises StorageTimeoutError: it takes longer than that; nothing was replaced
        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: a value cannot be stored or the files cannot be written; nothing was
            replaced
        """
        deadline = deadline_of(timeout)
        clean = clean_contexts(contexts)

        def change(made: Decision) -> Decision | None:
            if made.id not in clean or not is_redactable(made):
                return None
            return replace(made, context=clean[made.id])

        return self._rewrite_some(clean, change, deadline)

    def _rewrite_some(
        self,
        ids: Iterable[str],
        change: Callable[[Decision], Decision | None],
        deadline: float | None,
    ) -> int:
        def is_any_stored() -> bool:
            return any(id_ in self._access.replica.places for id_ in ids)

        return (
            self._rewrite(change, deadline)
            if self._access.run(is_any_stored, _left(deadline))
            else 0
        )

    def _rewrite(
        self, change: Callable[[Decision], Decision | None], deadline: float | None = None
    ) -> int:
        # The lock of the new file is a lock among those who rewrite: it becomes the journal, or
        # goes away, before the next one may go on.
        path = f"{os.path.realpath(self._access.replica.journal.path)}.tmp"
        with closing(FileLock(path)) as lock:
            lock.acquire(deadline)
            source = self._access.run(self._reader, _left(deadline))
            if source is None:
                return 0
            reader, end = source
            with closing(Rewriting(reader, path, change, deadline)) as new:
                new.begin()
                new.copy(end)
                if new.count:
                    self._access.run(lambda: self._finish(new), _left(deadline), locked=True)
                return new.count

    def _finish(self, new: Rewriting) -> None:
        """Take over what came meanwhile, while nothing else can come."""
        replica = self._access.replica
        new.copy(replica.journal.offset)
        if not new.is_complete(replica.journal):
            raise StorageError(
                f"{replica.journal.path} was replaced while it was written anew; nothing was"
                " changed. Try again."
            )
        new.finish(replica.ledger.arrays)
        replica.replace_journal(new.journal, new.places)
        self._access.upkeep.after_replacement()

    def read_control(self, timeout: float | None = None) -> Mapping[str, ControlState]:
        """Return what was decided about bandits; see :meth:`BanditStorage.read_control`.

        :raises StorageTimeoutError: other threads kept this object busy all the time
        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: the files cannot be read
        """
        return self._access.run(lambda: deepcopy(self._access.replica.control), timeout)

    def write_control(
        self,
        bandit: str,
        state: ControlState,
        expected: ControlState | None,
        timeout: float | None = None,
    ) -> bool:
        """Replace what is still as expected; see :meth:`BanditStorage.write_control`.

        :raises StorageTimeoutError: other threads or processes held the lock all the time
        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: a value cannot be stored or the file cannot be written
        """
        name, clean = clean_bandit(bandit), clean_control(state)
        seen = None if expected is None else control_text(expected)
        return self._access.run(
            lambda: self._write_control(name, clean, seen), timeout, locked=True
        )

    def _write_control(self, bandit: str, state: ControlState, expected: str | None) -> bool:
        stored = self._access.replica.control.get(bandit)
        if (None if stored is None else control_text(stored)) != expected:
            return False
        self._access.replica.write_control(bandit, state)
        self._access.upkeep.after_write()
        return True

    def read_digest(self, key: BanditKey, timeout: float | None = None) -> StoredDigest | None:
        """Return the summary of a version's log; see :meth:`BanditStorage.read_digest`.

        :raises StorageTimeoutError: other threads kept this object busy all the time
        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: the files cannot be read
        """
        # Before the journal is followed: the lines that it was made of are there by then.
        found = self._digests.find(clean_key(key))
        return self._access.run(
            lambda: digest_of(found, self._access.replica.journal.mark), timeout
        )

    def write_digest(
        self,
        key: BanditKey,
        state: Mapping[str, Any],
        revision: int,
        timeout: float | None = None,
    ) -> bool:
        """Keep a summary over the one that was seen; see :meth:`BanditStorage.write_digest`.

        :raises StorageTimeoutError: other threads or processes held the lock all the time
        :raises StorageCorruptError: the files are not what was written
        :raises StorageError: a value cannot be stored or the file cannot be written
        """
        clean, text = clean_key(key), digest_text(state)

        def replace() -> bool:
            return self._digests.replace(clean, text, revision, self._access.replica.journal.mark)

        return self._access.run(replace, timeout, locked=True)

    def _reader(self) -> tuple[Journal, int] | None:
        """Return a reader of the journal and where it ends now; ``None`` if there is none."""
        journal = self._access.replica.journal
        return (journal.reader(), journal.offset) if journal.offset else None

    def close(self) -> None:
        """Bring the readable file up to date and give the files back.

        Never raises; using the storage again opens the files again.
        """
        self._access.close()

    def _commit(self, commit: Commit) -> CommitResult:
        replica = self._access.replica
        before = replica.journal.offset
        outcome = replica.write(commit)
        if replica.journal.offset != before:
            self._access.upkeep.after_write()
            self._warn_once()
        return replica.result(commit, outcome)

    def _warn_once(self) -> None:
        if not self._warned and len(self._access.replica.places) > MANY_DECISIONS:
            self._warned = True
            logger.warning(
                "%s holds more than %d decisions, and each process keeps their ids in memory:"
                " a site of this size is better served by a storage on a database,"
                " such as sqlite:///bandits.db ('flask bandit export' and 'import' move all).",
                self.path,
                MANY_DECISIONS,
            )


def _left(deadline: float | None) -> float | None:
    """Return the timeout that ends at a deadline."""
    return None if deadline is None else remaining(deadline)
