"""Arrays of sums as a line of the journal and in the index: exact, and shorter than as numbers.

Imports only the model, the values that are stored and the standard library.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

from ...model import Arrays, BanditKey, FloatArray
from ..values import array_bytes, array_from_bytes


def arrays_to_record(arrays: Arrays) -> list[list[Any]]:
    """Turn arrays into what JSON can represent."""
    return [
        [*key, arm, name, b64encode(array_bytes(array)).decode()]
        for key, arms in arrays.items()
        for arm, row in arms.items()
        for name, array in row.items()
    ]


def arrays_from_record(record: Iterable[Any]) -> Arrays:
    """Turn it back.

    :raises TypeError, ValueError: it is not of :func:`arrays_to_record`
    :raises StorageCorruptError: one of the arrays is not
    """
    arrays: dict[BanditKey, dict[str, dict[str, FloatArray]]] = {}
    for bandit, version, arm, name, text in record:
        row = arrays.setdefault(BanditKey(bandit, version), {}).setdefault(arm, {})
        row[name] = array_from_bytes(b64decode(text), f"array {name!r} of {bandit!r}")
    return arrays
