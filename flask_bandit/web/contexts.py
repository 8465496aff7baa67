"""The context of a choice: asked for, and checked so that nothing a visitor sends breaks a page.

In debug, what is wrong is raised. Otherwise it is logged once, and the choice goes on with what
can be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from ..bandits import Bandit
from ..engine import logger
from ..errors import ConfigurationError
from ..features import Features
from .state import AppState

Context: TypeAlias = Mapping[str, Any]
ContextSource: TypeAlias = "Context | Callable[[], Context | None] | None"
"""A context, or what returns it inside the request; ``None``: the bandit's own option."""


def require_features(state: AppState, name: str, bandit: Bandit, given: ContextSource) -> None:
    """Complain of a context for a bandit that can do nothing with it.

    :param given: with the choice
    """
    if bandit.features is None and not (given is None and bandit.options.context is None):
        problem = ConfigurationError(
            f"a choice of {name!r} has a context, and the bandit declares no features; give it "
            "some, as in features={'age': 'numeric', 'country': ['de', 'fr']}, or no context"
        )
        _complain(state, name, problem)


def context_of(state: AppState, name: str, given: ContextSource) -> dict[str, Any] | None:
    """Return the context of a choice as it is logged, ``None`` where there is none.

    :param given: with the choice
    """
    bandit = state.bandits[name]
    features = bandit.features
    source = bandit.options.context if given is None else given
    if source is None or features is None:
        return None
    try:
        found: Any = source
        if callable(source) and not isinstance(source, Mapping):
            found = state.app.ensure_sync(source)()
    except Exception as error:
        _complain(state, name, error)
        return None
    return None if found is None else _cleaned(state, name, features, found)


def _cleaned(state: AppState, name: str, features: Features, found: Any) -> dict[str, Any]:
    try:
        return features.clean(found)
    except Exception as error:
        _complain(state, name, error)
    usable: dict[str, Any] = {}
    # By the declared names: how many others there are may be up to the visitor.
    for feature in features.names:
        with suppress(Exception):
            usable.update(features.clean({feature: found[feature]}))
    return usable


def _complain(state: AppState, name: str, problem: Exception) -> None:
    if state.app.debug:
        raise problem
    told = state.registry.told_of_contexts
    kind = (name, type(problem))
    if kind not in told:
        told.add(kind)
        logger.error(
            "A context of the bandit %r cannot be used as it is, and the choice goes on with the "
            "rest; this is logged once: %s",
            name,
            problem,
            exc_info=problem,
        )
