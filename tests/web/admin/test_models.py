"""The models of a bandit: their table, and letting one serve from the dashboard."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_admin import Admin

from flask_bandit import BanditMiddleware
from flask_bandit.control import Control
from flask_bandit.learning import ExperimentManager
from flask_bandit.learning.books import Books
from flask_bandit.learning.records import EvaluationRecord, Job, ModelRecord
from flask_bandit.storage import SQLiteBanditStorage
from flask_bandit.web.admin import BanditAdmin
from flask_bandit.web.admin.models import BACK, choices, model_table
from flask_bandit.web.admin.numbers import Numbers
from flask_bandit.web.pages import BanditPage, Models, read_models
from flask_bandit.web.state import app_state
from tests.learning.shop import make_bandit, write_log

from .conftest import ROOT, do, fields, open_to_all, send
from .made import START, made_page
from .test_context import read, words

RATES = {"green": 0.15, "red": 0.25}
PAGE = f"{ROOT}bandit?name=offer"
JUDGED = EvaluationRecord(
    n=2,
    bandit_version=1,
    champion=1,
    attempt=2,
    error_rate=0.0076,
    since=START,
    until=START + 100,
    decisions=4200,
    clusters=4200,
    left_out="none",
    value=0.21,
    value_error=0.01,
    champion_value=0.18,
    difference=0.03,
    standard_error=0.01,
    lower=0.0057,
    effective_size=1850.4,
    mean_weight=1.0,
    mean_weight_error=0.01,
    largest_weight=9.0,
    power=0.9,
    at=START + 200,
)
TRAINED = {"train": "TRAINED"}
FIRST = ModelRecord(
    n=1,
    trainer="ridge",
    by="cron",
    states={**TRAINED, "deploy": "DEPLOYED"},
    trained_from=START,
    trained_until=START + 86400,
    decisions=12_577,
    deployed_at=START + 90_000,
)
SECOND = ModelRecord(n=2, parent=1, states={**TRAINED, "evaluate": "EVALUATED"}, evaluation=JUDGED)
THIRD = ModelRecord(n=3, states={"train": "FAILED"}, error="<b>no such column</b>")
MODELS = Models(serving=1, records=(FIRST, SECOND, THIRD), accepted=(2,))


@cache
def some_page() -> BanditPage:
    return made_page(RATES, 400, spans=4, by_context=True)


def page_of(models: Models | None) -> BanditPage:
    return replace(some_page(), models=models)


# What is shown.


def test_each_model_has_a_row_the_newest_first() -> None:
    page = read(page_of(MODELS))
    rows = [tag for tag in page.found("tr") if "data-model" in tag.attributes]
    assert [row.attributes["data-model"] for row in rows] == ["3", "2", "1"]
    failed, judged, serving = (re.sub(r"\s+", " ", row.text) for row in rows)
    assert "failed" in failed
    assert "not judged" in failed
    for told in ("+3.00%", "+1.04% to +4.96%", "+0.57%", "21.00%", "19.04% to 22.96%"):
        assert told in judged
    for told in (
        "error rate 0.8%",
        "against 18.00%",
        "4,200",
        "as good as 1,850 of its own",
        "evaluated",
    ):
        assert told in judged
    for told in ("serves", "ridge, by cron", "learned from 12,577 decisions, Nov 1", "deployed"):
        assert told in serving
    assert "Model 1 draws the arms now." in words(page)
    assert "Model 3 failed: <b>no such column</b>" in words(page)


def test_intervals_lie_on_one_axis_with_no_difference() -> None:
    found = model_table(page_of(MODELS), Numbers())
    assert found is not None
    assert found.zero is not None
    bars = {row.record.n: row.bar for row in found.rows}
    assert (bars[1], bars[3]) == (None, None)
    bar = bars[2]
    assert bar is not None
    assert bar.low is not None
    assert bar.high is not None
    low, high = (float(text.rstrip("%")) / 100 for _, text in (found.ticks[0], found.ticks[-1]))
    for place, truth in (
        (found.zero, 0.0),
        (bar.low, 0.03 - 1.96 * 0.01),
        (bar.middle, 0.03),
        (bar.high, 0.03 + 1.96 * 0.01),
    ):
        assert low + place / 100 * (high - low) == pytest.approx(truth, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "Training of model 4 began Nov 1"),
        ({}, "in web-1:77 and is under way."),
        ({"stop": True}, "in web-1:77 and was told to stop."),
        ({"until": START}, "in web-1:77, which has died since. Resume it, or train another."),
    ],
)
def test_a_job_is_told_with_its_state(changes: dict[str, Any], told: str) -> None:
    job = Job("x", "train", 4, "web-1:77", START, START + 1e9)
    text = words(read(page_of(replace(MODELS, job=replace(job, **changes)))))
    assert told in text


def test_a_job_before_the_first_model_is_shown() -> None:
    job = Job("x", "train", 1, "web-1:77", START, START + 1e9)
    text = words(read(page_of(Models(job=job))))
    assert "The policy of the code draws the arms now. Training of model 1" in text
    assert "No model was trained yet." in text


@pytest.mark.parametrize("models", [None, Models()])
def test_without_models_there_is_no_word_of_them(models: Models | None) -> None:
    headings = [tag.text for tag in read(page_of(models)).tags if tag.name == "h2"]
    assert "Models" not in headings


def test_models_without_statistics_are_shown_as_numbers() -> None:
    page = made_page(RATES, 50, spans=4, results=False, models=MODELS)
    assert "+0.03" in words(read(page))


def test_what_may_serve_is_what_was_judged_better_and_what_served_before() -> None:
    first, back = choices(page_of(MODELS), Numbers())
    assert (first.value, first.title) == ("2", "Deploy model 2")
    assert first.told == (
        "Judged on 4,200 held-out decisions against model 1: +3.00% per decision, at least +0.57% "
        "(error rate 0.8%). It would have earned about 21.00% per decision."
    )
    assert (back.value, back.title) == (BACK, "Roll back to the policy of the code")
    second = replace(MODELS, serving=2, accepted=())
    (back,) = choices(page_of(second), Numbers())
    assert back.title == "Roll back to model 1"
    assert choices(page_of(Models(records=(FIRST,))), Numbers()) == ()


# What is done.


def make_shop(file: Path, instance: Path) -> tuple[Flask, BanditMiddleware]:
    app = Flask("shop", instance_path=str(instance))
    storage = SQLiteBanditStorage(file)
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage, MAB_CONTROL_TTL=0)
    mab = BanditMiddleware(app)
    mab.add_bandit("offer", make_bandit())
    Admin(app).add_view(BanditAdmin(access=open_to_all))
    return app, mab


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with two models of ``offer``: the first is better than the bandit's policy."""
    folder = tmp_path_factory.mktemp("trained")
    app, mab = make_shop(folder / "bandits.db", folder)
    with app.app_context():
        write_log(app_state(app).storage, 900, 1)
        manager = ExperimentManager(mab, "offer", by="cron")
        manager.train("ridge")
        manager.evaluate(1)
        manager.train("fixed")
    app_state(app).storage.close()
    return folder / "bandits.db"


