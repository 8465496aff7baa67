"""Talks to Redis: connections per process, deadlines, resending, and errors that tell the fix.

The only module that imports redis-py, of which it uses single connections: its clients and pools
retry by themselves and know no deadline for a whole call.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, NamedTuple

import redis
from redis import connection as wire
from redis.backoff import NoBackoff
from redis.retry import Retry

from ...errors import ConfigurationError, StorageError, StorageTimeoutError
from .limits import Limited

MOST_ROUNDS = 8
"""How often a call is sent on to another node, or again with its script, before it gives up."""

Address = tuple[str, int] | None
"""A node of a cluster; ``None`` is where the URI points to."""

NO_RIGHT = (
    "the user may not run a command or use a key that is needed; give it the rights that the"
    " documentation lists"
)

FIXES = {
    "OOM": "its memory is full: raise maxmemory, or remove old details with 'flask bandit prune'",
    "MISCONF": "it cannot write to its disk: see its log, and free space there",
    "READONLY": "it is a read-only replica: connect to the primary, or wait for the failover",
    "MASTERDOWN": "it is a replica without its primary: connect to the primary",
    "NOREPLICAS": "it has fewer replicas than min-replicas-to-write asks for: start them",
    "LOADING": "it is loading its data after a start: it answers again when it is done",
    "BUSY": "it is busy with another script: look for who runs it, SCRIPT KILL ends it",
    "NOAUTH": "it wants a user or a password, and the URI has none or wrong ones: write"
    " redis://user:password@host, percent-encoded",
    "NOPERM": NO_RIGHT,
    # Of a command in a script, without a code: up to Redis 6, and later.
    "user executing the script can't": NO_RIGHT,
    "ACL failure in script": NO_RIGHT,
    "CLUSTERDOWN": "its cluster has lost a part of its slots: bring the missing nodes back",
    "TRYAGAIN": "its cluster is moving this slot: it works again when that is done",
    "ASK": "its cluster is moving this slot: it works again when that is done",
    "CROSSSLOT": "the keys lie on several nodes of its cluster: report this as a bug, please",
    "WRONGTYPE": "a key of this prefix is of another type: give each application its own prefix",
    "BANDIT": "what is stored does not fit: restore a backup, or use another prefix",
}
_CODES = re.compile(r"\b(" + "|".join(FIXES) + r")\b")

_ARGUMENTS = re.compile(r"(?<=with args beginning with:).*", re.DOTALL)

# Older redis-py leave the first word in the message, newer ones make a class of it.
_MOVED = re.compile(r"(?:MOVED )?\d+ (.*):(\d+)")


class Script:
    """A Lua script of the directory ``lua``."""

    def __init__(self, name: str) -> None:
        self.text = (files(__package__) / "lua" / f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


class Request(NamedTuple):
    """A command for Redis.

    :param slot: requests with equal ones lie on the same node of a cluster
    :param arguments: of the command, or what follows the script
    """

    slot: str
    arguments: Sequence[str | bytes | int]
    script: Script | None = None


class RedisClient:
    """Sends requests to one server, or to the nodes of a cluster as it is told by them.

    :param uri: as redis-py reads it, with ``redis+unix://`` for ``unix://``
    :raises ConfigurationError: the URI is none of these
    """

    def __init__(self, uri: str) -> None:
        kind, self._options = _parse(uri)
        self._pid = os.getpid()
        # Any: redis-py leaves the methods of its connections untyped.
        self._idle: dict[Address, list[Any]] = {}
        self._nodes: dict[str, Address] = {}
        try:
            self._class: Any = type(kind.__name__, (Limited, kind), {})
            self._new(None)
        except (AttributeError, TypeError, ValueError, redis.RedisError):
            raise ConfigurationError(
                "The URI of the Redis storage has a parameter that redis-py does not know or"
                " cannot use; see redis.connection.ConnectionPool.from_url for the known ones."
            ) from None

    def call(self, request: Request, deadline: float | None) -> Any:
        """Send one request and return its answer; see :meth:`call_all`."""
        return self.call_all((request,), deadline)[0]

    def call_all(self, requests: Sequence[Request], deadline: float | None) -> list[Any]:
        """Send requests, in one round trip to each node, and return the answers.

        Each request must be one that may be sent twice.

        :raises StorageTimeoutError: not all answers came in time
        :raises StorageError: one of them failed; others may have been done
        """
        if self._pid != os.getpid():
            # The connections are the parent's: let go of them without a word to the server.
            self._idle, self._pid = {}, os.getpid()
        answers: list[Any] = [None] * len(requests)
        packed = [_pack(request) for request in requests]
        todo = list(range(len(requests)))
        for _ in range(MOST_ROUNDS):
            todo = self._round(requests, packed, todo, answers, deadline)
            if not todo:
                return answers
        raise StorageError(
            f"{self._name(None)} sent a command on {MOST_ROUNDS} times; its cluster is being"
            " changed. Sending the commit again is safe."
        )

    def close(self) -> None:
        """Close the idle connections."""
        mine = self._pid == os.getpid()
        idle, self._idle = self._idle, {}
        for connections in idle.values() if mine else ():
            for connection in connections:
                connection.disconnect()

    def _round(
        self,
        requests: Sequence[Request],
        packed: list[bytes],
        todo: Iterable[int],
        answers: list[Any],
        deadline: float | None,
    ) -> list[int]:
        """Ask each node once; return the places of the requests that have to be sent again."""
        groups: dict[Address, list[int]] = {}
        for place in todo:
            groups.setdefault(self._nodes.get(requests[place].slot), []).append(place)
        again = []
        for address, places in groups.items():
            data = b"".join([packed[place] for place in places])
            replies = self._exchange(address, data, len(places), deadline)
            for place, reply in zip(places, replies, strict=True):
                if not isinstance(reply, redis.RedisError):
                    answers[place] = reply
                    continue
                packed[place] = self._resend(requests[place], packed[place], reply, address)
                again.append(place)
        return again

    def _resend(
        self, request: Request, packed: bytes, error: redis.RedisError, address: Address
    ) -> bytes:
        """Return what to send instead after an error that can be mended."""
        if isinstance(error, redis.exceptions.NoScriptError) and request.script:
            return _pack(request, whole=True)
        moved = _MOVED.fullmatch(str(error))
        if moved and type(error) is not redis.exceptions.AskError:
            # A node that does not know its own name leaves it out.
            host = moved[1] or self._options.get("host", "localhost")
            self._nodes[request.slot] = (host, int(moved[2]))
            return packed
        raise self._failure(error, address)

    def _exchange(
        self, address: Address, data: bytes, count: int, deadline: float | None
    ) -> list[Any]:
        """Send to one node and read its answers; errors of commands are among them."""
        used = self._idle.get(address)
        connection = None
        if used:
            # Another thread may have taken the last one.
            with suppress(IndexError):
                connection = used.pop()
        try:
            if connection is not None:
                try:
                    return self._talk(connection, address, data, count, deadline)
                except (redis.ConnectionError, OSError) as error:
                    if isinstance(error, (redis.TimeoutError, TimeoutError)):
                        raise
                    # It broke while it was idle, and so did the others most likely.
                    self._idle.pop(address, None)
            return self._talk(self._new(address), address, data, count, deadline)
        except (redis.RedisError, OSError) as error:
            if address is not None:
                # The node may be gone for good; the one in the URI knows where to ask.
                self._nodes = {s: node for s, node in self._nodes.items() if node != address}
            raise self._failure(error, address)  # noqa: B904

    def _talk(
        self,
        connection: Any,
        address: Address,
        data: bytes,
        count: int,
        deadline: float | None,
    ) -> list[Any]:
        complete = False
        try:
            if deadline is not None and deadline <= time.monotonic():
                raise redis.TimeoutError("no time was left")
            connection.limit.deadline = deadline
            if connection._sock is None:
                connection.connect()
            connection.send_packed_command([data], check_health=False)
            replies: list[Any] = []
            for _ in range(count):
                try:
                    replies.append(connection.read_response())
                except redis.ResponseError as error:
                    replies.append(error)
            complete = True
        finally:
            if complete:
                self._idle.setdefault(address, []).append(connection)
            else:
                connection.disconnect()
        return replies

    def _new(self, address: Address) -> Any:
        options = self._options
        if address is not None:
            options = {**options, "host": address[0], "port": address[1]}
        return self._class(**options)

    def _name(self, address: Address) -> str:
        """Return the server's name for a message, without user and password."""
        if address is None and "path" in self._options:
            return f"Redis at {self._options['path']}"
        host, port = address or (
            self._options.get("host", "localhost"),
            self._options.get("port", 6379),
        )
        return f"Redis at {host}:{port}"

    def _failure(self, error: Exception, address: Address) -> StorageError:
        """Return what an error of redis-py means, without the password.

        A server that does not know AUTH repeats what came with it in its answer.
        """
        said = _ARGUMENTS.sub("", str(error))
        password = self._options.get("password")
        if password:
            # Not within a word: a short one would be found in any sentence.
            said = re.sub(rf"(?<!\w){re.escape(password)}(?!\w)", "***", said)
        failure = self._meaning(error, said, self._name(address))
        # As `raise ... from` does; None keeps the original words out of a traceback.
        failure.__cause__ = error if said == str(error) else None
        failure.__suppress_context__ = True
        return failure

    def _meaning(self, error: Exception, said: str, name: str) -> StorageError:
        if isinstance(error, (redis.TimeoutError, TimeoutError)):
            return StorageTimeoutError(
                f"{name} did not answer before the deadline; sending it again is safe. ({said})"
            )
        for kind, code in _KINDS.items():
            if isinstance(error, kind):
                return StorageError(f"{name} refused: {FIXES[code]}. ({said})")
        if isinstance(error, (redis.ConnectionError, OSError)):
            return StorageError(f"{name} cannot be reached: start it, or correct the URI. ({said})")
        found = _CODES.search(str(error))
        fix = FIXES[found.group()] if found else "see what it says"
        return StorageError(f"{name} refused: {fix}. ({said})")


