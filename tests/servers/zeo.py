"""A real ZEO server for the tests, on a free port of 127.0.0.1, with a directory of its own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PATIENCE = 60.0


class ZEOServer:
    """A server that keeps its data, and its port, between :meth:`kill` and :meth:`start`."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="zeo-"))
        self.file = self.directory / "server.fs"
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self.port: int = probe.getsockname()[1]
        self.uri = f"zeo://{self.host}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        address = f"{self.host}:{self.port}"
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ZEO.runzeo", "-a", address, "-f", str(self.file)],
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self._process.poll() is None, (self.directory / "server.log").read_text()
            try:
                socket.create_connection((self.host, self.port), 1.0).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "the ZEO server does not listen"
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power failure would, without a chance to write anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it in good order and remove its data."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self.directory)

    def pause(self) -> None:
        """Let it hang, with its port open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is not running"
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None


@pytest.fixture
def start_zeo() -> Iterator[Callable[[], ZEOServer]]:
    """Start a server of one's own; it ends with the test."""
    servers: list[ZEOServer] = []

    def start() -> ZEOServer:
        servers.append(ZEOServer())
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def zeo_server() -> Iterator[ZEOServer]:
    """A server for all tests; each keeps to a root key of its own."""
    server = ZEOServer()
    server.start()
    yield server
    server.stop()