@pytest.fixture
def shop(trained: Path, tmp_path: Path) -> Iterator[Flask]:
    shutil.copy(trained, tmp_path)
    app, _ = make_shop(tmp_path / trained.name, tmp_path / "instance")
    yield app
    app_state(app).storage.close()


def models_of(app: Flask) -> Models:
    return read_models(app_state(app), "offer")


def buttons(page: str) -> list[str]:
    """Return the links that let something serve."""
    return [html.unescape(url) for url in re.findall(r'href="([^"]*do/deploy[^"]*)"', page)]


def test_deploying_and_rolling_back(shop: Flask, caplog: pytest.LogCaptureFixture) -> None:
    client = shop.test_client()
    plain = f"{ROOT}do/deploy?name=offer"
    assert buttons(client.get(PAGE).text) == [plain, f"{plain}&model=1"]
    asked = client.get(f"{plain}&model=1").text
    assert re.findall(r'name="model" value="(\w+)" required( checked)?', asked) == [
        ("1", " checked")
    ]
    assert "In place of the policy of the code" in asked
    with caplog.at_level("INFO", "flask_bandit.audit"):
        done = do(client, "deploy", "offer", model="1")
    assert (done.status_code, done.location) == (303, PAGE)
    page = client.get(PAGE).text
    assert "Model 1 draws the arms of offer. All workers follow at once." in page
    assert "Each choice gives an arm" not in page
    assert "New visitors get an arm by model 1, and the others keep theirs." in page
    found = models_of(shop)
    assert (found.serving, found.accepted) == (1, ())
    record = found.get(1)
    assert record is not None
    assert record.state == "DEPLOYED"
    assert Path(record.backup).is_relative_to(shop.instance_path)
    assert any(Path(record.backup).iterdir())
    assert caplog.messages[-1].endswith("ann: deploy '1' of 'offer': done, model 1 serves")
    assert buttons(page) == [plain, f"{plain}&model=back"]
    do(client, "deploy", "offer", model="back")
    assert models_of(shop).serving == 0
    history = app_state(shop).storage.read_control()["offer"]["history"]
    assert [what for _, what in history] == ["deploy 1 (by ann)", "deploy 0 (by ann)"]
    page = client.get(PAGE).text
    assert "The policy of the code draws the arms of offer." in page
    assert "rolled back" in page