# redis-py takes the code off the messages of those errors that it knows.
_KINDS: dict[type[Exception], str] = {
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.TryAgainError: "TRYAGAIN",
    redis.exceptions.AskError: "TRYAGAIN",
    redis.exceptions.ClusterCrossSlotError: "CROSSSLOT",
    # Before the error that it is a kind of.
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.AuthenticationError: "NOAUTH",
}


def _pack(request: Request, whole: bool = False) -> bytes:
    """Write a request in Redis' protocol."""
    arguments = request.arguments
    script = request.script
    if script is not None:
        start = (b"EVAL", script.text) if whole else (b"EVALSHA", script.sha)
        arguments = (*start, *arguments)
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def _parse(uri: str) -> tuple[Any, dict[str, Any]]:
    if uri.startswith("redis+unix://"):
        uri = uri.removeprefix("redis+")
    try:
        options = dict(wire.parse_url(uri))  # type: ignore[no-untyped-call]
    except ValueError:
        # Without its words: they may repeat a part of the password.
        raise ConfigurationError(
            "The URI of the Redis storage cannot be read; write redis://user:password@host:6379/0,"
            " rediss:// for TLS or redis+unix:///path/of.sock?db=0, with ':', '/', '@' and '#'"
            " inside a password percent-encoded."
        ) from None
    kind = options.pop("connection_class", wire.Connection)
    if kind is wire.UnixDomainSocketConnection and not options.get("path"):
        raise ConfigurationError(
            "redis+unix:// needs the path of a socket, as in redis+unix:///run/redis/redis.sock"
        )
    for name in ("max_connections", "timeout", "retry_on_timeout", "retry_on_error"):
        options.pop(name, None)
    options.update(
        decode_responses=False,
        health_check_interval=0,
        # The third one asks for another greeting, and has nothing that is needed here.
        protocol=2,
        retry=Retry(NoBackoff(), 0),
    )
    return kind, options
