"""The pytest plugin, in test runs of a little project that has an app with two bandits."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

# Imported out here, so that they are no new modules for the runs inside.
import flask_bandit.testing.events
import flask_bandit.testing.forced
import flask_bandit.web.registry

SHOP = """
from flask import Flask
from flask_bandit import BanditMiddleware, choose_arm, reward_endpt
from flask_bandit.bandits import ThompsonBandit

made = []

def create_app(**config):
    made.append(1)
    app = Flask("shop")
    app.config.update(SECRET_KEY="k", TESTING=True, **config)
    BanditMiddleware(app)
    for name, arms in {"color_btn": ["green", "red"], "size": ["big", "small"]}.items():
        bandit = ThompsonBandit()
        for arm in arms:
            bandit.add_arm(arm, arm)
        app.add_bandit(name, bandit)

    @app.get("/")
    @choose_arm("color_btn")
    @choose_arm("size")
    def home(color_btn, size):
        return f"{color_btn} {size}"

    @app.post("/buy")
    @reward_endpt("color_btn", 1.0)
    def buy():
        return "Thank you."

    return app
"""

CONFTEST = """
import pytest
from shop import create_app

@pytest.fixture
def app():
    return create_app()

@pytest.fixture
def client(app):
    return app.test_client()
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Run a text as the tests of the project, and return the result."""
    pytester.makepyfile(shop=SHOP, conftest=CONFTEST)
    pytester.makeini(
        "[pytest]\nfilterwarnings = error\naddopts = --strict-markers\nbandit_app = shop:create_app"
    )
    pytester.syspathinsert()

    def run_text(text: str, *arguments: str, app: str | None = None) -> pytest.RunResult:
        if app is not None:
            arguments = (*arguments, "-o", f"bandit_app={app}")
        pytester.makepyfile(test_shop=textwrap.dedent(text))
        # Without the plugin of hypothesis, which would be imported anew in each run.
        without = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
        return pytester.runpytest_inprocess("-v", *without, *arguments)

    return run_text


def ids(result: pytest.RunResult) -> list[str]:
    """Return the names of the tests that passed, and let none have another outcome."""
    outcomes = result.parseoutcomes()
    passed = [line.split("::", 1)[1].split(" ")[0] for line in result.outlines if " PASSED" in line]
    assert outcomes == {"passed": len(passed)}
    return passed


def test_bandit_force_lasts_until_the_test_ends(run: Run) -> None:
    result = run(
        """
        from flask_bandit.engine import forced_arms

        def test_a(client, bandit_force):
            bandit_force(color_btn="red")
            bandit_force({"size": "big"})
            for _ in range(20):
                client.delete_cookie("MAB")
                assert client.get("/").text == "red big"
            bandit_force(color_btn="green")
            client.delete_cookie("MAB")
            assert client.get("/").text == "green big"

        def test_b():
            assert forced_arms.get({}) == {}
        """
    )
    assert ids(result) == ["test_a", "test_b"]


def test_bandit_events_tell_what_the_test_stored(run: Run) -> None:
    result = run(
        """
        def test_a(client, bandit_force, bandit_events):
            bandit_events.assert_nothing()
            bandit_force(color_btn="red")
            client.get("/")
            client.post("/buy")
            bandit_events.assert_decided("color_btn", arm="red", times=1)
            bandit_events.assert_rewarded("color_btn", value=1.0)
            assert len(bandit_events.decisions) == 2

        def test_b(bandit_events):
            bandit_events.assert_nothing()

        def test_c(client, bandit_force, bandit_events):
            bandit_force(color_btn="red")
            client.get("/")
            bandit_events.assert_decided("color_btn", arm="green")
        """
    )
    assert result.parseoutcomes() == {"passed": 2, "failed": 1}
    result.stdout.fnmatch_lines(
        [
            "E * Expected 1 decision (color_btn=green), found 0. Stored, in this order:",
            "E * decision color_btn=red",
        ]
    )
    result.stdout.no_fnmatch_line("*events.py:*")  # the failure points at the test


def test_bandit_disabled_finds_the_app_fixture(run: Run) -> None:
    result = run(
        """
        import pytest
        from shop import create_app

        shared = create_app()

        @pytest.fixture
        def app():
            return shared

        def test_a(client, bandit_events):
            client.get("/")
            bandit_events.assert_decided("color_btn")

        @pytest.mark.usefixtures("bandit_disabled")
        def test_b(client, bandit_events):
            for _ in range(20):
                response = client.get("/")
                assert response.text == "green big"
                assert "Set-Cookie" not in response.headers
            client.post("/buy")
            bandit_events.assert_nothing()

        def test_c(client, bandit_events):
            assert "MAB_ENABLED" not in shared.config
            client.get("/")
            bandit_events.assert_decided("color_btn")
        """
    )
    assert ids(result) == ["test_a", "test_b", "test_c"]


def test_bandit_disabled_is_called_for_another_app(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("")
    result = run(
        """
        from shop import create_app

        def test_a(bandit_disabled, bandit_events):
            app = create_app()
            bandit_disabled(app)
            assert app.test_client().get("/").text == "green big"
            bandit_events.assert_nothing()

        def test_b(bandit_disabled):
            pass
        """
    )
    assert result.parseoutcomes() == {"passed": 2, "errors": 1}
    result.stdout.fnmatch_lines(["E *bandit_disabled has disabled no app: write a fixture 'app'*"])


def test_a_broken_app_fixture_is_not_taken_for_none(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.fixture
        def app(no_such_fixture):
            pass

        def test_a(bandit_disabled):
            pass
        """
    )
    result.stdout.fnmatch_lines(["E *fixture 'no_such_fixture' not found"])


