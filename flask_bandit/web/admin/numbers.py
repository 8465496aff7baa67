"""Numbers and times as the visitor's language writes them.

The one module that imports Babel; must not import Flask. Times are in UTC, so that two readers of
one page mean the same moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timezone

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_skeleton
from babel.numbers import (
    format_decimal,
    format_scientific,
    get_minus_sign_symbol,
    get_plus_sign_symbol,
)

NONE = "\N{EN DASH}"
"""Stands for a value that is not known."""
_DAY = 86400.0
_HUGE, _MOST_PLACES = 1e15, 12
"""From there on numbers are written as powers of 10."""
_FIRST, _LAST = -62135596800.0, 253402300799.0
"""The seconds that a calendar can write, from the year 1 to 9999."""


class Numbers:
    """Writes numbers for one language.

    :param locale: such as ``de`` or ``pt_BR``; English if it is left out or not known
    """

    def __init__(self, locale: str | None = None) -> None:
        self.locale = _parse(locale or "") or Locale("en")
        whole = self.locale.decimal_formats[None].pattern.partition(";")[0].partition(".")[0]
        self._whole, self._decimals = whole, f"{whole}.{'#' * _MOST_PLACES}"
        self._percent = self.locale.percent_formats[None].pattern.partition(";")[0]

    @classmethod
    def best_of(cls, languages: Iterable[object]) -> Numbers:
        """Write for the first language of a list that is known.

        :param languages: names, or (name, quality) as ``request.accept_languages`` has them
        """
        for language in languages:
            name = str(language[0] if isinstance(language, tuple) else language)
            if _parse(name) is not None:
                return cls(name)
        return cls()

    @property
    def tag(self) -> str:
        """The language's name in HTML, such as ``pt-BR``."""
        return str(self.locale).replace("_", "-")

    def count(self, value: float | None) -> str:
        """Return a whole number, in groups of digits."""
        return self._decimal(value, self._whole)

    def number(self, value: float | None, digits: int = 4) -> str:
        """Return a number with so many significant digits, whole ones with all of theirs."""
        if value is None or not math.isfinite(value):
            return NONE
        return self._decimal(value, self._decimals, _places(value, digits))

    def signed(self, value: float | None, digits: int = 4) -> str:
        """Return a difference, with its sign."""
        return self._with_sign(value, self.number(None if value is None else abs(value), digits))

    def percent(self, value: float | None, places: int = 1) -> str:
        """Return a share of 1 in percent, with so many digits behind the point."""
        pattern = self._percent.replace("##0", "##0." + "0" * places) if places else self._percent
        return self._decimal(value, pattern)

    def signed_percent(self, value: float | None, places: int = 2) -> str:
        """Return a difference of two shares in percent, with its sign."""
        return self._with_sign(value, self.percent(None if value is None else abs(value), places))

    def chance(self, value: float | None) -> str:
        """Return a posterior probability in percent: it is never quite 0 or 100."""
        if value is None or not math.isfinite(value):
            return NONE
        if value < 0.001:
            return f"< {self.percent(0.001)}"
        if value > 0.999:
            return f"> {self.percent(0.999)}"
        # Cut rather than rounded up, as in the verdict's sentence.
        return self.percent(math.floor(1000.0 * value) / 1000.0 if value >= 0.995 else value)

    def moment(self, at: float | None) -> str:
        """Return the date and the time of seconds since the epoch."""
        date = _date(at)
        if date is None:
            return NONE
        return f"{format_datetime(date, 'medium', locale=self.locale)} UTC"

    def day(self, at: float | None) -> str:
        """Return the date of seconds since the epoch."""
        date = _date(at)
        return NONE if date is None else format_date(date, "medium", locale=self.locale)

    def tick(self, at: float, step: float) -> str:
        """Return a time for an axis.

        :param step: seconds between two of its ticks, which tell what is needed of date and time
        """
        date = _date(at)
        if date is None:
            return NONE
        if step >= 365 * _DAY:
            skeleton = "yMMM"
        elif step >= _DAY or at % _DAY == 0:
            skeleton = "MMMd"
        else:
            skeleton = "Hm" if step >= 60 else "Hms"
        return format_skeleton(skeleton, date, locale=self.locale)

    def _with_sign(self, value: float | None, text: str) -> str:
        if value is None or not math.isfinite(value) or value == 0:
            return text
        sign = get_minus_sign_symbol if value < 0 else get_plus_sign_symbol
        return sign(self.locale) + text

    def _decimal(self, value: float | None, pattern: str, places: int | None = None) -> str:
        if value is None or not math.isfinite(value):
            return NONE
        if abs(value) >= _HUGE or (places == _MOST_PLACES and value):
            return format_scientific(value, "0.###E0", locale=self.locale)
        value = value if places is None else round(value, places)
        return format_decimal(value, format=pattern, locale=self.locale)


def _parse(name: str) -> Locale | None:
    """Return a locale that Babel has data of, or its language alone; ``None`` for others."""
    plain = name.replace("-", "_")
    for wanted in (plain, plain.partition("_")[0]):
        try:
            return Locale.parse(wanted)
        except (UnknownLocaleError, ValueError, TypeError):
            continue
    return None


def _places(value: float, digits: int) -> int:
    """Return how many digits behind the point make so many significant ones."""
    if value == 0:
        return 0
    return max(0, min(_MOST_PLACES, digits - 1 - math.floor(math.log10(abs(value)))))


def _date(at: float | None) -> datetime | None:
    if at is None or not _FIRST <= at <= _LAST:
        return None
    return datetime.fromtimestamp(at, timezone.utc)
