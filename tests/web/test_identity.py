"""Known users: one arm on every device, one decision, also for what was decided before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, login_user, logout_user

from flask_bandit import BanditMiddleware, choose_arm, decision_made, reward_endpt
from flask_bandit.bandits import Bandit
from flask_bandit.storage import MemoryBanditStorage, SQLiteBanditStorage
from flask_bandit.storage.base import BanditStorage

from .conftest import add_pages, colours, pulls, rewards, set_cookies

USER = "X-User"
MakeStorage = Callable[[], BanditStorage]


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


def shop(storage: BanditStorage, bandit: Bandit | None = None, **config: Any) -> Flask:
    """Return an app whose user is whoever a header names."""
    app = Flask("shop")
    app.config.update({"SECRET_KEY": "k" * 32, "MAB_STORAGE_ENGINE": storage, **config})
    mab = BanditMiddleware(app)
    mab.subject_loader(lambda: request.headers.get(USER))
    mab.add_bandit("btn", colours() if bandit is None else bandit)
    add_pages(app, "btn")
    return app


def arm(client: FlaskClient, user: str | None = None) -> str:
    return client.get("/btn", headers={USER: user} if user else {}).text.removeprefix("#")


def click(client: FlaskClient, user: str | None = None) -> None:
    client.post("/btn/click", headers={USER: user} if user else {})


def other_arm_than(app: Flask, first: str) -> FlaskClient:
    """Return a client that, as an anonymous visitor, holds another arm."""
    for _ in range(1000):
        client = app.test_client()
        if arm(client) != first:
            return client
    raise AssertionError("a uniform bandit gave one arm to a thousand visitors")


def test_a_user_has_one_arm_on_every_device(storage: BanditStorage) -> None:
    app = shop(storage)
    for user in map(str, range(20)):
        phone, laptop = app.test_client(), app.test_client()
        assert arm(phone, user) == arm(laptop, user) == arm(app.test_client(), user)
    assert pulls(app) == 20


def test_a_returning_user_is_answered_from_the_cookie(storage: BanditStorage) -> None:
    app = shop(storage, MAB_CONTROL_TTL=3600)
    client = app.test_client()
    first = arm(client, "ann")

    def refuse(*_: Any) -> Any:
        raise AssertionError("the storage was asked")

    storage.get_decisions = storage.commit = storage.read_counts = refuse  # type: ignore[method-assign,assignment]
    again = client.get("/btn", headers={USER: "ann"})
    assert again.text == f"#{first}"
    assert not set_cookies(again)


def test_users_are_stored_as_pseudonyms(storage: BanditStorage) -> None:
    app = shop(storage)
    arm(app.test_client(), "ann@example.com")
    (entry,) = storage.iter_log()
    assert entry.decision.subject is not None
    assert "ann" not in repr(entry)
    assert (entry.decision.subject,) == app.extensions["bandit"].pseudonyms("ann@example.com")


def test_what_was_decided_before_signing_in_goes_on(storage: BanditStorage) -> None:
    app = shop(storage)
    for number in range(20):
        user, phone = f"user {number}", app.test_client()
        before = arm(phone)
        assert arm(phone, user) == before
        assert arm(app.test_client(), user) == before
        assert arm(phone) == before
    assert pulls(app) == 20


def test_the_merged_decision_is_rewarded_once_from_whatever_device(storage: BanditStorage) -> None:
    app = shop(storage)
    phone, laptop = app.test_client(), app.test_client()
    before = arm(phone)
    click(phone)
    arm(phone, "ann")
    click(phone, "ann")
    assert arm(laptop, "ann") == before
    click(laptop, "ann")
    click(app.test_client(), "ann")
    assert (pulls(app), rewards(app)) == (1, 1)
    (entry,) = storage.iter_log()
    assert [reward.decision_id for reward in entry.rewards] == [entry.decision.id]


def test_a_reward_alone_merges_too(storage: BanditStorage) -> None:
    app = shop(storage)
    phone = app.test_client()
    before = arm(phone)
    click(phone, "ann")
    assert arm(app.test_client(), "ann") == before
    assert (pulls(app), rewards(app)) == (1, 1)


def test_what_the_user_has_already_wins_over_what_a_new_device_was_shown(
    storage: BanditStorage,
) -> None:
    """Anonymous/known merges: field_test #15."""
    app = shop(storage)
    held = arm(app.test_client(), "ann")
    phone = other_arm_than(app, held)
    before = pulls(app)
    assert arm(phone, "ann") == held
    click(phone, "ann")
    assert pulls(app) == before
    (entry,) = [e for e in storage.iter_log() if e.decision.subject]
    assert entry.decision.arm == held
    assert len(entry.rewards) == 1