def test_bandit_arms_runs_a_test_once_per_arm_of_the_app(run: Run) -> None:
    """How do I force a variant: Split #220, #452, #638, #668."""
    result = run(
        """
        import pytest
        import shop

        @pytest.mark.bandit_arms("color_btn")
        def test_home(client, bandit_events, color_btn):
            for _ in range(20):
                client.delete_cookie("MAB")
                assert client.get("/").text.split()[0] == color_btn
            bandit_events.assert_decided("color_btn", arm=color_btn, times=20)

        @pytest.mark.bandit_arms("size")
        def test_unnamed():
            assert len(shop.made) == 3  # once for the marks, and twice for test_home
        """
    )
    assert ids(result) == [
        "test_home[color_btn=green]",
        "test_home[color_btn=red]",
        "test_unnamed[size=big]",
        "test_unnamed[size=small]",
    ]


def test_bandit_arms_takes_the_arms_themselves(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.bandit_arms("color_btn", arms=["red"])
        def test_a(client):
            assert client.get("/").text.split()[0] == "red"

        @pytest.mark.bandit_arms("color_btn", ("green", "rad"))
        def test_b(client):
            client.get("/")
        """,
        app="",
    )
    assert result.parseoutcomes() == {"passed": 2, "failed": 1}
    result.stdout.fnmatch_lines(["E *UnknownArmError: 'rad'*did you mean 'red'?*"])


def test_bandit_arms_multiply_with_each_other_and_with_parameters(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.parametrize("path", ["/", "/?x=1"], ids=["root", "query"])
        @pytest.mark.bandit_arms("color_btn")
        @pytest.mark.bandit_arms("size")
        def test_a(client, path, color_btn, size):
            assert client.get(path).text == f"{color_btn} {size}"
        """
    )
    expected = {
        frozenset([f"color_btn={color}", f"size={size}", path])
        for color in ("green", "red")
        for size in ("big", "small")
        for path in ("root", "query")
    }
    assert {frozenset(id_[7:-1].split("-")) for id_ in ids(result)} == expected


