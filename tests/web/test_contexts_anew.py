"""Bandits that are not sticky: each counted request decides anew, and rewards join its decision."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flask_bandit import BanditMiddleware, reward_endpt, suggest_arm_for
from flask_bandit.bandits import Bandit
from flask_bandit.hashing import hash_decision, is_held_out
from flask_bandit.model import HELD_OUT, BanditKey, Decision
from flask_bandit.storage import MemoryBanditStorage, SQLiteBanditStorage
from flask_bandit.storage.base import BanditStorage
from flask_bandit.testing import force
from flask_bandit.web.cli import bandit_cli

from .conftest import pulls, rewards, set_cookies, total
from .context_shop import ARMS, USER, decisions, entries, last_of, offers, rewarded, shop, state_of
from .test_signals import Controlled

PREFETCH = {"Sec-Purpose": "prefetch"}
NEVER_COUNTED = [PREFETCH, {"User-Agent": "Googlebot/2.1 (+http://www.google.com/bot.html)"}]


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
    return shop(storage=storage)


def change(app: Flask, action: str, subject: Any = None) -> None:
    state_of(app).engine.change("offer", action, subject)


def cookie_of(client: FlaskClient) -> str:
    cookie = client.get_cookie("MAB")
    assert cookie is not None
    return cookie.value


def copy_of(app: Flask, client: FlaskClient) -> FlaskClient:
    """Return another browser window: a client with the same cookie."""
    other = app.test_client()
    other.set_cookie("MAB", cookie_of(client))
    return other


def spend(app: Flask, token: str) -> bool:
    with app.app_context():
        return BanditMiddleware().reward_by_token(token, 1.0)


def test_each_request_is_a_decision_and_each_reward_joins_the_last_one(app: Flask) -> None:
    clients = [app.test_client() for _ in range(4)]
    last: list[str] = []
    for step in range(5):
        for number, client in enumerate(clients):
            response = client.get(f"/offer?age={step}&country=c{number}")
            (made,) = [d for d in decisions(app) if d.id == last_of(app, client)[0]]
            assert made.context == {"age": float(step), "country": f"c{number}"}
            assert (made.arm, sum((made.propensities or {}).values())) == (response.text, 1.0)
            assert len(set_cookies(response)) == 1
            assert response.headers["Vary"] == "Cookie"
            assert response.headers["Cache-Control"] == "private"
            if (step + number) % 2:
                last.append(made.id)
                for _ in range(3):
                    assert client.post("/buy").text == "True"
    assert pulls(app, "offer") == len(decisions(app)) == 20
    assert sorted(rewarded(app)) == sorted(last)
    assert rewards(app, "offer") == len(last) == 10
    assert [last_of(app, client)[1] for client in clients] == [4] * 4


def test_arms_are_drawn_anew_with_their_probabilities(app: Flask) -> None:
    """Each of 4 arms comes 25 times of 100 on the mean; below 8 happens once in 500,000 runs."""
    client = app.test_client()
    shown = Counter(client.get("/offer").text for _ in range(100))
    assert min(shown[arm] for arm in ARMS) >= 8
    assert shown == Counter(decision.arm for decision in decisions(app))


def test_a_request_sent_again_counts_once(app: Flask) -> None:
    client = app.test_client()
    client.get("/offer?age=1")
    again = [copy_of(app, client) for _ in range(3)]
    arms = {each.get("/offer?age=2").text for each in again}
    assert len(arms) == 1
    assert pulls(app, "offer") == 2
    for each in again:
        each.post("/buy")
    assert rewards(app, "offer") == 1
    assert last_of(app, again[0]) == last_of(app, again[2])


def test_parallel_requests_with_different_contexts_all_count(app: Flask) -> None:
    client = app.test_client()
    client.get("/offer?age=100")
    windows = [copy_of(app, client) for _ in range(8)]
    barrier = threading.Barrier(len(windows))

    def open_(number: int) -> None:
        barrier.wait()
        arm = windows[number].get(f"/offer?age={number}").text
        windows[number].post("/buy")
        shown[number] = arm

    shown: dict[int, str] = {}
    threads = [threading.Thread(target=open_, args=(n,)) for n in range(len(windows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = {d.id: d for d in decisions(app)}
    assert Counter((d.context or {})["age"] for d in made.values()) == Counter(
        [100.0, *map(float, range(8))]
    )
    for number, window in enumerate(windows):
        mine = made[last_of(app, window)[0]]
        assert (mine.arm, (mine.context or {})["age"]) == (shown[number], float(number))
        assert mine.id in rewarded(app)
    assert (pulls(app, "offer"), rewards(app, "offer")) == (9, 8)
    # The last window's cookie goes on, whatever the others have counted.
    copy_of(app, windows[3]).get("/offer?age=50")
    assert pulls(app, "offer") == 10


def test_a_window_that_is_far_behind_finds_a_free_number(app: Flask) -> None:
    client = app.test_client()
    client.get("/offer?age=0")
    behind = copy_of(app, client)
    for age in range(1, 31):
        client.get(f"/offer?age={age}")
    for age in range(31, 36):
        behind.get(f"/offer?age={age}")
        behind.post("/buy")
        assert last_of(app, behind)[0] in rewarded(app)
    ages = [(d.context or {})["age"] for d in decisions(app)]
    assert sorted(ages) == [float(age) for age in range(36)]


def test_a_window_that_finds_no_free_number_counts_nothing_and_rewards_nobody(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bandit.web.keeping.NUMBERS_TRIED", 1)
    app.add_url_rule("/both", view_func=both)
    client = app.test_client()
    client.get("/offer?age=0")
    behind = copy_of(app, client)
    client.get("/offer?age=1")
    assert behind.get("/token?age=2").text == ""
    assert behind.get("/both?age=2").status_code == 200
    assert (pulls(app, "offer"), rewards(app, "offer")) == (2, 0)
    assert last_of(app, behind)[1] == 0


def both() -> str:
    """Choose and reward in one request."""
    from .context_shop import asked_context

    arm = suggest_arm_for("offer", context=asked_context)[0]
    BanditMiddleware.reward("offer")
    return arm


def test_a_reward_of_the_same_request_joins_its_decision_even_if_another_was_faster(
    app: Flask,
) -> None:
    app.add_url_rule("/both", view_func=both)
    client = app.test_client()
    client.get("/offer")
    windows = [copy_of(app, client) for _ in range(3)]
    for number, window in enumerate(windows):
        window.get(f"/both?age={number}")
        assert last_of(app, window)[0] == rewarded(app)[-1]
    assert len(set(rewarded(app))) == 3
    assert (pulls(app, "offer"), rewards(app, "offer")) == (4, 3)


def test_a_reward_before_the_choice_is_for_the_page_before(app: Flask) -> None:
    @app.get("/next")
    def next_() -> str:
        BanditMiddleware.reward("offer")
        arm = suggest_arm_for("offer")[0]
        BanditMiddleware.reward("offer", 0.5)
        return arm

    client = app.test_client()
    client.get("/offer")
    first = last_of(app, client)[0]
    client.get("/next")
    second = last_of(app, client)[0]
    found = {e.decision.id: [reward.value for reward in e.rewards] for e in entries(app)}
    assert found == {first: [1.0], second: [0.5]}


def test_a_refused_page_is_no_decision_though_the_page_before_is_rewarded(app: Flask) -> None:
    @reward_endpt("offer", reward_if=lambda response: True)
    def bought() -> str:
        return ""

    @app.get("/next")
    def next_() -> tuple[str, int]:
        bought()
        return suggest_arm_for("offer")[0], 404

    client = app.test_client()
    client.get("/offer")
    client.get("/next")
    assert rewarded(app) == [last_of(app, client)[0]]
    assert (pulls(app, "offer"), rewards(app, "offer")) == (1, 1)


def test_a_token_names_its_own_decision(app: Flask) -> None:
    client = app.test_client()
    client.get("/offer")
    windows = [copy_of(app, client) for _ in range(3)]
    tokens = [window.get(f"/token?age={n}").text for n, window in enumerate(windows)]
    client.get("/offer?age=9")
    assert [spend(app, token) for token in tokens] == [True] * 3
    assert [spend(app, token) for token in tokens] == [False] * 3
    contexts = [(e.decision.context or {}).get("age") for e in entries(app) if e.rewards]
    assert contexts == [0.0, 1.0, 2.0]
    assert pulls(app, "offer") == 5


def test_a_page_with_a_token_costs_no_more_than_one_without() -> None:
    storage = Controlled()
    app = shop(storage=storage, MAB_STATS_TTL=3600)
    app.config["MAB_CONTROL_TTL"] = 3600
    client = app.test_client()
    client.get("/token")
    storage.calls.clear()
    client.get("/token")
    client.get("/offer")
    client.post("/buy")
    assert storage.calls == ["commit"] * 3
    assert set_cookies(client.get("/token"))


@pytest.mark.parametrize(("code", "made"), [(200, 1), (302, 1), (404, 0), (429, 0), (500, 1)])
def test_what_is_answered_says_whether_it_is_a_decision(app: Flask, code: int, made: int) -> None:
    client = app.test_client()
    client.get("/offer")
    before = last_of(app, client)
    client.get(f"/status/{code}")
    assert pulls(app, "offer") == 1 + made
    assert last_of(app, client)[1] == made
    client.post("/buy")
    assert rewarded(app) == [last_of(app, client)[0]]
    assert (last_of(app, client) == before) == (not made)


def test_a_page_that_fails_is_a_decision_and_can_be_rewarded(app: Flask) -> None:
    client = app.test_client()
    client.get("/offer")
    assert client.get("/fails?age=3").status_code == 500
    client.post("/buy")
    assert [(e.decision.context, len(e.rewards)) for e in entries(app)] == [
        ({}, 0),
        ({"age": 3.0}, 1),
    ]


def test_an_exception_that_escapes_leaves_one_decision(app: Flask) -> None:
    app.testing = True

    @app.get("/raises")
    def raises() -> str:
        suggest_arm_for("offer", context={"age": 7})
        raise RuntimeError

    client = app.test_client()
    client.get("/offer")
    for _ in range(2):
        with pytest.raises(RuntimeError):
            client.get("/raises")
    assert pulls(app, "offer") == 2
    client.get("/offer?age=8")
    assert pulls(app, "offer") == 3


@pytest.mark.parametrize("headers", NEVER_COUNTED)
def test_robots_and_prefetches_are_shown_an_arm_and_change_nothing(
    app: Flask, headers: dict[str, str]
) -> None:
    client = app.test_client()
    client.get("/offer")
    before = cookie_of(client)
    for _ in range(3):
        response = client.get("/offer?age=3", headers=headers)
        assert response.text in ARMS
        assert not set_cookies(response)
        assert client.get("/token", headers=headers).text == ""
        client.post("/buy", headers=headers)
    assert client.head("/offer").status_code == 200
    assert cookie_of(client) == before
    client.post("/buy")
    assert (pulls(app, "offer"), rewards(app, "offer")) == (1, 1)
    reason = "prefetch" if headers == PREFETCH else "bot"
    assert state_of(app).storage.read_counts()[BanditKey("offer", 1)][""][f"{reason}:skipped"] >= 1


@pytest.mark.parametrize(
    ("action", "subject"), [("pause", None), ("declare", "c"), ("archive", None)]
)
def test_while_everybody_gets_the_same_nothing_counts(
    app: Flask, action: str, subject: str | None
) -> None:
    client = app.test_client()
    client.get("/offer")
    if action == "archive":
        change(app, "declare", "c")
    change(app, action, subject)
    for each in (client, app.test_client()):
        assert {each.get("/offer").text for _ in range(5)} == {"a" if action == "pause" else "c"}
        assert each.post("/buy").text == "False"
    assert (pulls(app, "offer"), rewards(app, "offer")) == (1, 0)
    if action == "pause":
        change(app, "resume")
        client.get("/offer")
        assert (pulls(app, "offer"), last_of(app, client)[1]) == (2, 1)


def test_who_takes_part_goes_on_when_it_is_closed(app: Flask) -> None:
    client = app.test_client()
    client.get("/offer")
    change(app, "close")
    assert len({client.get("/offer").text for _ in range(40)}) > 1
    client.post("/buy")
    assert (pulls(app, "offer"), rewards(app, "offer")) == (41, 1)
    late = app.test_client()
    response = late.get("/offer")
    assert (response.text, set_cookies(response)) == ("a", [])
    assert late.post("/buy").text == "False"
    assert pulls(app, "offer") == 41


def test_a_removed_arm_is_just_not_drawn(storage: BanditStorage) -> None:
    client = shop(storage=storage).test_client()
    while client.get("/offer").text != "d":
        pass
    smaller = shop(offers(("a", "b")), storage)
    same = smaller.test_client()
    same.set_cookie("MAB", cookie_of(client))
    change(smaller, "close")
    assert same.post("/buy").text == "True"
    shown = {same.get("/offer").text for _ in range(30)}
    assert shown == {"a", "b"}
    assert [e.decision.arm for e in entries(smaller) if e.rewards] == ["d"]


def test_a_reset_begins_to_count_anew(app: Flask) -> None:
    client = app.test_client()
    for _ in range(3):
        client.get("/offer")
    change(app, "reset")
    assert client.post("/buy").text == "False"
    client.get("/offer")
    assert [d.version for d in decisions(app)] == [1, 1, 1, 2]
    assert last_of(app, client)[1] == 0


def test_the_holdout_is_by_the_cookies_visitor(storage: BanditStorage) -> None:
    app = shop(offers(holdout=0.5), storage)
    kinds = set()
    for _ in range(12):
        client = app.test_client()
        client.get("/offer", headers={USER: "ann"})
        visitor = state_of(app).codec.loads(cookie_of(client)).visitor
        is_out = is_held_out(visitor, "offer", 0.5)
        kinds.add(is_out)
        for _ in range(3):
            arm = client.get("/offer", headers={USER: "ann"}).text
            id_ = last_of(app, client)[0]
            assert id_.endswith(HELD_OUT) == is_out
            assert not is_out or arm == "a"
        client.post("/buy")
        assert id_ in rewarded(app)
    assert kinds == {True, False}
    assert len(decisions(app)) == 48


def test_targeting_asks_who_does_not_take_part_yet(storage: BanditStorage) -> None:
    wanted = [False]
    app = shop(offers(targeting=lambda: wanted[0]), storage)
    client = app.test_client()
    assert {client.get("/offer").text for _ in range(5)} == {"a"}
    assert pulls(app, "offer") == 0
    wanted[0] = True
    client.get("/offer")
    wanted[0] = False
    client.get("/offer")
    app.test_client().get("/offer")
    assert pulls(app, "offer") == 2


def group(storage: BanditStorage, arms: tuple[str, ...] = ARMS) -> Flask:
    """Return a shop with a sticky bandit ``other`` in the group of ``offer``."""
    app = shop(offers(arms, group="g"), storage)
    other = Bandit(group="g")
    other.add_arm("x")
    state_of(app).registry.add("other", other)
    app.add_url_rule("/other", "other", lambda: suggest_arm_for("other")[0])
    return app


def test_who_has_been_in_a_bandit_of_a_group_stays_there(storage: BanditStorage) -> None:
    alone = shop(offers(group="g"), storage)
    clients = [alone.test_client() for _ in range(24)]
    gone = [client for client in clients if client.get("/offer").text == "d"]
    app = group(storage, ("a", "b"))
    for client in gone:
        same = app.test_client()
        same.set_cookie("MAB", cookie_of(client))
        same.get("/other")
        same.get("/offer")
    assert (pulls(app, "other"), pulls(app, "offer")) == (0, 24 + len(gone))


def test_a_group_looks_up_known_users_of_its_sticky_bandits_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = MemoryBanditStorage()
    app = group(storage)
    asked: list[str] = []
    read = storage.get_decisions

    def get_decisions(ids: Any, timeout: float | None = None) -> Any:
        asked.extend(ids := tuple(ids))
        return read(ids, timeout)

    monkeypatch.setattr(storage, "get_decisions", get_decisions)
    for number in range(8):
        client = app.test_client()
        for path in ("/offer", "/other"):
            client.get(path, headers={USER: f"u{number}"})
    pseudonyms = [state_of(app).pseudonyms(f"u{number}")[0] for number in range(8)]
    ids = {
        name: {hash_decision(p, name, 1, 0)[0] for p in pseudonyms} for name in ("offer", "other")
    }
    assert not ids["offer"] & set(asked)
    assert ids["other"] & set(asked)


def test_a_group_keeps_a_visitor_in_one_bandit(storage: BanditStorage) -> None:
    app = group(storage)
    for number in range(12):
        client = app.test_client()
        headers = {USER: f"u{number}"} if number % 2 else {}
        for path in ("/offer", "/other", "/offer", "/other"):
            client.get(path, headers=headers)
        content = state_of(app).codec.loads(cookie_of(client))
        rows = [*content.assignments, *content.own]
        assert len(rows) == 1
    assert 2 * 12 > pulls(app, "offer") > 0
    assert 12 > pulls(app, "other") > 0
    assert pulls(app, "offer") == 2 * (12 - pulls(app, "other"))


def test_without_consent_nothing_is_kept(storage: BanditStorage) -> None:
    app = shop(storage=storage)
    state_of(app).hooks.consent = lambda: False
    client = app.test_client()
    assert {client.get("/offer").text for _ in range(5)} == {"a"}
    assert client.get_cookie("MAB") is None
    assert decisions(app) == []


def test_an_override_is_shown_and_not_counted(storage: BanditStorage) -> None:
    app = shop(storage=storage, MAB_OVERRIDES=True)
    client = app.test_client()
    client.get("/offer")
    before = last_of(app, client)
    assert {client.get("/offer?mab_offer=c").text for _ in range(3)} == {"c"}
    assert last_of(app, client) == before
    assert pulls(app, "offer") == 1


def test_a_forced_arm_is_a_decision_of_its_own(app: Flask) -> None:
    client = app.test_client()
    client.get("/offer")
    with force(offer="d"):
        assert {client.get("/offer").text for _ in range(3)} == {"d"}
        client.post("/buy")
    assert [d.policy_version == "forced" for d in decisions(app)] == [False, True, True, True]
    assert rewarded(app) == [last_of(app, client)[0]]


def test_the_network_limit_counts_a_visitor_once(storage: BanditStorage) -> None:
    app = shop(storage=storage, MAB_NETWORK_LIMIT="2/hour")
    clients = [app.test_client() for _ in range(3)]
    for _ in range(5):
        for client in clients:
            client.get("/offer")
    assert pulls(app, "offer") == 10
    assert clients[2].get_cookie("MAB") is None


def test_while_the_storage_is_down_nothing_is_kept_and_then_it_goes_on() -> None:
    storage = Controlled()
    app = shop(storage=storage, MAB_STATS_TTL=3600)
    app.config["MAB_CONTROL_TTL"] = 3600
    app.add_url_rule("/both", view_func=both)
    client = app.test_client()
    client.get("/offer")
    before = last_of(app, client)
    storage.broken = {"control", "read", "commit"}
    for path in ("/both", "/token", "/offer", "/offer"):
        assert client.get(path).status_code == 200
    assert client.post("/buy").status_code == 200
    assert last_of(app, client) == before
    storage.broken = set()
    deadline = threading.Event()
    for _ in range(200):
        client.get("/offer")
        if last_of(app, client) != before:
            break
        deadline.wait(0.02)
    assert (pulls(app, "offer"), rewards(app, "offer")) == (2, 0)


def test_known_users_are_in_the_log_and_need_no_lookup() -> None:
    storage = Controlled()
    app = shop(storage=storage, MAB_STATS_TTL=3600)
    app.config["MAB_CONTROL_TTL"] = 3600
    phone, desk = app.test_client(), app.test_client()
    for client in (phone, desk, phone):
        client.get("/offer", headers={USER: "ann"})
    phone.post("/buy", headers={USER: "ann"})
    phone.get("/offer", headers={USER: "ben"})
    phone.get("/offer")
    assert storage.calls == ["control", "read", *["commit"] * 6]
    (ann,), (ben,) = (state_of(app).pseudonyms(user)[:1] for user in ("ann", "ben"))
    assert [d.subject for d in decisions(app)] == [ann, ann, ann, ben, None]
    assert rewarded(app) == [decisions(app)[2].id]
    visitor = state_of(app).codec.loads(cookie_of(phone)).visitor
    ids = {hash_decision(visitor, "offer", 1, n)[0] for n in range(4)}
    assert ids <= {d.id for d in decisions(app)}


def test_who_signs_in_rewards_the_page_they_came_from(app: Flask) -> None:
    client = app.test_client()
    client.get("/offer")
    client.post("/buy", headers={USER: "ann"})
    assert rewarded(app) == [last_of(app, client)[0]]


def test_each_visit_outside_a_request_is_a_decision(app: Flask) -> None:
    with app.app_context():
        mab = BanditMiddleware()
        for age in range(4):
            with mab.visit(subject="ann") as visit:
                arm, _ = visit.choose("offer", context={"age": age})
                assert visit.choose("offer", context={"age": 99})[0] == arm
                visit.reward("offer", float(age % 2))
        with mab.visit(subject="ann") as visit:
            token = visit.token("offer", context={"age": 4})
        with mab.visit(subject="ann") as visit:
            assert not visit.reward("offer")
        assert mab.reward_by_token(token, 1.0)
    found = [(e.decision.context, [r.value for r in e.rewards]) for e in entries(app)]
    assert found == [({"age": float(n)}, [1.0 if n == 4 else n % 2]) for n in range(5)]
    assert {d.subject for d in decisions(app)} == set(state_of(app).pseudonyms("ann"))


@pytest.mark.parametrize("user", [None, "ann"])
def test_who_is_forgotten_is_forgotten_in_all_decisions(app: Flask, user: str | None) -> None:
    headers = {USER: user} if user else {}
    client, other = app.test_client(), app.test_client()
    for age in range(4):
        client.get(f"/offer?age={age}", headers=headers)
    other.get("/offer?age=9")
    assert client.post("/forget", headers=headers).text == "True"
    assert client.get_cookie("MAB") is None
    found = [(d.context, d.subject) for d in decisions(app)]
    assert found == [(None, None)] * 4 + [({"age": 9.0}, None)]
    assert pulls(app, "offer") == 5


def test_who_is_forgotten_is_forgotten_in_windows_that_another_one_outran(app: Flask) -> None:
    client = app.test_client()
    client.get("/offer?age=100")
    windows = [copy_of(app, client) for _ in range(8)]
    for number, window in enumerate(windows):
        window.get(f"/offer?age={number}")
    # The first window's answer was the last to reach the browser.
    assert windows[0].post("/forget").text == "True"
    found = [(d.context, d.subject) for d in decisions(app)]
    assert found == [(None, None)] * 9


def test_operators_export_and_erase_a_users_decisions(app: Flask) -> None:
    for client in (app.test_client(), app.test_client()):
        for age in (1, 2):
            client.get(f"/offer?age={age}", headers={USER: "ann"})
        client.post("/buy", headers={USER: "ann"})
    app.test_client().get("/offer?age=9", headers={USER: "ben"})
    runner = app.test_cli_runner()
    shown = runner.invoke(bandit_cli, ["subject", "export", "ann", "--json"]).stdout
    assert (shown.count('"age"'), shown.count('"goal"')) == (4, 2)
    runner.invoke(bandit_cli, ["subject", "erase", "ann", "--yes"])
    assert [(d.context, d.subject is None) for d in decisions(app)] == [
        *[(None, True)] * 4,
        ({"age": 9.0}, False),
    ]


@pytest.mark.parametrize("before", [True, False])
def test_a_cookie_survives_a_change_of_mind(storage: BanditStorage, before: bool) -> None:
    client = shop(offers(sticky=before), storage).test_client()
    for _ in range(3):
        client.get("/offer")
    number = 1 if before else 3
    app = shop(offers(sticky=not before), storage)
    same = app.test_client()
    same.set_cookie("MAB", cookie_of(client))
    same.post("/buy")
    assert rewarded(app) == [last_of(app, same)[0]]
    for _ in range(3):
        same.get("/offer")
    assert pulls(app, "offer") == number + (3 if before else 0)


def test_visitors_in_parallel_are_counted_exactly(storage: BanditStorage) -> None:
    app = shop(storage=storage)
    last: dict[int, str] = {}

    def visit(number: int) -> None:
        client = app.test_client()
        for step in range(5):
            client.get(f"/offer?age={number}&country=s{step}", headers={USER: f"u{number % 3}"})
        client.post("/buy")
        last[number] = last_of(app, client)[0]

    threads = [threading.Thread(target=visit, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Counter(tuple((d.context or {}).values()) for d in decisions(app))
    assert found == Counter((float(n), f"s{s}") for n in range(8) for s in range(5))
    assert sorted(rewarded(app)) == sorted(last.values())


class Shopping(RuleBasedStateMachine):
    """Browsers that look, buy, repeat themselves, and are prefetched, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.app = shop()
        self.clients = [self.app.test_client() for _ in range(2)]
        self.looked: list[tuple[int, float]] = []
        self.bought: dict[str, None] = {}
        self.is_paused = False
        self.age = 0.0

    @rule(who=st.integers(0, 1), code=st.sampled_from([200, 200, 404, 500]), user=st.booleans())
    def look(self, who: int, code: int, user: bool) -> None:
        self.age += 1.0
        headers = {USER: "ann"} if user else {}
        self.clients[who].get(f"/status/{code}?age={self.age}", headers=headers)
        if code != 404 and not self.is_paused:
            self.looked.append((who, self.age))

    @precondition(lambda self: self.looked and not self.is_paused)
    @rule()
    def repeat(self) -> None:
        """Send the next page of a window twice, as a proxy does."""
        who, _ = self.looked[-1]
        twin = copy_of(self.app, self.clients[who])
        self.look(who, 200, False)
        twin.get(f"/status/200?age={self.age}")

    @precondition(lambda self: self.looked)
    @rule()
    def fall_behind(self) -> None:
        """Let a second window of somebody go on, whose cookie comes back last."""
        who, _ = self.looked[-1]
        twin = copy_of(self.app, self.clients[who])
        self.look(who, 200, False)
        self.clients[who] = twin
        self.look(who, 200, False)

    @rule(who=st.integers(0, 1), headers=st.sampled_from(NEVER_COUNTED))
    def pass_by(self, who: int, headers: dict[str, str]) -> None:
        self.clients[who].get("/offer?age=-1", headers=headers)

    @rule(who=st.integers(0, 1), times=st.integers(1, 2))
    def buy(self, who: int, times: int) -> None:
        mine = [age for each, age in self.looked if each == who]
        for _ in range(times):
            is_known = self.clients[who].post("/buy").text == "True"
            assert is_known == (bool(mine) and not self.is_paused)
        if is_known:
            made = self.made(last_of(self.app, self.clients[who])[0])
            assert made.context == {"age": mine[-1]}
            self.bought[made.id] = None

    @rule(who=st.integers(0, 1))
    def bring_a_token(self, who: int) -> None:
        self.age += 1.0
        token = self.clients[who].get(f"/token?age={self.age}").text
        assert bool(token) == (not self.is_paused)
        if token:
            self.looked.append((who, self.age))
            assert spend(self.app, token)
            (made,) = [d for d in decisions(self.app) if d.context == {"age": self.age}]
            self.bought[made.id] = None

    @rule()
    def pause_or_resume(self) -> None:
        change(self.app, "resume" if self.is_paused else "pause")
        self.is_paused = not self.is_paused

    def made(self, id_: str) -> Decision:
        (found,) = [d for d in decisions(self.app) if d.id == id_]
        return found

    @invariant()
    def all_is_counted(self) -> None:
        ages = [(d.context or {})["age"] for d in decisions(self.app)]
        assert sorted(ages) == [age for _, age in self.looked]
        assert pulls(self.app, "offer") == len(self.looked)
        assert sorted(rewarded(self.app)) == sorted(self.bought)
        assert total(self.app, "offer", "rewards") == len(self.bought)


TestShopping = Shopping.TestCase
TestShopping.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
