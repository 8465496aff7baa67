"""What the dashboard does to bandits: each action, what it refuses, and forged forms."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask, abort, request

from flask_bandit.control import ACTIONS, FIRST_VERSION
from flask_bandit.errors import StorageError
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import BanditStorage
from flask_bandit.testing.storage_samples import decision, decisions
from flask_bandit.web.admin import BanditAdmin
from flask_bandit.web.admin.actions import OFFERS
from tests.web.conftest import pulls

from .conftest import ROOT, admin_app, do, fields, send

PAGE = f"{ROOT}bandit?name=btn"


def control(app: Flask, name: str = "btn") -> Any:
    return app.extensions["bandit"].storage.read_control().get(name)


def history(app: Flask, name: str = "btn") -> list[str]:
    return [what for _, what in (control(app, name) or {"history": []})["history"]]


def buttons(page: str) -> set[str]:
    """Return the actions that a page offers."""
    return set(re.findall(r'href="[^"]*/do/(\w+)\?', page))


def problem(answer: Any) -> str:
    """Return what a page says went wrong."""
    found = re.search(r'role="alert">(.*?)</p>', answer.text)
    assert found is not None, answer.text
    return found[1].replace("&#39;", "'")


@pytest.fixture
def app(storage: BanditStorage) -> Flask:
    return admin_app(storage=storage)


def test_every_action_of_the_library_is_offered() -> None:
    assert set(OFFERS) == set(ACTIONS)


@pytest.mark.parametrize(
    ("before", "action", "form", "state", "told"),
    [
        ((), "pause", {}, "paused", "btn is paused: everybody gets &#39;green&#39;, the control"),
        (("pause",), "resume", {}, "running", "btn is running: new visitors get an arm by"),
        ((), "close", {}, "closed", "btn is closed: visitors keep their arms"),
        ((), "declare", {"arm": "red"}, "declared", "with &#39;red&#39; as the winner: everybody"),
        (("close",), "reopen", {}, "running", "btn is running: new visitors"),
        ((), "archive", {}, "archived", "btn is archived: everybody gets"),
        ((), "reset", {}, "running", "btn is running as version 2, from zero: new visitors"),
        (
            (),
            "weights",
            {"weight:red": "0.5"},
            "running",
            "running: new visitors get &#39;green&#39; or",
        ),
    ],
)
def test_each_action(
    app: Flask, before: tuple[str, ...], action: str, form: dict[str, str], state: str, told: str
) -> None:
    client = app.test_client()
    for one in before:
        do(client, one)
    answer = do(client, action, **form)
    assert answer.status_code == 303
    assert answer.location == PAGE
    assert control(app)["state"] == state
    assert history(app)[-1].startswith(action)
    assert history(app)[-1].endswith("(by ann)")
    page = client.get(PAGE).text
    assert told in page
    assert "All workers follow within 1 s" in page
    assert told not in client.get(PAGE).text, "it is said once"


def test_an_action_is_followed_by_visitors(app: Flask) -> None:
    do(app.test_client(), "declare", arm="blue")
    assert {app.test_client().get("/btn").text for _ in range(10)} == {"#blue"}
    assert pulls(app) == 0


def test_the_followed_time_is_the_configured_one() -> None:
    app = admin_app(MAB_CONTROL_TTL=0)
    client = app.test_client()
    do(client, "pause")
    assert "All workers follow at once" in client.get(PAGE).text


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("action", OFFERS)
def test_looking_changes_nothing(app: Flask, action: str, method: str) -> None:
    app.test_client().open(f"{ROOT}do/{action}?name=btn&arm=red&version=1", method=method)
    assert control(app) is None


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(app: Flask, method: str) -> None:
    answer = app.test_client().open(f"{ROOT}do/pause?name=btn", method=method)
    assert answer.status_code == 405


def test_a_page_offers_what_would_change_something(app: Flask) -> None:
    client = app.test_client()
    running = {"pause", "declare", "weights", "close", "archive", "reset"}
    assert buttons(client.get(PAGE).text) == running
    do(client, "close")
    assert buttons(client.get(PAGE).text) == running - {"close"} | {"reopen"}
    do(client, "pause")
    paused = {"resume", "declare", "weights", "archive", "reset"}
    assert buttons(client.get(PAGE).text) == paused
    do(client, "declare", arm="red")
    declared = {"declare", "weights", "reopen", "archive", "reset"}
    assert buttons(client.get(PAGE).text) == declared
    do(client, "archive")
    assert buttons(client.get(PAGE).text) == {"reopen", "reset"}


@pytest.mark.parametrize("names", [("pause",), ("declare",), ("pause", "archive"), ("close",)])
def test_what_a_page_offers_can_be_done(names: tuple[str, ...]) -> None:
    app = admin_app()
    client = app.test_client()
    for name in names:
        do(client, name, arm="red")
    form = {"arm": "blue", "weight:red": "3"}
    for offer in buttons(client.get(PAGE).text):
        storage = MemoryBanditStorage()
        storage.write_control("btn", control(app), None)
        answer = do(admin_app(storage=storage).test_client(), offer, **form)
        assert answer.status_code == 303, offer


def test_what_the_page_asks_before(app: Flask) -> None:
    client = app.test_client()
    page = client.get(f"{ROOT}do/pause?name=btn").text
    assert OFFERS["pause"].meaning in page
    assert "running, version 1: new visitors get an arm" in page
    assert "everybody gets &#39;green&#39;, the control, and nothing is counted." in page
    page = client.get(f"{ROOT}do/declare?name=btn").text
    assert re.findall(r'name="arm" value="(\w+)"', page) == ["green", "red", "blue"]
    page = client.get(f"{ROOT}do/reset?name=btn").text
    assert "This cannot be undone" in page


def test_what_cannot_be_done_now(app: Flask) -> None:
    client = app.test_client()
    do(client, "declare", arm="red")
    answer = client.get(f"{ROOT}do/pause?name=btn")
    assert answer.status_code == 409
    assert problem(answer).endswith("it is declared and cannot be paused; reopen it first.")
    assert "<form" not in answer.text


def test_what_is_so_already(app: Flask) -> None:
    answer = app.test_client().get(f"{ROOT}do/resume?name=btn")
    assert problem(answer) == "Nothing was done: it is running already."
    assert "<form" not in answer.text


def test_somebody_was_faster(app: Flask) -> None:
    client = app.test_client()
    form = fields(client.get(f"{ROOT}do/pause?name=btn").text)
    app.extensions["bandit"].engine.change("btn", "declare", "red")
    answer = send(client, "pause", "btn", form)
    assert answer.status_code == 409
    assert "reopen it first" in problem(answer)
    assert control(app)["state"] == "declared"


def test_somebody_did_the_same(app: Flask) -> None:
    client = app.test_client()
    form = fields(client.get(f"{ROOT}do/pause?name=btn").text)
    assert send(client, "pause", "btn", form).status_code == 303
    assert send(client, "pause", "btn", form).status_code == 303
    assert "btn is paused already; nothing was changed." in client.get(PAGE).text
    assert history(app) == ["pause (by ann)"]


def test_pressing_reset_twice_resets_once(app: Flask) -> None:
    client = app.test_client()
    form = fields(client.get(f"{ROOT}do/reset?name=btn").text)
    assert send(client, "reset", "btn", form).status_code == 303
    again = send(client, "reset", "btn", form)
    assert again.status_code == 409
    assert "it was reset meanwhile" in problem(again)
    assert control(app)["version"] == FIRST_VERSION + 1


def test_declare_without_an_arm_or_with_an_unknown_one(app: Flask) -> None:
    client = app.test_client()
    answer = do(client, "declare")
    assert (answer.status_code, "choose the arm" in problem(answer)) == (400, True)
    answer = do(client, "declare", arm="pink")
    assert answer.status_code == 409
    assert "there is no arm 'pink'; known: green, red, blue" in problem(answer)
    assert control(app) is None


# Weights.


def test_weights_that_are_changed_are_sent_alone(app: Flask) -> None:
    client = app.test_client()
    do(client, "weights", **{"weight:green": "1", "weight:red": "2", "off:blue": "on"})
    assert history(app) == ["weights red=2 blue=off (by ann)"]
    page = client.get(f"{ROOT}do/weights?name=btn").text
    assert re.findall(r'name="weight:(\w+)" value="([^"]*)"', page) == [
        ("green", "1"),
        ("red", "2"),
        ("blue", "1"),
    ]
    assert re.findall(r'name="off:(\w+)" aria-label="[^"]*"( checked)?', page) == [
        ("green", ""),
        ("red", ""),
        ("blue", " checked"),
    ]
    do(client, "weights", **{"weight:green": "1", "weight:red": "2", "weight:blue": "1"})
    assert history(app)[-1] == "weights blue=1 (by ann)"


def test_weights_that_somebody_else_changed_meanwhile_stay(app: Flask) -> None:
    client, page = app.test_client(), f"{ROOT}do/weights?name=btn"
    shown = {"weight:green": "1", "weight:red": "1", "weight:blue": "1"}
    mine = {**fields(client.get(page).text), **shown}
    do(client, "weights", **{**shown, "weight:red": "3", "off:blue": "on"})
    send(client, "weights", "btn", {**mine, "weight:green": "2"})
    stored = control(app)
    assert (stored["weights"], stored["removed"]) == ({"green": 2.0, "red": 3.0}, ["blue"])


def test_a_weight_with_more_digits_than_the_form_shows_stays(app: Flask) -> None:
    app.extensions["bandit"].engine.change("btn", "weights", {"red": 1.23456789})
    form = {"weight:green": "2", "weight:red": "1.23457", "weight:blue": "1"}
    do(app.test_client(), "weights", **form)
    assert control(app)["weights"] == {"green": 2.0, "red": 1.23456789}


@pytest.mark.parametrize("text", ["", "much", "nan", "inf", "-inf", "1,5"])
def test_a_weight_that_is_no_number(app: Flask, text: str) -> None:
    answer = do(app.test_client(), "weights", **{"weight:red": text, "off:blue": "on"})
    assert answer.status_code == 400
    assert "the weight of 'red'" in problem(answer)
    assert "write a number" in problem(answer)
    assert control(app) is None


@pytest.mark.parametrize("text", ["-1", "1e-9", "1e9"])
def test_a_weight_that_cannot_be(app: Flask, text: str) -> None:
    answer = do(app.test_client(), "weights", **{"weight:red": text})
    assert answer.status_code == 409
    assert "write a number from 0 to 1000000" in problem(answer)


def test_weights_keep_what_was_written_when_they_are_refused(app: Flask) -> None:
    answer = do(app.test_client(), "weights", **{"weight:red": "-3", "weight:green": "7"})
    values = dict(re.findall(r'name="weight:(\w+)" value="([^"]*)"', answer.text))
    assert values == {"green": "7", "red": "-3", "blue": "1"}


def test_weights_as_they_are(app: Flask) -> None:
    answer = do(app.test_client(), "weights", **{"weight:red": "1"})
    assert answer.status_code == 400
    assert "like this already" in problem(answer)


def test_no_arm_left(app: Flask) -> None:
    form = {"off:red": "on", "off:blue": "on", "weight:green": "0"}
    answer = do(app.test_client(), "weights", **form)
    assert answer.status_code == 409
    assert "no arm would be left" in problem(answer)


def test_odd_arms() -> None:
    app = admin_app(
        MAB_BANDITS={"odd": {"algorithm": "uniform", "arms": {"=a:b": 1, '"><b>': 2, " ": 3}}}
    )
    client = app.test_client()
    do(client, "weights", "odd", **{'weight:"><b>': "2", "off:=a:b": "on"})
    stored = control(app, "odd")
    assert (stored["weights"], stored["removed"]) == ({'"><b>': 2.0}, ["=a:b"])
    do(client, "declare", "odd", arm='"><b>')
    assert control(app, "odd")["winner"] == '"><b>'


# Bandits that only the storage has.


def test_a_bandit_that_is_not_in_the_code(app: Flask, storage: BanditStorage) -> None:
    storage.commit(decisions(decision("d", bandit="gone")))
    client = app.test_client()
    page = f"{ROOT}bandit?name=gone"
    assert buttons(client.get(page).text) == {"archive"}
    answer = client.get(f"{ROOT}do/pause?name=gone")
    assert (answer.status_code, "not in the code" in problem(answer)) == (409, True)
    assert do(client, "archive", "gone").status_code == 303
    assert control(app, "gone")["state"] == "archived"
    assert buttons(client.get(page).text) == {"reopen"}


def test_an_older_version_has_no_actions(app: Flask) -> None:
    client = app.test_client()
    do(client, "reset")
    assert not buttons(client.get(f"{PAGE}&version=1").text)


def test_unknown_bandits_and_actions(app: Flask) -> None:
    client = app.test_client()
    for path in ("do/pause?name=nothing", "do/pause", "do/erase?name=btn"):
        assert client.get(ROOT + path).status_code == 404
        assert client.post(ROOT + path).status_code == 404


# Forged forms.


def test_a_form_without_its_token(app: Flask) -> None:
    client = app.test_client()
    form = fields(client.get(f"{ROOT}do/reset?name=btn").text)
    del form["bandits_token"]
    answer = send(client, "reset", "btn", form)
    assert answer.status_code == 400
    assert "too old, or it was sent by another site" in problem(answer)
    assert control(app) is None


@pytest.mark.parametrize("token", ["", "##", "x", "20990101000000##" + "0" * 40, "##\u00e9"])
def test_a_form_with_a_wrong_token(app: Flask, token: str) -> None:
    client = app.test_client()
    form = fields(client.get(f"{ROOT}do/reset?name=btn").text)
    assert send(client, "reset", "btn", {**form, "bandits_token": token}).status_code == 400
    assert control(app) is None


def test_a_form_of_another_visitor(app: Flask) -> None:
    form = fields(app.test_client().get(f"{ROOT}do/reset?name=btn").text)
    client = app.test_client()
    assert send(client, "reset", "btn", form).status_code == 400
    client.get(f"{ROOT}do/reset?name=btn")
    assert send(client, "reset", "btn", form).status_code == 400
    assert control(app) is None


def test_a_form_of_another_app() -> None:
    app, other = admin_app(), admin_app(SECRET_KEY="o" * 32)
    form = fields(other.test_client().get(f"{ROOT}do/reset?name=btn").text)
    assert send(app.test_client(), "reset", "btn", form).status_code == 400
    assert control(app) is None


def test_a_form_that_has_been_open_too_long(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    client = app.test_client()
    form = fields(client.get(f"{ROOT}do/pause?name=btn").text)
    expires = form["bandits_token"].partition("##")[0]
    # What the form's time is read from.
    monkeypatch.setattr("wtforms.csrf.session.SessionCSRF.now", lambda self: _just_after(expires))
    answer = send(client, "pause", "btn", form)
    assert answer.status_code == 400
    assert control(app) is None
    assert send(client, "pause", "btn", fields(answer.text)).status_code == 303


def _just_after(stamp: str) -> datetime:
    return datetime.strptime(stamp, "%Y%m%d%H%M%S") + timedelta(seconds=1)


def test_a_token_in_the_query_string_is_none(app: Flask) -> None:
    client = app.test_client()
    form = fields(client.get(f"{ROOT}do/pause?name=btn").text)
    query = {"name": "btn", **form}
    assert client.post(f"{ROOT}do/pause", query_string=query).status_code == 400
    assert control(app) is None


def test_an_app_that_protects_all_its_forms_itself() -> None:
    """As Flask-WTF does: each form must have the app's own token too."""
    app = admin_app()
    app.jinja_env.globals["csrf_token"] = lambda: "the app's own"

    @app.before_request
    def protect() -> None:
        if request.method == "POST" and request.form.get("csrf_token") != "the app's own":
            abort(400)

    assert do(app.test_client(), "pause").status_code == 303