def test_bandit_arms_works_on_classes_and_the_nearest_mark_wins(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.bandit_arms("color_btn")
        class TestHome:
            def test_a(self, client, color_btn):
                assert client.get("/").text.split()[0] == color_btn

            @pytest.mark.bandit_arms("color_btn", arms=["red"])
            def test_b(self, client):
                assert client.get("/").text.split()[0] == "red"
        """
    )
    assert ids(result) == [
        "TestHome::test_a[color_btn=green]",
        "TestHome::test_a[color_btn=red]",
        "TestHome::test_b[color_btn=red]",
    ]


def test_bandit_arms_hold_for_fixtures_from_first_to_last(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.fixture
        def visitor(client):
            assert client.get("/").text.split()[0] == "red"
            yield client
            client.delete_cookie("MAB")
            assert client.get("/").text.split()[0] == "red"

        @pytest.mark.bandit_arms("color_btn", arms=["red"] * 5)
        def test_a(visitor):
            pass

        def test_b():
            from flask_bandit.engine import forced_arms
            assert forced_arms.get({}) == {}
        """
    )
    assert len(ids(result)) == 6


def test_bandit_arms_work_for_a_coroutine_that_runs_in_an_older_context(
    run: Run, pytester: pytest.Pytester
) -> None:
    """As with event loops that live longer than one test."""
    pytester.makeconftest(
        CONFTEST
        + textwrap.dedent(
            """
            import asyncio
            import contextvars
            import inspect

            older = contextvars.copy_context()

            @pytest.hookimpl(tryfirst=True)
            def pytest_pyfunc_call(pyfuncitem):
                if inspect.iscoroutinefunction(pyfuncitem.obj):
                    names = pyfuncitem._fixtureinfo.argnames
                    values = {name: pyfuncitem.funcargs[name] for name in names}
                    older.run(asyncio.run, pyfuncitem.obj(**values))
                    return True
            """
        )
    )
    result = run(
        """
        import pytest

        @pytest.mark.bandit_arms("color_btn")
        async def test_a(client, color_btn):
            assert client.get("/").text.split()[0] == color_btn

        class TestB:
            @pytest.mark.bandit_arms("color_btn", arms=["red"] * 5)
            async def test_b(self, client):
                assert client.get("/").text.split()[0] == "red"
        """
    )
    assert len(ids(result)) == 7


def test_bandit_arms_run_on_several_workers(run: Run, pytester: pytest.Pytester) -> None:
    run("", "--collect-only")
    pytester.makepyfile(
        test_shop="""
        import pytest

        @pytest.mark.bandit_arms("color_btn")
        @pytest.mark.bandit_arms("size")
        def test_a(client, color_btn, size):
            assert client.get("/").text == f"{color_btn} {size}"
        """
    )
    result = pytester.runpytest_subprocess("-n2", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=4)


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("", "*does not know the arms. Name the app, as bandit_app = *"),
        ("no_shop:app", "*bandit_app is 'no_shop:app', and that app cannot be loaded from *"),
        ("shop:no_app", "*'shop:no_app'*Failed to find attribute 'no_app'*"),
        ("shop:broken", "*ZeroDivisionError: division by zero*"),
        ("shop:bare", "*this app has no bandits yet*"),
    ],
)
def test_an_app_that_is_not_found_is_told_with_the_fix(
    run: Run, pytester: pytest.Pytester, app: str, message: str
) -> None:
    shop = f"{SHOP}\ndef broken():\n    1 / 0\n\nbare = Flask('bare')\n"
    pytester.makepyfile(shop=shop)
    mark = '@pytest.mark.bandit_arms("color_btn")\n'
    result = run(f"import pytest\n\n{mark}def test_a():\n    pass\n", app=app)
    assert result.parseoutcomes() == {"errors": 1}
    result.stdout.fnmatch_lines([message])


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ('"colour_btn"', "*the app has no such bandit; did you mean 'color_btn'?"),
        ("", "*write @pytest.mark.bandit_arms('color_btn')*"),
        ('"color_btn", "size", "c"', "*one mark for each bandit*"),
        ('"color_btn", "red"', "*one mark for each bandit*"),
        ('"color_btn", arms=[]', "*write @pytest.mark.bandit_arms*"),
        ('"color_btn", arms=[1]', "*write @pytest.mark.bandit_arms*"),
        ('"color_btn", arm="red"', "*write @pytest.mark.bandit_arms*"),
    ],
)
def test_a_wrong_mark_is_told_with_the_fix(run: Run, mark: str, message: str) -> None:
    result = run(f"import pytest\n\n@pytest.mark.bandit_arms({mark})\ndef test_a():\n    pass\n")
    assert result.parseoutcomes() == {"errors": 1}
    result.stdout.fnmatch_lines([message])
    result.stdout.no_fnmatch_line("*pytest_plugin.py:*")  # no traceback


