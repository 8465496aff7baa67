"""What is kept about a bandit's models: where each came from, how it was judged, who is at work.

Plain values with JSON of their own. Must not import a storage or Flask.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from ..control import Control

TRAIN, EVALUATE, DEPLOY = "train", "evaluate", "deploy"
PENDING, STOPPED, FAILED = "PENDING", "STOPPED", "FAILED"
DOING = {TRAIN: "TRAINING", EVALUATE: "EVALUATING", DEPLOY: "DEPLOYING"}
DONE = {TRAIN: "TRAINED", EVALUATE: "EVALUATED", DEPLOY: "DEPLOYED"}
REFUSED, REPLACED, ROLLED_BACK = "REFUSED", "REPLACED", "ROLLED_BACK"
"""How a deployment ends otherwise: not better, another model came, or it was taken back."""
UNDER_WAY = (PENDING, *DOING.values())

_T = TypeVar("_T", bound="ModelRecord | EvaluationRecord | Job")


@dataclass(frozen=True)
class EvaluationRecord:
    """What one window of held-out decisions said about a model.

    :param n: the model
    :param bandit_version: a reset of the bandit starts another one
    :param champion: what it was compared with; 0 for the policy of the code
    :param attempt: the how manieth window that was judged; each is judged once
    :param error_rate: chance at which ``lower`` is above the true difference
    :param since: decisions made from here on were judged, seconds since the epoch
    :param until: decisions made before were judged
    :param decisions: how many
    :param clusters: how many subjects or single decisions those were of
    :param left_out: how many of the window were not judged, and why
    :param value: reward per decision with the model
    :param value_error: its standard error
    :param champion_value: reward per decision with the champion
    :param difference: the model's less the champion's, estimated pairwise
    :param standard_error: of the difference
    :param lower: the true difference is above it, but for ``error_rate``
    :param effective_size: number of decisions made by the model itself that would say as much
    :param mean_weight: of the model's probabilities over the logged ones; 1 if those are right
    :param mean_weight_error: its standard error
    :param largest_weight: of them
    :param power: chance of a ``lower`` above 0, were the model worth a quarter more than the
        champion
    :param at: when it was judged, seconds since the epoch
    :param by: who did it
    """

    n: int
    bandit_version: int
    champion: int
    attempt: int
    error_rate: float
    since: float
    until: float
    decisions: int
    clusters: int
    left_out: str
    value: float
    value_error: float
    champion_value: float
    difference: float
    standard_error: float
    lower: float
    effective_size: float
    mean_weight: float
    mean_weight_error: float
    largest_weight: float
    power: float
    at: float
    by: str = ""


@dataclass(frozen=True)
class ModelRecord:
    """One trained policy: where it came from and what became of it.

    :param n: its number, from 1 on
    :param trainer: name or dotted path of what fitted it
    :param params: the trainer's parameters
    :param parent: the champion when it was trained, or deployed; 0 for the policy of the code
    :param bandit_version: whose decisions it was fitted on
    :param created: seconds since the epoch
    :param by: who had it trained
    :param states: ``train``, ``evaluate``, ``deploy`` -> how far that is
    :param error: why the last of them failed or was refused
    :param version: name and parameters of the fitted policy, as logged with its decisions
    :param trained_from: the oldest decision that it was fitted on, seconds since the epoch
    :param trained_until: it was fitted on decisions made before
    :param decisions: how many
    :param held_out: share of the decisions that was held out then; only those may judge it
    :param reward_mean: what they earned, each
    :param reward_variance: of that
    :param evaluation: the last one
    :param deployed_at: seconds since the epoch
    :param rolled_back_at: seconds since the epoch
    :param backup: where everything was saved before it was deployed
    """

    n: int
    trainer: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    parent: int = 0
    bandit_version: int = 1
    created: float = 0.0
    by: str = ""
    states: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    version: str = ""
    trained_from: float = 0.0
    trained_until: float = 0.0
    decisions: int = 0
    held_out: float = 1.0
    reward_mean: float = 0.0
    reward_variance: float = 0.0
    evaluation: EvaluationRecord | None = None
    deployed_at: float | None = None
    rolled_back_at: float | None = None
    backup: str = ""

    @property
    def state(self) -> str:
        """How far it is: the state of what was last done to it."""
        return next((s for s in map(self.states.get, (DEPLOY, EVALUATE, TRAIN)) if s), PENDING)

    @property
    def is_trained(self) -> bool:
        """Whether there is a fitted policy."""
        return self.states.get(TRAIN) == DONE[TRAIN]

    def at(self, work: str, state: str, **changes: Any) -> ModelRecord:
        """Return it with another state of some work, and other changes."""
        return replace(self, states={**self.states, work: state}, **changes)


@dataclass(frozen=True)
class Job:
    """What is under way, and whose it is.

    :param id: of this run
    :param work: ``train``, ``evaluate`` or ``deploy``
    :param n: the model
    :param holder: host and process
    :param started: seconds since the epoch
    :param until: the process is taken for dead if it does not say before that it is alive
    :param stop: whether it was told to stop
    :param params: what it was started with
    """

    id: str
    work: str
    n: int
    holder: str
    started: float
    until: float
    stop: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)

    def is_dead(self, now: float) -> bool:
        """Return whether its process has not said for too long that it is alive."""
        return now >= self.until


@dataclass(frozen=True)
class Index:
    """All that is known about a bandit's models, stored as one document.

    :param models: the records, the oldest first
    :param following: number of the next model
    :param job: the one in flight
    :param attempts: how many windows were judged
    :param judged_until: held-out decisions made before are used up, seconds since the epoch
    """

    models: tuple[ModelRecord, ...] = ()
    following: int = 1
    job: Job | None = None
    attempts: int = 0
    judged_until: float = 0.0

    @classmethod
    def load(cls, state: Mapping[str, Any] | None) -> Index:
        """Read what :meth:`dump` wrote; nothing gives an empty one."""
        state = state or {}
        models = tuple(_record(each) for each in state.get("models", ()))
        job = state.get("job")
        return cls(
            models=models,
            following=max([state.get("following", 1), *(each.n + 1 for each in models)]),
            job=_loaded(Job, job) if job else None,
            attempts=state.get("attempts", 0),
            judged_until=state.get("judged_until", 0.0),
        )

    def dump(self) -> dict[str, Any]:
        """Return plain values for a storage."""
        return asdict(self)

    def get(self, n: int) -> ModelRecord | None:
        """Return a model's record."""
        return next((each for each in self.models if each.n == n), None)

    def put(self, record: ModelRecord) -> Index:
        """Return it with a record in place of the one of the same number, or behind the others."""
        others = (each for each in self.models if each.n != record.n)
        return self._with((*others, record))

    def moved(self, n: int, state: str, **changes: Any) -> Index:
        """Return it with another state of a model's deployment, if it is known."""
        record = self.get(n)
        return self if record is None else self.put(record.at(DEPLOY, state, **changes))

    def serving(self, champion: int) -> Index:
        """Return it with deployments as they are, whatever a process came to say of its own.

        :param champion: the model that serves
        """
        index = self
        for each in self.models:
            is_deployed = each.states.get(DEPLOY) == DONE[DEPLOY]
            if is_deployed and each.n != champion:
                index = index.moved(each.n, REPLACED)
            elif not is_deployed and each.n == champion:
                index = index.put(deployed(each))
        return index

    def without(self, numbers: Iterable[int]) -> Index:
        """Return it without some records."""
        gone = set(numbers)
        return self._with(each for each in self.models if each.n not in gone)

    def _with(self, models: Iterable[ModelRecord]) -> Index:
        ordered = tuple(sorted(models, key=lambda each: each.n))
        return replace(
            self,
            models=ordered,
            following=max([self.following, *(each.n + 1 for each in ordered)]),
        )


def deployed(record: ModelRecord) -> ModelRecord:
    """Return the record of a model that serves from now on."""
    return record.at(DEPLOY, DONE[DEPLOY], deployed_at=time.time(), rolled_back_at=None)


def valid_evaluation(record: ModelRecord | None, control: Control) -> EvaluationRecord | None:
    """Return what is known of a model against what serves now."""
    judged = record.evaluation if record else None
    if record is None or judged is None:
        return None
    is_same = (judged.champion, judged.bandit_version) == (control.model, control.version)
    return judged if is_same and judged.at > (record.rolled_back_at or 0.0) else None


def _loaded(cls: type[_T], state: Mapping[str, Any]) -> _T:
    known = {each.name for each in fields(cls)}
    return cls(**{name: value for name, value in state.items() if name in known})


def _record(state: Mapping[str, Any]) -> ModelRecord:
    record, judged = _loaded(ModelRecord, state), state.get("evaluation")
    return replace(record, evaluation=_loaded(EvaluationRecord, judged) if judged else None)