# The storage is down.


class Away(MemoryBanditStorage):
    """Fails when it is told to."""

    down = False

    def read_control(self, timeout: float | None = None) -> Any:
        if self.down:
            raise StorageError("no route to host")
        return super().read_control(timeout)

    def write_control(self, *args: Any, **kwargs: Any) -> bool:
        raise StorageError("the disk is full")


@pytest.fixture
def away() -> tuple[Flask, Away]:
    storage = Away()
    return admin_app(storage=storage), storage


def test_an_outage_while_something_is_done(away: tuple[Flask, Away]) -> None:
    app, storage = away
    client = app.test_client()
    form = fields(client.get(f"{ROOT}do/pause?name=btn").text)
    answer = send(client, "pause", "btn", form)
    assert answer.status_code == 503
    assert "the disk is full" in answer.text
    storage.down = True
    assert client.get(f"{ROOT}do/pause?name=btn").status_code == 503
    assert send(client, "pause", "btn", form).status_code == 503


def test_an_error_of_several_lines_is_one_line_of_the_audit(
    away: tuple[Flask, Away], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **kwargs: Any) -> bool:
        raise StorageError("gone\n2026-11-21T10:15:00+00:00 ann reset of 'btn': done")

    app, _ = away
    monkeypatch.setattr(Away, "write_control", fails)
    with caplog.at_level("INFO", "flask_bandit.audit"):
        do(app.test_client(), "pause")
    (line,) = [each.getMessage() for each in caplog.records if each.name == "flask_bandit.audit"]
    assert "failed: " in line
    assert "gone" in line
    assert "\n" not in line


def test_a_view_that_fails_is_not_run_again() -> None:
    """Flask-Admin would run it once more after a TypeError."""
    runs = []

    class Failing(BanditAdmin):
        def is_accessible(self) -> bool:
            return True

        def render(self, template: str, **kwargs: Any) -> str:
            runs.append(template)
            raise TypeError("in the template")

    app = admin_app(view=Failing())
    with pytest.raises(TypeError, match="in the template"):
        app.test_client().get(PAGE)
    assert runs == ["bandit_admin/bandit.html"]
