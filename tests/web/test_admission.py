"""Who takes part: targeting, groups, the holdout and consent, as visitors see them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request, session
from flask.testing import FlaskClient

from flask_bandit import BanditMiddleware
from flask_bandit.bandits import Bandit, ThompsonBandit
from flask_bandit.hashing import is_held_out
from flask_bandit.model import BanditKey
from flask_bandit.storage import MemoryBanditStorage

from .conftest import add_pages, pulls, rewards, set_cookies, total

USER = "X-User"
ARMS = ("green", "red", "blue")


def shop(bandits: dict[str, Bandit], **config: Any) -> Flask:
    """Return an app with a page and a button for each bandit; a header names the user."""
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=MemoryBanditStorage())
    app.config.update(MAB_CONTROL_TTL=0, **config)
    mab = BanditMiddleware(app)
    mab.subject_loader(lambda: request.headers.get(USER))
    for name, bandit in bandits.items():
        for each in ARMS:
            if each not in bandit.arm_ids:
                bandit.add_arm(each, f"#{each}")
        mab.add_bandit(name, bandit)
        add_pages(app, name)
    return app


def show(client: FlaskClient, name: str = "btn", user: str | None = None) -> str:
    headers = {USER: user} if user else {}
    return client.get(f"/{name}", headers=headers).text.removeprefix("#")


def click(client: FlaskClient, name: str = "btn", user: str | None = None) -> None:
    client.post(f"/{name}/click", headers={USER: user} if user else {})


def storage_of(app: Flask) -> MemoryBanditStorage:
    storage: MemoryBanditStorage = app.extensions["bandit"].storage
    return storage


def change(app: Flask, name: str, action: str) -> None:
    app.extensions["bandit"].engine.change(name, action)


def decided(app: Flask, name: str) -> int:
    """Return how many decisions of a bandit are in the log."""
    return sum(entry.decision.bandit == name for entry in storage_of(app).iter_log())


# Targeting


def test_targeting_asks_inside_the_request_and_holders_keep_their_arm() -> None:
    app = shop({"btn": Bandit(targeting=lambda: request.headers.get("X-Country") == "FR")})
    french = {"X-Country": "FR"}
    for _ in range(12):
        page = app.test_client().get("/btn")
        assert page.text == "#green"
        assert not set_cookies(page)
        assert page.headers["Cache-Control"] == "private"
    assert pulls(app) == 0
    assert total(app, "btn", "not_targeted:skipped") >= 1
    clients = [app.test_client() for _ in range(24)]
    held = [client.get("/btn", headers=french).text for client in clients]
    assert len(set(held)) == 3
    # Abroad they are shown what they hold, and what it earns counts.
    assert [client.get("/btn").text for client in clients] == held
    click(clients[0])
    assert (pulls(app), rewards(app)) == (24, 1)


def test_targeting_is_asked_once_for_a_request() -> None:
    asked: list[str] = []

    def targeting() -> bool:
        asked.append(request.path)
        return False

    app = shop({"btn": Bandit(targeting=targeting)})
    app.test_client().get("/btn")
    assert asked == ["/btn"]


def test_targeting_that_fails_is_logged_and_means_the_control(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails() -> bool:
        raise LookupError("no such segment")

    app = shop({"btn": Bandit(targeting=fails)})
    page = app.test_client().get("/btn")
    assert (page.status_code, page.text) == (200, "#green")
    assert not set_cookies(page)
    assert "targeting of 'btn' failed" in caplog.text
    assert "no such segment" in caplog.text


def test_an_async_targeting_is_awaited() -> None:
    """A coroutine by itself would count as a yes."""

    async def refuse() -> bool:
        return False

    app = shop({"btn": Bandit(targeting=refuse)})  # type: ignore[arg-type]
    assert {show(app.test_client()) for _ in range(20)} == {"green"}
    assert pulls(app) == 0


# Groups


def grouped(*names: str) -> Flask:
    return shop({name: Bandit(group="checkout") for name in names})


def test_a_visitor_is_in_one_experiment_of_a_group() -> None:
    app = grouped("a", "b", "c")
    seen: Counter[str] = Counter()
    for _ in range(60):
        client = app.test_client()
        for name in ("c", "a", "b") * 2:
            show(client, name)
        assert sum(decided(app, name) for name in "abc") == sum(seen.values()) + 1
        seen = Counter({name: decided(app, name) for name in "abc"})
    assert set(seen) == {"a", "b", "c"}
    assert sum(total(app, name, "other_experiment:skipped") for name in "abc") >= 1


def test_a_page_that_excludes_a_visitor_remembers_who_they_are_and_no_more() -> None:
    app = grouped("a", "b")
    excluded = 0
    for _ in range(40):
        client = app.test_client()
        page = client.get("/a")
        assert len(set_cookies(page)) == 1
        if decided(app, "a") > excluded:
            excluded = decided(app, "a")
            continue
        cookie = app.extensions["bandit"].codec.loads(client.get_cookie("MAB").value)  # type: ignore[union-attr]
        assert cookie.visitor
        assert not cookie.assignments
        # The same answer for ever, without another cookie; and the other experiment has them.
        for _ in range(3):
            again = client.get("/a")
            assert (again.text, set_cookies(again)) == ("#green", [])
        before = decided(app, "b")
        show(client, "b")
        assert decided(app, "b") == before + 1
        assert not set_cookies(client.get("/a"))


def test_the_experiments_of_a_group_have_equal_shares() -> None:
    """1,200 visitors of three bandits. Chance alone fails it once in 10,000 runs."""
    app = grouped("a", "b", "c")
    for user in map(str, range(1200)):
        for name in "abc":
            show(app.test_client(), name, user)
    shares = [decided(app, name) for name in "abc"]
    assert sum(shares) == 1200
    assert sum((n - 400) ** 2 / 400 for n in shares) < -2 * math.log(1e-4)


def test_a_paused_member_takes_nobody_in_and_its_visitors_wait() -> None:
    app = grouped("a", "b")
    before = [app.test_client() for _ in range(30)]
    held = {client: (show(client, "a"), show(client, "b")) for client in before}
    counted = {name: decided(app, name) for name in "ab"}
    change(app, "a", "pause")
    newcomers = [app.test_client() for _ in range(30)]
    for client in newcomers:
        assert show(client, "a") == "green"
        show(client, "b")
    # All newcomers are in the other one; nobody who is in the paused one joins them.
    for client in before:
        show(client, "b")
    assert decided(app, "b") == counted["b"] + 30
    change(app, "a", "resume")
    assert {client: (show(client, "a"), show(client, "b")) for client in before} == held
    for client in newcomers:
        assert show(client, "a") == "green"
    assert decided(app, "a") == counted["a"]


def test_a_closed_member_takes_nobody_in() -> None:
    app = grouped("a", "b")
    change(app, "a", "close")
    for _ in range(20):
        client = app.test_client()
        show(client, "a")
        show(client, "b")
    assert (decided(app, "a"), decided(app, "b")) == (0, 20)


def test_the_end_of_one_experiment_frees_its_visitors_for_the_next() -> None:
    app = grouped("a", "b")
    change(app, "b", "pause")
    clients = [app.test_client() for _ in range(10)]
    for client in clients:
        show(client, "a")
    app.extensions["bandit"].engine.change("a", "declare", "red")
    change(app, "b", "resume")
    for client in clients:
        show(client, "b")
    assert (decided(app, "a"), decided(app, "b")) == (10, 10)


def both(app: Flask, user: str, *names: str) -> None:
    device = app.test_client()
    for name in names:
        show(device, name, user)


def test_a_known_user_is_in_one_experiment_of_a_group_on_all_devices() -> None:
    app = grouped("a", "b")
    for number in range(30):
        # What the phone was in before they signed in goes on, whatever their own draw would be.
        phone, user = app.test_client(), f"user {number}"
        show(phone, "a")
        show(phone, "b")
        show(phone, "a", user)
        show(phone, "b", user)
        both(app, user, "a", "b")
        both(app, user, "b", "a")
        assert decided(app, "a") + decided(app, "b") == number + 1


def test_a_device_s_own_experiment_ends_where_the_user_is_in_another() -> None:
    app = grouped("a", "b")
    found = 0
    for number in range(60):
        user, phone = f"user {number}", app.test_client()
        both(app, user, "a", "b")
        show(phone, "a")
        before = decided(app, "a"), decided(app, "b")
        for name in "abab":
            show(phone, name, user)
        assert (decided(app, "a"), decided(app, "b")) == before
        rows = app.extensions["bandit"].codec.loads(phone.get_cookie("MAB").value)  # type: ignore[union-attr]
        assert len(rows.own) == 1
        found += bool(rows.assignments.get("a")) and "b" in rows.own
    assert found > 0


def test_on_a_shared_device_the_next_user_is_not_kept_out_by_the_first() -> None:
    app = grouped("a", "b")
    for number in range(30):
        device = app.test_client()
        show(device, "a")
        show(device, "a", f"ann {number}")
        before = sum(decided(app, name) for name in "ab")
        for name in "ab":
            show(device, name, f"bob {number}")
        assert sum(decided(app, name) for name in "ab") == before + 1
        # The laptop agrees with the shared device.
        both(app, f"bob {number}", "b", "a")
        assert sum(decided(app, name) for name in "ab") == before + 1


# Holdout


def held_out_shop(bandit: Bandit | None = None, holdout: float = 0.3) -> Flask:
    return shop({"btn": Bandit(holdout=holdout) if bandit is None else bandit})


def held_out_user(app: Flask, holdout: float = 0.3, wanted: bool = True) -> str:
    state = app.extensions["bandit"]
    return next(
        user
        for user in map(str, range(1000))
        if is_held_out(state.pseudonyms(user)[0], "btn", holdout) is wanted
    )


def sums(app: Flask, prefix: str = "") -> tuple[int, int]:
    """Return the pulls and the rewards of the visitors who are held out, or of the others."""
    return total(app, "btn", f"{prefix}pulls"), total(app, "btn", f"{prefix}rewards")


def test_the_holdout_is_its_share_gets_the_control_and_is_logged_apart() -> None:
    """1,000 users, holdout .3. Chance alone fails it less than once in 10,000 runs."""
    app = held_out_shop()
    for user in map(str, range(1000)):
        show(app.test_client(), user=user)
    log = [entry.decision for entry in storage_of(app).iter_log()]
    held_out = [decision for decision in log if decision.is_held_out]
    assert abs(len(held_out) - 300) < 4 * math.sqrt(1000 * 0.3 * 0.7)
    assert {(d.arm, d.policy_version, d.id[-2:]) for d in held_out} == {("green", "holdout", "-h")}
    assert {d.propensities["green"] for d in held_out if d.propensities} == {1.0}
    assert {d.arm for d in log if not d.is_held_out} == set(ARMS)
    assert sums(app, "holdout:") == (len(held_out), 0)
    assert sums(app) == (1000 - len(held_out), 0)
    # The same answer for ever, on whatever device.
    for user in map(str, range(0, 1000, 50)):
        show(app.test_client(), user=user)
    assert len(list(storage_of(app).iter_log())) == 1000


def test_the_holdout_never_teaches_the_policy() -> None:
    app = held_out_shop(ThompsonBandit(holdout=0.3))
    engine = app.extensions["bandit"].engine
    before = engine.table("btn", engine.attempt()).propensities
    for number in range(1000):
        user = str(number)
        if is_held_out(app.extensions["bandit"].pseudonyms(user)[0], "btn", 0.3):
            show(app.test_client(), user=user)
            click(app.test_client(), user=user)
    assert sums(app, "holdout:")[0] == sums(app, "holdout:")[1] > 200
    assert engine.table("btn", engine.attempt()).propensities == before


@pytest.mark.parametrize("bandit", [Bandit(holdout=0.999), ThompsonBandit(holdout=0.999)])
def test_rewards_of_the_holdout_by_cookie_on_another_device_and_after_pruning(
    bandit: Bandit,
) -> None:
    app = held_out_shop(bandit)
    client = app.test_client()
    while not decided(app, "btn") or sums(app, "holdout:")[0] == 0:
        client = app.test_client()
        show(client)
    counted = sums(app, "holdout:")[0]
    click(client)
    click(client)
    assert sums(app, "holdout:") == (counted, 1)
    user = held_out_user(app, 0.999)
    show(app.test_client(), user=user)
    click(app.test_client(), user=user)
    assert sums(app, "holdout:") == (counted + 1, 2)
    other = app.test_client()
    show(other, user="z" + user)
    storage_of(app).prune(math.inf)
    click(other, user="z" + user)
    click(other, user="z" + user)
    assert sum(sums(app, prefix)[1] for prefix in ("", "holdout:")) == 3


def test_who_was_held_out_before_they_signed_in_stays_so() -> None:
    app = held_out_shop(holdout=0.5)
    user = held_out_user(app, 0.5, wanted=False)
    phone = app.test_client()
    while sums(app, "holdout:")[0] == 0:
        phone = app.test_client()
        show(phone)
    before = sums(app), sums(app, "holdout:")
    show(phone, user=user)
    assert show(app.test_client(), user=user) == "green"
    assert (sums(app), sums(app, "holdout:")) == before
    click(app.test_client(), user=user)
    assert sums(app, "holdout:") == (1, 1)


@pytest.mark.parametrize(("before", "after"), [(0.999, 0.0), (0.0, 0.999)])
def test_a_changed_holdout_loses_no_rewards(before: float, after: float) -> None:
    old = held_out_shop(holdout=before)
    client = old.test_client()
    first = show(client)
    show(old.test_client(), user="ann")
    prefix = "holdout:" if before else ""
    assert sums(old, prefix)[0] == 2
    new = shop({"btn": Bandit(holdout=after)}, MAB_STORAGE_ENGINE=storage_of(old))
    moved = new.test_client()
    moved.set_cookie("MAB", client.get_cookie("MAB").value)  # type: ignore[union-attr]
    assert show(moved) == first
    click(moved)
    click(new.test_client(), user="ann")
    assert sums(new, prefix) == (2, 2)


def test_the_holdout_keeps_a_control_that_others_are_kept_from() -> None:
    """Else each of their requests would be one more decision."""
    app = held_out_shop(holdout=0.5)
    clients = [app.test_client() for _ in range(30)]
    for client in clients:
        show(client)
    user = held_out_user(app, 0.5)
    show(app.test_client(), user=user)
    app.extensions["bandit"].engine.change("btn", "weights", {"green": None})
    counted = sums(app, "holdout:")
    for _ in range(3):
        for client in clients:
            show(client)
        assert show(app.test_client(), user=user) == "green"
    assert sums(app, "holdout:") == counted
    log = [entry.decision for entry in storage_of(app).iter_log()]
    assert sum(not d.is_held_out for d in log) == sums(app)[0]
    new = [app.test_client() for _ in range(30)]
    arms = [show(client) for client in new]
    assert [show(client) for client in new] == arms
    assert sums(app, "holdout:")[0] == arms.count("green") + counted[0]


def test_a_holdout_that_was_reset_starts_at_zero_and_is_the_same_people() -> None:
    app = held_out_shop()
    users = [str(n) for n in range(100)]
    for user in users:
        show(app.test_client(), user=user)
    change(app, "btn", "reset")
    for user in users:
        show(app.test_client(), user=user)
    one, two = (storage_of(app).read_counts()[BanditKey("btn", v)] for v in (1, 2))
    assert one["green"]["holdout:pulls"] == two["green"]["holdout:pulls"] > 0


# Consent


@pytest.fixture
def consenting() -> Flask:
    """An app in which the session says whether the visitor consents."""
    app = shop({"btn": Bandit()})
    app.extensions["bandit"].hooks.consent = lambda: bool(session.get("ok"))

    def answer(is_given: bool) -> Callable[[], str]:
        def view() -> str:
            session["ok"] = is_given
            return "noted"

        return view

    app.add_url_rule("/give", "give", answer(True))
    app.add_url_rule("/withdraw", "withdraw", answer(False))
    return app


def test_consent_that_is_given_later_makes_a_visitor_and_withdrawn_ends_it(
    consenting: Flask,
) -> None:
    app, client = consenting, consenting.test_client()
    for _ in range(3):
        page = client.get("/btn")
        assert (page.text, set_cookies(page)) == ("#green", [])
        click(client)
    assert not any(c.decisions or c.rewards for c in storage_of(app).iter_commits())
    assert (pulls(app), rewards(app)) == (0, 0)
    client.get("/give")
    arm = client.get("/btn")
    assert set_cookies(arm)
    click(client)
    assert (pulls(app), rewards(app)) == (1, 1)
    kept = client.get_cookie("MAB")
    client.get("/withdraw")
    for _ in range(3):
        page = client.get("/btn")
        assert (page.text, set_cookies(page)) == ("#green", [])
        assert "Cookie" in page.headers["Vary"]
        click(client)
    assert client.get_cookie("MAB") == kept
    assert (pulls(app), rewards(app)) == (1, 1)
    client.get("/give")
    assert client.get("/btn").text == arm.text


def test_without_consent_an_old_cookie_is_not_even_refreshed(consenting: Flask) -> None:
    app, client = consenting, consenting.test_client()
    client.get("/give")
    show(client)
    codec = app.extensions["bandit"].codec
    cookie = codec.loads(client.get_cookie("MAB").value)  # type: ignore[union-attr]
    cookie.issued_at -= 300 * 24 * 3600
    client.set_cookie("MAB", codec.dumps(cookie))
    client.get("/withdraw")
    assert not set_cookies(client.get("/btn"))
    client.get("/give")
    assert set_cookies(client.get("/btn"))


def test_a_known_user_without_consent_is_not_looked_up(consenting: Flask) -> None:
    app = consenting

    def refuse(*_: Any) -> Any:
        raise AssertionError("the storage was asked about them")

    storage_of(app).get_decisions = refuse  # type: ignore[method-assign,assignment]
    client = app.test_client()
    page = client.get("/btn", headers={USER: "ann"})
    click(client, user="ann")
    assert (page.status_code, page.text, set_cookies(page)) == (200, "#green", [])
    assert not list(storage_of(app).iter_log())


def test_without_consent_there_is_no_token_in_the_page(consenting: Flask) -> None:
    app = consenting

    @app.get("/token")
    def token() -> str:
        from flask_bandit.web.tokens import reward_token

        return reward_token("btn")

    assert app.test_client().get("/token").text == ""


def test_without_consent_a_group_sets_no_cookie() -> None:
    app = grouped("a", "b")
    app.extensions["bandit"].hooks.consent = lambda: False
    for _ in range(10):
        client = app.test_client()
        assert not set_cookies(client.get("/a")) + set_cookies(client.get("/b"))


def test_an_error_page_of_a_group_makes_no_visitor() -> None:
    app = grouped("a", "b")

    @app.errorhandler(404)
    def missing(error: Exception) -> tuple[str, int]:
        from flask_bandit import suggest_arm_for

        return suggest_arm_for("a")[0] + suggest_arm_for("b")[0], 404

    for _ in range(10):
        assert not set_cookies(app.test_client().get("/nowhere"))
    assert decided(app, "a") + decided(app, "b") == 0


# Signing in


def test_signing_in_after_a_prefetch_is_no_way_around_the_limit() -> None:
    app = shop({"btn": Bandit()}, MAB_NETWORK_LIMIT="3/hour")
    for number in range(6):
        client = app.test_client()
        early = client.get("/btn", headers={"Sec-Purpose": "prefetch"}).text
        assert show(client, user=f"user {number}") == early[1:]
        click(client, user=f"user {number}")
    assert (pulls(app), rewards(app)) == (3, 3)


def test_a_prefetch_by_somebody_who_just_signed_in_is_not_mistaken_for_a_merge() -> None:
    """Else the next device would not find what this one goes on with."""
    app = shop({"btn": Bandit()})
    for number in range(20):
        phone, user = app.test_client(), f"user {number}"
        before = show(phone)
        phone.get("/btn", headers={"Sec-Purpose": "prefetch", USER: user})
        assert show(phone, user=user) == before
        assert show(app.test_client(), user=user) == before
    assert pulls(app) == 20


def test_an_async_subject_loader_is_awaited() -> None:
    """A coroutine by itself would be another user in each request."""
    app = shop({"btn": Bandit()})

    async def who() -> str | None:
        return request.headers.get(USER)

    app.extensions["bandit"].hooks.subject = who
    assert len({show(app.test_client(), user="ann") for _ in range(20)}) == 1
    assert pulls(app) == 1
