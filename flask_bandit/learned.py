"""What policies have learned beyond counts, as a process knows it: arrays, and deployed models.

Knows no Flask. Arrays are read at most once per TTL and factorised once per reading, so that a
choice by context costs no storage call; a model is read once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from .algorithms.base import Prepared
from .bandits import Bandit
from .breaker import Attempt, Call
from .control import Control
from .counting import learned_arrays, learned_sums
from .errors import ConfigurationError
from .model import ArmArrays, ArmCounts, Arrays, BanditKey, Stats
from .options import is_clean
from .plugins import model_from
from .storage.base import BanditStorage, StoredDigest

logger = logging.getLogger("flask_bandit")

MODEL = "model:"
"""How the policy version begins of a decision that a deployed model made."""
RETRY = 1.0
"""Seconds after which a model that could not be loaded is tried again."""

_T = TypeVar("_T")
_NO_ARRAYS: ArmArrays = {}


def model_key(bandit: str, number: int) -> BanditKey:
    """Return under which key a storage keeps a bandit's model, from 1 on; 0 is their index."""
    return BanditKey(bandit, -1 - number)


def missing_models(storage: BanditStorage, timeout: float | None = None) -> dict[str, int]:
    """Return the bandits whose deployed model is not in the storage, with its number.

    :raises StorageError: the storage is down
    """
    serving = {
        name: Control.load(state).model for name, state in storage.read_control(timeout).items()
    }
    return {
        name: number
        for name, number in serving.items()
        if number and storage.read_digest(model_key(name, number), timeout) is None
    }


class Chances(NamedTuple):
    """Where the probabilities of a choice come from.

    :param version: of the policy, for the log
    :param of: eligible arms -> the policy's probabilities for one context
    """

    version: str
    of: Callable[[tuple[str, ...]], Sequence[float]]


class Guard(Protocol):
    """Calls a storage within a request's deadline; ``None`` if it is down or just failed."""

    def __call__(self, ask: Callable[[float], _T], attempt: Attempt, call: Call = ...) -> _T | None:
        """Return what ``ask`` returns for the seconds that are left."""
        ...


class _Ready(NamedTuple):
    """A policy that is prepared for a bandit's eligible arms."""

    key: BanditKey
    arms: tuple[str, ...]
    arrays: ArmArrays
    prepared: Prepared


class Serving:
    """A deployed model.

    :param policy: what its document made
    :raises AttributeError, ConfigurationError: it has no version, or one that no storage takes
    """

    def __init__(self, bandit: str, number: int, policy: Any) -> None:
        version = str(policy.version)
        if not is_clean(version):
            raise ConfigurationError(f"its version is {version!r}; write it without controls")
        self.number = number
        self.version = f"{MODEL}{number}:{version}"
        self._bandit = bandit
        self._policy = policy
        self._has_failed = False

    def chances(
        self,
        bandit: Bandit,
        arms: tuple[str, ...],
        counts: ArmCounts,
        context: Mapping[str, Any] | None,
    ) -> Sequence[float]:
        """Return one probability per arm; all the same where the model gives none."""
        try:
            values = self._policy.propensities(Stats.from_counts(arms, counts), context)
            return bandit.plain(np.asarray(values, dtype=np.float64), arms)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                logger.exception(
                    "The model %d of the bandit %r failed, so every arm is as probable; roll it "
                    "back. This is logged once",
                    self.number,
                    self._bandit,
                )
            return [1.0 / len(arms)] * len(arms)


