"""Features: what each form makes of a value, what is logged, and what is told to be wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_bandit.errors import ConfigurationError
from flask_bandit.features import MAX_NUMBER, MAX_TEXT, MAX_TEXTS, Features

SPEC: Mapping[str, Any] = {
    "visits": "numeric",
    "age": {"low": 0, "high": 120, "pivot": 40},
    "country": ["fr", "de"],
    "query": {"hashed": 8},
    "ink": {"scale": 16, "indicator": False},
}
FEATURES = Features.parse(SPEC)


class Country(str, Enum):
    """A text with a name, as apps have them."""

    GERMANY = "de"


def encoded(spec: Any, value: Any) -> list[float]:
    return [float(x) for x in Features.parse({"x": spec}).encode({"x": value})]


# Columns


def test_columns_by_name() -> None:
    assert FEATURES.names == ("age", "country", "ink", "query", "visits")
    assert FEATURES.labels == (
        "age",
        "age missing",
        "country=de",
        "country=fr",
        "country other",
        "ink",
        *(f"query #{n}" for n in range(8)),
        "visits",
        "visits missing",
    )
    assert FEATURES.dimension == 16
    measured = [
        label for label, is_so in zip(FEATURES.labels, FEATURES.numeric, strict=True) if is_so
    ]
    assert measured == ["age", "visits"]


def test_each_value_is_in_its_column() -> None:
    context = {"age": 43, "country": "fr", "ink": 8, "visits": 5}
    vector = dict(zip(FEATURES.labels, FEATURES.encode(context), strict=True))
    assert {label: x for label, x in vector.items() if x} == {
        "age": 3.0,
        "country=fr": 1.0,
        "ink": 0.5,
        "visits": 5.0,
    }


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        ("numeric", 3, [3.0, 0.0]),
        ("numeric", True, [1.0, 0.0]),
        ("numeric", 1e12, [1e12, 0.0]),
        ("numeric", None, [0.0, 1.0]),
        ("numeric", math.nan, [0.0, 1.0]),
        ("numeric", math.inf, [0.0, 1.0]),
        ("numeric", 10**400, [0.0, 1.0]),
        ("numeric", 2 * MAX_NUMBER, [0.0, 1.0]),
        ("numeric", "text", [0.0, 1.0]),
        ("numeric", [1, 2], [0.0, 1.0]),
        ("numeric", {"a": 1}, [0.0, 1.0]),
        ({"indicator": False}, 3, [3.0]),
        ({"indicator": False}, None, [0.0]),
        ({"low": 0, "high": 120}, None, [0.0, 1.0]),
        ({"low": 0, "high": 120}, 70, [10.0, 0.0]),
        ({"low": 0, "high": 120, "pivot": 40}, 500, [80.0, 0.0]),
        ({"low": 0, "high": 120, "pivot": 40}, -500, [-40.0, 0.0]),
        ({"low": 1000}, 900, [0.0, 0.0]),
        ({"low": 1000}, 1500, [500.0, 0.0]),
        ({"high": -5}, 0, [0.0, 0.0]),
        ({"pivot": 10, "scale": 4}, 30, [5.0, 0.0]),
        (["de", "fr"], "de", [1.0, 0.0, 0.0]),
        (["de", "fr"], Country.GERMANY, [1.0, 0.0, 0.0]),
        (["de", "fr"], "it", [0.0, 0.0, 1.0]),
        (["de", "fr"], "", [0.0, 0.0, 1.0]),
        (["de", "fr"], 7, [0.0, 0.0, 1.0]),
        (["de", "fr"], ["de"], [0.0, 0.0, 1.0]),
        (["de", "fr"], None, [0.0, 0.0, 0.0]),
        ({"hashed": 3}, None, [0.0, 0.0, 0.0]),
        ({"hashed": 3}, "", [0.0, 0.0, 0.0]),
        ({"hashed": 3}, [], [0.0, 0.0, 0.0]),
        ({"hashed": 3}, 7, [0.0, 0.0, 0.0]),
    ],
    ids=repr,
)  # fmt: skip
def test_the_vector_of_a_value(spec: Any, value: Any, expected: list[float]) -> None:
    assert encoded(spec, value) == expected


def test_one_value_of_a_wrong_type_does_no_harm_to_the_others() -> None:
    features = Features.parse({"a": "numeric", "b": "numeric"})
    assert features.encode({"a": {}, "b": 2.0, "gone": 7}).tolist() == [0.0, 1.0, 2.0, 0.0]
    assert features.encode(None).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_words_are_hashed_with_a_sign() -> None:
    """What a hash is must never change: stored sums are kept by it."""
    green, shoes = np.zeros(16), np.zeros(16)
    green[11], shoes[15] = -1.0, 1.0
    assert encoded({"hashed": 16}, "green") == green.tolist()
    assert encoded({"hashed": 16}, "shoes") == shoes.tolist()
    both = (green + shoes) / math.sqrt(2)
    np.testing.assert_allclose(encoded({"hashed": 16}, "Green, SHOES!"), both)
    np.testing.assert_allclose(encoded({"hashed": 16}, ["green", "shoes"]), both)
    assert encoded({"hashed": 16}, ["Green"]) != green.tolist()
    assert encoded({"hashed": 64}, ["green shoes"]) != encoded({"hashed": 64}, "green shoes")


def test_hashing_keeps_lengths_on_the_average() -> None:
    """Signs and columns of 400 words: were they all of one sign, the sum would be 400."""
    columns = np.array([encoded({"hashed": 8}, f"word{n}") for n in range(400)])
    np.testing.assert_array_equal((columns**2).sum(axis=1), 1.0)
    assert abs(columns.sum()) < 80
    assert (columns**2).sum(axis=0).min() > 25


# Specs


def test_a_spec_is_read_again_as_an_equal_object() -> None:
    again = Features.parse(json.loads(json.dumps(FEATURES.spec(), allow_nan=False)))
    assert again == FEATURES
    assert hash(again) == hash(FEATURES)
    assert again.schema == FEATURES.schema
    assert Features.parse(FEATURES) is FEATURES


def test_how_a_spec_is_written_does_not_matter() -> None:
    one = {"a": "numeric", "b": ("de", "fr"), "c": {"low": 0, "high": 2}}
    two = {"c": {"high": 2.0, "low": -0.0, "pivot": 1}, "b": ["fr", "de"], "a": {"pivot": 0}}
    assert Features.parse(one) == Features.parse(two)
    assert Features.parse(one).schema == Features.parse(two).schema


def test_what_a_spec_means_makes_its_schema() -> None:
    others: list[Mapping[str, Any]] = [
        {"x": "numeric"},
        {"y": "numeric"},
        {"x": "numeric", "y": "numeric"},
        {"x": {"indicator": False}},
        {"x": {"pivot": 1}},
        {"x": {"low": 0}},
        {"x": {"high": 0}},
        {"x": {"scale": 1}},
        {"x": {"hashed": 2}},
        {"x": {"hashed": 3}},
        {"x": ["a", "b"]},
        {"x": ["a", "c"]},
    ]
    parsed = [Features.parse(spec) for spec in others]
    assert len({features.schema for features in parsed}) == len(others)
    assert all(one == two for one in parsed for two in parsed if one is two)
    assert not any(one == two for one in parsed for two in parsed if one is not two)
    assert all(len(features.schema) == 12 for features in parsed)


def test_the_schema_stays_from_release_to_release() -> None:
    """Learned sums are found by it."""
    assert FEATURES.schema == "946cc1081a4c"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "features is {}; write a table"),
        (None, "features is None; write a table"),
        (["age"], "write a table such as {'age': 'numeric'"),
        ({"": "numeric"}, "'' cannot be a feature's name"),
        ({"a\n": "numeric"}, "cannot be a feature's name"),
        ({"a" * 101: "numeric"}, "text of 1 to 100 characters"),
        ({7: "numeric"}, "7 cannot be a feature's name"),
        ({"x": "number"}, "the feature 'x' is 'number'; write 'numeric', a table"),
        ({"x": 7}, "the feature 'x' is 7; write 'numeric'"),
        ({"x": None}, "the feature 'x' is None; write 'numeric'"),
        ({"x": {"lo": 0}}, "has 'lo'; a number has low, high, pivot, scale, indicator, and a text"),
        ({"x": {"low": "0"}}, "low of the feature 'x' is '0'; write a number"),
        ({"x": {"low": True}}, "low of the feature 'x' is True; write a number"),
        ({"x": {"low": math.nan}}, "low of the feature 'x' is nan; write a number"),
        ({"x": {"high": 1e99}}, "high of the feature 'x' is 1e\\+99; write a number"),
        ({"x": {"low": 10**400}}, "write a number"),
        ({"x": {"low": 5, "high": 5}}, "is from 5 to 5; write a low that is below its high"),
        ({"x": {"low": 5, "high": 9, "pivot": 4}}, "has the pivot 4; write a usual value of it"),
        ({"x": {"pivot": math.inf}}, "has the pivot inf; write a usual value"),
        ({"x": {"scale": 0}}, "has the scale 0; write what a usual difference"),
        ({"x": {"scale": -1}}, "has the scale -1; write what a usual difference"),
        ({"x": {"scale": math.inf}}, "has the scale inf"),
        ({"x": {"indicator": 1}}, "indicator of the feature 'x' is 1; write True or False"),
        ({"x": []}, "write at least one category, each once"),
        ({"x": ["a", "a"]}, "write at least one category, each once"),
        ({"x": ["a", 1]}, "has the category 1; write texts, such as 'de'"),
        ({"x": ["a\0"]}, "write texts, such as 'de'"),
        ({"x": {"hashed": 0}}, "write {'hashed': n} with n from 1 to 4096"),
        ({"x": {"hashed": True}}, "write {'hashed': n}"),
        ({"x": {"hashed": 5000}}, "write {'hashed': n}"),
        ({"x": {"hashed": 4, "low": 0}}, "write {'hashed': n}"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_specs_that_cannot_be_meant(spec: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Features.parse(spec)


# What is logged


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        ("numeric", 3, 3.0),
        ("numeric", True, 1.0),
        ("numeric", np.float32(0.5), 0.5),
        ("numeric", np.int64(5), 5.0),
        ("numeric", Decimal("1.5"), 1.5),
        ("numeric", Fraction(1, 4), 0.25),
        ({"low": 0}, -7, -7.0),
        (["de"], "unheard of", "unheard of"),
        (["de"], Country.GERMANY, "de"),
        ({"hashed": 4}, "some text", "some text"),
        ({"hashed": 4}, ("b", "a"), ["b", "a"]),
        ({"hashed": 4}, {"b", "a"}, ["a", "b"]),
        ({"hashed": 4}, [], []),
        (["de"], "a" * 2000, "a" * MAX_TEXT),
        (["de"], "nul\0 half \ud800", "nul? half ?"),
    ],
)
def test_plain_values_are_logged(spec: Any, value: Any, expected: Any) -> None:
    cleaned = Features.parse({"x": spec}).clean({"x": value})
    assert cleaned == {"x": expected}
    assert type(cleaned["x"]) is type(expected)


def test_of_a_long_list_the_beginning_is_logged() -> None:
    cleaned = Features.parse({"x": {"hashed": 4}}).clean({"x": ["a" * 3000] * 3000})
    assert cleaned == {"x": ["a" * MAX_TEXT] * MAX_TEXTS}


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 10**400, 1e60])
def test_what_is_missing_is_not_logged(value: Any) -> None:
    assert FEATURES.clean({"age": value, "country": None, "query": None}) == {}


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"agee": 3}, "has 'agee', which is no feature of the bandit; did you mean 'age'\\?"),
        ({"zzz": 3}, "no feature of the bandit; declared: age, country, ink, query, visits"),
        ({7: 3}, "has 7, which is no feature"),
        ({"age": "old"}, "the feature 'age' is of type str; give a number, or None"),
        ({"age": [1]}, "the feature 'age' is of type list; give a number"),
        ({"age": 1j}, "the feature 'age' is of type complex; give a number"),
        ({"country": 7}, "the feature 'country' is of type int; give a text, or None"),
        ({"country": ["de"]}, "the feature 'country' is of type list; give a text"),
        ({"query": 7}, "the feature 'query' is of type int; give a text, a list of texts, or None"),
        ({"query": ["a", 7]}, "the feature 'query' is of type list; give a text, a list of texts"),
        ({"query": b"a"}, "the feature 'query' is of type bytes; give a text"),
        ("age", "the context is a str; give a mapping"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_contexts_that_cannot_be_meant(context: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        FEATURES.clean(context)


def test_what_is_wrong_is_told_without_the_value() -> None:
    """It may be about a person."""
    with pytest.raises(ConfigurationError) as told:
        FEATURES.clean({"age": "Jane Doe"})
    assert "Jane" not in str(told.value)
    with pytest.raises(ConfigurationError) as told:
        FEATURES.clean(["Jane Doe"])  # type: ignore[arg-type]
    assert "Jane" not in str(told.value)


def test_of_a_huge_name_the_beginning_is_told() -> None:
    with pytest.raises(ConfigurationError) as told:
        FEATURES.clean({"x" * 1_000_000: 1.0})
    assert len(str(told.value)) < 500


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*FEATURES.names, "gone"]), values))
def test_whatever_a_log_holds_is_encoded(context: dict[str, Any]) -> None:
    vector = FEATURES.encode(context)
    assert vector.shape == (FEATURES.dimension,)
    assert np.isfinite(vector).all()
    np.testing.assert_array_equal(FEATURES.encode(context), vector)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FEATURES.names), values))
def test_what_is_logged_is_encoded_as_what_was_given(context: dict[str, Any]) -> None:
    try:
        cleaned = FEATURES.clean(context)
    except ConfigurationError:
        return
    text = json.dumps(cleaned, allow_nan=False)
    np.testing.assert_array_equal(FEATURES.encode(json.loads(text)), FEATURES.encode(context))
    assert FEATURES.clean(cleaned) == cleaned
