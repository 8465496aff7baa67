"""The charts, as SVG that a page holds in itself: no style, no script, no id, colours by class.

The one module that imports pygal; must not import Flask. Arms are named by letters in it, so that
no name of an arm can spoil a chart; the page says which letter is whose.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pygal
from pygal.style import Style

from .scales import time_ticks
from .tracks import Line, Sign, Value

if TYPE_CHECKING:
    from .numbers import Numbers

# pygal leaves a finder of modules behind that has no find_spec(), so that from then on Python 3.10
# and 3.11 warn at each import of something that is not there.
sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, pygal.PluginImportFixer)]

WIDTH, HEIGHT = 640, 300
PANEL_HEIGHT = 360
"""Of a chart that is shown at half the width of the others."""
_WHOLE = (0.0, 0.25, 0.5, 0.75, 1.0)
FEW = 40
"""Points of a line that are few enough to be shown each."""
_STYLE = Style(value_font_size=0, label_font_size=20)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold."""
_DECIMALS = re.compile(r"(\.\d)\d+")
_SVG = "{http://www.w3.org/2000/svg}"
_SHIFTS = {"sign": {"dy": "-8"}, "letter": {"dx": "4", "dy": "0.35em"}}
"""Where a label is written, from the point that it belongs to."""
_KEPT = ("d", "x", "y", "cx", "cy", "r", "transform")

ElementTree.register_namespace("", _SVG[1:-1])

Coordinates = list[tuple[float, float | None]]


@dataclass(frozen=True)
class Frame:
    """What all charts of a page have in common.

    :param start: of the axis of time, seconds since the epoch
    :param signs: what was done to the bandit
    """

    start: float
    end: float
    signs: tuple[Sign, ...]
    numbers: Numbers


@dataclass
class _Shape:
    """One thing that is drawn."""

    style: str
    points: Coordinates
    data: dict[str, str] = field(default_factory=dict)
    label: str = ""
    has_dots: bool = False


def stack_chart(frame: Frame, gist: str, lines: Sequence[Line]) -> str:
    """Draw shares of a whole above each other, as areas.

    :param gist: what the chart says, for those who do not see it
    """
    shapes, floors = [], [0.0] * len(lines[0].values)
    labels = []
    for line in lines:
        tops = [floor + (v.value or 0.0) for floor, v in zip(floors, line.values, strict=True)]
        outline = _outline(frame, line.values, floors, tops)
        shapes.append(_Shape(f"area c{line.track.place}", outline, _data(line)))
        labels.append((line, (floors[-1] + tops[-1]) / 2))
        floors = tops
    shapes += _labels(frame, labels)
    return _draw(frame, gist, shapes, _WHOLE, lambda value: frame.numbers.percent(value, 0))


def line_chart(frame: Frame, gist: str, lines: Sequence[Line], *, at_ends: bool = False) -> str:
    """Draw a line from 0 to 100 % for each track.

    :param at_ends: values hold at the ends of their spans, else all through them
    """
    shapes, labels = [], []
    for line in lines:
        points = _ends(frame, line.values) if at_ends else _steps(frame, line.values)
        known = [value.value for value in line.values if value.value is not None]
        if not known:
            continue
        has_dots = at_ends and len(line.values) <= FEW
        style = f"line c{line.track.place}"
        shapes.append(_Shape(style, points, _data(line), has_dots=has_dots))
        labels.append((line, known[-1]))
    shapes += _labels(frame, labels)
    return _draw(frame, gist, shapes, _WHOLE, lambda value: frame.numbers.percent(value, 0))


