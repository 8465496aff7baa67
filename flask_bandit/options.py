"""What a bandit may be told besides its policy and arms: goals, windows, floors, who takes part.

Pure: plain values, checked once, with the words for what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from numbers import Real
from typing import Any, TypedDict

from .errors import ConfigurationError
from .features import Features
from .model import DEFAULT_GOAL

DEFAULT_FLOOR = 0.005
MODES = ("once", "every", "numeric")
SHORTEST_WINDOW = 60.0
SHORTEST_HALF_LIFE = 86400.0
"""Each fourth of it is kept apart for ever, and all of that is read with the counts."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*")
_LONGEST = 10 * 365 * 86400.0


def duration(value: Any) -> float:
    """Return a time span in seconds.

    :param value: seconds, a ``timedelta``, or a text such as ``"90s"``, ``"15m"``, ``"12h"``,
        ``"7d"``, ``"2w"``
    :raises ValueError: it is none of them, or not within (0, 10 years]
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif is_number:
        # Compared first: an integer may be too large for a float.
        seconds = float(value) if 0 < value <= _LONGEST else 0.0
    else:
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not 0.0 < seconds <= _LONGEST:
        raise ValueError(
            "write a time span above 0, at most ten years: seconds, or a text such as '12h', '7d'"
        )
    return seconds


class ContextualOptions(TypedDict, total=False):
    """The keyword arguments of every contextual bandit; :class:`Options` says what they mean."""

    floor: float
    min_propensity: float
    burn_in: int
    holdout: float
    goal: str
    goals: Mapping[str, str]
    reward_window: float | str | timedelta
    group: str
    targeting: Callable[[], bool]
    context: Callable[[], Mapping[str, Any] | None]
    private: Sequence[str]
    sticky: bool
    evaluation: float


class BanditOptions(ContextualOptions, total=False):
    """The keyword arguments of every other bandit."""

    half_life: float | str | timedelta
    features: Features | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """A bandit's options, checked.

    :param floor: share F of the traffic that is spread evenly, p' = (1 - F) p + F / K, so that no
        arm's probability is 0 and the log can evaluate any other policy
    :param min_propensity: the same as a smallest probability for each arm; the larger one holds
    :param burn_in: an arm with fewer decisions gets an equal share, whatever the policy says
    :param holdout: share of the visitors who get the control for ever, logged apart and never
        learned from
    :param goal: the goal that the policy learns from
    :param goals: goal -> ``once``, ``every`` or ``numeric``; what is not named is ``once``
    :param reward_window: seconds after which a decision is learned from, with what it earned; at
        least a minute
    :param half_life: seconds after which a decision weighs half as much to the policy; at least a
        day
    :param group: a visitor takes part in one bandit of a group only
    :param targeting: called inside the request; those for whom it is false get the control
    :param features: what is known at a choice, by name; then contexts are logged with decisions
    :param context: called inside the request where a choice is given no context
    :param private: features that are kept only until a decision's reward window closes
    :param sticky: whether visitors keep their arm; ``None``: unless the policy uses contexts
    :param evaluation: share of the visitors whose decisions the policy never learns from, so that
        they can judge what learned from the others
    """

    floor: float = DEFAULT_FLOOR
    min_propensity: float = 0.0
    burn_in: int = 0
    holdout: float = 0.0
    goal: str = DEFAULT_GOAL
    goals: Mapping[str, str] = field(default_factory=dict)
    reward_window: float | None = None
    half_life: float | None = None
    group: str | None = None
    targeting: Callable[[], bool] | None = None
    features: Features | None = None
    context: Callable[[], Mapping[str, Any] | None] | None = None
    private: tuple[str, ...] = ()
    sticky: bool | None = None
    evaluation: float = 0.0

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Check what a bandit's constructor was given.

        :raises ConfigurationError: an unknown option, or a value that cannot be meant
        """
        unknown = sorted(given.keys() - _PARSERS.keys())
        if unknown:
            raise ConfigurationError(
                f"there is no option {unknown[0]!r} of a bandit; known: {', '.join(_PARSERS)}"
            )
        return cls(**{name: _PARSERS[name](name, value) for name, value in given.items()})

    def for_policy(self, policy: Any) -> Options:
        """Return the options with the features of a contextual policy, checked against it.

        :raises ConfigurationError: the policy cannot do what the options ask for
        """
        options = self
        if getattr(policy, "contextual", False):
            if self.half_life is not None:
                raise ConfigurationError(
                    f"{policy.version} cannot forget: half_life is for policies without contexts"
                )
            if self.features not in (None, policy.features):
                raise ConfigurationError(
                    "the bandit and its policy have different features; give them to the policy "
                    "only"
                )
            options = replace(self, features=policy.features)
        options._require_private()
        options._require_learnable(policy)
        return options

    def _require_private(self) -> None:
        if not self.private:
            return
        known = () if self.features is None else self.features.names
        if unknown := sorted(set(self.private) - set(known)):
            raise ConfigurationError(
                f"private names {unknown[0]!r}, which is no feature of the bandit; its features: "
                f"{', '.join(known) or 'none'}"
            )
        if self.reward_window is None:
            raise ConfigurationError(
                "private features are kept until the reward window closes, and the bandit has "
                "none; give it a reward_window, such as '1d'"
            )

    def _require_learnable(self, policy: Any) -> None:
        mode = self.mode(self.goal)
        if mode != "once" and getattr(policy, "reward_range", None) is not None:
            name = getattr(policy, "version", type(policy).__name__)
            raise ConfigurationError(
                f"{name} learns from one reward of each decision, and the goal {self.goal!r} "
                f"counts as {mode!r}: let it learn from a goal that counts once, or take a bandit "
                "for any number, such as GaussianThompsonBandit"
            )

    def mode(self, goal: str) -> str:
        """Return how a goal counts: ``once``, ``every`` or ``numeric``."""
        return self.goals.get(goal, "once")

    def share(self, arms: int) -> float:
        """Return the floor F for so many arms."""
        return max(self.floor, self.min_propensity * arms)


