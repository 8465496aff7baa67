"""What a fitted policy is, and those that need no features: what serves in place of a policy.

Loaded where a request is answered. Must not import a storage or Flask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..features import Features
from ..model import ArmArrays, ArmCounts, FloatArray, IntArray, Stats
from ..plugins import policy_from_name


@runtime_checkable
class Fitted(Protocol):
    """A policy that learns no more. Its class also has ``load``, which takes what ``dump`` gave."""

    @property
    def version(self) -> str:
        """Name and parameters, as logged with each decision."""
        ...

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return one probability per arm of ``stats.arms``, which are the eligible ones."""
        ...

    def dump(self) -> dict[str, Any]:
        """Return plain JSON."""
        ...


class Places:
    """Lines up the arms that a model knows with those that are eligible.

    An arm that it does not know gets an equal share, 1 / K, and the others divide the rest.

    :param arms: the ones it knows
    """

    def __init__(self, arms: Sequence[str]) -> None:
        self._known = {arm: place for place, arm in enumerate(arms)}
        self._found: dict[tuple[str, ...], tuple[IntArray, IntArray]] = {}

    def spread(
        self, arms: tuple[str, ...], of_known: Callable[[IntArray], FloatArray]
    ) -> FloatArray:
        """Return a probability for each eligible arm.

        :param of_known: places of arms in the model -> their probabilities, which sum to 1
        """
        found = self._found.get(arms)
        if found is None:
            here = [place for place, arm in enumerate(arms) if arm in self._known]
            there = [self._known[arms[place]] for place in here]
            found = np.array(here, dtype=np.int64), np.array(there, dtype=np.int64)
            self._found[arms] = found
        here_, there_ = found
        if here_.size == len(arms):
            return of_known(there_)
        result = np.full(len(arms), 1.0 / len(arms))
        if here_.size:
            result[here_] = of_known(there_) * (here_.size / len(arms))
        return result


class FixedModel:
    """The same probabilities for everybody.

    :param arms: of the model
    :param chances: of each arm
    """

    def __init__(self, arms: Sequence[str], chances: Sequence[float]) -> None:
        self._arms = tuple(arms)
        self._chances = np.array(chances, dtype=np.float64)
        self._places = Places(self._arms)

    @property
    def version(self) -> str:
        """Name and parameters."""
        best = self._arms[int(self._chances.argmax())]
        return f"fixed({best}={self._chances.max():.3g})"

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return one probability per eligible arm, whatever the context."""
        return self._places.spread(stats.arms, self._share)

    def _share(self, places: IntArray) -> FloatArray:
        chances = self._chances[places]
        total = float(chances.sum())
        return chances / total if total > 0.0 else np.full(places.size, 1.0 / places.size)

    def dump(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {"arms": list(self._arms), "chances": self._chances.tolist()}

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> FixedModel:
        """Read what :meth:`dump` gave."""
        return cls(stored["arms"], stored["chances"])


class PolicyModel:
    """A policy of the library, or of the app, with the sums that it had learned.

    :param algorithm: its name, as in configuration
    :param params: of its constructor, without features
    :param features: what it reads of a context, ``None`` if it reads nothing
    :param arms: that it has seen
    :param counts: its sums
    :param arrays: likewise
    """

    def __init__(
        self,
        algorithm: str,
        params: Mapping[str, Any],
        features: Features | None,
        arms: Sequence[str],
        counts: ArmCounts,
        arrays: ArmArrays,
    ) -> None:
        given = dict(params) if features is None else {"features": features, **params}
        self._policy: Any = policy_from_name(algorithm, given)
        self._algorithm, self._params, self._features = algorithm, dict(params), features
        self._arms, self._counts, self._arrays = tuple(arms), counts, arrays
        self._places = Places(self._arms)
        self._ready: dict[tuple[int, ...], Callable[[Mapping[str, Any] | None], FloatArray]] = {}

    @property
    def version(self) -> str:
        """Name and parameters."""
        params = ",".join(f"{name}={value!r}" for name, value in sorted(self._params.items()))
        return f"frozen {self._algorithm}({params})"

    def propensities(self, stats: Stats, context: Mapping[str, Any] | None = None) -> FloatArray:
        """Return one probability per eligible arm."""

        def of_known(places: IntArray) -> FloatArray:
            key = tuple(places.tolist())
            if key not in self._ready:
                self._ready[key] = self._prepared(tuple(self._arms[place] for place in key))
            return self._ready[key](context)

        return self._places.spread(stats.arms, of_known)

    def _prepared(self, arms: tuple[str, ...]) -> Callable[[Mapping[str, Any] | None], FloatArray]:
        policy = self._policy
        stats = Stats.from_counts(arms, self._counts, getattr(policy, "extra", ()))
        if self._features is None:
            fixed: FloatArray = policy.propensities(stats)
            return lambda context: fixed
        rows = [self._arrays.get(arm, {}) for arm in arms]
        arrays = {
            name: np.array([row.get(name, np.zeros(size)) for row in rows])
            for name, size in policy.arrays
        }
        ready: Callable[[Mapping[str, Any] | None], FloatArray]
        ready = policy.prepare(replace(stats, arrays=arrays)).propensities
        return ready

    def dump(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "algorithm": self._algorithm,
            "params": self._params,
            "features": None if self._features is None else self._features.spec(),
            "arms": list(self._arms),
            "counts": {arm: dict(row) for arm, row in self._counts.items()},
            "arrays": {
                arm: {name: array.tolist() for name, array in row.items()}
                for arm, row in self._arrays.items()
            },
        }

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> PolicyModel:
        """Read what :meth:`dump` gave."""
        features = stored["features"]
        return cls(
            stored["algorithm"],
            stored["params"],
            None if features is None else Features.parse(features),
            stored["arms"],
            stored["counts"],
            {
                arm: {name: np.array(array) for name, array in row.items()}
                for arm, row in stored["arrays"].items()
            },
        )
