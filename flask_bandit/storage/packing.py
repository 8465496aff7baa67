"""Arrays of sums as bytes, and added up, for storages that do so themselves.

Knows no database.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import StorageError
from ..model import Arrays, BanditKey, FloatArray
from .settle import ArrayKey


def packed(array: FloatArray) -> bytes:
    """Return the numbers of an array, each as the 8 bytes of a little-endian float."""
    return array.astype("<f8").tobytes()


def unpacked(data: bytes) -> FloatArray:
    """Return the array of :func:`packed`; it cannot be changed.

    :raises ValueError: there is a piece of a number
    """
    array: FloatArray = np.frombuffer(data, "<f8")
    return array


def increased(key: ArrayKey, stored: FloatArray | None, added: FloatArray) -> FloatArray:
    """Return a stored array, or none yet, with another one added.

    :raises StorageError: they differ in length, or a sum is not finite
    """
    if stored is None:
        return added
    if stored.shape != added.shape:
        raise StorageError(
            f"The array {key.name!r} of arm {key.arm!r} of bandit {key.bandit!r} has {stored.size}"
            f" numbers, and {added.size} were to be added; raise the bandit's version."
        )
    with np.errstate(over="ignore"):
        total = stored + added
    if not np.isfinite(total).all():
        raise StorageError(f"The array {key.name!r} of arm {key.arm!r} would be too large.")
    return total


def by_bandit(rows: Iterable[tuple[ArrayKey, FloatArray]]) -> Arrays:
    """Return arrays as :meth:`BanditStorage.read_arrays` does."""
    arrays: dict[BanditKey, dict[str, dict[str, FloatArray]]] = {}
    for (bandit, version, arm, name), array in rows:
        arrays.setdefault(BanditKey(bandit, version), {}).setdefault(arm, {})[name] = array
    return arrays
