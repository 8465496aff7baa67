"""The signed cookie: who the visitor is and which arms they hold. Nothing else is in it.

The text is ``version byte + payload + "." + signature``; any text at all can be read, and what
was not signed with one of the app's keys reads as no cookie.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from itsdangerous import BadData, Signer, URLSafeSerializer
from itsdangerous.encoding import base64_encode

from ..errors import ConfigurationError
from ..hashing import hash_decision
from ..model import HELD_OUT

FORMAT = "1"
SALT = "flask-bandit.cookie.v1"
MAX_INBOUND = 4096
_SHORT = 100
"""Bytes up to which a cookie is not compressed: it would save little or nothing."""

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_VISITOR = re.compile(r"(?:[A-Za-z0-9_-]{22})?\Z")
"""Empty where only a subject has come so far."""


class Pending(NamedTuple):
    """A decision shown by a prefetch and not counted yet.

    :param propensity: probability of the arm at the draw
    :param at: seconds since the epoch at the draw
    """

    propensity: float
    at: float
    policy_version: str


class Assignment(NamedTuple):
    """The arm that a visitor holds.

    :param reassigned: how often the visitor got another arm of this version: because the one
        before was removed, or, of a bandit that is not sticky, at each choice
    :param origin: how the decision's id differs from the hash of its holder: empty, an ending, or
        the whole id of a decision that was made before the holder was known
    :param adopted: a subject goes on with this anonymous decision, so no other one may
    """

    arm: str
    version: int
    reassigned: int = 0
    pending: Pending | None = None
    origin: str = ""
    adopted: bool = False

    def decision_id(self, holder: str, bandit: str) -> str:
        """Return the id of the decision behind it.

        :param holder: the visitor's id or the subject's pseudonym
        """
        if self.origin not in ("", HELD_OUT):
            return self.origin
        return hash_decision(holder, bandit, self.version, self.reassigned)[0] + self.origin

    def decision_ids(self, holder: str, bandit: str, ahead: int = 0) -> set[str]:
        """Return the ids of that decision and of those that the holder had before, in any form.

        :param ahead: how many numbers may be taken that this cookie does not know of
        """
        others = {
            hash_decision(holder, bandit, self.version, number)[0] + ending
            for number in range(self.reassigned + 1 + ahead)
            for ending in ("", HELD_OUT)
        }
        return others | {self.decision_id(holder, bandit)}

    def dump(self) -> list[Any]:
        """Return the assignment as a short JSON list; defaults at the end are left out."""
        pending = list(self.pending) if self.pending else 0
        row = [self.arm, self.version, self.reassigned, pending, self.origin, int(self.adopted)]
        while len(row) > 2 and not row[-1]:
            row.pop()
        return row

    @classmethod
    def load(cls, row: list[Any]) -> Assignment:
        """Read what :meth:`dump` wrote."""
        row = [*row, *(0, 0, "", 0)[len(row) - 2 :]]
        pending = Pending(*row[3]) if row[3] else None
        return cls(row[0], row[1], row[2], pending, row[4], bool(row[5]))


@dataclass
class CookieContent:
    """What a visitor's cookie says.

    :param visitor: 128 random bits, base64url; empty for a visitor without a cookie
    :param issued_at: seconds since the epoch at which it was signed
    :param assignments: bandit -> assignment, the oldest first, of the anonymous visitor
    :param subject: whose ``own`` are, as the beginning of a pseudonym; empty for nobody
    :param own: bandit -> assignment of that subject, as storage has it
    :param outdated: signed with a fallback key, or in an older format
    """

    visitor: str = ""
    issued_at: int = 0
    assignments: dict[str, Assignment] = field(default_factory=dict)
    subject: str = ""
    own: dict[str, Assignment] = field(default_factory=dict)
    outdated: bool = False


def new_visitor() -> str:
    """Return a fresh visitor id."""
    return secrets.token_urlsafe(16)


class AssignmentCodec:
    """Signs and reads the cookie's text.

    :param keys: the secret keys; the first signs, the others (fallbacks) only verify
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        self._serializers = [_Serializer(key) for key in keys]

    def dumps(self, content: CookieContent) -> str:
        """Return the signed text."""
        rows = {name: held.dump() for name, held in content.assignments.items()}
        payload: list[Any] = [content.visitor, content.issued_at, rows]
        if content.own:
            own = {name: held.dump() for name, held in content.own.items()}
            payload += [content.subject, own]
        return FORMAT + self._serializers[0].dumps(payload)

    def loads(self, text: str) -> CookieContent:
        """Read a cookie; anything that this app did not sign is an empty content."""
        if len(text) > MAX_INBOUND or not text.startswith(FORMAT):
            return CookieContent()
        for index, serializer in enumerate(self._serializers):
            try:
                visitor, issued_at, rows, subject, own = [
                    *serializer.loads(text[len(FORMAT) :]),
                    "",
                    {},
                ][:5]
                assignments = {name: Assignment.load(row) for name, row in rows.items()}
                of_subject = {name: Assignment.load(row) for name, row in own.items()}
            except (BadData, ValueError, TypeError, AttributeError, IndexError):
                # Only BadData can come from outside; the others mean that another program signs
                # with our key and salt, which is no reason to show a visitor an error.
                continue
            if not isinstance(visitor, str) or not _VISITOR.match(visitor):
                continue
            return CookieContent(
                visitor, int(issued_at), assignments, subject, of_subject, outdated=index > 0
            )
        return CookieContent()


def codec_for(secret_key: Any, fallbacks: Any) -> AssignmentCodec:
    """Make the codec for an app's SECRET_KEY and SECRET_KEY_FALLBACKS.

    :raises ConfigurationError: there is no SECRET_KEY
    """
    if not secret_key:
        raise ConfigurationError(
            "Flask-Bandit signs its cookie and needs a SECRET_KEY: set app.config['SECRET_KEY'] "
            "to a long random value, the same for all workers, for example the output of "
            "python -c 'import secrets; print(secrets.token_hex())'"
        )
    return AssignmentCodec([secret_key, *(fallbacks or ())])


class _Serializer(URLSafeSerializer):
    """Writes what an ``URLSafeSerializer`` reads, and prepares once what that does each time."""

    def __init__(self, key: str | bytes) -> None:
        derived = Signer(
            key, salt=SALT, key_derivation="hmac", digest_method=hashlib.sha256
        ).derive_key()
        super().__init__(
            derived,
            salt=SALT,
            signer_kwargs={"key_derivation": "none", "digest_method": hashlib.sha256},
        )
        self._signer = super().make_signer()

    def make_signer(self, salt: str | bytes | None = None) -> Signer:
        return self._signer

    def dumps(self, obj: Any, salt: str | bytes | None = None) -> str:
        return self._signer.sign(self.dump_payload(obj)).decode()

    def loads(self, s: str | bytes, salt: str | bytes | None = None, **kwargs: Any) -> Any:
        return self.load_payload(self._signer.unsign(s))

    def dump_payload(self, obj: Any) -> bytes:
        text = _json(obj).encode()
        return base64_encode(text) if len(text) <= _SHORT else super().dump_payload(obj)
