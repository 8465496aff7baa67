"""The storage protocol and what every storage guarantees; ``StorageSuite`` tests all of it.

A storage adds up increments and keeps a log. It knows no algorithm and no Flask.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ..errors import ConfigurationError
from ..model import (
    ArmArrays,
    Arrays,
    BanditKey,
    Counts,
    Decision,
    LogEntry,
    Reward,
    StatsDelta,
    Term,
)

ControlState: TypeAlias = Mapping[str, Any]
"""What is stored about one bandit besides its counts; :mod:`flask_bandit.control` says what."""


class StoredDigest(NamedTuple):
    """A summary of a log, and how often it was written."""

    revision: int
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DecisionWrite:
    """A decision, and the increment that counts it if its id is new."""

    decision: Decision
    delta: StatsDelta


@dataclass(frozen=True, slots=True)
class RewardWrite:
    """A reward, and the increment that counts it.

    :param delta: computed for ``reward.arm``; ``None`` where the policy needs the stored decision
        to learn and it is not there yet
    """

    reward: Reward
    delta: StatsDelta | None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Counts that come without decisions, such as an import; added once per id."""

    id: str
    bandit: str
    version: int
    delta: StatsDelta


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that one request writes, applied in one atomic step or not at all."""

    decisions: tuple[DecisionWrite, ...] = ()
    rewards: tuple[RewardWrite, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.decisions or self.rewards or self.adjustments)


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What is stored after a commit.

    :param decisions: each decision that was sent, by id, as it is stored: the first one wins, so
        its arm may differ from the one sent
    :param new: ids of the decisions, rewards and adjustments that were inserted by this commit
    :param applied: the increments that this commit added, as ((bandit, version), delta)
    :param parked: ids of rewards of this commit that are stored and wait for their decision
    :param unlearned: rewards of this commit, or parked for a decision of this commit, that are
        stored beside their decision but not yet counted, because no increment fits the stored
        decision (``delta`` was ``None`` or computed for another arm). The caller computes it and
        commits the reward again.
    """

    decisions: Mapping[str, Decision] = field(default_factory=dict)
    new: frozenset[str] = frozenset()
    applied: tuple[tuple[tuple[str, int], StatsDelta], ...] = ()
    parked: frozenset[str] = frozenset()
    unlearned: tuple[tuple[Reward, Decision], ...] = ()


ARRAYS = "arrays:"
"""How the ids of adjustments begin that hold a bandit's arrays whole."""


def arrays_adjustment(key: BanditKey, arrays: ArmArrays) -> Adjustment:
    """Return the adjustment that makes equal arrays elsewhere, with an id made of its content."""
    terms = tuple(
        Term(arm, name, tuple(row[name].tolist()))
        for arm, row in sorted(arrays.items())
        for name in sorted(row)
    )
    content = hashlib.blake2b(repr((tuple(key), terms)).encode(), digest_size=16).hexdigest()
    return Adjustment(ARRAYS + content, key.bandit, key.version, StatsDelta({}, terms))


def boolean_option(name: str, value: object) -> bool:
    """Return an option that must be True or False; a text such as "no" would count as True.

    :raises ConfigurationError: it is neither
    """
    if isinstance(value, bool):
        return value
    raise ConfigurationError(f"The storage's option {name} is {value!r}; write True or False.")


