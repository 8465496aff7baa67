"""Who may enter the dashboard, and by what name."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, request
from flask_admin import Admin
from flask_login import LoginManager, UserMixin

from flask_bandit.errors import ConfigurationError
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.web.admin import BanditAdmin
from tests.web.conftest import make_app

from .conftest import ANN, ROOT, admin_app, do, fields, send

PATHS = (
    "",
    "bandit?name=btn",
    "bandit?name=nothing",
    "live?name=btn",
    "log?name=btn",
    "log.csv?name=btn",
    "log.jsonl?name=btn",
    *(
        f"do/{action}?name=btn"
        for action in (
            *("pause", "resume", "close", "declare", "reopen", "archive", "reset", "weights"),
            "nothing",
        )
    ),
)


def boom() -> bool:
    raise RuntimeError("the user table is gone")


async def later() -> bool:
    return True


ANSWERS: dict[str, tuple[Callable[[], Any], bool]] = {
    "yes": (lambda: True, True),
    "coroutine function": (later, True),
    "no": (lambda: False, False),
    "nobody": (lambda: None, False),
    "raises": (boom, False),
    "method not called": (lambda: [].copy, False),
    "text": (lambda: "ann", False),
    "one": (lambda: 1, False),
}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *((method, path) for method in ("GET", "HEAD") for path in PATHS),
        *(("POST", path) for path in PATHS if path.startswith("do/")),
    ],
)
def test_strangers_get_403_everywhere(method: str, path: str) -> None:
    app = admin_app(view=BanditAdmin(access=lambda: False))
    answer = app.test_client().open(ROOT + path, method=method)
    assert answer.status_code == 403
    assert "btn" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert not app.extensions["bandit"].storage.read_control()


def test_every_route_is_among_the_paths_that_strangers_try() -> None:
    app = admin_app()
    rules = {
        rule.rule.removeprefix(ROOT).partition("<")[0]
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("bandits.") and rule.endpoint != "bandits.static"
    }
    tried = {path.partition("?")[0] for path in PATHS}
    assert {rule for rule in rules if not any(path.startswith(rule) for path in tried)} == set()
    assert len(rules) == 6


@pytest.mark.parametrize("name", ANSWERS)
def test_what_an_access_function_answers(name: str, caplog: pytest.LogCaptureFixture) -> None:
    access, is_open = ANSWERS[name]
    app = admin_app(view=BanditAdmin(access=access))
    assert app.test_client().get(ROOT).status_code == (200 if is_open else 403)
    has_told = name not in ("yes", "coroutine function", "no", "nobody")
    assert ("nobody may enter" in caplog.text) is has_told


# What is meant: the coroutine is never awaited.
@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_coroutine_that_is_not_awaited_lets_nobody_in() -> None:
    app = admin_app(view=BanditAdmin(access=lambda: later()))
    assert app.test_client().get(ROOT).status_code == 403


def test_without_access_it_is_closed_and_the_log_says_once_what_to_write(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = admin_app(view=BanditAdmin()).test_client()
    for _ in range(2):
        answer = client.get(ROOT)
        assert answer.status_code == 403
        assert "does not say who may enter" in answer.text
    assert caplog.text.count("BanditAdmin(access=...)") == 1


def test_without_access_it_is_open_in_debug_and_says_so() -> None:
    app = admin_app(view=BanditAdmin(), DEBUG=True)
    answer = app.test_client().get(ROOT)
    assert answer.status_code == 200
    assert "Open to everybody, because the app runs in debug mode" in answer.text


def test_with_access_debug_opens_nothing() -> None:
    app = admin_app(view=BanditAdmin(access=lambda: False), DEBUG=True)
    assert app.test_client().get(ROOT).status_code == 403
    app = admin_app(DEBUG=True)
    assert "Open to everybody" not in app.test_client().get(ROOT).text


@pytest.mark.parametrize("argument", ["access", "who"])
def test_an_answer_in_place_of_a_function(argument: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{argument}=lambda"):
        BanditAdmin(**{argument: True})  # type: ignore[arg-type]


def test_access_is_asked_at_each_request() -> None:
    app = admin_app(view=BanditAdmin(access=lambda: request.headers.get("X-Team") == "growth"))
    client = app.test_client()
    assert client.get(ROOT).status_code == 403
    assert client.get(ROOT, headers={"X-Team": "growth"}).status_code == 200
    assert client.get(ROOT).status_code == 403


def test_the_menu_has_it_only_for_those_who_may_enter() -> None:
    app = admin_app(view=BanditAdmin(access=lambda: "ann" in request.args, name="Experiments"))
    client = app.test_client()
    assert "Experiments" not in client.get("/admin/").text
    assert f'href="{ROOT}"' in client.get("/admin/?ann").text


def test_the_menu_of_an_app_whose_access_function_fails_still_works() -> None:
    app = admin_app(view=BanditAdmin(access=boom))
    assert app.test_client().get("/admin/").status_code == 200


def test_a_subclass_may_send_strangers_to_the_login() -> None:
    class WithLogin(BanditAdmin):
        def inaccessible_callback(self, name: str, **kwargs: Any) -> Response:
            return Response(status=302, headers={"Location": "/login"})

    app = admin_app(view=WithLogin(access=lambda: False))
    assert app.test_client().get(ROOT).location == "/login"


def test_the_pages_of_one_app_are_not_opened_by_another() -> None:
    open_app, closed_app = admin_app(), admin_app(view=BanditAdmin(access=lambda: False))
    assert open_app.test_client().get(ROOT).status_code == 200
    assert closed_app.test_client().get(ROOT).status_code == 403


# By what name.


def who_paused(app: Flask, client: Any = None) -> str:
    """Pause and return by whom the history says it was."""
    assert do(client or app.test_client(), "pause").status_code == 303
    ((_, what),) = app.extensions["bandit"].storage.read_control()["btn"]["history"]
    found = re.fullmatch(r"pause \(by (.*)\)", what)
    assert found is not None
    return found[1]


def test_the_name_is_that_of_basic_authentication() -> None:
    assert who_paused(admin_app()) == ANN[0]


def test_the_name_is_what_the_app_says() -> None:
    assert who_paused(admin_app(view=BanditAdmin(lambda: True, who=lambda: "Änne"))) == "Änne"


def test_the_name_is_flask_logins_user() -> None:
    app = admin_app()
    manager = LoginManager(app)

    class User(UserMixin):  # type: ignore[misc]
        id = "user-7"

    @manager.request_loader  # type: ignore[untyped-decorator]
    def load(request: Any) -> User:
        return User()

    assert who_paused(app) == "user-7"


def test_without_a_signed_in_user_it_is_the_next_best() -> None:
    app = admin_app()
    LoginManager(app).user_loader(lambda user_id: None)
    assert who_paused(app) == ANN[0]


def test_the_name_is_the_address_where_nothing_else_is_known() -> None:
    app = admin_app()
    client = app.test_client()
    form = fields(client.get(f"{ROOT}do/pause?name=btn").text)
    assert client.post(f"{ROOT}do/pause?name=btn", data=form).status_code == 303
    ((_, what),) = app.extensions["bandit"].storage.read_control()["btn"]["history"]
    assert what == "pause (by 127.0.0.1)"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("ann\nroot", "ann?root"), ("x" * 300, "x" * 100), ("\ud83d", "?"), ("", "127.0.0.1")],
)
def test_a_name_is_one_short_line(given: str, kept: str) -> None:
    assert who_paused(admin_app(view=BanditAdmin(lambda: True, who=lambda: given))) == kept


def test_a_who_function_that_fails_costs_the_name_only(caplog: pytest.LogCaptureFixture) -> None:
    assert who_paused(admin_app(view=BanditAdmin(lambda: True, who=boom))) == "127.0.0.1"
    assert "the address stands for the name" in caplog.text


# The audit.


def test_the_audit_log_says_who_when_what(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flask_bandit.audit")
    app = admin_app()
    client = app.test_client()
    do(client, "declare", arm="red")
    do(client, "weights", **{"weight:green": "2", "off:red": "on"})
    send(client, "pause", "btn", {})
    send(client, "pause", "btn", fields(client.get(f"{ROOT}do/reset?name=btn").text))
    lines = [record.getMessage() for record in caplog.records if "audit" in record.name]
    stamps, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", stamp) for stamp in stamps)
    assert texts[:3] == (
        "ann: declare 'red' of 'btn': done",
        "ann: weights {'green': 2.0, 'red': None} of 'btn': done",
        "ann: pause of 'btn': refused, the form's token is wrong",
    )
    assert texts[3].startswith("ann: pause of 'btn': failed: btn: it is declared")


def test_looking_leaves_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client = admin_app().test_client()
    for path in PATHS:
        client.get(ROOT + path)
    assert not [record for record in caplog.records if record.name == "flask_bandit.audit"]


def test_an_app_whose_name_for_the_view_is_another() -> None:
    app = make_app(TESTING=True, MAB_STORAGE_ENGINE=MemoryBanditStorage())
    view = BanditAdmin(lambda: True, name="Tests", endpoint="tests", url="/ops/tests")
    Admin(app).add_view(view)
    answer = app.test_client().get("/ops/tests/")
    assert answer.status_code == 200
    assert "<h1>Tests</h1>" in answer.text
