"""Tokens that reward a decision later, from anywhere, once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import Signer
from itsdangerous.encoding import base64_encode

from flask_bandit import (
    BanditMiddleware,
    ConfigurationError,
    StorageError,
    TokenError,
    UnknownBanditError,
    reward_recorded,
    suggest_arm_for,
)
from flask_bandit.bandits import Bandit, ThompsonBandit
from flask_bandit.model import ArmStats
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import Commit, CommitResult
from flask_bandit.web.assignments import SALT as COOKIE_SALT
from flask_bandit.web.request import request_state
from flask_bandit.web.tokens import Token, TokenCodec

from .conftest import colours, set_cookies

PREFETCH = {"Sec-Purpose": "prefetch"}
BOT = {"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=100)


class Faulty(MemoryBanditStorage):
    """Fails while it is told to."""

    broken = False

    def commit(self, commit: Commit, timeout: float | None = None) -> CommitResult:
        if self.broken:
            raise OSError("broken")
        return super().commit(commit, timeout)


def shop(bandit: Bandit | None = None, **config: Any) -> tuple[Flask, BanditMiddleware]:
    """Return an app whose page is a token and whose ``/arm`` is the arm's id."""
    app = Flask("shop")
    app.config.update({"SECRET_KEY": "k" * 32, "MAB_STORAGE_ENGINE": MemoryBanditStorage()})
    app.config.update(config)
    mab = BanditMiddleware(app)
    mab.add_bandit("btn", colours() if bandit is None else bandit)

    @app.get("/")
    def page() -> str:
        return mab.reward_token("btn")

    @app.get("/order")
    def order() -> str:
        return mab.reward_token("btn", goal="order")

    @app.get("/arm")
    def arm() -> str:
        return suggest_arm_for("btn")[0]

    @app.post("/hook/<token>")
    def hook(token: str) -> str:
        return str(mab.reward_by_token(token))

    app.register_blueprint(mab.reward_blueprint(values={"order": 2.0, ("btn", "gift"): 3.0}))
    return app, mab


def total(mab: BanditMiddleware, goal: str | None = None) -> tuple[int, int, float]:
    """Return the pulls, the rewards and their sum, over all arms."""
    stats = mab.stats("btn", goal=goal).values()
    return (
        sum(arm.pulls for arm in stats),
        sum(arm.rewards for arm in stats),
        sum(arm.reward for arm in stats),
    )


def test_a_token_rewards_its_arm_once_outside_a_request() -> None:
    app, mab = shop()
    visitor = app.test_client()
    token, arm = visitor.get("/").text, visitor.get("/arm").text
    assert mab.reward_by_token(token, 1.0) is True
    assert mab.reward_by_token(token, 1.0) is False
    assert mab.stats("btn")[arm] == ArmStats(1, 1, 1.0, 1.0)


def test_a_token_and_the_visitor_s_own_click_count_once_together() -> None:
    app, mab = shop()

    @app.post("/click")
    @mab.reward_endpt("btn")
    def click() -> str:
        return ""

    visitor = app.test_client()
    token = visitor.get("/").text
    visitor.post("/click")
    assert mab.reward_by_token(token) is False
    assert total(mab) == (1, 1, 1.0)


def test_a_token_works_in_any_request_and_leaves_it_without_a_cookie() -> None:
    app, mab = shop()
    token = app.test_client().get("/").text
    answers = [app.test_client().post(f"/hook/{token}") for _ in range(2)]
    assert [answer.text for answer in answers] == ["True", "False"]
    assert not set_cookies(answers[0])
    assert "Vary" not in answers[0].headers
    assert total(mab) == (1, 1, 1.0)


def test_a_token_is_for_one_goal() -> None:
    app, mab = shop()
    visitor = app.test_client()
    order = visitor.get("/order").text
    with pytest.raises(TokenError, match="is for the goal 'order', not for 'gift'"):
        mab.reward_by_token(order, goal="gift")
    assert mab.reward_by_token(order, 5.0, goal="order")
    assert mab.reward_by_token(visitor.get("/").text, goal="reward")
    assert (total(mab), total(mab, "order")) == ((1, 1, 1.0), (1, 1, 5.0))


