"""Summaries of logs as texts that any storage can keep, and back.

Imports only the protocol, the codec and the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .base import StoredDigest
from .codec import clean_document

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def digest_text(state: Mapping[str, Any]) -> str:
    """Write a summary of a log as JSON, all of it in ASCII.

    :raises StorageError: it is no mapping, or a value cannot be stored
    """
    return _encode(clean_document(state, "digest"))


def digest_from_text(revision: int, text: str | bytes) -> StoredDigest:
    """Read a summary of a log; one that is no JSON object is empty, so that it can be replaced."""
    try:
        state = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        state = None
    return StoredDigest(revision, state if isinstance(state, dict) else {})
