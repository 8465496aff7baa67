"""``RedisBanditStorage``: each commit is one call of a Lua script, for any number of bandits.

Knows which keys there are and what is asked for; ``client.py`` talks and ``records.py`` spells.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any
from urllib.parse import quote

from ...errors import ConfigurationError, StorageError
from ...model import ArmArrays, Arrays, BanditKey, Counts, Decision, LogEntry
from ..base import (
    ARRAYS,
    BanditStorage,
    Commit,
    CommitResult,
    ControlState,
    DecisionWrite,
    StoredDigest,
    arrays_adjustment,
)
from ..codec import clean_commit, clean_contexts, clean_key
from ..ledger import erased, is_erasable, is_logged, is_prunable, is_redactable
from ..locks import deadline_of
from ..settle import StoredReward
from .arrays import read_arrays, term_arguments
from .client import RedisClient, Request, Script
from .edits import Edits, changes
from .health import problems
from .log import ALWAYS, Keys, Log, Span, orphans, rewards_of
from .records import (
    by_bandit,
    commit_arguments,
    pairs,
    read_adjustment,
    read_decision,
    read_result,
    read_sums,
)


class RedisBanditStorage(BanditStorage):
    """Keeps counts and the log on a Redis server, for many machines; needs Redis 5 or newer.

    What it acknowledged is as safe as Redis is told to keep it: ``appendonly yes`` and
    ``maxmemory-policy noeviction``, and ``appendfsync always`` if a power failure may take nothing.

    :param uri: ``redis://``, ``rediss://`` (TLS) or ``redis+unix:///path/of.sock?db=0``, with
        user and password if the server asks for them; the password appears in no message
    :param prefix: what the keys begin with; every application has its own
    :param shard_by: ``"bandit"`` gives each bandit keys on a node of its own in a cluster. A
        commit is then atomic for each bandit, not for all together.
    :raises ConfigurationError: the URI or an option cannot work
    """

    default_stats_ttl = 1.0

    def __init__(self, uri: str, prefix: str = "bandit", shard_by: str | None = None) -> None:
        if not isinstance(prefix, str) or not prefix or set(prefix) & set("{}"):
            raise ConfigurationError(
                f"The prefix {prefix!r} cannot work: it is a name without braces, as 'bandit',"
                " which gives keys as '{bandit}:counts'."
            )
        if shard_by not in (None, "bandit"):
            raise ConfigurationError(f"shard_by is {shard_by!r}; it can be 'bandit' or None.")
        self.prefix = prefix
        self.shard_by = shard_by
        self._client = RedisClient(uri)
        self._whole = Keys.of(prefix)
        self._index = self._whole.beside("bandits")
        self._edits = Edits(self._client, self._whole)
        self._commit_script = Script("commit")
        self._known: dict[str, Keys] = {}
        """Keys by bandit, for those that are in the index."""

    @classmethod
    def from_uri(cls, uri: str, **options: Any) -> RedisBanditStorage:
        """Make a storage from ``redis://host:6379/0``, or another of the constructor's URIs.

        :param options: ``prefix`` and ``shard_by``, as of the constructor
        :raises ConfigurationError: the URI is of another form, or an option is unknown
        """
        unknown = sorted(set(options) - {"prefix", "shard_by"})
        if unknown:
            raise ConfigurationError(
                f"A Redis storage has no option {', '.join(unknown)}; it knows 'prefix' and"
                " 'shard_by'."
            )
        return cls(uri, **options)

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        """Apply a commit atomically and idempotently; see :meth:`BanditStorage.commit`.

        :raises StorageTimeoutError: Redis did not answer in time
        :raises StorageError: a value cannot be stored, or Redis refused
        """
        deadline = deadline_of(timeout)
        clean = clean_commit(commit)
        if not clean:
            return CommitResult()
        if self.shard_by is None:
            request = self._commit_request(self._whole, clean)
            return read_result([(clean, self._client.call(request, deadline))])
        parts = by_bandit(clean)
        self._register([name for name in parts if name not in self._known], deadline)
        replies = self._client.call_all(
            [self._commit_request(self._known[name], part) for name, part in parts.items()],
            deadline,
        )
        # A bandit without any data may be one that Redis has forgotten, and the index with it.
        empty = [name for name, reply in zip(parts, replies, strict=True) if reply[:1] == [b"E"]]
        self._register(empty, deadline)
        return read_result(list(zip(parts.values(), replies, strict=True)))

    def _commit_request(self, keys: Keys, commit: Commit) -> Request:
        arguments = (len(keys), *keys, *commit_arguments(commit), *term_arguments(commit))
        return Request(keys.counts, arguments, self._commit_script)

    def _register(self, names: Sequence[str], deadline: float | None) -> None:
        """Put bandits into the index before their first commit, so that readers find them."""
        if names:
            self._client.call(Request(self._index, ("SADD", self._index, *names)), deadline)
            for name in names:
                self._known[name] = self._keys_of(name)

    def _keys_of(self, bandit: str) -> Keys:
        return Keys.of(f"{self.prefix}:{quote(bandit, safe='')}")

    def _shards(self, deadline: float | None, bandit: str | None = None) -> list[Keys]:
        """Return all sets of keys, or only the one that holds a bandit."""
        if self.shard_by is None:
            return [self._whole]
        if bandit is not None:
            return [self._keys_of(bandit)]
        names = self._client.call(Request(self._index, ("SMEMBERS", self._index)), deadline)
        self._known.update((name, self._keys_of(name)) for name in map(bytes.decode, names))
        return [self._known[name] for name in sorted(map(bytes.decode, names))]

    def read_counts(self, timeout: float | None = None) -> Counts:
        """Return the sums of all bandits and versions; see :meth:`BanditStorage.read_counts`.

        :raises StorageTimeoutError: Redis did not answer in time
        :raises StorageCorruptError: what is stored is not of this library
        :raises StorageError: Redis refused
        """
        counts: dict[BanditKey, dict[str, dict[str, float]]] = {}
        for flat in self._ask_all(("HGETALL",), (), "counts", deadline_of(timeout)):
            counts.update(read_sums(flat))
        return counts

    def read_arrays(self, timeout: float | None = None) -> Arrays:
        """Return the sums of all terms; see :meth:`BanditStorage.read_arrays`.

        :raises StorageTimeoutError: Redis did not answer in time
        :raises StorageCorruptError: what is stored is not of this library
        :raises StorageError: Redis refused
        """
        arrays: dict[BanditKey, ArmArrays] = {}
        for flat in self._ask_all(("HGETALL",), (), "arrays", deadline_of(timeout)):
            arrays.update(read_arrays(flat))
        return arrays

    def get_decisions(
        self, ids: Iterable[str], timeout: float | None = None
    ) -> Mapping[str, Decision]:
        """Return the stored decisions among ``ids``; see :meth:`BanditStorage.get_decisions`.

        :raises StorageTimeoutError: Redis did not answer in time
        :raises StorageCorruptError: what is stored is not of this library
        :raises StorageError: Redis refused
        """
        wanted = list(ids)
        if not wanted:
            return {}
        found: dict[str, Decision] = {}
        for texts in self._ask_all(("HMGET",), wanted, "decisions", deadline_of(timeout)):
            for id_, text in zip(wanted, texts, strict=True):
                if text is not None:
                    found[id_] = read_decision(id_, text).decision
        return found

    def _ask_all(
        self, command: Sequence[str], arguments: Sequence[str], key: str, deadline: float | None
    ) -> list[Any]:
        """Ask all shards the same, in one round trip to each node once the bandits are known."""
        requests = [
            Request(keys.counts, (*command, getattr(keys, key), *arguments))
            for keys in self._shards(deadline)
        ]
        return self._client.call_all(requests, deadline)

    def iter_log(
        self,
        bandit: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[LogEntry]:
        """Yield the log as it was at the call; see :meth:`BanditStorage.iter_log`.

        Of a stretch of time, only those parts of the log are read that may hold decisions of it.
        With ``shard_by="bandit"`` the order of decisions of two bandits in one millisecond is
        that of their names.

        :raises StorageCorruptError: what is stored is not of this library
        :raises StorageError: Redis refused
        """
        for write, rows in self._stored(bandit, Span(since, until)):
            if is_logged(write.decision, bandit, since, until):
                yield LogEntry(write.decision, tuple(row.reward for row in rows))

    def iter_commits(self) -> Iterator[Commit]:
        """Yield what was stored at the call; see :meth:`BanditStorage.iter_commits`.

        The ids of rewards that wait for their decision are kept in memory meanwhile.

        :raises StorageCorruptError: what is stored is not of this library
        :raises StorageError: Redis refused
        """
        # Before the log: one whose decision comes meanwhile would be in neither.
        waiting = [(keys, orphans(self._client, keys)) for keys in self._shards(None)]
        for write, rows in self._stored(None):
            yield Commit((write,), tuple(sent for row in rows for sent in row.writes()))
        for keys, ids in waiting:
            for row in rewards_of(self._client, keys, ids):
                yield Commit(rewards=row.writes())
        for keys, _ in waiting:
            flat = self._ask(keys, "HGETALL", keys.adjustments)
            items = [read_adjustment(id_.decode(), text) for id_, text in pairs(flat)]
            for _, item in sorted(items, key=itemgetter(0)):
                if not item.id.startswith(ARRAYS):
                    yield Commit(adjustments=(item,))
        for key, arms in self.read_arrays().items():
            yield Commit(adjustments=(arrays_adjustment(key, arms),))

    def prune(self, before: float) -> int:
        """Remove the details of old decisions; see :meth:`BanditStorage.prune`.

        Reads the whole log, some hundred decisions at a time; each such step is atomic.

        :raises StorageCorruptError: what is stored is not of this library
        :raises StorageError: Redis refused; what was pruned so far is
        """
        count = 0
        for keys in self._shards(None):
            for page in Log(self._client, keys).pages():
                ids = [id_ for _, id_ in page]
                texts = self._ask(keys, "HMGET", keys.decisions, *ids)
                old = changes(ids, texts, lambda made: is_prunable(made, before), Decision.pruned)
                count += self._edits.replace([(keys, old)], None)
        return count

    def erase(self, ids: Iterable[str], timeout: float | None = None) -> int:
        """Remove subjects and contexts; see :meth:`BanditStorage.erase`.

        What Redis wrote to its disk before keeps them until the file is written anew, as by
        ``BGREWRITEAOF``.

        :raises StorageTimeoutError: Redis did not answer in time; some may have been erased
        :raises StorageCorruptError: what is stored is not of this library
        :raises StorageError: Redis refused; what was erased so far is
        """
        return self._change(ids, is_erasable, erased, deadline_of(timeout))

    def redact(
        self, contexts: Mapping[str, Mapping[str, Any] | None], timeout: float | None = None
    ) -> int:
        """Replace the contexts of decisions; see :meth:`BanditStorage.redact`.

        What Redis wrote to its disk before stays as with :meth:`erase`.

        :raises StorageTimeoutError: Redis did not answer in time; some may have been replaced
        :raises StorageCorruptError: what is stored is not of this library
        :raises StorageError: a value cannot be stored, or Redis refused
        """
        clean = clean_contexts(contexts)

        def redacted(decision: Decision) -> Decision:
            return replace(decision, context=clean[decision.id])

        return self._change(clean, is_redactable, redacted, deadline_of(timeout))

    def _change(
        self,
        ids: Iterable[str],
        concerns: Callable[[Decision], bool],
        change: Callable[[Decision], Decision],
        deadline: float | None,
    ) -> int:
        wanted = list(dict.fromkeys(ids))
        shards = self._shards(deadline) if wanted else []
        return self._edits.change(shards, wanted, concerns, change, deadline)

    def read_control(self, timeout: float | None = None) -> Mapping[str, ControlState]:
        """Return what operators decided; see :meth:`BanditStorage.read_control`.

        :raises StorageTimeoutError: Redis did not answer in time
        :raises StorageCorruptError: what is stored is not of this library
        :raises StorageError: Redis refused
        """
        return self._edits.read_control(deadline_of(timeout))

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

        :raises StorageTimeoutError: Redis did not answer in time; it may have been stored
        :raises StorageError: a value cannot be stored, or Redis refused
        """
        return self._edits.write_control(bandit, state, expected, deadline_of(timeout))

    def read_digest(self, key: BanditKey, timeout: float | None = None) -> StoredDigest | None:
        """Return the summary of a version's log; see :meth:`BanditStorage.read_digest`.

        :raises StorageTimeoutError: Redis did not answer in time
        :raises StorageError: Redis refused
        """
        return self._edits.read_digest(self._keys_for(key), key, deadline_of(timeout))

    def write_digest(
        self,
        key: BanditKey,
        state: Mapping[str, Any],
        revision: int,
        timeout: float | None = None,
    ) -> bool:
        """Replace a summary of the log, if it is the one that was read; see the base class.

        :raises StorageTimeoutError: Redis did not answer in time; it may have been stored
        :raises StorageError: a value cannot be stored, or Redis refused
        """
        keys = self._keys_for(key)
        return self._edits.write_digest(keys, key, state, revision, deadline_of(timeout))

    def _keys_for(self, key: BanditKey) -> Keys:
        return self._shards(None, clean_key(key).bandit)[0]

    def check(self) -> list[str]:
        """Return which settings of Redis endanger what is stored, each with the fix.

        Writes, too: without a trace, to a key of its own.
        """
        found = problems(self._client)
        try:
            self._client.call_all(self._probes(), None)
        except StorageError as error:
            found.append(f"No commit can be written: {error}")
        other = self._index if self.shard_by is None else self._whole.counts
        if self._client.call(Request(other, ("EXISTS", other)), None):
            found.append(
                f"Redis holds {other}, which was written with another shard_by: set it as it was,"
                " or move everything to a new prefix with 'flask bandit export' and 'import'."
            )
        return found

    def _probes(self) -> list[Request]:
        """Return what asks each shard whether a commit may write there."""
        # The first bandit may be still to come.
        shards = self._shards(None) or [self._keys_of("")]
        places: dict[str, tuple[str, ...]] = {keys.counts: () for keys in shards}
        if self.shard_by is not None:
            places[self._index] = ("SADD",)
        script = Script("probe")
        return [
            Request(slot, (1, f"{slot.rpartition(':')[0]}:probe", *commands), script)
            for slot, commands in places.items()
        ]

    def close(self) -> None:
        """Close the connections; using the storage again opens them again."""
        self._client.close()

    def _ask(self, keys: Keys, *arguments: str | int) -> Any:
        return self._client.call(Request(keys.counts, arguments), None)

    def _stored(
        self, bandit: str | None, span: Span = ALWAYS
    ) -> Iterator[tuple[DecisionWrite, list[StoredReward]]]:
        """Yield what is stored now, by the time at which it was."""
        logs = [Log(self._client, keys) for keys in self._shards(None, bandit)]
        parts = [log.entries(bandit, span) for log in logs]
        for _, write, rows in heapq.merge(*parts, key=itemgetter(0)):
            yield write, rows
