"""The signed cookie: what it keeps, what it survives and what it refuses."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itsdangerous.encoding import base64_decode

from flask_bandit.algorithms import Policy
from flask_bandit.bandits import Bandit
from flask_bandit.model import FloatArray, Stats
from flask_bandit.web import assignments
from flask_bandit.web.assignments import (
    Assignment,
    AssignmentCodec,
    CookieContent,
    Pending,
    new_visitor,
)

from .conftest import (
    add_pages,
    colours,
    cookie_value,
    make_app,
    pulls,
    rewards,
    set_cookies,
)

KEY = "k" * 32


def test_it_holds_a_visitor_and_arms_and_no_counts(app: Flask) -> None:
    value = cookie_value(app.test_client().get("/btn"))
    visitor, issued_at, arms = json.loads(base64_decode(value[1:].split(".")[0]))
    assert len(visitor) == 22
    assert abs(issued_at - time.time()) < 60
    assert list(arms) == ["btn"]
    assert arms["btn"][0] in ("green", "red", "blue")


def test_its_attributes_are_safe_and_follow_the_configuration() -> None:
    app = make_app(MAB_COOKIE_PATH="/shop", MAB_COOKIE_TTL=60, MAB_COOKIE_DOMAIN="example.com")
    http = set_cookies(app.test_client().get("/btn"))[0]
    for part in ("HttpOnly", "SameSite=Lax", "Path=/shop", "Max-Age=60", "Domain=example.com"):
        assert part in http
    assert "Secure" not in http
    https = set_cookies(app.test_client().get("/btn", base_url="https://localhost"))[0]
    assert "Secure" in https


def test_secure_can_be_forced_behind_a_proxy() -> None:
    app = make_app(MAB_COOKIE_SECURE="true", MAB_COOKIE_SAMESITE="Strict")
    header = set_cookies(app.test_client().get("/btn"))[0]
    assert "Secure" in header
    assert "SameSite=Strict" in header


@pytest.fixture(scope="module")
def battered() -> Flask:
    """An app that one visitor uses rightly while many others throw cookies at it."""
    return make_app()


cookie_texts = st.one_of(
    st.text(max_size=80),
    st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=255), max_size=200),
    st.binary(max_size=100).map(lambda b: b.decode("latin-1")),
    st.from_regex(r"1[A-Za-z0-9_.=-]{0,120}", fullmatch=True),
    st.builds(
        lambda name, arm, rest: json.dumps({name: [arm, rest]}),
        st.sampled_from(["btn", "", "MAB"]),
        st.sampled_from(["green", "x", None, 1, {}]),
        st.sampled_from([True, None, -1, 2**70, [], "\x00"]),
    ),
)


@settings(
    max_examples=10_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=cookie_texts)
def test_any_cookie_text_gives_a_normal_page_and_no_reward(battered: Flask, text: str) -> None:
    # The raw header, as a hostile client sends it: WSGI hands it over as Latin-1.
    header = "MAB=" + text.replace("\r", "").replace("\n", "")
    environ = {"HTTP_COOKIE": header.encode("utf-8", "replace").decode("latin-1")}
    client = battered.test_client(use_cookies=False)
    assert client.post("/btn/click", environ_overrides=environ).status_code == 200
    assert rewards(battered) == 0


@settings(max_examples=300)
@given(data=st.data())
def test_an_edited_cookie_earns_nothing(battered: Flask, data: st.DataObject) -> None:
    value = cookie_value(battered.test_client().get("/btn"))
    # The cookie's length differs from run to run, so the place is drawn as a share of it.
    place = data.draw(st.integers(0, 9999)) * (len(value) - 1) // 10_000
    letter = data.draw(st.sampled_from("ABCxyz019-_."))
    edited = value[:place] + letter + value[place + 1 :]
    client = battered.test_client()
    client.set_cookie("MAB", edited)
    if edited == value:
        return
    before = rewards(battered)
    client.post("/btn/click")
    if rewards(battered) > before:
        # Another spelling of the same bytes is the same visitor; it may earn once.
        client.set_cookie("MAB", value)
        client.post("/btn/click")
        assert rewards(battered) == before + 1
        assert _bytes_of(edited) == _bytes_of(value)


def _bytes_of(value: str) -> list[bytes]:
    return [base64_decode(part) for part in value[1:].rsplit(".", 1)]


def test_another_valid_spelling_of_a_cookie_is_rewarded_once(app: Flask) -> None:
    value = cookie_value(app.test_client().get("/btn"))
    # 32 signature bytes leave two unused bits in the last of 43 letters: four spellings.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    base = alphabet.index(value[-1]) & ~3
    for offset in range(4):
        client = app.test_client()
        client.set_cookie("MAB", value[:-1] + alphabet[base + offset])
        client.post("/btn/click")
    assert rewards(app) == 1


def test_a_cookie_signed_with_another_key_is_no_cookie(app: Flask) -> None:
    stranger = make_app(SECRET_KEY="another" * 5)
    client = app.test_client()
    client.set_cookie("MAB", cookie_value(stranger.test_client().get("/btn")))
    assert client.post("/btn/click").status_code == 200
    assert rewards(app) == 0


def test_a_forged_flask_mab_cookie_is_no_cookie(app: Flask) -> None:
    client = app.test_client()
    client.set_cookie("MAB", '{"btn": ["green", true]}')
    client.post("/btn/click")
    assert rewards(app) == 0


def test_rotating_the_key_keeps_assignments_and_signs_anew() -> None:
    old = make_app(SECRET_KEY="old" * 10)
    client = old.test_client()
    arm = client.get("/btn").text
    cookie = client.get_cookie("MAB")
    assert cookie is not None
    storage = old.extensions["bandit"].storage
    new = make_app(
        SECRET_KEY=KEY, SECRET_KEY_FALLBACKS=["older" * 9, "old" * 10], MAB_STORAGE_ENGINE=storage
    )
    client = new.test_client()
    client.set_cookie("MAB", cookie.value)
    response = client.get("/btn")
    assert response.text == arm
    assert AssignmentCodec([KEY]).loads(cookie_value(response)).assignments["btn"].version == 1
    assert not set_cookies(client.get("/btn"))
    assert pulls(new) == 1


@pytest.mark.parametrize("shift", [-86400, 86400])
def test_a_clock_that_is_a_day_off_loses_nobody(
    app: Flask, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    client = app.test_client()
    arm = client.get("/btn").text
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + shift)
    response = client.get("/btn")
    assert response.text == arm
    assert not set_cookies(response)
    assert pulls(app) == 1


def test_it_is_signed_again_after_half_of_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(MAB_COOKIE_TTL=1000)
    client = app.test_client()
    client.get("/btn")
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 501)
    assert set_cookies(client.get("/btn"))
    assert not set_cookies(client.get("/btn"))
    assert pulls(app) == 1


def test_more_than_four_kilobytes_are_refused_before_unsigning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codec = AssignmentCodec([KEY])
    held = {f"bandit_{i}": Assignment(new_visitor(), 1) for i in range(400)}
    value = codec.dumps(CookieContent(new_visitor(), 0, held))
    assert len(value) > assignments.MAX_INBOUND

    def unsign(*args: Any) -> None:
        raise AssertionError("unsigned")

    monkeypatch.setattr(codec._serializers[0], "loads", unsign)
    assert codec.loads(value) == CookieContent()


def test_two_hundred_bandits_fit() -> None:
    names = [f"experiment_{i}" for i in range(200)]
    app = make_app(*names)
    client = app.test_client()
    for name in names:
        headers = set_cookies(client.get(f"/{name}"))
        assert all(len(header.encode()) <= 4093 for header in headers)
    cookie = client.get_cookie("MAB")
    assert cookie is not None
    assert len(AssignmentCodec([KEY]).loads(cookie.value).assignments) == 200


def test_too_many_assignments_drop_the_oldest_and_count_nothing_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app("first")
    for i in range(250):
        # Random ids do not compress, so this many do not fit.
        name = f"b_{new_visitor()}"
        app.add_bandit(name, colours(f"{i}{new_visitor()}"))  # type: ignore[attr-defined]
        add_pages(app, name)
    client = app.test_client()
    first = client.get("/first").text
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/b_") and not rule.rule.endswith("/click"):
            for header in set_cookies(client.get(rule.rule)):
                assert len(header.encode()) <= 4093
    assert "oldest assignments were dropped: first" in caplog.text
    assert client.get("/first").text == first
    assert pulls(app, "first") == 1


def test_a_removed_arm_s_visitor_is_assigned_another_and_counted_there() -> None:
    app = make_app()
    client = app.test_client()
    arm = client.get("/btn").text.lstrip("#")
    storage = app.extensions["bandit"].storage
    kept = [a for a in ("green", "red", "blue") if a != arm]
    later = make_app("unused", MAB_STORAGE_ENGINE=storage)
    later.add_bandit("btn", colours(*kept))  # type: ignore[attr-defined]
    add_pages(later, "btn")
    cookie = client.get_cookie("MAB")
    assert cookie is not None
    client = later.test_client()
    client.set_cookie("MAB", cookie.value)
    new = client.get("/btn").text.lstrip("#")
    assert new in kept
    assert client.get("/btn").text.lstrip("#") == new
    client.post("/btn/click")
    ((_, counts),) = storage.read_counts().items()
    assert counts[arm] == {"pulls": 1}
    assert (counts[new]["pulls"], counts[new]["rewards"]) == (1, 1)


def test_no_secret_key_is_an_error_that_says_what_to_set() -> None:
    app = make_app(SECRET_KEY=None, TESTING=True)
    with pytest.raises(ValueError, match=r"app\.config\['SECRET_KEY'\]"):
        app.test_client().get("/btn")


names_st = st.text(min_size=1, max_size=12)


@given(
    held=st.dictionaries(
        names_st,
        st.builds(
            Assignment,
            arm=names_st,
            version=st.integers(0, 10**6),
            reassigned=st.integers(0, 9),
            pending=st.none()
            | st.builds(
                Pending,
                propensity=st.floats(0, 1),
                at=st.floats(0, 4e9),
                policy_version=names_st,
            ),
        ),
        max_size=8,
    ),
    issued=st.integers(0, 2**33),
)
def test_what_is_signed_is_read_again(held: dict[str, Assignment], issued: int) -> None:
    codec = AssignmentCodec([KEY])
    content = CookieContent(new_visitor(), issued, held)
    text = codec.dumps(content)
    if len(text) <= assignments.MAX_INBOUND:
        assert codec.loads(text) == content


class OneArm(Policy):
    """All traffic to the arm that the test names."""

    name = "one_arm"

    def __init__(self) -> None:
        self.arm = "green"

    def propensities(self, stats: Stats, context: Any = None) -> FloatArray:
        return np.array([float(arm == self.arm) for arm in stats.arms])


def test_the_answer_heals_the_cookie_of_whoever_lost_a_race() -> None:
    policy = OneArm()
    app = make_app("entry")
    bandit = Bandit(policy, floor=0.0)
    for arm in ("green", "red"):
        bandit.add_arm(arm, arm)
    app.add_bandit("btn", bandit)  # type: ignore[attr-defined]
    add_pages(app, "btn")
    entry = cookie_value(app.test_client().get("/entry"))
    tabs = [app.test_client() for _ in range(2)]
    for tab, policy.arm in zip(tabs, ("green", "red"), strict=True):
        tab.set_cookie("MAB", entry)
        tab.get("/btn")
    # The second tab drew red, but green was stored first and is what both keep and reward.
    assert [tab.get("/btn").text for tab in tabs] == ["green", "green"]
    tabs[1].post("/btn/click")
    assert (pulls(app), rewards(app)) == (1, 1)
