"""``flask bandit train``, ``evaluate``, ``deploy``, ``rollback``, ``models`` and ``learn``.

What they do is told by :mod:`flask_bandit.learning`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

import click
from flask.cli import with_appcontext

from ..learning import (
    Deployment,
    EvaluationRecord,
    ExperimentManager,
    Job,
    ModelRecord,
    NotYetError,
    Status,
)
from .cli_data import opened_storage
from .cli_life import json_option, note_memory, print_json, yes_option
from .state import app_state

_HEADINGS = ("model", "state", "policy", "decisions", "better by", "at least", "made")
NOT_YET = 3
"""Exit status where nothing went wrong, and no model was shown to be better."""

_name = click.argument("name")
_model = click.option("--model", "n", type=int, help="Its number; by default the newest.")
_least = click.option(
    "--least",
    type=click.IntRange(min=0),
    default=0,
    help="Judge nothing while there are fewer fresh held-out decisions.",
)


def _finite(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is none; write a number, such as 0.002")
    return value


_margin = click.option(
    "--margin",
    type=float,
    default=0.0,
    callback=_finite,
    help="Reward per decision by which it has to be better.",
)
_backup = click.option(
    "--backup",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is saved before; by default bandit-backups in the instance folder.",
)


def _settings(
    context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, Any]:
    """Read ``key=value`` pairs; a value that is no number and no JSON is a text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key.isidentifier():
            raise click.BadParameter(f"{pair!r} is no setting; write KEY=VALUE, as in epsilon=0.1")
        settings[key] = _value(text)
    return settings


def _value(text: str) -> Any:
    with suppress(ValueError):
        return json.loads(text)
    with suppress(ValueError):  # JSON has no .5
        return float(text)
    return text


def _trainer(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            callback=_settings,
            metavar="KEY=VALUE",
            help="A parameter of the trainer, as explore=square_cb. Any number of times.",
        ),
        click.option(
            "--trainer",
            default="ridge",
            show_default=True,
            help="ridge, policy, fixed, vw, or the dotted path of a class.",
        ),
    ):
        command = option(command)
    return command


@contextmanager
def _manager(name: str, backup: Path | None = None) -> Iterator[ExperimentManager]:
    """Give a command what learns from a bandit's log, and turn errors into messages."""
    with opened_storage() as storage:
        note_memory(storage)
        yield ExperimentManager(app_state(), name, backup=backup)


