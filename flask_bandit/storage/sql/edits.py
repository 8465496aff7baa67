"""What changes beside commits: the states of bandits, summaries of the log, and what is erased.

Each is one statement of its own or can be done again; the caller rolls back if it fails.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Text,
    bindparam,
    case,
    literal,
    or_,
    select,
    text,
    update,
)

from ...errors import StorageTimeoutError
from ...model import BanditKey
from ..base import StoredDigest
from ..codec import control_text
from ..digests import digest_from_text
from ..locks import remaining
from .rows import Row, control_of
from .tables import control, decisions, digest

_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_ERASE = (
    update(decisions)
    .where(
        decisions.c.id.in_(_IDS),
        or_(decisions.c.subject.is_not(None), decisions.c.context.is_not(None)),
    )
    .values(subject=None, context=None)
)
_INSERT = text(
    "INSERT INTO bandit_control (bandit, state) VALUES (:bandit, :new)"
    " ON CONFLICT (bandit) DO NOTHING"
)
_UPDATE = text("UPDATE bandit_control SET state = :new WHERE bandit = :bandit AND state = :old")
_INSERT_DIGEST = text(
    "INSERT INTO bandit_digest (bandit, version, revision, state)"
    " VALUES (:bandit, :version, :next, :new) ON CONFLICT (bandit, version) DO NOTHING"
)
_UPDATE_DIGEST = text(
    "UPDATE bandit_digest SET revision = :next, state = :new"
    " WHERE bandit = :bandit AND version = :version AND revision = :seen"
)
PAUSE = 0.01
"""Seconds until a write-ahead log that somebody reads is looked at again."""

_SETTINGS = ("OFF", "ON", "FAST")
_SELECT = select(control.c.bandit, control.c.state)


def erase(connection: Connection, ids: Sequence[str]) -> int:
    """Remove subject and context of some decisions, and return how many had any.

    :param connection: in autocommit mode, outside of a transaction
    """
    with _overwriting(connection):
        return connection.execute(_ERASE, {"ids": ids}).rowcount


def redact(connection: Connection, contexts: Mapping[str, str | None]) -> int:
    """Replace the contexts of those decisions that have one, and return how many.

    :param contexts: by ids, as the column has them
    :param connection: in autocommit mode, outside of a transaction
    """
    texts = {id_: literal(text, Text) for id_, text in contexts.items()}
    replaced = (
        update(decisions)
        .where(decisions.c.id.in_(texts), decisions.c.context.is_not(None))
        .values(context=case(texts, value=decisions.c.id))
    )
    with _overwriting(connection):
        return connection.execute(replaced).rowcount


@contextmanager
def _overwriting(connection: Connection) -> Iterator[None]:
    """Let SQLite overwrite what is removed; and the setting of an app's connection comes back."""
    if connection.dialect.name != "sqlite":
        yield
        return
    before = connection.exec_driver_sql("PRAGMA secure_delete").scalar_one()
    connection.exec_driver_sql("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA secure_delete = {_SETTINGS[before]}")


def empty_log(connection: Connection, deadline: float | None) -> None:
    """Cut SQLite's write-ahead log, which has copies of what was erased, to nothing.

    :param connection: its ``busy_timeout`` is changed

    :raises StorageTimeoutError: others read or wrote all the time
    """
    if connection.dialect.name != "sqlite":
        return
    # While SQLite itself waits for a reader, it lets nobody write.
    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    while connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]:
        left = remaining(deadline)
        if left == 0:
            raise StorageTimeoutError(
                "Other connections used the file until the deadline, so that its write-ahead log"
                " still holds copies of what was erased; erase it again, when they are done."
            )
        time.sleep(min(PAUSE, left) if left > 0 else PAUSE)


def read_control(connection: Connection) -> dict[str, dict[str, Any]]:
    """Return the states of all bandits."""
    return control_of(connection.execute(_SELECT))


def holds(connection: Connection, bandit: str, text: str) -> bool:
    """Return whether this is a bandit's state."""
    return _text(connection.execute(_SELECT.where(control.c.bandit == bandit)), bandit) == text


def _text(rows: Iterable[Any], bandit: str) -> str | None:
    stored = control_of(rows).get(bandit)
    return None if stored is None else control_text(stored)


def write_control(connection: Connection, bandit: str, text: str, expected: str | None) -> bool:
    """Replace a bandit's state, and tell whether it was the expected one.

    :param text: of :func:`control_text`, as ``expected``, which is ``None`` for nothing
    :param connection: in autocommit mode, outside of a transaction
    """
    found = connection.execute(_SELECT.where(control.c.bandit == bandit)).all()
    if _text(found, bandit) != expected:
        return False
    values: Row = {"bandit": bandit, "new": text}
    if not found:
        return connection.execute(_INSERT, values).rowcount == 1
    # By the text that was read: whoever came in between has changed it.
    return connection.execute(_UPDATE, {**values, "old": found[0].state}).rowcount == 1


def read_digest(connection: Connection, key: BanditKey) -> StoredDigest | None:
    """Return the summary of a version's log, if there is one."""
    row = connection.execute(_select_digest(key)).first()
    return None if row is None else digest_from_text(row.revision, row.state)


def _select_digest(key: BanditKey) -> Any:
    of_it = (digest.c.bandit == key.bandit, digest.c.version == key.version)
    return select(digest.c.revision, digest.c.state).where(*of_it)


def holds_digest(connection: Connection, key: BanditKey, text: str, revision: int) -> bool:
    """Return whether this is the summary of a version's log."""
    row = connection.execute(_select_digest(key)).first()
    return row is not None and tuple(row) == (revision, text)


def write_digest(connection: Connection, key: BanditKey, text: str, revision: int) -> bool:
    """Replace the summary of a version's log, and tell whether it had the revision.

    :param connection: in autocommit mode, outside of a transaction
    """
    values: Row = {**key._asdict(), "new": text, "seen": revision, "next": revision + 1}
    statement = _UPDATE_DIGEST if revision else _INSERT_DIGEST
    return connection.execute(statement, values).rowcount == 1
