"""Round values for the axes of charts, and round times. Pure; knows nothing of SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...analysis.results import POSTERIOR, Results

MOST_TICKS = 5
_STEPS = (1, 2, 5, 10, 15, 30)
_TIMES = tuple(
    seconds * step
    for seconds, steps in (
        (1.0, _STEPS),
        (60.0, _STEPS),
        (3600.0, (1, 2, 3, 6, 12)),
        (86400.0, (1, 2, 5, 10, 20, 50, 100, 200)),
        (365.25 * 86400.0, (1, 2, 5, 10, 100)),
    )
    for step in steps
)


def ticks(low: float, high: float, most: int = MOST_TICKS) -> list[float]:
    """Return round values, the first at most ``low`` and the last at least ``high``."""
    span = (high - low) / most
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10, 20) if power * nice >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * place for place in range(first, last + 1)]


def decimals(axis: Sequence[float], factor: float) -> int:
    """Return how many digits behind the point tell the values of an axis apart.

    :param factor: that they are multiplied with when they are written
    """
    step = (axis[1] - axis[0]) * factor
    return next((places for places in range(6) if _is_whole(step * 10**places)), 6)


def _is_whole(value: float) -> bool:
    return value > 0.5 and abs(value - round(value)) < 1e-6 * value


def extent(results: Results) -> tuple[float, float]:
    """Return the least and the largest reward per decision that a chart should show.

    The means of all arms are within, and the intervals of the spans that had most of the visitors:
    that of a span with three visitors would make all others look alike.
    """
    means = [row.mean.estimate for row in results.arms if row.mean]
    lows, highs = [], []
    for point in results.series:
        for each in point.arms.values():
            if each.rate and each.rate.method == POSTERIOR:
                lows.append((each.rate.low, each.pulls))
                highs.append((-each.rate.high, each.pulls))
    low = min([0.0, _outermost(lows), *(1.5 * mean for mean in means)])
    high = max([0.0, -_outermost(highs), *(1.5 * mean for mean in means)])
    return (low, high) if high > low else (low, low + 1.0)


def earned_extent(results: Results) -> tuple[float, float]:
    """Return the least and the largest reward per decision of all arms together.

    As for :func:`extent`, with what one arm for everybody is worth.
    """
    found = [(point.rolling, point.decisions) for point in results.series if point.rolling]
    known = [(each, count) for each, count in found if each.method == POSTERIOR]
    estimates = [each.estimate for each, _ in found]
    if results.twin is not None:
        estimates += [results.twin.value.low, results.twin.value.high]
    low = min([0.0, _outermost([(each.low, count) for each, count in known]), *estimates])
    high = max([0.0, -_outermost([(-each.high, count) for each, count in known]), *estimates])
    return (low, high) if high > low else (low, low + 1.0)


def _outermost(values: list[tuple[float, int]]) -> float:
    """Return the least of weighted values, without those of a fifth of the weight."""
    left = 0.2 * sum(weight for _, weight in values)
    for value, weight in sorted(values):
        left -= weight
        if left <= 0:
            return value
    return 0.0


def time_ticks(start: float, end: float) -> tuple[list[float], float]:
    """Return round times between two, and the seconds from one to the next."""
    step = next((step for step in _TIMES if (end - start) / step <= MOST_TICKS), _TIMES[-1])
    first = math.ceil(start / step)
    return [step * place for place in range(first, math.floor(end / step) + 1)][:20], step
