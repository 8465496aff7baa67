"""What operators decide about a bandit, as visitors see it and as it is counted."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from flask_bandit import BanditMiddleware
from flask_bandit.bandits import Bandit
from flask_bandit.control import Control, problems_of
from flask_bandit.model import BanditKey
from flask_bandit.storage import MemoryBanditStorage, SQLiteBanditStorage
from flask_bandit.storage.base import BanditStorage, Commit
from flask_bandit.web.cli import bandit_cli

from .conftest import add_pages, colours, make_app, pulls, rewards, set_cookies, total

USER = "X-User"
ARMS = ("green", "red", "blue")
GARBAGE = (
    {"state": "pausd"},
    {"state": ["running"]},
    {"state": None},
    {"version": "2"},
    {"version": 0},
    {"version": True},
    {"version": 1.5},
    {"winner": 7, "state": "declared"},
    {"weights": {"red": "much"}},
    {"weights": {"red": -1.0}},
    {"weights": ["red"]},
    {"removed": "red"},
    {"removed": [1]},
    {"closed_until": "yesterday"},
    {"history": [["now", "pause"]]},
    {"history": [[1.0]]},
    {"history": 7},
)


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BanditStorage]:
    made: BanditStorage
    made = (
        MemoryBanditStorage()
        if request.param == "memory"
        else SQLiteBanditStorage(str(tmp_path / "bandits.db"))
    )
    yield made
    made.close()


@pytest.fixture
def app(storage: BanditStorage) -> Flask:
    return shop(storage)


def shop(storage: BanditStorage, bandit: Bandit | None = None, **config: Any) -> Flask:
    """Return an app with the bandit ``btn``, whose user is whoever a header names."""
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage, MAB_CONTROL_TTL=0)
    app.config.update(config)
    mab = BanditMiddleware(app)
    mab.subject_loader(lambda: request.headers.get(USER))
    mab.add_bandit("btn", colours() if bandit is None else bandit)
    add_pages(app, "btn")
    return app


def change(app: Flask, action: str, subject: Any = None, name: str = "btn") -> Control:
    """Do what an operator does."""
    control: Control = app.extensions["bandit"].engine.change(name, action, subject)
    return control


def arm(client: FlaskClient, user: str | None = None) -> str:
    return client.get("/btn", headers={USER: user} if user else {}).text.removeprefix("#")


def click(client: FlaskClient, user: str | None = None) -> None:
    client.post("/btn/click", headers={USER: user} if user else {})


def visitors(app: Flask, number: int) -> dict[FlaskClient, str]:
    """Return new visitors and the arms that they hold."""
    clients = [app.test_client() for _ in range(number)]
    return {client: arm(client) for client in clients}


def new_arms(app: Flask, number: int) -> Counter[str]:
    return Counter(visitors(app, number).values())


def decisions(app: Flask) -> list[Any]:
    return [entry.decision for entry in app.extensions["bandit"].storage.iter_log()]


def refused(client: FlaskClient, user: str | None = None) -> str:
    """Ask for an arm and click, see to it that no cookie is set, and return the arm."""
    headers = {USER: user} if user else {}
    page = client.get("/btn", headers=headers)
    clicked = client.post("/btn/click", headers=headers)
    assert (page.status_code, clicked.status_code) == (200, 200)
    assert not set_cookies(page) + set_cookies(clicked)
    for response in (page, clicked):
        assert "Cookie" in response.headers["Vary"]
        assert response.headers["Cache-Control"] == "private"
    return page.text.removeprefix("#")


def test_while_it_is_paused_everybody_sees_the_control_and_nothing_is_counted(app: Flask) -> None:
    before = visitors(app, 12)
    ann = app.test_client()
    of_ann = arm(ann, "ann")
    change(app, "pause")
    assert {refused(client) for client in (*before, app.test_client())} == {"green"}
    assert {refused(client, "ann") for client in (ann, app.test_client())} == {"green"}
    assert {refused(app.test_client(), "bob")} == {"green"}
    assert (pulls(app), rewards(app)) == (13, 0)
    assert len(decisions(app)) == 13
    change(app, "resume")
    assert {client: arm(client) for client in before} == before
    assert arm(ann, "ann") == arm(app.test_client(), "ann") == of_ann
    click(ann, "ann")
    assert (pulls(app), rewards(app)) == (13, 1)


def test_a_pause_does_not_even_count_what_a_prefetch_had_shown(app: Flask) -> None:
    client = app.test_client()
    early = client.get("/btn", headers={"Sec-Purpose": "prefetch"}).text
    change(app, "pause")
    assert refused(client) == "green"
    assert pulls(app) == 0
    change(app, "resume")
    assert client.get("/btn").text == early
    assert pulls(app) == 1


def test_closed_to_new_visitors_who_get_the_control_while_holders_go_on(app: Flask) -> None:
    before = visitors(app, 12)
    change(app, "close")
    assert {client: arm(client) for client in before} == before
    for client in before:
        click(client)
    assert (pulls(app), rewards(app)) == (12, 12)
    assert {refused(app.test_client()) for _ in range(12)} == {"green"}
    assert refused(app.test_client(), "ann") == "green"
    assert (pulls(app), rewards(app)) == (12, 12)
    assert total(app, "btn", "closed:skipped") >= 1
    change(app, "pause")
    assert {refused(client) for client in before} == {"green"}
    # A pause ends as what it began with.
    assert change(app, "resume").state == "closed"
    assert {client: arm(client) for client in before} == before
    assert refused(app.test_client()) == "green"
    change(app, "reopen")
    assert len(new_arms(app, 40)) == 3


def test_everybody_sees_the_winner_and_nothing_is_counted(app: Flask) -> None:
    before = visitors(app, 12)
    arm(app.test_client(), "ann")
    change(app, "declare", "blue")
    assert {refused(client) for client in (*before, app.test_client())} == {"blue"}
    assert {refused(app.test_client(), user) for user in ("ann", "bob")} == {"blue"}
    assert (pulls(app), rewards(app)) == (13, 0)
    change(app, "archive")
    assert {refused(client) for client in (*before, app.test_client())} == {"blue"}
    change(app, "reopen")
    assert {client: arm(client) for client in before} == before
    assert len(new_arms(app, 40)) == 3
    change(app, "archive")
    assert {refused(client) for client in before} == {"green"}


def test_a_reset_starts_at_zero_and_the_old_version_stays_readable(app: Flask) -> None:
    storage, engine = app.extensions["bandit"].storage, app.extensions["bandit"].engine
    before = visitors(app, 12)
    for client in before:
        click(client)
    assert change(app, "reset").version == 2
    assert BanditKey("btn", 2) not in engine.read_counts()
    # Whoever clicks on a page of the old version has nothing that could be rewarded now.
    click(next(iter(before)))
    for client in before:
        page = client.get("/btn")
        assert set_cookies(page)
        click(client)
    counts = engine.read_counts()
    for version in (1, 2):
        rows = counts[BanditKey("btn", version)].values()
        assert sum(row.get("pulls", 0) for row in rows) == 12
        assert sum(row.get("rewards", 0) for row in rows) == 12
    entries = list(storage.iter_log())
    assert Counter(entry.decision.version for entry in entries) == {1: 12, 2: 12}
    assert {r.version == e.decision.version for e in entries for r in e.rewards} == {True}


def test_a_known_user_is_drawn_again_after_a_reset_on_all_devices(app: Flask) -> None:
    for user in map(str, range(10)):
        arm(app.test_client(), user)
    change(app, "reset")
    held = {user: arm(app.test_client(), user) for user in map(str, range(10))}
    assert {user: arm(app.test_client(), user) for user in held} == held
    assert pulls(app) == 20


def test_rewards_that_were_on_their_way_at_a_reset_count_in_their_version(app: Flask) -> None:
    storage = app.extensions["bandit"].storage
    client = app.test_client()
    arm(client)
    real = storage.commit
    late: list[Commit] = []

    def resets_first(commit: Commit, timeout: float | None = None) -> Any:
        if commit.rewards and not late:
            late.append(commit)
            change(app, "reset")
        return real(commit, timeout)

    storage.commit = resets_first
    click(client)
    storage.commit = real
    assert len(late) == 1
    (entry,) = storage.iter_log()
    assert [reward.version for reward in entry.rewards] == [1]
    assert BanditKey("btn", 2) not in storage.read_counts()
    # Sent again, as after a lost answer, it still counts once.
    storage.commit(late[0])
    assert rewards(app) == 1


def test_erasing_a_user_reaches_the_versions_before_a_reset(app: Flask) -> None:
    storage = app.extensions["bandit"].storage

    @app.post("/forget")
    def forget() -> str:
        from flask_bandit.web.request import request_state

        return str(request_state().forget())

    arm(app.test_client(), "ann")
    change(app, "reset")
    arm(app.test_client(), "ann")
    assert app.test_client().post("/forget", headers={USER: "ann"}).text == "True"
    assert [decision.subject for decision in decisions(app)] == [None, None]
    assert all(w.decision.subject is None for c in storage.iter_commits() for w in c.decisions)


def test_a_weight_of_zero_takes_no_new_visitors_and_holders_keep_the_arm(app: Flask) -> None:
    before = visitors(app, 24)
    change(app, "weights", {"red": 0})
    assert set(new_arms(app, 40)) == {"green", "blue"}
    assert {client: arm(client) for client in before} == before
    holder = next(client for client, held in before.items() if held == "red")
    click(holder)
    assert rewards(app) == 1
    assert set(decisions(app)[-1].propensities) == {"green", "blue"}


def test_visitors_of_a_removed_arm_get_another_one_once(app: Flask) -> None:
    before = visitors(app, 24)
    stranded = [client for client, held in before.items() if held == "red"]
    change(app, "weights", {"red": None})
    now = {client: arm(client) for client in before}
    assert "red" not in now.values()
    assert {c: a for c, a in now.items() if c not in stranded} == {
        c: a for c, a in before.items() if c not in stranded
    }
    assert {client: arm(client) for client in before} == now
    assert pulls(app) == 24 + len(stranded)
    change(app, "weights", {"red": 1})
    assert {client: arm(client) for client in before} == now
    assert pulls(app) == 24 + len(stranded)
    assert len(new_arms(app, 40)) == 3


def test_a_user_s_devices_agree_when_a_removed_arm_is_back(app: Flask) -> None:
    users = [user for user in map(str, range(30)) if arm(app.test_client(), user) == "red"]
    assert users
    change(app, "weights", {"red": None})
    moved = {user: arm(app.test_client(), user) for user in users}
    assert "red" not in moved.values()
    counted = pulls(app)
    change(app, "weights", {"red": 1})
    assert {user: arm(app.test_client(), user) for user in users} == moved
    assert pulls(app) == counted


def test_weights_shift_the_shares_and_the_log_says_so() -> None:
    """2,000 visitors, weights 1 : 3 : 1. Chance alone fails it once in 10,000 runs."""
    app = shop(MemoryBanditStorage(), colours_without_floor())
    change(app, "weights", {"red": 3})
    engine = app.extensions["bandit"].engine
    attempt = engine.attempt()
    shares = Counter(engine.decide("btn", f"{n:022}", attempt).arm for n in range(2000))
    expected = {"green": 0.2, "red": 0.6, "blue": 0.2}
    chi_square = sum((shares[a] - 2000 * p) ** 2 / (2000 * p) for a, p in expected.items())
    assert chi_square < -2 * math.log(1e-4)  # two degrees of freedom
    arm(app.test_client())
    assert decisions(app)[0].propensities == pytest.approx(expected)


def colours_without_floor() -> Bandit:
    bandit = Bandit(floor=0.0)
    for each in ARMS:
        bandit.add_arm(each, f"#{each}")
    return bandit


def test_the_logged_vector_is_the_final_one_over_the_eligible_arms(app: Flask) -> None:
    change(app, "weights", {"red": 4, "blue": None})
    arm(app.test_client())
    floor = 0.005
    expected = {"green": 0.2 * (1 - floor) + floor / 2, "red": 0.8 * (1 - floor) + floor / 2}
    assert decisions(app)[0].propensities == pytest.approx(expected)


def test_adding_an_arm_keeps_the_others_counts(storage: BanditStorage) -> None:
    """Adding an arm wipes data: Split #174, GrowthBook #4918."""
    old = shop(storage, colours("green", "red"))
    before = visitors(old, 12)
    for client in before:
        click(client)
    rows = dict(storage.read_counts()[BanditKey("btn", 1)])
    new = shop(storage, colours("green", "red", "blue"))
    for client, held in before.items():
        cookie = client.get_cookie("MAB")
        assert cookie is not None
        later = new.test_client()
        later.set_cookie("MAB", cookie.value)
        assert arm(later) == held
    assert dict(storage.read_counts()[BanditKey("btn", 1)]) == rows
    assert (pulls(new), rewards(new)) == (12, 12)
    # Live: the arm waits in the code until an operator lets visitors have it.
    change(new, "weights", {"blue": 0})
    change(new, "weights", {"blue": 1})
    assert dict(storage.read_counts()[BanditKey("btn", 1)]) == rows
    assert new_arms(new, 40)["blue"] > 0
    assert pulls(new) == 52


