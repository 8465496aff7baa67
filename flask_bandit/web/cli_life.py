"""``flask bandit list``, ``show``, ``pause`` and the other actions, and ``close-windows``.

What can be done to a bandit, and when, is told by :mod:`flask_bandit.control`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeAlias

import click
from flask.cli import with_appcontext

from ..control import ARCHIVED, Control
from ..storage import MemoryBanditStorage
from ..storage.base import BanditStorage
from .actions import Action, Outcome
from .cli_data import opened_storage, progress_bar
from .cli_leaderboard import plain
from .cli_show import list_lines, show_lines
from .pages import read_page
from .reports import Stored, summarise
from .state import app_state

Question: TypeAlias = Callable[[str, Control, str], str]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
_several = click.argument("names", nargs=-1, required=True, metavar="NAME...")
_one = click.argument("name")


def note_memory(storage: BanditStorage) -> None:
    """Say that a storage in memory is this command's own."""
    if isinstance(storage, MemoryBanditStorage) and not app_state().app.testing:
        click.echo(
            "note: this app keeps its bandits in memory, so a command sees none of what the"
            " server has, and changes nothing there; set MAB_STORAGE_URI, for example to"
            " 'sqlite:///bandits.db'.",
            err=True,
        )


def print_json(value: Any) -> None:
    """Print plain values and dataclasses."""
    click.echo(json.dumps(value, indent=2, default=asdict))


@click.command("list")
@click.option("--all", "with_archived", is_flag=True, help="Archived bandits too.")
@json_option
@with_appcontext
def list_(with_archived: bool, as_json: bool) -> None:
    """List the bandits: their state, their decisions, and the best arm so far.

    Also those that are stored and no longer in the code.
    """
    with opened_storage() as storage:
        note_memory(storage)
        stored = Stored.read(app_state().bandits, storage)
    summaries = [summarise(stored, name) for name in stored.names]
    shown = [each for each in summaries if with_archived or each.state != ARCHIVED]
    hidden = len(summaries) - len(shown)
    if as_json:
        print_json(shown)
        return
    if shown:
        click.echo("\n".join(list_lines(shown)))
    elif not hidden:
        click.echo("There is no bandit yet.")
    if hidden:
        click.echo(f"{hidden} archived; --all lists them.", err=True)


@click.command("show")
@_one
@click.option("--version", type=int, help="An older version, as it was before a reset.")
@json_option
@with_appcontext
def show(name: str, version: int | None, as_json: bool) -> None:
    """Show all about a bandit: its state, the verdict, the leaderboard, goals and holdout.

    What was not counted, and what was done to it, too.
    """
    with opened_storage() as storage:
        note_memory(storage)
        found = read_page(app_state(), name, version, most=None)
    if as_json:
        print_json({**asdict(found.report), "results": plain(found.results)})
        return
    encoding = sys.stdout.encoding or "utf-8"
    lines = show_lines(found, is_plain="utf" not in encoding.lower())
    # Names may hold what the terminal does not have.
    click.echo("\n".join(lines).encode(encoding, "replace").decode(encoding))


def _sentence(outcome: Outcome, action: str) -> str:
    state = outcome.state
    if action == "reset":
        state += f" as version {outcome.version}, from zero"
    if not outcome.changed:
        state += " with these weights already" if action == "weights" else " already"
    return f"{outcome.name} is {state}: {outcome.visitors}."


def _run(
    names: tuple[str, ...],
    action: str,
    as_json: bool,
    subject: Any = None,
    question: Question | None = None,
) -> None:
    """Do something to bandits.

    :param question: makes the question from a name, its control afterwards, and what visitors see
        then; nothing is asked if left out
    """
    with opened_storage() as storage:
        note_memory(storage)
        planned = Action(app_state(), names, action, subject)
        if question is not None:
            for name, control in planned.changing.items():
                visitors = planned.visitors(name, control)
                # Not to standard output, which may be JSON for a program.
                click.confirm(question(name, control, visitors), abort=True, err=True)
        if as_json:
            print_json([planned.do(name) for name in planned.names])
            return
        outcomes = []
        for name in planned.names:
            outcomes.append(planned.do(name))
            click.echo(_sentence(outcomes[-1], action))
    if any(outcome.changed for outcome in outcomes):
        ttl = outcomes[-1].followed_within
        click.echo(f"Workers follow {f'within {ttl:g} s' if ttl else 'at once'} (MAB_CONTROL_TTL).")


@click.command("pause")
@_several
@json_option
@with_appcontext
def pause(names: tuple[str, ...], as_json: bool) -> None:
    """Give everybody the control, and count nothing, until 'resume'.

    Does not ask, since it may be urgent and nothing is lost by it.
    """
    _run(names, "pause", as_json)


