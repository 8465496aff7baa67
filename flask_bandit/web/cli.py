"""``flask bandit ...``: what is done to an app's bandits from the command line."""

from __future__ import annotations

from collections.abc import Iterator

import click
from flask import current_app
from flask.cli import AppGroup

from ..control import problems_of
from ..errors import BanditError
from ..learned import missing_models
from ..migration import flask_mab_adjustments
from ..storage.base import Commit
from .cli_data import db_cli, export, import_, opened_storage, prune, reread, storage_cli
from .cli_learning import COMMANDS as LEARNING
from .cli_life import COMMANDS
from .cli_replay import replay_command
from .cli_report import report_command
from .cli_simulate import simulate_command
from .cli_subject import subject_cli
from .state import AppState, app_state
from .wiring import wiring_problems

bandit_cli = AppGroup("bandit", help="Look after the app's bandit experiments.")
for command in (
    *COMMANDS,
    *LEARNING,
    export,
    import_,
    prune,
    replay_command,
    report_command,
    reread,
    simulate_command,
    subject_cli,
    storage_cli,
    db_cli,
):
    bandit_cli.add_command(command)


def _state() -> AppState:
    try:
        state = app_state()
        state.registry.freeze(state.config.bandits)
        return state
    except BanditError as error:
        raise click.ClickException(str(error)) from error


@bandit_cli.command("check")
def check() -> None:
    """Find what cannot work: names, decorators, settings, the secret key, the storage."""
    state = _state()
    problems = list(wiring_problems(state.app, state.bandits))
    try:
        state.codec.loads("")
        _ = state.rules
        state.storage.read_counts(state.config.storage_timeout)
        problems += _control_problems(state)
        state.storage.close()
    except BanditError as error:
        problems.append(str(error))
    for problem in problems:
        click.echo(f"- {problem}", err=True)
    if problems:
        raise click.ClickException(f"{len(problems)} to mend")
    count = len(state.bandits)
    click.echo(f"{count} bandit{'' if count == 1 else 's'}, nothing to mend.")


def _control_problems(state: AppState) -> Iterator[str]:
    stored = state.storage.read_control(state.config.storage_timeout)
    for name, bandit in state.bandits.items():
        for problem in problems_of(stored.get(name), bandit.arm_ids):
            yield f"the bandit {name!r}: {problem}"
    for name, number in missing_models(state.storage, state.config.storage_timeout).items():
        yield (
            f"the bandit {name!r}: model {number} is deployed and not in the storage, so the "
            "policy of the code serves; 'rollback' it, or bring the models back from a backup"
        )


@bandit_cli.command("import-flask-mab")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def import_flask_mab(file: str) -> None:
    """Add the counts in Flask-MAB's JSON FILE to the bandits of the same names.

    The same file counts once, however often it is imported.
    """
    state = _state()
    with opened_storage() as storage:
        adjustments, notes = flask_mab_adjustments(file, state.bandits, state.engine.version)
        new = storage.commit(Commit(adjustments=tuple(adjustments))).new
    for note in notes:
        click.echo(f"note: {note}", err=True)
    for adjustment in adjustments:
        pulls = sum(int(row["pulls"]) for row in adjustment.delta.counts.values())
        reward = sum(row["reward"] for row in adjustment.delta.counts.values())
        what = "imported" if adjustment.id in new else "imported before, nothing added"
        click.echo(f"{adjustment.bandit}: {pulls} pulls, reward {reward:g}: {what}")
    if not adjustments:
        click.echo(f"Nothing to import into {current_app.name}.")
