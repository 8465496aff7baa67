"""Sees to it that every storage of a process is told of a fork, before it and after it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from . import migrate
from .links import FORK_PATIENCE, Links

if TYPE_CHECKING:
    from .calls import Calls


class Forks:
    """Tells the storages before and after each fork of this process."""

    def __init__(self) -> None:
        self.gate = threading.RLock()
        """Held during a fork: threads fork one after another, and nothing new appears meanwhile."""

        self._opened: weakref.WeakSet[Calls] = weakref.WeakSet()
        self._told: list[Links] = []

    def watch(self, calls: Calls) -> None:
        """Tell these too, as long as there are any."""
        with self.gate:
            self._opened.add(calls)

    def before(self) -> None:
        """Close what must not be open during a fork."""
        self.gate.acquire()
        deadline = time.monotonic() + FORK_PATIENCE
        told = [calls.links for calls in list(self._opened) if calls.links is not None]
        # First those that may take a while: the others go on until then.
        self._told = sorted(told, key=lambda links: not links.waits_at_forks)
        for links in self._told:
            links.before_fork(deadline)

    def after_in_parent(self) -> None:
        """Let the threads of the parent go on."""
        for links in self._told:
            links.after_fork()
        self._told = []
        self.gate.release()

    def after_in_child(self) -> None:
        """Begin anew."""
        self.gate = threading.RLock()
        self._told = []
        migrate.reset_after_fork()
        for calls in list(self._opened):
            if calls.links is not None:
                calls.forget(calls.links)


forks = Forks()
os.register_at_fork(
    before=forks.before,
    after_in_parent=forks.after_in_parent,
    after_in_child=forks.after_in_child,
)
