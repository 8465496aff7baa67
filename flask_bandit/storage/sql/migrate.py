"""The schema's version: what is there, and the steps to what this code needs.

Alembic is imported when there are steps to take, and not in processes that only use the tables.
"""

from __future__ import annotations

import io
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, select

from ...errors import ConfigurationError, StorageError, StorageTimeoutError
from ..locks import remaining
from .tables import VERSION_TABLE, alembic_version, decisions

VERSIONS = ("0001", "0002", "0003", "0004")
"""All versions that this code knows, the present one last."""

LOCK_KEY = 0x62616E646974
"""Of PostgreSQL's advisory lock, under which one process at a time looks and migrates."""

# Alembic's context is global to a process.
_alembic_lock = threading.Lock()


def stored_version(connection: Connection) -> str | None:
    """Return the version of the tables; ``None`` if there are none.

    :raises StorageError: they were made by a later version of this package
    """
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.execute(select(alembic_version.c.version_num)).scalar()
    if version is not None and version not in VERSIONS:
        raise StorageError(
            f"The bandits' tables have the version {version}, which this Flask-Bandit does not"
            f" know (it knows {', '.join(VERSIONS)}); upgrade Flask-Bandit."
        )
    return version


def migrate(connection: Connection, deadline: float | None) -> str:
    """Make or update the tables, alone among all processes, in one transaction.

    The caller rolls back if it fails.

    :param connection: in autocommit mode, outside of a transaction
    :return: what was done, for a person
    :raises StorageTimeoutError: other threads of this process were at it all the time
    """
    if not _alembic_lock.acquire(timeout=remaining(deadline)):
        raise StorageTimeoutError("Another thread was migrating the tables until the deadline.")
    try:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("BEGIN ISOLATION LEVEL READ COMMITTED")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        before = stored_version(connection)
        done = _step(connection, before)
        connection.exec_driver_sql("COMMIT")
        return done
    finally:
        _alembic_lock.release()


def _step(connection: Connection, before: str | None) -> str:
    if before == VERSIONS[-1]:
        return f"The tables are up to date (version {before})."
    try:
        command = import_module("alembic.command")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The tables are made by a package that is not installed ({error}):"
            " pip install 'Flask-Bandit[sql]'"
        ) from error
    # Made by the app's own migrations, from the metadata of this version or of an earlier one:
    # every step after the first leaves what is there already as it is.
    found = before is None and inspect(connection).has_table(decisions.name)
    if found:
        command.stamp(_config(connection), VERSIONS[0])
    command.upgrade(_config(connection), "head")
    if found:
        return f"The tables are there; noted their version {VERSIONS[-1]}."
    return f"Updated the tables from version {before or 'none'} to {VERSIONS[-1]}."


def _config(connection: Connection) -> Any:
    config = import_module("alembic.config").Config(stdout=io.StringIO())
    directory = str(Path(__file__).parent / "migrations")
    # Alembic's options take a percent sign for an interpolation.
    config.set_main_option("script_location", directory.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def reset_after_fork() -> None:
    """Forget a lock that another thread of the parent may have held."""
    global _alembic_lock
    _alembic_lock = threading.Lock()
