"""A TCP proxy that can hang, refuse, or lose an answer, to test what a storage makes of it."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


class FaultProxy:
    """Forwards connections from a port of 127.0.0.1 to a server, until it is told otherwise.

    :param server: where the server listens
    """

    def __init__(self, server: Address) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._answers_left: int | None = None
        self._hangs = False
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self.cuts = 0
        """How many answers were lost."""
        self._listener: socket.socket | None = None
        self.port = 0
        self.accept()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)
        self._thread.start()

    def accept(self) -> None:
        """Accept connections (again), on the same port."""
        with self._lock:
            if self._listener is None:
                listener = socket.socket()
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", self.port))
                listener.listen(64)
                self.port = listener.getsockname()[1]
                self._listener = listener
                self._selector.register(listener, selectors.EVENT_READ)
        self._wake.send(b"x")

    def refuse(self) -> None:
        """Close all connections and refuse new ones."""
        with self._lock:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            self._close_all()
        self._wake.send(b"x")

    def hang(self) -> None:
        """Go on accepting, and forward nothing in either direction."""
        with self._lock:
            self._hangs = True

    def resume(self) -> None:
        """Forward again; what came while it hung is closed, as after a restart."""
        with self._lock:
            self._hangs = False
            self._answers_left = None
            self._close_all()
        self._wake.send(b"x")

    def cut_answer(self, number: int = 1) -> None:
        """Forward requests, and lose the ``number``-th answer from now on with its connection."""
        with self._lock:
            self._answers_left = number

    def close(self) -> None:
        """End everything."""
        self.refuse()
        self._stopped = True
        self._wake.send(b"x")
        self._thread.join()
        for end in (self._wake, self._woken):
            end.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(timeout=0.05 if self._hangs else 1.0):
                with self._lock:
                    self._serve(key.fileobj)  # type: ignore[arg-type]

    def _serve(self, ready: socket.socket) -> None:
        if ready is self._woken:
            ready.recv(4096)
        elif ready is self._listener:
            self._connect(ready)
        elif ready in self._pairs and not self._hangs:
            self._forward(ready)

    def _connect(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        family = socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET
        server = socket.socket(family)
        try:
            server.connect(self._server)
        except OSError:
            client.close()
            server.close()
            return
        self._clients.add(client)
        for one, other in ((client, server), (server, client)):
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, ready: socket.socket) -> None:
        other = self._pairs[ready]
        try:
            data = ready.recv(65536)
        except OSError:
            data = b""
        if data and ready not in self._clients and self._answers_left is not None:
            self._answers_left -= 1
            if self._answers_left == 0:
                self._answers_left = None
                self.cuts += 1
                data = b""
        try:
            if data:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._close_pair(ready)

    def _close_pair(self, one: socket.socket) -> None:
        other = self._pairs.pop(one)
        self._pairs.pop(other, None)
        for end in (one, other):
            self._clients.discard(end)
            with suppress(KeyError, ValueError):
                self._selector.unregister(end)
            end.close()

    def _close_all(self) -> None:
        for one in list(self._pairs):
            if one in self._pairs:
                self._close_pair(one)
