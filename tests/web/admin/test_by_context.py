"""The page of a bandit that chooses by context: it must not compare arms by those who like them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from flask_bandit import add_bandit
from flask_bandit.analysis.results import Results
from flask_bandit.bandits import Bandit, LinThompsonBandit
from flask_bandit.control import CLOSED, Control
from flask_bandit.storage import MemoryBanditStorage, SQLiteBanditStorage
from flask_bandit.storage.base import BanditStorage
from flask_bandit.web.admin.context import index_context
from flask_bandit.web.admin.figures import figures
from flask_bandit.web.admin.numbers import Numbers
from flask_bandit.web.cli_life import show
from flask_bandit.web.cli_show import show_lines
from flask_bandit.web.pages import BanditPage, read_page, read_pages
from flask_bandit.web.reports import Stored, summarise, what_visitors_see
from flask_bandit.web.state import app_state
from tests.learning.shop import ARMS, FEATURES, make_bandit, write_log
from tests.web.conftest import make_app

from .made import made_page
from .test_charts import HOSTILE, values
from .test_context import changed, read, words

RATES = {"green": 0.3, "red": 0.32}


@pytest.fixture(scope="module")
def page() -> BanditPage:
    return made_page(RATES, 1500, spans=8, by_context=True)


def results(page: BanditPage) -> Results:
    assert page.results is not None
    return page.results


def test_the_first_sentence_is_whether_the_context_is_worth_it(page: BanditPage) -> None:
    twin, verdict = results(page).twin, results(page).verdict
    assert twin is not None
    html = read(page)
    shown = [tag.text.replace("\xa0", " ") for tag in html.found("section", class_="verdict")]
    assert twin.sentence in shown[0]
    assert verdict.sentence in shown[0]
    (row,) = index_context([page], Numbers())["rows"]
    assert row.sentence == twin.sentence


def test_after_a_declaration_the_winner_comes_first() -> None:
    won = made_page(RATES, 800, spans=4, by_context=True, winner="red", state="declared")
    (row,) = index_context([won], Numbers())["rows"]
    assert row.sentence.startswith("red was declared the winner")


def test_its_sections(page: BanditPage) -> None:
    headings = [tag.text for tag in read(page).tags if tag.name == "h2"]
    assert headings == [
        "Verdict",
        "By context, or one arm for everybody",
        "Leaderboard",
        "Over time",
        "Reward gained over an equal split",
        "Health",
    ]


def test_what_it_earned_stands_beside_one_arm_for_everybody(page: BanditPage) -> None:
    twin, html = results(page).twin, read(page)
    assert twin is not None
    shown = {
        name: float(html.found("strong", data_name=name)[0].attributes["data-value"])
        for name in ("earned", "twin", "difference")
    }
    truth = {
        "earned": twin.earned,
        "twin": twin.value.estimate,
        "difference": twin.difference.estimate,
    }
    assert shown == pytest.approx(truth)
    left_out = changed(page, twin=replace(twin, left_out=("blue", "pink")))
    assert "Left out, with too few rewards: blue, pink." in words(read(left_out))


def test_before_that_is_known_it_says_what_is_lacking() -> None:
    text = words(read(made_page(RATES, 40, spans=4, by_context=True)))
    assert "of the 20 rewards that it needs" in text
    assert "too few rewards" in text


def test_before_the_first_decision_there_is_no_word_of_it() -> None:
    new = made_page(RATES, 0, by_context=True)
    text = words(read(new))
    assert "No decisions yet." in text
    assert "one arm for everybody" not in text
    assert "choosing by context" not in " ".join(show_lines(new))


def test_the_leaderboard_is_about_everybody_and_says_so(page: BanditPage) -> None:
    html = read(page)
    (table,) = html.found("table", class_="leaderboard")
    for heading in ("If everybody got it", "Who got it", "Decisions"):
        assert heading in table.text
    cells = [tag.text.strip() for tag in html.found("td", data_label="Now")]
    assert cells == ["by context", "by context"]
    raw = {float(tag.attributes["data-value"]) for tag in html.found("td", data_name="mean")}
    assert raw == {each.sums.mean for each in page.report.arms}
    for row in results(page).arms:
        assert row.mean is not None
        assert Numbers().percent(row.mean.estimate, 2) in table.text
    text = words(html)
    assert "posterior" not in text
    assert "Visitors" not in text


def test_its_charts_show_the_whole_and_no_race_of_arms(page: BanditPage) -> None:
    shown = {figure.key: figure for figure in figures(page, Numbers())}
    assert list(shown) == ["earned", "traffic", "probability"]
    said = values(shown["earned"].drawings[0].svg)
    twin = results(page).twin
    assert twin is not None
    whole, one = said["all arms, by context"], said["the best arm for everybody"]
    for place, point in enumerate(results(page).series):
        rolling = point.rolling
        assert rolling is not None
        truth = [point.start, point.end, rolling.estimate, rolling.low, rolling.high]
        assert whole[place] == pytest.approx(truth)
        assert one[place][2:] == pytest.approx(
            [twin.value.estimate, twin.value.low, twin.value.high]
        )
        cells = shown["earned"].rows[place].cells
        assert cells[0].raw == pytest.approx(rolling.estimate)
        assert cells[1].raw == pytest.approx(twin.value.estimate)


def test_a_chart_before_the_twin_is_known_has_one_line() -> None:
    early = made_page(RATES, 40, spans=4, by_context=True)
    shown = figures(early, Numbers())[0]
    assert values(shown.drawings[0].svg).keys() == {"all arms, by context"}
    assert "One" not in shown.note


# What the command line says.


def test_show_has_a_line_on_it(page: BanditPage) -> None:
    text = " ".join(show_lines(page))
    twin = results(page).twin
    assert twin is not None
    assert twin.sentence in " ".join(text.split())
    assert "Difference +" in text or "Difference -" in text
    assert "intervals of the reward per decision if everybody got the arm" in text
    assert "by context" in text
    early = " ".join(show_lines(made_page(RATES, 40, spans=4, by_context=True)))
    assert "One arm for everybody, against choosing by context: not known yet" in early


def test_other_bandits_have_no_word_of_it() -> None:
    plain = made_page(RATES, 800, spans=4)
    assert "everybody" not in words(read(plain))
    assert "everybody" not in " ".join(show_lines(plain))


# Which bandits these are.


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[BanditStorage]:
    found: BanditStorage = MemoryBanditStorage()
    if request.param == "sqlite":
        found = SQLiteBanditStorage(tmp_path / "bandits.db")
    yield found
    found.close()


def of_offer(storage: BanditStorage, bandit: Bandit) -> BanditPage:
    """Return the page of a bandit ``offer`` in an app of its own."""
    app = make_app(MAB_STORAGE_ENGINE=storage)
    add_bandit(app, "offer", bandit)
    with app.app_context():
        listed = {each.report.name: each for each in read_pages(app_state(app))}
        found = read_page(app_state(app), "offer", most=None)
    assert listed["offer"].by_context == found.by_context
    assert listed["offer"].models is None
    return found


def thompson(**options: Any) -> Bandit:
    bandit = LinThompsonBandit(FEATURES, **options)
    for arm in ARMS:
        bandit.add_arm(arm)
    return bandit


def test_a_contextual_policy(storage: BanditStorage) -> None:
    write_log(storage, 900, 1)
    found = of_offer(storage, thompson())
    assert found.by_context
    assert found.results is not None
    assert found.results.twin is not None
    assert {each.probability for each in found.report.arms} == {None}
    assert found.models is not None
    assert found.report.visitors.startswith("each choice gives an arm by lin_thompson(")


def test_a_plain_policy_that_logs_contexts_compares_arms_as_ever(storage: BanditStorage) -> None:
    write_log(storage, 300, 1)
    found = of_offer(storage, make_bandit())
    assert not found.by_context
    assert found.results is not None
    assert found.results.twin is None
    assert found.models is not None


@pytest.mark.parametrize("model", [1, 0], ids=["deployed", "rolled back"])
def test_a_model_may_have_chosen_by_context(storage: BanditStorage, model: int) -> None:
    write_log(storage, 300, 1)
    history = ((1.0, "deploy 1 (by ann)"), (2.0, f"deploy {model} (by ann)"))
    storage.write_control("offer", Control(model=model, history=history).dump(), None)
    assert of_offer(storage, make_bandit()).by_context


def test_a_bandit_without_features_asks_for_no_models() -> None:
    asked = []

    class Asked(MemoryBanditStorage):
        def read_digest(self, key: Any, timeout: float | None = None) -> Any:
            asked.append(key.version)
            return super().read_digest(key, timeout)

    app = make_app(MAB_STORAGE_ENGINE=Asked())
    with app.app_context():
        assert read_page(app_state(app), "btn").models is None
    assert min(asked) > 0


def test_what_visitors_get_where_each_choice_is_made_anew() -> None:
    bandit, sticky = thompson(), make_bandit()
    assert what_visitors_see(Control(model=3), bandit) == "each choice gives an arm by model 3"
    assert what_visitors_see(Control(model=3), sticky) == (
        "new visitors get an arm by model 3, and the others keep theirs"
    )
    weighed = Control(weights={"trial": 0.0, "bundle": 2.0}, model=3)
    assert what_visitors_see(weighed, bandit) == (
        "each choice gives 'discount' or 'bundle' (weight 2) by model 3"
    )
    closed = Control(state=CLOSED)
    assert what_visitors_see(closed, bandit) == (
        "everybody gets 'trial', the control, and nothing is counted"
    )
    assert what_visitors_see(closed, sticky).startswith("visitors keep their arms")


def test_a_list_names_no_best_arm(storage: BanditStorage) -> None:
    write_log(storage, 300, 1)
    for bandit, has_best in ((thompson(), False), (make_bandit(), True)):
        summary = summarise(Stored.read({"offer": bandit}, storage), "offer")
        assert (summary.best is not None) is has_best


def test_hostile_names_are_text() -> None:
    page = made_page(dict.fromkeys(HOSTILE[:3], 0.4), 900, spans=4, by_context=True)
    twin = results(page).twin
    assert twin is not None
    assert twin.best in [tag.text for tag in read(page).found("bdi")]


def test_the_command_line_shows_it_as_text_and_as_json(storage: BanditStorage) -> None:
    write_log(storage, 900, 1)
    app = make_app(MAB_STORAGE_ENGINE=storage)
    add_bandit(app, "offer", thompson(context=dict))
    found = json.loads(app.test_cli_runner().invoke(show, ["offer", "--json"]).stdout)
    twin = found["results"]["twin"]
    assert twin["best"] in ARMS
    assert twin["difference"]["low"] < twin["difference"]["high"]
    assert found["results"]["series"][0]["rolling"]["method"] == "posterior"
    assert found["options"]["features"].keys() == FEATURES.keys()
    assert found["options"]["context"] == "dict"
    text = app.test_cli_runner().invoke(show, ["offer"]).output
    assert twin["sentence"] in " ".join(text.split())
    assert "features age country" in " ".join(text.split())
