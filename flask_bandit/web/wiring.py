"""Holds an app's views against its bandits: names, places of decorators, arguments, rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask

from ..errors import UnknownBanditError
from .decorators import MARK, WRAPPERS, Mark
from .earned import goal_of
from .registry import BanditRegistry


def wiring_problems(app: Flask, bandits: BanditRegistry) -> tuple[str, ...]:
    """Return what cannot work between an app's views and its bandits, each with its fix."""
    problems: list[str] = []
    routed = {id(f) for view in app.view_functions.values() for f in _unwrapped(view)}
    for endpoint, view in app.view_functions.items():
        marks: tuple[Mark, ...] = getattr(view, MARK, ())
        problems += _name_problems(endpoint, marks, bandits)
        problems += _argument_problems(app, endpoint, marks)
        problems += _reward_problems(endpoint, marks, bandits)
        if _has_decorator_above_route(view, routed):
            problems.append(
                f"on the view {endpoint!r} a bandit's decorator stands above @app.route, so the "
                "route does not know it: move it below @app.route"
            )
    return tuple(dict.fromkeys(problems))


def _unwrapped(view: Callable[..., Any] | None) -> Iterator[Callable[..., Any]]:
    while view is not None:
        yield view
        view = getattr(view, "__wrapped__", None)


def _has_decorator_above_route(view: Callable[..., Any], routed: set[int]) -> bool:
    # A factory decorates a shared function anew for each app: one wrapper of this app will do.
    return any(
        wrappers and not any(id(wrapper) in routed for wrapper in wrappers)
        for wrappers in (getattr(function, WRAPPERS, ()) for function in _unwrapped(view))
    )


def _name_problems(
    endpoint: str, marks: tuple[Mark, ...], bandits: BanditRegistry
) -> Iterator[str]:
    for mark in marks:
        try:
            bandits.require(mark.bandit)
        except UnknownBanditError as error:
            yield f"the view {endpoint!r} names an unknown bandit: {error}"


def _argument_problems(app: Flask, endpoint: str, marks: tuple[Mark, ...]) -> Iterator[str]:
    args = [mark.arg for mark in marks if mark.arg is not None]
    for rule in app.url_map.iter_rules(endpoint):
        for mark in marks:
            if mark.arg in rule.arguments:
                yield (
                    f"the rule {rule.rule!r} has a URL argument {mark.arg!r}, the name under "
                    f"which the bandit {mark.bandit!r} passes its arm: write "
                    f"@choose_arm({mark.bandit!r}, arg='another_name')"
                )
    for name in {name for name in args if args.count(name) > 1}:
        yield f"on the view {endpoint!r} two decorators pass an arm as {name!r}: remove one"


def _reward_problems(
    endpoint: str, marks: tuple[Mark, ...], bandits: BanditRegistry
) -> Iterator[str]:
    totals: dict[tuple[str, str | None], float] = {}
    for mark in marks:
        if mark.value is not None and mark.bandit in bandits:
            own = mark.goal == bandits[mark.bandit].options.goal
            key = (mark.bandit, None if own else mark.goal)
            totals[key] = totals.get(key, 0.0) + mark.value
    for (name, goal), total in totals.items():
        try:
            bandits[name].check_reward(total, goal_of(bandits[name], goal))
        except ValueError as error:
            yield f"the view {endpoint!r} rewards {name!r} with {total:g}: {error}"
