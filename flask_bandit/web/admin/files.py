"""The decision log as a file: CSV for a spreadsheet, JSON Lines for a program.

Both are made line by line, so that a long log takes no more memory than a short one. Knows nothing
of Flask.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from itertools import islice
from typing import Any

from ...model import LogEntry

COLUMNS = (
    "time",
    "decision",
    "bandit",
    "version",
    "arm",
    "probability",
    "probabilities",
    "policy",
    "subject",
    "rewards",
    "context",
)
AT_ONCE = 200
"""Lines that are handed over together."""
_RUN = r"[\s\u200b\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]"
_FORMULA = re.compile(rf"^(?=[\t\r\n]|{_RUN})|(?<=[;\t\r\n])(?={_RUN})")
"""Where a spreadsheet may run what follows: an operator, also in full width and behind blanks, at
the beginning of a cell. Where decimals have a comma, a semicolon begins another cell."""


def utc(at: float, precision: str = "milliseconds") -> str:
    """Return a time as ISO 8601 has it, in UTC; one that no calendar has, in seconds."""
    try:
        return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec=precision)
    except (ValueError, OverflowError, OSError):
        return repr(at)


def short_utc(at: float) -> str:
    """Return a time to the second."""
    return utc(at, "seconds").replace("+00:00", "Z")


def as_json(value: Any) -> str:
    """Return a value on one line, as it is read best."""
    return json.dumps(value, ensure_ascii=False)


def probability(entry: LogEntry) -> float | None:
    """Return how probable the arm was that was shown; ``None`` if that is not known."""
    return (entry.decision.propensities or {}).get(entry.decision.arm)


def rewards_text(entry: LogEntry) -> str:
    """Return in one line what a decision earned."""
    return "; ".join(f"{one.goal}={one.value:g} at {utc(one.at)}" for one in entry.rewards)


def csv_chunks(entries: Iterable[LogEntry]) -> Iterator[str]:
    """Yield a CSV file with a line of headings. No cell of it is a formula."""
    lines = io.StringIO()
    write = csv.writer(lines).writerow
    write(COLUMNS)
    remaining = iter(entries)
    while True:
        some = list(islice(remaining, AT_ONCE))
        for entry in some:
            write([plain_cell(cell) for cell in _cells(entry)])
        yield lines.getvalue()
        if len(some) < AT_ONCE:
            return
        lines.seek(0)
        lines.truncate()


def json_chunks(entries: Iterable[LogEntry]) -> Iterator[str]:
    """Yield JSON Lines: an object for each decision, with everything that is stored about it."""
    remaining = iter(entries)
    while some := list(islice(remaining, AT_ONCE)):
        yield "".join(json.dumps(_plain(entry)) + "\n" for entry in some)


def plain_cell(value: Any) -> str:
    """Return a cell's text, with an apostrophe before what a spreadsheet would take as formula."""
    return _FORMULA.sub("'", "" if value is None else str(value))


FORMATS: Mapping[str, tuple[str, Callable[[Iterable[LogEntry]], Iterator[str]]]] = {
    "csv": ("text/csv", csv_chunks),
    "jsonl": ("application/jsonl", json_chunks),
}
"""What can be had: how a file's name ends -> its media type, and what makes its text."""


def file_name(bandit: str, ending: str) -> str:
    """Return the name of a file that no system chokes on."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", bandit)[:80].strip("_")
    return f"{plain or 'bandit'}-decisions.{ending}"


def _cells(entry: LogEntry) -> Iterator[Any]:
    made = entry.decision
    yield utc(made.at)
    yield from (made.id, made.bandit, made.version, made.arm, probability(entry))
    yield None if made.propensities is None else as_json(dict(made.propensities))
    yield from (made.policy_version, made.subject, rewards_text(entry))
    yield None if made.context is None else as_json(dict(made.context))


def _plain(entry: LogEntry) -> dict[str, Any]:
    made = entry.decision
    return {
        "time": utc(made.at),
        "at": made.at,
        "id": made.id,
        "bandit": made.bandit,
        "version": made.version,
        "arm": made.arm,
        "propensities": None if made.propensities is None else dict(made.propensities),
        "policy": made.policy_version,
        "subject": made.subject,
        "context": None if made.context is None else dict(made.context),
        "rewards": [
            {"id": one.id, "goal": one.goal, "value": one.value, "at": one.at}
            for one in entry.rewards
        ],
    }
