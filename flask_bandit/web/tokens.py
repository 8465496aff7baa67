"""Reward tokens: signed words that let whoever brings them reward one decision for one goal, later.

The text is ``payload + "." + signature``, in letters that are safe in a body, in JSON and in a URL.
It never holds a value: what a reward is worth, the server says when the token comes back.
"""

from __future__ import annotations

import hashlib
import re
import time
from typing import NamedTuple

from flask import has_request_context
from flask.globals import request_ctx
from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from ..breaker import Attempt
from ..control import ARCHIVED
from ..errors import StorageError, TokenError
from ..model import HELD_OUT, Decision
from . import signals
from .contexts import ContextSource
from .earned import earned_key, goal_of, reward_for
from .request import current_request_state, request_state
from .state import AppState
from .visit import Visit
from .visitors import Counting

SALT = "flask-bandit.token.v1"
MAX_INBOUND = 4096
_SEPARATOR = "\x1f"
"""No name of a bandit, an arm or a goal may hold a control character."""
_HASHED = re.compile(r"[0-9a-f]{32}\Z")
_HASH, _HELD_OUT_HASH, _TEXT = b"0", b"1", b"2"
"""How a payload begins: which form the decision's id has."""


class Token(NamedTuple):
    """What a reward token says.

    :param expires: seconds since the epoch
    """

    decision_id: str
    bandit: str
    version: int
    arm: str
    goal: str
    expires: int

    def dump(self) -> bytes:
        """Return a short form; an id that is a hash takes 16 bytes."""
        plain = self.decision_id.removesuffix(HELD_OUT)
        names = [self.bandit, f"{self.version:x}", self.arm, self.goal, f"{self.expires:x}"]
        if _HASHED.match(plain):
            kind = _HASH if plain == self.decision_id else _HELD_OUT_HASH
            return kind + bytes.fromhex(plain) + _SEPARATOR.join(names).encode()
        return _TEXT + _SEPARATOR.join([*names, self.decision_id]).encode()

    @classmethod
    def load(cls, payload: bytes) -> Token:
        """Read what :meth:`dump` wrote."""
        kind, rest = payload[:1], payload[1:]
        if kind == _TEXT:
            *names, id_ = rest.decode().split(_SEPARATOR)
        else:
            names = rest[16:].decode().split(_SEPARATOR)
            id_ = rest[:16].hex() + (HELD_OUT if kind == _HELD_OUT_HASH else "")
        bandit, version, arm, goal, expires = names
        return cls(id_, bandit, int(version, 16), arm, goal, int(expires, 16))

    def decision(self) -> Decision:
        """Return the decision behind the token, as far as the token knows it."""
        return Decision(
            id=self.decision_id,
            bandit=self.bandit,
            version=self.version,
            arm=self.arm,
            propensities=None,
            policy_version="",
            at=time.time(),
        )


class TokenCodec:
    """Signs and reads tokens.

    :param key: signs
    :param fallbacks: verify as well, as keys that were in use before
    """

    def __init__(self, key: str | bytes, fallbacks: tuple[str | bytes, ...] = ()) -> None:
        # The last one signs.
        keys = [k if isinstance(k, bytes) else k.encode() for k in (*fallbacks, key)]
        self._signer = Signer(keys, salt=SALT, key_derivation="hmac", digest_method=hashlib.sha256)

    def dumps(self, token: Token) -> str:
        """Return the signed text."""
        return self._signer.sign(base64_encode(token.dump())).decode()

    def loads(self, text: str, now: float) -> Token:
        """Read a token.

        :param now: seconds since the epoch
        :raises TokenError: this app did not sign it, or its time is over
        """
        token = self._verified(text)
        if token is None and not text:
            raise TokenError("the token is empty: the visitor it was made for is not counted")
        if token is None:
            raise TokenError(
                "this app did not sign the token: hand it over as reward_token() gave it, and keep "
                "old keys in SECRET_KEY_FALLBACKS"
            )
        if token.expires < now:
            raise TokenError("the token has expired; MAB_TOKEN_TTL says how long tokens live")
        return token

    def _verified(self, text: object) -> Token | None:
        if not isinstance(text, str) or len(text) > MAX_INBOUND or not text.isascii():
            return None
        try:
            return Token.load(base64_decode(self._signer.unsign(text)))
        except (BadData, ValueError):
            # Only BadData can come from outside; a ValueError means that another program signs
            # with our key and salt.
            return None