def test_a_goal_that_counts_every_time_needs_an_event_to_count_once() -> None:
    app, mab = shop(_arms(Bandit(goals={"order": "every"})))
    token = app.test_client().get("/order").text
    told = [mab.reward_by_token(token, event=event) for event in ("", "", "17", "17")]
    assert told == [True, True, True, False]
    assert total(mab, "order") == (1, 3, 3.0)


def _arms(bandit: Bandit) -> Bandit:
    for arm in ("green", "red"):
        bandit.add_arm(arm)
    return bandit


def test_the_signal_tells_new_rewards_only() -> None:
    app, mab = shop()
    token = app.test_client().get("/").text
    heard = []

    def hear(sender: Flask, reward: Any) -> None:
        heard.append((sender, reward.bandit, reward.goal, reward.value))

    with reward_recorded.connected_to(hear, app):
        mab.reward_by_token(token, 0.5)
        mab.reward_by_token(token, 0.5)
    assert heard == [(app, "btn", "reward", 0.5)]


def test_a_token_that_overtakes_its_decision_waits_for_it() -> None:
    app, mab = shop()
    visitor = app.test_client()
    token = visitor.get("/", headers=PREFETCH).text
    assert mab.reward_by_token(token) is True
    assert total(mab) == (0, 0, 0.0)
    arm = visitor.get("/arm").text
    assert mab.stats("btn")[arm] == ArmStats(1, 1, 1.0, 1.0)


def test_a_token_with_another_arm_than_was_stored_counts_for_the_stored_one() -> None:
    """Two tabs of a new visitor: both are drawn an arm, and the first to be stored stays."""
    app, mab = shop()
    visitor = app.test_client()
    codec = TokenCodec("k" * 32)
    token = codec.loads(visitor.get("/").text, now=0.0)
    other = next(arm for arm in ("green", "red") if arm != token.arm)
    assert mab.reward_by_token(codec.dumps(token._replace(arm=other)))
    assert mab.stats("btn")[token.arm] == ArmStats(1, 1, 1.0, 1.0)
    assert mab.stats("btn")[other] == ArmStats()


@pytest.mark.parametrize(
    "options", [{}, {"half_life": "1d"}, {"holdout": 0.5}, {"reward_window": "7d"}]
)
def test_a_token_counts_whatever_the_bandit_is_told(options: dict[str, Any]) -> None:
    app, mab = shop(_arms(ThompsonBandit(**options)))
    for _ in range(20):
        assert mab.reward_by_token(app.test_client().get("/").text)
    storage = app.extensions["bandit"].storage
    assert sum(len(entry.rewards) for entry in storage.iter_log("btn")) == 20
    (rows,) = storage.read_counts().values()
    counted = sum(row.get("rewards", 0) for row in rows.values())
    held_out = sum(row.get("holdout:rewards", 0) for row in rows.values())
    assert counted + held_out == 20
    assert (held_out > 0) is ("holdout" in options)


def test_a_value_that_the_bandit_cannot_learn_from_is_refused() -> None:
    app, mab = shop(_arms(ThompsonBandit()))
    token = app.test_client().get("/").text
    with pytest.raises(ValueError, match="the reward is 2"):
        mab.reward_by_token(token, 2.0)
    assert total(mab) == (1, 0, 0.0)


def test_nobody_is_given_a_token_who_is_not_counted() -> None:
    app, mab = shop(MAB_BOTS=True)
    assert app.test_client().get("/", headers=BOT).text == ""
    assert app.test_client().get("/").text != ""
    visitor = app.test_client()
    assert visitor.get("/").text != ""
    app.extensions["bandit"].engine.change("btn", "pause")
    assert (app.test_client().get("/").text, visitor.get("/").text) == ("", "")
    assert total(mab) == (2, 0, 0.0)