def _not_yet(text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(NOT_YET)


@click.command("train")
@_name
@_trainer
@json_option
@with_appcontext
def train(name: str, trainer: str, settings: dict[str, Any], as_json: bool) -> None:
    """Fit a model from the log of a bandit. Nobody is served by it yet.

    It learns from no decision that is held out to judge it.
    """
    with _manager(name) as manager:
        try:
            record = manager.train(trainer, **settings)
        except NotYetError as error:
            _not_yet(str(error))
    if as_json:
        print_json(record)
        return
    click.echo(_trained(name, record))


@click.command("evaluate")
@_name
@_model
@_least
@json_option
@with_appcontext
def evaluate(name: str, n: int | None, least: int, as_json: bool) -> None:
    """Judge a model by held-out decisions, against what serves now.

    Each held-out decision is judged once, so this uses up all that there are.
    """
    with _manager(name) as manager:
        try:
            judged = manager.evaluate(n, least=least)
        except NotYetError as error:
            _not_yet(str(error))
    if as_json:
        print_json(judged)
        return
    click.echo("\n".join(_judged(judged)))


@click.command("deploy")
@_name
@_model
@_margin
@_least
@click.option("--force", is_flag=True, help="Whatever it is worth.")
@_backup
@yes_option
@json_option
@with_appcontext
def deploy(
    name: str,
    n: int | None,
    margin: float,
    least: int,
    force: bool,
    backup: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Let a model draw the arms for all visitors, if it is shown to be better.

    It is judged first, if it was not. Everything in the storage is saved before. The exit status is
    3 if it is not shown to be better.
    """
    with _manager(name, backup) as manager:
        if not yes:
            which = "the newest model" if n is None else f"model {n}"
            click.confirm(f"Let {which} draw the arms of {name!r}?", abort=True, err=True)
        _tell(name, manager.deploy(n, margin, force, least=least), as_json)


@click.command("learn")
@_name
@_trainer
@_margin
@_least
@_backup
@json_option
@with_appcontext
def learn(
    name: str,
    trainer: str,
    settings: dict[str, Any],
    margin: float,
    least: int,
    backup: Path | None,
    as_json: bool,
) -> None:
    """Train a model, judge it, and deploy it if it is better: for a timer.

    The exit status is 0 if it was deployed, 3 if it is not shown to be better yet, and 1 if
    something failed.
    """
    with _manager(name, backup) as manager:
        try:
            n = manager.train(trainer, **settings).n
            done = manager.deploy(n, margin, least=least)
        except NotYetError as error:
            _not_yet(str(error))
        _tell(name, done, as_json)


def _tell(name: str, done: Deployment, as_json: bool) -> None:
    if as_json:
        print_json(done)
    elif done.deployed:
        click.echo(f"Model {done.n} of {name} is deployed: {done.why}.")
        if done.backup:
            click.echo(f"Saved before in {done.backup}.")
        _tell_ttl()
    else:
        click.echo(f"Model {done.n} of {name} is not deployed: {done.why}.")
    if not done.deployed:
        sys.exit(NOT_YET)


def _tell_ttl() -> None:
    ttl = app_state().config.control_ttl
    click.echo(f"Workers follow {f'within {ttl:g} s' if ttl else 'at once'} (MAB_CONTROL_TTL).")


@click.command("rollback")
@_name
@with_appcontext
def rollback(name: str) -> None:
    """Let serve what served before the deployed model.

    Does not ask, since it may be urgent, and 'deploy' brings the model back.
    """
    with _manager(name) as manager:
        n = manager.rollback()
    click.echo(f"{name} is served by {_served(n)} again.")
    _tell_ttl()


@click.command("models")
@_name
@json_option
@with_appcontext
def models(name: str, as_json: bool) -> None:
    """List the models of a bandit, what is under way, and what could be judged now."""
    with _manager(name) as manager:
        status, records = manager.status(), manager.models()
    if as_json:
        print_json({"status": asdict(status), "models": [asdict(each) for each in records]})
        return
    if records:
        rows = [_row(each, status.champion) for each in records]
        click.echo("\n".join(_aligned([_HEADINGS, *rows])))
        click.echo()
    click.echo("\n".join(_standing(status)))


@click.command("stop-learning")
@_name
@with_appcontext
def stop_learning(name: str) -> None:
    """Stop what is under way for a bandit: training, judging or deploying, wherever it runs."""
    with _manager(name) as manager:
        job = manager.stop()
    if job is None:
        click.echo(f"Nothing is under way for {name}.")
    else:
        click.echo(f"{_job(job)} stops within seconds.")


@click.command("resume-learning")
@_name
@_backup
@with_appcontext
def resume_learning(name: str, backup: Path | None) -> None:
    """Do again what a process was at when it died."""
    with _manager(name, backup) as manager:
        try:
            done = manager.resume()
        except NotYetError as error:
            _not_yet(str(error))
        if isinstance(done, Deployment):
            _tell(name, done, False)
        elif isinstance(done, EvaluationRecord):
            click.echo("\n".join(_judged(done)))
        else:
            click.echo(_trained(name, done))


def _trained(name: str, record: ModelRecord) -> str:
    return (
        f"Trained model {record.n} of {name}, {record.version}, on {record.decisions:,} decisions "
        f"from {_moment(record.trained_from)} to {_moment(record.trained_until)}."
    )


def _judged(judged: EvaluationRecord) -> Iterator[str]:
    yield (
        f"Model {judged.n} against {_served(judged.champion)}, on {judged.decisions:,} held-out "
        f"decisions of {judged.clusters:,} visitors (left out: {judged.left_out}):"
    )
    yield (
        f"  {judged.value:.4g} against {judged.champion_value:.4g} per decision: "
        f"{judged.difference:+.4g} +- {judged.standard_error:.2g}, at least {judged.lower:+.4g}"
    )
    yield f"  attempt {judged.attempt}, error rate {judged.error_rate:.2g}"
    yield (
        f"  effective sample size {judged.effective_size:,.0f}; weights average "
        f"{judged.mean_weight:.3g} +- {judged.mean_weight_error:.2g}, the largest is "
        f"{judged.largest_weight:.3g}"
    )
    yield f"  a model worth a quarter more is recognised with probability {judged.power:.2g}"


def _standing(status: Status) -> Iterator[str]:
    yield f"{status.bandit} is served by {_served(status.champion)}."
    if status.job is not None:
        end = "its process died: 'resume-learning' does it again" if status.is_dead else "under way"
        yield f"{_job(status.job)}: {end}."
    if status.candidate is None:
        yield "There is no newer model to judge."
        return
    since = f" since {_moment(status.judged_until)}" if status.judged_until else ""
    yield (
        f"Model {status.candidate} can be judged by {status.fresh:,} held-out decisions{since}, "
        f"which say as much as {status.effective_size:,.0f} of its own."
    )
    yield (
        f"It would be attempt {status.attempts + 1}, with the error rate {status.error_rate:.2g}; "
        f"a model worth a quarter more is recognised with probability {status.power:.2g}."
    )
    if status.obstacle:
        yield status.obstacle


def _row(record: ModelRecord, champion: int) -> tuple[str, ...]:
    judged = record.evaluation
    return (
        f"{record.n}{'*' if record.n == champion else ''}",
        record.state,
        record.version or record.trainer,
        f"{record.decisions:,}",
        "-" if judged is None else f"{judged.difference:+.3g}",
        "-" if judged is None else f"{judged.lower:+.3g}",
        _moment(record.created),
    )


def _aligned(rows: Sequence[Iterable[str]]) -> Iterator[str]:
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _served(n: int) -> str:
    return f"model {n}" if n else "the policy of the code"


def _job(job: Job) -> str:
    return f"'{job.work}' of model {job.n} in {job.holder}, since {_moment(job.started)}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%MZ")


COMMANDS = (
    train,
    evaluate,
    deploy,
    rollback,
    models,
    learn,
    stop_learning,
    resume_learning,
)
