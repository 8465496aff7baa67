"""Arrays of sums, which contextual policies learn from: how they are added up and read.

PostgreSQL adds them up by itself, in the statement that writes the rest, so that the rows of
everybody's sums are locked for no round trip. In SQLite one process writes at a time anyway.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from sqlalchemy import Connection, LargeBinary, bindparam, func, select, text
from sqlalchemy.dialects import sqlite

from ...model import Arrays, BanditKey, FloatArray
from ..settle import ArrayKey, grown
from ..values import array_bytes, array_from_bytes
from .tables import arrays, columns, recordset

_KEY = [c for c in arrays.columns if c.primary_key]

# Of two lengths NULL comes out, which the column refuses.
ADD = f"""INSERT INTO bandit_arrays AS old ({columns(arrays)})
    SELECT learned.* FROM {recordset("learned", arrays)}%s
    ON CONFLICT ({", ".join(c.name for c in _KEY)}) DO UPDATE SET value =
    CASE WHEN cardinality(old.value) = cardinality(excluded.value) THEN ARRAY(
        SELECT a + b FROM unnest(old.value, excluded.value) WITH ORDINALITY AS pair(a, b, place)
        ORDER BY place) END"""
"""SQL for PostgreSQL that adds the parameter ``learned``, of :func:`arrays_text`."""

_ADD = text(ADD % "")

_STORED = select(arrays.c.value).where(*(c == bindparam(c.name) for c in _KEY))
_INSERT = sqlite.insert(arrays)
_PUT = _INSERT.on_conflict_do_update(index_elements=_KEY, set_={"value": _INSERT.excluded["value"]})

_SENT = np.dtype([("size", ">i4"), ("value", ">f8")])
"""A number of an array as PostgreSQL sends it."""
_HEAD = 20
"""Bytes before the first number: dimensions, flags, type, length and first index."""


def arrays_text(added: Mapping[ArrayKey, FloatArray]) -> str:
    """Write what is to be added as JSON, in the order in which to lock the rows."""
    rows = [{**key._asdict(), "value": array.tolist()} for key, array in added.items()]
    return json.dumps(rows, separators=(",", ":"))


def add_arrays(connection: Connection, added: Mapping[ArrayKey, FloatArray]) -> None:
    """Add to stored arrays, in a transaction of the caller's.

    :raises StorageError: SQLite's have another length, or the sums are too large
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_ADD, {"learned": arrays_text(added)})
        return
    for key, array in added.items():
        values = key._asdict()
        data = connection.execute(_STORED, values).scalar()
        stored = None if data is None else _from_bytes(key, data)
        connection.execute(_PUT, {**values, "value": array_bytes(grown(key, stored, array))})


def read_arrays(connection: Connection) -> Arrays:
    """Return all arrays.

    :raises StorageCorruptError: somebody wrote what is no array
    """
    query, read = select(arrays), _from_bytes
    if connection.dialect.name == "postgresql":
        # As text, its driver would read them number by number, which takes several times as long.
        query = select(*_KEY, func.array_send(arrays.c.value, type_=LargeBinary))
        read = _as_sent
    found: dict[BanditKey, dict[str, dict[str, FloatArray]]] = {}
    for *place, data in connection.execute(query):
        key = ArrayKey(*place)
        arms = found.setdefault(BanditKey(key.bandit, key.version), {})
        arms.setdefault(key.arm, {})[key.name] = read(key, data)
    return found


def _from_bytes(key: ArrayKey, data: bytes) -> FloatArray:
    return array_from_bytes(data, f"array {key.name!r} of {key.bandit!r} in bandit_arrays")


def _as_sent(key: ArrayKey, data: bytes) -> FloatArray:
    array: FloatArray = np.frombuffer(data, _SENT, offset=_HEAD)["value"].astype(np.float64)
    return array
