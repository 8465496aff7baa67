"""What changes beside commits: details that go, states of bandits, and summaries of the log.

Each is replaced only if it is still as it was read. Knows no commits; ``records.py`` spells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ...model import BanditKey, Decision
from ..base import ControlState, StoredDigest
from .client import RedisClient, Request, Script
from .log import PAGE, Keys
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

    :param whole: the keys of the installation
    """

    def __init__(self, client: RedisClient, whole: Keys) -> None:
        self._client = client
        self._slot = whole.counts
        # Of all bandits, however they are sharded: each worker reads them all, each second.
        self._control = whole.beside("control")
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

    def change(
        self,
        shards: Sequence[Keys],
        ids: Sequence[str],
        concerns: Callable[[Decision], bool],
        change: Callable[[Decision], Decision],
        deadline: float | None,
    ) -> int:
        """Change the stored decisions that it concerns, page by page; return how many.

        :param shards: the sets of keys that they may lie below
        """
        count = 0
        for start in range(0, len(ids), PAGE):
            page = ids[start : start + PAGE]
            requests = [Request(k.counts, ("HMGET", k.decisions, *page)) for k in shards]
            answers = self._client.call_all(requests, deadline)
            known = [
                (keys, changes(page, texts, concerns, change))
                for keys, texts in zip(shards, answers, strict=True)
            ]
            count += self.replace(known, deadline)
        return count

    def read_control(self, deadline: float | None) -> Mapping[str, ControlState]:
        """Return the states of all bandits."""
        request = Request(self._slot, ("HGETALL", self._control))
        return read_control(self._client.call(request, deadline))

    def write_control(
        self,
        bandit: str,
        state: ControlState,
        expected: ControlState | None,
        deadline: float | None,
    ) -> bool:
        """Replace a bandit's state, and tell whether it was the expected one."""
        arguments = (1, self._control, *control_arguments(bandit, expected, state))
        request = Request(self._slot, arguments, self._control_script)
        return bool(self._client.call(request, deadline))

    def read_digest(
        self, keys: Keys, key: BanditKey, deadline: float | None
    ) -> StoredDigest | None:
        """Return the summary of a version's log, if there is one.

        :param keys: those that the bandit's commits use
        """
        request = Request(keys.counts, ("HGET", keys.beside("digests"), digest_field(key)))
        return read_digest(self._client.call(request, deadline))

    def write_digest(
        self,
        keys: Keys,
        key: BanditKey,
        state: Mapping[str, Any],
        revision: int,
        deadline: float | None,
    ) -> bool:
        """Replace the summary of a version's log, and tell whether it had the revision."""
        arguments = (1, keys.beside("digests"), *digest_arguments(key, state, revision))
        request = Request(keys.counts, arguments, self._digest_script)
        return bool(self._client.call(request, deadline))


def changes(
    ids: Sequence[str],
    texts: Sequence[bytes | None],
    concerns: Callable[[Decision], bool],
    change: Callable[[Decision], Decision],
) -> list[Change]:
    """Return what to change of the decisions that are stored."""
    return [
        (id_, text, change(made))
        for id_, text in zip(ids, texts, strict=True)
        if text is not None and concerns(made := read_decision(id_, text).decision)
    ]
