"""``force``: only the draw is replaced; and ``BanditEvents``."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextvars import copy_context
from threading import Thread
from typing import Any

import pytest
from flask import Flask

from flask_bandit import BanditMiddleware, UnknownArmError, UnknownBanditError
from flask_bandit.bandits import Bandit
from flask_bandit.engine import Engine, forced_arms
from flask_bandit.errors import ConfigurationError
from flask_bandit.forcing import require_known
from flask_bandit.model import Decision
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.testing import BanditEvents, force
from tests.web.conftest import add_pages, colours, pulls, rewards


@pytest.fixture
def engine() -> Engine:
    bandits = {"color_btn": colours(), "size": colours("big", "small")}
    return Engine(MemoryBanditStorage(), bandits)


def decide(engine: Engine, visitor: str, bandit: str = "color_btn") -> Decision:
    decision = engine.decide(bandit, visitor, engine.attempt())
    assert decision is not None
    return decision


def drawn(engine: Engine, bandit: str = "color_btn") -> set[str]:
    """Return the arms of 60 visitors: without force these fixed ones meet each arm."""
    return {decide(engine, f"v{n}", bandit).arm for n in range(60)}


def make_app(**config: Any) -> Flask:
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, TESTING=True, **config)
    BanditMiddleware(app)
    for name, arms in {"color_btn": ("green", "red", "blue"), "size": ("big", "small")}.items():
        app.add_bandit(name, colours(*arms))  # type: ignore[attr-defined]
        add_pages(app, name)
    return app


@pytest.fixture
def app() -> Flask:
    return make_app()


@pytest.fixture(autouse=True)
def _nothing_stays_forced() -> Iterator[None]:
    yield
    assert forced_arms.get({}) == {}


def test_every_visitor_gets_the_forced_arm_until_the_block_ends(engine: Engine) -> None:
    with force(color_btn="red"):
        assert drawn(engine) == {"red"}
        assert drawn(engine, "size") == {"big", "small"}
    assert drawn(engine) == {"green", "red", "blue"}


def test_a_forced_decision_counts_and_says_that_it_was_forced(engine: Engine) -> None:
    with force(color_btn="red"):
        decision = decide(engine, "v")
        engine.commit([decision], [], engine.attempt())
    assert decision.policy_version == "forced"
    assert decision.propensities == {"green": 0.0, "red": 1.0, "blue": 0.0}
    assert engine.stats()["color_btn"]["red"].pulls == 1


def test_blocks_nest_and_the_inner_one_wins(engine: Engine) -> None:
    with force(color_btn="red", size="big"):
        with force(color_btn="blue"):
            assert (drawn(engine), drawn(engine, "size")) == ({"blue"}, {"big"})
        assert drawn(engine) == {"red"}


def test_an_object_that_is_opened_again_ends_its_innermost_block() -> None:
    red = force(color_btn="red")
    with red, force(color_btn="blue"):
        with red:
            assert forced_arms.get() == {"color_btn": "red"}
        assert forced_arms.get() == {"color_btn": "blue"}


def test_an_error_ends_the_block_too() -> None:
    with pytest.raises(ZeroDivisionError), force(color_btn="red"):
        raise ZeroDivisionError
    assert forced_arms.get({}) == {}


def test_names_that_are_no_identifiers_come_as_a_mapping() -> None:
    with force({"color-btn": "red"}, size="big"):
        assert forced_arms.get() == {"color-btn": "red", "size": "big"}


def test_it_decorates_a_function_which_stays_what_it_was(engine: Engine) -> None:
    @force(color_btn="red")
    def colours_of(visitors: int, *, bandit: str = "color_btn") -> set[str]:
        """Say which."""
        return {decide(engine, f"v{n}", bandit).arm for n in range(visitors)}

    assert colours_of(60) == colours_of(60) == {"red"}
    assert colours_of(60, bandit="size") == {"big", "small"}
    assert (colours_of.__name__, colours_of.__doc__) == ("colours_of", "Say which.")
    assert list(inspect.signature(colours_of).parameters) == ["visitors", "bandit"]
    assert drawn(engine) != {"red"}


def test_it_decorates_a_coroutine_function_up_to_its_last_line() -> None:
    @force(color_btn="red")
    async def look() -> dict[str, str]:
        await asyncio.sleep(0)
        return dict(forced_arms.get({}))

    assert inspect.iscoroutinefunction(look)
    assert asyncio.run(look()) == {"color_btn": "red"}


def test_one_object_may_be_open_in_many_tasks_and_within_itself() -> None:
    red = force(color_btn="red")

    async def look(turns: int) -> tuple[dict[str, str], dict[str, str]]:
        with red, force(size=str(turns)):
            for _ in range(turns):
                await asyncio.sleep(0)
            with red:
                inside = dict(forced_arms.get({}))
        return inside, dict(forced_arms.get({}))

    async def both() -> Any:
        return await asyncio.gather(look(3), look(1), look(2))

    assert asyncio.run(both()) == [({"color_btn": "red", "size": str(n)}, {}) for n in (3, 1, 2)]


def test_another_thread_is_another_context() -> None:
    seen: list[Any] = []
    with force(color_btn="red"):
        thread = Thread(target=lambda: seen.append(forced_arms.get({})))
        thread.start()
        thread.join()
    assert seen == [{}]


def test_a_block_may_be_closed_in_another_context_or_out_of_order() -> None:
    """As async fixtures are, by some plugins."""
    red, big = force(color_btn="red"), force(size="big")
    with force(size="small"):
        copy_context().run(red.__enter__)
        red.__exit__(None, None, None)
        assert forced_arms.get() == {"size": "small"}
    red.__enter__()
    big.__enter__()
    red.__exit__(None, None, None)
    assert forced_arms.get() == {"size": "big"}
    big.__exit__(None, None, None)


def yields() -> Iterator[None]:
    yield


async def yields_later() -> Any:
    yield


@pytest.mark.parametrize("wrong", [Bandit, yields, yields_later])
def test_what_it_cannot_decorate_is_refused(wrong: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{wrong.__name__} is a class or yields"):
        force(color_btn="red")(wrong)


def test_a_force_that_forces_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"as in force\(color_btn='red'\)"):
        force()
    with pytest.raises(ConfigurationError, match="'color_btn' is forced to 1"):
        force(color_btn=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'color_btn'.* names no arm"):
        force("color_btn")  # type: ignore[arg-type]


def test_unknown_names_are_found_with_the_nearest_one() -> None:
    bandits = {"color_btn": colours()}
    require_known({"color_btn": "red"}, bandits)
    with pytest.raises(UnknownBanditError, match=r"'colour_btn'.*did you mean 'color_btn'\?"):
        require_known({"colour_btn": "red"}, bandits)
    with pytest.raises(UnknownArmError, match=r"'rad'.*did you mean 'red'\?$"):
        require_known({"color_btn": "rad"}, bandits)
    with pytest.raises(UnknownArmError, match=r"correct the test's force\(\); known: "):
        require_known({"color_btn": "violet"}, bandits)


def test_unknown_names_are_refused_at_once_where_an_app_is_active(app: Flask) -> None:
    with app.app_context():
        with pytest.raises(UnknownBanditError), force(colour_btn="red"):
            pass
        with pytest.raises(UnknownArmError), force(color_btn="rad"):
            pass


def test_an_active_app_without_bandits_is_not_asked() -> None:
    with Flask("other").app_context(), force(color_btn="red"):
        assert forced_arms.get() == {"color_btn": "red"}


def test_the_look_at_the_names_fixes_nothing(app: Flask) -> None:
    app.config["MAB_BANDITS"] = {"late": {"algorithm": "thompson", "arms": ["yes", "no"]}}
    with app.app_context(), force(color_btn="red", late="no"):
        pass
    app.add_bandit("later", colours())  # type: ignore[attr-defined]
    app.config["MAB_COOKIE_NAME"] = "OTHER"
    assert app.extensions["bandit"].config.cookie_name == "OTHER"


@pytest.mark.parametrize("names", [{"colour_btn": "red"}, {"color_btn": "rad"}])
def test_unknown_names_are_raised_when_an_app_first_uses_bandits(
    app: Flask, names: dict[str, str]
) -> None:
    with force(names), pytest.raises((UnknownBanditError, UnknownArmError), match="did you mean"):
        app.test_client().get("/size")


@pytest.mark.parametrize("arm", ["green", "red", "blue"])
def test_how_do_i_force_a_variant_split_220_452_638_668(app: Flask, arm: str) -> None:
    """The arm is certain, and all else is as in production: counts, rewards, the cookie."""
    with force(color_btn=arm):
        for _ in range(10):
            client = app.test_client()
            assert client.get("/color_btn").text == f"#{arm}"
            assert client.post("/color_btn/click").status_code == 200
            assert client.get_cookie("MAB") is not None
        assert client.get("/color_btn").text == f"#{arm}"
    assert client.get("/color_btn").text == f"#{arm}"  # remembered
    assert (pulls(app, "color_btn"), rewards(app, "color_btn")) == (10, 10)


def test_a_visitor_who_holds_another_arm_sees_the_forced_one_and_is_not_counted(
    app: Flask,
) -> None:
    client = app.test_client()
    with force(color_btn="green"):
        client.get("/color_btn")
    with force(color_btn="red"), BanditEvents() as events:
        assert client.get("/color_btn").text == "#red"
        events.assert_nothing()
    assert client.get("/color_btn").text == "#green"
    assert pulls(app, "color_btn") == 1


def test_events_tell_what_was_stored(app: Flask) -> None:
    client = app.test_client()
    with BanditEvents() as events, force(color_btn="red"):
        events.assert_nothing()
        for _ in range(2):
            client.get("/color_btn")
            client.post("/color_btn/click")
    app.test_client().get("/color_btn")
    events.assert_decided("color_btn")
    events.assert_decided("color_btn", arm="red", times=1)
    events.assert_decided("color_btn", arm="green", times=0)
    events.assert_rewarded("color_btn")
    events.assert_rewarded("color_btn", value=pytest.approx(1.0), goal="reward")
    events.assert_rewarded("color_btn", value=0.5, times=0)
    events.assert_rewarded("color_btn", goal="sale", times=0)
    assert [decision.arm for decision in events.decisions] == ["red"]
    assert [reward.value for reward in events.rewards] == [1.0]


def test_an_assertion_that_fails_lists_what_happened_instead(app: Flask) -> None:
    client = app.test_client()
    with BanditEvents() as events, force(color_btn="red"):
        with pytest.raises(AssertionError) as failure:
            events.assert_decided("size", times=2)
        assert str(failure.value) == "Expected 2 decisions (size), found 0. Nothing was stored."
        client.get("/color_btn")
        client.post("/color_btn/click")
    story = (
        "Stored, in this order:\n"
        "  decision color_btn=red\n"
        "  reward color_btn=red, value 1, goal 'reward'"
    )
    with pytest.raises(AssertionError) as failure:
        events.assert_decided("color_btn", arm="green")
    assert str(failure.value) == f"Expected 1 decision (color_btn=green), found 0. {story}"
    with pytest.raises(AssertionError) as failure:
        events.assert_rewarded("color_btn", 2.0, "sale")
    expected = "Expected 1 reward (color_btn, value 2.0, goal 'sale'), found 0."
    assert str(failure.value) == f"{expected} {story}"
    with pytest.raises(AssertionError) as failure:
        events.assert_nothing()
    assert str(failure.value) == f"Expected that nothing is stored. {story}"


def test_force_and_events_need_no_pytest() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from flask_bandit.testing import BanditEvents, force\n"
        "import flask_bandit.testing.forced\n"
        "from flask_bandit.testing import force as again\n"
        "assert again is force and callable(force)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(ImportError, match="BanditSuite"):
        exec("from flask_bandit.testing import BanditSuite")


@pytest.mark.parametrize("options", [{"group": "shop"}, {"targeting": lambda: False}])
def test_a_forced_arm_is_certain_whoever_takes_part(options: dict[str, Any]) -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, TESTING=True, MAB_STORAGE_URI="memory://")
    mab = BanditMiddleware(app)
    for name in ("cta", "other"):
        bandit = Bandit(**options)
        for arm in ("a", "b"):
            bandit.add_arm(arm, arm)
        mab.add_bandit(name, bandit)

    @app.get("/")
    @mab.choose_arm("cta")
    def page(cta: str) -> str:
        return cta

    with force(cta="b"):
        assert {app.test_client().get("/").text for _ in range(40)} == {"b"}