class BanditStorage(ABC):
    """Base class of the storages; a storage of your own inherits it and passes ``StorageSuite``.

    Guarantees, for any number of threads and processes:

    * A commit is atomic: all of it is stored, or an error is raised and nothing is.
    * A commit may be sent any number of times and counts once: an increment is added only in the
      atomic step that inserts its id (a decision's, an adjustment's) or that marks its reward as
      counted.
    * A reward is counted once its decision is stored and its increment was computed for the arm
      of the stored decision. A reward that comes first is parked with its increment and counted
      in the commit that stores the decision.
    * What :meth:`commit` acknowledged survives ``kill -9`` of any process.
    * The arrays that a policy learns (``StatsDelta.terms``) are added up in the same atomic step.
      They are kept as sums only: no decision and no reward keeps its terms.
    * Objects may be created before a fork; connections and files are opened lazily, per process.
    """

    default_stats_ttl: float = 0.0
    """Seconds for which a process may use counts it has read; 0 reads at every decision."""

    auto_migrate: bool = True
    """Whether tables are made and brought up to date at first use; see :meth:`upgrade`."""

    @classmethod
    def from_uri(cls, uri: str, **options: Any) -> BanditStorage:
        """Make a storage from the URI of its scheme.

        :raises ConfigurationError: the URI does not fit this storage
        """
        raise NotImplementedError

    @abstractmethod
    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        """Apply a commit atomically and idempotently.

        :param timeout: seconds this call may take; ``None`` waits as long as it takes
        :raises StorageTimeoutError: not done in time; sending it again is safe
        :raises StorageError: not done; sending it again is safe
        """

    @abstractmethod
    def read_counts(self, timeout: float | None = None) -> Counts:
        """Return the sums of all bandits and versions, including other processes' commits.

        The mapping is the caller's: later commits do not change it.
        """

    @abstractmethod
    def read_arrays(self, timeout: float | None = None) -> Arrays:
        """Return the sums of all terms, including other processes' commits.

        Of bandits that have any. The arrays are the caller's to read, not to change.
        """

    @abstractmethod
    def get_decisions(
        self, ids: Iterable[str], timeout: float | None = None
    ) -> Mapping[str, Decision]:
        """Return the stored decisions among ``ids``, by id; unknown ids are left out."""

    @abstractmethod
    def iter_log(
        self,
        bandit: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[LogEntry]:
        """Yield decisions with their joined rewards, in the order in which they were stored.

        Decisions that were pruned are left out, and so are those that stand for another one
        (``Decision.stands_for``). Commits of others go on meanwhile: what they store is in
        it or not. A storage that keeps each bandit in a place of its own may order decisions of
        two bandits that were stored at the same moment as it likes.

        :param bandit: only this bandit's; all if ``None``
        :param since: only decisions made at this time or later, seconds since the epoch, UTC
        :param until: only decisions made before this time
        """

    @abstractmethod
    def iter_commits(self) -> Iterator[Commit]:
        """Yield everything that is stored, as commits that make an equal storage elsewhere.

        One commit for each decision, pruned ones too, together with its rewards, in the order in
        which they were stored; then one for each reward that waits for its decision, and one for
        each adjustment; at last one adjustment for each bandit and version with arrays, which
        holds them whole and has an id made of their content (:func:`arrays_adjustment`). Whatever
        was acknowledged before the start is in it. The increments of them all add up to the counts
        and to the arrays.
        """

    @abstractmethod
    def prune(self, before: float) -> int:
        """Remove the details of decisions made before a time; counts do not change.

        What is needed to count once stays: a decision's id, bandit, version, arm and time, and its
        rewards.

        :param before: seconds since the epoch, UTC
        :return: how many decisions were pruned now
        :raises StorageError: it failed; some may have been pruned
        """

    @abstractmethod
    def erase(self, ids: Iterable[str], timeout: float | None = None) -> int:
        """Remove the subject and the context of decisions, for good; counts do not change.

        :param ids: ids of decisions; unknown ones are left out
        :return: how many decisions had a subject or a context
        :raises StorageError: it failed; erasing again is safe
        """

    @abstractmethod
    def redact(
        self, contexts: Mapping[str, Mapping[str, Any] | None], timeout: float | None = None
    ) -> int:
        """Replace the contexts of decisions, so that a part of them is gone for good.

        Counts and arrays do not change. A decision that is unknown, pruned or without a context
        stays as it is.

        :param contexts: id of a decision -> what is left of its context
        :return: how many were replaced
        :raises StorageError: it failed; sending it again is safe
        """

    @abstractmethod
    def read_control(self, timeout: float | None = None) -> Mapping[str, ControlState]:
        """Return what operators decided about bandits, by bandit; see :meth:`write_control`."""

    @abstractmethod
    def write_control(
        self,
        bandit: str,
        state: ControlState,
        expected: ControlState | None,
        timeout: float | None = None,
    ) -> bool:
        """Replace what is stored about a bandit, if it is still what the caller has seen.

        Reading, comparing and writing are one atomic step, so of several writers that saw the
        same state one gets through. What was acknowledged survives ``kill -9`` of any process.

        :param state: what JSON can represent, checked by :func:`clean_control`; it is compared by
            value
        :param expected: what :meth:`read_control` returned, ``None`` where it had nothing
        :return: whether it was stored; ``False`` if something else than ``expected`` is there
        :raises StorageError: not done, or a value cannot be stored
        """

    @abstractmethod
    def read_digest(self, key: BanditKey, timeout: float | None = None) -> StoredDigest | None:
        """Return the summary of a version's log that was kept last, ``None`` if there is none.

        One that cannot be read any more is empty, and can be replaced.
        """

    @abstractmethod
    def write_digest(
        self,
        key: BanditKey,
        state: Mapping[str, Any],
        revision: int,
        timeout: float | None = None,
    ) -> bool:
        """Keep a summary of a version's log, if nobody has kept another one meanwhile.

        Comparing and writing are one atomic step. A summary can be made again from the log, so it
        is in no export, and :meth:`prune` and :meth:`erase` leave it as it is.

        :param state: what JSON can represent
        :param revision: of the summary that the caller has read; 0 where there was none
        :return: whether it was stored, with the next revision
        :raises StorageError: not done, or a value cannot be stored
        """

    def upgrade(self) -> str:
        """Make or update tables; without any, say so.

        :return: what was done, for a person
        :raises StorageError: it failed; what was there is as it was
        """
        return f"{type(self).__name__} has no tables to update."

    def check(self) -> list[str]:
        """Return what is wrong with the storage itself or its settings, each with the fix."""
        return []

    def close(self) -> None:  # noqa: B027
        """Give back files and connections; using the storage again opens them again."""