def band_chart(
    frame: Frame,
    gist: str,
    lines: Sequence[Line],
    axis: Sequence[float],
    write: Callable[[float], str],
    *,
    height: int = PANEL_HEIGHT,
) -> str:
    """Draw lines and their intervals; what does not fit is cut at the edge.

    :param axis: the values at the ticks, which charts have in common to be compared
    :param write: makes a value's text
    """
    shapes, labels = [], []
    for line in lines:
        band = _cut(_band(frame, line.values), axis[0], axis[-1])
        shapes.append(_Shape(f"band c{line.track.place}", band))
    for line in lines:
        style = f"line c{line.track.place}"
        shapes.append(
            _Shape(style, _cut(_steps(frame, line.values), axis[0], axis[-1]), _data(line))
        )
        known = [value.value for value in line.values if value.value is not None]
        if len(lines) > 1 and known:
            labels.append((line, known[-1]))
    shapes += _labels(frame, labels, axis[0], axis[-1])
    return _draw(frame, gist, shapes, axis, write, height=height)


def _draw(
    frame: Frame,
    gist: str,
    shapes: Sequence[_Shape],
    axis: Sequence[float],
    write: Callable[[float], str],
    height: int = HEIGHT,
) -> str:
    """Return the SVG of shapes in a frame.

    :param axis: the values at the ticks
    """
    # One point, of which nothing is seen: pygal draws no axes where nothing is known.
    corner = _Shape("corner", [(frame.start, axis[0])])
    shapes = [corner, *_sign_shapes(frame.signs, axis[0], axis[-1]), *shapes]
    shapes = [shape for shape in shapes if shape.points]
    times, step = time_ticks(frame.start, frame.end)
    chart = pygal.XY(
        width=WIDTH,
        height=height,
        margin_left=0,
        margin_right=44,
        margin_top=28,
        margin_bottom=0,
        spacing=0,
        range=(axis[0], axis[-1]),
        xrange=(frame.start, frame.end),
        x_labels=times or [frame.start],
        y_labels=list(axis),
        x_value_formatter=lambda at: frame.numbers.tick(at, step),
        value_formatter=write,
        show_legend=False,
        print_labels=True,
        allow_interruptions=True,
        truncate_label=-1,
        style=_STYLE,
        js=[],
        css=[],
    )
    for shape in shapes:
        *most, last = shape.points
        chart.add(
            None,
            [*most, {"value": last, "label": shape.label}],
            # A label is drawn with its dot.
            show_dots=shape.has_dots or bool(shape.label),
        )
    svg = ElementTree.fromstring(chart.render(is_unicode=True))
    return ElementTree.tostring(_clean(svg, gist, shapes, height), encoding="unicode")


def _sign_shapes(signs: Iterable[Sign], low: float, high: float) -> Iterator[_Shape]:
    for sign in signs:
        data = {"data-at": repr(sign.at), "data-entries": sign.label}
        yield _Shape("sign", [(sign.at, low), (sign.at, high)], data, sign.label)


def _labels(
    frame: Frame, labels: Sequence[tuple[Line, float]], low: float = 0.0, high: float = 1.0
) -> Iterator[_Shape]:
    """Put each track's letter beside the end of its line, and none over another.

    :param low: the axis's least value
    """
    gap = 0.07 * (high - low)
    ordered = sorted(labels, key=lambda label: label[1])
    places: list[float] = []
    for _, value in ordered:
        places.append(max(value, places[-1] + gap) if places else value)
    ceiling = high
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    beside = frame.end + 0.03 * (frame.end - frame.start)
    for (line, value), place in zip(ordered, places, strict=True):
        colour = f"c{line.track.place}"
        if abs(place - value) > gap / 4:
            yield _Shape(f"lead {colour}", [(frame.end, value), (beside, place)])
        yield _Shape(f"letter {colour}", [(beside, place)], label=line.track.letter)


def _runs(values: Sequence[Value]) -> Iterator[list[int]]:
    """Yield the places of spans that follow each other without a gap and have a value."""
    run: list[int] = []
    for place, value in enumerate(values):
        if run and (value.value is None or value.start > values[run[-1]].end + 1e-6):
            yield run
            run = []
        if value.value is not None:
            run.append(place)
    if run:
        yield run