def codec_of(state: AppState) -> TokenCodec:
    """Return the codec for the keys that the app has now.

    :raises ConfigurationError: there is no SECRET_KEY
    """
    _ = state.codec
    config = state.app.config
    return TokenCodec(config["SECRET_KEY"], tuple(config.get("SECRET_KEY_FALLBACKS") or ()))


def token_of(
    visit: Visit, name: str, goal: str | None = None, context: ContextSource = None
) -> str:
    """Return a token for the visitor's arm, empty where nothing is counted."""
    state = visit.state
    goal = goal_of(state.bandits[name], goal)
    visit.choose(name, context)
    if visit.is_forgotten or visit.verdict.counting is Counting.UNCOUNTED:
        return ""
    how = visit.shown[name].how
    if how not in ("decided", "remembered", "prefetch"):
        return ""
    if how == "prefetch" and not visit.keeps_prefetched(name):
        return ""
    decision = visit.settled_decision(name)
    if decision is None or (decision.subject is not None and decision.propensities is not None):
        # What a prefetch shows a user may be another device's decision by the time it is stored.
        return ""
    expires = int(time.time() + state.config.token_ttl)
    token = Token(decision.id, name, decision.version, decision.arm, goal, expires)
    return codec_of(state).dumps(token)


def reward_token(name: str, *, goal: str | None = None, context: ContextSource = None) -> str:
    """Return a token that rewards this visitor's arm later, from a job, a webhook or JavaScript.

    It lives for ``MAB_TOKEN_TTL`` and is brought back to :meth:`BanditMiddleware.reward_by_token`.
    The arm is chosen if the visitor holds none. Where the bandit is not sticky, the token is for
    this request's choice, which is stored at once, whatever the response will be.

    :param name: the bandit's registered name
    :param goal: what the token rewards; the bandit's own goal if left out
    :param context: for the choice, see :func:`~flask_bandit.suggest_arm_for`
    :return: empty if this visitor is not counted, as a robot or while the storage is down
    :raises UnknownBanditError: no bandit has that name
    """
    return token_of(request_state(), name, goal, context)


def reward_by_token(state: AppState, text: str, value: float, goal: str | None, event: str) -> bool:
    """Store the reward that a token permits; see :meth:`BanditMiddleware.reward_by_token`."""
    token = codec_of(state).loads(text, time.time())
    if goal not in (None, token.goal):
        raise TokenError(f"the token is for the goal {token.goal!r}, not for {goal!r}")
    return spend(state, token, value, event)


def spend(state: AppState, token: Token, value: float, event: str) -> bool:
    """Store the reward that a verified token permits.

    :return: True if it was new
    """
    bandit = state.bandits[token.bandit]
    key = earned_key(token.bandit, bandit, token.goal, event)
    reward = reward_for(token.decision(), key, bandit.check_reward(value, token.goal))
    attempt = _attempt(state)
    if not state.config.enabled or state.engine.control(token.bandit, attempt).state == ARCHIVED:
        return False
    result = state.engine.commit([], [reward], attempt)
    if result is None:
        raise StorageError(
            "the bandits' storage is down, so the token was not counted; bring it again later"
        )
    is_new = reward.id in result.new
    if is_new:
        signals.send(signals.reward_recorded, state.app, reward=reward)
    return is_new


def _attempt(state: AppState) -> Attempt:
    """Return the deadline of the request, if one is being answered that has touched a bandit."""
    if has_request_context():
        current = current_request_state(state, request_ctx.request)
        if current is not None:
            return current.attempt
    return state.engine.attempt()
