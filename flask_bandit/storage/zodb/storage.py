"""A storage in a ZODB: a file for one process, or a ZEO server for many.

The layout is in ``tables``, deadlines and retries are in ``transactions``, connections in
``sessions``.
"""

from __future__ import annotations

import glob
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

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
from ..digests import digest_text
from ..ledger import erased, is_erasable, is_logged, is_redactable
from ..locks import deadline_of, remaining
from .rows import Entry, decision_commit
from .sessions import FileSource, source_of, translated
from .tables import LAYOUT, Tables, layout_of, upgrade_tables
from .transactions import Transactions

PAGE = 200
"""Rows that are read or pruned in one transaction."""

_T = TypeVar("_T")


class ZODBBanditStorage(BanditStorage):
    """Keeps counts and the log in a ZODB, in BTrees under one key of its root object.

    :param database: the path of a file, for one process; ``"zeo://host:port"``, for many; or a
        ``ZODB.DB`` that the app opened and will close
    :param root: the key in the root object; everything else in the database is left alone
    :param auto_migrate: make what is missing at first use; see :meth:`BanditStorage.upgrade`
    :raises ConfigurationError: the arguments do not say where the database is
    """

    def __init__(
        self, database: Any, root: str = "flask_bandit", auto_migrate: bool = True
    ) -> None:
        if not isinstance(root, str) or not root:
            raise ConfigurationError(f"The root key {root!r} of a ZODB storage must be a name.")
        self._source = source_of(database)
        self.root = root
        self.auto_migrate = boolean_option("auto_migrate", auto_migrate)
        # Others write to a server; to a file, only this process does.
        self.default_stats_ttl = 0.1 if isinstance(self._source, FileSource) else 1.0
        self._transactions = Transactions(self._source)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._source.name}>"

    @classmethod
    def from_uri(cls, uri: str, **options: Any) -> ZODBBanditStorage:
        """Make a storage from ``zodb:///relative.fs``, ``zodb:////absolute/path.fs`` or
        ``zeo://host:port``.

        :param options: as of the constructor
        :raises ConfigurationError: the URI is of another form, or an option is unknown
        """
        unknown = sorted(set(options) - {"root", "auto_migrate"})
        if unknown:
            raise ConfigurationError(
                f"A ZODB storage has no option {', '.join(unknown)}; it knows 'root' and"
                " 'auto_migrate'."
            )
        if uri.startswith("zeo:"):
            return cls(uri, **options)
        path = uri.removeprefix("zodb:///")
        if path == uri or not path or "?" in path:
            raise ConfigurationError(
                f"{uri!r} is not a URI of a ZODB storage; write 'zodb:///relative.fs',"
                " 'zodb:////absolute/path.fs' or 'zeo://host:port', options in MAB_STORAGE_OPTS."
            )
        return cls(os.path.abspath(path), **options)

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        """Apply a commit atomically and idempotently; see :meth:`BanditStorage.commit`.

        :raises StorageTimeoutError: the server did not answer, or others changed the same all
            the time
        :raises StorageError: a value cannot be stored or the database failed
        """
        clean = clean_commit(commit)
        # What it does not see yet, it conflicts with. So it need not ask the server first.
        return self._run(lambda tables: tables.commit(clean), timeout, fresh=False)

    def read_counts(self, timeout: float | None = None) -> Counts:
        """Return the sums of all bandits and versions; see :meth:`BanditStorage.read_counts`.

        :raises StorageTimeoutError: the server did not answer
        :raises StorageError: the database failed
        """
        return self._run(Tables.read_counts, timeout)

    def read_arrays(self, timeout: float | None = None) -> Arrays:
        """Return the sums of all terms; see :meth:`BanditStorage.read_arrays`.

        :raises StorageTimeoutError: the server did not answer
        :raises StorageError: the database failed
        """
        return self._run(Tables.read_arrays, timeout)

    def get_decisions(
        self, ids: Iterable[str], timeout: float | None = None
    ) -> Mapping[str, Decision]:
        """Return the stored decisions among ``ids``; see :meth:`BanditStorage.get_decisions`.

        :raises StorageTimeoutError: the server did not answer
        :raises StorageError: the database failed
        """
        wanted = list(ids)
        return self._run(lambda tables: tables.get_decisions(wanted), timeout)

    def iter_log(
        self,
        bandit: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[LogEntry]:
        """Yield the log as it was at the first step; see :meth:`BanditStorage.iter_log`.

        Of a stretch of time, only the decisions are read that were stored at most an hour before
        or after it, and those of it that were stored at another time.

        :raises StorageError: the database failed
        """
        for part in self._run(lambda tables: tables.parts(since, until), None):
            for entry in self._listed(part) if isinstance(part, list) else self._span("log", *part):
                assert entry.write is not None
                if is_logged(entry.write.decision, bandit, since, until):
                    rewards = tuple(stored.reward for stored in entry.rewards)
                    yield LogEntry(entry.write.decision, rewards)

    def iter_commits(self) -> Iterator[Commit]:
        """Yield what is stored, as commits; see :meth:`BanditStorage.iter_commits`.

        :raises StorageError: the database failed
        """
        # Before the decisions: one that is stored later is not among them.
        waiting = {
            stored.reward.id: stored
            for entry in self._entries("parked")
            for stored in entry.rewards
        }
        for entry in self._entries("log"):
            for stored in entry.rewards:
                waiting.pop(stored.reward.id, None)
            yield decision_commit(entry)
        for stored in waiting.values():
            yield Commit(rewards=stored.writes())
        for item in self._run(Tables.all_adjustments, None):
            yield Commit(adjustments=(item,))
        for key, arms in self.read_arrays().items():
            yield Commit(adjustments=(arrays_adjustment(key, arms),))

    def _entries(self, tree: str) -> Iterator[Entry]:
        return self._span(tree, 0, self._run(lambda tables: tables.last(tree), None))

    def _span(self, tree: str, number: int, end: int) -> Iterator[Entry]:
        """Yield the entries with numbers above one and up to another."""
        while number < end:
            after = number
            page = self._run(lambda tables: tables.page(tree, after, end, PAGE), None)  # noqa: B023
            if not page:
                return
            yield from page
            number = page[-1].number

    def _listed(self, numbers: list[int]) -> Iterator[Entry]:
        """Yield the entries of the log with these numbers."""
        for start in range(0, len(numbers), PAGE):
            page = numbers[start : start + PAGE]
            yield from self._run(lambda tables: tables.listed(page), None)  # noqa: B023

    def prune(self, before: float) -> int:
        """Remove the details of old decisions, and pack a file; see :meth:`BanditStorage.prune`.

        A database that is the app's own, or on a server, is not packed: that would remove the
        history of all that is in it. See :meth:`pack`.

        :raises StorageError: the database failed
        """
        end = self._run(lambda tables: tables.last("log"), None)
        number, total = 0, 0
        while number < end:
            after = number
            number, pruned = self._run(
                lambda tables: tables.prune_page(before, after, end, PAGE),  # noqa: B023
                None,
            )
            total += pruned
            if not number:
                break
        if isinstance(self._source, FileSource):
            self.pack()
        return total

    def erase(self, ids: Iterable[str], timeout: float | None = None) -> int:
        """Remove subjects and contexts; see :meth:`BanditStorage.erase`.

        A ZODB keeps what was replaced until it is packed, see :meth:`pack`; packing a file leaves
        the former one beside it, with ``.old`` behind its name.

        :raises StorageTimeoutError: the server did not answer; some may have been erased
        :raises StorageError: the database failed; what was erased so far is
        """
        return self._change(list(dict.fromkeys(ids)), is_erasable, erased, timeout)

    def redact(
        self, contexts: Mapping[str, Mapping[str, Any] | None], timeout: float | None = None
    ) -> int:
        """Replace the contexts of decisions; see :meth:`BanditStorage.redact`.

        What was there before stays until the ZODB is packed, as with :meth:`erase`.

        :raises StorageTimeoutError: the server did not answer; some may have been replaced
        :raises StorageError: a value cannot be stored, or the database failed
        """
        clean = clean_contexts(contexts)

        def redacted(decision: Decision) -> Decision:
            return replace(decision, context=clean[decision.id])

        return self._change(list(clean), is_redactable, redacted, timeout)

    def _change(
        self,
        ids: list[str],
        concerns: Callable[[Decision], bool],
        change: Callable[[Decision], Decision],
        timeout: float | None,
    ) -> int:
        """Change decisions, some in each transaction; return how many it concerned."""
        deadline = deadline_of(timeout)
        count = 0
        for start in range(0, len(ids), PAGE):
            page = ids[start : start + PAGE]
            left = None if deadline is None else remaining(deadline)
            count += self._run(lambda tables: tables.change(page, concerns, change), left)  # noqa: B023
        return count

    def read_control(self, timeout: float | None = None) -> Mapping[str, ControlState]:
        """Return what operators decided; see :meth:`BanditStorage.read_control`.

        :raises StorageTimeoutError: the server did not answer
        :raises StorageError: the database failed
        """
        return self._run(Tables.read_control, timeout)

    def write_control(
        self,
        bandit: str,
        state: ControlState,
        expected: ControlState | None,
        timeout: float | None = None,
    ) -> bool:
        """Replace a control state if it is still as expected; see
        :meth:`BanditStorage.write_control`.

        Where the answer was lost and the same is sent again, the first one may have been stored
        and the second returns ``False``; :meth:`read_control` then returns ``state``.

        :raises StorageTimeoutError: the server did not answer; it may have been stored
        :raises StorageError: a value cannot be stored or the database failed
        """
        seen = None if expected is None else control_text(expected)
        name, text = clean_bandit(bandit), control_text(state)
        # By this it is known again if the answer gets lost, and the transaction is done anew.
        call = uuid.uuid4().hex
        return self._run(lambda tables: tables.write_control(name, seen, text, call), timeout)

    def read_digest(self, key: BanditKey, timeout: float | None = None) -> StoredDigest | None:
        """Return the summary of a version's log; see :meth:`BanditStorage.read_digest`.

        :raises StorageTimeoutError: the server did not answer
        :raises StorageError: the database failed
        """
        of = clean_key(key)
        return self._run(lambda tables: tables.read_digest(of), timeout)

    def write_digest(
        self,
        key: BanditKey,
        state: Mapping[str, Any],
        revision: int,
        timeout: float | None = None,
    ) -> bool:
        """Replace a summary of the log, if it is the one that was read; see
        :meth:`BanditStorage.write_digest`.

        :raises StorageTimeoutError: the server did not answer; it may have been stored
        :raises StorageError: a value cannot be stored or the database failed
        """
        of, text = clean_key(key), digest_text(state)
        call = uuid.uuid4().hex
        return self._run(lambda tables: tables.write_digest(of, revision, text, call), timeout)

    def pack(self) -> None:
        """Give back the space of what was replaced, in the whole database, whoever uses it.

        A ZODB keeps each former state of an object until then, so a file grows with each commit.

        :raises StorageError: the database failed
        """
        db = self._transactions.run(lambda root: root._p_jar.db(), None)
        try:
            db.pack()
        except Exception as error:
            raise translated(error, self._source) from error
        source = self._source
        if isinstance(source, FileSource):
            # In a transaction: nobody else is in one then.
            self._transactions.run(lambda root: source.empty_scratch(), None)

    def upgrade(self) -> str:
        """Make what is missing under the key; see :meth:`BanditStorage.upgrade`.

        :raises StorageError: it failed, or a newer version of Flask-Bandit made it
        """

        def make(root: Any) -> bool:
            if layout_of(root, self.root) == LAYOUT:
                return False
            upgrade_tables(root, self.root)
            return True

        if self._transactions.run(make, None):
            return f"Made layout {LAYOUT} under {self.root!r} in {self._source.name}."
        return f"{self._source.name} has layout {LAYOUT} under {self.root!r}; nothing to do."

    def check(self) -> list[str]:
        """Return what is wrong with a file; see :meth:`BanditStorage.check`."""
        if not isinstance(self._source, FileSource):
            return []
        return [
            f"ZODB found damage at the end of {self._source.path}, cut it off and put it into"
            f" {cut}: compare with a backup, then remove that file."
            for cut in sorted(glob.glob(f"{glob.escape(self._source.path)}.tr[0-9]*"))
        ]

    def close(self) -> None:
        """Give back the connection, and what this object opened; a ``ZODB.DB`` stays open.

        Never raises; using the storage again opens it again.
        """
        self._transactions.close()

    def _run(self, work: Callable[[Tables], _T], timeout: float | None, fresh: bool = True) -> _T:
        """Do ``work`` on the tables in a transaction.

        :param fresh: which certainly sees all commits
        """
        return self._transactions.run(lambda root: work(self._tables(root)), timeout, fresh)

    def _tables(self, root: Any) -> Tables:
        layout = layout_of(root, self.root)
        if layout < LAYOUT:
            if not self.auto_migrate:
                found = f"an older layout, {layout}," if layout else "nothing"
                raise StorageError(
                    f"{self._source.name} has {found} under {self.root!r}; run 'flask bandit db"
                    " upgrade', or set auto_migrate=True."
                )
            upgrade_tables(root, self.root)
        return Tables(root[self.root])
