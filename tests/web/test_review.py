"""What a review found by breaking it: each of these was red once."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, request

from flask_bandit import BanditMiddleware, ConfigurationError, suggest_arm_for
from flask_bandit.bandits import Bandit, ThompsonBandit
from flask_bandit.counting import learned_sums
from flask_bandit.model import HELD_OUT, BanditKey
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import BanditStorage

from .conftest import cookie_value, pulls, rewards, total

USER = "X-User"
DAY = 86400.0


def shop(
    bandit: Bandit, storage: BanditStorage | None = None, **config: Any
) -> tuple[Flask, BanditMiddleware]:
    """Return an app whose user is whoever a header names, with a bandit ``btn``."""
    app = Flask("shop")
    app.config.update({"SECRET_KEY": "k" * 32, **config})
    app.config["MAB_STORAGE_ENGINE"] = MemoryBanditStorage() if storage is None else storage
    mab = BanditMiddleware(app)
    mab.subject_loader(lambda: request.headers.get(USER))
    for arm in ("green", "red", "blue"):
        bandit.add_arm(arm, arm)
    mab.add_bandit("btn", bandit)
    app.register_blueprint(mab.reward_blueprint())

    @app.get("/btn")
    def page() -> str:
        return suggest_arm_for("btn")[0]

    @app.post("/btn/click")
    def click() -> str:
        return str(mab.reward("btn"))

    return app, mab


def beacon(app: Flask, token: str) -> int:
    return app.test_client().post("/bandit/reward", data=token).status_code


@pytest.mark.parametrize("goal", ["order", "revenue"])
def test_a_token_spelt_in_other_ways_counts_once_at_the_endpoint(goal: str) -> None:
    app, mab = shop(Bandit(goals={"order": "every", "revenue": "numeric"}))
    app.add_url_rule("/token", view_func=lambda: mab.reward_token("btn", goal=goal))
    token = app.test_client().get("/token").text
    # Base64 is read whatever strange letters stand in it, so one signature has many spellings.
    payload, _, signature = token.rpartition(".")
    spellings = [token, f"{token}=", f"{payload}.{signature[:4]}!!!!{signature[4:]}"]
    last = signature[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spellings += [f"{payload}.{signature[:-1]}{letter}" for letter in alphabet if letter != last]
    answers = [beacon(app, spelling) for spelling in spellings]
    assert answers.count(204) > 3, "no second spelling was accepted, so nothing is tested"
    assert total(app, "btn", f"goal:{goal}:rewards") == 1


def test_nothing_is_stored_of_a_user_who_was_forgotten_in_the_same_request() -> None:
    app, mab = shop(Bandit())

    @app.post("/forget")
    def forget() -> str:
        return f"{mab.forget()} {suggest_arm_for('btn')[0]}"

    answer = app.test_client().post("/forget", headers={USER: "ann"})
    assert answer.text == "True green"
    assert pulls(app) == 0
    # The next request is a new beginning.
    app.test_client().get("/btn", headers={USER: "ann"})
    assert pulls(app) == 1


def test_a_user_is_forgotten_where_the_bandit_has_left_the_code_too() -> None:
    storage, headers = MemoryBanditStorage(), {USER: "ann"}
    before, _ = shop(Bandit(), storage)
    before.test_client().get("/btn", headers=headers)
    after = Flask("shop")
    after.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage)
    mab = BanditMiddleware(after)
    mab.subject_loader(lambda: request.headers.get(USER))
    after.add_url_rule("/forget", methods=["POST"], view_func=lambda: str(mab.forget()))
    assert [entry.decision.subject is None for entry in storage.iter_log()] == [False]
    assert after.test_client().post("/forget", headers=headers).text == "True"
    assert [entry.decision.subject for entry in storage.iter_log()] == [None]


def test_a_loader_that_answers_false_means_that_nobody_is_signed_in() -> None:
    # As "return current_user.is_authenticated and current_user.get_id()" does.
    app, mab = shop(Bandit())
    mab.subject_loader(lambda: False)
    for _ in range(5):
        app.test_client().get("/btn")
    assert pulls(app) == 5


@pytest.mark.parametrize("subject", ["\ud800", "\x00\x1f" * 3, "x" * 100_000, "日本😀"])
def test_any_text_may_be_a_users_id(subject: str) -> None:
    app, mab = shop(Bandit())
    mab.subject_loader(lambda: subject)
    first, second = app.test_client().get("/btn"), app.test_client().get("/btn")
    assert first.status_code == 200
    assert first.text == second.text
    assert pulls(app) == 1


def test_a_users_id_that_cannot_be_written_is_a_loader_that_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Nameless:
        def __str__(self) -> str:
            raise RuntimeError("no name")

    app, mab = shop(Bandit())
    mab.subject_loader(Nameless)
    assert app.test_client().get("/btn").status_code == 200
    assert "The subject loader failed" in caplog.text


@pytest.mark.parametrize("subject", [None, "", False])
def test_a_visit_of_nobody_is_refused(subject: object) -> None:
    # A job that has lost the id would make one user of all of them.
    app, mab = shop(Bandit())
    with app.app_context(), pytest.raises(ConfigurationError, match="id of a user"):
        mab.visit(subject=subject)


def test_a_window_added_to_a_half_life_learns_no_decision_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage, now = MemoryBanditStorage(), 1_700_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    before, _ = shop(ThompsonBandit(half_life="10d"), storage)
    for _ in range(20):
        client = before.test_client()
        client.get("/btn")
        client.post("/btn/click")
    now += 3600.0
    after, _ = shop(ThompsonBandit(half_life="10d", reward_window="60s"), storage)
    state = after.extensions["bandit"]
    assert state.closer.close("btn") == 20
    counts = storage.read_counts()[BanditKey("btn", 1)]
    learned = learned_sums(state.bandits["btn"].options, counts, now)
    for what in ("pulls", "rewards"):
        assert 15.0 < sum(row[what] for row in learned.values()) <= 20.0
    assert rewards(after) == 20


def test_a_held_out_user_who_signs_in_on_two_devices_at_once_gets_one_arm() -> None:
    """One device goes on with its anonymous arm while the other makes the first decision."""
    app, _ = shop(Bandit(holdout=0.5))
    state = app.extensions["bandit"]
    held_out = next(
        user
        for user in map(str, range(100))
        if state.engine.decide(
            "btn", state.pseudonyms(user)[0], state.engine.attempt()
        ).id.endswith(HELD_OUT)
    )
    laptop = next(c for c in iter(app.test_client, None) if c.get("/btn").text != "green")
    phone, headers = app.test_client(), {USER: held_out}
    commit = state.storage.commit
    inside: list[str] = []

    def interrupted(*args: Any) -> Any:
        # After the laptop has looked for the user's decision, and before it stores one.
        state.storage.commit = commit
        inside.append(phone.get("/btn", headers=headers).text)
        return commit(*args)

    state.storage.commit = interrupted
    shown = laptop.get("/btn", headers=headers).text
    assert inside == ["green"]
    assert shown == app.test_client().get("/btn", headers=headers).text == "green"


@pytest.mark.parametrize("by_token", [False, True])
def test_a_prefetched_arm_of_a_user_who_went_on_with_another_is_rewarded_once(
    by_token: bool,
) -> None:
    """The prefetch's decision and the one that the user adopts have one id."""
    app, mab = shop(Bandit())
    app.add_url_rule("/token", view_func=lambda: mab.reward_token("btn"))
    phone, laptop, headers = app.test_client(), app.test_client(), {USER: "ann"}
    token = phone.get("/token", headers={**headers, "Sec-Purpose": "prefetch"}).text
    if by_token and token:
        beacon(app, token)
    arm = laptop.get("/btn").text
    laptop.get("/btn", headers=headers)
    laptop.post("/btn/click", headers=headers)
    if not by_token:
        phone.post("/btn/click", headers=headers)
    assert (pulls(app), rewards(app)) == (1, 1)
    assert phone.get("/btn", headers=headers).text == arm


def test_a_prefetched_arm_of_a_user_is_counted_when_it_is_shown() -> None:
    app, mab = shop(Bandit())
    app.add_url_rule("/token", view_func=lambda: mab.reward_token("btn"))
    phone, headers = app.test_client(), {USER: "ann"}
    arm = phone.get("/btn", headers={**headers, "Sec-Purpose": "prefetch"}).text
    assert pulls(app) == 0
    token = phone.get("/token", headers=headers).text
    assert phone.get("/btn", headers=headers).text == arm
    assert app.test_client().get("/btn", headers=headers).text == arm
    assert beacon(app, token) == 204
    assert (pulls(app), rewards(app)) == (1, 1)


def test_an_override_is_found_wherever_it_stands_in_the_query() -> None:
    app, _ = shop(Bandit(), MAB_OVERRIDES=True)
    for query in ("mab_btn=red", "a=1&mab_btn=red", "mab%5Fbtn=red", "%6dab_btn=red"):
        assert app.test_client().get(f"/btn?{query}").text == "red"
    answer = app.test_client().get("/btn?other=red")
    assert cookie_value(answer)
