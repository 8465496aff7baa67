"""The storages under measurement, on servers of their own, and the same places used by hand."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import BTrees.OOBTree
import psycopg
import sqlalchemy as sa
import transaction
import ZODB
import ZODB.FileStorage

from tests.servers.postgres import PostgresServer, started_postgres
from tests.servers.redis import RedisServer

Increment = Callable[[str], object]
"""Counts one visitor of an arm, as one would write it by hand."""

COUNTS = sa.Table(
    "counts_by_hand",
    sa.MetaData(),
    sa.Column("arm", sa.String, primary_key=True),
    sa.Column("n", sa.BigInteger, nullable=False),
)


@dataclass
class Place:
    """Where one storage keeps its data.

    :param by_hand: opens the place without Flask-Bandit
    """

    name: str
    uri: str
    by_hand: Callable[[ExitStack], Increment] | None


NAMES = ("memory", "json", "sqlite", "sqlalchemy-sqlite", "postgresql", "psycopg", "redis", "zodb")


@contextmanager
def open_places(folder: Path, names: tuple[str, ...]) -> Iterator[list[Place]]:
    """Start the servers that ``names`` need, and yield a fresh place for each name."""
    with ExitStack() as stack:
        postgres = redis = None
        if {"postgresql", "psycopg"} & set(names):
            postgres = stack.enter_context(started_postgres())
        if "redis" in names:
            redis = RedisServer()
            stack.callback(redis.remove)
            redis.start()
        yield [_place(name, folder, postgres, redis) for name in names]


def _place(
    name: str, folder: Path, postgres: PostgresServer | None, redis: RedisServer | None
) -> Place:
    if name == "memory":
        return Place(name, "memory://", in_memory)
    if name == "json":
        return Place(name, f"json:///{folder / 'bandits.json'}", None)
    if name == "sqlite":
        uri = f"sqlite:///{folder / 'bandits.db'}"
        return Place(name, uri, lambda stack: on_sqlite3(stack, folder / "by_hand.db"))
    if name == "sqlalchemy-sqlite":
        uri = f"sqlite+pysqlite:///{folder / 'core.db'}"
        by_hand = f"sqlite+pysqlite:///{folder / 'core_by_hand.db'}"
        return Place(name, uri, lambda stack: on_sqlalchemy(stack, by_hand))
    if name in ("postgresql", "psycopg"):
        assert postgres is not None
        uri, other = postgres.new_database(), postgres.new_database()
        if name == "postgresql":
            return Place(name, uri, lambda stack: on_sqlalchemy(stack, other))
        return Place(name, uri, lambda stack: on_psycopg(stack, other))
    if name == "redis":
        assert redis is not None
        return Place(name, redis.uri, lambda stack: on_redis(stack, redis))
    if name == "zodb":
        uri = f"zodb:///{folder / 'bandits.fs'}"
        return Place(name, uri, lambda stack: on_zodb(stack, folder / "by_hand.fs"))
    raise SystemExit(f"there is no storage {name!r}; known: {', '.join(NAMES)}")


def in_memory(stack: ExitStack) -> Increment:
    counts: Counter[str] = Counter()
    return lambda arm: counts.update((arm,))


def on_sqlite3(stack: ExitStack, path: Path) -> Increment:
    db = stack.enter_context(
        closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
    )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("CREATE TABLE counts (arm TEXT PRIMARY KEY, n INTEGER NOT NULL)")
    upsert = "INSERT INTO counts VALUES (?, 1) ON CONFLICT (arm) DO UPDATE SET n = n + 1"
    return lambda arm: db.execute(upsert, (arm,))


def on_sqlalchemy(stack: ExitStack, uri: str) -> Increment:
    engine = sa.create_engine(uri)
    stack.callback(engine.dispose)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _tune)
    COUNTS.create(engine)

    upsert = sa.text(
        "INSERT INTO counts_by_hand VALUES (:arm, 1)"
        " ON CONFLICT (arm) DO UPDATE SET n = counts_by_hand.n + 1"
    )

    def increment(arm: str) -> None:
        with engine.begin() as connection:
            connection.execute(upsert, {"arm": arm})

    return increment


def _tune(connection: sqlite3.Connection, record: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def on_psycopg(stack: ExitStack, uri: str) -> Increment:
    db = stack.enter_context(psycopg.connect(uri.replace("+psycopg", ""), autocommit=True))
    db.execute("CREATE TABLE counts (arm TEXT PRIMARY KEY, n BIGINT NOT NULL)")
    upsert = "INSERT INTO counts VALUES (%s, 1) ON CONFLICT (arm) DO UPDATE SET n = counts.n + 1"
    return lambda arm: db.execute(upsert, (arm,))


def on_redis(stack: ExitStack, server: RedisServer) -> Increment:
    client = stack.enter_context(server.client())
    return lambda arm: client.hincrby("counts_by_hand", arm, 1)


def on_zodb(stack: ExitStack, path: Path) -> Increment:
    db = ZODB.DB(ZODB.FileStorage.FileStorage(str(path)))
    stack.callback(db.close)
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    stack.callback(connection.close)
    counts = connection.root()["counts"] = BTrees.OOBTree.OOBTree()
    manager.commit()

    def increment(arm: str) -> None:
        with manager:
            counts[arm] = counts.get(arm, 0) + 1

    return increment
