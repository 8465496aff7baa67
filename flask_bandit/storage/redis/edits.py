"""What changes beside commits: details that go, states of bandits, and summaries of the log.

Each is replaced only if it is still as it was read. Knows no commits; ``records.py`` spells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ...model import BanditKey, Decision
from ..base import ControlState, StoredDigest
from .client import RedisClient, Request, Script
from .log import Keys
from .records import (
    changed_text,
    control_arguments,
    digest_arguments,
    digest_field,
    read_control,
    read_decision,
    read_digest,
)

Change: TypeAlias = tuple[str, bytes, Decision]
"""An id, what is stored below it, and what shall be."""


class Edits:
    """Reads and replaces, each in one call.

    :param prefix: of the installation
    """

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self._client = client
        # Of all bandits, however they are sharded: each worker reads them all, each second.
        self._tag = f"{{{prefix}}}"
        self._replace_script = Script("replace")
        self._control_script = Script("control")
        self._digest_script = Script("digest")

    def replace(self, changes: Iterable[tuple[Keys, list[Change]]], deadline: float | None) -> int:
        """Replace the details of decisions that are still as they were read; return how many."""
        requests = []
        for keys, items in changes:
            arguments = [
                part for id_, text, made in items for part in (id_, text, changed_text(text, made))
            ]
            if arguments:
                requests.append(
                    Request(keys.counts, (1, keys.decisions, *arguments), self._replace_script)
                )
        return sum(map(int, self._client.call_all(requests, deadline)))
