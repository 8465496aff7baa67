"""Shops that really run: servers on free ports, in folders of their own, stopped at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from example.visitors import Counts, read_counts

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
VISITORS_SECONDS = 300

Serve = Callable[..., "Shop"]


@dataclass
class Shop:
    """A running shop."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def counts(self) -> Counts:
        return read_counts([("127.0.0.1", self.port)])

    def workers(self) -> list[int]:
        """Return the process ids of gunicorn's workers."""
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def visitors(self, number: int, *options: str) -> subprocess.Popen[str]:
        """Start to send visitors."""
        return python(
            "-m", "example.visitors", "--url", self.url, "--visitors", str(number), *options
        )


def python(*arguments: str) -> subprocess.Popen[str]:
    """Start a Python whose output is read as text."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def environment() -> dict[str, str]:
    """Return an environment in which the example is found and storage may be slow."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAB_", "FLASK_"))}
    path = os.pathsep.join(filter(None, [str(ROOT), inherited.get("PYTHONPATH")]))
    # Counts are what is tested: a busy machine must not make the storage seem to be down.
    return {**inherited, "PYTHONPATH": path, "MAB_STORAGE_TIMEOUT": "60"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/thanks")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def start(folder: Path, *command: str, **variables: str) -> Shop:
    """Start a server and wait until it answers.

    :param command: arguments for Python, in which PORT stands for the port
    :param variables: of its environment
    """
    port = free_port()
    arguments = [part.replace("PORT", str(port)) for part in command]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            # gunicorn leaves a file at home.
            env={**environment(), "HOME": str(folder), **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    shop = Shop(process, port, folder)
    deadline = time.monotonic() + START_SECONDS
    while not answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            stop(shop)
            pytest.fail(f"the shop did not start:\n{shop.log}")
        time.sleep(0.05)
    return shop


def stop(shop: Shop) -> None:
    """Stop a server with all its processes."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(shop.process.pid, how)
        except ProcessLookupError:
            break
        try:
            shop.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            continue


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start shops that are stopped when the module's tests are done."""
    shops: list[Shop] = []

    def serve(*command: str, **variables: str) -> Shop:
        shops.append(start(tmp_path_factory.mktemp("shop"), *command, **variables))
        return shops[-1]

    yield serve
    for shop in shops:
        stop(shop)