def test_a_model_that_was_not_judged_better_cannot_be_sent(shop: Flask) -> None:
    client = shop.test_client()
    for model in ("2", "7", "0", "-1", "x", "", "back"):
        answer = do(client, "deploy", "offer", model=model)
        assert answer.status_code == 400, model
        assert "choose what shall serve" in answer.text
    assert do(client, "deploy", "offer").status_code == 400
    assert models_of(shop).serving == 0


def test_a_form_from_before_another_deployment(shop: Flask) -> None:
    """Who presses twice does not roll back twice."""
    client = shop.test_client()
    form = fields(client.get(f"{ROOT}do/deploy?name=offer").text)
    assert send(client, "deploy", "offer", {**form, "model": "1"}).status_code == 303
    answer = send(client, "deploy", "offer", {**form, "model": "1"})
    assert answer.status_code == 409
    assert "model 1 serves meanwhile; look again" in answer.text
    assert models_of(shop).serving == 1


def test_a_form_without_its_token_deploys_nothing(shop: Flask) -> None:
    client = shop.test_client()
    form = fields(client.get(f"{ROOT}do/deploy?name=offer").text)
    form["bandits_token"] = "x"
    assert send(client, "deploy", "offer", {**form, "model": "1"}).status_code == 400
    assert models_of(shop).serving == 0


def test_while_a_job_is_in_flight_it_says_so(shop: Flask, caplog: pytest.LogCaptureFixture) -> None:
    job = Job("x", "train", 3, "web-1:77", START, 4e9)
    Books(app_state(shop).storage, "offer").update(lambda index: replace(index, job=job))
    with caplog.at_level("INFO", "flask_bandit.audit"):
        answer = do(shop.test_client(), "deploy", "offer", model="1")
    assert answer.status_code == 409
    assert "in flight in web-1:77" in answer.text
    assert "failed: " in caplog.messages[-1]
    assert models_of(shop).serving == 0


def test_a_model_that_is_gone_is_told(shop: Flask) -> None:
    Books(app_state(shop).storage, "offer").write_model(1, {})
    answer = do(shop.test_client(), "deploy", "offer", model="1")
    assert answer.status_code == 409
    assert "does not have model 1" in answer.text


def test_a_refused_model_is_not_offered_again(shop: Flask) -> None:
    """It may have been refused by a margin that this page does not know."""
    with shop.app_context():
        manager = ExperimentManager(app_state(shop).engine, "offer", backup="unused")
        assert not manager.deploy(1, margin=10.0).deployed
    assert models_of(shop).accepted == ()
    answer = shop.test_client().get(f"{ROOT}do/deploy?name=offer")
    assert "no model was judged to be better than what serves" in answer.text
    assert "<form" not in answer.text


@pytest.mark.parametrize(
    "changes", [{"lower": -0.001}, {"effective_size": 99.0}, {"champion": 5}, {"bandit_version": 2}]
)
def test_a_model_is_accepted_only_if_it_was_judged_better_than_what_serves(
    shop: Flask, changes: dict[str, Any]
) -> None:
    assert models_of(shop).accepted == (1,)
    record = models_of(shop).get(1)
    assert record is not None
    assert record.evaluation is not None
    worse = replace(record, evaluation=replace(record.evaluation, **changes))
    Books(app_state(shop).storage, "offer").update(lambda index: index.put(worse))
    assert models_of(shop).accepted == ()


def test_after_a_reset_what_was_judged_before_counts_no_more(shop: Flask) -> None:
    do(shop.test_client(), "reset", "offer")
    assert models_of(shop).accepted == ()


def test_an_archived_bandit_gets_no_model(shop: Flask) -> None:
    client = shop.test_client()
    do(client, "archive", "offer")
    page = client.get(PAGE).text
    assert "Choose a model" not in page
    assert client.get(f"{ROOT}do/deploy?name=offer").status_code == 409


def test_a_control_with_a_model_that_no_record_knows(shop: Flask) -> None:
    app_state(shop).storage.write_control("offer", Control(model=9).dump(), None)
    page = shop.test_client().get(PAGE).text
    assert "Model 9 draws the arms now." in page
    assert "Roll back to the policy of the code" in page
