"""Terms as ``commit.lua`` adds them, and the arrays that it keeps: packed numbers, no text.

An outer product is sent as its vector, and multiplied by the script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ...model import Arrays, BanditKey, FloatArray, Term
from ..base import Commit
from ..values import array_bytes, array_from_bytes
from .records import US, corrupt, pairs


def term_arguments(commit: Commit) -> list[str | bytes]:
    """Return what follows :func:`commit_arguments` in a call of ``commit.lua``."""
    arguments: list[str | bytes] = []
    for number, made in enumerate(commit.decisions):
        arguments += _arguments(f"d{number}", made.delta.terms)
    for number, given in enumerate(commit.rewards):
        if given.delta is not None:
            arguments += _arguments(f"r{number}", given.delta.terms)
    for number, item in enumerate(commit.adjustments):
        arguments += _arguments(f"a{number}", item.delta.terms)
    return arguments


def _arguments(of: str, terms: Iterable[Term]) -> Iterable[str | bytes]:
    for term in terms:
        kind = "outer" if term.outer else ""
        yield from (of, f"{term.arm}{US}{term.name}", kind, array_bytes(np.array(term.vector)))


def read_arrays(flat: Sequence[bytes]) -> Arrays:
    """Turn fields and values of the hash of arrays back.

    :raises StorageCorruptError: one is none
    """
    arrays: dict[BanditKey, dict[str, dict[str, FloatArray]]] = {}
    for place, value in pairs(flat):
        try:
            bandit, version, arm, name = place.decode().split(US)
            key = BanditKey(bandit, int(version))
        except ValueError as error:
            raise corrupt(f"the array {place!r}") from error
        row = arrays.setdefault(key, {}).setdefault(arm, {})
        row[name] = array_from_bytes(value, f"array {name!r} of {bandit!r}")
    return arrays
