"""The tables of the SQLite storage, and the steps that make them and bring them up to date.

Imports only the errors and the standard library.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from ...errors import StorageError

APPLICATION_ID = 0x42414E44
"""Tells `file` and other tools whose database it is: "BAND"."""

# Decisions and rewards are rowid tables: a new row goes to the end, and only the index of the ids,
# which are random, is written in a random place. A table clustered by id would rewrite a random
# page full of long rows for each of them. Rows are never deleted, so that the rowids are dense.
STEPS: tuple[tuple[str, ...], ...] = (
    (
        # Without types: an int stays an int, and a float keeps all of its bits.
        """CREATE TABLE bandit_counts (
            bandit TEXT NOT NULL,
            version INTEGER NOT NULL,
            arm TEXT NOT NULL,
            name TEXT NOT NULL,
            value NOT NULL,
            PRIMARY KEY (bandit, version, arm, name)
        ) WITHOUT ROWID""",
        """CREATE TABLE bandit_decisions (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            bandit TEXT NOT NULL,
            version INTEGER NOT NULL,
            arm TEXT NOT NULL,
            propensity REAL,
            propensities TEXT,
            policy_version TEXT NOT NULL,
            at REAL NOT NULL,
            context TEXT,
            subject TEXT,
            delta TEXT NOT NULL
        )""",
        """CREATE TABLE bandit_rewards (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            decision_id TEXT NOT NULL,
            bandit TEXT NOT NULL,
            version INTEGER NOT NULL,
            arm TEXT NOT NULL,
            value NOT NULL,
            goal TEXT NOT NULL,
            at REAL NOT NULL,
            counted INTEGER NOT NULL,
            delta TEXT,
            delta_arm TEXT NOT NULL
        )""",
        "CREATE INDEX bandit_rewards_decision ON bandit_rewards (decision_id)",
        # Small, so that a new decision learns at once that nothing waits for it.
        """CREATE INDEX bandit_rewards_waiting ON bandit_rewards (decision_id)
            WHERE counted = 0""",
        """CREATE TABLE bandit_adjustments (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            bandit TEXT NOT NULL,
            version INTEGER NOT NULL,
            delta TEXT NOT NULL
        )""",
        """CREATE TABLE bandit_control (
            bandit TEXT PRIMARY KEY,
            state TEXT NOT NULL
        ) WITHOUT ROWID""",
    ),
    # For the log of some days. SQLite adds the row's number, so it alone says which rows those are.
    ("CREATE INDEX bandit_decisions_time ON bandit_decisions (bandit, at)",),
    (
        # Not clustered by its key: SQLite keeps such rows short, and these are long.
        """CREATE TABLE bandit_digest (
            bandit TEXT NOT NULL,
            version INTEGER NOT NULL,
            revision INTEGER NOT NULL,
            state TEXT NOT NULL,
            PRIMARY KEY (bandit, version)
        )""",
    ),
    (
        # Not clustered either. The numbers are floats of eight bytes, the least significant first.
        """CREATE TABLE bandit_arrays (
            bandit TEXT NOT NULL,
            version INTEGER NOT NULL,
            arm TEXT NOT NULL,
            name TEXT NOT NULL,
            value BLOB NOT NULL,
            PRIMARY KEY (bandit, version, arm, name)
        )""",
    ),
)


class Schema(NamedTuple):
    """What a file says of itself."""

    version: int
    application_id: int
    has_tables: bool


def read_schema(connection: sqlite3.Connection) -> Schema:
    """Return which schema a file has, all of it as of one moment."""
    row = connection.execute(
        "SELECT (SELECT user_version FROM pragma_user_version),"
        " (SELECT application_id FROM pragma_application_id),"
        " EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'bandit_counts')"
    ).fetchone()
    return Schema(row[0], row[1], bool(row[2]))


def require_usable(schema: Schema, path: str) -> None:
    """Refuse a file that is not ours to change.

    :raises StorageError: its schema is another program's, or of a later Flask-Bandit
    """
    if not schema.has_tables and schema.version:
        raise StorageError(
            f"{path} belongs to another program that numbers its schema (user_version"
            f" {schema.version}) in the place where this storage keeps its own number: give the"
            " bandits a file of their own."
        )
    if schema.has_tables and not schema.version:
        raise StorageError(
            f"{path} has a table bandit_counts that is not this storage's, or its user_version was"
            " set to 0: give the bandits a file of their own, or restore the number with"
            f" 'PRAGMA user_version = {len(STEPS)}'."
        )
    if schema.version > len(STEPS):
        raise StorageError(
            f"{path} has schema {schema.version}, made by a later Flask-Bandit; this one knows"
            f" {len(STEPS)}: upgrade Flask-Bandit."
        )


def require_current(schema: Schema, path: str) -> None:
    """Refuse a file without up-to-date tables, where they are not made at first use.

    :raises StorageError: they are missing or old
    """
    if schema.version != len(STEPS):
        found = f"has schema {schema.version}" if schema.has_tables else "has no tables"
        raise StorageError(
            f"{path} {found}, schema {len(STEPS)} is needed, and auto_migrate is off: run"
            " 'flask bandit db upgrade'."
        )


def migrate(connection: sqlite3.Connection, path: str) -> int:
    """Make the tables or bring them up to date, however many processes do so at once.

    :return: the schema that was there, 0 for none
    :raises StorageError: the file is not ours to change
    """
    found = schema = read_schema(connection)
    while schema.version != len(STEPS):
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have been first.
        schema = read_schema(connection)
        require_usable(schema, path)
        if schema.version < len(STEPS):
            for statement in STEPS[schema.version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {schema.version + 1}")
            if not schema.application_id:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
        schema = read_schema(connection)
    return found.version


def missing_parts(connection: sqlite3.Connection) -> list[str]:
    """Return the names of tables and indexes that the steps made and somebody removed."""
    wanted = {part.split()[2] for step in STEPS for part in step if part.startswith("CREATE")}
    rows = connection.execute("SELECT name FROM sqlite_master")
    return sorted(wanted - {name for (name,) in rows.fetchall()})