def test_no_token_without_consent_while_disabled_or_after_forgetting() -> None:
    app, mab = shop()

    @app.get("/forget")
    def forget() -> str:
        mab.forget()
        return mab.reward_token("btn")

    visitor = app.test_client()
    visitor.get("/")
    assert visitor.get("/forget").text == ""
    mab.consent_loader(lambda: False)
    assert app.test_client().get("/").text == ""
    disabled, _ = shop(MAB_ENABLED=False)
    assert disabled.test_client().get("/").text == ""


def test_no_token_for_an_arm_first_chosen_on_an_error_page() -> None:
    app, mab = shop()

    @app.errorhandler(404)
    def missing(error: Exception) -> str:
        return mab.reward_token("btn")

    assert app.test_client().get("/missing").text == ""
    visitor = app.test_client()
    visitor.get("/")
    assert mab.reward_by_token(visitor.get("/missing").text)


def test_a_known_user_has_tokens_outside_a_request_and_on_every_device() -> None:
    app, mab = shop()
    mab.subject_loader(lambda: "42")
    with mab.visit(subject="42") as visit:
        token = visit.token("btn")
    seen = app.test_client().get("/").text
    assert mab.reward_by_token(token) is True
    assert mab.reward_by_token(seen) is False
    assert total(mab) == (1, 1, 1.0)


def test_a_token_for_an_arm_that_was_removed_counts_for_it() -> None:
    app, _ = shop()
    visitor = app.test_client()
    token, arm = visitor.get("/").text, visitor.get("/arm").text
    storage = app.extensions["bandit"].storage
    _, mab = shop(colours("new"), MAB_STORAGE_ENGINE=storage)
    assert mab.reward_by_token(token)
    assert mab.stats("btn", version=1)[arm] == ArmStats(1, 1, 1.0, 1.0)


def test_a_token_from_before_a_reset_counts_where_its_decision_does() -> None:
    app, mab = shop()
    token = app.test_client().get("/").text
    app.extensions["bandit"].engine.change("btn", "reset")
    assert mab.reward_by_token(token)
    assert total(mab) == (0, 0, 0.0)
    assert sum(arm.rewards for arm in mab.stats("btn", version=1).values()) == 1


def test_a_token_of_a_bandit_that_is_gone_says_so() -> None:
    app, _ = shop()
    token = app.test_client().get("/").text
    other = Flask("other")
    other.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=MemoryBanditStorage())
    mab = BanditMiddleware(other)
    mab.add_bandit("banner", colours())
    other.register_blueprint(mab.reward_blueprint())
    with pytest.raises(UnknownBanditError, match="'btn'"):
        mab.reward_by_token(token)
    answer = other.test_client().post("/bandit/reward", data=token)
    assert (answer.status_code, answer.text) == (400, "the bandit of the token is gone\n")


@pytest.mark.parametrize("state", ["archive", "disabled"])
def test_an_archived_or_disabled_bandit_counts_no_token(state: str) -> None:
    app, mab = shop()
    token = app.test_client().get("/").text
    if state == "archive":
        app.extensions["bandit"].engine.change("btn", "archive")
    else:
        storage = app.extensions["bandit"].storage
        app, mab = shop(MAB_ENABLED=False, MAB_STORAGE_ENGINE=storage)
    assert mab.reward_by_token(token) is False
    assert total(mab) == (1, 0, 0.0)


def test_a_paused_or_declared_bandit_still_counts_what_was_decided_before() -> None:
    app, mab = shop()
    tokens = [app.test_client().get("/").text for _ in range(2)]
    engine = app.extensions["bandit"].engine
    engine.change("btn", "pause")
    assert mab.reward_by_token(tokens[0])
    engine.change("btn", "resume")
    engine.change("btn", "declare", "green")
    assert mab.reward_by_token(tokens[1])
    assert total(mab) == (2, 2, 2.0)


