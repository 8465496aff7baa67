"""Ids and shares that follow from who the visitor is: no random generator in the request path."""

from __future__ import annotations

import hashlib

from .model import DEFAULT_GOAL


def hash_decision(visitor: str, bandit: str, version: int, reassigned: int) -> tuple[str, float]:
    """Return a decision's id (32 hex digits) and its uniform number in [0, 1).

    :param visitor: the cookie's visitor id, or a subject's pseudonym
    :param reassigned: how often this visitor was re-assigned because an arm had been removed
    """
    digest = _digest(visitor, bandit, str(version), str(reassigned))
    return digest[:16].hex(), _share(digest[16:])


def hash_share(visitor: str, purpose: str, name: str) -> float:
    """Return a number in [0, 1) that stays the same for a visitor, a purpose and a name."""
    return _share(_digest(visitor, name, purpose)[16:])


def reward_id(decision_id: str, goal: str = DEFAULT_GOAL, event: str = "") -> str:
    """Return the id under which a reward counts once.

    :param event: for goals that count every time: what tells this event from another
    """
    # So that the goal "a:b" is never taken for the event "b" of the goal "a".
    goal = goal.replace("%", "%25").replace(":", "%3A")
    return f"{decision_id}:{goal}:{event}" if event else f"{decision_id}:{goal}"


def is_held_out(visitor: str, bandit: str, holdout: float) -> bool:
    """Return whether a visitor belongs to the share that always gets the control."""
    return holdout > 0.0 and hash_share(visitor, "holdout", bandit) < holdout


def _digest(*parts: str) -> bytes:
    text = "\x1f".join(parts)
    return hashlib.blake2b(text.encode(), digest_size=24, person=b"flask-bandit").digest()


def _share(eight_bytes: bytes) -> float:
    # 53 bits: a float holds no more, and 64 could round up to 1.0.
    return (int.from_bytes(eight_bytes, "big") >> 11) / 2**53