def _outline(
    frame: Frame, values: Sequence[Value], floors: Sequence[float], tops: Sequence[float]
) -> Coordinates:
    """Return the outlines of areas between two levels, one for each run of spans."""
    points: Coordinates = []
    for run in _runs(values):
        edges = [(place, _edges(frame, values[place])) for place in run]
        points += [(at, tops[place]) for place, two in edges for at in two]
        points += [(at, floors[place]) for place, two in edges[::-1] for at in two[::-1]]
        points.append((points[-1][0], None))
    return points


def _band(frame: Frame, values: Sequence[Value]) -> Coordinates:
    known = [value for value in values if value.low is not None]
    lows = [value.low or 0.0 for value in known]
    highs = [value.high or 0.0 for value in known]
    return _outline(frame, known, lows, highs)


def _steps(frame: Frame, values: Sequence[Value]) -> Coordinates:
    points: Coordinates = []
    for run in _runs(values):
        for value in (values[place] for place in run):
            points += [(at, value.value) for at in _edges(frame, value)]
        points.append((points[-1][0], None))
    return points


def _ends(frame: Frame, values: Sequence[Value]) -> Coordinates:
    return [(min(value.end, frame.end), value.value) for value in values]


def _cut(points: Coordinates, low: float, high: float) -> Coordinates:
    return [(at, None if y is None else min(max(y, low), high)) for at, y in points]


def _edges(frame: Frame, value: Value) -> tuple[float, float]:
    return value.start, max(value.start, min(value.end, frame.end))


def _data(line: Line) -> dict[str, str]:
    """Return a line's arm and values as attributes, for programs that read the chart."""
    values = [
        [value.start, value.end, *map(_short, (value.value, value.low, value.high))]
        for value in line.values
    ]
    return {
        "data-arm": _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", line.track.name),
        "data-values": json.dumps(values, separators=(",", ":")),
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.9g}")


def _clean(
    svg: ElementTree.Element, gist: str, shapes: Sequence[_Shape], height: int
) -> ElementTree.Element:
    """Return what is to be seen of pygal's SVG, with this page's classes."""
    root = ElementTree.Element(
        f"{_SVG}svg",
        {
            "class": "chart",
            "viewBox": f"0 0 {WIDTH} {height}",
            "role": "img",
            "aria-label": _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", gist),
        },
    )
    for plot in svg.iter(f"{_SVG}g"):
        kind = plot.get("class", "").split()
        if kind[:1] == ["plot"] and kind[-1] != "tooltip-overlay":
            group = ElementTree.SubElement(root, f"{_SVG}g", _attributes(plot))
            for child in plot.findall(f"{_SVG}g"):
                _copy(child, group, shapes)
    return root


def _copy(node: ElementTree.Element, into: ElementTree.Element, shapes: Sequence[_Shape]) -> None:
    """Copy an axis or a series."""
    kind = node.get("class", "").split()
    shape = shapes[int(kind[1].removeprefix("serie-"))] if kind[0] == "series" else None
    style = f"axis-{kind[1]}" if shape is None else shape.style
    drawn = list(_drawn(node, shape))
    if drawn:
        group = ElementTree.SubElement(into, f"{_SVG}g", {"class": style})
        if shape is not None:
            group.attrib.update(shape.data)
            # Its dots and its label follow, in groups of their own.
            shape.data = {}
        for each in drawn:
            copy = ElementTree.SubElement(group, each.tag, _attributes(each))
            if each.tag == f"{_SVG}text":
                copy.text = each.text
                copy.attrib.update(_SHIFTS.get(style.partition(" ")[0], {}))


def _drawn(node: ElementTree.Element, shape: _Shape | None) -> Iterator[ElementTree.Element]:
    for each in node.iter():
        is_dot = each.tag == f"{_SVG}circle"
        if (is_dot and shape and shape.has_dots) or each.tag in (f"{_SVG}path", f"{_SVG}text"):
            yield each


def _attributes(node: ElementTree.Element) -> dict[str, str]:
    return {name: _DECIMALS.sub(r"\1", node.attrib[name]) for name in _KEPT if name in node.attrib}