def test_on_a_shared_device_each_user_has_their_own(storage: BanditStorage) -> None:
    app = shop(storage)
    ann = arm(app.test_client(), "ann")
    device = other_arm_than(app, ann)
    shown = arm(device)
    assert arm(device, "ann") == ann
    # Nobody has adopted what the device was shown, so the next user without a decision does.
    assert arm(device, "bob") == shown
    before = pulls(app)
    arm(device, "cid")
    assert pulls(app) == before + 1
    assert arm(device, "ann") == ann
    assert arm(device, "bob") == shown
    assert pulls(app) == before + 1


def test_two_first_requests_of_one_user_get_one_arm_and_one_decision(
    storage: BanditStorage,
) -> None:
    app = shop(storage, MAB_STORAGE_TIMEOUT=30)
    threads = 6
    with ThreadPoolExecutor(threads) as pool:
        for number in range(15):
            barrier = Barrier(threads)

            def first(user: str, barrier: Barrier = barrier) -> str:
                client = app.test_client()
                barrier.wait(30)
                return arm(client, user)

            arms = set(pool.map(first, [f"user {number}"] * threads))
            assert len(arms) == 1
    assert pulls(app) == 15


def test_first_requests_on_two_devices_that_would_draw_differently_show_the_stored_arm(
    storage: BanditStorage,
) -> None:
    """Two workers with other snapshots draw other arms of one uniform number."""
    one, two = Bandit(floor=0.0), Bandit(floor=0.0)
    for name in ("green", "red"):
        one.add_arm(name, name)
        two.add_arm(name, name)
    apps = [shop(storage, one), shop(storage, two)]
    users = [str(n) for n in range(30)]
    shown: list[dict[str, str]] = [{}, {}]
    real = storage.get_decisions
    for user in users:
        for place, app in enumerate(apps):
            # Neither sees the other's decision when it looks: they come at the same time.
            storage.get_decisions = lambda ids, timeout=None: {}  # type: ignore[method-assign]
            app.extensions["bandit"].engine.bandits["btn"].draw_table = _certain(place)
            shown[place][user] = arm(app.test_client(), user)
    storage.get_decisions = real  # type: ignore[method-assign]
    assert shown[0] == shown[1]
    assert pulls(apps[0]) == len(users)


def _certain(place: int) -> Any:
    from flask_bandit.drawing import DrawTable

    def draw_table(counts: Any, **options: Any) -> DrawTable:
        return DrawTable.certain(("green", "red"), ("green", "red")[place])

    return draw_table


def test_signals_tell_of_decisions_and_not_of_stand_ins(storage: BanditStorage) -> None:
    app = shop(storage)
    seen = []

    def note(sender: Any, decision: Any) -> None:
        seen.append(decision)

    with decision_made.connected_to(note, app):
        phone = app.test_client()
        arm(phone)
        arm(phone, "ann")
        arm(app.test_client(), "bob")
    assert [decision.subject is None for decision in seen] == [True, False]


def test_a_rotated_secret_key_still_knows_its_users(storage: BanditStorage) -> None:
    old = shop(storage)
    held = {str(n): arm(old.test_client(), str(n)) for n in range(10)}
    new = shop(storage, SECRET_KEY="n" * 32, SECRET_KEY_FALLBACKS=["k" * 32])
    assert {user: arm(new.test_client(), user) for user in held} == held
    assert pulls(new) == 10
    click(new.test_client(), "3")
    assert rewards(new) == 1


