"""A commit as the arguments of ``commit.lua``, and what is stored back as decisions and rewards.

The script parses no JSON: what it needs stands before it, separated by control characters, which no
id holds. Imports only the model, the errors and the standard library.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...errors import StorageCorruptError
from ...model import BanditKey, Decision, Reward, StatsDelta
from ..base import Adjustment, Commit, CommitResult, ControlState, DecisionWrite, StoredDigest
from ..codec import clean_bandit, clean_key, control_from_text, control_text, is_whole
from ..digests import digest_from_text, digest_text
from ..settle import StoredReward

US = "\x1f"
RS = "\x1e"

_DIGEST = re.compile(rb"([1-9]\d*)\x1e[^\x1e]*\x1e(.*)", re.DOTALL)
"""A revision, the id of the call that wrote it, and a text; ``digest.lua`` has this too."""

_plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_escaped = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def _dump(value: object) -> bytes:
    try:
        return _plain(value).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair in a context or a subject; as an escape it comes back as it was.
        return _escaped(value).encode()


def _delta_text(delta: StatsDelta | None) -> str:
    if delta is None:
        return "-"
    parts = ["+"]
    for arm, row in delta.counts.items():
        for name, value in row.items():
            parts += (arm, name, f"#{value}" if is_whole(name) else repr(value))
    return US.join(parts)


def _delta(text: str) -> StatsDelta | None:
    if text == "-":
        return None
    parts = text.split(US)
    counts: dict[str, dict[str, float]] = {}
    for arm, name, value in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        counts.setdefault(arm, {})[name] = _number(value.removeprefix("#"))
    return StatsDelta(counts)


def _known_delta(text: str) -> StatsDelta:
    delta = _delta(text)
    if delta is None:
        raise ValueError("an increment is missing")
    return delta


def _number(text: str) -> float:
    return int(text) if text.removeprefix("-").isdigit() else float(text)


def _details(decision: Decision) -> bytes:
    values = (
        decision.at,
        decision.propensities,
        decision.policy_version,
        decision.context,
        decision.subject,
    )
    last = 5 if decision.subject is not None else 4 if decision.context is not None else 3
    return _dump(values[:last])


def _slot(decision: Decision) -> str:
    return f"{decision.bandit}{US}{decision.version}{US}{decision.arm}"


def commit_arguments(commit: Commit) -> list[str | bytes | int]:
    """Return what follows the keys in a call of ``commit.lua``."""
    arguments: list[str | bytes | int] = [
        len(commit.decisions),
        len(commit.rewards),
        len(commit.adjustments),
    ]
    for write in commit.decisions:
        made = write.decision
        arguments += (made.id, _slot(made), _delta_text(write.delta), _details(made))
    for sent in commit.rewards:
        given = sent.reward
        arguments += (
            given.id,
            given.decision_id,
            f"{given.bandit}{US}{given.version}",
            given.arm,
            _delta_text(sent.delta),
            _dump((given.at, given.value, given.goal, given.arm)),
        )
    for item in commit.adjustments:
        arguments += (item.id, f"{item.bandit}{US}{item.version}", _delta_text(item.delta))
    return arguments


def changed_text(text: bytes, decision: Decision) -> bytes:
    """Return a stored decision with the details of another one."""
    slot, delta, _ = text.split(RS.encode(), 2)
    return b"%b\x1e%b\x1e%b" % (slot, delta, _details(decision))


def read_decision(id_: str, text: bytes | None) -> DecisionWrite:
    """Turn a stored decision back.

    :raises StorageCorruptError: it is none
    """
    try:
        if text is None:
            raise ValueError("it is missing")
        slot, delta, details = text.decode().split(RS, 2)
        bandit, version, arm = slot.split(US)
        at, propensities, policy_version, *more = json.loads(details)
        decision = Decision(id_, bandit, int(version), arm, propensities, policy_version, at, *more)
        return DecisionWrite(decision, _known_delta(delta))
    except (ValueError, TypeError) as error:
        raise corrupt(f"the decision {id_!r}") from error


def read_reward(id_: str, text: bytes | None) -> tuple[int, StoredReward]:
    """Turn a stored reward back, with the number that tells the order of rewards.

    :raises StorageCorruptError: it is none
    """
    try:
        if text is None:
            raise ValueError("it is missing")
        number, decision_id, key, arm, counted, delta, details = text.decode().split(RS, 6)
        bandit, version = key.split(US)
        at, value, goal, first_arm = json.loads(details)
        reward = Reward(id_, decision_id, bandit, int(version), first_arm, value, at, goal)
        return int(number), StoredReward(reward, arm, _delta(delta), counted == "1")
    except (ValueError, TypeError) as error:
        raise corrupt(f"the reward {id_!r}") from error


def read_adjustment(id_: str, text: bytes) -> tuple[int, Adjustment]:
    """Turn a stored adjustment back, with the number that tells their order.

    :raises StorageCorruptError: it is none
    """
    try:
        number, key, delta = text.decode().split(RS)
        bandit, version = key.split(US)
        return int(number), Adjustment(id_, bandit, int(version), _known_delta(delta))
    except ValueError as error:
        raise corrupt(f"the adjustment {id_!r}") from error


def read_sums(flat: Sequence[bytes]) -> dict[BanditKey, dict[str, dict[str, float]]]:
    """Turn fields and values of the hash of sums into counts.

    :raises StorageCorruptError: one is not a sum
    """
    counts: dict[BanditKey, dict[str, dict[str, float]]] = {}
    for place, value in pairs(flat):
        try:
            bandit, version, arm, name = place.decode().split(US)
            number = int(value) if is_whole(name) else float(value)
            key = BanditKey(bandit, int(version))
        except ValueError as error:
            raise corrupt(f"the sum {place!r}") from error
        counts.setdefault(key, {}).setdefault(arm, {})[name] = number
    return counts


class TimesOfBlock(NamedTuple):
    """What is known of the times of a part of the log.

    :param first: the place of its first entry, empty if that was not noted
    :param noted: how many of its decisions were noted
    """

    first: bytes
    noted: int
    least: float
    most: float


def read_times(flat: Sequence[bytes]) -> dict[int, TimesOfBlock]:
    """Turn fields and values of the hash of times into parts of the log, by their numbers.

    :raises StorageCorruptError: one is none
    """
    blocks = {}
    for number, value in pairs(flat):
        try:
            first, noted, least, most = value.split(US.encode())
            blocks[int(number)] = TimesOfBlock(first, int(noted), float(least), float(most))
        except ValueError as error:
            raise corrupt(f"the times of block {number!r}") from error
    return blocks


def control_arguments(
    bandit: str, expected: ControlState | None, state: ControlState
) -> list[str | bytes | int]:
    """Return what follows the key in a call of ``control.lua``.

    :raises StorageError: a value cannot be stored
    """
    seen = "" if expected is None else control_text(expected)
    return [clean_bandit(bandit), seen, control_text(state), uuid.uuid4().hex]


def read_control(flat: Sequence[bytes]) -> dict[str, ControlState]:
    """Turn fields and values of the hash of control states back.

    :raises StorageCorruptError: one is none
    """
    states: dict[str, ControlState] = {}
    for bandit, value in pairs(flat):
        try:
            _, text = value.split(RS.encode())
            states[bandit.decode()] = control_from_text(text)
        except ValueError as error:
            raise corrupt(f"the control state of {bandit!r}") from error
    return states


def digest_field(key: BanditKey) -> str:
    """Return where the summary of a version's log is.

    :raises StorageError: no commit could have this bandit or version
    """
    return US.join(map(str, clean_key(key)))


def digest_arguments(
    key: BanditKey, state: Mapping[str, Any], revision: int
) -> list[str | bytes | int]:
    """Return what follows the key in a call of ``digest.lua``.

    :raises StorageError: a value cannot be stored
    """
    call = uuid.uuid4().hex
    return [digest_field(key), revision, f"{revision + 1}{RS}{call}{RS}{digest_text(state)}", call]


def read_digest(value: bytes | None) -> StoredDigest | None:
    """Turn the summary of a log back; one that is not of this library is empty."""
    if value is None:
        return None
    found = _DIGEST.fullmatch(value)
    return digest_from_text(int(found[1]), found[2]) if found else StoredDigest(0, {})


def pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the fields and values of a hash."""
    return zip(flat[::2], flat[1::2], strict=True)


