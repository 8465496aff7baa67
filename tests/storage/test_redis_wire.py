"""The Redis storage on slow connections, and on encrypted ones: a deadline is for a whole call."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flask_bandit.errors import StorageError, StorageTimeoutError
from flask_bandit.storage.redis import RedisBanditStorage
from flask_bandit.testing.storage_samples import KEY, decision, decisions
from tests.servers.redis import RedisServer

PASSWORD = "s3cret"
TIMEOUT = 0.6
TOO_LONG = 2 * TIMEOUT
"""Without one deadline for the whole call, each of these tests takes four times as long."""


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis(requirepass=PASSWORD)


class Forwarder:
    """Takes connections and sends on what they say, as slowly as it is told.

    :param listener: what it takes connections from
    :param wrap: what is done to each of them first
    :param target: the Unix socket, or the port, that it sends to
    """

    def __init__(
        self, listener: socket.socket, target: str | int, wrap: Callable[[Any], Any] = lambda s: s
    ) -> None:
        self.wait = 0.0
        self.size = 65536
        self.slow_up = False
        self._listener, self._target, self._wrap = listener, target, wrap
        self._ends: list[Any] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            try:
                outer = self._wrap(plain)
            except OSError:
                plain.close()
                continue
            inner = socket.socket(
                socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET
            )
            target = self._target
            inner.connect(target if isinstance(target, str) else ("127.0.0.1", target))
            self._ends += (outer, inner)
            for pair in ((outer, inner, True), (inner, outer, False)):
                self._threads.append(threading.Thread(target=self._forward, args=pair))
                self._threads[-1].start()

    def _forward(self, source: Any, target: Any, up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(4096 if up and self.slow_up else 65536):
                if up:
                    time.sleep(self.wait if self.slow_up else 0.0)
                    target.sendall(data)
                    continue
                for start in range(0, len(data), self.size):
                    time.sleep(0.0 if self.slow_up else self.wait)
                    target.sendall(data[start : start + self.size])
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it and all of its connections."""
        self.wait = 0.0
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()


@pytest.fixture
def forward() -> Iterator[Callable[..., Forwarder]]:
    """Start a forwarder, which ends with the test."""
    forwarders: list[Forwarder] = []

    def start(*args: Any) -> Forwarder:
        forwarders.append(Forwarder(*args))
        return forwarders[-1]

    yield start
    for forwarder in forwarders:
        forwarder.close()


@pytest.fixture
def tls_port(
    server: RedisServer, tmp_path: Path, forward: Callable[..., Forwarder]
) -> Callable[[], int]:
    """Open a port that speaks TLS for the server, with a certificate in ``cert.pem``."""

    def start() -> int:
        program = shutil.which("openssl")
        if program is None:
            pytest.skip("openssl makes the certificate")
        command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem"
        names = ["-addext", "subjectAltName=DNS:localhost", "-out", "cert.pem"]
        subprocess.run(
            [program, *command.split(), *names], cwd=tmp_path, check=True, capture_output=True
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        listener = socket.create_server(("127.0.0.1", 0))
        forward(listener, server.socket, lambda plain: context.wrap_socket(plain, server_side=True))
        return int(listener.getsockname()[1])

    return start


def test_tls(tls_port: Callable[[], int], tmp_path: Path) -> None:
    uri = f"rediss://:{PASSWORD}@localhost:{tls_port()}/0"
    storage = RedisBanditStorage(f"{uri}?ssl_ca_certs={tmp_path / 'cert.pem'}")
    storage.commit(decisions(decision("1")), 10.0)
    assert storage.read_counts(10.0)[KEY]["green"]["pulls"] == 1
    storage.close()
    stranger = RedisBanditStorage(uri)
    with pytest.raises(StorageError, match="cannot be reached.*certificate"):
        stranger.commit(decisions(decision("2")), 10.0)
    stranger.close()


Slow = tuple[RedisBanditStorage, Forwarder]


@pytest.fixture(params=["unix", "tcp", "tls"])
def slow(
    request: pytest.FixtureRequest,
    server: RedisServer,
    tmp_path: Path,
    forward: Callable[..., Forwarder],
    tls_port: Callable[[], int],
) -> Iterator[Slow]:
    """A storage and what stands between it and its server."""
    if request.param == "unix":
        path = str(server.directory / "slow.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        uri = f"redis+unix://:{PASSWORD}@{path}?db=1"
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        uri = f"redis://:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/1"
    target: str | int = server.socket
    if request.param == "tls":
        target = tls_port()
        uri = f"rediss{uri.removeprefix('redis').replace('127.0.0.1', 'localhost')}"
        uri += f"?ssl_ca_certs={tmp_path / 'cert.pem'}"
    forwarder = forward(listener, target)
    storage = RedisBanditStorage(uri)
    yield storage, forwarder
    storage.close()


def fails_in_time(call: Callable[[], object]) -> None:
    started = time.monotonic()
    with pytest.raises(StorageTimeoutError, match="sending it again is safe"):
        call()
    assert time.monotonic() - started < TOO_LONG


def test_a_server_that_takes_its_time_for_each_step_of_the_greeting(slow: Slow) -> None:
    """AUTH, two times SETINFO, SELECT, and the handshake of TLS before."""
    storage, forwarder = slow
    forwarder.wait = 0.8 * TIMEOUT
    fails_in_time(lambda: storage.commit(decisions(decision("1")), TIMEOUT))
    fails_in_time(lambda: storage.read_counts(TIMEOUT))
    forwarder.wait = 0.0
    storage.commit(decisions(decision("1")), 10.0)
    assert storage.read_counts(10.0)[KEY]["green"]["pulls"] == 1


def test_an_answer_that_comes_in_drops(slow: Slow) -> None:
    storage, forwarder = slow
    made = [decision(f"d{number}", arm=f"arm{number}") for number in range(200)]
    storage.commit(decisions(*made))
    whole = storage.read_counts(10.0)
    forwarder.wait, forwarder.size = TIMEOUT / 10, 100
    fails_in_time(lambda: storage.read_counts(TIMEOUT))
    fails_in_time(lambda: storage.get_decisions([made_.id for made_ in made], TIMEOUT))
    forwarder.wait, forwarder.size = 0.0, 65536
    assert storage.read_counts(10.0) == whole, "no later call gets the rest of an answer"


def test_a_server_that_reads_in_drops(slow: Slow) -> None:
    storage, forwarder = slow
    storage.read_counts()
    made = [decision(f"d{number}", context={"text": "x" * 200_000}) for number in range(60)]
    forwarder.slow_up, forwarder.wait = True, TIMEOUT / 10
    fails_in_time(lambda: storage.commit(decisions(*made), TIMEOUT))


def test_a_name_with_many_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is tried in what is left of the time."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    address = full.getsockname()
    waiting = []
    for _ in range(4):
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(address)
    info = (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [info] * 5)
    storage = RedisBanditStorage("redis://many.test")
    fails_in_time(lambda: storage.read_counts(TIMEOUT))
    storage.close()
    for one in (full, *waiting):
        one.close()
