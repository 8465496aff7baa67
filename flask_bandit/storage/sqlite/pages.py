"""Reads a SQLite file of any size a page at a time, with nothing open in between.

Imports only the file, its rows and the standard library.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from math import inf
from typing import Any

from . import rows
from .file import SQLiteFile

PAGE = 500
"""Decisions that are read at once: a reader that holds on lets the write-ahead log grow."""
NUMBERS = 10_000
"""Decisions that are looked up at once, to be read later."""


class Pages:
    """The rows of a file in the order in which they were stored, as far as it goes at the start."""

    def __init__(self, file: SQLiteFile) -> None:
        self._file = file

    def last(self, table: str) -> int:
        """Return the number of a table's last row, 0 where there is none.

        :raises StorageError: the file cannot be read
        """
        (found,) = self._file.select(f"SELECT max(seq) FROM {table}", (), None)
        return int(found[0] or 0)

    def decisions(
        self, bandit: str | None = None, since: float = -inf, until: float = inf
    ) -> Iterator[rows.Page]:
        """Yield decisions made at ``since`` or later and before ``until``, with their rewards.

        :param bandit: only this bandit's; all if ``None``
        :raises StorageError: the file cannot be read
        """
        if bandit is not None:
            yield from self._decisions_of(bandit, since, until)
            return
        last = self.last("bandit_decisions")
        for start in range(0, last, PAGE):
            end = min(start + PAGE, last)
            yield self._file.read(rows.read_page(start, end, since, until), None)

    def _decisions_of(self, bandit: str, since: float, until: float) -> Iterator[rows.Page]:
        # By time they are found, and by number they are wanted: eight bytes for each in between.
        numbers = array("q", sorted(self._numbers(bandit, since, until)))
        for start in range(0, len(numbers), PAGE):
            page = numbers[start : start + PAGE].tolist()
            yield self._file.read(rows.read_numbered(page), None)

    def _numbers(self, bandit: str, since: float, until: float) -> Iterator[int]:
        last = self.last("bandit_decisions")
        at, seq = since, 0
        while True:
            values = (bandit, at, seq, until, last, NUMBERS)
            page = self._file.select(rows.SELECT_NUMBERS, values, None)
            yield from (number for _, number in page)
            if len(page) < NUMBERS:
                return
            at, seq = page[-1]

    def scan(self, query: str, table: str) -> Iterator[list[Any]]:
        """Yield pages of rows whose last column is ``seq``.

        :raises StorageError: the file cannot be read
        """
        last, seq = self.last(table), 0
        while seq < last:
            found = self._file.select(query, (seq, PAGE), None)
            page = [row for row in found if row[-1] <= last]
            if not page:
                return
            seq = page[-1][-1]
            yield page
