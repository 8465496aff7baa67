"""How many visitors of one network are counted: a thin face of the package limits.

The only module that imports that package; loaded where ``MAB_NETWORK_LIMIT`` is set.
"""

from __future__ import annotations

from typing import Any

from limits import RateLimitItem, parse_many
from limits.errors import ConfigurationError as LimitsConfigurationError
from limits.storage import Storage, storage_from_string
from limits.strategies import FixedWindowRateLimiter

from ..breaker import Attempt, Call, CircuitBreaker
from ..engine import logger
from ..errors import ConfigurationError


class Throttle:
    """Counts per key and window; while its storage fails, nobody is over the limit.

    :param limit: such as ``"100/hour"``; several are separated by ``;``
    :param uri: where the limiter's counts are kept, such as ``memory://`` or ``redis://...``
    :param timeout: seconds that one question may take
    :raises ConfigurationError: a limit or a URI that cannot be meant
    """

    def __init__(self, limit: str, uri: str, timeout: float) -> None:
        self._limits = _parse(limit)
        self._uri = uri
        self._timeout = timeout
        self._breaker = CircuitBreaker()
        self._limiter: FixedWindowRateLimiter | None = None
        try:
            self._limiter = self._connect()
        except ConfigurationError:
            raise
        except Exception as error:
            # Some storages connect at once; the network may come later.
            logger.debug("The storage of MAB_NETWORK_LIMIT does not answer yet: %s", error)

    def admits(self, key: str) -> bool:
        """Count one visitor for a key and return whether the key is within its limit."""
        attempt = Attempt(self._timeout)
        if not self._breaker.allows(attempt):
            return True
        try:
            limiter = self._limiter = self._limiter or self._connect()
            # All of them before judging: each window counts, whatever the others say.
            answers = [limiter.hit(limit, "flask-bandit", key) for limit in self._limits]
        except Exception as error:
            if self._breaker.failed(attempt, Call.READ):
                logger.warning(
                    "MAB_NETWORK_LIMIT is not applied: its storage fails (%s). Visitors are "
                    "counted meanwhile.",
                    error,
                )
            return True
        if self._breaker.succeeded(Call.READ):
            logger.info("MAB_NETWORK_LIMIT is applied again.")
        return all(answers)

    def _connect(self) -> FixedWindowRateLimiter:
        scheme = self._uri.partition(":")[0]
        try:
            storage: Any = storage_from_string(self._uri, **_timeouts(scheme, self._timeout))
        except (LimitsConfigurationError, ValueError) as error:
            # Not chained, and the message of an unknown scheme left out: both repeat the URI,
            # which may hold a password.
            hint = "" if self._uri in str(error) else f": {error}"
            raise ConfigurationError(
                f"MAB_NETWORK_LIMIT_URI, which begins with {scheme[:20]!r}, is of no use{hint}; "
                "write 'memory://', or 'redis://host:6379/0' with the package redis installed"
            ) from None
        if not isinstance(storage, Storage):
            raise ConfigurationError(
                f"MAB_NETWORK_LIMIT_URI begins with {scheme!r}; remove 'async+'"
            )
        return FixedWindowRateLimiter(storage)


def _parse(limit: str) -> list[RateLimitItem]:
    try:
        limits = parse_many(limit)
    except ValueError:
        limits = []
    if not limits or min(item.amount for item in limits) < 1:
        raise ConfigurationError(
            f"MAB_NETWORK_LIMIT is {limit!r}; write a number of visitors, 1 or more, and a span "
            "of time, such as '100/hour'"
        )
    return limits


def _timeouts(scheme: str, seconds: float) -> dict[str, float]:
    """Return options with which connecting and answering take no longer than the deadline."""
    if not scheme.startswith(("redis", "valkey")):
        return {}
    return {"socket_connect_timeout": seconds / 2, "socket_timeout": seconds / 2}