def test_a_storage_that_is_down_is_an_error_so_that_a_queue_tries_again() -> None:
    storage = Faulty()
    app, mab = shop(MAB_STORAGE_ENGINE=storage)
    token = app.test_client().get("/").text
    storage.broken = True
    for _ in range(2):
        with pytest.raises(StorageError, match="bring it again later"):
            mab.reward_by_token(token)
    answer = app.test_client().post("/bandit/reward", data=token)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    storage.broken = False
    app.extensions["bandit"].engine._breaker._next_probe = 0.0
    assert mab.reward_by_token(token) is True
    assert total(mab) == (1, 1, 1.0)


def test_a_token_and_the_page_of_one_request_share_its_deadline() -> None:
    app, mab = shop()

    @app.post("/both")
    def both() -> str:
        token = mab.reward_token("btn")
        before = request_state().attempt.remaining
        mab.reward_by_token(token)
        return str(request_state().attempt.remaining < before)

    assert app.test_client().post("/both").text == "True"
    assert total(mab) == (1, 1, 1.0)


def _tampered(token: str) -> str:
    return ("B" if token[0] == "A" else "A") + token[1:]


@pytest.mark.parametrize(
    "spoil",
    [
        _tampered,
        lambda token: token[:-1],
        lambda token: token.partition(".")[0],
        lambda token: "",
        lambda token: "é" + token,
        lambda token: token + "A" * 5000,
        lambda token: "\ud800",
        lambda token: None,
    ],
)
def test_a_text_that_was_not_signed_here_is_no_token(spoil: Callable[[str], str]) -> None:
    app, mab = shop()
    token = app.test_client().get("/").text
    with pytest.raises(TokenError, match="did not sign|is empty"):
        mab.reward_by_token(spoil(token))
    assert total(mab) == (1, 0, 0.0)


def test_the_cookie_is_no_token_and_the_token_no_cookie() -> None:
    app, mab = shop()
    visitor = app.test_client()
    token = visitor.get("/").text
    cookie = visitor.get_cookie("MAB")
    assert cookie is not None
    for text in (cookie.value, cookie.value[1:]):
        with pytest.raises(TokenError):
            mab.reward_by_token(text)
    thief = app.test_client()
    thief.set_cookie("MAB", "1" + token)
    thief.get("/arm")
    assert total(mab) == (2, 0, 0.0)


def test_what_another_part_of_the_app_signed_is_no_token() -> None:
    token = Token("0" * 32, "btn", 1, "green", "reward", 2**40)
    for salt in (COOKIE_SALT, "itsdangerous.Signer"):
        signer = Signer("key", salt=salt, key_derivation="hmac", digest_method=sha256)
        text = signer.sign(base64_encode(token.dump())).decode()
        with pytest.raises(TokenError, match="did not sign"):
            TokenCodec("key").loads(text, now=0.0)


def test_an_expired_token_says_so() -> None:
    app, mab = shop()
    old = TokenCodec("k" * 32).dumps(Token("0" * 32, "btn", 1, "green", "reward", 1))
    with pytest.raises(TokenError, match="expired; MAB_TOKEN_TTL"):
        mab.reward_by_token(old)
    answer = app.test_client().post("/bandit/reward", data=old)
    assert answer.status_code == 400
    assert "expired" in answer.text


def test_a_token_lives_for_the_time_that_is_set() -> None:
    codec = TokenCodec("k" * 32)
    app, _ = shop(MAB_TOKEN_TTL="2h")
    before = int(time.time())
    token = codec.loads(app.test_client().get("/").text, now=before)
    assert before + 7200 <= token.expires <= time.time() + 7200
    text = codec.dumps(token)
    assert codec.loads(text, now=token.expires) == token
    with pytest.raises(TokenError, match="expired"):
        codec.loads(text, now=token.expires + 1)


