"""The models of a bandit as the dashboard shows them, and how one of them is let serve.

Plain values for the templates; knows nothing of HTML and Flask-Admin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from ...analysis.results import WEIGHTED, Interval
from ...errors import ConfigurationError, LifecycleError
from ...learning import ExperimentManager
from ...learning.records import DOING, FAILED, REFUSED, STOPPED, EvaluationRecord, Job, ModelRecord
from ..pages import BanditPage, Models
from ..state import AppState
from .leaders import Axis, Bar, difference_writer, rate_writer
from .numbers import Numbers
from .tracks import ALL

BACK = "back"
"""What a form says in place of a model's number, to let serve what served before."""
LEVEL = 0.95


@dataclass(frozen=True)
class ModelRow:
    """One model.

    :param state: how far it is, in small letters
    :param difference: how much more it is worth than what it was compared with; ``None`` if it was
        not judged
    :param worth: what it would have earned per decision, likewise
    :param place: of its colour, which is that of no arm
    """

    record: ModelRecord
    state: str
    is_serving: bool
    is_accepted: bool
    difference: Interval | None
    worth: Interval | None
    bar: Bar | None
    place: str = f"-{ALL}"


@dataclass(frozen=True)
class ModelTable:
    """All models, the newest first, with their intervals on one axis.

    :param zero: the place of no difference
    :param job: what is under way, in a sentence; empty if nothing is
    :param notes: (number, why its last step failed or was refused)
    """

    serving: str
    rows: tuple[ModelRow, ...]
    ticks: tuple[tuple[float, str], ...]
    zero: float | None
    job: str
    notes: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Choice:
    """Something that may serve in place of what serves now.

    :param value: what the form sends: a number, or :data:`BACK`
    :param told: what is known of it
    """

    value: str
    title: str
    told: str


def model_table(page: BanditPage, numbers: Numbers) -> ModelTable | None:
    """Return what a page says about a bandit's models; ``None`` if there was never one."""
    models = page.models
    if models is None or not (models.records or models.serving or models.job):
        return None
    found = {each.n: _difference(each.evaluation) for each in models.records}
    known = [each for each in found.values() if each]
    # No difference is on the axis, to be seen beside it.
    nothing = Interval(0.0, 0.0, 0.0, LEVEL, WEIGHTED)
    axis = Axis([*known, nothing] if known else [], widest=float("inf"))
    rows = tuple(
        ModelRow(
            record=each,
            state=_state(each.state),
            is_serving=each.n == models.serving,
            is_accepted=each.n in models.accepted,
            difference=found[each.n],
            worth=_worth(each.evaluation),
            bar=axis.bar(found[each.n]),
        )
        for each in reversed(models.records)
    )
    return ModelTable(
        serving=named(models.serving),
        rows=rows,
        ticks=axis.labels(page.results, numbers),
        zero=axis.place(0.0) if known else None,
        job="" if models.job is None else _under_way(models.job, page.read_at, numbers),
        notes=tuple(_notes(rows)),
    )


def named(n: int) -> str:
    """Return what a model is called; 0 is the policy of the code."""
    return f"model {n}" if n else "the policy of the code"


def choices(page: BanditPage, numbers: Numbers) -> tuple[Choice, ...]:
    """Return what may serve in place of what serves now; nothing that was not judged better."""
    models = page.models
    if models is None:
        return ()
    found = [
        Choice(str(each.n), f"Deploy model {each.n}", gate(each, page, numbers))
        for each in reversed(models.records)
        if each.n in models.accepted
    ]
    if models.serving:
        told = f"{named(models.before)} serves again, as before {named(models.serving)}."
        title = f"Roll back to {named(models.before)}"
        found.append(Choice(BACK, title, told[:1].upper() + told[1:]))
    return tuple(found)


def serving_context(page: BanditPage, numbers: Numbers, asked: str | None) -> dict[str, Any]:
    """Return what a form shows that asks what shall serve.

    :param asked: what was chosen before
    """
    serving = page.models.serving if page.models else 0
    return {
        "choices": choices(page, numbers),
        "serving": serving,
        "serving_name": named(serving),
        "asked_model": asked,
    }


def gate(record: ModelRecord, page: BanditPage, numbers: Numbers) -> str:
    """Return in a sentence what a model's judgement says."""
    judged = record.evaluation
    if judged is None:
        return "It was not judged."
    write = difference_writer(page.results, numbers)
    return (
        f"Judged on {numbers.count(judged.decisions)} held-out decisions against "
        f"{named(judged.champion)}: {write(judged.difference)} per decision, at least "
        f"{write(judged.lower)} (error rate {numbers.percent(judged.error_rate)}). It would "
        f"have earned about {rate_writer(page.results, numbers)(judged.value)} per decision."
    )


def let_serve(state: AppState, name: str, subject: str, by: str) -> int:
    """Let a model serve that was judged better, or what served before; return its number.

    :param subject: a number, or :data:`BACK`
    :raises LifecycleError: it cannot serve now
    :raises StorageError: the storage is down
    """
    try:
        manager = ExperimentManager(state, name, by=by)
        if subject == BACK:
            return manager.rollback()
        done = manager.deploy(int(subject))
    except ConfigurationError as error:
        raise LifecycleError(str(error)) from error
    if not done.deployed:
        raise LifecycleError(done.why)
    return done.n


def subject_of_model(models: Models, given: str | None, seen: str | None) -> str:
    """Return what a form wants to serve.

    :param seen: what served when the form was made
    :raises LifecycleError: another one serves meanwhile
    :raises ValueError: nothing was chosen, or it may not serve now
    """
    if seen != str(models.serving):
        raise LifecycleError(f"{named(models.serving)} serves meanwhile; look again")
    if given == BACK and models.serving:
        return BACK
    if given is None or given not in map(str, models.accepted):
        raise ValueError("choose what shall serve: a model that was judged better, or a roll-back")
    return given


def _difference(judged: EvaluationRecord | None) -> Interval | None:
    return None if judged is None else _interval(judged.difference, judged.standard_error)


def _worth(judged: EvaluationRecord | None) -> Interval | None:
    return None if judged is None else _interval(judged.value, judged.value_error)


def _interval(value: float, error: float) -> Interval:
    reach = NormalDist().inv_cdf((1.0 + LEVEL) / 2.0) * error
    return Interval(value, value - reach, value + reach, LEVEL, WEIGHTED)


def _state(state: str) -> str:
    return state.replace("_", " ").lower()


def _under_way(job: Job, now: float, numbers: Numbers) -> str:
    doing = f"{DOING[job.work].capitalize()} of model {job.n}"
    since = f"began {numbers.moment(job.started)} in {job.holder}"
    if job.is_dead(now):
        return f"{doing} {since}, which has died since. Resume it, or train another."
    return f"{doing} {since} and {'was told to stop' if job.stop else 'is under way'}."


def _notes(rows: tuple[ModelRow, ...]) -> Iterator[tuple[int, str]]:
    bad = {REFUSED, FAILED, STOPPED}
    for row in rows:
        states = set(row.record.states.values())
        if row.record.error and states & bad:
            how = next(state for state in (REFUSED, FAILED, STOPPED) if state in states)
            yield row.record.n, f"{_state(how)}: {row.record.error}"
