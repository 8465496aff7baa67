"""Closes reward windows: each decision enters learning once, with what it has earned by then.

The increment has an id made of the decision's, so any number of processes may close the same
window. Everything that is closed is also a mark in time (``Control.closed_until``), so that
nobody looks twice at old decisions. Private features of a decision are removed once it has entered
learning.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from .background import Background
from .control import Control
from .counting import is_for_evaluation, mature_delta
from .engine import Engine, logger
from .errors import StorageError
from .model import LogEntry
from .storage.base import Adjustment, Commit

GRACE = 5.0
"""Seconds that a window stays open longer, for rewards on their way and clocks that differ."""
BATCH = 200
"""Decisions that enter learning in one commit."""
REDACTED = 5000
"""Decisions that lose their private features at once: a storage may have to write a file anew."""
PATIENCE = 30.0
"""Seconds that one commit may take."""


class WindowCloser:
    """Closes the windows of an engine's bandits, in a thread of its own while the app serves."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._background = Background(self._close_quietly)

    def poke(self, name: str) -> threading.Thread | None:
        """Close what is due of a bandit, in the background, if nobody has done so lately.

        Cheap enough for every request, and asks the storage nothing; the thread ends when all is
        closed.

        :return: the thread, if it was time for one
        """
        window = self._engine.bandits[name].options.reward_window
        if window is None or self._engine.is_storage_down:
            return None
        return self._background.poke(name, _period(window))

    def close(
        self, name: str, *, again: bool = False, progress: Callable[[int], object] = lambda n: None
    ) -> int:
        """Close all windows of a bandit that are due.

        :param again: look at every decision from the beginning, as after an import
        :param progress: called with the number of decisions looked at since the last call
        :return: how many decisions have entered learning now
        :raises StorageError: the storage failed; closing again goes on where it ended
        """
        window = self._engine.bandits[name].options.reward_window
        if window is None:
            return 0
        storage, until = self._engine.storage, _due(window)
        since = 0.0 if again else self._engine.control(name).closed_until
        entries, closed = storage.iter_log(name, since=since, until=until), 0
        rests: dict[str, Mapping[str, Any]] = {}
        while batch := tuple(islice(entries, BATCH)):
            started = time.monotonic()
            adjustments = tuple(self._adjustments(name, window, batch))
            closed += len(storage.commit(Commit(adjustments=adjustments), PATIENCE).new)
            rests.update(self._without_private(name, batch))
            if len(rests) >= REDACTED:
                storage.redact(rests, PATIENCE)
                rests.clear()
            # As long again for visitors' commits, since who asks again at once comes first.
            time.sleep(time.monotonic() - started)
            progress(len(batch))
        if rests:
            storage.redact(rests, PATIENCE)

        def mark(control: Control) -> Control:
            return replace(control, closed_until=max(until, control.closed_until))

        self._engine.update_control(name, mark)
        return closed

    def _close_quietly(self, name: str) -> None:
        window = self._engine.bandits[name].options.reward_window
        assert window is not None
        try:
            # Not if another process did so lately.
            if _due(window) - self._engine.control(name).closed_until >= _period(window):
                self.close(name)
        except StorageError as error:
            logger.warning(
                "The reward windows of %r could not be closed; trying again: %s", name, error
            )
        except Exception:
            logger.exception("The reward windows of %r could not be closed; trying again", name)

    def _adjustments(
        self, name: str, window: float, entries: Iterable[LogEntry]
    ) -> Iterator[Adjustment]:
        bandit = self._engine.bandits[name]
        policy, options = bandit.policy, bandit.options
        for entry in entries:
            decision = entry.decision
            if decision.is_held_out or is_for_evaluation(options, decision):
                continue  # never teaches the policy
            total = sum(
                reward.value
                for reward in entry.rewards
                if reward.goal == options.goal and reward.at <= decision.at + window
            )
            delta = mature_delta(policy, options, decision, total)
            yield Adjustment(f"window:{decision.id}", name, decision.version, delta)

    def _without_private(
        self, name: str, entries: Iterable[LogEntry]
    ) -> dict[str, Mapping[str, Any]]:
        """Return what is left of the contexts that hold a private feature."""
        private = frozenset(self._engine.bandits[name].options.private)
        return {
            decision.id: {n: v for n, v in decision.context.items() if n not in private}
            for decision in (entry.decision for entry in entries)
            if decision.context is not None and not private.isdisjoint(decision.context)
        }


def _period(window: float) -> float:
    """Return the seconds from one closing in the background to the next."""
    return min(max(window / 100.0, 1.0), 60.0)


def _due(window: float) -> float:
    """Return the time before which windows that began then are over."""
    return time.time() - window - GRACE