def test_older_keys_still_verify_and_the_new_one_signs() -> None:
    old_app, _ = shop(SECRET_KEY="old" * 11)
    old = old_app.test_client().get("/").text
    storage = old_app.extensions["bandit"].storage
    app, mab = shop(
        SECRET_KEY="new" * 11, SECRET_KEY_FALLBACKS=["old" * 11], MAB_STORAGE_ENGINE=storage
    )
    new = app.test_client().get("/").text
    assert mab.reward_by_token(old)
    assert mab.reward_by_token(new)
    _, only_new = shop(SECRET_KEY=b"new" * 11, MAB_STORAGE_ENGINE=storage)
    assert only_new.reward_by_token(new) is False
    with pytest.raises(TokenError, match="SECRET_KEY_FALLBACKS"):
        only_new.reward_by_token(old)


def test_without_a_secret_key_the_error_says_what_to_set() -> None:
    app, mab = shop(SECRET_KEY=None)
    with app.app_context(), pytest.raises(ConfigurationError, match="SECRET_KEY"):
        mab.reward_by_token("x")


@given(
    st.builds(
        Token,
        decision_id=st.from_regex(r"[0-9a-f]{32}(-h)?", fullmatch=True) | NAMES,
        bandit=NAMES,
        version=st.integers(1, 10**6),
        arm=NAMES,
        goal=NAMES,
        expires=st.integers(0, 2**40),
    )
)
def test_any_token_comes_back_as_it_was(token: Token) -> None:
    codec = TokenCodec("key")
    assert codec.loads(codec.dumps(token), now=0.0) == token


def test_a_usual_token_is_short_and_holds_no_value() -> None:
    token = Token("0123456789abcdef" * 2, "checkout_button", 12, "dark green", "newsletter", 2**31)
    assert len(TokenCodec("key").dumps(token)) < 140


BODIES: list[Callable[[str], dict[str, Any]]] = [
    lambda token: {"data": token},
    lambda token: {"data": f" {token}\n", "content_type": "text/plain;charset=UTF-8"},
    lambda token: {"data": {"token": token}},
    lambda token: {"data": {"token": token}, "content_type": "multipart/form-data"},
    lambda token: {"json": {"token": token}},
]


@pytest.mark.parametrize("body", BODIES)
def test_the_endpoint_takes_a_token_in_any_body_and_answers_the_same_twice(
    body: Callable[[str], dict[str, Any]],
) -> None:
    app, mab = shop()
    token = app.test_client().get("/order").text
    for _ in range(2):
        answer = app.test_client().post("/bandit/reward", **body(token))
        assert (answer.status_code, answer.data) == (204, b"")
        assert not answer.headers.getlist("Set-Cookie")
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert total(mab, "order") == (1, 1, 2.0)


def test_the_server_says_what_a_token_is_worth() -> None:
    app, mab = shop()

    @app.get("/gift")
    def gift() -> str:
        return mab.reward_token("btn", goal="gift")

    visitor = app.test_client()
    for path in ("/", "/order", "/gift"):
        body = {"token": visitor.get(path).text, "value": 99}
        assert app.test_client().post("/bandit/reward", json=body).status_code == 204
    worth = [total(mab, goal)[2] for goal in (None, "order", "gift")]
    assert worth == [1.0, 2.0, 3.0]


def test_a_token_repeated_at_the_endpoint_counts_once_even_for_a_goal_that_counts_every_time() -> (
    None
):
    app, mab = shop(_arms(Bandit(goals={"order": "every"})))
    token = app.test_client().get("/order").text
    for _ in range(3):
        assert app.test_client().post("/bandit/reward", data=token).status_code == 204
    assert total(mab, "order") == (1, 1, 2.0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "no token"),
        ({"data": " \n"}, "no token"),
        ({"data": {"token": ""}}, "no token"),
        ({"data": {"other": "x"}}, "no token"),
        ({"json": ["x"]}, "no token"),
        ({"json": {"token": 7}}, "no token"),
        ({"data": "{", "content_type": "application/json"}, "no token"),
        ({"data": "[" * 4000, "content_type": "application/json"}, "no token"),
        ({"data": "some words"}, "did not sign"),
        ({"data": b"\xff\xfe"}, "did not sign"),
        (
            {"data": '{"token": "\\ud800"}', "content_type": "application/json"},
            "did not sign",
        ),
    ],
)
def test_a_body_without_a_token_is_a_400_that_says_so(body: dict[str, Any], words: str) -> None:
    app, _ = shop()
    answer = app.test_client().post("/bandit/reward", **body)
    assert (answer.status_code, answer.mimetype) == (400, "text/plain")
    assert words in answer.text


