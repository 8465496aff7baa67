"""Who is counted, for each reason not to count, and what happens when a reason cannot be told."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from secrets import token_hex
from typing import Any

import pytest
from flask import Flask, request

from flask_bandit import ConfigurationError
from flask_bandit.web import crawlers
from flask_bandit.web.state import AppState
from flask_bandit.web.throttle import Throttle
from flask_bandit.web.visitors import (
    Counting,
    Verdict,
    has_consent,
    verdict_of,
    within_limit,
)
from tests.servers.redis import RedisServer

from .conftest import make_app, pulls, rewards, set_cookies, total

CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36"
)
GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
COUNTED = Verdict(Counting.COUNTED, "")


def state_of(app: Flask) -> AppState:
    state: AppState = app.extensions["bandit"]
    return state


def verdict(app: Flask, address: str | None = "198.51.100.7", **arguments: Any) -> Verdict:
    """Return how a request counts; ``arguments`` are those of a test client."""
    environ = {} if address is None else {"REMOTE_ADDR": address}
    with app.test_request_context("/btn", environ_overrides=environ, **arguments):
        return verdict_of(state_of(app), request)


def uncounted(reason: str) -> Verdict:
    return Verdict(Counting.UNCOUNTED, reason)


def admitted(app: Flask, address: str | None) -> bool:
    environ = {} if address is None else {"REMOTE_ADDR": address}
    with app.test_request_context("/btn", environ_overrides=environ):
        return within_limit(state_of(app), request)


def fail() -> bool:
    raise LookupError("no such table")


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the optional packages impossible to import."""
    for name in ("crawleruseragents", "limits"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("crawlers", "throttle"):
        monkeypatch.delitem(sys.modules, f"flask_bandit.web.{name}", raising=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, COUNTED),
        ({"method": "POST"}, COUNTED),
        ({"method": "HEAD"}, uncounted("head")),
        ({"method": "OPTIONS"}, uncounted("head")),
        ({"headers": {"User-Agent": CHROME}}, COUNTED),
        ({"headers": {"User-Agent": ""}}, COUNTED),
        ({"headers": {"User-Agent": GOOGLE}}, uncounted("bot")),
        ({"headers": {"User-Agent": "curl/8.5.0"}}, uncounted("bot")),
        ({"headers": {"User-Agent": "\xff\x00 Googlebot/2.1"}}, uncounted("bot")),
        ({"headers": {"Sec-Purpose": "prefetch;prerender"}}, (Counting.PENDING, "prefetch")),
        ({"headers": {"Purpose": "Prefetch"}}, (Counting.PENDING, "prefetch")),
        ({"headers": {"X-Moz": "prefetch"}}, (Counting.PENDING, "prefetch")),
        ({"headers": {"Sec-Purpose": "navigate"}}, COUNTED),
        ({"headers": {"Sec-Purpose": "prefetch", "User-Agent": GOOGLE}}, uncounted("bot")),
        ({"headers": {"User-Agent": GOOGLE}, "method": "HEAD"}, uncounted("head")),
    ],
)
def test_a_request_counts_by_its_method_and_headers(
    app: Flask, arguments: dict[str, Any], expected: Verdict
) -> None:
    assert verdict(app, **arguments) == expected


def test_the_test_client_is_a_visitor(app: Flask) -> None:
    """Else a test of an app would count nothing as soon as the list of robots is installed."""
    seen: list[tuple[str, Verdict]] = []

    @app.get("/who")
    def who() -> str:
        seen.append((request.headers["User-Agent"], verdict_of(state_of(app), request)))
        return ""

    app.test_client().get("/who")
    ((agent, found),) = seen
    assert agent.startswith("Werkzeug/")
    assert found == COUNTED


def test_a_request_without_user_agent_is_a_visitor(app: Flask) -> None:
    with app.test_request_context("/btn") as context:
        context.request.environ.pop("HTTP_USER_AGENT", None)
        assert verdict_of(state_of(app), context.request) == COUNTED


def test_a_user_agent_is_looked_up_once(monkeypatch: pytest.MonkeyPatch, app: Flask) -> None:
    asked: list[str] = []

    def is_crawler(user_agent: str) -> bool:
        asked.append(user_agent)
        return True

    monkeypatch.setattr(crawlers, "is_crawler", is_crawler)
    for ending in ("", "/a", "/b") * 3:
        headers = {"User-Agent": f"nobody has this {ending}"}
        assert verdict(app, headers=headers) == uncounted("bot")
    assert len(asked) == len(set(asked)) == 3


