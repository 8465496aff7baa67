"""``flask bandit subject export`` and ``subject erase``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.cli import FlaskGroup

from flask_bandit.model import MERGED, Decision
from flask_bandit.storage import MemoryBanditStorage, SQLiteBanditStorage
from flask_bandit.storage.base import BanditStorage, Commit
from flask_bandit.testing.storage_samples import decision, earn, pull, reward

from .conftest import make_app

USER = "user-42"
DAY = 86400.0


def app_on(storage: BanditStorage, **config: Any) -> Flask:
    return make_app(MAB_STORAGE_ENGINE=storage, TESTING=True, **config)


def run(app: Flask, *args: str, stdin: str | None = None) -> Any:
    """Run the command as ``flask`` does, found by its entry point."""
    group = FlaskGroup(create_app=lambda: app)
    return app.test_cli_runner().invoke(group, ["bandit", "subject", *args], input=stdin)


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BanditStorage]:
    storage: BanditStorage = MemoryBanditStorage()
    if request.param == "sqlite":
        storage = SQLiteBanditStorage(tmp_path / "bandits.db")
    yield storage
    storage.close()


def fill(app: Flask, storage: BanditStorage, user: str = USER) -> dict[str, Decision]:
    """Store decisions of a user, some from before they signed in, and those of others."""
    key = app.extensions["bandit"].pseudonyms
    mine, other = key(user)[0], key("somebody else")[0]
    made = {
        one.id: one
        for one in (
            decision("a", at=1 * DAY, subject=mine, context={"device": "phone"}),
            decision("before", "red", "other_btn", at=2 * DAY, context={"device": "desk"}),
            decision(
                "stand-in",
                "red",
                "other_btn",
                at=2 * DAY,
                subject=mine,
                policy_version=f"{MERGED}before",
                propensities=None,
            ),
            decision("theirs", at=3 * DAY, subject=other, context={"device": "tablet"}),
            decision("nobody's", at=3 * DAY),
            decision("b", at=4 * DAY, subject=mine),
        )
    }
    writes = [pull(one) for one in made.values() if one.id != "stand-in"]
    earned = (earn(reward(made["a"])), earn(reward(made["before"], "order", 2.5)))
    storage.commit(Commit(tuple(writes), earned))
    storage.commit(Commit((pull(made["stand-in"]),)))
    return made


def exported(app: Flask, subject: str = USER) -> dict[str, Any]:
    result = run(app, "export", subject, "--json")
    assert result.exit_code == 0
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_export_has_all_decisions_and_rewards_of_a_subject(storage: BanditStorage) -> None:
    app = app_on(storage)
    made = fill(app, storage)
    found = exported(app)
    assert found["subject"] == USER
    # What was chosen before the sign-in is the subject's, and its stand-in is no choice.
    assert [one["id"] for one in found["decisions"]] == ["a", "before", "b"]
    assert found["decisions"][0] == {
        "id": "a",
        "bandit": "color_btn",
        "version": 1,
        "arm": "green",
        "at": "1970-01-02T00:00:00+00:00",
        "propensities": made["a"].propensities,
        "policy": "epsilon_greedy(epsilon=0.1)",
        "context": {"device": "phone"},
        "pseudonym": made["a"].subject,
        "rewards": [{"goal": "reward", "value": 1.0, "at": "1970-01-02T00:00:01+00:00"}],
    }
    assert found["decisions"][1]["rewards"][0]["goal"] == "order"


def test_export_for_a_person(storage: BanditStorage) -> None:
    app = app_on(storage)
    fill(app, storage)
    assert run(app, "export", USER).stdout.splitlines() == [
        "1970-01-02T00:00:00+00:00  color_btn (version 1): green; earned reward 1 at"
        " 1970-01-02T00:00:01+00:00",
        "1970-01-03T00:00:00+00:00  other_btn (version 1): red; earned order 2.5 at"
        " 1970-01-03T00:00:01+00:00",
        "1970-01-05T00:00:00+00:00  color_btn (version 1): green",
    ]


def test_what_was_stored_under_an_older_key_is_found(storage: BanditStorage) -> None:
    fill(app_on(storage, SECRET_KEY="old" * 10), storage)
    app = app_on(storage, SECRET_KEY="new" * 10)
    assert exported(app)["decisions"] == []
    app = app_on(storage, SECRET_KEY="new" * 10, SECRET_KEY_FALLBACKS=["old" * 10])
    assert len(exported(app)["decisions"]) == 3
    assert run(app, "erase", USER, "--yes").exit_code == 0
    assert exported(app)["decisions"] == []


def test_erase(storage: BanditStorage) -> None:
    app = app_on(storage)
    fill(app, storage)
    counts = storage.read_counts()
    result = run(app, "erase", USER, "--yes")
    assert result.exit_code == 0
    assert result.output == (
        "Erased the subject and the context of 4 decisions. The counts stay.\n"
    )
    stored = storage.get_decisions(["a", "b", "before", "stand-in"])
    assert [(one.subject, one.context) for one in stored.values()] == [(None, None)] * 4
    # Not those of others.
    theirs = storage.get_decisions(["theirs"])["theirs"]
    assert theirs.subject is not None
    assert theirs.context == {"device": "tablet"}
    assert storage.read_counts() == counts
    assert exported(app)["decisions"] == []
    assert run(app, "erase", USER, "--yes").output == "Nothing is stored about this subject.\n"


def test_erase_asks(storage: BanditStorage) -> None:
    app = app_on(storage)
    fill(app, storage)
    for answer in ("n\n", ""):
        result = run(app, "erase", USER, stdin=answer)
        assert result.exit_code == 1
        asked = "Erase the subject and the context of 4 decisions? This cannot be undone."
        assert asked in result.stderr
    assert len(exported(app)["decisions"]) == 3
    result = run(app, "erase", USER, "--json", stdin="y\n")
    assert json.loads(result.stdout) == {"erased": 4}
    assert exported(app)["decisions"] == []


def test_a_subject_of_whom_nothing_is_stored(storage: BanditStorage) -> None:
    app = app_on(storage)
    fill(app, storage)
    assert run(app, "export", "42").output == "Nothing is stored about this subject.\n"
    assert exported(app, "42") == {"subject": "42", "decisions": []}
    # There is nothing to ask about.
    assert run(app, "erase", "42").output == "Nothing is stored about this subject.\n"
    assert json.loads(run(app, "erase", "42", "--json").stdout) == {"erased": 0}


def test_the_pseudonym_is_not_the_subject(storage: BanditStorage) -> None:
    app = app_on(storage)
    fill(app, storage)
    pseudonym = exported(app)["decisions"][0]["pseudonym"]
    assert USER not in pseudonym
    assert exported(app, pseudonym)["decisions"] == []


def test_without_a_secret_key() -> None:
    app = app_on(MemoryBanditStorage(), SECRET_KEY=None)
    for command in (["export", USER], ["erase", USER, "--yes"]):
        result = run(app, *command)
        assert result.exit_code == 1
        assert "SECRET_KEY" in result.stderr
        assert "Traceback" not in result.output


def test_a_user_of_the_app_on_two_devices(storage: BanditStorage) -> None:
    """Through a real app: who signed in after the first page is found with all of it."""
    app = app_on(storage)
    signed_in: list[str] = []
    mab = app.extensions["bandit"]
    mab.hooks.subject = lambda: signed_in[0] if signed_in else None
    phone, desk = app.test_client(), app.test_client()
    arm = phone.get("/btn").text.lstrip("#")
    signed_in.append(USER)
    for client in (phone, desk):
        assert client.get("/btn").text.lstrip("#") == arm
    desk.post("/btn/click")
    (made,) = exported(app)["decisions"]
    assert (made["arm"], len(made["rewards"])) == (arm, 1)
    assert run(app, "erase", USER, "--yes").exit_code == 0
    assert exported(app)["decisions"] == []
    assert desk.get("/btn").text.lstrip("#") == arm
