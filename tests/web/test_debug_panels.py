"""The toolbar panel, in a real toolbar on real pages."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_debugtoolbar import DebugToolbarExtension

from flask_bandit import choose_arm, reward_endpt
from flask_bandit.analysis.results import RatioCheck
from flask_bandit.bandits import Bandit, ThompsonBandit
from flask_bandit.model import StatsDelta
from flask_bandit.storage.base import Adjustment, Commit
from flask_bandit.testing import force
from flask_bandit.web import cli_show, debug_panels, pages
from flask_bandit.web.cli_leaderboard import chance, ends, gain, interval_of
from flask_bandit.web.debug_panels import _HOW
from flask_bandit.web.pages import read_page

from .conftest import colours, make_app, pulls, set_cookies
from .test_failure import Faulty


@pytest.fixture
def app() -> Flask:
    return with_toolbar(make_app("one", "two", DEBUG=True))


def with_toolbar(app: Flask) -> Flask:
    app.config["DEBUG_TB_PANELS"] = ["flask_bandit.web.debug_panels.BanditDebugPanel"]
    app.config["DEBUG_TB_INTERCEPT_REDIRECTS"] = False

    @app.get("/page/none")
    def none() -> str:
        return "<html><body>none</body></html>"

    @app.get("/page/some")
    @choose_arm("one")
    def some(one: str) -> str:
        return f"<html><body>{one}</body></html>"

    @app.get("/page/all")
    @choose_arm("one")
    @choose_arm("two")
    @reward_endpt("two")
    def both(one: str, two: str) -> str:
        return f"<html><body>{one}{two}</body></html>"

    DebugToolbarExtension(app)
    return app


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def test_none_some_and_all_bandits_assigned(app: Flask) -> None:
    client = app.test_client()
    none = client.get("/page/none").text
    assert none.count('aria-current="true"') == 0
    assert none.count("not asked for by this request") == 2
    some = client.get("/page/some").text
    assert some.count('aria-current="true"') == 1
    assert "drawn for this visitor now" in some
    both = client.get("/page/all").text
    assert both.count('aria-current="true"') == 2
    assert "remembered from the cookie" in both
    assert "drawn for this visitor now" in both
    assert "Reward: rewarded with 1." in both
    assert "rewarded before: counts once" in client.get("/page/all").text
    assert (pulls(app, "one"), pulls(app, "two")) == (1, 1)


def test_it_shows_counts_probabilities_cookie_and_storage(app: Flask) -> None:
    client = app.test_client()
    arm = client.get("/page/some").text.split("#")[1].split("<")[0]
    cookie = client.get_cookie("MAB")
    assert cookie is not None
    text = text_of(client.get("/page/some").text)
    assert f"{arm} (this visitor) 1 0 0.0000 0 to 0.8419 16.7% 0.3333" in text
    assert "No rewards yet: 1 visitor so far." in text
    assert "uniform()" in text
    assert f"one {arm} 1 counted" in text
    assert f"Raw: {cookie.value}" in text
    assert "Faulty" not in text
    assert "MemoryBanditStorage" in text


def test_the_panel_commits_once_and_the_cookie_is_still_set(app: Flask) -> None:
    client = app.test_client()
    response = client.get("/page/some")
    assert len(set_cookies(response)) == 1
    assert "1 shown" in response.text
    client.get("/page/some")
    assert pulls(app, "one") == 1


def test_hostile_names_and_cookies_are_shown_as_text() -> None:
    app = make_app("unused", DEBUG=True)
    hostile = "<script>alert(1)</script>"
    app.add_bandit(hostile, colours(hostile))  # type: ignore[attr-defined]
    app.add_bandit("one", colours())  # type: ignore[attr-defined]
    app.add_bandit("two", colours())  # type: ignore[attr-defined]
    client = with_toolbar(app).test_client()
    client.set_cookie("MAB", "<script>alert(2)</script>")
    page = client.get("/page/none").text
    assert "<script>alert" not in page
    assert hostile in html.unescape(page)
    assert "this app did not sign" in page


def test_a_page_during_an_outage_shows_the_problem() -> None:
    storage = Faulty()
    app = with_toolbar(make_app("one", "two", DEBUG=True, MAB_STORAGE_ENGINE=storage))
    storage.broken = {"read", "commit"}
    response = app.test_client().get("/page/all")
    assert response.status_code == 200
    assert "The storage is down" in response.text
    assert "read is broken" in response.text


def shown_panel(app: Flask, **arguments: Any) -> str:
    """Return the text of the panel on ``/page/some``."""
    response = app.test_client().get("/page/some", **arguments)
    assert response.status_code == 200
    return text_of(response.text)


def pause(app: Flask) -> None:
    app.extensions["bandit"].engine.change("one", "pause")


def declare(app: Flask) -> None:
    app.extensions["bandit"].engine.change("one", "declare", "red")


def archive(app: Flask) -> None:
    app.extensions["bandit"].engine.change("one", "archive")


def close(app: Flask) -> None:
    app.extensions["bandit"].engine.change("one", "close")


def refuse_consent(app: Flask) -> None:
    app.extensions["bandit"].hooks.consent = lambda: False


def refuse_all(app: Flask) -> None:
    app.extensions["bandit"].hooks.visitor_filter = lambda: False


def break_storage(app: Flask) -> None:
    app.extensions["bandit"].storage.broken = {"read", "commit"}


def nothing(app: Flask) -> None:
    pass


@pytest.mark.parametrize(
    ("how", "prepare", "config", "arguments"),
    [
        ("decided", nothing, {}, {}),
        ("override", nothing, {}, {"query_string": {"mab_one": "red"}}),
        ("prefetch", nothing, {}, {"headers": {"Sec-Purpose": "prefetch"}}),
        ("bot", nothing, {}, {"headers": {"User-Agent": "Googlebot/2.1"}}),
        ("network", nothing, {"MAB_EXCLUDED_NETWORKS": "127.0.0.0/8"}, {}),
        ("filter", refuse_all, {}, {}),
        ("no_consent", refuse_consent, {}, {}),
        ("paused", pause, {}, {}),
        ("closed", close, {}, {}),
        ("declared", declare, {}, {}),
        ("archived", archive, {}, {}),
        ("disabled", nothing, {"MAB_ENABLED": False}, {}),
        ("outage", break_storage, {}, {}),
    ],
)
def test_it_tells_why_a_visitor_sees_an_arm(
    how: str, prepare: Callable[[Flask], None], config: Any, arguments: Any
) -> None:
    app = make_app("one", "two", DEBUG=True, MAB_STORAGE_ENGINE=Faulty(), **config)
    prepare(with_toolbar(app))
    assert f"This visitor's arm: {_HOW[how]}" in shown_panel(app, **arguments)


def test_a_limit_a_targeting_and_a_forced_arm_are_told_too() -> None:
    app = make_app("unused", DEBUG=True, MAB_NETWORK_LIMIT="1/hour")
    for name, bandit in (("one", colours()), ("two", Bandit(targeting=lambda: False))):
        if name == "two":
            bandit.add_arm("a")
        app.add_bandit(name, bandit)  # type: ignore[attr-defined]
    client = with_toolbar(app).test_client()
    assert _HOW["not_targeted"] in text_of(client.get("/page/all").text)
    assert _HOW["limit"] in shown_panel(app)
    held = client.get("/page/some").text.split("#")[1].split("<")[0]
    other = next(arm for arm in ("green", "red", "blue") if arm != held)
    with force(one=other):
        assert _HOW["forced"] in text_of(client.get("/page/some").text)


def test_every_reason_that_is_counted_has_words_in_the_panel() -> None:
    assert cli_show._REASONS.keys() <= _HOW.keys()


def test_it_shows_state_winner_version_reasons_and_weights(app: Flask) -> None:
    engine = app.extensions["bandit"].engine
    engine.change("one", "reset")
    engine.change("one", "weights", {"blue": None})
    app.test_client().get("/page/some", headers={"User-Agent": "Googlebot/2.1"})
    text = shown_panel(app)
    assert "version 2, running: new visitors get 'green' or 'red'" in text
    assert "blue 0 0 0.0000 - - 0.0000" in text
    assert "Not counted so far: 1 bot." in text
    engine.change("one", "declare", "red")
    text = shown_panel(app)
    assert "version 2, declared with the winner red: everybody gets 'red', the winner" in text
    assert re.search(r"red \(this visitor\) \d 0 0.0000 .* 1.0000", text)


def test_it_shows_whether_the_visitor_is_a_known_user(app: Flask) -> None:
    assert "no: an anonymous visitor" in shown_panel(app)
    app.extensions["bandit"].hooks.subject = lambda: "ann@example.com"
    client = app.test_client()
    client.get("/page/some")
    text = text_of(client.get("/page/some").text)
    assert "yes: a known user" in text
    assert "of the known user; counted" in text
    assert "ann@example.com" not in text


def test_switched_off_it_opens_no_storage() -> None:
    app = make_app("one", "two", DEBUG=True, MAB_ENABLED=False)
    text = shown_panel(with_toolbar(app))
    assert "switched off by MAB_ENABLED" in text
    assert "not opened" in text
    assert app.extensions["bandit"]._engine is None


# The leaderboard and the verdict


def add(app: Flask, sums: dict[str, dict[str, float]]) -> None:
    """Add sums of the bandit ``one`` to what is stored."""
    adjustment = Adjustment("imported", "one", 1, StatsDelta(sums))
    app.extensions["bandit"].storage.commit(Commit(adjustments=(adjustment,)))


def earned(pulls: float, rewards: float) -> dict[str, float]:
    return {"pulls": pulls, "rewards": rewards, "reward": rewards, "reward_sq": rewards}


def test_it_shows_the_leaderboard_and_the_verdict(app: Flask) -> None:
    add(app, {"green": earned(1000, 50), "red": earned(1000, 100), "blue": earned(1000, 60)})
    text = shown_panel(app)
    page = read_page(app.extensions["bandit"], "one")
    assert page.results is not None
    assert page.results.verdict.sentence in text
    assert gain(page.results) in text
    (red,) = [row for row in page.results.arms if row.arm == "red"]
    interval = interval_of(red)
    assert interval is not None
    assert f"{ends(interval)} {chance(red.p_best)} 0.3333" in text


def test_the_best_arm_is_first_in_the_table(app: Flask) -> None:
    add(app, {"green": earned(1000, 50), "red": earned(1000, 100), "blue": earned(1000, 60)})
    text = shown_panel(app)
    table = text[text.index("Probability now") : text.index("Why this arm")]
    found = re.findall(r"(green|red|blue)(?: \(this visitor\))? 100", table)
    assert found == ["red", "blue", "green"]


def test_it_tells_the_draw_and_its_stages(app: Flask) -> None:
    app.extensions["bandit"].engine.change("one", "weights", {"blue": 2.0})
    text = shown_panel(app)
    assert re.search(r"Decided at \S+ \S+ UTC with probability 0\.\d+ by uniform\(\)\.", text)
    assert "The draw: the decision's hash gives 0." in text
    assert "The probabilities of this draw Arm policy weights floor drawn from green 0.3333" in text
    assert "The floor F = 0.005: each p becomes (1 - F) p + F / K" in text


def test_the_stages_are_those_before_this_request_was_counted() -> None:
    app = make_app("unused", DEBUG=True, MAB_STATS_TTL=60)
    for name in ("one", "two"):
        bandit = ThompsonBandit()
        bandit.add_arm("green", "green")
        bandit.add_arm("red", "red")
        app.add_bandit(name, bandit)  # type: ignore[attr-defined]
    with_toolbar(app)
    for _ in range(5):
        assert "The probabilities of this draw" in shown_panel(app)


def test_a_mismatch_and_an_unread_log_are_told(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    app.test_client().get("/page/some")
    page = read_page(app.extensions["bandit"], "one")
    assert page.results is not None
    check = RatioCheck({"green": 100.0}, {"green": 1}, 90.0, 1, 0.0)
    odd = replace(page, results=replace(page.results, ratio=check), unread=7)
    monkeypatch.setattr(debug_panels, "read_pages", lambda state: iter([odd]))
    text = shown_panel(app)
    assert "Sample-ratio mismatch" in text
    assert "Decisions that the verdict may lack: 7." in text


def test_it_does_not_wait_for_a_long_log(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_UNREAD_EACH", 0)
    hurried: list[str] = []
    monkeypatch.setattr(app.extensions["bandit"].digester, "hurry", hurried.append)
    assert "Decisions that the verdict may lack: 1." in shown_panel(app)
    assert hurried == ["one"]


def test_hostile_arms_are_shown_as_text() -> None:
    hostile = "<script>alert(1)</script>"
    app = make_app("unused", DEBUG=True)
    app.add_bandit("one", colours(hostile, '"><b>'))  # type: ignore[attr-defined]
    app.add_bandit("two", colours())  # type: ignore[attr-defined]
    with_toolbar(app)
    for arm in (hostile, '"><b>'):
        with force(one=arm):
            page = app.test_client().get("/page/some").text
        panel = page[page.index('<div class="flask-bandit">') :]
        assert "<script>alert" not in panel
        assert '"><b>' not in panel
        assert f"{html.escape(arm)} (this visitor)" in panel.replace("&#34;", "&quot;")
    for _ in range(2):
        page = app.test_client().get("/page/some").text
        panel = page[page.index('<div class="flask-bandit">') :]
        assert "The probabilities of this draw" in panel
        assert "<script>alert" not in panel
        assert '"><b>' not in panel


def test_whatever_a_storage_raises_the_page_is_answered(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("<i>no digest</i>")

    monkeypatch.setattr(app.extensions["bandit"].storage, "read_digest", fail)
    page = app.test_client().get("/page/some").text
    assert "What is stored could not be read: &lt;i&gt;no digest&lt;/i&gt;" in page
    assert "The storage is down" not in page
    assert "Decided at" in page


WITHOUT_SCIPY = """
import sys
sys.modules["scipy"] = None
from tests.web.conftest import make_app
from tests.web.test_debug_panels import shown_panel, with_toolbar
from flask.cli import FlaskGroup
app = with_toolbar(make_app("one", "two", DEBUG=True))
print(shown_panel(app))
group = FlaskGroup(create_app=lambda: app)
print(app.test_cli_runner().invoke(group, ["bandit", "show", "one"]).output)
print(app.test_cli_runner().invoke(group, ["bandit", "show", "one", "--json"]).output)
"""


def test_without_scipy_the_panel_and_the_command_say_what_to_install() -> None:
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_SCIPY],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    panel, _, command = found.stdout.partition("one: running, version 1")
    words = "pip install 'Flask-Bandit[analysis]'"
    assert "No verdict: " in panel
    assert words in panel
    assert re.search(r"\(this visitor\) 1 0 0.0000 0.3333", panel)
    assert "Decided at" in panel
    assert words in " ".join(command.split())
    assert "P(best)" not in found.stdout
    assert '"results": null' in command
