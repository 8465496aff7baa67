"""Who a visitor is: somebody with a cookie, or a known subject, whose arms are in storage.

A subject is stored under a keyed pseudonym. Its decisions have ids made of that, so whatever
device asks first makes the decision, and all others find it.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

from flask import Flask

from ..breaker import Attempt
from ..control import Control
from ..engine import Engine, logger
from ..errors import ConfigurationError
from ..hashing import hash_decision, is_held_out
from ..model import HELD_OUT, MERGED, Decision
from .assignments import Assignment

if TYPE_CHECKING:
    from .hooks import Hooks

TAG = 8
"""How many characters of a pseudonym the cookie keeps, to know whose assignments it holds."""
AT_ONCE = 3
"""How many re-assignments are looked for in one go."""
MAX_REASSIGNED = 16 * AT_ONCE
"""How many removed arms of one subject are followed: more than any experiment has."""


class StorageAwayError(Exception):
    """Nobody can tell which arm the subject holds, since the storage is down."""


def pseudonyms_of(subject: str, keys: Sequence[str | bytes]) -> tuple[str, ...]:
    """Return a subject's pseudonym under each key: 22 characters that tell nothing without it."""
    found = []
    # Half of a surrogate pair cannot be stored, and may still be in an id.
    text = subject.encode(errors="surrogatepass")
    for key in keys:
        secret = key.encode() if isinstance(key, str) else key
        digest = hmac.new(secret, b"flask-bandit.subject\x1f" + text, hashlib.sha256)
        found.append(urlsafe_b64encode(digest.digest()[:16]).rstrip(b"=").decode())
    return tuple(found)


def subject_of(app: Flask, hooks: Hooks) -> str | None:
    """Return the signed-in user's id as a text, ``None`` for an anonymous visitor.

    A loader that raises is logged, and the visitor is anonymous.
    """
    load = hooks.subject
    if load is None:
        if not hasattr(app, "login_manager"):
            return None
        load = import_module("flask_bandit.web.login").signed_in_user
    try:
        # A coroutine, not awaited, would be somebody else in each request.
        return subject_id(app.ensure_sync(load)())
    except Exception:
        logger.exception("The subject loader failed, so the visitor counts as anonymous")
        return None


def subject_id(given: Any) -> str | None:
    """Return a user's id as a text, ``None`` for nobody.

    ``False`` is nobody too: it is what ``user.is_authenticated and user.id`` leaves.

    :raises ConfigurationError: ``True``, or an object that has no text of its own: such an id would
        be all users in one, or another user in each request
    """
    if given is None or given is False or given == "":
        return None
    kind: Any = type(given)
    is_nameless = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    if given is True or is_nameless:
        raise ConfigurationError(
            f"{given!r} is no user's id; return a text or a number, such as current_user.get_id()"
        )
    return str(given)


class Subject:
    """A known user as storage knows them.

    :param pseudonyms: under the present key, then under those that were in use before
    """

    def __init__(self, engine: Engine, pseudonyms: tuple[str, ...]) -> None:
        self._engine = engine
        self._pseudonyms = pseudonyms
        self.pseudonym = pseudonyms[0]
        self.tag = pseudonyms[0][:TAG]

    def find(self, name: str, control: Control, attempt: Attempt) -> tuple[Assignment | None, int]:
        """Return what the subject holds of a bandit, and how often it was re-assigned.

        :raises StorageAwayError: the storage is down
        """
        stored = self._stored(name, control.version, attempt)
        if not stored:
            return None, 0
        # The last one, also where an earlier arm is back: other devices have gone on with it.
        last = min(stored[-1], key=lambda decision: decision.at)
        is_held_out = Decision.is_id_held_out(last.stands_for or last.id)
        arms = self._engine.bandits[name].arm_ids
        if not control.holds(last.arm, arms, is_held_out=is_held_out):
            return None, len(stored)
        return self.assignment(last, len(stored) - 1), len(stored) - 1

    def decision_ids(self, name: str, version: int, attempt: Attempt) -> set[str]:
        """Return the ids of all that is stored about the subject in a bandit's version.

        :raises StorageAwayError: the storage is down
        """
        found = [d for decisions in self._stored(name, version, attempt) for d in decisions]
        return {d.id for d in found} | {d.stands_for for d in found if d.stands_for is not None}

    def _stored(self, name: str, version: int, attempt: Attempt) -> list[list[Decision]]:
        """Return the subject's first decisions, then those after the first re-assignment, ..."""
        found: list[list[Decision]] = []
        for first in range(0, MAX_REASSIGNED, AT_ONCE):
            ids = [
                [
                    hash_decision(pseudonym, name, version, reassigned)[0] + ending
                    for pseudonym in self._pseudonyms
                    for ending in ("", HELD_OUT)
                ]
                for reassigned in range(first, first + AT_ONCE)
            ]
            stored = self._engine.get_decisions(chain.from_iterable(ids), attempt)
            if stored is None:
                raise StorageAwayError
            for alike in ids:
                decisions = [stored[id_] for id_ in alike if id_ in stored]
                if not decisions:
                    return found
                found.append(decisions)
        return found

    def assignment(self, stored: Decision, reassigned: int) -> Assignment:
        """Return what a stored decision of this subject means for a cookie."""
        id_ = stored.stands_for or stored.id
        plain = hash_decision(self.pseudonym, stored.bandit, stored.version, reassigned)[0]
        own = id_ in (plain, plain + HELD_OUT)
        origin = id_.removeprefix(plain) if own else id_
        return Assignment(stored.arm, stored.version, reassigned, None, origin)

    def stand_in(self, decision: Decision, reassigned: int) -> Decision:
        """Return the decision that makes an anonymous one this subject's."""
        id_ = hash_decision(self.pseudonym, decision.bandit, decision.version, reassigned)[0]
        # The id that a decision of their own would have: whichever is stored first is the one.
        holdout = self._engine.bandits[decision.bandit].options.holdout
        is_out = is_held_out(self.pseudonym, decision.bandit, holdout)
        return Decision(
            id=id_ + HELD_OUT if is_out else id_,
            bandit=decision.bandit,
            version=decision.version,
            arm=decision.arm,
            propensities=None,
            policy_version=MERGED + decision.id,
            at=decision.at,
            subject=self.pseudonym,
        )
