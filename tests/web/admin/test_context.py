"""What a bandit's page and the list say, in every state that a bandit can be in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import flask_bandit.web.admin
from flask_bandit.analysis.results import Contrast, Interval, RatioCheck
from flask_bandit.web.admin.context import index_context
from flask_bandit.web.admin.leaders import leaderboard
from flask_bandit.web.admin.numbers import Numbers
from flask_bandit.web.admin.standalone import environment, standalone_report
from flask_bandit.web.pages import BanditPage
from flask_bandit.web.reports import HoldoutReport, Sums
from tests.web.admin.made import made_page
from tests.web.admin.reading import Html
from tests.web.admin.test_charts import HOSTILE

RATES = {"green": 0.05, "red": 0.12}
CSS = Path(flask_bandit.web.admin.__file__).parent / "static/bandit_admin/dashboard.css"


def read(page: BanditPage, locale: str | None = None) -> Html:
    html = Html(standalone_report(page, "shop", locale))
    assert html.problems() == []
    return html


def words(html: Html) -> str:
    return re.sub(r"\s+", " ", html.found("main")[0].text)


def changed(page: BanditPage, **results: Any) -> BanditPage:
    assert page.results is not None
    return replace(page, results=replace(page.results, **results))


def index(*pages: BanditPage) -> Html:
    template = environment().get_template("bandit_admin/_index.html")
    html = Html(
        template.render(
            bandit_url=lambda name: f"/b?name={name}", **index_context(pages, Numbers())
        )
    )
    assert html.problems() == []
    return html


@pytest.fixture(scope="module")
def page() -> BanditPage:
    return made_page(RATES, 600, spans=6, marks=[(3, "pause by ann")])


def test_the_verdict_comes_first(page: BanditPage) -> None:
    assert page.results is not None
    html = read(page)
    verdict = next(tag for tag in html.tags if "data-verdict" in tag.attributes)
    assert verdict.text.replace("\xa0", " ") == page.results.verdict.sentence
    headings = [tag.text for tag in html.tags if tag.name == "h2"]
    assert headings == [
        "Verdict",
        "Leaderboard",
        "Over time",
        "Reward gained over an equal split",
        "Health",
    ]


def test_the_leaderboard_has_the_numbers_of_the_report(page: BanditPage) -> None:
    html = read(page)
    rows = html.found("tr", data_arm="red") + html.found("tr", data_arm="green")
    assert len(rows) == 2
    found = {
        (name, float(tag.attributes["data-value"]))
        for name in ("pulls", "rewards", "mean")
        for tag in html.found("td", data_name=name)
    }
    assert found == {
        item
        for each in page.report.arms
        for item in (
            ("pulls", each.sums.pulls),
            ("rewards", each.sums.rewards),
            ("mean", each.sums.mean),
        )
    }


def test_bars_lie_on_one_axis(page: BanditPage) -> None:
    assert page.results is not None
    found = leaderboard(page, Numbers())
    means = {row.arm: row.mean for row in page.results.arms}
    low, high = (float(text.rstrip("%")) / 100 for _, text in (found.ticks[0], found.ticks[-1]))
    for row in found.rows:
        mean = means[row.report.arm]
        assert row.bar
        assert mean
        assert row.bar.low is not None
        assert row.bar.high is not None
        for place, truth in (
            (row.bar.low, mean.low),
            (row.bar.middle, mean.estimate),
            (row.bar.high, mean.high),
        ):
            assert low + place / 100 * (high - low) == pytest.approx(truth, abs=1e-4)
    control = next(row for row in found.rows if row.result and row.result.is_control)
    assert control.bar
    assert found.control == control.bar.middle


def test_an_arm_with_few_visitors_does_not_stretch_the_axis(page: BanditPage) -> None:
    assert page.results is not None
    one, other = page.results.arms
    wide = replace(other, mean=Interval(0.05, 0.001, 0.9, 0.95, "posterior"))
    found = leaderboard(changed(page, arms=(one, wide)), Numbers())
    near, far = found.rows[0].bar, found.rows[1].bar
    assert near
    assert far
    assert (near.goes_right, far.goes_right) == (False, True)
    assert not far.goes_left


def test_badges_say_in_words_who_leads(page: BanditPage) -> None:
    badges = {row.report.arm: row.badges for row in leaderboard(page, Numbers()).rows}
    assert badges["green"] == ("control",)
    assert badges["red"][0] in ("leader", "best")
    won = made_page(RATES, 300, spans=4, winner="green", state="declared")
    badges = {row.report.arm: row.badges for row in leaderboard(won, Numbers()).rows}
    assert badges == {"green": ("winner", "control"), "red": ()}


def test_an_arm_that_is_off_or_gone_says_so(page: BanditPage) -> None:
    green, red = page.report.arms
    arms = (replace(green, weight=None), replace(red, in_code=False, weight=1.0))
    off = replace(page, report=replace(page.report, arms=arms))
    badges = {row.report.arm: row.badges for row in leaderboard(off, Numbers()).rows}
    assert "off" in badges["green"]
    assert "not in the code" in badges["red"]


@pytest.mark.parametrize(
    ("method", "told"),
    [("sequence", "confidence sequence"), ("region", "joint confidence region")],
)
def test_the_gain_says_its_method(page: BanditPage, method: str, told: str) -> None:
    gained = Interval(34.25, -2.5, 71.0, 0.95, method)
    contrast = Contrast("red", "green", Interval(0.05, 0.01, 0.09, 0.95, method))
    html = read(changed(page, gained=gained, contrasts=(contrast,)))
    text = words(html)
    assert "+34.25 (95% confidence" in text
    assert ": -2.5 to +71)" in text
    assert told in text
    assert html.found("p", class_="gain")[0].attributes["data-value"] == "34.25"
    assert "+5.00%" in html.found("table", class_="contrasts")[0].text


def test_no_gain_says_why(page: BanditPage) -> None:
    html = read(
        changed(page, gained=None, why_no_gain="Not estimable: set min_propensity.", contrasts=())
    )
    assert "Not estimable: set min_propensity." in words(html)


def test_health_tells_a_mismatch_and_what_to_do(page: BanditPage) -> None:
    ratio = RatioCheck({"green": 300.0, "red": 300.0}, {"green": 400, "red": 200}, 66.0, 1, 1e-12)
    sick = changed(page, ratio=ratio)
    html = read(sick)
    alarm = html.found("li", class_="finding-alarm")[0].text
    assert "alarm" in alarm
    assert "do not trust the rates" in alarm
    assert "400" in alarm
    assert "alarm: arms not shown" in html_text(index(sick))
    assert html.found("li", class_="finding")[0].attributes["class"].endswith("alarm")


def html_text(html: Html) -> str:
    return re.sub(r"\s+", " ", html.found("ul", class_="bandits")[0].text)


def test_health_tells_what_was_left_out(page: BanditPage) -> None:
    green, red = page.report.arms
    arms = (replace(green, sums=replace(green.sums, late=7)), red)
    report = replace(page.report, arms=arms, not_counted={"bot": 1312, "prefetch": 1})
    full = replace(changed(page, unknown=12, missing=3), report=report, unread=250)
    text = words(read(full, "de"))
    for told in (
        "so that they bias nothing: 1.313.",
        "bots 1.312",
        "prefetch 1",
        "Decisions that are counted and not in the charts and tests yet: 250.",
        "as after an import: 12 of 600.",
        "Rewards that are counted in the leaderboard and not in the charts: 3.",
        "Late rewards",
        "green 7",
    ):
        assert told in text


def test_health_tells_of_outages(page: BanditPage) -> None:
    assert "Storage outages No visitor met one so far." in words(read(page))
    met = replace(page, report=replace(page.report, not_counted={"outage": 5}))
    assert "because the storage was down: 5." in words(read(met))


def test_the_holdout_and_other_goals_are_shown(page: BanditPage) -> None:
    green, red = page.report.arms
    goal = {"newsletter": Sums(green.sums.pulls, 5, 5.0, 0.25, 0)}
    held = HoldoutReport(Sums(100, 4, 4.0, 0.04, 0), goal, 0.09, 0.05)
    report = replace(page.report, arms=(replace(green, goals=goal), red), holdout=held)
    html = read(replace(page, report=report))
    text = words(html)
    assert "Visitors held out: 100, with 4.00% per decision. All others have 9.00%" in text
    assert "an absolute lift of +5.00%" in text
    goals = html.found("table", class_="goals")[0].text.split()
    assert goals.count("newsletter") == 2
    assert "holdout" in goals
    assert [tag.text for tag in html.found("strong", data_value="700")] == ["700"]


def test_hostile_names_are_text_everywhere() -> None:
    page = made_page(dict.fromkeys(HOSTILE, 0.1), 300, spans=4, name=HOSTILE[0])
    html = read(page)
    for name in HOSTILE[:5]:
        assert html.found("tr", data_arm=name)
        assert name in [tag.text for tag in html.found("bdi")]
    shown = index(page)
    assert shown.found("bdi")[0].text == HOSTILE[0]


def test_before_the_first_visitor_it_says_what_to_do() -> None:
    text = words(read(made_page(RATES, 0, name="it's")))
    assert "No visitors yet." in text
    assert '@choose_arm("it\'s", arg="arm")' in text
    assert "Over time" not in text


def test_before_the_first_reward_it_says_what_to_do() -> None:
    text = words(read(made_page({"green": 0.0, "red": 0.0}, 50, spans=4)))
    assert "@reward_endpt('btn', 1.0)" in text


def test_without_statistics_it_says_what_to_install() -> None:
    html = read(made_page(RATES, 100, results=False))
    assert "pip install 'Flask-Bandit[analysis]'" in words(html)
    assert len(html.found("td", data_name="mean")) == 2
    assert not html.found("figure")


def test_counts_without_a_log_say_why_there_is_no_chart(page: BanditPage) -> None:
    text = words(read(changed(page, series=())))
    assert "imported, or their details were pruned" in text


def test_an_older_version_says_that_nothing_can_be_done() -> None:
    page = made_page(RATES, 100, spans=4, is_current=False, version=1, versions=(1, 2))
    text = words(read(page))
    assert "version 1 of 2" in text
    assert "This is an older version" in text
    assert "Now" not in text.split()


def test_what_was_done_is_listed(page: BanditPage) -> None:
    html = read(page)
    assert "pause by ann" in html.found("li", value="1")[0].text
    for figure in html.found("figure"):
        assert "pause by ann" in figure.text


def test_each_figure_has_its_table_and_a_name(page: BanditPage) -> None:
    html = read(page)
    figures = html.found("figure")
    assert [f.attributes["data-figure"] for f in figures] == [
        "traffic",
        "best",
        "rate",
        "probability",
    ]
    assert len(html.found("details")) == len(figures)
    for svg in html.found("svg", class_="chart"):
        assert svg.attributes["role"] == "img"
        assert svg.attributes["aria-label"]


def test_the_list_has_each_bandit(page: BanditPage) -> None:
    html = index(
        page, made_page(RATES, 0, name="new"), made_page(RATES, 9, name="x", results=False)
    )
    text = html_text(html)
    assert [tag.attributes["href"] for tag in html.found("a")] == [
        "/b?name=btn",
        "/b?name=new",
        "/b?name=x",
    ]
    assert [tag.attributes["data-value"] for tag in html.found("span", data_name="visitors")] == [
        "600",
        "0",
        "9",
    ]
    assert "No visitors yet." in text
    assert "no alarm" in text
    bars = html.found("svg", class_="traffic")
    assert len(bars) == 2


def test_the_pieces_of_a_bar_are_the_whole(page: BanditPage) -> None:
    (row,) = index_context([page], Numbers())["rows"]
    assert sum(piece.length for piece in row.pieces) == pytest.approx(100.0, abs=0.05)
    assert [piece.track.name for piece in row.pieces] == ["green", "red"]
    assert row.largest[0].length >= row.largest[1].length


def test_an_empty_list_says_what_to_do() -> None:
    template = environment().get_template("bandit_admin/_index.html")
    assert "app.add_bandit" in template.render(**index_context([], Numbers()))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG has it, 1 to 21."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_told_from_the_ground(scheme: str) -> None:
    text = CSS.read_text()
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    block = light if scheme == "light" else dark.split("*, ")[0]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    surface = colours["surface"]
    # A letter on its colour is text; a line is not.
    for place in range(12):
        assert contrast(colours[f"c{place}"], surface) >= 4.0
    for name in ("text", "soft", "accent", "good", "note", "alarm"):
        assert contrast(colours[name], surface) >= 4.5
    for name in ("good", "note", "alarm"):
        assert contrast(colours[name], colours[f"{name}-back"]) >= 4.5


def test_all_rules_are_below_one_class() -> None:
    text = re.sub(r"/\*.*?\*/", "", CSS.read_text(), flags=re.DOTALL)
    selectors = re.findall(r"(?:^|[{}])\s*([^{}@;]+)\{", text)
    assert len(selectors) > 50
    assert [s for s in selectors if ".bandit-admin" not in s] == []
    assert "url(" not in text
    assert "@import" not in text