def ids_in(text: bytes | None) -> list[str]:
    """Return the ids of rewards that are kept as one text."""
    return [] if text is None else text.decode().split(US)


def corrupt(what: str) -> StorageCorruptError:
    """Return the error for what somebody else wrote below our keys."""
    return StorageCorruptError(
        f"In Redis, {what} is not what this library wrote. Nothing was reset: restore it from a"
        " backup, or use a prefix of its own for each application."
    )


@dataclass(slots=True)
class _Result:
    """The answer of the script, as far as it was read."""

    stored: dict[str, Decision]
    new: set[str] = field(default_factory=set)
    applied: list[tuple[tuple[str, int], StatsDelta]] = field(default_factory=list)
    parked: set[str] = field(default_factory=set)
    unlearned: list[tuple[Reward, Decision]] = field(default_factory=list)

    def add(self, key: BanditKey, delta: StatsDelta) -> None:
        """Note an increment that was added; that of a decision which stands for another is none."""
        if delta.counts or delta.terms:
            self.applied.append((key, delta))


def read_result(replies: Sequence[tuple[Commit, list[Any]]]) -> CommitResult:
    """Turn the script's answers into a result.

    The letters of an answer are ``N`` (a new decision, counted), ``D`` (a decision that was there,
    as it is stored), ``R`` (a new reward), ``C`` (a reward that is counted now), ``P`` (one that
    waits for its decision), ``U`` (one that fits no increment, with its decision), ``A`` (a new
    adjustment, counted) and ``E`` (nothing was stored below these keys before). ``N``, ``D``,
    ``R``, ``C`` and ``A`` give the place in the commit; ``C`` gives -1 if its increment was stored.

    :param replies: what was sent, whole or a bandit's part of it, and its answer
    """
    result = _Result({})
    for part, reply in replies:
        _read_reply(part, iter(reply), result)
    return CommitResult(
        decisions=result.stored,
        new=frozenset(result.new),
        applied=tuple(result.applied),
        parked=frozenset(result.parked),
        unlearned=tuple(result.unlearned),
    )