def test_long_user_agents_are_cut_and_few_are_remembered() -> None:
    for number in range(3 * crawlers.REMEMBERED_USER_AGENTS // 2):
        crawlers.is_robot(f"{number} {'x' * 20}")
    assert crawlers.is_robot("Googlebot/2.1 " + "x" * 100_000)
    assert not crawlers.is_robot("x" * 100_000 + " Googlebot/2.1")
    info = crawlers._is_listed.cache_info()
    assert info.currsize == info.maxsize == crawlers.REMEMBERED_USER_AGENTS


def test_robots_are_counted_where_the_list_is_switched_off() -> None:
    app = make_app(MAB_BOTS="no")
    assert verdict(app, headers={"User-Agent": GOOGLE}) == COUNTED


@pytest.mark.usefixtures("without_package")
def test_without_the_list_robots_are_counted(app: Flask) -> None:
    assert verdict(app, headers={"User-Agent": GOOGLE}) == COUNTED


@pytest.mark.usefixtures("without_package")
def test_a_list_that_is_required_and_missing_is_an_error() -> None:
    app = make_app(MAB_BOTS=True)
    with pytest.raises(ConfigurationError, match=r"pip install 'Flask-Bandit\[bots\]'"):
        verdict(app, headers={"User-Agent": CHROME})


@pytest.mark.parametrize(
    ("address", "is_excluded"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("::a01:203", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        ("::ffff:192.0.2.1", True),
        ("192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("unix:", False),
        ("10.1.2.3, 10.1.2.4", False),
        ("1" * 100_000, False),
        ("", False),
        (None, False),
    ],
)
def test_networks_are_excluded(address: str | None, is_excluded: bool) -> None:
    networks = ["10.0.0.0/8", "2001:db8::/32", "::ffff:192.0.2.0/120"]
    app = make_app(MAB_EXCLUDED_NETWORKS=networks)
    expected = uncounted("network") if is_excluded else COUNTED
    assert verdict(app, address) == expected
    assert verdict(app, address, headers={"User-Agent": GOOGLE}).reason in ("network", "bot")
    assert (verdict(app, address, headers={"User-Agent": GOOGLE}) == expected) is is_excluded


def test_a_filter_decides_inside_the_request(app: Flask) -> None:
    state_of(app).hooks.visitor_filter = lambda: request.args.get("staff") is None
    assert verdict(app) == COUNTED
    assert verdict(app, query_string={"staff": "1"}) == uncounted("filter")
    prefetch = {"Sec-Purpose": "prefetch"}
    assert verdict(app, query_string={"staff": "1"}, headers=prefetch) == uncounted("filter")
    assert verdict(app, headers=prefetch).reason == "prefetch"


def test_a_filter_is_not_asked_about_robots(app: Flask) -> None:
    state_of(app).hooks.visitor_filter = fail
    assert verdict(app, headers={"User-Agent": GOOGLE}) == uncounted("bot")


def test_a_filter_that_fails_is_logged_and_counts(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    state_of(app).hooks.visitor_filter = fail
    assert verdict(app) == COUNTED
    assert "visitor_filter failed" in caplog.text
    assert "no such table" in caplog.text


@pytest.mark.parametrize(("answer", "expected"), [(True, True), (False, False), (None, False)])
def test_consent_is_what_the_app_says(app: Flask, answer: Any, expected: bool) -> None:
    state_of(app).hooks.consent = lambda: answer
    with app.test_request_context("/btn"):
        assert has_consent(state_of(app)) is expected


def test_without_a_consent_function_there_is_consent(app: Flask) -> None:
    with app.test_request_context("/btn"):
        assert has_consent(state_of(app)) is True


def test_consent_that_fails_is_logged_and_is_none(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    state_of(app).hooks.consent = fail
    with app.test_request_context("/btn"):
        assert has_consent(state_of(app)) is False
    assert "consent_loader failed" in caplog.text


def test_a_coroutine_is_no_consent_by_itself(app: Flask) -> None:
    async def refuse() -> bool:
        return request.args.get("ok") is not None

    state_of(app).hooks.consent = refuse  # type: ignore[assignment]
    with app.test_request_context("/btn"):
        assert has_consent(state_of(app)) is False
    with app.test_request_context("/btn?ok=1"):
        assert has_consent(state_of(app)) is True


def test_without_a_limit_everybody_is_within_it(app: Flask) -> None:
    assert all(admitted(app, "198.51.100.7") for _ in range(200))


@pytest.mark.parametrize(
    ("same", "other"),
    [
        (["198.51.100.7", "198.51.100.250", "::ffff:198.51.100.8"], "198.51.101.7"),
        (["2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:0:9::"], "2001:db8:0:1::1"),
    ],
)
def test_a_network_has_one_limit(same: list[str], other: str) -> None:
    app = make_app(MAB_NETWORK_LIMIT="3/hour")
    assert [admitted(app, address) for address in same] == [True, True, True]
    assert [admitted(app, address) for address in same] == [False, False, False]
    assert admitted(app, other)


def test_each_of_several_limits_holds() -> None:
    app = make_app(MAB_NETWORK_LIMIT="1/hour; 2/day")
    assert [admitted(app, "198.51.100.7") for _ in range(2)] == [True, False]


@pytest.mark.parametrize("address", [None, "", "unix:", "not an address"])
def test_without_an_address_there_is_no_limit(address: str | None) -> None:
    app = make_app(MAB_NETWORK_LIMIT="1/hour")
    assert [admitted(app, address) for _ in range(3)] == [True, True, True]


def test_the_limiter_never_sees_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []

    def admits(self: Throttle, key: str) -> bool:
        keys.append(key)
        return True

    monkeypatch.setattr(Throttle, "admits", admits)
    for secret in ("k" * 32, b"k" * 32, "another key"):
        app = make_app(MAB_NETWORK_LIMIT="1/hour", SECRET_KEY=secret)
        for address in ("198.51.100.7", "198.51.100.8", "203.0.113.9"):
            assert admitted(app, address)
    assert [len(key) for key in keys] == [64] * 9
    text, binary, another = keys[:3], keys[3:6], keys[6:]
    assert text == binary
    assert text[0] == text[1] != text[2]
    assert not set(text) & set(another)


def test_a_limit_needs_a_key() -> None:
    app = make_app(MAB_NETWORK_LIMIT="1/hour", SECRET_KEY=None)
    with pytest.raises(ConfigurationError, match="SECRET_KEY"):
        admitted(app, "198.51.100.7")


@pytest.mark.parametrize(
    "limit", ["100", "many", "100 an hour", "0/hour", "-1/hour", "100/hour;0/day", "9" * 5000]
)
def test_a_limit_that_cannot_be_meant_is_an_error(limit: str) -> None:
    app = make_app(MAB_NETWORK_LIMIT=limit)
    with pytest.raises(ConfigurationError, match=r"(?s)MAB_NETWORK_LIMIT is.*'100/hour'"):
        _ = state_of(app).rules


@pytest.mark.parametrize(
    "uri",
    ["nowhere://me:hunter2@host", "hunter2", "async+memory://", "redis://me:hunter2@host:port"],
)
def test_a_uri_that_cannot_be_meant_is_an_error_without_its_password(uri: str) -> None:
    app = make_app(MAB_NETWORK_LIMIT="1/hour", MAB_NETWORK_LIMIT_URI=uri)
    with pytest.raises(ConfigurationError, match="MAB_NETWORK_LIMIT_URI") as caught:
        _ = state_of(app).rules
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    if "://" in uri:
        assert "hunter2" not in str(caught.value)


@pytest.mark.usefixtures("without_package")
def test_a_limit_without_its_package_is_an_error() -> None:
    app = make_app(MAB_NETWORK_LIMIT="1/hour")
    with pytest.raises(ConfigurationError, match=r"pip install 'Flask-Bandit\[limits\]'"):
        verdict(app)


def test_workers_share_a_limit_in_redis(redis_server: RedisServer) -> None:
    settings = {
        "SECRET_KEY": token_hex(),
        "MAB_NETWORK_LIMIT": "2/hour",
        "MAB_NETWORK_LIMIT_URI": redis_server.uri,
    }
    first, second = make_app(**settings), make_app(**settings)
    assert admitted(first, "198.51.100.7")
    assert admitted(second, "198.51.100.8")
    assert not admitted(first, "198.51.100.9")
    assert not admitted(second, "198.51.100.9")
    with redis_server.client() as client:
        keys = client.keys("*flask-bandit*")
    assert len(keys) == 1
    assert b"198.51" not in keys[0]


def test_an_outage_of_the_limiter_counts_everybody_and_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    app = make_app(MAB_NETWORK_LIMIT="1/hour", MAB_NETWORK_LIMIT_URI="redis://127.0.0.1:1/0")
    throttle = state_of(app).rules.throttle
    assert throttle is not None
    for _ in range(3):
        assert admitted(app, "198.51.100.7")
        # Let the breaker's half second pass, without waiting for it.
        throttle._breaker._next_probe = 0.0
    assert caplog.text.count("MAB_NETWORK_LIMIT is not applied") == 1
    monkeypatch.setattr(throttle, "_limiter", Throttle("1/hour", "memory://", 1.0)._limiter)
    assert [admitted(app, "198.51.100.7") for _ in range(2)] == [True, False]
    assert caplog.text.count("MAB_NETWORK_LIMIT is applied again") == 1


def test_a_limiter_that_hangs_is_not_waited_for(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    throttle = Throttle("1/hour", server.uri, 0.2)
    assert [throttle.admits("key") for _ in range(2)] == [True, False]
    server.pause()
    assert throttle.admits("key")
    server.resume()
    storage = throttle._limiter.storage if throttle._limiter is not None else None
    options = storage.storage.connection_pool.connection_kwargs  # type: ignore[union-attr]
    assert options["socket_timeout"] + options["socket_connect_timeout"] == 0.2


def test_during_an_outage_the_limiter_is_asked_seldom() -> None:
    throttle = Throttle("1/hour", "redis://127.0.0.1:1/0", 1.0)
    asked: list[str] = []

    class Failing:
        def hit(self, *_: object) -> bool:
            asked.append("hit")
            raise OSError("gone")

    throttle._limiter = Failing()  # type: ignore[assignment]
    for _ in range(50):
        throttle._breaker._next_probe = float("inf")
        assert throttle.admits("key")
    assert asked == ["hit"]


def test_a_limiter_that_cannot_connect_yet_connects_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise OSError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr("flask_bandit.web.throttle.storage_from_string", refuse)
        throttle = Throttle("1/hour", "memory://", 1.0)
        assert [throttle.admits("key") for _ in range(3)] == [True, True, True]
    throttle._breaker._next_probe = 0.0
    assert [throttle.admits("key") for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("reason", "arguments"),
    [
        ("bot", {"headers": {"User-Agent": GOOGLE}}),
        ("head", {"method": "HEAD"}),
        ("network", {"environ_overrides": {"REMOTE_ADDR": "10.1.2.3"}}),
        ("filter", {"query_string": {"staff": "1"}}),
    ],
)
def test_who_is_not_counted_gets_an_arm_and_the_reason_is_stored(
    reason: str, arguments: dict[str, Any]
) -> None:
    """Split issue 337: users were left out, and nothing told."""
    app = make_app(MAB_EXCLUDED_NETWORKS="10.0.0.0/8")
    state_of(app).hooks.visitor_filter = lambda: "staff" not in request.args
    client = app.test_client()
    page = client.open("/btn", **arguments)
    assert page.status_code == 200
    assert reason == "head" or page.text in ("#green", "#red", "#blue")
    assert not set_cookies(page)
    # A click from there is no reward, also by somebody who holds an arm.
    client.get("/btn")
    client.open("/btn/click", **{"method": "POST", **arguments})
    assert (pulls(app), rewards(app)) == (1, 0)
    assert total(app, "btn", f"{reason}:skipped") == 1
    client.post("/btn/click")
    assert (pulls(app), rewards(app)) == (1, 1)


def test_without_consent_the_control_is_shown_and_nothing_is_kept() -> None:
    app = make_app()
    state_of(app).hooks.consent = lambda: "ok" in request.args
    for _ in range(20):
        page = app.test_client().get("/btn")
        assert page.text == "#green"
        assert not set_cookies(page)
    assert list(state_of(app).storage.iter_log()) == []
    assert pulls(app) == 0
    assert total(app, "btn", "no_consent:skipped") >= 1
    assert set_cookies(app.test_client().get("/btn?ok=1"))
    assert pulls(app) == 1


def test_above_the_limit_the_control_is_shown_and_who_is_known_stays_known() -> None:
    app = make_app(MAB_NETWORK_LIMIT="3/hour")
    clients = [app.test_client() for _ in range(6)]
    pages = [client.get("/btn") for client in clients]
    assert [bool(set_cookies(page)) for page in pages] == [True] * 3 + [False] * 3
    assert {page.text for page in pages[3:]} == {"#green"}
    assert [client.get("/btn").text for client in clients] == [page.text for page in pages]
    assert pulls(app) == 3
    assert total(app, "btn", "limit:skipped") >= 1


def test_a_prefetch_is_no_way_around_the_limit() -> None:
    app = make_app(MAB_NETWORK_LIMIT="3/hour")
    for _ in range(6):
        client = app.test_client()
        client.get("/btn", headers={"Sec-Purpose": "prefetch"})
        client.get("/btn")
    assert pulls(app) == 3


def test_a_robot_without_consent_is_told_as_a_robot() -> None:
    app = make_app()
    state_of(app).hooks.consent = lambda: False
    app.test_client().get("/btn", headers={"User-Agent": GOOGLE})
    assert total(app, "btn", "bot:skipped") == 1
