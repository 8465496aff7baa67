"""The SQL storage, on SQLite and on a PostgreSQL server."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flask_bandit.storage.sql import SQLBanditStorage
from flask_bandit.testing.storages import StorageSuite
from tests.servers.postgres import PostgresServer


class TestSQLite(StorageSuite):
    def make_storage(self, location: Path) -> SQLBanditStorage:
        return SQLBanditStorage(f"sqlite+pysqlite:///{location}/bandits.db")


class TestPostgreSQL(StorageSuite):
    networked = True
    address: tuple[str, int]

    @pytest.fixture(autouse=True)
    def server(self, postgres: PostgresServer, tmp_path: Path) -> None:
        # Plain values: other processes get a copy of this test.
        self.address = (postgres.host, postgres.port)
        postgres.ensure_database(database_of(tmp_path))

    def server_address(self) -> tuple[str, int]:
        return self.address

    def make_storage(self, location: Path) -> SQLBanditStorage:
        return self.make_storage_at(location, *self.address)

    def make_storage_at(self, location: Path, host: str, port: int) -> SQLBanditStorage:
        name = database_of(location)
        return SQLBanditStorage(f"postgresql://postgres:secret@{host}:{port}/{name}")


def database_of(location: Path) -> str:
    return f"test_{hashlib.sha256(str(location).encode()).hexdigest()[:32]}"
