"""What can be stored: checks a commit before anything is written, and turns it into plain records.

Every storage of this package refuses the same commits, because they all come through here.
Imports only the model, the errors and the standard library.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from math import isfinite
from typing import Any

from ..errors import StorageError
from ..model import BanditKey, Decision, Reward, StatsDelta, Term
from .base import Adjustment, Commit, ControlState, DecisionWrite, RewardWrite

Record = dict[str, Any]
"""A dict that JSON can represent exactly."""

_WHOLE = frozenset({"pulls", "rewards", "late", "skipped"})
LARGEST_INTEGER = 2**63 - 1

_encode_sorted = json.JSONEncoder(sort_keys=True).encode


def is_whole(name: str) -> bool:
    """Return whether a sum counts things, so that it is an int: as its last part says."""
    return name.rpartition(":")[2] in _WHOLE


def clean_commit(commit: Commit) -> Commit:
    """Return an independent copy of ``commit`` that holds only plain, finite, storable values.

    Tuples inside a context become lists and subclasses of the number types become plain numbers,
    as they will be when they are read back.

    :raises StorageError: a value cannot be stored; nothing of the commit should be
    """
    decisions = [
        DecisionWrite(_clean_decision(write.decision), _clean_delta(write.delta))
        for write in commit.decisions
    ]
    rewards = [
        RewardWrite(
            _clean_reward(write.reward), None if write.delta is None else _clean_delta(write.delta)
        )
        for write in commit.rewards
    ]
    adjustments = [
        Adjustment(
            _id(item.id, "adjustment id"),
            _id(item.bandit, "bandit name"),
            _integer(item.version, "version"),
            _clean_delta(item.delta),
        )
        for item in commit.adjustments
    ]
    return Commit(tuple(decisions), tuple(rewards), tuple(adjustments))


def clean_control(state: ControlState) -> dict[str, Any]:
    """Return an independent copy of a control state that holds only what JSON gives back.

    :raises StorageError: it is no mapping, or a value cannot be stored
    """
    return clean_document(state, "control")


def clean_document(state: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return an independent copy of a mapping that holds only what JSON gives back.

    :param what: what an error calls it
    :raises StorageError: it is no mapping, or a value cannot be stored
    """
    # A storage that took anything else could not read it back.
    if not isinstance(state, Mapping):
        raise StorageError(f"The {what} state is {state!r}, a {_type_name(state)}; give a dict.")
    return _clean_mapping(state, what)


def clean_contexts(
    contexts: Mapping[str, Mapping[str, Any] | None],
) -> dict[str, dict[str, Any] | None]:
    """Return an independent copy of contexts, by decision, that holds only what JSON gives back.

    :raises StorageError: one of them cannot be stored
    """
    return {
        id_: None if context is None else clean_document(context, "context")
        for id_, context in contexts.items()
    }


def clean_bandit(name: object) -> str:
    """Return the name of a bandit whose control is to be written, as plain text.

    :raises StorageError: it is none that a commit could have
    """
    return _id(name, "bandit name")


def clean_key(key: BanditKey) -> BanditKey:
    """Return a bandit's name as plain text, and its version.

    :raises StorageError: they are none that a commit could have
    """
    return BanditKey(clean_bandit(key.bandit), _integer(key.version, "version"))


def control_text(state: ControlState) -> str:
    """Write a control state as JSON, so that equal texts are equal states: ``True`` is not 1.

    :raises StorageError: a value cannot be stored
    """
    return _encode_sorted(clean_control(state))


def control_from_text(text: str | bytes) -> dict[str, Any]:
    """Read a control state, however its JSON is spelled.

    :raises ValueError: it is none
    """
    try:
        state = json.loads(text)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if not isinstance(state, dict):
        raise ValueError(f"{text!r} is not a JSON object")
    return state


def _clean_decision(decision: Decision) -> Decision:
    propensities = decision.propensities
    context = decision.context
    subject = decision.subject
    return Decision(
        id=_id(decision.id, "decision id"),
        bandit=_id(decision.bandit, "bandit name"),
        version=_integer(decision.version, "version"),
        arm=_id(decision.arm, "arm id"),
        propensities=None if propensities is None else _clean_row(propensities, "propensity"),
        policy_version=_id(decision.policy_version, "policy version"),
        at=_number(decision.at, "time of a decision"),
        context=None if context is None else _clean_mapping(context, "context"),
        subject=None if subject is None else _id(subject, "subject"),
    )


