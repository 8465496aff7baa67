"""Features: what a bandit is told about a choice, and the vector that a policy reads of it.

Pure; the words for what is wrong are here too. Knows no policy and no bandit.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import ConfigurationError
from .model import FloatArray

MAX_NAME = 100
MAX_TEXT = 1000
"""Letters of a text; of a longer one, the rest is neither logged nor read."""
MAX_TEXTS = 100
"""Texts of a list, likewise."""
MAX_HASHED = 4096
MAX_NUMBER = 1e50
"""A larger number is missing: products of several must still be numbers."""

_WORD = re.compile(r"\w+")
_FORMS = (
    "write 'numeric', a table such as {'low': 0, 'high': 120}, a list of categories such as "
    "['de', 'fr'], or {'hashed': 16} for texts"
)
_NUMERIC_KEYS = ("low", "high", "pivot", "scale", "indicator")


@dataclass(frozen=True, slots=True)
class _Numeric:
    low: float
    high: float
    pivot: float
    scale: float | None
    indicator: bool

    def labels(self, name: str) -> tuple[str, ...]:
        return (name, f"{name} missing") if self.indicator else (name,)

    def spec(self) -> dict[str, Any]:
        bounds = {"low": self.low, "high": self.high}
        given = {key: bound for key, bound in bounds.items() if math.isfinite(bound)}
        if self.scale is not None:
            given["scale"] = self.scale
        return {**given, "pivot": self.pivot, "indicator": self.indicator}

    def clean(self, name: str, value: Any) -> float | None:
        # Asked of the type: isinstance() with a protocol takes longer than all the rest.
        if not hasattr(type(value), "__float__"):
            raise _wrong_value(name, value, "a number, or None where it is missing")
        number = _number(value)
        return number if abs(number) <= MAX_NUMBER else None


@dataclass(frozen=True, slots=True)
class _Categories:
    values: tuple[str, ...]

    def labels(self, name: str) -> tuple[str, ...]:
        return (*(f"{name}={value}" for value in self.values), f"{name} other")

    def spec(self) -> list[str]:
        return list(self.values)

    def clean(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _wrong_value(name, value, "a text, or None where it is missing")
        return _text(value)

    def encode(self, value: Any) -> Iterator[tuple[int, float]]:
        if value is None:
            return
        text = _text(value) if isinstance(value, str) else None
        yield (self.values.index(text) if text in self.values else len(self.values)), 1.0


@dataclass(frozen=True, slots=True)
class _Hashed:
    columns: int

    def labels(self, name: str) -> tuple[str, ...]:
        return tuple(f"{name} #{column}" for column in range(self.columns))

    def spec(self) -> dict[str, int]:
        return {"hashed": self.columns}

    def clean(self, name: str, value: Any) -> str | list[str]:
        if isinstance(value, str):
            return _text(value)
        is_list = isinstance(value, (list, tuple, set, frozenset))
        if not is_list or not all(isinstance(text, str) for text in value):
            raise _wrong_value(name, value, "a text, a list of texts, or None where it is missing")
        texts = value if isinstance(value, (list, tuple)) else sorted(value)
        return [_text(text) for text in texts[:MAX_TEXTS]]

    def encode(self, value: Any) -> Iterator[tuple[int, float]]:
        if isinstance(value, str):
            tokens = _WORD.findall(_text(value).casefold())
        elif isinstance(value, (list, tuple)):
            tokens = [_text(text) for text in value[:MAX_TEXTS] if isinstance(text, str)]
        else:
            return
        scale = 1.0 / math.sqrt(len(tokens)) if tokens else 0.0
        for token in tokens:
            digest = hashlib.blake2b(token.encode(), digest_size=8, person=b"flask-bandit").digest()
            number = int.from_bytes(digest, "big")
            yield (number >> 1) % self.columns, scale if number & 1 else -scale


_Kind: TypeAlias = _Numeric | _Categories | _Hashed


class Features:
    """The features that a bandit declares, and how each becomes columns of numbers.

    A spec is a mapping from a feature's name to one of these forms; the order does not matter:

    ``"numeric"`` or ``{"low": 0, "high": 120, "pivot": 40, "scale": 20, "indicator": True}``
        A number. All keys are optional: a value is clipped at declared bounds, and a missing one
        is the pivot, with 1 in one more column unless ``indicator`` is ``False``. The pivot should
        be near the usual values, since sums are kept about it: the middle of the bounds, or 0.
        Numbers are measured in their standard deviations, or in units of a declared ``scale``,
        which is better where most are equal and few differ, such as the pixels of a picture.
    ``["de", "fr"]``
        Categories, a column each, and one for any other text. Missing: 0 in all of them.
    ``{"hashed": 16}``
        A text, whose words are taken in lower case, or a list of texts, each taken as it is. Every
        token adds +1 or -1, divided by the root of their number, to one of 16 columns (Weinberger,
        Dasgupta, Langford, Smola and Attenberg 2009, "Feature hashing for large scale multitask
        learning"). Missing: 0 in all of them.

    Two objects are equal if their specs mean the same.
    """

    names: tuple[str, ...]
    """The features, by name."""
    dimension: int
    """Number of columns."""
    labels: tuple[str, ...]
    """What each column means, to be shown."""
    numeric: npt.NDArray[np.bool_]
    """Which columns hold numbers without a declared scale, shape (dimension,): a policy
    standardises these."""
    schema: str
    """12 hexadecimal digits that tell this set of features from any other."""

    def __init__(self, kinds: Mapping[str, _Kind]) -> None:
        self._kinds = {name: kinds[name] for name in sorted(kinds)}
        self.names = tuple(self._kinds)
        self.labels = tuple(
            label for name, kind in self._kinds.items() for label in kind.labels(name)
        )
        self.dimension = len(self.labels)
        canonical = json.dumps(self.spec(), sort_keys=True).encode()
        self.schema = hashlib.blake2b(canonical, digest_size=6).hexdigest()
        self._place()

    def _place(self) -> None:
        """Note at which column each feature begins."""
        self._others: list[tuple[str, _Categories | _Hashed, int]] = []
        self._numbers: tuple[str, ...] = ()
        numbers: list[tuple[int, _Numeric]] = []
        column = 0
        for name, kind in self._kinds.items():
            if isinstance(kind, _Numeric):
                self._numbers += (name,)
                numbers.append((column, kind))
            else:
                self._others.append((name, kind, column))
            column += len(kind.labels(name))
        self._columns = np.array([column for column, _ in numbers], dtype=np.intp)
        # Where there is no indicator, it is written to one column too many, and left out.
        self._indicators = np.array(
            [column + 1 if kind.indicator else self.dimension for column, kind in numbers],
            dtype=np.intp,
        )
        self._low, self._high, self._pivot = (
            np.array([getattr(kind, name) for _, kind in numbers], dtype=np.float64)
            for name in ("low", "high", "pivot")
        )
        scales = [kind.scale for _, kind in numbers]
        self._scale = np.array([1.0 if scale is None else scale for scale in scales])
        self._is_bounded = bool((np.isfinite(self._low) | np.isfinite(self._high)).any())
        self.numeric = np.zeros(self.dimension, dtype=np.bool_)
        self.numeric[self._columns] = [scale is None for scale in scales]
        self.numeric.flags.writeable = False

    @classmethod
    def parse(cls, spec: Mapping[str, Any] | Features) -> Features:
        """Read a spec, as written in Python or in a configuration file.

        :raises ConfigurationError: it is none, or names no feature
        """
        if isinstance(spec, Features):
            return spec
        if not isinstance(spec, Mapping) or not spec:
            raise ConfigurationError(
                f"features is {spec!r}; write a table such as "
                "{'age': 'numeric', 'country': ['de', 'fr']}"
            )
        for name in spec:
            if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
                raise ConfigurationError(
                    f"{name!r} cannot be a feature's name: write a text of 1 to {MAX_NAME} "
                    "characters, none of them a control"
                )
        return cls({name: _kind(name, form) for name, form in spec.items()})

    def spec(self) -> dict[str, Any]:
        """Return plain JSON from which :meth:`parse` makes an equal object."""
        return {name: kind.spec() for name, kind in self._kinds.items()}

    def clean(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is to be logged of a context, as plain JSON: values that are not missing.

        :raises ConfigurationError: a feature that is not declared, or a value of a type that it
            cannot have
        """
        if not isinstance(context, Mapping):
            raise ConfigurationError(
                f"the context is a {type(context).__name__}; give a mapping from the features' "
                f"names to values, such as {{{self.names[0]!r}: ...}}"
            )
        result: dict[str, Any] = {}
        for name, value in context.items():
            kind = self._kinds.get(name)
            if kind is None:
                raise self._unknown(name)
            cleaned = None if value is None else kind.clean(name, value)
            if cleaned is not None:
                result[name] = cleaned
        return result

    def encode(self, context: Mapping[str, Any] | None) -> FloatArray:
        """Return the vector of a context, shape (dimension,); a numeric column less its pivot.

        :param context: what :meth:`clean` returned, or what an old log holds: a value of a wrong
            type is missing, a name that is not declared is left out
        """
        context = {} if context is None else context
        result = np.zeros(self.dimension + 1)
        if self._numbers:
            values = _floats(list(map(context.get, self._numbers)))
            if not np.abs(values).max() <= MAX_NUMBER:  # which no NaN is
                known = np.abs(values) <= MAX_NUMBER
                result[self._indicators[~known]] = 1.0
                values = np.where(known, values, self._pivot)
            if self._is_bounded:
                values = np.minimum(np.maximum(values, self._low), self._high)
            result[self._columns] = (values - self._pivot) / self._scale
        for name, kind, first in self._others:
            for column, value in kind.encode(context.get(name)):
                result[first + column] += value
        return result[:-1]

    def _unknown(self, name: Any) -> ConfigurationError:
        # It may be a visitor's, and of any length.
        name = name[:MAX_NAME] if isinstance(name, str) else name
        close = difflib.get_close_matches(name, self.names, n=1) if isinstance(name, str) else []
        return ConfigurationError(
            f"the context has {name!r}, which is no feature of the bandit; "
            + (f"did you mean {close[0]!r}?" if close else f"declared: {', '.join(self.names)}")
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Features) and other._kinds == self._kinds

    def __hash__(self) -> int:
        return hash(self.schema)

    def __repr__(self) -> str:
        return f"<Features {self.schema} {', '.join(self.names)}>"


def _kind(name: str, form: Any) -> _Kind:
    if form == "numeric":
        return _numeric(name, {})
    if isinstance(form, Mapping):
        return _hashed(name, form) if "hashed" in form else _numeric(name, form)
    if isinstance(form, Sequence) and not isinstance(form, (str, bytes)):
        return _categories(name, form)
    raise ConfigurationError(f"the feature {name!r} is {form!r}; {_FORMS}")


def _numeric(name: str, form: Mapping[str, Any]) -> _Numeric:
    for key in form:
        if key not in _NUMERIC_KEYS:
            raise ConfigurationError(
                f"the feature {name!r} has {key!r}; a number has {', '.join(_NUMERIC_KEYS)}, "
                "and a text has hashed"
            )
    low = _bound(name, "low", form.get("low", -math.inf))
    high = _bound(name, "high", form.get("high", math.inf))
    if not low < high:
        raise ConfigurationError(
            f"the feature {name!r} is from {low:g} to {high:g}; write a low that is below its high"
        )
    middle = 0.5 * (low + high) if math.isfinite(high - low) else min(max(0.0, low), high)
    pivot = _bound(name, "pivot", form.get("pivot", middle))
    if not low <= pivot <= high or math.isinf(pivot):
        raise ConfigurationError(
            f"the feature {name!r} has the pivot {pivot:g}; write a usual value of it, not below "
            "its low nor above its high"
        )
    scale = None if form.get("scale") is None else _bound(name, "scale", form["scale"])
    if scale is not None and not 1e-12 <= scale < math.inf:
        raise ConfigurationError(
            f"the feature {name!r} has the scale {scale:g}; write what a usual difference of two "
            "values is, at least 1e-12"
        )
    indicator = form.get("indicator", True)
    if not isinstance(indicator, bool):
        raise ConfigurationError(
            f"indicator of the feature {name!r} is {indicator!r}; write True or False"
        )
    return _Numeric(low, high, pivot, scale, indicator)


def _bound(name: str, key: str, value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    number = _number(value) if is_number else math.nan
    if not (abs(number) <= MAX_NUMBER or math.isinf(number)):
        raise ConfigurationError(f"{key} of the feature {name!r} is {value!r}; write a number")
    return number + 0.0  # -0.0 is 0.0, so that both have one schema


def _categories(name: str, form: Sequence[Any]) -> _Categories:
    for value in form:
        if not isinstance(value, str) or len(value) > MAX_TEXT or _text(value) != value:
            raise ConfigurationError(
                f"the feature {name!r} has the category {value!r}; write texts, such as 'de'"
            )
    values = tuple(sorted(set(form)))
    if len(values) != len(form) or not values:
        raise ConfigurationError(
            f"the feature {name!r} is {list(form)!r}; write at least one category, each once"
        )
    return _Categories(values)


def _hashed(name: str, form: Mapping[str, Any]) -> _Hashed:
    columns = form["hashed"]
    is_whole = isinstance(columns, int) and not isinstance(columns, bool)
    if len(form) > 1 or not is_whole or not 0 < columns <= MAX_HASHED:
        raise ConfigurationError(
            f"the feature {name!r} is {dict(form)!r}; write {{'hashed': n}} with n from 1 to "
            f"{MAX_HASHED}, such as 16"
        )
    return _Hashed(columns)


def _wrong_value(name: str, value: Any, wanted: str) -> ConfigurationError:
    # Not the value itself: it may be about a person.
    return ConfigurationError(
        f"the feature {name!r} is of type {type(value).__name__}; give {wanted}"
    )


def _text(text: str) -> str:
    """Return a text that every storage can hold."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode().replace("\0", "?")


def _floats(values: list[Any]) -> FloatArray:
    try:
        result = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        result = np.zeros(0)
    if result.shape == (len(values),):
        return result
    return np.array([_number(value) for value in values])


def _number(value: Any) -> float:
    """Return a value as a float, NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
