"""Ends what waits for a server beyond its deadline, by shutting the socket down from outside.

A server process that is stopped answers no timeout of its own, and the driver waits for it. One
thread watches all calls of a process. Knows sockets and no SQL.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...errors import StorageError

logger = logging.getLogger(__name__)


def start_thread(target: Callable[..., object], *args: object) -> None:
    """Start a thread that nobody waits for.

    :raises StorageError: the system has none to give
    """
    try:
        threading.Thread(target=target, args=args, name="bandit storage", daemon=True).start()
    except RuntimeError as error:
        raise StorageError(
            f"This process cannot start another thread ({error}); raise the limit of threads or"
            " processes (ulimit -u, the container's pids limit), or run fewer of them."
        ) from error


class Wire:
    """A second handle on a connection's socket, which stays valid whatever the driver does.

    :param driver_connection: of psycopg, psycopg2, or another that has ``fileno()``
    """

    def __init__(self, driver_connection: Any) -> None:
        self.expired = False
        self._socket = socket.socket(fileno=os.dup(driver_connection.fileno()))
        self._driver_connection = driver_connection

    def cut(self) -> None:
        """End the connection while another thread waits on it."""
        self.expired = True
        request = self._cancel_request()
        self.shut()
        if request is not None and not _cancelling.locked():
            start_thread(_cancel, request)

    def shut(self) -> None:
        """End the connection; nothing that is sent to it afterwards waits."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the second handle back."""
        self._socket.close()

    def _cancel_request(self) -> Any:
        """Return what asks the server to end the statement too, by a connection of its own.

        Without it, a statement that waits for a lock stays in the server until it has got it.
        ``None`` where the driver cannot, or could only while it stops all threads.
        """
        try:
            return self._driver_connection.pgconn.cancel_conn()
        except Exception:
            return None


# A server that hangs keeps who cancels waiting as well: one is enough.
_cancelling = threading.Lock()

CANCEL_SECONDS = 5.0


def _cancel(request: Any) -> None:
    if not _cancelling.acquire(blocking=False):
        return
    try:
        deadline = time.monotonic() + CANCEL_SECONDS
        request.start()
        waits_for = {1: selectors.EVENT_READ, 2: selectors.EVENT_WRITE}
        while (event := waits_for.get(request.poll())) and time.monotonic() < deadline:
            with selectors.DefaultSelector() as selector:
                selector.register(request.socket, event)
                selector.select(deadline - time.monotonic())
        request.finish()
    except Exception:
        # The connection is cut in any case.
        logger.debug("Could not cancel a statement.", exc_info=True)
    finally:
        _cancelling.release()


class Watchdog:
    """Cuts the wires whose deadline has passed; its thread starts with the first one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadlines: dict[Wire, float] = {}
        self._wakes_at = math.inf
        self._started = False

    def watch(self, wire: Wire, deadline: float) -> None:
        """Cut ``wire`` at the deadline, unless it is let go before."""
        with self._changed:
            if not self._started:
                start_thread(self._run)
                self._started = True
            self._deadlines[wire] = deadline
            if deadline < self._wakes_at:
                self._changed.notify()

    def let_go(self, wire: Wire) -> None:
        """Stop watching; ``wire.expired`` does not change any more."""
        with self._changed:
            self._deadlines.pop(wire, None)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for wire in [w for w, deadline in self._deadlines.items() if deadline <= now]:
                    del self._deadlines[wire]
                    try:
                        wire.cut()
                    except Exception:
                        # All the others still rely on this thread.
                        logger.exception("Could not end a call completely at its deadline.")
                self._wakes_at = min(self._deadlines.values(), default=math.inf)
                left = self._wakes_at - time.monotonic()
                self._changed.wait(None if left == math.inf else max(0.0, left))


watchdog = Watchdog()


def reset_after_fork() -> None:
    """Start anew in a child: threads do not survive a fork, and locks may be held by them."""
    global _cancelling, watchdog
    _cancelling = threading.Lock()
    watchdog = Watchdog()


os.register_at_fork(after_in_child=reset_after_fork)