def _clean_reward(reward: Reward) -> Reward:
    return Reward(
        id=_id(reward.id, "reward id"),
        decision_id=_id(reward.decision_id, "decision id"),
        bandit=_id(reward.bandit, "bandit name"),
        version=_integer(reward.version, "version"),
        arm=_id(reward.arm, "arm id"),
        value=_number(reward.value, "reward"),
        at=_number(reward.at, "time of a reward"),
        goal=_id(reward.goal, "goal"),
    )


def _clean_delta(delta: StatsDelta) -> StatsDelta:
    counts = {}
    for arm, row in delta.counts.items():
        clean = _clean_row(row, "increment of")
        for name, value in clean.items():
            if is_whole(name) and type(value) is not int:
                raise StorageError(
                    f"The increment of {name!r} for arm {arm!r} is {value!r}; it counts"
                    " things and must be an int."
                )
        counts[_id(arm, "arm id")] = clean
    return StatsDelta(counts, tuple(map(_clean_term, delta.terms)))


def _clean_term(term: Term) -> Term:
    what = f"array {term.name!r} of arm {term.arm!r}"
    vector = tuple(
        value if type(value) is float and isfinite(value) else float(_number(value, what))
        for value in term.vector
    )
    if not vector:
        raise StorageError(f"What is added to the {what} is empty; leave the term out.")
    largest = max(map(abs, vector))
    if term.outer and not isfinite(largest * largest):
        raise StorageError(f"The square of {largest!r}, for the {what}, is too large for a float.")
    return Term(_id(term.arm, "arm id"), _id(term.name, "name"), vector, bool(term.outer))


def _clean_row(row: Mapping[str, float], what: str) -> dict[str, float]:
    clean: dict[str, float] = {}
    for name, value in row.items():
        # The common cases of each request, without building the words for an error.
        if not (value == 1 if type(value) is int else type(value) is float and isfinite(value)):
            value = _number(value, f"{what} {name!r}")
        if not (type(name) is str and name.isprintable()):
            name = _id(name, "name")
        clean[name] = value
    return clean


def _id(value: object, what: str) -> str:
    """Check an id or a name: text in any script, no control characters, no lone surrogates."""
    if type(value) is str and value.isprintable():
        return value
    text = _string(value, what)
    # isprintable() refuses joiners and other invisible but lawful characters as well.
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise StorageError(
            f"The {what} {text!r} contains a control character or half of a surrogate pair;"
            " use printable text."
        )
    return text


def _string(value: object, what: str) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise StorageError(f"The {what} is {value!r}, a {_type_name(value)}; it must be a str.")


def _text(value: object, what: str) -> str:
    """Check a text in a context: anything but lone surrogates, which no encoding has."""
    text = _string(value, what)
    if not text.isascii() and any(unicodedata.category(c) == "Cs" for c in text):
        raise StorageError(f"{what} is {text!r}, which holds half of a surrogate pair.")
    return text


def _integer(value: object, what: str) -> int:
    if type(value) is int:
        if abs(value) <= LARGEST_INTEGER:
            return value
        raise StorageError(f"The {what} is an int of more than 63 bits.")
    raise StorageError(f"The {what} is {value!r}, a {_type_name(value)}; it must be an int.")


def _number(value: object, what: str) -> float:
    """Check a finite number; ints stay ints."""
    if isinstance(value, int):
        if abs(value) <= LARGEST_INTEGER:
            return int(value)
        raise StorageError(f"The {what} is an int of more than 63 bits; use a float.")
    if isinstance(value, float):
        if isfinite(value):
            return float(value)
        raise StorageError(f"The {what} is {value!r}; it must be a finite number.")
    raise StorageError(
        f"The {what} is {value!r}, a {_type_name(value)}; convert it to an int or a float"
        " (a numpy scalar by .item())."
    )


def _clean_mapping(value: Mapping[str, Any], path: str) -> dict[str, Any]:
    clean = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise StorageError(
                f"{path} has the key {key!r}, a {_type_name(key)}; JSON keys must be str."
            )
        clean[_text(key, path)] = _clean_value(item, path, key)
    return clean


