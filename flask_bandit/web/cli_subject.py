"""``flask bandit subject export`` and ``erase``: what is stored about one user of the app.

Both read everything that is stored, since a storage keeps no list of subjects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click
from flask.cli import AppGroup, with_appcontext

from ..model import Decision, Reward
from ..storage.base import BanditStorage
from .cli_data import opened_storage, progress_bar
from .cli_life import json_option, note_memory, print_json, yes_option
from .reports import moment
from .state import app_state

subject_cli = AppGroup("subject", help="Show or erase what is stored about one user.")
_subject = click.argument("subject")


@dataclass(frozen=True)
class Trace:
    """One decision of a subject, with what it earned."""

    decision: Decision
    rewards: tuple[Reward, ...]


def traces_of(storage: BanditStorage, pseudonyms: tuple[str, ...]) -> list[Trace]:
    """Return a subject's decisions, the oldest first.

    Those made before the subject signed in are among them, if the subject went on with their arm.
    """
    found = {
        trace.decision.id: trace
        for trace in _all(storage, "Reading")
        if trace.decision.subject in pseudonyms
    }
    made_before = {trace.decision.stands_for for trace in found.values()} - {None, *found}
    if made_before:
        # They may be stored before what tells that they are the subject's.
        for trace in _all(storage, "Reading again"):
            if trace.decision.id in made_before:
                found[trace.decision.id] = trace
    return sorted(found.values(), key=lambda trace: (trace.decision.at, trace.decision.id))


def _all(storage: BanditStorage, label: str) -> Iterator[Trace]:
    pulls = sum(
        int(row.get("pulls", 0)) for arms in storage.read_counts().values() for row in arms.values()
    )
    with progress_bar(label, pulls) as progress:
        for commit in storage.iter_commits():
            rewards = tuple(write.reward for write in commit.rewards)
            for write in commit.decisions:
                progress(1)
                yield Trace(write.decision, rewards)


@subject_cli.command("export")
@_subject
@json_option
@with_appcontext
def export_subject(subject: str, as_json: bool) -> None:
    """Print all decisions and rewards of a user of the app.

    SUBJECT is the app's own id of the user, as the subject_loader returns it. With --json it is one
    object with everything that is stored, to be handed over.
    """
    with opened_storage() as storage:
        note_memory(storage)
        traces = traces_of(storage, app_state().pseudonyms(subject))
    # A stand-in only says whose the other decision is.
    traces = [trace for trace in traces if trace.decision.stands_for is None]
    if as_json:
        print_json({"subject": subject, "decisions": [_plain(trace) for trace in traces]})
        return
    for trace in traces:
        click.echo(_line(trace))
    if not traces:
        click.echo("Nothing is stored about this subject.")


def _plain(trace: Trace) -> dict[str, object]:
    made = trace.decision
    return {
        "id": made.id,
        "bandit": made.bandit,
        "version": made.version,
        "arm": made.arm,
        "at": moment(made.at),
        "propensities": None if made.propensities is None else dict(made.propensities),
        "policy": made.policy_version,
        "context": None if made.context is None else dict(made.context),
        "pseudonym": made.subject,
        "rewards": [
            {"goal": reward.goal, "value": reward.value, "at": moment(reward.at)}
            for reward in trace.rewards
        ],
    }


def _line(trace: Trace) -> str:
    made = trace.decision
    earned = ", ".join(
        f"{reward.goal} {reward.value:g} at {moment(reward.at)}" for reward in trace.rewards
    )
    line = f"{moment(made.at)}  {made.bandit} (version {made.version}): {made.arm}"
    return f"{line}; earned {earned}" if earned else line


@subject_cli.command("erase")
@_subject
@yes_option
@json_option
@with_appcontext
def erase_subject(subject: str, yes: bool, as_json: bool) -> None:
    """Remove from all decisions that they were made for a user, and their contexts.

    The counts stay, and so does what is needed to count once. SUBJECT is the app's own id of the
    user, as the subject_loader returns it.
    """
    with opened_storage() as storage:
        note_memory(storage)
        traces = traces_of(storage, app_state().pseudonyms(subject))
        erased = 0
        if traces:
            if not yes:
                click.confirm(
                    f"Erase the subject and the context of {_decisions(len(traces))}? "
                    "This cannot be undone.",
                    abort=True,
                    err=True,
                )
            erased = storage.erase([trace.decision.id for trace in traces])
    if as_json:
        print_json({"erased": erased})
    elif traces:
        click.echo(f"Erased the subject and the context of {_decisions(erased)}. The counts stay.")
    else:
        click.echo("Nothing is stored about this subject.")


def _decisions(count: int) -> str:
    return f"{count:,} decision{'' if count == 1 else 's'}"
