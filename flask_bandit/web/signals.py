"""Signals for metrics and logs, sent with the app as sender, after the commit they tell of."""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

decision_made = _signals.signal(
    "decision-made", doc="A new decision was stored. Argument: ``decision``."
)
reward_recorded = _signals.signal(
    "reward-recorded", doc="A new reward was stored, once per decision. Argument: ``reward``."
)
storage_failed = _signals.signal(
    "storage-failed", doc="The storage stopped working; sent once per outage. Argument: ``error``."
)
storage_recovered = _signals.signal("storage-recovered", doc="The storage works again.")
