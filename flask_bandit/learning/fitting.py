"""Fits a model and makes the document that a storage keeps, which has to say the same.

Must not import Flask.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ConfigurationError
from ..model import Stats
from .books import loaded
from .data import TrainingData
from .gate import NotYetError
from .records import DONE, TRAIN, ModelRecord
from .trainers import Trainer, document_of

SAMPLE = 20
"""Decisions at which a model is compared with itself as it was stored."""
TOLERANCE = 1e-5
"""By which their probabilities may differ; some libraries compute in single precision."""


def fitted_document(trainer: Trainer, label: str, data: TrainingData) -> Mapping[str, Any]:
    """Return the document of a model, after a look whether it says the same when it is read.

    :param label: name of the trainer
    :raises NotYetError: there is nothing to learn from
    :raises ConfigurationError: the trainer gave no model that can be stored and read
    """
    first = next(iter(data), None)
    if first is None:
        raise NotYetError(
            f"the log of {data.name!r} has no decision to learn from yet; left out: {data.left}"
        )
    model = trainer.fit(data)
    document: Mapping[str, Any] = json.loads(json.dumps(document_of(model)))
    again = loaded(document, f"the model of {label!r}")
    stats = Stats.from_counts(data.arms, {})
    for context in first.contexts[:SAMPLE]:
        chances = np.asarray(model.propensities(stats, context))
        if chances.shape != (len(data.arms),) or not np.allclose(
            chances, again.propensities(stats, context), atol=TOLERANCE
        ):
            raise ConfigurationError(
                f"the model of {label!r} says something else after load(dump()): make dump() hold "
                "all that propensities() uses, which returns one probability per arm"
            )
    return document


def trained(
    record: ModelRecord,
    document: Mapping[str, Any],
    data: TrainingData,
    until: float,
    held_out: float,
) -> ModelRecord:
    """Return a record with what the model was fitted on.

    :param until: decisions made before, seconds since the epoch
    :param held_out: share of the decisions that was not among them
    """
    return record.at(
        TRAIN,
        DONE[TRAIN],
        version=loaded(document, "the model").version,
        trained_from=data.first,
        trained_until=until,
        decisions=data.decisions,
        held_out=held_out,
        reward_mean=data.mean,
        reward_variance=data.variance,
    )