def _clean_value(value: object, path: str, key: str | int) -> Any:
    """Copy one value of a context into what JSON gives back."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    path = f"{path}[{key!r}]"
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, (int, float)):
        return _number(value, path)
    if isinstance(value, Mapping):
        return _guarded(_clean_mapping, value, path)
    if isinstance(value, (list, tuple)):
        return _guarded(_clean_list, value, path)
    raise StorageError(
        f"{path} is {value!r}, a {_type_name(value)}, which JSON cannot represent; use str, int,"
        " float, bool, None, lists and dicts."
    )


def _clean_list(value: list[Any] | tuple[Any, ...], path: str) -> list[Any]:
    return [_clean_value(item, path, index) for index, item in enumerate(value)]


def _guarded(clean: Any, value: object, path: str) -> Any:
    """Recurse, and tell a value that contains itself instead of overflowing the stack."""
    if path.count("[") > 50:
        raise StorageError(f"{path[:60]}... is nested more than 50 levels deep; flatten it.")
    return clean(value, path)


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def commit_to_record(commit: Commit) -> Record:
    """Turn a clean commit into a record; :func:`commit_from_record` turns it back."""
    record: Record = {}
    if commit.decisions:
        record["decisions"] = [
            {**_decision_record(write.decision), **_delta_record(write.delta)}
            for write in commit.decisions
        ]
    if commit.rewards:
        record["rewards"] = [reward_write_to_record(write) for write in commit.rewards]
    if commit.adjustments:
        record["adjustments"] = [
            {
                "id": item.id,
                "bandit": item.bandit,
                "version": item.version,
                **_delta_record(item.delta),
            }
            for item in commit.adjustments
        ]
    return record


def commit_from_record(record: Record) -> Commit:
    """Turn a record back into a commit.

    :raises KeyError, TypeError: the record is not of :func:`commit_to_record`
    """
    return Commit(
        tuple(
            DecisionWrite(decision_from_record(item), _delta_of(item))
            for item in record.get("decisions", ())
        ),
        tuple(reward_write_from_record(item) for item in record.get("rewards", ())),
        tuple(
            Adjustment(item["id"], item["bandit"], item["version"], _delta_of(item))
            for item in record.get("adjustments", ())
        ),
    )


def _delta_record(delta: StatsDelta) -> Record:
    record: Record = {"delta": delta.counts}
    if delta.terms:
        record["terms"] = [
            [term.arm, term.name, term.vector, *([True] if term.outer else [])]
            for term in delta.terms
        ]
    return record


def _delta_of(record: Record) -> StatsDelta:
    terms = (
        Term(arm, name, tuple(vector), *outer)
        for arm, name, vector, *outer in record.get("terms", ())
    )
    return StatsDelta(record["delta"], tuple(terms))


def _decision_record(decision: Decision) -> Record:
    record: Record = {
        "id": decision.id,
        "bandit": decision.bandit,
        "version": decision.version,
        "arm": decision.arm,
        "propensities": decision.propensities,
        "policy_version": decision.policy_version,
        "at": decision.at,
    }
    if decision.context is not None:
        record["context"] = decision.context
    if decision.subject is not None:
        record["subject"] = decision.subject
    return record


def decision_from_record(record: Record) -> Decision:
    """Turn one of a record's ``decisions`` back into a decision."""
    return Decision(
        id=record["id"],
        bandit=record["bandit"],
        version=record["version"],
        arm=record["arm"],
        propensities=record["propensities"],
        policy_version=record["policy_version"],
        at=record["at"],
        context=record.get("context"),
        subject=record.get("subject"),
    )


def reward_write_to_record(write: RewardWrite) -> Record:
    """Turn a reward and its increment into a record."""
    reward = write.reward
    return {
        "id": reward.id,
        "decision": reward.decision_id,
        "bandit": reward.bandit,
        "version": reward.version,
        "arm": reward.arm,
        "value": reward.value,
        "at": reward.at,
        "goal": reward.goal,
        **({"delta": None} if write.delta is None else _delta_record(write.delta)),
    }


def reward_write_from_record(record: Record) -> RewardWrite:
    """Turn one of a record's ``rewards`` back into a reward and its increment."""
    delta = None if record["delta"] is None else _delta_of(record)
    return RewardWrite(reward_from_record(record), delta)


def reward_from_record(record: Record) -> Reward:
    """Turn one of a record's ``rewards`` back into the reward alone."""
    return Reward(
        id=record["id"],
        decision_id=record["decision"],
        bandit=record["bandit"],
        version=record["version"],
        arm=record["arm"],
        value=record["value"],
        at=record["at"],
        goal=record["goal"],
    )
