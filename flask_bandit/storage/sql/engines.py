"""From what an app configures to an engine, and from a driver's errors to ours.

The only place that knows which drivers and databases are supported.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, make_url
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
    "23502": "the array of sums that is stored has another length than what was to be added: raise"
    " the bandit's version",
    "25006": "connect to the primary if this is a replica, and let the app's user write (SHOW"
    " default_transaction_read_only)",
    "28P01": "check user and password in the URI",
    "3D000": "create the database, or correct its name in the URI",
    "53300": "raise max_connections of the server, or run fewer workers",
}
_OTHERWISE = {
    False: "look whether the server runs and what its log says",
    True: "look whether this process may write the file and its directory, and the disk has room",
}


_UNREADABLE = (
    "The storage's URI cannot be read; write it as"
    " 'postgresql+psycopg://user:password@host:5432/database' or"
    " 'sqlite+pysqlite:////path/to/bandits.db'. In a password, write %40 for '@', %3A for ':' and"
    " %2F for '/' (urllib.parse.quote_plus does)."
)


def make_engine(uri: str) -> Engine:
    """Make an engine of our own, which connects when it is used.

    :raises ConfigurationError: the URI is none, or names a database or driver that cannot be used
    """
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        # The URI itself may hold a password, and so may what is said about it.
        raise ConfigurationError(_UNREADABLE) from None
    if url.drivername == "postgresql" and find_spec("psycopg"):
        # SQLAlchemy's default is the driver before this one.
        url = url.set(drivername="postgresql+psycopg")
    name = url.get_backend_name()
    check_dialect(name)
    try:
        if name == "sqlite":
            return _sqlite_engine(url)
        return _postgres_engine(url)
    except ConfigurationError:
        raise
    except NoSuchModuleError as error:
        raise ConfigurationError(
            f"SQLAlchemy has no driver {url.drivername!r}; write 'postgresql+psycopg'."
        ) from error
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{url.drivername!r} needs a driver that is not installed ({error}): install it, or"
            " pip install 'Flask-Bandit[postgres]' and write 'postgresql+psycopg://'."
        ) from error
    except (ArgumentError, ValueError):
        raise ConfigurationError(_UNREADABLE) from None


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
    """Return the engine's URI without its password, and without options, which may hold one."""
    return engine.url.set(query={}).render_as_string(hide_password=True)


def _secrets(engine: Engine) -> set[str]:
    """Return what must not be shown: the password, and options such as ``sslpassword``."""
    found = {str(engine.url.password or "")}
    for name, values in engine.url.normalized_query.items():
        if "pass" in name.lower():
            found.update(values)
    return found - {""}


def cause(error: BaseException, engine: Engine) -> BaseException | None:
    """Return what to show as the cause: the driver's words, without statements and values."""
    said = getattr(error, "orig", None) or (None if isinstance(error, StorageError) else error)
    return None if any(secret in str(said) for secret in _secrets(engine)) else said


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
    hint = _HINTS.get(code or "", _OTHERWISE[engine.dialect.name == "sqlite"])
    return StorageError(f"{where} failed: {said}; {hint}.")


def _first_line(said: str, engine: Engine) -> str:
    line = (said.strip().splitlines() or ["no message"])[0].rstrip(".")
    for secret in sorted(_secrets(engine), key=len, reverse=True):
        line = line.replace(secret, "***")
    return line


def lax_settings(connection: Connection) -> list[str]:
    """Return which settings of the server endanger what is stored, each with the fix."""
    if connection.dialect.name != "postgresql":
        return []
    lost = {
        "fsync": "a crash of the machine can destroy the whole database",
        "full_page_writes": "a crash of the machine can destroy pages of the database",
        "synchronous_commit": "a crash of the server can lose the commits of the last moment,"
        " although they were acknowledged",
    }
    return [
        f"PostgreSQL's setting {name} is off: {what}. Set it to on."
        for name, what in lost.items()
        if connection.exec_driver_sql(f"SHOW {name}").scalar() == "off"
    ]
