"""Everything in a storage as a file and back, and whether its counts are what is stored in it.

Works on any storage, in constant memory. Imports only the model, the errors and the standard
library.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any, NamedTuple

from ..errors import StorageCorruptError, StorageError
from ..model import BanditKey, Counts
from .base import ARRAYS, BanditStorage, Commit, ControlState, arrays_adjustment
from .codec import (
    clean_bandit,
    clean_commit,
    clean_control,
    commit_from_record,
    commit_to_record,
    is_whole,
)
from .ledger import Ledger
from .settle import CountKey

FORMAT = "flask-bandit-export"
VERSION = 1
BATCH = 200
"""How many commits of an export are sent to a storage as one."""
LARGEST_BATCH = 1000
"""How many decisions, rewards and adjustments are collected before they are sent."""
AUDIT_TOLERANCE = 1e-9
"""Two sums of floats are the same if they differ by less than this share of what was added up."""
AUDIT_ATTEMPTS = 3
SPOOL_BYTES = 1 << 20
"""Above this size, what comes through a pipe is put on the disk to be checked."""

Progress = Callable[[int], object]

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class _Control(NamedTuple):
    bandit: str
    state: ControlState


@dataclass(slots=True)
class Tally:
    """How many there were of each kind.

    :param controls: bandits that operators decided something about
    """

    decisions: int = 0
    rewards: int = 0
    adjustments: int = 0
    controls: int = 0

    def add(self, commits: Iterable[Commit], among: frozenset[str] | None = None) -> None:
        """Count what is in some commits, each id once.

        :param among: count only these ids
        """
        commits = list(commits)
        decisions = {write.decision.id for commit in commits for write in commit.decisions}
        rewards = {write.reward.id for commit in commits for write in commit.rewards}
        adjustments = {item.id for commit in commits for item in commit.adjustments}
        self.decisions += len(decisions if among is None else decisions & among)
        self.rewards += len(rewards if among is None else rewards & among)
        self.adjustments += len(adjustments if among is None else adjustments & among)

    def __str__(self) -> str:
        parts = [
            f"{count} {what}{'' if count == 1 else 's'}"
            for count, what in (
                (self.decisions, "decision"),
                (self.rewards, "reward"),
                (self.adjustments, "adjustment"),
                (self.controls, "control state"),
            )
            # Most have none.
            if count or what != "control state"
        ]
        return f"{', '.join(parts[:-1])} and {parts[-1]}"


@dataclass(slots=True)
class Imported:
    """What an import did.

    :param read: what was in the file
    :param new: what was not in the storage before
    :param other_arm: decisions that the storage has for another arm; they count as it has them
    :param unmerged: bandits whose learned sums were left out, since the storage has other ones
    """

    read: Tally = field(default_factory=Tally)
    new: Tally = field(default_factory=Tally)
    other_arm: int = 0
    unmerged: int = 0


def _ignore(count: int) -> None:
    """Tell nobody."""


def write_export(storage: BanditStorage, file: IO[bytes], progress: Progress = _ignore) -> Tally:
    """Write everything in a storage as JSON Lines, with a last line that proves completeness.

    :param progress: called with the number of commits written since the last call
    :raises StorageError: the storage cannot be read
    :raises OSError: the file cannot be written
    """
    tally = Tally()
    crc = commits = 0

    def write(record: Mapping[str, Any]) -> int:
        line = _encode(record).encode()
        file.write(line + b"\n")
        return zlib.crc32(line, crc)

    crc = write({"format": FORMAT, "version": VERSION})
    for bandit, state in storage.read_control().items():
        crc = write({"control": {"bandit": bandit, "state": clean_control(state)}})
        tally.controls += 1
    for commit in storage.iter_commits():
        crc = write(commit_to_record(clean_commit(commit)))
        commits += 1
        tally.add([commit])
        progress(1)
    write({"end": True, "commits": commits, "checksum": f"{crc:08x}"})
    file.flush()
    return tally


def read_import(
    storage: BanditStorage, file: IO[bytes], name: str, progress: Progress = _ignore
) -> Imported:
    """Add what an export holds and the storage does not have yet.

    What was decided about a bandit is taken over where nothing is stored about it. So are the sums
    that a contextual policy has learned: of two pasts that overlap they cannot be added up.

    The whole file is checked first, so that nothing is taken from a damaged one.

    :param name: what errors call the file
    :param progress: called with the number of commits sent since the last call
    :raises StorageCorruptError: the file is not a whole export; nothing was imported
    :raises StorageError: the storage refused; importing again adds what is missing
    """
    if file.seekable():
        return _import_checked(storage, file, name, progress)
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        shutil.copyfileobj(file, spool)
        spool.seek(0)
        return _import_checked(storage, spool, name, progress)


def _import_checked(
    storage: BanditStorage, file: IO[bytes], name: str, progress: Progress
) -> Imported:
    start = file.tell()
    for _ in _read_export(file, name, "Nothing was imported."):
        pass
    file.seek(start)
    imported = Imported()
    changed = "It has changed since it was checked, and a part of it was imported."
    commits = _take_control(storage, _read_export(file, name, changed), imported)
    for batch in _batches(_without_arrays(storage, commits, imported)):
        merged = Commit(
            tuple(write for commit in batch for write in commit.decisions),
            tuple(write for commit in batch for write in commit.rewards),
            tuple(item for commit in batch for item in commit.adjustments),
        )
        result = storage.commit(merged)
        imported.read.add(batch)
        imported.new.add(batch, among=result.new)
        imported.other_arm += sum(
            result.decisions[write.decision.id].arm != write.decision.arm
            for write in merged.decisions
        )
        progress(len(batch))
    return imported


def _take_control(
    storage: BanditStorage, items: Iterable[Commit | _Control], imported: Imported
) -> Iterator[Commit]:
    """Yield the commits, and store what is none."""
    for item in items:
        if isinstance(item, Commit):
            yield item
        else:
            imported.read.controls += 1
            imported.new.controls += storage.write_control(item.bandit, item.state, None)


def _without_arrays(
    storage: BanditStorage, commits: Iterable[Commit], imported: Imported
) -> Iterator[Commit]:
    """Leave out the arrays of bandits that have some in the storage at the start."""
    learned = {
        key: arrays_adjustment(key, arrays).id for key, arrays in storage.read_arrays().items()
    }
    unmerged = set()
    for commit in commits:
        kept = []
        for item in commit.adjustments:
            own = learned.get(BanditKey(item.bandit, item.version))
            if own is None or not item.id.startswith(ARRAYS):
                kept.append(item)
                continue
            imported.read.adjustments += 1
            # Nothing is missing where the storage has just these.
            if own != item.id:
                unmerged.add(item.bandit)
        yield replace(commit, adjustments=tuple(kept))
    imported.unmerged = len(unmerged)


def _batches(commits: Iterable[Commit]) -> Iterator[list[Commit]]:
    batch: list[Commit] = []
    size = 0
    for commit in commits:
        batch.append(commit)
        size += len(commit.decisions) + len(commit.rewards) + len(commit.adjustments)
        if len(batch) >= BATCH or size >= LARGEST_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_export(file: IO[bytes], name: str, consequence: str) -> Iterator[Commit | _Control]:
    """Yield what is in an export, and raise an error at the first line that is not of one."""
    crc = number = commits = 0
    ended = False
    try:
        for number, ending in enumerate(file, 1):
            # A transfer may have changed how lines end.
            line = ending.rstrip(b"\r\n")
            record = _record_of(line)
            if ended:
                raise ValueError("it stands behind the line that ends the export")
            if number == 1:
                _check_header(record)
            elif "end" in record:
                ended = True
                _check_end(record, commits, crc)
            elif "control" in record:
                yield _control_of(record)
            else:
                commits += 1
                yield _commit_of(record)
            crc = zlib.crc32(line, crc)
        if not ended:
            raise ValueError(
                "the line that ends an export is missing behind it: it was cut off, export it again"
            )
    except ValueError as error:
        raise StorageCorruptError(f"{name}, line {number}: {error}. {consequence}") from None


def _record_of(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(
            "it is not JSON; the file is compressed, damaged or not an export: export it again"
        ) from None
    if not isinstance(record, dict):
        raise ValueError(
            "it is not a JSON object; the file is damaged or not an export: export it again"
        )
    return record


def _check_header(record: dict[str, Any]) -> None:
    if record.get("format") != FORMAT:
        raise ValueError(
            "it does not begin an export of Flask-Bandit (a file of Flask-MAB is imported by"
            " 'flask bandit import-flask-mab FILE')"
        )
    if record.get("version") != VERSION:
        raise ValueError(
            f"the export has version {record.get('version')!r}, and this Flask-Bandit knows"
            f" version {VERSION}: upgrade Flask-Bandit"
        )


def _check_end(record: dict[str, Any], commits: int, crc: int) -> None:
    if record.get("commits") != commits:
        raise ValueError(f"there are {commits} commits, and {record.get('commits')!r} were written")
    if record.get("checksum") != f"{crc:08x}":
        raise ValueError(
            "the checksum does not match: a line above is not what was written, export it again"
        )


def _control_of(record: dict[str, Any]) -> _Control:
    try:
        bandit, state = record["control"]["bandit"], record["control"]["state"]
        return _Control(clean_bandit(bandit), clean_control(state))
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is no control of a bandit ({error!r})") from None
    except StorageError as error:
        raise ValueError(str(error).rstrip(".")) from None


def _commit_of(record: dict[str, Any]) -> Commit:
    unknown = record.keys() - {"decisions", "rewards", "adjustments"}
    if unknown or not record:
        raise ValueError(f"it is no commit (it has {', '.join(sorted(unknown)) or 'nothing'})")
    try:
        return clean_commit(commit_from_record(record))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"it is no commit ({error!r})") from None
    except StorageError as error:
        raise ValueError(str(error).rstrip(".")) from None


def audit(storage: BanditStorage) -> list[str]:
    """Add up everything that is stored, and return where the counts differ from it.

    Integers have to be equal, floats within :data:`AUDIT_TOLERANCE`.

    :raises StorageError: the storage cannot be read
    """
    before = storage.read_counts()
    for _ in range(AUDIT_ATTEMPTS):
        sums, sizes = _add_up(storage)
        after = storage.read_counts()
        if after == before:
            return _differences(after, sums, sizes)
        before = after
    return [
        f"Commits went on during each of {AUDIT_ATTEMPTS} attempts to compare the counts with what"
        " is stored, so it is not known whether they agree. Try again when there is less traffic."
    ]


def _add_up(storage: BanditStorage) -> tuple[dict[CountKey, float], dict[CountKey, float]]:
    """Return the sums of all increments that count, and the sums of their sizes."""
    sums: dict[CountKey, float] = {}
    sizes: dict[CountKey, float] = {}
    for commit in storage.iter_commits():
        # Each commit holds all that it takes to tell what counts.
        for (bandit, version), delta in Ledger().apply(commit).applied:
            for arm, row in delta.counts.items():
                for name, value in row.items():
                    key = CountKey(bandit, version, arm, name)
                    sums[key] = sums.get(key, 0) + value
                    sizes[key] = sizes.get(key, 0) + abs(value)
    return sums, sizes


def _differences(
    counts: Counts, sums: Mapping[CountKey, float], sizes: Mapping[CountKey, float]
) -> list[str]:
    counted = {
        CountKey(bandit, version, arm, name): value
        for (bandit, version), arms in counts.items()
        for arm, row in arms.items()
        for name, value in row.items()
    }
    problems = []
    for key in sorted({*counted, *sums}):
        count, total = counted.get(key, 0), sums.get(key, 0)
        allowed = 0 if is_whole(key.name) else AUDIT_TOLERANCE * sizes.get(key, 0)
        if not abs(count - total) <= allowed:
            problems.append(
                f"{key.bandit!r} version {key.version}, arm {key.arm!r}: the count of {key.name!r}"
                f" is {count!r}, and what is stored adds up to {total!r}. Export it and import it"
                " into a new storage, which counts anew."
            )
    return problems
