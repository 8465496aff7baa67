"""Signals for metrics and logs, sent with the app as sender, after the commit they tell of."""

from __future__ import annotations

from typing import Any

from blinker import NamedSignal, Namespace
from flask import Flask

from ..engine import logger

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
bandit_changed = _signals.signal(
    "bandit-changed",
    doc=(
        "An operator changed a bandit in this process. Arguments: ``bandit``, ``control`` and "
        "``action``."
    ),
)
storage_recovered = _signals.signal("storage-recovered", doc="The storage works again.")


def send(signal: NamedSignal, app: Flask, **arguments: Any) -> None:
    """Send a signal; a receiver that raises is logged, since the visitor's page is not its own."""
    if not signal.receivers:
        return
    try:
        signal.send(app, **arguments)
    except Exception:
        logger.exception("A receiver of the signal %r failed", signal.name)