def test_a_subject_key_of_its_own_outlives_the_secret_key(storage: BanditStorage) -> None:
    old = shop(storage, MAB_SUBJECT_KEY="s" * 32)
    held = {str(n): arm(old.test_client(), str(n)) for n in range(10)}
    new = shop(storage, SECRET_KEY="n" * 32, MAB_SUBJECT_KEY="s" * 32)
    assert {user: arm(new.test_client(), user) for user in held} == held
    assert pulls(new) == 10


def test_a_user_whose_arm_was_removed_gets_another_on_all_devices(storage: BanditStorage) -> None:
    old = shop(storage)
    user = next(u for u in map(str, range(1000)) if arm(old.test_client(), u) == "green")
    new = shop(storage, colours("red", "blue"))
    phone, laptop = new.test_client(), new.test_client()
    assert arm(phone, user) == arm(laptop, user) != "green"
    click(laptop, user)
    (entry,) = [e for e in storage.iter_log() if e.rewards]
    assert entry.decision.arm == arm(phone, user)


def test_a_prefetch_by_a_user_counts_when_they_come(storage: BanditStorage) -> None:
    app = shop(storage)
    phone = app.test_client()
    early = phone.get("/btn", headers={USER: "ann", "Sec-Purpose": "prefetch"}).text[1:]
    assert pulls(app) == 0
    assert arm(phone, "ann") == early
    click(phone, "ann")
    assert (pulls(app), rewards(app)) == (1, 1)
    assert arm(app.test_client(), "ann") == early


def test_a_prefetched_anonymous_arm_is_counted_by_the_user_who_goes_on(
    storage: BanditStorage,
) -> None:
    app = shop(storage)
    phone = app.test_client()
    early = phone.get("/btn", headers={"Sec-Purpose": "prefetch"}).text[1:]
    assert arm(phone, "ann") == early
    assert pulls(app) == 1
    assert arm(app.test_client(), "ann") == early
    assert pulls(app) == 1


def test_a_head_of_a_user_stores_nothing(storage: BanditStorage) -> None:
    app = shop(storage)
    response = app.test_client().head("/btn", headers={USER: "ann"})
    assert not set_cookies(response)
    assert not list(storage.iter_log())


def test_a_loader_that_fails_means_an_anonymous_visitor(
    storage: BanditStorage, caplog: pytest.LogCaptureFixture
) -> None:
    app = shop(storage)

    def fails() -> str:
        raise LookupError("no session store")

    app.extensions["bandit"].hooks.subject = fails
    client = app.test_client()
    assert arm(client) == arm(client)
    assert pulls(app) == 1
    assert "The subject loader failed" in caplog.text


def test_numbers_are_users_and_nothing_is_none(storage: BanditStorage) -> None:
    app = shop(storage)
    hooks = app.extensions["bandit"].hooks
    hooks.subject = lambda: 7
    assert arm(app.test_client()) == arm(app.test_client())
    assert pulls(app) == 1
    for nobody in (None, ""):
        hooks.subject = lambda nobody=nobody: nobody
        arm(app.test_client())
    assert pulls(app) == 3
    hooks.subject = lambda: 0
    arm(app.test_client())
    arm(app.test_client())
    assert pulls(app) == 4


def test_flask_login_s_user_is_the_subject_by_default() -> None:
    app = Flask("shop")
    storage = MemoryBanditStorage()
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage)
    BanditMiddleware(app)
    app.add_bandit("btn", colours())  # type: ignore[attr-defined]
    manager = LoginManager(app)

    class User(UserMixin):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.id = name

    manager.user_loader(User)

    @app.get("/btn")
    @choose_arm("btn", arg="arm")
    def page(arm: str) -> str:
        return arm

    @app.post("/in/<name>")
    def sign_in(name: str) -> str:
        login_user(User(name))
        return "in"

    @app.post("/out")
    def sign_out() -> str:
        logout_user()
        return "out"

    @app.post("/btn/click")
    @reward_endpt("btn")
    def clicked() -> str:
        return "thanks"

    phone, laptop = app.test_client(), app.test_client()
    before = phone.get("/btn").text
    for device in (phone, laptop):
        device.post("/in/ann")
        assert device.get("/btn").text == before
        device.post("/btn/click")
    assert (pulls(app), rewards(app)) == (1, 1)
    laptop.post("/out")
    laptop.get("/btn")
    assert pulls(app) == 2