@click.command("resume")
@_several
@json_option
@with_appcontext
def resume(names: tuple[str, ...], as_json: bool) -> None:
    """Go on after 'pause', as it was before."""
    _run(names, "resume", as_json)


@click.command("close")
@_several
@json_option
@with_appcontext
def close(names: tuple[str, ...], as_json: bool) -> None:
    """Take in no new visitors: they get the control. Who has an arm keeps it and is counted."""
    _run(names, "close", as_json)


@click.command("reopen")
@_several
@json_option
@with_appcontext
def reopen(names: tuple[str, ...], as_json: bool) -> None:
    """Run again after 'close', 'declare' or 'archive', with the counts that there are."""
    _run(names, "reopen", as_json)


@click.command("declare")
@_one
@click.argument("arm")
@yes_option
@json_option
@with_appcontext
def declare(name: str, arm: str, yes: bool, as_json: bool) -> None:
    """Declare ARM the winner: everybody gets it, and nothing is counted."""

    def question(name: str, control: Control, visitors: str) -> str:
        return f"Give {arm!r} of {name!r} to everybody and count nothing?"

    _run((name,), "declare", as_json, arm, None if yes else question)


@click.command("archive")
@_several
@yes_option
@json_option
@with_appcontext
def archive(names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Put bandits away: everybody gets the winner, or the control, and no list has them."""

    def question(name: str, control: Control, visitors: str) -> str:
        return f"Archive {name!r}? Then {visitors}."

    _run(names, "archive", as_json, None, None if yes else question)


@click.command("reset")
@_several
@yes_option
@json_option
@with_appcontext
def reset(names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Start again at zero, as the next version. The counts of this one can still be shown.

    All visitors are new to the next version, and an arm is drawn for them again.
    """

    def question(name: str, control: Control, visitors: str) -> str:
        return (
            f"Start {name!r} again at zero, as version {control.version}? All visitors are drawn"
            " again. This cannot be undone."
        )

    _run(names, "reset", as_json, None, None if yes else question)


def _weights(
    context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, float | None]:
    """Read ``arm=weight`` pairs."""
    weights: dict[str, float | None] = {}
    for pair in pairs:
        # The last sign: an arm's id may have some.
        arm, _, text = pair.rpartition("=")
        if arm in weights:
            raise click.BadParameter(f"the arm {arm!r} has two weights")
        try:
            weights[arm] = {"off": None, "on": 1.0}[text] if text in ("off", "on") else float(text)
        except ValueError:
            arm = ""
        if not arm:
            raise click.BadParameter(
                f"{pair!r} is no weight; write ARM=2, ARM=0, ARM=off or ARM=on"
            )
    return weights


@click.command("weights")
@_one
@click.argument("weights", nargs=-1, required=True, callback=_weights, metavar="ARM=WEIGHT...")
@json_option
@with_appcontext
def weights(name: str, weights: dict[str, float | None], as_json: bool) -> None:
    """Weigh arms: ARM=2 doubles what the policy gives it against the others, 'on' is 1.

    With ARM=0 no new visitor gets the arm, and who has it keeps it. With ARM=off nobody gets it,
    and who has it gets another. Counts stay in any case.
    """
    _run((name,), "weights", as_json, weights)


@click.command("close-windows")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
@with_appcontext
def close_windows(names: tuple[str, ...], as_json: bool) -> None:
    """Let policies learn from the decisions whose reward window is over.

    The app does so by itself while it has visitors. This looks at every decision again, so what an
    import brought is learned too; none is learned twice. All bandits with a reward_window if there
    is no NAME.
    """
    closed: dict[str, int] = {}
    with opened_storage() as storage:
        note_memory(storage)
        state = app_state()
        windowed = [n for n, bandit in state.bandits.items() if bandit.options.reward_window]
        for name in names:
            state.bandits.require(name)
            if name not in windowed:
                raise click.ClickException(f"{name!r} has no reward_window, so it learns at once.")
        for name in dict.fromkeys(names or windowed):
            pulls = _pulls(storage, name)
            with progress_bar(f"Closing windows of {name}", pulls) as progress:
                closed[name] = state.closer.close(name, again=True, progress=progress)
    if as_json:
        print_json([{"name": name, "learned": count} for name, count in closed.items()])
        return
    for name, count in closed.items():
        click.echo(f"{name}: learned from {count:,} decision{'' if count == 1 else 's'}.")
    if not closed:
        click.echo("No bandit has a reward_window.")


def _pulls(storage: BanditStorage, name: str) -> int:
    return sum(
        int(row.get("pulls", 0))
        for key, arms in storage.read_counts().items()
        if key.bandit == name
        for row in arms.values()
    )


COMMANDS = (
    list_,
    show,
    pause,
    resume,
    close,
    reopen,
    declare,
    archive,
    reset,
    weights,
    close_windows,
)
