"""Round values for the axes of charts, and round times. Pure; knows nothing of SVG."""

from __future__ import annotations

import math

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
    """Return round values from ``low`` to ``high``, both within them."""
    span = (high - low) / most
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10, 20) if power * nice >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * place for place in range(first, last + 1)]


def time_ticks(start: float, end: float) -> tuple[list[float], float]:
    """Return round times between two, and the seconds from one to the next."""
    step = next((step for step in _TIMES if (end - start) / step <= MOST_TICKS), _TIMES[-1])
    first = math.ceil(start / step)
    return [step * place for place in range(first, math.floor(end / step) + 1)][:20], step
