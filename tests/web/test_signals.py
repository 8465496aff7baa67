"""What the signals tell, and how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask, request

from flask_bandit import (
    LifecycleError,
    bandit_changed,
    decision_made,
    reward_recorded,
    storage_failed,
    storage_recovered,
)
from flask_bandit.web.cli import bandit_cli

from .conftest import make_app, set_cookies
from .test_failure import Faulty, let_a_probe_through

SIGNALS = (decision_made, reward_recorded, bandit_changed, storage_failed, storage_recovered)
Heard = list[tuple[str, dict[str, Any]]]


class Controlled(Faulty):
    """Fails and counts where control states are read, too."""

    def read_control(self, timeout: float | None = None) -> Any:
        self._pass("control", timeout)
        return super().read_control(timeout)


@pytest.fixture
def storage() -> Controlled:
    return Controlled()


@pytest.fixture
def app(storage: Controlled) -> Flask:
    app = make_app(MAB_STORAGE_ENGINE=storage, MAB_CONTROL_TTL=0)
    app.extensions["bandit"].hooks.subject = lambda: request.headers.get("X-User")
    return app


@pytest.fixture
def heard(app: Flask) -> Iterator[Heard]:
    """What all signals of the app tell: their names and arguments."""
    found: Heard = []

    def listener(name: str) -> Callable[..., None]:
        def hear(sender: Flask, **arguments: Any) -> None:
            assert sender is app
            found.append((name, arguments))

        return hear

    with ExitStack() as stack:
        for signal in SIGNALS:
            stack.enter_context(signal.connected_to(listener(signal.name), app))
        yield found


def names(heard: Heard) -> list[str]:
    return [name for name, _ in heard]


def test_a_decision_and_a_reward_are_told_once(app: Flask, heard: Heard) -> None:
    client = app.test_client()
    for _ in range(3):
        client.get("/btn")
    for _ in range(3):
        client.post("/btn/click")
    assert names(heard) == ["decision-made", "reward-recorded"]
    decision, reward = heard[0][1]["decision"], heard[1][1]["reward"]
    assert (decision.bandit, decision.version) == ("btn", 1)
    assert (reward.decision_id, reward.arm, reward.value) == (decision.id, decision.arm, 1.0)


def test_a_known_user_s_are_told_once_for_all_devices(app: Flask, heard: Heard) -> None:
    user = {"X-User": "ann"}
    for _ in range(3):
        client = app.test_client()
        client.get("/btn", headers=user)
        client.post("/btn/click", headers=user)
    assert names(heard) == ["decision-made", "reward-recorded"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "HEAD"},
        {"headers": {"User-Agent": "Googlebot/2.1"}},
        {"headers": {"Sec-Purpose": "prefetch"}},
        {"query_string": {"mab_btn": "red"}},
    ],
    ids=str,
)
def test_what_is_not_counted_is_not_told(
    app: Flask, heard: Heard, arguments: dict[str, Any]
) -> None:
    app.config["MAB_OVERRIDES"] = True
    app.test_client().open("/btn", **arguments)
    assert heard == []


@pytest.mark.parametrize(
    ("action", "subject"), [("pause", None), ("declare", "red"), ("close", None)]
)
def test_nothing_is_told_of_visitors_of_a_bandit_that_takes_none(
    app: Flask, heard: Heard, action: str, subject: Any
) -> None:
    app.extensions["bandit"].engine.change("btn", action, subject)
    client = app.test_client()
    client.get("/btn")
    client.post("/btn/click")
    assert names(heard) == ["bandit-changed"]


def test_each_change_is_told_with_what_it_came_to(app: Flask, heard: Heard) -> None:
    engine = app.extensions["bandit"].engine
    steps: list[tuple[str, Any, str]] = [
        ("weights", {"red": 0}, "running"),
        ("pause", None, "paused"),
        ("resume", None, "running"),
        ("close", None, "closed"),
        ("declare", "blue", "declared"),
        ("reopen", None, "running"),
        ("reset", None, "running"),
        ("archive", None, "archived"),
    ]
    for action, subject, _ in steps:
        engine.change("btn", action, subject)
    assert names(heard) == ["bandit-changed"] * len(steps)
    told = [arguments for _, arguments in heard]
    assert {each["bandit"] for each in told} == {"btn"}
    assert [(each["action"], each["control"].state) for each in told] == [
        (action, state) for action, _, state in steps
    ]
    assert told[4]["control"].winner == "blue"
    assert told[6]["control"].version == 2


def test_what_changes_nothing_or_cannot_be_done_is_not_told(app: Flask, heard: Heard) -> None:
    engine = app.extensions["bandit"].engine
    engine.change("btn", "resume")
    engine.change("btn", "weights", {"red": 1})
    with pytest.raises(LifecycleError):
        engine.change("btn", "declare", "purple")
    assert heard == []
    engine.change("btn", "pause")
    engine.change("btn", "pause")
    assert names(heard) == ["bandit-changed"]


def test_a_command_tells_it_too(app: Flask, heard: Heard) -> None:
    result = app.test_cli_runner().invoke(bandit_cli, ["pause", "btn"])
    assert result.exit_code == 0, result.output
    assert names(heard) == ["bandit-changed"]


@pytest.mark.parametrize("broken", ["control", "read", "commit"])
def test_an_outage_is_told_once_and_its_end_once(
    app: Flask, storage: Controlled, heard: Heard, broken: str
) -> None:
    known = app.test_client()
    known.get("/btn")
    heard.clear()
    storage.broken = {broken}
    for _ in range(4):
        assert app.test_client().get("/btn").status_code == 200
        assert known.get("/btn").status_code == 200
        let_a_probe_through(app)
    storage.broken = set()
    let_a_probe_through(app)
    assert set_cookies(app.test_client().get("/btn"))
    assert names(heard) == ["storage-failed", "storage-recovered", "decision-made"]
    assert str(heard[0][1]["error"]) == f"{broken} is broken"


def test_a_receiver_that_fails_costs_neither_the_page_nor_the_count(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(sender: Flask, **_: Any) -> None:
        raise ZeroDivisionError("metrics")

    with ExitStack() as stack:
        for signal in SIGNALS:
            stack.enter_context(signal.connected_to(fails, app))
        client = app.test_client()
        assert set_cookies(client.get("/btn"))
        assert client.post("/btn/click").status_code == 200
        assert app.extensions["bandit"].engine.change("btn", "pause").state == "paused"
    assert caplog.text.count("A receiver of the signal") == 3
