"""Who is counted: what a request's method, headers, address and the app say about the visitor."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from flask import Request

from ..engine import logger
from ..errors import ConfigurationError
from ..plugins import import_object
from .config import BanditConfig, Network

if TYPE_CHECKING:
    from .state import AppState
    from .throttle import Throttle

Address: TypeAlias = IPv4Address | IPv6Address
Prefixes: TypeAlias = tuple[tuple[int, int, frozenset[int]], ...]


class Counting(Enum):
    """How a request's choices count."""

    COUNTED = "counted"
    PENDING = "prefetch"
    """Shown later, perhaps: the arm is kept and counted by the next real request."""
    UNCOUNTED = "uncounted"
    """Gets an arm, is not counted, and nothing is kept."""


class Verdict(NamedTuple):
    """How a request counts, and why.

    :param reason: ``head``, ``network``, ``bot``, ``filter`` or ``prefetch``; empty if counted
    """

    counting: Counting
    reason: str


COUNTED = Verdict(Counting.COUNTED, "")
PREFETCH = Verdict(Counting.PENDING, "prefetch")
HEAD = Verdict(Counting.UNCOUNTED, "head")
NETWORK = Verdict(Counting.UNCOUNTED, "network")
BOT = Verdict(Counting.UNCOUNTED, "bot")
FILTER = Verdict(Counting.UNCOUNTED, "filter")


@dataclass(frozen=True)
class Rules:
    """What an app's settings say about its visitors, made ready to be asked.

    :param is_robot: tells robots by their user agent; ``None`` if they are not told apart
    :param excluded: the networks' prefixes by IP version and number of host bits, so that long
        lists cost no more than short ones
    """

    is_robot: Callable[[str], bool] | None
    excluded: Prefixes
    throttle: Throttle | None

    @classmethod
    def from_config(cls, config: BanditConfig) -> Rules:
        """Load what the settings need.

        :raises ConfigurationError: a package is missing, or the limit cannot be meant
        """
        return cls(_robots(config), _prefixes(config.excluded_networks), _throttle(config))


def verdict_of(state: AppState, request: Request) -> Verdict:
    """Tell how the choices of this request count.

    :raises ConfigurationError: a setting about visitors cannot be followed
    """
    if request.method in ("HEAD", "OPTIONS"):
        return HEAD
    rules = state.rules
    if rules.excluded and _is_within(request.remote_addr, rules.excluded):
        return NETWORK
    # From the environ: looking for a header that is not there costs an exception each.
    headers = request.environ.get
    user_agent = headers("HTTP_USER_AGENT")
    if user_agent and rules.is_robot is not None and rules.is_robot(user_agent):
        return BOT
    wanted = state.hooks.visitor_filter
    if wanted is not None and not ask(state, wanted, "visitor_filter", otherwise=True):
        return FILTER
    purpose = headers("HTTP_SEC_PURPOSE") or headers("HTTP_PURPOSE") or headers("HTTP_X_MOZ")
    if purpose and "prefetch" in purpose.lower():
        return PREFETCH
    return COUNTED


def has_consent(state: AppState) -> bool:
    """Return whether the visitor may be remembered and counted; to be asked inside a request."""
    consent = state.hooks.consent
    return consent is None or ask(state, consent, "consent_loader", otherwise=False)


def within_limit(state: AppState, request: Request) -> bool:
    """Count one visitor for the request's network and return whether it is within its limit.

    To be called once for a request that is about to make a new counted decision.

    :raises ConfigurationError: the limit cannot be meant, or there is no SECRET_KEY
    """
    throttle = state.rules.throttle
    network = _network_of(request.remote_addr) if throttle is not None else None
    if throttle is None or network is None:
        return True
    return throttle.admits(_pseudonym(state, network))


def _robots(config: BanditConfig) -> Callable[[str], bool] | None:
    if config.bots is False or (config.bots is None and find_spec("crawleruseragents") is None):
        return None
    is_robot: Callable[[str], bool] = import_object("flask_bandit.web.crawlers:is_robot")
    return is_robot


def _throttle(config: BanditConfig) -> Throttle | None:
    if config.network_limit is None:
        return None
    make = import_object("flask_bandit.web.throttle:Throttle")
    throttle: Throttle = make(
        config.network_limit, config.network_limit_uri, config.storage_timeout
    )
    return throttle


def ask(state: AppState, function: Callable[[], Any], name: str, otherwise: bool) -> bool:
    """Ask a function of the app; one that fails must not cost the visitor the page.

    :param name: what it is called in the log
    :param otherwise: what it counts as then
    """
    try:
        # A coroutine, not awaited, would count as a yes.
        return bool(state.app.ensure_sync(function)())
    except Exception:
        logger.exception("The app's %s failed, so its answer is taken as %s", name, otherwise)
        return otherwise


def _prefixes(networks: Iterable[Network]) -> Prefixes:
    grouped: dict[tuple[int, int], set[int]] = {}
    for network in networks:
        host_bits = network.max_prefixlen - network.prefixlen
        prefix = int(network.network_address) >> host_bits
        grouped.setdefault((network.version, host_bits), set()).add(prefix)
    return tuple((*kind, frozenset(found)) for kind, found in grouped.items())


def _is_within(address: str | None, excluded: Prefixes) -> bool:
    return any(
        known.version == version and int(known) >> host_bits in prefixes
        for known in _parse_address(address)
        for version, host_bits, prefixes in excluded
    )


def _parse_address(address: str | None) -> tuple[Address, ...]:
    """Return an address as IPv4 and IPv6 have it: one IPv4 address may be written as both."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        # A proxy may hand over any text of a client, and a Unix socket has none.
        return ()
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return (parsed.ipv4_mapped, parsed)
    return (parsed,)


def _network_of(address: str | None) -> str | None:
    """Return the /24 of an IPv4 address or the /64 of an IPv6 address: what one customer has."""
    found = _parse_address(address)
    if not found:
        return None
    host_bits = 8 if found[0].version == 4 else 64
    return f"{found[0].version}:{int(found[0]) >> host_bits:x}"


def _pseudonym(state: AppState, network: str) -> str:
    """Return what the limiter knows a network by; without the app's key it leads nowhere."""
    secret = state.app.secret_key
    if not secret:
        raise ConfigurationError("MAB_NETWORK_LIMIT needs the app's SECRET_KEY; set one")
    key = secret if isinstance(secret, bytes) else secret.encode()
    return hmac.digest(key, f"flask-bandit network {network}".encode(), "sha256").hex()
