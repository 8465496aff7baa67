"""The pytest plugin: forced arms, what was stored, an app without bandits, a test per arm.

pytest loads it in each run of everybody who has the library, so Flask and numpy are imported by
what is used, not here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flask import Flask

    from .events import BanditEvents
    from .forced import Forcing

MARK = "bandit_arms"
CollectError = pytest.Collector.CollectError
"""Of these pytest shows the message and no traceback."""

_app_key: pytest.StashKey[Flask] = pytest.StashKey()
_block_key: pytest.StashKey[Forcing] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ways to name the app that ``bandit_arms`` reads arms from."""
    text = "app whose bandits @pytest.mark.bandit_arms looks up, as for 'flask --app', seen from "
    text += "the root directory of the tests: shop, shop:create_app or 'shop:create_app(\"test\")'"
    group = parser.getgroup("flask-bandit")
    group.addoption("--bandit-app", metavar="MODULE:NAME", default=None, help=text)
    parser.addini("bandit_app", text, default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(bandit, arms=None): run the test once per arm of a bandit, with that arm forced",
    )


@pytest.fixture
def bandit_force() -> Iterator[Callable[..., None]]:
    """``bandit_force(color_btn="red")``: force an arm until the test ends."""
    from .forced import force

    with ExitStack() as blocks:

        def apply(*arms: Any, **named_arms: str) -> None:
            blocks.enter_context(force(*arms, **named_arms))

        yield apply


@pytest.fixture
def bandit_events() -> Iterator[BanditEvents]:
    """What the test's apps store, with assertions."""
    from .events import BanditEvents

    with BanditEvents() as events:
        yield events


@pytest.fixture
def bandit_disabled(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Flask], None]]:
    """Set ``MAB_ENABLED = False`` for the test, in the fixture ``app`` and in each app given."""
    from flask import Flask

    disabled = []

    def disable(app: Flask) -> None:
        _disable(app, monkeypatch)
        disabled.append(app)

    app = _app_fixture(request)
    if isinstance(app, Flask):
        disable(app)
    yield disable
    if not disabled:
        raise pytest.UsageError(
            "bandit_disabled has disabled no app: write a fixture 'app' that returns the Flask "
            "app, or call bandit_disabled(app) in the test"
        )


