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

FORMAT = "1"
SALT = "flask-bandit.cookie.v1"
MAX_INBOUND = 4096
_SHORT = 100
"""Bytes up to which a cookie is not compressed: it would save little or nothing."""

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_VISITOR = re.compile(r"[A-Za-z0-9_-]{22}\Z")


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

    :param reassigned: how often the visitor's arm of this version was removed and replaced
    """

    arm: str
    version: int
    reassigned: int = 0
    pending: Pending | None = None

    def dump(self) -> list[Any]:
        """Return the assignment as a short JSON list; defaults at the end are left out."""
        row: list[Any] = [self.arm, self.version]
        if self.reassigned or self.pending:
            row.append(self.reassigned)
        if self.pending:
            row.append(list(self.pending))
        return row

    @classmethod
    def load(cls, row: list[Any]) -> Assignment:
        """Read what :meth:`dump` wrote."""
        pending = Pending(*row[3]) if len(row) > 3 else None
        return cls(row[0], row[1], row[2] if len(row) > 2 else 0, pending)


@dataclass
class CookieContent:
    """What a visitor's cookie says.

    :param visitor: 128 random bits, base64url; empty for a visitor without a cookie
    :param issued_at: seconds since the epoch at which it was signed
    :param assignments: bandit -> assignment, the oldest first
    :param outdated: signed with a fallback key, or in an older format
    """

    visitor: str = ""
    issued_at: int = 0
    assignments: dict[str, Assignment] = field(default_factory=dict)
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
        return FORMAT + self._serializers[0].dumps([content.visitor, content.issued_at, rows])

    def loads(self, text: str) -> CookieContent:
        """Read a cookie; anything that this app did not sign is an empty content."""
        if len(text) > MAX_INBOUND or not text.startswith(FORMAT):
            return CookieContent()
        for index, serializer in enumerate(self._serializers):
            try:
                visitor, issued_at, rows = serializer.loads(text[len(FORMAT) :])
                assignments = {name: Assignment.load(row) for name, row in rows.items()}
            except (BadData, ValueError, TypeError, AttributeError, IndexError):
                # Only BadData can come from outside; the others mean that another program signs
                # with our key and salt, which is no reason to show a visitor an error.
                continue
            if not isinstance(visitor, str) or not _VISITOR.match(visitor):
                continue
            return CookieContent(visitor, int(issued_at), assignments, outdated=index > 0)
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
