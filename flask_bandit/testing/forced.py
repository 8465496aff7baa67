"""``force``: a test names the arms that are drawn, and all else happens as in production.

What is forced lives in the context variable of the engine, so threads and tasks that run at the
same time do not see each other's. Imports no pytest.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, cast

from flask import Flask, current_app, has_app_context

from ..bandits import Bandit
from ..engine import forced_arms
from ..errors import ConfigurationError
from ..forcing import require_known
from ..web.config import BanditConfig
from ..web.registry import declared_bandit
from ..web.state import EXTENSION_KEY, app_state

_Function = TypeVar("_Function", bound=Callable[..., Any])


class ForcedArms(dict[str, str]):
    """Bandit -> arm, put together from the blocks that are open, the innermost last."""

    def __init__(self, blocks: tuple[Forcing, ...]) -> None:
        super().__init__()
        self.blocks = blocks
        for block in blocks:
            self.update(block.arms)


class Forcing:
    """What :func:`force` returns: a context manager and decorator, to be used any number of times.

    It remembers nothing but its arms. So one object may be open in many tasks at once, and a
    fixture may close it in another context than the one that it was opened in.
    """

    def __init__(self, arms: Mapping[str, str]) -> None:
        self.arms = dict(arms)

    def __enter__(self) -> Forcing:
        if has_app_context() and EXTENSION_KEY in current_app.extensions:
            require_known(self.arms, bandits_of(current_app))
        forced_arms.set(ForcedArms((*_open_blocks(), self)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        blocks = list(_open_blocks())
        for place in reversed(range(len(blocks))):
            if blocks[place] is self:
                del blocks[place]
                break
        forced_arms.set(ForcedArms(tuple(blocks)))

    def __call__(self, function: _Function) -> _Function:
        if (
            inspect.isclass(function)
            or inspect.isgeneratorfunction(function)
            or inspect.isasyncgenfunction(function)
        ):
            raise ConfigurationError(
                f"force() decorates functions that return, and {function.__name__} is a class or "
                "yields: decorate its methods, or write 'with force(...):' inside"
            )
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                with self:
                    return await function(*args, **kwargs)

            return cast(_Function, call_async)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            with self:
                return function(*args, **kwargs)

        return cast(_Function, call)


def force(arms: Mapping[str, str] | None = None, /, **named_arms: str) -> Forcing:
    """Give every visitor the named arms; only the draw is replaced.

    ::

        with force(color_btn="red"):
            client.get("/")

    Decisions and rewards are stored, signals sent and cookies set as in production; such a decision
    has the policy version ``"forced"`` and the probability 1. A visitor whose cookie holds another
    arm is shown the forced one, and that is not counted.

    Blocks nest: the inner one wins for the bandits that it names. It also decorates functions and
    coroutine functions. It holds in the present context; a thread that the test starts has its own.

    :param arms: bandit -> arm id, for names that are no Python identifiers
    :param named_arms: the same as keywords
    :raises ConfigurationError: nothing is named, or an arm is no text
    :raises UnknownBanditError: at the start of the block if an app context is active, else when the
        app first uses a bandit inside it
    :raises UnknownArmError: likewise
    """
    if arms is not None and not isinstance(arms, Mapping):
        raise ConfigurationError(
            f"force({arms!r}) names no arm; write it as in force(color_btn='red')"
        )
    both = {**(arms or {}), **named_arms}
    if not both:
        raise ConfigurationError("force() needs a bandit and its arm, as in force(color_btn='red')")
    for name, arm in both.items():
        if not isinstance(arm, str):
            raise ConfigurationError(f"{name!r} is forced to {arm!r}; write the id of an arm")
    return Forcing(both)


def bandits_of(app: Flask) -> Mapping[str, Bandit]:
    """Return an app's bandits and fix nothing: the test may go on to change its settings."""
    registry = app_state(app).registry
    if registry.is_frozen:
        return registry
    declared = BanditConfig.from_mapping(app.config).bandits
    return {**registry, **{name: declared_bandit(name, declared[name]) for name in declared}}


def _open_blocks() -> tuple[Forcing, ...]:
    forced = forced_arms.get({})
    return forced.blocks if isinstance(forced, ForcedArms) else ()
