"""What a single value may be that is stored: texts, numbers, mappings for JSON, and arrays.

Every storage of this package refuses the same values, because they all come through here.
Imports only the model, the errors, numpy and the standard library.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from ..errors import StorageCorruptError, StorageError
from ..model import FloatArray

LARGEST_INTEGER = 2**63 - 1

_FLOATS = np.dtype("<f8")


def array_bytes(array: FloatArray) -> bytes:
    """Write an array as the bytes of its numbers, little-endian, whatever the machine."""
    return array.astype(_FLOATS, copy=False).tobytes()


def array_from_bytes(content: object, what: str) -> FloatArray:
    """Read what :func:`array_bytes` wrote.

    :param what: what an error calls it
    :raises StorageCorruptError: it is something else
    """
    if not isinstance(content, bytes) or not content or len(content) % _FLOATS.itemsize:
        raise StorageCorruptError(
            f"The {what} is not what was written: restore it from a backup. Nothing was reset."
        )
    return np.frombuffer(content, _FLOATS).astype(np.float64)


def clean_name(value: object, what: str) -> str:
    """Check an id or a name: text in any script, no control characters, no lone surrogates.

    :param what: what an error calls it
    :raises StorageError: it is something else
    """
    if type(value) is str and value.isprintable():
        return value
    text = _string(value, what)
    # isprintable() refuses joiners and other invisible but lawful characters as well.
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise StorageError(
            f"The {what} {text!r} contains a control character or half of a surrogate pair;"
            " use printable text."
        )
    return text


def _string(value: object, what: str) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise StorageError(f"The {what} is {value!r}, a {type_name(value)}; it must be a str.")


def _text(value: object, what: str) -> str:
    """Check a text in a context: anything but lone surrogates, which no encoding has."""
    text = _string(value, what)
    if not text.isascii() and any(unicodedata.category(c) == "Cs" for c in text):
        raise StorageError(f"{what} is {text!r}, which holds half of a surrogate pair.")
    return text


def clean_integer(value: object, what: str) -> int:
    """Check an int of at most 63 bits.

    :param what: what an error calls it
    :raises StorageError: it is something else
    """
    if type(value) is int:
        if abs(value) <= LARGEST_INTEGER:
            return value
        raise StorageError(f"The {what} is an int of more than 63 bits.")
    raise StorageError(f"The {what} is {value!r}, a {type_name(value)}; it must be an int.")


def clean_number(value: object, what: str) -> float:
    """Check a finite number; ints stay ints.

    :param what: what an error calls it
    :raises StorageError: it is something else
    """
    if isinstance(value, int):
        if abs(value) <= LARGEST_INTEGER:
            return int(value)
        raise StorageError(f"The {what} is an int of more than 63 bits; use a float.")
    if isinstance(value, float):
        if isfinite(value):
            return float(value)
        raise StorageError(f"The {what} is {value!r}; it must be a finite number.")
    raise StorageError(
        f"The {what} is {value!r}, a {type_name(value)}; convert it to an int or a float"
        " (a numpy scalar by .item())."
    )


def clean_mapping(value: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Copy a mapping into what JSON gives back.

    :param path: what an error calls it
    :raises StorageError: a value in it cannot be stored
    """
    clean = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise StorageError(
                f"{path} has the key {key!r}, a {type_name(key)}; JSON keys must be str."
            )
        clean[_text(key, path)] = _clean_value(item, path, key)
    return clean


def _clean_value(value: object, path: str, key: str | int) -> Any:
    """Copy one value of a context into what JSON gives back."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    path = f"{path}[{key!r}]"
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, (int, float)):
        return clean_number(value, path)
    if isinstance(value, Mapping):
        return _guarded(clean_mapping, value, path)
    if isinstance(value, (list, tuple)):
        return _guarded(_clean_list, value, path)
    raise StorageError(
        f"{path} is {value!r}, a {type_name(value)}, which JSON cannot represent; use str, int,"
        " float, bool, None, lists and dicts."
    )


def _clean_list(value: list[Any] | tuple[Any, ...], path: str) -> list[Any]:
    return [_clean_value(item, path, index) for index, item in enumerate(value)]


def _guarded(clean: Any, value: object, path: str) -> Any:
    """Recurse, and tell a value that contains itself instead of overflowing the stack."""
    if path.count("[") > 50:
        raise StorageError(f"{path[:60]}... is nested more than 50 levels deep; flatten it.")
    return clean(value, path)


def type_name(value: object) -> str:
    """Return what an error calls the type of a value."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
