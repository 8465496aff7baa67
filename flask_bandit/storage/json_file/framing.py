"""The lines of a journal: how each is closed by checksums, and what the first one says.

Knows nothing of files or bandits; imports only the standard library.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

FORMAT = 1
GENERATION_DIGITS = 32
_HEX = b"0123456789abcdef"


def frame(payload: bytes, chain: int) -> bytes:
    """Make the line that holds ``payload`` in a file whose bytes so far have the CRC ``chain``."""
    body = b'"%08x",%b]' % (chain, payload)
    return b'["%08x",%b\n' % (zlib.crc32(body), body)


def unframe(line: bytes, chain: int | None = None) -> Any:
    """Return what a line holds.

    :param chain: CRC of the file before the line; ``None`` checks the line alone
    :raises ValueError: it is not a line as :func:`frame` makes them, or not at this place
    """
    body = line[12:-1]
    if line[:12] != b'["%08x",' % zlib.crc32(body) or line[-1:] != b"\n":
        raise ValueError("its checksum does not match")
    if chain is not None and body[:11] != b'"%08x",' % chain:
        raise ValueError("it does not continue the line before it")
    return json.loads(body[11:-1])


def make_header(generation: str, prunes: int = 0) -> bytes:
    """Make the first line.

    :param prunes: how often details of decisions were removed; not written if never
    """
    content: dict[str, Any] = {
        "journal": "flask-bandit",
        "format": FORMAT,
        "generation": generation,
    }
    if prunes:
        content["prunes"] = prunes
    return frame(json.dumps(content, separators=(",", ":")).encode(), 0)


def header_of(line: bytes) -> dict[str, Any] | None:
    """Return the content of a whole first line, or ``None`` if it is not one."""
    try:
        content = unframe(line, 0)
    except ValueError:
        return None
    if isinstance(content, dict) and content.get("journal") == "flask-bandit":
        return content
    return None


def is_torn_header(content: bytes) -> bool:
    """Tell whether writing the first line was interrupted before its end."""
    # The checksum and the generation may be any digits: they are compared by their kind.
    sample = make_header("0" * GENERATION_DIGITS)[:-1]
    generation = range(len(sample) - 3 - GENERATION_DIGITS, len(sample) - 3)
    return len(content) < len(sample) and all(
        got in _HEX if 2 <= at < 10 or at in generation else got == sample[at]
        for at, got in enumerate(content)
    )


def is_complete_json(content: bytes) -> bool:
    """Tell whether a whole JSON value stands at the start; a torn line never is one."""
    try:
        json.JSONDecoder().raw_decode(content.decode("latin-1"))
    except ValueError:
        return False
    return True
