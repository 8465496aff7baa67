"""Counts as a process knows them: read at one moment, plus what it has committed since."""

from __future__ import annotations

from .bandits import Bandit
from .control import Control
from .drawing import DrawTable
from .model import ArmCounts, BanditKey, Counts, StatsDelta, add_counts

_NO_COUNTS: ArmCounts = {}


class Snapshot:
    """Counts, and the probabilities that follow from them.

    :param read_at: when they were read, on the monotonic clock
    :param now: the same in seconds since the epoch
    """

    def __init__(self, counts: Counts, read_at: float, now: float) -> None:
        self.read_at = read_at
        self._now = now
        self._counts = dict(counts)
        self._tables: dict[BanditKey, tuple[Control, ArmCounts, DrawTable]] = {}

    def counts(self, key: BanditKey) -> ArmCounts:
        """Return a bandit's sums."""
        return self._counts.get(key, _NO_COUNTS)

    def table(self, name: str, bandit: Bandit, control: Control) -> DrawTable:
        """Return the bandit's probabilities, computed once until its counts or control change."""
        key = BanditKey(name, control.version)
        counts = self._counts.get(key, _NO_COUNTS)
        control_then, counts_then, table = self._tables.get(key, (None, None, None))
        # By the counts that it was made of: they may change in another thread meanwhile.
        if table is None or control_then is not control or counts_then is not counts:
            drawing = control.drawing(bandit.arm_ids)
            table = bandit.draw_table(counts, drawing=drawing, now=self._now)
            self._tables[key] = (control, counts, table)
        return table

    def add(self, key: BanditKey, delta: StatsDelta) -> None:
        """Add an increment of this process."""
        # A copy, and then one assignment: other threads read while this one adds.
        old = self._counts.get(key, _NO_COUNTS)
        changed = {arm: dict(old.get(arm, {})) for arm in delta.counts}
        add_counts(changed, delta)
        self._counts[key] = {**old, **changed}