def _share(name: str, value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0.0 <= value <= 1.0:
        raise ConfigurationError(f"{name} is {value!r}; write a share from 0 to 1, such as 0.05")
    return float(value)


def _part(name: str, value: Any) -> float:
    if _share(name, value) == 1.0:
        raise ConfigurationError(f"{name} is {value!r}; write a share below 1, such as 0.05")
    return float(value)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(f"{name} is {value!r}; write a whole number, such as 100")
    return value


def _name(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 100 or not is_clean(value):
        raise ConfigurationError(
            f"{name} is {value!r}; write a text of 1 to 100 characters, none of them a control, "
            "such as 'checkout'"
        )
    return value


def _goals(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} is {value!r}; write a table such as {{'order': 'every'}}")
    for goal, mode in value.items():
        _name("a goal", goal)
        if mode not in MODES:
            raise ConfigurationError(
                f"the goal {goal!r} counts as {mode!r}; write one of {', '.join(MODES)}"
            )
    return dict(value)


def _window(name: str, value: Any) -> float:
    seconds = _span(name, value)
    if seconds < SHORTEST_WINDOW:
        raise ConfigurationError(
            f"{name} is {value!r}; write at least {SHORTEST_WINDOW:g} seconds, such as '7d'"
        )
    return seconds


def _half_life(name: str, value: Any) -> float:
    seconds = _span(name, value)
    if seconds < SHORTEST_HALF_LIFE:
        raise ConfigurationError(f"{name} is {value!r}; write at least one day, such as '14d'")
    return seconds


def _span(name: str, value: Any) -> float:
    try:
        return duration(value)
    except ValueError as error:
        raise ConfigurationError(f"{name} is {value!r}; {error}") from None


def _features(name: str, value: Any) -> Features:
    return value if isinstance(value, Features) else Features.parse(value)


def _names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} is {value!r}; write a list of names, such as ['age']")
    return tuple(_name(name, item) for item in value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is {value!r}; write True or False")
    return value


def _callable(name: str, value: Any) -> Callable[[], Any]:
    if not callable(value):
        raise ConfigurationError(
            f"{name} is {value!r}; give a function without arguments, in configuration as "
            "{ import = 'package:function' }"
        )
    return value  # type: ignore[no-any-return]


_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "floor": _share,
    "min_propensity": _share,
    "burn_in": _count,
    "holdout": _part,
    "goal": _name,
    "goals": _goals,
    "reward_window": _window,
    "half_life": _half_life,
    "group": _name,
    "targeting": _callable,
    "features": _features,
    "context": _callable,
    "private": _names,
    "sticky": _flag,
    "evaluation": _part,
}
BANDIT_OPTIONS = tuple(_PARSERS)
"""The names of all options."""


def is_clean(text: str) -> bool:
    """Return whether a text holds no control characters; any script and emoji may be there."""
    return not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text) and (
        text.isascii() or _is_encodable(text)
    )


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
