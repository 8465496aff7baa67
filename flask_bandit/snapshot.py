"""Counts as a process knows them: read at one moment, plus what it has committed since."""

from __future__ import annotations

from .bandits import Bandit
from .control import Control
from .drawing import DrawTable
from .model import BanditKey, Counts, StatsDelta, add_counts


class Snapshot:
    """Counts, and the probabilities that follow from them.

    :param read_at: when they were read, on the monotonic clock
    :param now: the same in seconds since the epoch
    """

    def __init__(self, counts: Counts, read_at: float, now: float) -> None:
        self.read_at = read_at
        self._now = now
        self._counts = dict(counts)
        self._tables: dict[BanditKey, tuple[Control, DrawTable]] = {}

    def table(self, name: str, bandit: Bandit, control: Control) -> DrawTable:
        """Return the bandit's probabilities, computed once until its counts or control change."""
        key = BanditKey(name, control.version)
        control_then, table = self._tables.get(key, (None, None))
        if table is None or control_then is not control:
            drawing = control.drawing(bandit.arm_ids)
            table = bandit.draw_table(self._counts.get(key, {}), drawing=drawing, now=self._now)
            self._tables[key] = (control, table)
        return table

    def add(self, key: BanditKey, delta: StatsDelta) -> None:
        """Add an increment of this process."""
        # A copy, and then one assignment: other threads read while this one adds.
        old = self._counts.get(key, {})
        changed = {arm: dict(old.get(arm, {})) for arm in delta.counts}
        add_counts(changed, delta)
        self._counts[key] = {**old, **changed}
        self._tables.pop(key, None)
