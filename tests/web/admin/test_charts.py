"""The charts: well-formed SVG without style and script, and true to the values that they show."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bandit.analysis.results import ArmPoint, Interval, Point
from flask_bandit.web.admin import charts
from flask_bandit.web.admin.figures import Figure, entries, figures
from flask_bandit.web.admin.numbers import Numbers
from flask_bandit.web.admin.scales import decimals, extent, ticks, time_ticks
from flask_bandit.web.admin.tracks import MOST_ARMS, Line, Track, Value, signs, tracks
from flask_bandit.web.pages import BanditPage, Mark
from tests.web.admin.made import HOUR, START, made_page

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "</svg><script>alert(1)</script>",
    "=1+1",
    "\N{UNICORN FACE} & \"friends\" 'all'",
    "x" * 200,
    "\u05e9\u05dc\u05d5\u05dd\u202e",
    "null\0 bell\x07 \ud800",
)
ALLOWED = {"class", "d", "x", "y", "dx", "dy", "cx", "cy", "r", "transform"}


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def groups(svg: str, kind: str) -> list[ElementTree.Element]:
    return [
        group
        for group in parsed(svg).iter(f"{SVG}g")
        if group.get("class", "").split()[:1] == [kind]
    ]


def values(svg: str, kind: str = "line") -> dict[str, list[list[Any]]]:
    """Return what the chart says in its attributes: arm -> [start, end, value, low, high]."""
    return {
        group.attrib["data-arm"]: json.loads(group.attrib["data-values"])
        for group in groups(svg, kind)
        if "data-arm" in group.attrib
    }


def heights(svg: str) -> list[tuple[float, float]]:
    """Return the places of the horizontal guides, from the bottom up, with their values."""
    found = []
    for guide, label in zip(
        [p for g in groups(svg, "axis-y") for p in g.iter(f"{SVG}path")],
        [t for g in groups(svg, "axis-y") for t in g.iter(f"{SVG}text")],
        strict=True,
    ):
        y = float(re.findall(r"M[\d.]+ ([\d.]+)", guide.attrib["d"])[0])
        found.append((y, float((label.text or "").rstrip("%")) / 100))
    return found


def drawn(svg: str, group: ElementTree.Element) -> list[float]:
    """Return the values that a line is drawn at, by the guides."""
    (bottom, low), (top, high) = heights(svg)[0], heights(svg)[-1]
    numbers = [
        float(y)
        for path in group.iter(f"{SVG}path")
        for y in re.findall(r"-?[\d.]+ (-?[\d.]+)", path.attrib["d"])
    ]
    return [low + (y - bottom) / (top - bottom) * (high - low) for y in numbers]


def found_figures(page: BanditPage, locale: str = "en") -> dict[str, Figure]:
    return {figure.key: figure for figure in figures(page, Numbers(locale))}


@pytest.fixture(scope="module")
def page() -> BanditPage:
    return made_page({"green": 0.05, "red": 0.12}, 800, marks=[(6, "pause"), (7, "resume")])


def test_each_chart_says_the_values_of_the_series(page: BanditPage) -> None:
    assert page.results is not None
    shown = found_figures(page)
    single = {
        "traffic": (values(shown["traffic"].drawings[0].svg, "area"), "share"),
        "best": (values(shown["best"].drawings[0].svg), "p_best"),
        "probability": (values(shown["probability"].drawings[0].svg), "probability"),
    }
    for said, name in single.values():
        for arm in ("green", "red"):
            for point, (start, end, value, *_) in zip(page.results.series, said[arm], strict=True):
                truth = getattr(point.arms[arm], name)
                assert (start, end) == (point.start, point.end)
                assert value == (None if truth is None else pytest.approx(truth, rel=1e-8))
    for drawing in shown["rate"].drawings:
        assert drawing.track is not None
        for point, said_ in zip(
            page.results.series, values(drawing.svg)[drawing.track.name], strict=True
        ):
            rate = point.arms[drawing.track.name].rate
            truths = [None] * 3 if rate is None else [rate.estimate, rate.low, rate.high]
            assert said_[2:] == [None if t is None else pytest.approx(t, rel=1e-8) for t in truths]


def test_lines_are_drawn_where_the_values_are(page: BanditPage) -> None:
    svg = found_figures(page)["best"].drawings[0].svg
    for group in (each for each in groups(svg, "line") if "data-arm" in each.attrib):
        said = [v[2] for v in json.loads(group.attrib["data-values"]) if v[2] is not None]
        assert drawn(svg, group) == pytest.approx(said, abs=0.002)


def test_areas_lie_upon_each_other(page: BanditPage) -> None:
    svg = found_figures(page)["traffic"].drawings[0].svg
    lower, upper = (drawn(svg, group) for group in groups(svg, "area"))
    assert min(lower) == pytest.approx(0.0, abs=0.002)
    assert max(upper) == pytest.approx(1.0, abs=0.002)
    half = len(lower) // 2
    # The first half of an outline is its top, the other half is its floor, backwards.
    assert lower[:half] == pytest.approx(upper[half:][::-1], abs=0.002)


def test_the_table_has_what_the_chart_has(page: BanditPage) -> None:
    assert page.results is not None
    shown = found_figures(page)
    for key, kind in (("traffic", "area"), ("best", "line"), ("probability", "line")):
        figure = shown[key]
        said = values(figure.drawings[0].svg, kind)
        for row, point in zip(figure.rows, page.results.series, strict=True):
            assert (row.start, row.end, row.decisions) == (point.start, point.end, point.decisions)
        for place, track in enumerate(figure.tracks):
            raw = [row.cells[place].raw for row in figure.rows]
            assert raw == [
                None if v[2] is None else pytest.approx(v[2], rel=1e-8) for v in said[track.name]
            ]


def test_nothing_but_shapes_and_text_is_in_a_chart(page: BanditPage) -> None:
    for figure in found_figures(page).values():
        for drawing in figure.drawings:
            assert "<?xml" not in drawing.svg
            for node in parsed(drawing.svg).iter():
                assert node.tag.removeprefix(SVG) in {"svg", "g", "path", "circle", "text"}
                names = {name for name in node.attrib if not name.startswith("data-")}
                if node.tag == f"{SVG}svg":
                    assert names == {"class", "viewBox", "role", "aria-label"}
                    assert node.get("role") == "img"
                else:
                    assert names <= ALLOWED


def test_hostile_names_are_text(page: BanditPage) -> None:
    page = made_page(dict.fromkeys(HOSTILE, 0.1), 300, spans=6)
    for figure in found_figures(page).values():
        for drawing in figure.drawings:
            root = parsed(drawing.svg)
            assert not [node for node in root.iter() if "script" in node.tag]
            assert "<script" not in drawing.svg
    said = values(found_figures(page)["best"].drawings[0].svg)
    assert HOSTILE[0] in said
    assert "null\ufffd bell\ufffd \ufffd" in said


@pytest.mark.parametrize("locale", ["en", "de", "fr", "ar"])
def test_axes_are_written_in_the_readers_language(page: BanditPage, locale: str) -> None:
    svg = found_figures(page, locale)["traffic"].drawings[0].svg
    labels = [text.text for text in groups(svg, "axis-y")[0].iter(f"{SVG}text")]
    assert labels == [Numbers(locale).percent(at, 0) for at in (0, 0.25, 0.5, 0.75, 1)]


@pytest.mark.parametrize("spans", [1, 120])
@pytest.mark.parametrize("arms", [1, 12, 30])
def test_any_number_of_arms_and_spans(arms: int, spans: int) -> None:
    page = made_page({f"arm {n}": 0.05 for n in range(arms)}, 240, spans=spans)
    assert page.results is not None
    shown = found_figures(page)
    count = min(arms, MOST_ARMS)
    assert len(values(shown["traffic"].drawings[0].svg, "area")) == count
    assert len(shown["rate"].drawings) == count
    assert {len(figure.rows) for figure in shown.values()} == {len(page.results.series)}
    letters = [t.text for g in groups(shown["traffic"].drawings[0].svg, "letter") for t in g]
    assert len(set(letters)) == count


def test_no_letter_is_over_another() -> None:
    shown = found_figures(made_page({f"arm {n}": 0.05 for n in range(12)}, 240, spans=6))
    for key in ("traffic", "best", "probability"):
        svg = shown[key].drawings[0].svg
        places = sorted(
            float(t.attrib["y"]) for g in groups(svg, "letter") for t in g.iter(f"{SVG}text")
        )
        assert min(b - a for a, b in pairwise(places)) > 14


def test_the_arms_with_the_fewest_visitors_are_the_others() -> None:
    page = made_page({f"arm {n}": 0.01 * n for n in range(20)}, 600, spans=6)
    assert page.results is not None
    found = tracks(page)
    pulls = {each.arm: each.sums.pulls for each in page.report.arms}
    *named, others = found
    assert others.is_others
    assert len(others.arms) == 9
    assert min(pulls[t.name] for t in named) >= max(pulls[arm] for arm in others.arms)
    said = values(found_figures(page)["traffic"].drawings[0].svg, "area")
    for place, point in enumerate(page.results.series):
        assert sum(said[t.name][place][2] for t in found) == pytest.approx(1.0)
        truth = sum(point.arms[arm].share for arm in others.arms)
        assert said["others"][place][2] == pytest.approx(truth, rel=1e-8)


def test_an_arm_without_pulls_has_no_rate() -> None:
    page = made_page({"green": 0.1, "red": 0.1}, 200, spans=4)
    assert page.results is not None
    never = ArmPoint(0, 0, 0.0, 0.0, None, None, None)
    series = tuple(
        replace(point, arms={"green": replace(point.arms["green"], share=1.0), "red": never})
        for point in page.results.series
    )
    page = replace(page, results=replace(page.results, series=series))
    rates = found_figures(page)["rate"]
    assert {row.cells[1].text for row in rates.rows} == {"\N{EN DASH}"}
    assert values(found_figures(page)["best"].drawings[0].svg).keys() == {"green"}


def test_without_a_log_or_statistics_there_is_no_figure() -> None:
    assert figures(made_page({"green": 0.1, "red": 0.1}, 0), Numbers()) == ()
    assert figures(made_page({"green": 0.1, "red": 0.1}, 9, results=False), Numbers()) == ()


def test_marks_are_drawn_at_their_time(page: BanditPage) -> None:
    page = made_page(
        {"green": 0.1, "red": 0.1},
        200,
        marks=[
            (-5, "weights"),
            (6, "pause by ann"),
            (6.1, "resume by joe"),
            (25, "close"),
            (99, "x"),
        ],
    )
    for figure in found_figures(page).values():
        for drawing in figure.drawings:
            said = [g for g in groups(drawing.svg, "sign") if "data-at" in g.attrib]
            assert [g.attrib["data-entries"] for g in said] == ["2-3", "4"]
            assert [float(g.attrib["data-at"]) for g in said] == [
                START + 6 * HOUR,
                START + 25 * HOUR,
            ]
    assert [(e.number, e.where) for e in entries(page)] == [
        (1, "before"),
        (2, "in"),
        (3, "in"),
        (4, "in"),
        (5, "after"),
    ]


def test_an_older_versions_chart_ends_with_its_decisions() -> None:
    page = made_page({"green": 0.1}, 50, marks=[(25, "pause")], is_current=False)
    assert not groups(found_figures(page)["traffic"].drawings[0].svg, "sign")


def test_gaps_between_spans_are_gaps() -> None:
    frame = charts.Frame(0.0, 100.0, (), Numbers())
    track = Track(0, "A", "green", ("green",))
    line = Line(track, (Value(0, 10, 0.5), Value(10, 20, 0.6), Value(80, 90, 0.7)))
    svg = charts.line_chart(frame, "gist", [line])
    assert len(list(groups(svg, "line")[0].iter(f"{SVG}path"))) == 2


def test_a_rate_beyond_the_axis_is_cut_at_its_edge() -> None:
    frame = charts.Frame(0.0, 10.0, (), Numbers())
    line = Line(Track(0, "A", "a", ("a",)), (Value(0, 10, 0.9, 0.2, 1.0),))
    svg = charts.band_chart(frame, "gist", [line], (0.0, 0.5), lambda value: f"{100 * value:g}%")
    assert max(drawn(svg, groups(svg, "band")[0])) == pytest.approx(0.5, abs=0.002)
    assert values(svg)["a"] == [[0, 10, 0.9, 0.2, 1.0]]


def test_the_gist_tells_what_is_to_be_seen(page: BanditPage) -> None:
    label = parsed(found_figures(page)["traffic"].drawings[0].svg).attrib["aria-label"]
    assert label.startswith("Traffic share over time, until Nov 1")
    assert "green from " in label
    assert "red from " in label


def test_neighbouring_marks_are_one_mark() -> None:
    marks = [Mark(float(at), "x") for at in (10, 11, 12, 50, 90)]
    assert [sign.label for sign in signs(marks, 0.0, 100.0)] == ["1-3", "4", "5"]


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6))
def test_ticks_hold_the_values_between_them(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert found[0] <= low + 1e-6 * width
    assert found[-1] >= low + width * (1 - 1e-6)
    assert 2 <= len(found) <= 8


@given(st.integers(0, 2 * 10**9), st.floats(1, 1e9))
def test_times_of_ticks_are_round_and_few(start: int, length: float) -> None:
    found, step = time_ticks(start, start + length)
    assert len(found) <= 6
    assert all(start <= at <= start + length for at in found)
    assert all(math.isclose(at / step, round(at / step)) for at in found)


@pytest.mark.parametrize(
    ("axis", "places"),
    [((0, 0.05, 0.1), 0), ((0, 0.025, 0.05), 1), ((0, 0.0005), 2), ((0, 0.25, 0.5), 0)],
)
def test_an_axis_has_the_digits_that_it_needs(axis: tuple[float, ...], places: int) -> None:
    assert decimals(axis, 100.0) == places


def spans(*found: tuple[int, float, float]) -> Iterator[Point]:
    """Yield spans of one arm: visitors, and the ends of the interval."""
    for pulls, low, high in found:
        rate = Interval((low + high) / 2, low, high, 0.95, "posterior")
        yield Point(0, 1, pulls, {"a": ArmPoint(pulls, 0, 0.0, 1.0, rate, None, None)})


def test_a_span_with_few_visitors_does_not_stretch_the_axis(page: BanditPage) -> None:
    assert page.results is not None
    series = tuple(spans((1000, 0.1, 0.2), (3, 0.0, 0.9)))
    low, high = extent(replace(page.results, series=series, arms=()))
    assert (low, high) == (0.0, 0.2)
