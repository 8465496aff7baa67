"""An app of a benchmark on gunicorn, one worker that keeps connections open, and its visitors."""

from __future__ import annotations

import gc
import multiprocessing
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

PATIENCE = 30.0
_fork = multiprocessing.get_context("fork")


class _Application(BaseApplication):  # type: ignore[misc]
    def __init__(self, make: Callable[[ExitStack], Flask], port: int) -> None:
        self._make = make
        self._port = port
        super().__init__()

    def load_config(self) -> None:
        settings = {"bind": f"127.0.0.1:{self._port}", "worker_class": "gthread", "threads": 1}
        for name, value in {**settings, "keepalive": 60, "loglevel": "error"}.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._make(ExitStack())


def _serve(make: Callable[[ExitStack], Flask], port: int) -> None:
    _Application(make, port).run()


def served(make: Callable[[ExitStack], Flask], stack: ExitStack) -> Callable[[int], float]:
    """Serve an app until the stack ends; return what times a batch of new visitors."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = _fork.Process(target=_serve, args=(make, port))
    process.start()
    stack.callback(process.join)
    stack.callback(process.terminate)
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    stack.callback(connection.close)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "gunicorn does not start"
            time.sleep(0.05)

    def batch(count: int) -> float:
        gc.collect()
        started = time.perf_counter()
        for _ in range(count):
            connection.request("GET", "/page")
            response = connection.getresponse()
            assert response.status == 200, response.status
            response.read()
        return (time.perf_counter() - started) / count

    return batch
