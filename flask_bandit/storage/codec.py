"""What can be stored: checks a commit before anything is written, and turns it into plain records.

Every storage of this package refuses the same commits, because they all come through here.
Imports only the model, the errors and the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from ..errors import StorageError
from ..model import BanditKey, Decision, Reward, StatsDelta, Term
from .base import Adjustment, Commit, ControlState, DecisionWrite, RewardWrite
from .values import clean_integer, clean_mapping, clean_name, clean_number, type_name

Record = dict[str, Any]
"""A dict that JSON can represent exactly."""

_WHOLE = frozenset({"pulls", "rewards", "late", "skipped"})

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
            clean_name(item.id, "adjustment id"),
            clean_name(item.bandit, "bandit name"),
            clean_integer(item.version, "version"),
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
        raise StorageError(f"The {what} state is {state!r}, a {type_name(state)}; give a dict.")
    return clean_mapping(state, what)


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
    return clean_name(name, "bandit name")


def clean_key(key: BanditKey) -> BanditKey:
    """Return a bandit's name as plain text, and its version.

    :raises StorageError: they are none that a commit could have
    """
    return BanditKey(clean_bandit(key.bandit), clean_integer(key.version, "version"))


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
        id=clean_name(decision.id, "decision id"),
        bandit=clean_name(decision.bandit, "bandit name"),
        version=clean_integer(decision.version, "version"),
        arm=clean_name(decision.arm, "arm id"),
        propensities=None if propensities is None else _clean_row(propensities, "propensity"),
        policy_version=clean_name(decision.policy_version, "policy version"),
        at=clean_number(decision.at, "time of a decision"),
        context=None if context is None else clean_mapping(context, "context"),
        subject=None if subject is None else clean_name(subject, "subject"),
    )


def _clean_reward(reward: Reward) -> Reward:
    return Reward(
        id=clean_name(reward.id, "reward id"),
        decision_id=clean_name(reward.decision_id, "decision id"),
        bandit=clean_name(reward.bandit, "bandit name"),
        version=clean_integer(reward.version, "version"),
        arm=clean_name(reward.arm, "arm id"),
        value=clean_number(reward.value, "reward"),
        at=clean_number(reward.at, "time of a reward"),
        goal=clean_name(reward.goal, "goal"),
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
        counts[clean_name(arm, "arm id")] = clean
    return StatsDelta(counts, tuple(map(_clean_term, delta.terms)))


def _clean_term(term: Term) -> Term:
    what = f"array {term.name!r} of arm {term.arm!r}"
    vector = tuple(
        value if type(value) is float and isfinite(value) else float(clean_number(value, what))
        for value in term.vector
    )
    if not vector:
        raise StorageError(f"What is added to the {what} is empty; leave the term out.")
    largest = max(map(abs, vector))
    if term.outer and not isfinite(largest * largest):
        raise StorageError(f"The square of {largest!r}, for the {what}, is too large for a float.")
    arm, name = clean_name(term.arm, "arm id"), clean_name(term.name, "name")
    return Term(arm, name, vector, bool(term.outer))


def _clean_row(row: Mapping[str, float], what: str) -> dict[str, float]:
    clean: dict[str, float] = {}
    for name, value in row.items():
        # The common cases of each request, without building the words for an error.
        if not (value == 1 if type(value) is int else type(value) is float and isfinite(value)):
            value = clean_number(value, f"{what} {name!r}")
        if not (type(name) is str and name.isprintable()):
            name = clean_name(name, "name")
        clean[name] = value
    return clean


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

    :raises KeyError, TypeError, ValueError: the record is not of :func:`commit_to_record`
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