def test_a_page_of_ten_bandits_reads_once_even_without_a_time_to_live() -> None:
    storage = MemoryBanditStorage()
    names = [f"b{n}" for n in range(10)]
    app = make_app(*names, MAB_STORAGE_ENGINE=storage, MAB_CONTROL_TTL=0)

    @app.get("/all")
    def all_of_them() -> list[str]:
        from flask_bandit import suggest_arm_for

        return [suggest_arm_for(name)[0] for name in names]

    real, reads = storage.read_control, []

    def read_control(timeout: float | None = None) -> Any:
        reads.append(timeout)
        return real(timeout)

    storage.read_control = read_control  # type: ignore[method-assign]
    for number in range(1, 4):
        app.test_client().get("/all")
        assert len(reads) == number
    change(app, "declare", "red", name="b3")
    change(app, "pause", name="b4")
    # Both at once, in the very next request.
    page = app.test_client().get("/all").json
    assert page is not None
    assert (page[3], page[4]) == ("red", "green")


@pytest.mark.parametrize("garbage", GARBAGE, ids=repr)
def test_nonsense_in_the_storage_is_a_pause_and_no_error(
    garbage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    storage = MemoryBanditStorage()
    app = shop(storage)
    before = visitors(app, 6)
    assert storage.write_control("btn", garbage, None)
    caplog.clear()
    assert {refused(client) for client in (*before, app.test_client())} == {"green"}
    assert pulls(app) == 6
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "makes no sense, so it is paused" in errors[0].getMessage()
    checked = app.test_cli_runner().invoke(bandit_cli, ["check"])
    assert checked.exit_code == 1
    assert "makes no sense, so it is paused" in checked.stderr
    # What the check says is the fix.
    mended = app.test_cli_runner().invoke(bandit_cli, ["resume", "btn"])
    assert mended.exit_code == 0, mended.output
    assert problems_of(storage.read_control()["btn"], ARMS) == []
    assert {client: arm(client) for client in before} == before


@pytest.mark.parametrize("stored", ["paused", 7, ["paused"], None])
def test_what_is_no_table_at_all_is_nonsense_too(stored: Any) -> None:
    assert Control.load(stored) == (Control() if stored is None else Control("paused"))
    assert len(problems_of(stored, ARMS)) == int(stored is not None)


def test_keys_of_later_versions_are_no_nonsense() -> None:
    stored = {**Control("closed").dump(), "ramp": {"to": 1.0}}
    assert Control.load(stored) == Control("closed")
    assert problems_of(stored, ARMS) == []


def test_a_winner_that_the_code_has_no_more_means_the_control_and_is_told(
    storage: BanditStorage,
) -> None:
    change(shop(storage), "declare", "red")
    app = shop(storage, colours("green", "blue"))
    assert refused(app.test_client()) == "green"
    checked = app.test_cli_runner().invoke(bandit_cli, ["check"])
    assert checked.exit_code == 1
    assert "the declared winner 'red' is not in the code" in checked.stderr


def test_a_bandit_that_is_stored_and_not_in_the_code_hurts_nobody(storage: BanditStorage) -> None:
    storage.write_control("gone", {"state": "pausd"}, None)
    app = shop(storage)
    assert len(new_arms(app, 40)) == 3


def test_a_removed_arm_that_is_the_last_in_the_code_is_kept_and_counted_once() -> None:
    """Operators took red away, and later the code lost green: all that is left is red."""
    storage = MemoryBanditStorage()
    before = make_app(MAB_STORAGE_ENGINE=storage)
    before.extensions["bandit"].engine.change("btn", "weights", {"red": None})
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage)
    BanditMiddleware(app).add_bandit("btn", colours("red"))
    add_pages(app, "btn")
    client = app.test_client()
    assert {client.get("/btn").text for _ in range(5)} == {"#red"}
    assert pulls(app) == 1
