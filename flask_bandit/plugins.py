"""From the names that configuration uses to classes: built in, dotted path, URI or entry point.

Loads lazily: a storage's module, and the package it needs, is imported only when it is named.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from typing import Any

from .algorithms.base import PolicyProtocol
from .errors import ConfigurationError
from .options import BANDIT_OPTIONS
from .storage.base import BanditStorage

STORAGE_GROUP = "flask_bandit.storages"
POLICY_GROUP = "flask_bandit.policies"

_SQL = "flask_bandit.storage.sql:SQLBanditStorage"
_STORAGE_SCHEMES = {
    "memory": "flask_bandit.storage.memory:MemoryBanditStorage",
    "json": "flask_bandit.storage.json_file:JSONBanditStorage",
    "sqlite": "flask_bandit.storage.sqlite:SQLiteBanditStorage",
    # The standard library serves sqlite://; naming its SQLAlchemy driver asks for SQLAlchemy.
    "sqlite+pysqlite": _SQL,
    "postgresql": _SQL,
    "redis": "flask_bandit.storage.redis:RedisBanditStorage",
    "rediss": "flask_bandit.storage.redis:RedisBanditStorage",
    "zodb": "flask_bandit.storage.zodb:ZODBBanditStorage",
    "zeo": "flask_bandit.storage.zodb:ZODBBanditStorage",
}
_EXTRAS = {
    "sqlalchemy": "sql",
    "alembic": "sql",
    "psycopg": "postgres",
    "redis": "redis",
    "ZODB": "zodb",
    "ZEO": "zodb",
    "BTrees": "zodb",
    "transaction": "zodb",
    "crawleruseragents": "bots",
    "limits": "limits",
    "scipy": "analysis",
    "babel": "admin",
    "flask_admin": "admin",
    "pygal": "admin",
    "vowpalwabbit": "vw",
}
"""The extra that brings a package."""
_SCHEME_EXTRAS = {"postgresql": "postgres"}
"""The extra that brings all that a scheme needs, where that is more than the first package."""
_MODELS = {
    "linear": "flask_bandit.learning.linear:LinearModel",
    "vw": "flask_bandit.learning.vw:VowpalModel",
}
_STORAGE_NAMES = {path.rpartition(":")[2]: path for path in _STORAGE_SCHEMES.values()}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name: the nearest known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else "there is none yet"


def import_object(path: str, extra: str | None = None) -> Any:
    """Import ``pkg.mod:name`` or ``pkg.mod.name``.

    :param extra: of this package, which brings what it needs; by default that of what is missing
    :raises ConfigurationError: no such module or name
    """
    module_name, separator, attributes = path.partition(":")
    if not separator:
        module_name, _, attributes = path.rpartition(".")
    try:
        found: Any = import_module(module_name)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        missing = str(getattr(error, "name", None)).partition(".")[0]
        extra = _EXTRAS.get(missing) and (extra or _EXTRAS[missing])
        raise ConfigurationError(
            f"{path!r} needs a package that is not installed ({error}): "
            f"pip install 'Flask-Bandit[{extra}]'"
            if extra and path.startswith("flask_bandit.")
            else f"cannot import {path!r}: {error}. Write it as 'package.module:name', and "
            "install what it needs."
        ) from error
    return found


def _entry_points(group: str, builtin: Iterable[str]) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        if point.name in builtin:
            raise ConfigurationError(
                f"the plug-in {point.value!r} takes the built-in name {point.name!r}; "
                "built-in names cannot be replaced, uninstall it or use its dotted path"
            )
        if point.name in found and found[point.name].value != point.value:
            raise ConfigurationError(
                f"two plug-ins are named {point.name!r} in {group}: "
                f"{found[point.name].value!r} and {point.value!r}; uninstall one of them"
            )
        found[point.name] = point
    return found


def _lookup(name: str, builtin: Mapping[str, str], group: str, what: str) -> Any:
    if name in builtin:
        return import_object(builtin[name], _SCHEME_EXTRAS.get(name))
    points = _entry_points(group, builtin)
    if name in points:
        return points[name].load()
    raise ConfigurationError(f"there is no {what} {name!r}; {nearest(name, [*builtin, *points])}")


def storage_from_uri(uri: str, options: tuple[Any, ...] | Mapping[str, Any] = ()) -> BanditStorage:
    """Make the storage that a URI's scheme names.

    :param options: arguments by name for the storage's ``from_uri``
    :raises ConfigurationError: no such scheme, or the URI or an option does not fit the storage
    """
    if options and not isinstance(options, Mapping):
        raise ConfigurationError(
            f"MAB_STORAGE_OPTS {options!r} stands beside MAB_STORAGE_URI; write the options by "
            "name, as in {'fsync': True}"
        )
    scheme, separator, _ = uri.partition("://")
    if not separator:
        # The rest is not repeated: it may hold a password.
        begins = uri.partition(":")[0][:20]
        raise ConfigurationError(
            f"MAB_STORAGE_URI, which begins with {begins!r}, lacks '://' behind its scheme; write "
            "for example 'sqlite:///bandits.db'"
        )
    # A driver may follow the scheme, as in postgresql+psycopg://.
    name = scheme if scheme in _STORAGE_SCHEMES else scheme.partition("+")[0]
    found = _lookup(name, _STORAGE_SCHEMES, STORAGE_GROUP, "storage for the scheme")
    storage: BanditStorage = found.from_uri(uri, **dict(options))
    return storage


def storage_from_name(name: str, options: tuple[Any, ...] | Mapping[str, Any]) -> BanditStorage:
    """Make a storage from its class name, dotted path or entry-point name.

    :param options: the constructor's arguments, positional or by name
    :raises ConfigurationError: no such class, or arguments that do not fit it
    """
    if name in _STORAGE_NAMES or ("." not in name and ":" not in name):
        found = _lookup(name, _STORAGE_NAMES, STORAGE_GROUP, "storage")
    else:
        found = import_object(name)
    try:
        made = found(**options) if isinstance(options, Mapping) else found(*options)
    except TypeError as error:
        raise ConfigurationError(
            f"MAB_STORAGE_OPTS {options!r} does not fit {name}: {error}"
        ) from error
    if not isinstance(made, BanditStorage):
        raise ConfigurationError(
            f"{name} is no storage: inherit flask_bandit.storage.BanditStorage"
        )
    return made


def policy_class(name: str) -> Any:
    """Return what makes a policy, by its snake_case name, dotted path or entry-point name.

    :raises ConfigurationError: no such policy
    """
    from .algorithms import CONTEXTUAL_POLICIES, POLICIES

    if "." in name or ":" in name:
        return import_object(name)
    known: dict[str, type] = {**POLICIES, **CONTEXTUAL_POLICIES}
    builtin = {key: f"{cls.__module__}:{cls.__qualname__}" for key, cls in known.items()}
    return _lookup(name, builtin, POLICY_GROUP, "algorithm")


def policy_from_name(name: str, params: Mapping[str, Any]) -> PolicyProtocol:
    """Make a policy from its name, see :func:`policy_class`.

    :param params: the constructor's arguments by name
    :raises ConfigurationError: no such policy, or arguments that do not fit it
    """
    found = policy_class(name)
    _require_parameters(name, found, params)
    try:
        made = found(**params)
    except TypeError as error:
        raise ConfigurationError(
            f"the parameters {sorted(params)} do not fit the algorithm {name!r}: {error}"
        ) from error
    if not isinstance(made, PolicyProtocol):
        raise ConfigurationError(
            f"{name} is no policy: it needs propensities, on_decision, on_reward and on_mature"
        )
    return made


def model_from(document: Mapping[str, Any]) -> Any:
    """Make a fitted policy of what a storage keeps of it.

    :param document: ``kind``, a built-in name or a dotted path, and ``params`` for its ``load``
    :raises ConfigurationError: no such kind, or it names no class of models
    """
    kind = document["kind"]
    found = import_object(_MODELS.get(kind, kind))
    # A document comes from the storage: it may choose among classes of models and nothing else.
    if not (isinstance(found, type) and hasattr(found, "propensities") and hasattr(found, "load")):
        raise ConfigurationError(
            f"the stored kind of model {kind!r} is no class with load() and propensities()"
        )
    return found.load(document["params"])


def _require_parameters(name: str, algorithm: Any, params: Mapping[str, Any]) -> None:
    try:
        taken = signature(algorithm).parameters.values()
    except (TypeError, ValueError):  # not callable, or written in C: calling it will tell
        return
    known = [p.name for p in taken if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = sorted(params.keys() - set(known))
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in taken):
        raise ConfigurationError(
            f"the parameters {sorted(params)} do not fit the algorithm {name!r}: it has no "
            f"{unknown[0]!r}; {nearest(unknown[0], [*known, *BANDIT_OPTIONS])}"
        )
