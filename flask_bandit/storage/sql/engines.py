"""From what an app configures to an engine, and from a driver's errors to ours.

The only place that knows which drivers and databases are supported.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from ...errors import ConfigurationError, StorageError, StorageTimeoutError
from .links import OPENING_SECONDS, guard_opening

RETRIED = frozenset({"40P01", "40001", "23505"})
"""Deadlock, serialization failure, and another commit that inserted the same id just before."""

_LOCKED = "database is locked"

_HINTS = {
    "42P01": "the tables are missing: run 'flask bandit db upgrade'",
    "42703": "the tables are of another version: run 'flask bandit db upgrade'",
    "42501": "grant the app's user the rights on the tables whose names begin with bandit_",
    "25006": "the server is a read-only replica: connect to the primary",
    "28P01": "check user and password in the URI",
    "3D000": "create the database, or correct its name in the URI",
    "53300": "raise max_connections of the server, or run fewer workers",
}


def make_engine(uri: str) -> Engine:
    """Make an engine of our own, which connects when it is used.

    :raises ConfigurationError: the URI is none, or names a database or driver that cannot be used
    """
    try:
        url = make_url(uri)
    except ArgumentError as error:
        # The URI itself may hold a password.
        raise ConfigurationError(
            "The storage's URI cannot be read; write it as"
            " 'postgresql+psycopg://user:password@host/database'."
        ) from error
    if url.drivername == "postgresql" and find_spec("psycopg"):
        # SQLAlchemy's default is the driver before this one.
        url = url.set(drivername="postgresql+psycopg")
    name = url.get_backend_name()
    check_dialect(name)
    try:
        if name == "sqlite":
            return _sqlite_engine(url)
        return _postgres_engine(url)
    except NoSuchModuleError as error:
        raise ConfigurationError(
            f"SQLAlchemy has no driver {url.drivername!r}; write 'postgresql+psycopg'."
        ) from error
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{url.drivername!r} needs a driver that is not installed ({error}):"
            " pip install 'Flask-Bandit[postgres]'"
        ) from error


def check_dialect(name: str) -> None:
    """Refuse databases that this storage was not made for.

    :raises ConfigurationError: it is neither PostgreSQL nor SQLite
    """
    if name not in ("postgresql", "sqlite"):
        raise ConfigurationError(
            f"SQLBanditStorage supports PostgreSQL and SQLite, not {name!r}; use another database"
            " for the bandits, for example MAB_STORAGE_URI = 'sqlite:///bandits.db'."
        )


def _sqlite_engine(url: URL) -> Engine:
    if not url.database or ":memory:" in url.database or "mode=memory" in url.database:
        raise ConfigurationError(
            "Each connection to an SQLite database in memory has a database of its own; use"
            " 'memory://' in tests, or name a file: 'sqlite+pysqlite:///bandits.db'."
        )
    # Each connection serves one call at a time, whichever thread makes it.
    return create_engine(
        url,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        connect_args={"check_same_thread": False},
    )


def _postgres_engine(url: URL) -> Engine:
    arguments: dict[str, Any] = {}
    if url.get_driver_name() in ("psycopg", "psycopg2"):
        arguments = {"connect_timeout": OPENING_SECONDS, "application_name": "flask-bandit"}
    for name in url.query:
        arguments.pop(name, None)
    engine = create_engine(
        url,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        connect_args=arguments,
    )
    guard_opening(engine)
    return engine


def describe(engine: Engine) -> str:
    """Return the engine's URI without its password."""
    return engine.url.render_as_string(hide_password=True)


def sqlstate(error: BaseException) -> str | None:
    """Return the standard code of a database's error."""
    origin = getattr(error, "orig", None)
    # psycopg's name of it, and psycopg2's.
    code = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    return None if code is None else str(code)


def is_retried(error: BaseException) -> bool:
    """Tell whether the same commit may succeed if it is sent again."""
    # SQLite says at once, whatever it was told to wait, that it cannot switch to its WAL mode.
    return sqlstate(error) in RETRIED or _LOCKED in str(getattr(error, "orig", ""))


def is_disconnect(error: BaseException) -> bool:
    """Tell whether the connection is gone, rather than the statement refused."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def translate(error: BaseException, engine: Engine, expired: bool) -> BaseException:
    """Return our error for a driver's; any other error as it is.

    :param expired: whether the connection was cut at the deadline
    """
    if isinstance(error, StorageError) or not isinstance(
        error, (SQLAlchemyError, OverflowError, UnicodeError, OSError)
    ):
        return error
    where = describe(engine)
    if expired:
        return StorageTimeoutError(
            f"{where} did not answer before the deadline; sending it again is safe. Look whether"
            " the server is overloaded, or whether a session holds locks on the bandits' tables."
        )
    origin = getattr(error, "orig", None) or error
    said = _first_line(str(origin), engine)
    code = sqlstate(error)
    if isinstance(error, PoolTimeoutError) or code in ("55P03", "57014") or _LOCKED in said:
        return StorageTimeoutError(
            f"{where} was busy until the deadline ({said}); sending it again is safe."
        )
    hint = _HINTS.get(code or "", "look whether the server runs and what its log says")
    return StorageError(f"{where} failed: {said}; {hint}.")


def _first_line(said: str, engine: Engine) -> str:
    line = (said.strip().splitlines() or ["no message"])[0].rstrip(".")
    password = engine.url.password
    return line.replace(str(password), "***") if password else line
