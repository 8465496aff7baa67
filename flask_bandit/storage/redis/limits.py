"""One deadline for all that a connection of redis-py does: to connect, to greet, to send, to read.

Its own timeouts begin anew with each address, and with each piece that comes. Imports no redis-py.
"""

from __future__ import annotations

import time
from typing import Any

SHORTEST = 0.001
"""Seconds that are left when nothing is left: a socket takes 0 for "do not wait at all"."""


class Limit:
    """How long a connection may still take; ``deadline`` is that of the call that uses it."""

    deadline: float | None = None

    def left(self) -> float | None:
        """Return the seconds that are left, at least a few to let a socket time out by itself."""
        if self.deadline is None:
            return None
        return max(SHORTEST, self.deadline - time.monotonic())


class LimitedSocket:
    """A socket that asks before each step how long it may take.

    :param sock: of any kind, connected
    """

    def __init__(self, sock: Any, limit: Limit) -> None:
        self._sock = sock
        self._limit = limit

    def recv(self, *arguments: Any) -> bytes:
        """Read what is there, as a socket does."""
        self._prepare()
        data: bytes = self._sock.recv(*arguments)
        return data

    def recv_into(self, *arguments: Any) -> int:
        """Read what is there into a buffer, as a socket does."""
        self._prepare()
        size: int = self._sock.recv_into(*arguments)
        return size

    def sendall(self, data: bytes) -> None:
        """Send all, piece by piece, as that of TLS gives each piece the whole time."""
        rest = memoryview(data)
        while rest:
            self._prepare()
            rest = rest[self._sock.send(rest) :]

    def _prepare(self) -> None:
        left = self._limit.left()
        if left is not None and left <= SHORTEST:
            # Pieces that come faster than that would go on for ever.
            raise TimeoutError("the deadline has passed")
        self._sock.settimeout(left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Limited:
    """Goes before a class of redis-py's connections; its timeouts are what is left."""

    def __init__(self, **options: Any) -> None:
        self.limit = Limit()
        super().__init__(**options)

    @property
    def socket_timeout(self) -> float | None:
        """What a step may take that begins now."""
        return self.limit.left()

    @socket_timeout.setter
    def socket_timeout(self, value: float | None) -> None:
        """Ignore what redis-py or a URI sets."""

    socket_connect_timeout = socket_timeout

    def _connect(self) -> LimitedSocket:
        # redis-py gives each address socket_connect_timeout, and TLS then socket_timeout.
        return LimitedSocket(super()._connect(), self.limit)  # type: ignore[misc]