def test_during_an_outage_a_user_sees_the_control_and_gets_no_cookie(
    storage: BanditStorage,
) -> None:
    app = shop(storage)

    def down(*_: Any, **__: Any) -> Any:
        raise OSError("away")

    real = storage.get_decisions
    storage.get_decisions = down  # type: ignore[method-assign]
    response = app.test_client().get("/btn", headers={USER: "ann"})
    assert response.text == "#green"
    assert not set_cookies(response)
    storage.get_decisions = real  # type: ignore[method-assign]


def test_the_cookie_keeps_its_size_with_many_bandits_of_a_user(storage: BanditStorage) -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage)
    mab = BanditMiddleware(app)
    mab.subject_loader(lambda: request.headers.get(USER))
    for number in range(60):
        mab.add_bandit(f"bandit_{number}", colours())

    @app.get("/")
    def all_of_them() -> list[str]:
        return [mab.suggest_arm_for(f"bandit_{number}")[0] for number in range(60)]

    phone = app.test_client()
    before = phone.get("/").json
    signed_in = phone.get("/", headers={USER: "ann"})
    assert signed_in.json == before
    assert len(set_cookies(signed_in)[0]) <= 4093
    assert phone.get("/", headers={USER: "ann"}).json == before
    assert pulls(app, "bandit_7") == 1


def test_outside_a_request_a_user_is_visited(storage: BanditStorage) -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage)
    mab = BanditMiddleware(app)
    mab.add_bandit("btn", colours())
    with mab.visit(subject=42) as visit:
        first, value = visit.choose("btn")
        assert value == f"#{first}"
        assert visit.reward("btn", 1.0)
    with mab.visit(subject="42") as visit:
        assert visit.choose("btn")[0] == first
        visit.reward("btn", 1.0)
    assert (pulls(app), rewards(app)) == (1, 1)


def test_a_visit_that_fails_rewards_nothing(storage: BanditStorage) -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage)
    mab = BanditMiddleware(app)
    mab.add_bandit("btn", colours())
    visit = mab.visit(subject="42")

    def job() -> None:
        with visit:
            visit.choose("btn")
            visit.reward("btn", 1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()
    assert (pulls(app), rewards(app)) == (1, 0)
    with pytest.raises(ValueError, match="with mab.visit"):
        visit.choose("btn")


def test_the_job_and_the_page_show_one_arm(storage: BanditStorage) -> None:
    app = shop(storage)
    state = app.extensions["bandit"]
    from flask_bandit.web.outside import SubjectVisit

    with SubjectVisit(state, "ann") as visit:
        mailed, _ = visit.choose("btn")
    assert arm(app.test_client(), "ann") == mailed
    assert pulls(app) == 1


def test_forget_erases_the_visitor_and_keeps_the_counts(storage: BanditStorage) -> None:
    app = shop(storage)
    mab_state = app.extensions["bandit"]

    @app.post("/forget")
    def forget() -> str:
        from flask_bandit.web.request import request_state

        return str(request_state().forget())

    phone = app.test_client()
    arm(phone)
    arm(phone, "ann")
    arm(app.test_client(), "ann")
    response = phone.post("/forget", headers={USER: "ann"})
    assert response.text == "True"
    assert phone.get_cookie("MAB") is None
    assert all(entry.decision.subject is None for entry in storage.iter_log())
    stored = [w.decision for c in storage.iter_commits() for w in c.decisions]
    assert all(decision.subject is None for decision in stored)
    assert pulls(app) == 1
    assert mab_state.pseudonyms("ann")[0] not in repr(stored)


class _User:
    """What a loader returns by mistake: the user, and not the id."""


@pytest.mark.parametrize("given", [True, _User()])
def test_what_is_no_id_is_nobody_s_and_logged_with_the_fix(
    storage: BanditStorage, caplog: pytest.LogCaptureFixture, given: Any
) -> None:
    app = shop(storage)
    app.extensions["bandit"].hooks.subject = lambda: given
    client = app.test_client()
    assert arm(client) == arm(client)
    arm(app.test_client())
    assert pulls(app) == 2
    assert "such as current_user.get_id()" in caplog.text
    assert all(entry.decision.subject is None for entry in storage.iter_log())