def _read_reply(commit: Commit, reply: Iterator[Any], result: _Result) -> None:
    for letter in reply:
        if letter == b"N":
            write = commit.decisions[next(reply)]
            made = write.decision
            result.stored[made.id] = made
            result.new.add(made.id)
            result.add(made.key, write.delta)
        elif letter == b"D":
            id_ = commit.decisions[next(reply)].decision.id
            text = next(reply)
            if id_ not in result.stored:
                result.stored[id_] = read_decision(id_, text).decision
        elif letter == b"R":
            result.new.add(commit.rewards[next(reply)].reward.id)
        elif letter == b"C":
            _, row = read_reward(next(reply).decode(), next(reply))
            sending = next(reply)
            # As it was sent, with its terms, unless the increment was stored before.
            delta = row.delta if sending < 0 else commit.rewards[sending].delta
            assert delta is not None
            result.add(row.reward.key, delta)
        elif letter == b"P":
            result.parked.add(next(reply).decode())
        elif letter == b"U":
            _, row = read_reward(next(reply).decode(), next(reply))
            decision = read_decision(next(reply).decode(), next(reply)).decision
            result.unlearned.append((row.reward, decision))
        elif letter == b"A":
            item = commit.adjustments[next(reply)]
            result.new.add(item.id)
            result.add(BanditKey(item.bandit, item.version), item.delta)


def by_bandit(commit: Commit) -> dict[str, Commit]:
    """Split a commit into one for each bandit."""
    names: dict[str, None] = {}
    for write in commit.decisions:
        names[write.decision.bandit] = None
    for sent in commit.rewards:
        names[sent.reward.bandit] = None
    for item in commit.adjustments:
        names[item.bandit] = None
    return {
        name: Commit(
            tuple(w for w in commit.decisions if w.decision.bandit == name),
            tuple(w for w in commit.rewards if w.reward.bandit == name),
            tuple(item for item in commit.adjustments if item.bandit == name),
        )
        for name in names
    }
