"""The two files that can be rebuilt from the journal: a summary for people, an index for restarts.

Both carry the mark of the journal that they were made at and a checksum of their own; one that is
damaged is ignored. Imports only the model, the errors and the standard library.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Mapping
from typing import Any

from ...model import BanditKey, Counts
from ..base import ControlState, RewardWrite
from ..codec import reward_write_from_record, reward_write_to_record
from ..ledger import Ledger, Waiting
from .arrays import arrays_from_record, arrays_to_record
from .journal import Mark

FORMAT = 1
INDEX_FORMAT = 3
"""An index of format 1 is of a version that passed over control states in the journal, and one of
format 2 over arrays."""
_SEAL = b',\n  "checksum": "%08x"\n}\n'
_SEAL_LENGTH = len(_SEAL % 0)
_INDEX_PATTERN = re.compile(
    rb'\{"journal": \{"generation": "([0-9a-f]+)", "offset": (\d+), "chain": (\d+),'
    rb' "lines": (\d+)\},\n"format": %d,' % INDEX_FORMAT
)


def seal(text: str) -> bytes:
    """Close a JSON object, given without its last brace, with a checksum of all before it."""
    body = text.encode()
    return body + _SEAL % zlib.crc32(body)


def unseal(content: bytes) -> dict[str, Any] | None:
    """Return what :func:`seal` closed, or ``None`` if it is anything else."""
    body, ending = content[:-_SEAL_LENGTH], content[-_SEAL_LENGTH:]
    if ending != _SEAL % zlib.crc32(body):
        return None
    try:
        document = json.loads(content)
    except ValueError:
        return None
    if isinstance(document, dict) and document.get("format") in range(FORMAT, INDEX_FORMAT + 1):
        return document
    return None


def is_current_index(document: dict[str, Any]) -> bool:
    """Tell whether an index holds all that :func:`restore_index` takes over."""
    return bool(document["format"] == INDEX_FORMAT)


def mark_of(document: dict[str, Any]) -> Mark:
    """Return the mark in a summary or an index."""
    return Mark(**document["journal"])


def peek_mark(path: str) -> Mark | None:
    """Return the mark of a current index without reading all of it; ``None`` without one."""
    try:
        with open(path, "rb") as file:
            found = _INDEX_PATTERN.match(file.read(2000))
    except OSError:
        return None
    if found is None:
        return None
    generation, *numbers = found.groups()
    return Mark(generation.decode(), *map(int, numbers))


def _mark_line(mark: Mark) -> str:
    return (
        f'"journal": {{"generation": "{mark.generation}", "offset": {mark.offset},'
        f' "chain": {mark.chain}, "lines": {mark.lines}}}'
    )


def make_summary(counts: Counts, mark: Mark, journal_path: str) -> bytes:
    """Write the counts for people: one line per arm, indented by bandit and version."""
    note = (
        f"Counts for reading, rewritten as they change. Edits here are ignored: what counts is"
        f" {os.path.basename(journal_path)}"
    )
    written = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    bandits: dict[str, dict[int, str]] = {}
    for key in sorted(counts):
        rows = ",\n".join(f"        {_dump(arm)}: {_dump(row)}" for arm, row in counts[key].items())
        bandits.setdefault(key.bandit, {})[key.version] = f"{{\n{rows}\n      }}"
    blocks = ",\n".join(
        f"    {_dump(bandit)}: {{\n"
        + ",\n".join(f'      "{version}": {block}' for version, block in versions.items())
        + "\n    }"
        for bandit, versions in bandits.items()
    )
    return seal(
        f'{{\n  "note": {_dump(note)},\n  "format": {FORMAT},\n  "written": "{written}",\n'
        f'  {_mark_line(mark)},\n  "bandits": {{\n{blocks}\n  }}'
    )


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def make_index(
    ledger: Ledger, places: Mapping[str, int], control: Mapping[str, ControlState], mark: Mark
) -> bytes:
    """Write what a new process needs in order to start at ``mark`` instead of at the beginning."""
    numbers = {id(slot): number for number, slot in enumerate(ledger.slots())}
    document = {
        "format": INDEX_FORMAT,
        "slots": [[*slot.key, slot.arm] for slot in ledger.slots()],
        "decisions": list(ledger.decisions),
        "decision_slots": [numbers[id(slot)] for slot in ledger.decisions.values()],
        "decision_offsets": [places[decision_id] for decision_id in ledger.decisions],
        "rewards": list(ledger.rewards),
        "adjustments": list(ledger.adjustments),
        "waiting": [
            {"write": reward_write_to_record(RewardWrite(w.reward, w.delta)), "arm": w.arm}
            for w in ledger.waiting.values()
        ],
        "counts": [[*key, arms] for key, arms in ledger.counts.items()],
        "arrays": arrays_to_record(ledger.arrays),
        "control": control,
    }
    return seal(f"{{{_mark_line(mark)},\n{json.dumps(document)[1:-1]}")


def restore_index(
    document: dict[str, Any],
) -> tuple[Ledger, dict[str, int], dict[str, ControlState]]:
    """Return the ledger, the places of its decisions and the control that an index holds."""
    ledger = Ledger()
    slots = [ledger.slot(*fields) for fields in document["slots"]]
    ids = document["decisions"]
    ledger.decisions = {
        id_: slots[number] for id_, number in zip(ids, document["decision_slots"], strict=True)
    }
    ledger.rewards = set(document["rewards"])
    ledger.adjustments = set(document["adjustments"])
    for item in document["waiting"]:
        write = reward_write_from_record(item["write"])
        ledger.wait(Waiting(write.reward, item["arm"], write.delta))
    ledger.restore_counts(
        {BanditKey(bandit, version): arms for bandit, version, arms in document["counts"]}
    )
    ledger.restore_arrays(arrays_from_record(document["arrays"]))
    places = dict(zip(ids, document["decision_offsets"], strict=True))
    return ledger, places, document["control"]
