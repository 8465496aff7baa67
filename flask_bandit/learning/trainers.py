"""What fits models: trainers by name, and those that need nothing but counts or a policy.

Must not import Flask.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..errors import ConfigurationError
from ..model import Decision, FloatArray, add_counts, add_terms
from ..plugins import import_object, nearest, policy_class, policy_from_name
from .data import TrainingData
from .fitted import Fitted, FixedModel, PolicyModel

TRAINERS = {
    "ridge": "flask_bandit.learning.linear:RidgeTrainer",
    "policy": "flask_bandit.learning.trainers:PolicyTrainer",
    "fixed": "flask_bandit.learning.trainers:FixedTrainer",
    "vw": "flask_bandit.learning.vw:VowpalTrainer",
}
DRAWS, AT_ONCE = 100_000, 1000


@runtime_checkable
class Trainer(Protocol):
    """Anything that makes a fitted policy of decisions."""

    def fit(self, data: TrainingData) -> Fitted:
        """Return the policy; ``data`` may be read several times."""
        ...


def trainer_from(trainer: str | Trainer, params: Mapping[str, Any]) -> tuple[Trainer, str]:
    """Return a trainer, and its name.

    :param trainer: one of :data:`TRAINERS`, the dotted path of a class, or an object with ``fit``
    :param params: of its constructor
    :raises ConfigurationError: no such trainer, or parameters that do not fit it
    """
    if not isinstance(trainer, str):
        return _checked(trainer, params)
    if trainer not in TRAINERS and "." not in trainer and ":" not in trainer:
        raise ConfigurationError(f"there is no trainer {trainer!r}; {nearest(trainer, TRAINERS)}")
    found = import_object(TRAINERS.get(trainer, trainer), "vw" if trainer == "vw" else None)
    # A job that is resumed has the path from the storage: nothing else is to be called by it.
    if not (isinstance(found, type) and callable(getattr(found, "fit", None))):
        raise ConfigurationError(f"{trainer!r} is no trainer: name a class that has fit(data)")
    try:
        made = found(**params)
    except TypeError as error:
        known = ", ".join(signature(found).parameters) or "none"
        raise ConfigurationError(
            f"the parameters {sorted(params)} do not fit the trainer {trainer!r}: {error}; it has: "
            f"{known}"
        ) from error
    return _checked(made, {})[0], trainer


def _checked(trainer: Any, params: Mapping[str, Any]) -> tuple[Trainer, str]:
    if not isinstance(trainer, Trainer):
        raise ConfigurationError(f"{trainer!r} is no trainer: it needs fit(data)")
    if params:
        raise ConfigurationError(
            f"{sorted(params)} are for a trainer that is named by a text; {trainer!r} is made "
            "already"
        )
    cls = type(trainer)
    return trainer, f"{cls.__module__}:{cls.__qualname__}"


def document_of(model: Any) -> dict[str, Any]:
    """Return what a storage keeps of a fitted policy.

    :raises ConfigurationError: it is none
    """
    cls = type(model)
    if not isinstance(model, Fitted) or not callable(getattr(cls, "load", None)):
        raise ConfigurationError(
            f"{model!r} is no fitted policy: it needs propensities(stats, context), version, "
            "dump(), and a class method load(stored)"
        )
    kind = getattr(cls, "kind", f"{cls.__module__}:{cls.__qualname__}")
    return {"kind": kind, "params": model.dump()}


class PolicyTrainer:
    """Lets a policy learn from the log, and freezes it.

    :param algorithm: a policy's name, as in configuration
    :param params: of its constructor; ``features`` are the bandit's
    :raises ConfigurationError: no such policy
    """

    def __init__(self, algorithm: str = "lin_thompson", **params: Any) -> None:
        self._algorithm, self._params = algorithm, params
        self._is_contextual = bool(getattr(policy_class(algorithm), "contextual", False))

    def fit(self, data: TrainingData) -> PolicyModel:
        """Return the policy with what it has learned.

        :raises ConfigurationError: no such policy, or it needs features and there are none
        """
        features = data.features if self._is_contextual else None
        if self._is_contextual and features is None:
            raise ConfigurationError(
                f"{self._algorithm!r} learns from features, and the bandit {data.name!r} has none "
                "that the log keeps; train 'fixed', or declare features"
            )
        given = self._params if features is None else {"features": features, **self._params}
        policy = policy_from_name(self._algorithm, given)
        counts: dict[str, dict[str, float]] = {}
        arrays: dict[str, dict[str, FloatArray]] = {}
        for batch in data:
            for row in range(len(batch)):
                eligible = np.flatnonzero(batch.eligible[row]).tolist()
                chances = batch.propensities[row].tolist()
                decision = Decision(
                    id=batch.ids[row],
                    bandit=data.name,
                    version=data.version,
                    arm=batch.arms[batch.arm[row]],
                    propensities={batch.arms[place]: chances[place] for place in eligible},
                    # With an empty one it would be pruned, and its context nothing to learn from.
                    policy_version="logged",
                    at=float(batch.at[row]),
                    context=batch.contexts[row],
                )
                delta = policy.on_mature(decision, float(batch.reward[row]))
                add_counts(counts, delta)
                add_terms(arrays, delta.terms)
        arms = [arm for arm in data.arms if arm in counts]
        return PolicyModel(self._algorithm, self._params, features, arms, counts, arrays)


class FixedTrainer:
    """Fits :class:`FixedModel`: each arm as probable as it is that it is the best for everybody.

    What an arm is worth to all visitors is its rewards over its probabilities, self-normalised, so
    that an arm which was given to the easy visitors is not taken for a good one.
    """

    def fit(self, data: TrainingData) -> FixedModel:
        """Return the model of some decisions, read once."""
        sums = np.zeros((5, len(data.arms)))
        for batch in data:
            weights, reward = 1.0 / batch.propensity, batch.reward
            rows = (weights, weights * reward, weights**2, weights**2 * reward)
            for place, row in enumerate((*rows, weights**2 * reward**2)):
                np.add.at(sums[place], batch.arm, row)
        seen = np.flatnonzero(sums[0] > 0.0)
        w, wr, ww, wwr, wwrr = sums[:, seen]
        mean = wr / w
        variance = (wwrr - 2.0 * mean * wwr + mean**2 * ww) / w**2
        # An arm whose few rewards are all the same is not known exactly.
        variance = np.maximum(variance, ww / w**2 * max(data.variance, 1e-12))
        rng, wins = np.random.default_rng(0), np.zeros(seen.size)
        for _ in range(DRAWS // AT_ONCE if seen.size else 0):
            draws = rng.normal(mean, np.sqrt(variance), (AT_ONCE, seen.size))
            wins += np.bincount(draws.argmax(axis=1), minlength=seen.size)
        return FixedModel([data.arms[place] for place in seen.tolist()], (wins / DRAWS).tolist())