class Learned:
    """The arrays and models of all bandits on one storage.

    :param ttl: seconds for which arrays that were read are used
    """

    def __init__(
        self, storage: BanditStorage, bandits: Mapping[str, Bandit], *, ttl: float, guard: Guard
    ) -> None:
        self._storage = storage
        self._bandits = bandits
        self._ttl = ttl
        self._guard = guard
        self._lock = threading.Lock()
        self._arrays: Arrays | None = None
        self._read_at = 0.0
        self._ready: dict[str, _Ready] = {}
        self.serving: dict[str, Serving] = {}
        """bandit -> the model that served last, until the policy of the code is back"""
        self._tried: dict[str, tuple[int, float]] = {}

    def chances(
        self,
        name: str,
        control: Control,
        counts: ArmCounts,
        context: Mapping[str, Any] | None,
        attempt: Attempt,
    ) -> Chances | None:
        """Return what a bandit draws with; ``None`` where its counts say all.

        :param counts: the bandit's sums, for a policy that is prepared now
        """
        bandit, model = self._bandits[name], self._model(name, control.model, attempt)
        if model is not None:
            return Chances(model.version, lambda arms: model.chances(bandit, arms, counts, context))
        if not bandit.is_contextual:
            return None
        key, arrays = BanditKey(name, control.version), self._fresh_arrays(attempt)

        def of(arms: tuple[str, ...]) -> Sequence[float]:
            ready = self._prepared(key, bandit, arms, counts, arrays.get(key, _NO_ARRAYS))
            return bandit.plain(ready.propensities(context), arms)

        return Chances(bandit.policy_version, of)

    def _model(self, name: str, number: int, attempt: Attempt) -> Serving | None:
        """Return a deployed model, or what served before it where it cannot be had."""
        if not number:
            self.serving.pop(name, None)
            return None
        serving = self.serving.get(name)
        if serving is not None and serving.number == number:
            return serving
        tried, at = self._tried.get(name, (0, 0.0))
        if tried != number or time.monotonic() - at >= RETRY:
            self._tried[name] = number, time.monotonic()
            self._load(name, number, attempt)
        return self.serving.get(name)

    def _load(self, name: str, number: int, attempt: Attempt) -> None:
        def ask(timeout: float) -> tuple[StoredDigest | None]:
            return (self._storage.read_digest(model_key(name, number), timeout),)

        found = self._guard(ask, attempt, Call.READ)
        if found is None:
            return
        try:
            if found[0] is None:
                raise LookupError("the storage does not have it")
            self.serving[name] = Serving(name, number, model_from(found[0].state))
            self._tried.pop(name, None)
        except Exception as error:  # whatever a stored model holds, the page is still answered
            logger.error(
                "The model %d of the bandit %r cannot be loaded, so what served before goes on; "
                "deploy another one, or roll back: %s",
                number,
                name,
                error,
            )

    def _fresh_arrays(self, attempt: Attempt) -> Arrays:
        arrays = self._arrays
        is_due = arrays is None or time.monotonic() - self._read_at >= self._ttl
        if is_due and self._may_read(attempt):
            try:
                if self._arrays is None or time.monotonic() - self._read_at >= self._ttl:
                    read = self._guard(self._storage.read_arrays, attempt, Call.READ)
                    if read is not None:
                        self._arrays, self._read_at = read, time.monotonic()
            finally:
                self._lock.release()
        return self._arrays or {}

    def _may_read(self, attempt: Attempt) -> bool:
        """Take the lock; who has nothing yet waits for whoever reads, within their deadline."""
        if self._arrays is not None:
            return self._lock.acquire(blocking=False)
        with attempt as seconds:
            return self._lock.acquire(timeout=seconds)

    def _prepared(
        self,
        key: BanditKey,
        bandit: Bandit,
        arms: tuple[str, ...],
        counts: ArmCounts,
        arrays: ArmArrays,
    ) -> Prepared:
        ready = self._ready.get(key.bandit)
        if ready is not None and ready.key == key and ready.arms == arms:
            if ready.arrays is arrays:
                return ready.prepared
            if _equal(ready.arrays, arrays):
                # Those of the last reading, so that the next choice need not compare them.
                self._ready[key.bandit] = ready._replace(arrays=arrays)
                return ready.prepared
        sums = learned_sums(bandit.options, counts, time.time())
        prepared = bandit.prepare(arms, sums, learned_arrays(bandit.options, arrays))
        self._ready[key.bandit] = _Ready(key, arms, arrays, prepared)
        return prepared


def _equal(mine: ArmArrays, other: ArmArrays) -> bool:
    return mine.keys() == other.keys() and all(
        row.keys() == other[arm].keys()
        and all(np.array_equal(array, other[arm][name]) for name, array in row.items())
        for arm, row in mine.items()
    )
