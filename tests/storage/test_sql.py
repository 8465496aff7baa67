"""The SQL storage, on SQLite and on a PostgreSQL server."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from flask_bandit.storage.base import Commit, RewardWrite
from flask_bandit.storage.memory import MemoryBanditStorage
from flask_bandit.storage.sql import SQLBanditStorage
from flask_bandit.storage.transfer import audit
from flask_bandit.testing.storage_samples import (
    KEY,
    decision,
    decisions,
    earn,
    pull,
    reward,
    rewards,
)
from flask_bandit.testing.storages import StorageSuite
from tests.servers.postgres import PostgresServer

PATIENCE = 60.0


class MoreTests:
    """What both databases have to do beside the suite."""

    def test_an_export_has_what_waited_when_it_began(self, storage: SQLBanditStorage) -> None:
        late = [decision(f"late{n}") for n in range(1100)]
        storage.commit(decisions(decision("a"), decision("b")))
        storage.commit(rewards(*(reward(made) for made in late)))
        commits = storage.iter_commits()
        first = next(commits)
        storage.commit(decisions(*late))
        exported = [first, *commits]
        assert [len(commit.decisions) for commit in exported] == [1] * 2 + [0] * 1100
        other = MemoryBanditStorage()
        for commit in exported:
            other.commit(commit)
        other.commit(decisions(*late))
        assert other.read_counts() == storage.read_counts()

    def test_a_waiting_reward_is_sent_again_for_another_decision(
        self, storage: SQLBanditStorage
    ) -> None:
        """It stays with the first one, as in any storage."""
        first, second, third = decision("d1"), decision("d2", "red"), decision("d3")
        given = reward(first)
        parked = reward(third)
        again = Commit(rewards=(earn(replace(given, decision_id="d2")),))
        both = Commit(
            (pull(second),),
            (earn(replace(given, decision_id="d2")), earn(replace(parked, decision_id="d2"))),
        )
        results = []
        for one in (storage, MemoryBanditStorage()):
            one.commit(decisions(first))
            one.commit(Commit(rewards=(RewardWrite(given, None),)))
            one.commit(Commit(rewards=(RewardWrite(parked, None),)))
            results.append([one.commit(again), one.commit(both), one.read_counts()])
        assert results[0] == results[1]
        assert storage.read_counts()[KEY]["green"]["rewards"] == 1
        assert audit(storage) == []

    def test_check_leaves_nothing(self, storage: SQLBanditStorage) -> None:
        assert storage.check() == []
        assert storage.read_counts() == {}
        assert list(storage.iter_commits()) == []


class TestSQLite(MoreTests, StorageSuite):
    def make_storage(self, location: Path) -> SQLBanditStorage:
        return SQLBanditStorage(f"sqlite+pysqlite:///{location}/bandits.db")


class TestPostgreSQL(MoreTests, StorageSuite):
    networked = True
    address: tuple[str, int]
    locations: set[Path]

    @pytest.fixture(autouse=True)
    def server(self, postgres: PostgresServer, tmp_path: Path) -> None:
        # Plain values: other processes get a copy of this test.
        self.address = (postgres.host, postgres.port)
        postgres.ensure_database(database_of(tmp_path))
        self.locations = {tmp_path}

    def server_address(self) -> tuple[str, int]:
        return self.address

    def make_storage(self, location: Path) -> SQLBanditStorage:
        if location not in self.locations:
            self.locations.add(location)
            uri = "postgresql://postgres@{}:{}/postgres".format(*self.address)
            with (
                suppress(psycopg.errors.DuplicateDatabase),
                psycopg.connect(uri, autocommit=True) as admin,
            ):
                admin.execute(f"CREATE DATABASE {database_of(location)} STRATEGY wal_log".encode())
        return self.make_storage_at(location, *self.address)

    def make_storage_at(self, location: Path, host: str, port: int) -> SQLBanditStorage:
        name = database_of(location)
        return SQLBanditStorage(f"postgresql://postgres:secret@{host}:{port}/{name}")

    def test_the_first_decision_is_locked_too(
        self, storage: SQLBanditStorage, tmp_path: Path
    ) -> None:
        """A reward sent for another decision waits for who is counting it just now."""
        first, second = decision("d1"), decision("d2")
        given = reward(first)
        storage.commit(decisions(first, second))
        storage.commit(Commit(rewards=(RewardWrite(given, None),)))
        again = Commit(rewards=(earn(replace(given, decision_id="d2")),))
        host, port = self.address
        uri = f"postgresql://postgres@{host}:{port}/{database_of(tmp_path)}"
        with psycopg.connect(uri) as other, psycopg.connect(uri, autocommit=True) as third:
            other.execute("SELECT FROM bandit_decisions WHERE id = 'd1' FOR UPDATE")
            thread = threading.Thread(target=storage.commit, args=(again, PATIENCE))
            thread.start()
            deadline = time.monotonic() + PATIENCE
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while third.execute(waiting).fetchone() == (0,):
                assert time.monotonic() < deadline
                assert thread.is_alive(), "it did not wait"
            other.execute("UPDATE bandit_rewards SET counted = true, delta = '{}'")
            other.commit()
            thread.join(PATIENCE)
        assert "rewards" not in storage.read_counts()[KEY]["green"]


def database_of(location: Path) -> str:
    return f"test_{hashlib.sha256(str(location).encode()).hexdigest()[:32]}"
