"""Which bandits an app has: added by code or declared in configuration, fixed at first use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from inspect import signature
from typing import Any

from ..bandits import Bandit
from ..errors import ConfigurationError, UnknownBanditError
from ..features import Features
from ..options import BANDIT_OPTIONS, is_clean
from ..plugins import import_object, nearest, policy_class, policy_from_name


class BanditRegistry(Mapping[str, Bandit]):
    """The bandits of one app, by name."""

    def __init__(self) -> None:
        self._bandits: dict[str, Bandit] = {}
        self._frozen = False
        self.told_of_contexts: set[tuple[str, type[Exception]]] = set()
        """What the log has said about contexts, by bandit and kind of error."""

    def __getitem__(self, name: str) -> Bandit:
        if name not in self._bandits:
            self.require(name)
        return self._bandits[name]

    def require(self, name: str) -> None:
        """Raise for a name that no bandit has.

        :raises UnknownBanditError: with the nearest name
        """
        if name not in self._bandits:
            raise UnknownBanditError(
                f"no bandit is registered as {name!r}: correct the name, or register it with "
                f"add_bandit() or under MAB_BANDITS; {nearest(name, self._bandits)}"
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self._bandits)

    def __len__(self) -> int:
        return len(self._bandits)

    def __contains__(self, name: object) -> bool:
        return name in self._bandits

    def add(self, name: str, bandit: Bandit) -> None:
        """Register a bandit; the same object under the same name again changes nothing.

        :raises ConfigurationError: the name is taken or cannot be one, or it is too late
        """
        if not isinstance(name, str) or not name or not is_clean(name):
            raise ConfigurationError(
                f"{name!r} cannot name a bandit: it must be a text without control characters"
            )
        if not isinstance(bandit, Bandit):
            raise ConfigurationError(
                f"{name!r} must be a Bandit, such as ThompsonBandit(), and is {bandit!r}"
            )
        if self._bandits.get(name) is bandit:
            return
        if name in self._bandits:
            raise ConfigurationError(f"another bandit is registered as {name!r} already")
        if self._frozen:
            raise ConfigurationError(
                f"{name!r} comes too late: bandits are fixed at the first request, so that all "
                "workers agree; add it while the app is made"
            )
        self._bandits[name] = bandit

    @property
    def is_frozen(self) -> bool:
        """True once nothing can be added."""
        return self._frozen

    def freeze(self, declared: Mapping[str, Any]) -> None:
        """Add the bandits that configuration declares, check all, and let nothing change them.

        :raises ConfigurationError: a declaration or a bandit that cannot work
        """
        if self._frozen:
            return
        both = sorted(self._bandits.keys() & declared.keys())
        if both:
            raise ConfigurationError(
                f"the bandit {both[0]!r} is registered by code and under MAB_BANDITS; remove one"
            )
        # All are made before one is added, so that a second try finds the same mistake.
        made = {name: declared_bandit(name, table) for name, table in declared.items()}
        for name, bandit in made.items():
            bandit.check()
            self.add(name, bandit)
        for name, bandit in self._bandits.items():
            try:
                bandit.check()
            except ConfigurationError as error:
                raise ConfigurationError(f"bandit {name!r}: {error}") from error
            bandit.freeze()
        self._frozen = True


def declared_bandit(name: str, table: Any) -> Bandit:
    """Make the bandit that a ``[MAB_BANDITS.name]`` table declares.

    :raises ConfigurationError: a part of it is missing or cannot be meant
    """
    where = f"MAB_BANDITS.{name}"
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{where} is {table!r}; write a table with 'algorithm' and 'arms'")
    params = dict(table)
    algorithm, arms = params.pop("algorithm", None), params.pop("arms", None)
    options = {option: params.pop(option) for option in BANDIT_OPTIONS if option in params}
    if not isinstance(algorithm, str):
        raise ConfigurationError(f"{where} needs an algorithm, such as algorithm = 'thompson'")
    if not isinstance(arms, (Mapping, list, tuple)) or not arms:
        raise ConfigurationError(
            f"{where} needs arms: a table of values by id, or a list of ids that are the values"
        )
    try:
        for function in ("targeting", "context"):
            if function in options:
                options[function] = _arm_value(options[function])
        if _takes_features(algorithm):
            if "features" not in options:
                raise ConfigurationError(
                    f"the algorithm {algorithm!r} needs features, such as features = "
                    "{ age = 'numeric', country = ['de', 'fr'] }"
                )
            params["features"] = options["features"] = Features.parse(options["features"])
        bandit = Bandit(policy_from_name(algorithm, params), **options)
        for arm, value in (
            arms.items() if isinstance(arms, Mapping) else zip(arms, arms, strict=True)
        ):
            bandit.add_arm(arm, _arm_value(value))
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    return bandit


def _takes_features(algorithm: str) -> bool:
    """Return whether a policy is made with the features of its bandit."""
    # What is wrong with it is told by whoever makes the policy.
    with suppress(ConfigurationError, TypeError, ValueError):
        return "features" in signature(policy_class(algorithm)).parameters
    return False


def _arm_value(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"import"}:
        return import_object(value["import"])
    return value
