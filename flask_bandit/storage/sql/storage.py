"""The storage: which statements each of its methods makes.

What a commit writes is in :mod:`.commits`; how a call gets its connection in :mod:`.calls`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ...errors import ConfigurationError, StorageError
from ...model import Arrays, BanditKey, Counts, Decision, LogEntry
from ..base import BanditStorage, Commit, CommitResult, ControlState, StoredDigest, boolean_option
from ..codec import clean_bandit, clean_commit, clean_contexts, clean_key, control_text
from ..digests import digest_text
from ..locks import deadline_of, remaining
from . import arrays, commits, edits, history, migrate
from .calls import Calls
from .engines import describe, is_disconnect, lax_settings
from .rows import counts_of, dump

PROBE_SECONDS = 10.0
"""How long a check waits for others who write."""

_T = TypeVar("_T")

_COUNTS = text(
    "SELECT bandit, version, arm, name, CAST(sum(count) AS BIGINT), sum(total)"
    " FROM bandit_counts GROUP BY bandit, version, arm, name ORDER BY 1, 2, 3, 4"
)


class SQLBanditStorage(BanditStorage):
    """Keeps counts and the log in PostgreSQL or SQLite, by SQLAlchemy.

    For sites on several machines, and for apps that have a database already. A commit of what is
    new is one statement; counts are exact however many processes write.

    :param engine: a URI such as ``"postgresql+psycopg://user:password@host/database"``; an
        engine of the app's; or a function that returns one, called at first use, as
        ``lambda: db.engine`` for Flask-SQLAlchemy
    :param auto_migrate: make and update the tables at first use; without, ``flask bandit db
        upgrade`` does
    :raises ConfigurationError: the URI cannot be used, or its driver is not installed
    """

    default_stats_ttl = 1.0

    def __init__(
        self, engine: str | Engine | Callable[[], Engine], *, auto_migrate: bool = True
    ) -> None:
        self.auto_migrate = boolean_option("auto_migrate", auto_migrate)
        self._calls = Calls(engine)
        self._has_tables = False

    def __repr__(self) -> str:
        links = self._calls.links
        where = describe(links.engine) if links else "not connected yet"
        return f"<{type(self).__name__} {where}>"

    @classmethod
    def from_uri(cls, uri: str, **options: Any) -> SQLBanditStorage:
        """Make a storage from ``postgresql+psycopg://...`` or ``sqlite+pysqlite:///file.db``.

        :param options: as of the constructor
        :raises ConfigurationError: the URI cannot be used, or an option is unknown
        """
        unknown = sorted(set(options) - {"auto_migrate"})
        if unknown:
            raise ConfigurationError(
                f"An SQL storage has no option {', '.join(unknown)}; it knows 'auto_migrate'."
                " For an engine with options of your own, hand the engine to SQLBanditStorage."
            )
        return cls(uri, **options)

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        """Apply a commit atomically and idempotently; see :meth:`BanditStorage.commit`.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: a value cannot be stored, or the database failed
        """
        clean = clean_commit(commit)
        if not clean:
            return CommitResult()
        return self._run(lambda connection: commits.apply(connection, clean), timeout)

    def read_counts(self, timeout: float | None = None) -> Counts:
        """Return the sums of all bandits and versions; see :meth:`BanditStorage.read_counts`.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: the database failed
        """
        return self._run(lambda c: counts_of(c.execute(_COUNTS)), timeout)

    def read_arrays(self, timeout: float | None = None) -> Arrays:
        """Return the sums of all terms; see :meth:`BanditStorage.read_arrays`.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: the database failed
        """
        return self._run(arrays.read_arrays, timeout)

    def get_decisions(
        self, ids: Iterable[str], timeout: float | None = None
    ) -> Mapping[str, Decision]:
        """Return the stored decisions among ``ids``; see :meth:`BanditStorage.get_decisions`.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: the database failed
        """
        wanted = sorted(set(ids))
        return self._run(lambda c: commits.read_decisions(c, wanted), timeout)

    def iter_log(
        self,
        bandit: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[LogEntry]:
        """Yield the log in pages; see :meth:`BanditStorage.iter_log`.

        One bandit's decisions are found by an index, also those of some days; the times of all
        bandits together have none, and the whole table is read.

        :raises StorageError: the database failed
        """
        return history.iter_log(self._read, bandit, since, until)

    def iter_commits(self) -> Iterator[Commit]:
        """Yield everything in pages; see :meth:`BanditStorage.iter_commits`.

        :raises StorageError: the database failed
        """
        return history.iter_commits(self._read)

    def prune(self, before: float) -> int:
        """Remove the details of old decisions, a page at a time; see :meth:`BanditStorage.prune`.

        :raises StorageError: the database failed; the pages before are pruned
        """
        return history.prune(self._read, before)

    def erase(self, ids: Iterable[str], timeout: float | None = None) -> int:
        """Remove the subject and the context of decisions; see :meth:`BanditStorage.erase`.

        PostgreSQL keeps the old rows where nobody sees them until ``VACUUM``, which autovacuum
        does by itself after a while, and then until their space is used again. In SQLite they are
        overwritten, and the write-ahead log is emptied.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: the database failed; erasing again is safe
        """
        return self._overwrite(edits.erase, sorted(set(ids)), timeout)

    def redact(
        self, contexts: Mapping[str, Mapping[str, Any] | None], timeout: float | None = None
    ) -> int:
        """Replace the contexts of decisions; see :meth:`BanditStorage.redact`.

        What was there before goes as with :meth:`erase`.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: a value cannot be stored, or the database failed
        """
        texts = {
            id_: None if rest is None else dump(rest)
            for id_, rest in clean_contexts(contexts).items()
        }

        def replace(connection: Connection, ids: Sequence[str]) -> int:
            return edits.redact(connection, {id_: texts[id_] for id_ in ids})

        return self._overwrite(replace, sorted(texts), timeout)

    def _overwrite(
        self,
        change: Callable[[Connection, Sequence[str]], int],
        ids: list[str],
        timeout: float | None,
    ) -> int:
        """Change decisions, some at a time, and leave no copies of what they were."""
        deadline = deadline_of(timeout)
        total = 0
        for some in commits.chunks(ids):
            total += self._run(lambda c: change(c, some), _left(deadline))  # noqa: B023
        # Even where nothing was found: the time before may have failed at just this.
        self._run(partial(edits.empty_log, deadline=deadline), _left(deadline))
        return total

    def read_control(self, timeout: float | None = None) -> Mapping[str, ControlState]:
        """Return the states of all bandits; see :meth:`BanditStorage.read_control`.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: the database failed
        """
        return self._run(edits.read_control, timeout)

    def write_control(
        self,
        bandit: str,
        state: ControlState,
        expected: ControlState | None,
        timeout: float | None = None,
    ) -> bool:
        """Replace a bandit's state, if it is the expected one; see the base class.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: a value cannot be stored, or the database failed
        """
        name, new = clean_bandit(bandit), control_text(state)
        seen = None if expected is None else control_text(expected)
        return self._swap(
            partial(edits.write_control, bandit=name, text=new, expected=seen),
            partial(edits.holds, bandit=name, text=new),
            timeout,
        )

    def read_digest(self, key: BanditKey, timeout: float | None = None) -> StoredDigest | None:
        """Return the summary of a version's log; see :meth:`BanditStorage.read_digest`.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: the database failed
        """
        return self._run(partial(edits.read_digest, key=clean_key(key)), timeout)

    def write_digest(
        self,
        key: BanditKey,
        state: Mapping[str, Any],
        revision: int,
        timeout: float | None = None,
    ) -> bool:
        """Replace a summary of the log, if it is the one that was read; see the base class.

        :raises StorageTimeoutError: the database did not answer in time
        :raises StorageError: a value cannot be stored, or the database failed
        """
        of, new = clean_key(key), digest_text(state)
        return self._swap(
            partial(edits.write_digest, key=of, text=new, revision=revision),
            partial(edits.holds_digest, key=of, text=new, revision=revision + 1),
            timeout,
        )

    def _swap(
        self,
        write: Callable[[Connection], bool],
        holds: Callable[[Connection], bool],
        timeout: float | None,
    ) -> bool:
        """Replace what is still as it was read, and tell whether it was.

        :param holds: tells whether what was to be written is there
        """
        lost = False

        def replace(connection: Connection) -> bool:
            nonlocal lost
            try:
                done = write(connection)
            except DBAPIError as error:
                lost = lost or is_disconnect(error)
                raise
            # It may have been stored just before the connection broke: then it is this one.
            return done or (lost and holds(connection))

        return self._run(replace, timeout)

    def upgrade(self) -> str:
        """Make or update the tables; see :meth:`BanditStorage.upgrade`.

        :raises StorageError: the database failed, or its tables were made by a later version
        """
        done = self._calls.run(lambda c: migrate.migrate(c, None), None)
        self._has_tables = True
        return done

    def check(self) -> list[str]:
        """Return what is wrong with the tables or the server's settings.

        Writes what a commit writes, and rolls it back.

        :raises StorageError: the database cannot be reached
        """
        found = []
        try:
            self._read(lambda c: None)
        except StorageError as error:
            if self._has_tables or "db upgrade" not in str(error):
                raise
            found.append(str(error))
        else:
            try:
                self._run(commits.rehearse, PROBE_SECONDS)
            except StorageError as error:
                found.append(f"Commits cannot be stored. {error}")
        return found + self._calls.run(lax_settings, None)

    def close(self) -> None:
        """Give back the connections; using the storage again opens new ones."""
        self._calls.close()

    def _read(self, work: Callable[[Connection], _T]) -> _T:
        return self._run(work, None)

    def _run(self, work: Callable[[Connection], _T], timeout: float | None) -> _T:
        """Do ``work`` on tables that are there; see :meth:`Calls.run`."""
        deadline = deadline_of(timeout)

        def complete(connection: Connection) -> _T:
            self._require_tables(connection, deadline)
            return work(connection)

        try:
            return self._calls.run(complete, deadline)
        except StorageError as error:
            if "bandit_" in str(error):
                # The tables may have been removed.
                self._has_tables = False
            raise

    def _require_tables(self, connection: Connection, deadline: float | None) -> None:
        """Look after the tables at first use."""
        if self._has_tables:
            return
        version = migrate.stored_version(connection)
        if version != migrate.VERSIONS[-1]:
            if not self.auto_migrate:
                raise StorageError(
                    f"The bandits' tables are {'of version ' + version if version else 'missing'}"
                    f" and shall be of version {migrate.VERSIONS[-1]}: run 'flask bandit db"
                    " upgrade', or set auto_migrate to True."
                )
            migrate.migrate(connection, deadline)
        self._has_tables = True


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else remaining(deadline)