def _disable(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    from ..web.state import app_state

    monkeypatch.setitem(app.config, "MAB_ENABLED", False)
    # Settings are read once, at first use: they are read anew now, and are the old ones afterwards.
    monkeypatch.setattr(app_state(app), "_config", None)


def _app_fixture(request: pytest.FixtureRequest) -> Any:
    try:
        return request.getfixturevalue("app")
    except pytest.FixtureLookupError as error:
        if error.argname == "app":
            return None
        raise


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each arm."""
    for bandit, given in _marked(metafunc.definition).items():
        arms = _arms_of(metafunc.config, bandit) if given is None else given
        argument = _argument(metafunc.function, bandit)
        if argument not in metafunc.fixturenames:  # pytest refuses parameters that nobody uses
            metafunc.fixturenames.append(argument)
        ids = [f"{bandit}={arm}" for arm in arms]
        metafunc.parametrize([argument], [(arm,) for arm in arms], ids=ids)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Force the arms of this test, for its fixtures too.

    Inside the wrappers of pytest itself, which are not prepared for one that raises before them.
    """
    arms = _arms_of_test(item)
    if arms:
        from .forced import force

        block = force(arms)
        block.__enter__()
        item.stash[_block_key] = block
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Force them in a coroutine function itself: who runs it may do so in an older context."""
    block = item.stash.get(_block_key, None)
    if block is None or not isinstance(item, pytest.Function):
        return (yield)
    function = item.obj
    if not inspect.iscoroutinefunction(function):
        return (yield)
    item.obj = block(function)
    try:
        return (yield)
    finally:
        item.obj = function


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Force them until the last fixture is done."""
    try:
        return (yield)
    finally:
        block = item.stash.get(_block_key, None)
        if block is not None:
            del item.stash[_block_key]
            block.__exit__(None, None, None)


def _marked(item: pytest.Item) -> dict[str, tuple[str, ...] | None]:
    """Return the bandits of a test's marks and the arms given there; the nearest mark wins."""
    found: dict[str, tuple[str, ...] | None] = {}
    for mark in item.iter_markers(MARK):
        bandit, arms = _read_mark(*mark.args, **mark.kwargs)
        found.setdefault(bandit, arms)
    return found


def _read_mark(*args: Any, **kwargs: Any) -> tuple[str, tuple[str, ...] | None]:
    values = dict(zip(("bandit", "arms"), args, strict=False)) | kwargs
    bandit, arms = values.pop("bandit", None), values.pop("arms", None)
    if isinstance(arms, Sequence) and not isinstance(arms, str):
        arms = tuple(arms)
    is_list = isinstance(arms, tuple) and arms and all(isinstance(arm, str) for arm in arms)
    understood = isinstance(bandit, str) and (arms is None or is_list)
    if not understood or values or len(args) > 2:
        raise CollectError(
            f"write @pytest.mark.{MARK}('color_btn') or @pytest.mark.{MARK}('color_btn', "
            f"arms=['green', 'red']), one mark for each bandit, and not {args} {kwargs}"
        )
    return bandit, arms


def _argument(function: Callable[..., Any], bandit: str) -> str:
    """Return what a test's parameter is called: a test that has an argument of that name gets it.

    Else the name is one that no argument and no fixture can have.
    """
    return bandit if bandit in inspect.signature(function).parameters else f"{MARK}({bandit})"


def _arms_of_test(item: pytest.Item) -> dict[str, str]:
    marked = _marked(item)
    if not marked:
        return {}
    params = getattr(getattr(item, "callspec", None), "params", None)
    if params is None:
        pytest.fail(
            f"@pytest.mark.{MARK} works on test functions and on classes that do not inherit "
            "unittest.TestCase; there write 'with force(...):'",
            pytrace=False,
        )
    function = item.function  # type: ignore[attr-defined]
    return {bandit: params[_argument(function, bandit)] for bandit in marked}


def _arms_of(config: pytest.Config, bandit: str) -> tuple[str, ...]:
    from ..plugins import nearest
    from .forced import bandits_of

    bandits = bandits_of(_app(config, bandit))
    if bandit not in bandits:
        raise CollectError(
            f"@pytest.mark.{MARK}({bandit!r}): the app has no such bandit; "
            f"{nearest(bandit, bandits)}"
        )
    return bandits[bandit].arm_ids


def _app(config: pytest.Config, bandit: str) -> Flask:
    """Return the app that the options name, loaded once."""
    if _app_key not in config.stash:
        where = config.getoption("bandit_app") or config.getini("bandit_app")
        if not where:
            raise CollectError(
                f"@pytest.mark.{MARK}({bandit!r}) does not know the arms. Name the app, as "
                'bandit_app = "shop:create_app" in pytest\'s configuration or as --bandit-app '
                f"shop:create_app, or give the arms: {MARK}({bandit!r}, arms=['green', 'red'])"
            )
        config.stash[_app_key] = _load_app(config, where)
    return config.stash[_app_key]


def _load_app(config: pytest.Config, where: str) -> Flask:
    from flask.cli import locate_app, prepare_import

    # As Flask does it: a colon before a slash belongs to a Windows path.
    path, name = [*re.split(r":(?![\\/])", where, maxsplit=1), None][:2]
    try:
        return locate_app(prepare_import(str(config.rootpath / str(path))), name)
    except Exception as error:  # whatever the user's module raises
        raise pytest.UsageError(
            f"bandit_app is {where!r}, and that app cannot be loaded from {config.rootpath}: "
            f"{type(error).__name__}: {error}"
        ) from error
