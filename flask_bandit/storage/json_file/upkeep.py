"""When the two files that are made from the journal are rewritten.

Imports only the replica and the standard library.
"""

from __future__ import annotations

import logging
import time

from .replica import Replica

logger = logging.getLogger(__name__)

SUMMARY_SECONDS = 1.0
SUMMARY_SHARE = 100
"""A summary that took t seconds to write is not rewritten for ``SUMMARY_SHARE * t`` seconds."""
INDEX_BYTES = 1 << 16


class Upkeep:
    """Keeps summary and index close behind the journal; methods need the file lock.

    :param replica: what they are made from
    """

    def __init__(self, replica: Replica) -> None:
        self.behind = False
        self._replica = replica
        self._summary_due = 0.0
        self._indexed = -1

    def after_write(self) -> None:
        """Rewrite what is due, at a cost per commit that does not grow with what is stored."""
        self.behind = True
        try:
            if time.monotonic() >= self._summary_due:
                self._write_summary()
            self._write_index(INDEX_BYTES, doubled=True)
        except OSError as error:
            # The commit is in the journal, which is what counts.
            logger.warning("Could not rewrite the files beside %s: %s", self._replica.path, error)
            self._summary_due = time.monotonic() + SUMMARY_SECONDS

    def after_replacement(self) -> None:
        """Rewrite both for a journal that was put in the place of the old one."""
        self._indexed = -1
        self._summary_due = 0.0
        self.after_write()

    def finish(self) -> None:
        """Complete the summary, and the index if that is worth it.

        :raises OSError: not written; nothing is lost
        """
        self._write_summary()
        self._write_index(INDEX_BYTES)

    def _write_summary(self) -> None:
        started = time.monotonic()
        self._replica.write_summary()
        now = time.monotonic()
        self._summary_due = now + max(SUMMARY_SECONDS, SUMMARY_SHARE * (now - started))
        self.behind = False

    def _write_index(self, least: int, doubled: bool = False) -> None:
        """Write the index if the journal has grown by ``least`` bytes, or to the double of it."""
        offset = self._replica.journal.offset
        for known in (self._indexed, -1):
            if known < 0:
                # Another process may have written it meanwhile.
                known = self._replica.indexed()
            if offset - known < (max(least, known) if doubled else least):
                self._indexed = known
                return
        self._replica.write_index()
        self._indexed = offset
