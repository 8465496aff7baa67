"""The only spelling of the ``MAB_*`` keys; reads an app's configuration into a frozen object."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeAlias

from ..errors import ConfigurationError
from ..options import duration
from ..plugins import nearest

Network: TypeAlias = IPv4Network | IPv6Network

ONE_YEAR = 365 * 24 * 3600
TEN_YEARS = 10 * ONE_YEAR
THIRTY_DAYS = 30 * 24 * 3600.0
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def _boolean(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ConfigurationError(f"{key} is {value!r}; write True or False")


def _optional_boolean(key: str, value: Any) -> bool | None:
    return None if value is None else _boolean(key, value)


def _seconds(key: str, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds <= TEN_YEARS or isinstance(value, bool):
        raise ConfigurationError(
            f"{key} is {value!r}; write a number of seconds above 0, at most ten years"
        )
    return seconds


def _ttl(key: str, value: Any) -> float | None:
    if value is None or (str(value) in ("0", "0.0")):
        return None if value is None else 0.0
    try:
        return _seconds(key, value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}, or 0") from None


def _ttl_or_zero(key: str, value: Any) -> float:
    return _ttl(key, 1.0 if value is None else value) or 0.0


def _duration(key: str, value: Any) -> float:
    try:
        return duration(value)
    except ValueError as error:
        raise ConfigurationError(f"{key} is {value!r}; {error}") from None


def _networks(key: str, value: Any) -> tuple[Network, ...]:
    texts = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(ip_network(str(text).strip()) for text in texts)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{key} is {value!r}; write a list of networks, such as ['10.0.0.0/8', '::1']: {error}"
        ) from None


def _whole_seconds(key: str, value: Any) -> int:
    return math.ceil(_seconds(key, value))


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{key} is {value!r}; write a text that is not empty")
    return value


def _cookie_name(key: str, value: Any) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ConfigurationError(f"{key} is {value!r}; write letters, digits, '-' and '_' only")
    return value


def _optional_text(key: str, value: Any) -> str | None:
    return None if value is None else _text(key, value)


def _samesite(key: str, value: Any) -> str | None:
    if value is None or value in ("Lax", "Strict", "None"):
        return None if value is None else str(value)
    raise ConfigurationError(f"{key} is {value!r}; write 'Lax', 'Strict', 'None' or None")


def _options(key: str, value: Any) -> tuple[Any, ...] | dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, list)):
        return tuple(value)
    raise ConfigurationError(f"{key} is {value!r}; write a tuple, as in ({value!r},), or a dict")


def _table(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise ConfigurationError(f"{key} is {value!r}; write a table of bandits by name")


def _any(key: str, value: Any) -> Any:
    return value


def _key(default: Any, parse: Callable[[str, Any], Any]) -> Any:
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True)
class BanditConfig:
    """One app's settings; the field ``cookie_name`` is the key ``MAB_COOKIE_NAME``, and so on."""

    storage_engine: Any = _key(None, _any)
    storage_opts: tuple[Any, ...] | dict[str, Any] = _key((), _options)
    storage_uri: str | None = _key(None, _optional_text)
    storage_timeout: float = _key(1.0, _seconds)
    sql_auto_migrate: bool | None = _key(None, _optional_boolean)
    stats_ttl: float | None = _key(None, _ttl)
    cookie_name: str = _key("MAB", _cookie_name)
    cookie_path: str = _key("/", _text)
    cookie_domain: str | None = _key(None, _optional_text)
    cookie_ttl: int = _key(ONE_YEAR, _whole_seconds)
    cookie_secure: bool | None = _key(None, _optional_boolean)
    cookie_samesite: str | None = _key("Lax", _samesite)
    debug_headers: bool | None = _key(None, _optional_boolean)
    bandits: dict[str, Any] = field(default_factory=dict, metadata={"parse": _table})
    enabled: bool = _key(True, _boolean)
    control_ttl: float = _key(1.0, _ttl_or_zero)
    learn_ttl: float = _key(1.0, _ttl_or_zero)
    overrides: bool | None = _key(None, _optional_boolean)
    subject_key: str | None = _key(None, _optional_text)
    token_ttl: float = _key(THIRTY_DAYS, _duration)
    bots: bool | None = _key(None, _optional_boolean)
    excluded_networks: tuple[Network, ...] = _key((), _networks)
    network_limit: str | None = _key(None, _optional_text)
    network_limit_uri: str = _key("memory://", _text)

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> BanditConfig:
        """Read the ``MAB_*`` keys of an app's configuration.

        :raises ConfigurationError: an unknown key, or a value that cannot be meant
        """
        known = {f"MAB_{f.name.upper()}": f for f in fields(cls)}
        values = {}
        for key in config:
            if not isinstance(key, str) or not key.startswith("MAB_"):
                continue
            if key not in known:
                raise ConfigurationError(
                    f"there is no setting {key}; {nearest(key, known)} (all of them are in the "
                    "reference, 'Configuration')"
                )
            values[known[key].name] = known[key].metadata["parse"](key, config[key])
        if values.get("storage_uri") and values.get("storage_engine"):
            raise ConfigurationError(
                "MAB_STORAGE_URI and MAB_STORAGE_ENGINE are both set; remove one of them"
            )
        return cls(**values)