def test_large_bodies_and_bodies_of_unknown_length_are_not_read() -> None:
    app, _ = shop()
    client = app.test_client()
    assert client.post("/bandit/reward", data="x" * 4097).status_code == 413
    assert client.post("/bandit/reward", data="x" * 4096).status_code == 400
    answer = client.post("/bandit/reward", headers={"Transfer-Encoding": "chunked"})
    assert answer.status_code == 411


def test_the_endpoint_is_for_post_only_and_reads_no_query_string() -> None:
    app, mab = shop()
    token = app.test_client().get("/").text
    client = app.test_client()
    assert client.get(f"/bandit/reward?token={token}").status_code == 405
    assert client.post(f"/bandit/reward?token={token}").status_code == 400
    assert total(mab) == (1, 0, 0.0)


def test_a_robot_may_bring_a_token() -> None:
    app, mab = shop(MAB_BOTS=True)
    token = app.test_client().get("/").text
    assert app.test_client().post("/bandit/reward", data=token, headers=BOT).status_code == 204
    assert total(mab) == (1, 1, 1.0)


def test_the_endpoint_may_be_anywhere() -> None:
    app, mab = shop()
    blueprint = mab.reward_blueprint("/beacon")
    app.register_blueprint(blueprint, name="other", url_prefix="/api")
    token = app.test_client().get("/").text
    assert app.test_client().post("/api/beacon", data=token).status_code == 204
    assert total(mab) == (1, 1, 1.0)


@pytest.mark.parametrize("values", [{"a": float("nan")}, {"a": "1"}, {7: 1.0}, {("a",): 1.0}])
def test_values_that_cannot_be_meant_are_refused(values: Any) -> None:
    with pytest.raises(ConfigurationError, match="a finite number"):
        BanditMiddleware.reward_blueprint(values=values)


def test_values_that_name_no_bandit_or_do_not_fit_are_found_at_the_first_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, mab = shop(_arms(ThompsonBandit()))
    wrong = mab.reward_blueprint("/b", values={("btm", "order"): 1.0, ("btn", "reward"): 7.0})
    app.register_blueprint(wrong, name="wrong")
    with caplog.at_level(logging.ERROR):
        app.test_client().get("/")
    assert "'wrong.take' names an unknown bandit" in caplog.text
    assert "rewards 'btn' with 7" in caplog.text


def test_a_value_at_the_endpoint_that_does_not_fit_is_logged_and_no_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=MemoryBanditStorage())
    mab = BanditMiddleware(app)
    mab.add_bandit("btn", _arms(ThompsonBandit()))
    app.register_blueprint(mab.reward_blueprint(values={"reward": 5.0}))

    @app.get("/")
    def page() -> str:
        return mab.reward_token("btn")

    client = app.test_client()
    token = client.get("/").text
    response = client.post("/bandit/reward", data=token, content_type="text/plain")
    assert response.status_code == 400
    assert "values=...) does not fit 'btn'" in caplog.text
    assert total(mab) == (1, 0, 0.0)


@pytest.mark.parametrize("nothing", ["", None])
def test_an_empty_token_says_so(nothing: Any) -> None:
    _, mab = shop()
    with pytest.raises(TokenError, match="the token is empty"):
        mab.reward_by_token(nothing)
