"""Visitors of the past count as those who come; and the dashboard that shows them is an extra."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from flask import Flask

from example import __main__ as program
from example.app import TITLES, create_app
from example.replay import DAY, replay
from example.shopper import TRUE_RATES
from flask_bandit.model import BanditKey, LogEntry
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.web.pages import read_page

from .conftest import ROOT, environment

VISITORS = 600
DASHBOARD = "/admin/bandits/"


def make_app() -> Flask:
    return create_app({"MAB_STORAGE_URI": None, "MAB_STORAGE_ENGINE": MemoryBanditStorage()})


def log(app: Flask, name: str) -> list[LogEntry]:
    return list(app.extensions["bandit"].storage.iter_log(name))


def test_the_counts_are_those_of_the_log() -> None:
    app = make_app()
    clicked = replay(app, VISITORS)
    for name in TITLES:
        pulls, clicks = Counter[str](), Counter[str]()
        for entry in log(app, name):
            pulls[entry.decision.arm] += 1
            clicks[entry.decision.arm] += len(entry.rewards)
        counts = app.extensions["bandit"].storage.read_counts()[BanditKey(name, 1)]
        assert {arm: row["pulls"] for arm, row in counts.items() if row["pulls"]} == pulls
        assert {arm: row["reward"] for arm, row in counts.items() if row["reward"]} == clicks
        assert pulls.total() == VISITORS
        assert clicks.total() == clicked
    assert 0 < clicked < VISITORS


def test_they_click_as_the_shops_visitors_do() -> None:
    """By chance the clicks are 5 standard deviations away once in 1,700,000 seeds."""
    app = make_app()
    clicked = replay(app, VISITORS, seed=3)
    logs = [{entry.decision.id[:32]: entry.decision for entry in log(app, name)} for name in TITLES]
    chances = [
        sum(TRUE_RATES[made.bandit][made.arm] for made in (each[visitor] for each in logs))
        for visitor in logs[0]
    ]
    deviation = sum(chance * (1 - chance) for chance in chances) ** 0.5
    assert abs(clicked - sum(chances)) < 5 * deviation


def test_a_seed_names_the_visitors_and_what_they_do() -> None:
    def story(seed: int) -> list[tuple[str, str, int]]:
        app = make_app()
        replay(app, 100, seed=seed)
        return [
            (entry.decision.id, entry.decision.arm, len(entry.rewards))
            for name in TITLES
            for entry in log(app, name)
        ]

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_they_were_there_in_the_past_days() -> None:
    app, before = make_app(), time.time()
    replay(app, VISITORS, days=3.0)
    now = time.time()
    for name in TITLES:
        entries = log(app, name)
        moments = [entry.decision.at for entry in entries]
        assert moments == sorted(moments)
        assert before - 3 * DAY <= moments[0] < before - 2 * DAY
        assert now - DAY < moments[-1] <= now
        assert all(
            entry.decision.at <= reward.at <= now for entry in entries for reward in entry.rewards
        )


def test_the_charts_have_those_who_are_replayed_after_a_look() -> None:
    pytest.importorskip("scipy", reason="SciPy is not installed")
    app = make_app()
    state = app.extensions["bandit"]
    for seed in (1, 2):
        clicked = replay(app, VISITORS, seed=seed)
        page = read_page(state, "color_btn")
        assert page.results is not None
        assert page.unread == page.results.missing == 0
        assert page.results.logged == seed * VISITORS
        assert sum(span.decisions for span in page.results.series) == seed * VISITORS
        assert clicked > 0


def test_it_can_be_started_as_a_program(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'bandits.db'}"
    done = subprocess.run(
        [sys.executable, "-m", "example.replay", "--visitors", "40", "--days", "2"],
        cwd=ROOT,
        env={**environment(), "MAB_STORAGE_URI": uri},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("Replayed 40 visitors of 2 days; ")
    app = create_app({"MAB_STORAGE_URI": uri})
    assert len(log(app, "txt_btn")) == 40
    app.extensions["bandit"].storage.close()


def test_the_shop_needs_no_dashboard() -> None:
    source = f"""
import sys
sys.modules["flask_admin"] = None
from example.app import create_app
client = create_app({{"MAB_STORAGE_URI": "memory://"}}).test_client()
for path in ("/", "/results"):
    answer = client.get(path)
    assert answer.status_code == 200, path
    assert {DASHBOARD!r} not in answer.text, path
assert client.get({DASHBOARD!r}).status_code == 404
"""
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_shop_has_a_dashboard_where_it_can() -> None:
    pytest.importorskip("flask_admin", reason="Flask-Admin is not installed")
    client = make_app().test_client()
    assert client.get(DASHBOARD).status_code == 200
    assert f'href="{DASHBOARD}"' in client.get("/results").text


@pytest.mark.parametrize("port", [5000, 5123])
@pytest.mark.parametrize("is_there", [True, False])
def test_the_start_tells_where_the_dashboard_is(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    port: int,
    is_there: bool,
) -> None:
    monkeypatch.setattr(program, "find_spec", lambda name: object() if is_there else None)
    args = argparse.Namespace(port=port, debug=False, storage_uri="sqlite:///bandits.db")
    program.announce(args, "a server")
    url = f"http://127.0.0.1:{port}{DASHBOARD}"
    assert (f"The dashboard:       {url}\n" in capsys.readouterr().out) is is_there
