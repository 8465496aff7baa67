"""Logs in files as entries: an export, a decision log in JSON Lines, or CSV of anybody's.

Works on lines of text, one at a time. Pure; must not import Flask or a storage.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..errors import ConfigurationError
from ..model import Decision, LogEntry, Reward

FROM_FILE = "file"
"""The policy version of decisions that a CSV file holds."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a CSV file are called; all others are features.

    :param arm: that was taken
    :param reward: that it earned
    :param propensity: probability with which it was taken
    """

    arm: str = "arm"
    reward: str = "reward"
    propensity: str = "propensity"


def read_events(
    lines: Iterable[str],
    name: str,
    *,
    columns: Columns | None = None,
    features: Collection[str] = (),
    numeric: Collection[str] = (),
    bandit: str | None = None,
) -> Iterator[LogEntry]:
    """Yield the decisions in a file, each with its rewards.

    Understood are what ``flask bandit export`` writes, the JSON Lines of a decision log, and CSV
    with a line of headings. Of a row of CSV only the probability of the arm taken is known.

    :param lines: with their ends
    :param name: what errors call the file
    :param columns: of CSV, if they have other names
    :param features: columns that CSV must have; an empty cell is a missing value
    :param numeric: those of them that hold numbers
    :param bandit: whose decisions to read; may be left out if there is one only
    :raises ConfigurationError: a line that cannot be read; the message names it
    """
    remaining = iter(lines)
    first = next((line for line in remaining), "")
    everything = chain([first], remaining)
    if first.lstrip().startswith("{"):
        found = _of_json(everything, name)
    else:
        found = _of_csv(everything, name, columns or Columns(), features, numeric)
    return _of_one_bandit(found, name, bandit)


def _of_one_bandit(
    entries: Iterable[LogEntry], name: str, bandit: str | None
) -> Iterator[LogEntry]:
    only = None
    others: set[str] = set()
    for entry in entries:
        its = entry.decision.bandit
        if bandit is not None:
            # A row of CSV is of no bandit.
            if its in (bandit, ""):
                only = its
                yield entry
            else:
                others.add(its)
            continue
        if only is None:
            only = its
        if its != only:
            raise ConfigurationError(
                f"{name} holds decisions of {only!r} and of {its!r}; name the bandit to read"
            )
        yield entry
    if others and only is None:
        known = ", ".join(map(repr, sorted(others)))
        raise ConfigurationError(f"{name} has no decision of {bandit!r}; it has those of {known}")


def _of_json(lines: Iterable[str], name: str) -> Iterator[LogEntry]:
    is_export = ended = False
    number = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("it is not a JSON object")
            if number == 1 and "format" in record:
                is_export = True
            elif "id" in record:
                yield LogEntry(_decision(record), _rewards(record["rewards"], record))
            elif is_export:
                ended = ended or "end" in record
                yield from _of_commit(record)
            else:
                raise ValueError("it is neither a decision nor of an export")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise _bad_line(name, number, error) from None
    if is_export and not ended:
        raise ConfigurationError(
            f"{name} was cut off after line {number}: the line that ends an export is missing; "
            "export it again"
        )


def _of_commit(record: Mapping[str, Any]) -> Iterator[LogEntry]:
    for plain in record.get("decisions", ()):
        decision = _decision(plain)
        if decision.stands_for is None:
            mine = [one for one in record.get("rewards", ()) if one["decision"] == decision.id]
            yield LogEntry(decision, _rewards(mine, plain))


def _decision(plain: Mapping[str, Any]) -> Decision:
    propensities, context = plain["propensities"], plain.get("context")
    if propensities is not None:
        propensities = {
            _text(arm): _chance(chance, zero=True) for arm, chance in propensities.items()
        }
    if not isinstance(context, (dict, type(None))):
        raise ValueError(f"the context is {context!r}, not an object")
    # An export and the decision log have their own word for it.
    policy = plain["policy"] if "policy" in plain else plain["policy_version"]
    return Decision(
        id=_text(plain["id"]),
        bandit=_text(plain["bandit"]),
        version=int(plain["version"]),
        arm=_text(plain["arm"]),
        propensities=propensities,
        policy_version=_text(policy),
        at=_number(plain["at"], "the time"),
        context=context,
        subject=plain.get("subject"),
    )


def _rewards(
    records: Sequence[Mapping[str, Any]], decision: Mapping[str, Any]
) -> tuple[Reward, ...]:
    return tuple(
        Reward(
            id=_text(plain["id"]),
            decision_id=decision["id"],
            bandit=decision["bandit"],
            version=decision["version"],
            arm=decision["arm"],
            value=_number(plain["value"], "the reward"),
            at=_number(plain["at"], "the time of the reward"),
            goal=_text(plain["goal"]),
        )
        for plain in records
    )


def _of_csv(
    lines: Iterable[str],
    name: str,
    columns: Columns,
    features: Collection[str],
    numeric: Collection[str],
) -> Iterator[LogEntry]:
    reader = csv.reader(lines, strict=True)
    try:
        headings = next(reader, [])
        _check_headings(headings, name, [*vars(columns).values(), *features])
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(headings):
                raise ValueError(
                    f"it has {len(cells)} cells, and there are {len(headings)} headings"
                )
            row = dict(zip(headings, cells, strict=True))
            yield _of_row(row, reader.line_num, columns, numeric)
    except (csv.Error, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise _bad_line(name, reader.line_num, error) from None


def _check_headings(headings: Sequence[str], name: str, wanted: Sequence[str]) -> None:
    if {"decision", "probabilities", "rewards"} <= set(headings):
        raise ConfigurationError(
            f"{name} is a decision log for a spreadsheet, which has rounded rewards; download the "
            "log as JSON Lines, or write it with 'flask bandit export'"
        )
    missing = [column for column in wanted if column not in headings]
    if missing:
        raise ConfigurationError(
            f"{name}, line 1: there is no column {missing[0]!r}; its columns are "
            f"{', '.join(map(repr, headings)) or 'none'}"
        )
    if len(set(headings)) != len(headings):
        raise ConfigurationError(f"{name}, line 1: two columns have the same name; rename one")


def _of_row(
    row: Mapping[str, str], line: int, columns: Columns, numeric: Collection[str]
) -> LogEntry:
    arm = row[columns.arm]
    if not arm:
        raise ValueError(f"the column {columns.arm!r} is empty; write the arm that was taken")
    chance = _chance(_parsed(row, columns.propensity), zero=False)
    value = _parsed(row, columns.reward)
    context: dict[str, Any] = {
        name: _parsed(row, name) if name in numeric else cell
        for name, cell in row.items()
        if cell and name not in vars(columns).values()
    }
    at, event = float(line), f"line {line}"
    decision = Decision(event, "", 1, arm, {arm: chance}, FROM_FILE, at, context)
    return LogEntry(decision, (Reward(event, event, "", 1, arm, value, at),))


def _parsed(row: Mapping[str, str], column: str) -> float:
    try:
        number = float(row[column])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"the column {column!r} holds {row[column]!r}; write a number")
    return number


def _number(value: Any, what: str) -> float:
    # A bool is an int in Python, not in JSON.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what} is {value!r}, not a number")
    return float(value)


def _chance(value: Any, *, zero: bool) -> float:
    chance = _number(value, "a probability")
    if not (chance > 0.0 or (zero and chance == 0.0)) or chance > 1.0 + 1e-9:
        least = "from 0" if zero else "above 0"
        raise ValueError(f"a probability is {chance:g}; it must be {least} to 1")
    return chance


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _bad_line(name: str, number: int, error: Exception) -> ConfigurationError:
    if isinstance(error, KeyError):
        text = f"it lacks {error}"
    elif isinstance(error, (json.JSONDecodeError, RecursionError)):
        text = "it is not JSON, or it was cut off"
    else:
        text = str(error)
    return ConfigurationError(
        f"{name}, line {number}: {text}. Correct the line, or write the file again"
    )
