"""Numbers and times in the reader's language."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import LanguageAccept

from flask_bandit.web.admin.numbers import NONE, Numbers

AT = 1_700_000_000.0
"""2023-11-14, 22:13:20 in UTC."""


def plain(text: str) -> str:
    """Return a text with plain blanks and without marks of direction."""
    blanks = str.maketrans({"\xa0": " ", "\u202f": " ", "\u200e": None, "\u200f": None})
    return text.translate(blanks)


@pytest.mark.parametrize(
    ("locale", "count", "percent", "number", "signed"),
    [
        ("en", "1,234,567", "5.2%", "3.142", "-1,234"),
        ("de", "1.234.567", "5,2 %", "3,142", "-1.234"),
        ("fr", "1 234 567", "5,2 %", "3,142", "-1 234"),
        ("ar", "1,234,567", "5.2%", "3.142", "-1,234"),
        ("hi", "12,34,567", "5.2%", "3.142", "-1,234"),
        ("tr", "1.234.567", "%5,2", "3,142", "-1.234"),
    ],
)
def test_numbers_follow_the_language(
    locale: str, count: str, percent: str, number: str, signed: str
) -> None:
    numbers = Numbers(locale)
    assert plain(numbers.count(1234567)) == count
    assert plain(numbers.percent(0.0523)) == percent
    assert plain(numbers.number(3.14159)) == number
    assert plain(numbers.signed(-1234.0)) == signed


def test_times_are_in_utc_and_follow_the_language() -> None:
    assert plain(Numbers("en").moment(AT)) == "Nov 14, 2023, 10:13:20 PM UTC"
    assert plain(Numbers("de").moment(AT)) == "14.11.2023, 22:13:20 UTC"


@pytest.mark.parametrize(
    ("at", "step", "text"),
    [
        (AT, 1.0, "22:13:20"),
        (AT, 60.0, "22:13"),
        (AT - AT % 86400, 3600.0, "Nov 14"),
        (AT, 86400.0, "Nov 14"),
        (AT, 366 * 86400.0, "Nov 2023"),
    ],
)
def test_a_tick_says_what_the_step_needs(at: float, step: float, text: str) -> None:
    assert Numbers().tick(at, step) == text


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        ([("de-CH", 1.0), ("en", 0.5)], "de_CH"),
        ([("en", 0.5), ("fr", 0.9)], "fr"),
        ([("xx", 1.0), ("pt-BR", 0.1)], "pt_BR"),
        ([("*", 1.0)], "en"),
        ([("../../etc/passwd", 1.0)], "en"),
        ([], "en"),
    ],
)
def test_the_best_known_language_is_taken(header: list[tuple[str, float]], locale: str) -> None:
    assert str(Numbers.best_of(LanguageAccept(header)).locale) == locale


@pytest.mark.parametrize("locale", ["", "xx", "en_" + "x" * 500, "de;drop", "\0", "_", "-"])
def test_an_unknown_language_is_english_or_its_parent(locale: str) -> None:
    assert Numbers(locale).locale.language in ("en", "de")


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_known_is_a_dash(value: float | None) -> None:
    numbers = Numbers()
    for write in (
        numbers.count,
        numbers.number,
        numbers.signed,
        numbers.percent,
        numbers.signed_percent,
        numbers.chance,
        numbers.moment,
    ):
        assert write(value) == NONE


def test_a_probability_is_never_written_as_more_certain_than_it_is() -> None:
    numbers = Numbers()
    assert numbers.chance(0.99999) == "> 99.9%"
    assert numbers.chance(0.9969) == "99.6%"
    assert numbers.chance(0.00001) == "< 0.1%"
    assert (numbers.chance(0.0), numbers.chance(1.0)) == ("< 0.1%", "> 99.9%")


def test_signs_are_said_and_zero_has_none() -> None:
    numbers = Numbers()
    assert numbers.signed(2.5) == "+2.5"
    assert numbers.signed_percent(-0.0123) == "-1.23%"
    assert numbers.signed(0.0) == "0"


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(["en", "de", "ar", "eu"]))
def test_any_number_can_be_written(value: float, locale: str) -> None:
    numbers = Numbers(locale)
    for write in (
        numbers.count,
        numbers.number,
        numbers.signed,
        numbers.percent,
        numbers.chance,
        numbers.moment,
    ):
        assert write(value)


@given(st.floats(1e-9, 1e14))
def test_four_digits_of_a_number_are_right(value: float) -> None:
    """Any number that is not written as a power of 10 reads back to within 1/1000 of itself."""
    written = float(Numbers("en").number(value).replace(",", ""))
    assert written == pytest.approx(value, rel=1e-3)