def test_the_app_is_found_from_any_directory_by_module_or_file(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        import pytest

        @pytest.mark.bandit_arms("color_btn")
        def test_a():
            pass
        """
    (pytester.path / "below").mkdir()
    (pytester.path / "apps").mkdir()
    (pytester.path / "apps" / "stall.py").write_text(SHOP)
    apps = ("shop", "shop.py:create_app", "apps/stall.py", "shop:create_app(MAB_COOKIE_NAME='B')")
    for app in apps:
        monkeypatch.chdir(pytester.path / "below")
        result = run(text, str(pytester.path / "test_shop.py"), f"--bandit-app={app}", app="wrong")
        assert len(ids(result)) == 2


def test_looking_up_the_arms_fixes_nothing_in_an_app_that_the_tests_share(run: Run) -> None:
    result = run(
        """
        import pytest
        from shop import create_app

        app = create_app(MAB_BANDITS={"more": {"algorithm": "thompson", "arms": ["yes", "no"]}})

        @pytest.mark.bandit_arms("more")
        def test_a(more):
            app.config["MAB_COOKIE_NAME"] = "OTHER"
            with app.test_client() as client:
                client.get("/")
                assert client.get_cookie("OTHER") is not None
        """,
        app="test_shop:app",
    )
    assert ids(result) == ["test_a[more=yes]", "test_a[more=no]"]


def test_bandit_arms_refuse_a_unittest_class(run: Run) -> None:
    result = run(
        """
        import unittest
        import pytest

        class TestOld(unittest.TestCase):
            @pytest.mark.bandit_arms("color_btn")
            def test_a(self):
                pass
        """
    )
    assert result.parseoutcomes() == {"errors": 1}
    result.stdout.fnmatch_lines(["*bandit_arms works on test functions*"])


def test_an_unknown_arm_is_found_at_the_start_where_an_app_is_active(run: Run) -> None:
    result = run(
        """
        import pytest
        from shop import create_app

        @pytest.fixture(autouse=True, scope="module")
        def active():
            with create_app().app_context():
                yield

        def test_first():
            pass

        @pytest.mark.bandit_arms("color_btn", arms=["rad"])
        def test_a():
            pass

        def test_last():
            pass
        """
    )
    assert result.parseoutcomes() == {"passed": 2, "errors": 1}
    result.stdout.fnmatch_lines(["E *UnknownArmError*did you mean 'red'?*"])


def test_the_mark_and_the_options_are_explained(run: Run) -> None:
    run("", "--markers").stdout.fnmatch_lines(["@pytest.mark.bandit_arms(bandit, arms=None): *"])
    run("", "--fixtures").stdout.fnmatch_lines(["bandit_force*", "bandit_events*"])
    run("", "--help").stdout.fnmatch_lines(["*--bandit-app=MODULE:NAME*"])


def test_the_plugin_imports_late(tmp_path: Path) -> None:
    """It is imported in each run of everybody who has the library."""
    program = (
        "import sys, types, pytest\n"
        "before = set(sys.modules)\n"
        # In place of the package's own public names.
        "package = sys.modules['flask_bandit'] = types.ModuleType('flask_bandit')\n"
        f"package.__path__ = {list(flask_bandit.__path__)!r}\n"
        "import flask_bandit.testing.pytest_plugin\n"
        "heavy = {'flask', 'werkzeug', 'numpy', 'blinker', 'flask_bandit.engine'}\n"
        "assert not heavy & (set(sys.modules) - before), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
