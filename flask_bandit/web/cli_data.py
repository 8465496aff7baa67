"""``flask bandit export``, ``import``, ``prune``, ``storage`` and ``db``: what concerns the data.

These commands wait for the storage as long as it takes.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import IO

import click
from flask.cli import AppGroup, with_appcontext

from ..analysis.digest import Digest
from ..control import Control
from ..errors import BanditError
from ..learned import missing_models
from ..model import BanditKey
from ..storage.base import BanditStorage, Commit
from ..storage.transfer import BATCH, audit, read_import, write_export
from ..windows import GRACE
from .state import app_state

storage_cli = AppGroup("storage", help="Look after the storage.")
db_cli = AppGroup("db", help="Look after the tables of a database.")


@contextmanager
def opened_storage() -> Iterator[BanditStorage]:
    """Give a command the app's storage, close it at the end, and turn errors into messages."""
    try:
        storage = app_state().storage
        try:
            yield storage
        finally:
            storage.close()
    except BanditError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.errno == errno.EPIPE:
            # Nobody reads on: click ends quietly.
            raise
        hint = "see to the path, its permissions and the room on the disk"
        raise click.ClickException(f"{error}; {hint}") from error


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@with_appcontext
def export(file: str, force: bool) -> None:
    """Write all decisions, rewards and imported counts to FILE, or to standard output if it is -.

    FILE appears when it is complete. 'flask bandit import' reads it into any storage.
    """
    with opened_storage() as storage:
        pulls = sum(
            int(row.get("pulls", 0))
            for arms in storage.read_counts().values()
            for row in arms.values()
        )
        with _output(file, force) as output, progress_bar("Exporting", pulls) as progress:
            tally = write_export(storage, output, progress)
    click.echo(f"Exported {tally}.", err=file == "-")


@contextmanager
def _output(file: str, force: bool) -> Iterator[IO[bytes]]:
    """Open what an export goes to; a file gets its name when all of it is on the disk."""
    if file == "-":
        yield sys.stdout.buffer
        return
    if os.path.exists(file) and not os.path.isfile(file):
        raise click.ClickException(
            f"{file} is not a regular file; write - and redirect the output."
        )
    if os.path.exists(file) and not force:
        raise click.ClickException(f"{file} exists; use --force to overwrite it.")
    target = os.path.realpath(file)
    fd, temporary = tempfile.mkstemp(
        ".part", f"{os.path.basename(target)}.", os.path.dirname(target)
    )
    try:
        with open(fd, "wb") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@with_appcontext
def import_(file: str) -> None:
    """Add what 'flask bandit export' wrote to FILE, or standard input if it is -.

    What is there already is not added again, so a later export of the same storage adds what is
    new. Of a file that is damaged or cut off nothing is added.
    """
    with (
        opened_storage() as storage,
        _input(file) as content,
        progress_bar("Importing") as progress,
    ):
        name = "standard input" if file == "-" else file
        imported = read_import(storage, content, name, progress)
        # What is new may be older than what was read before.
        for bandit in sorted({key.bandit for key in storage.read_counts()}):
            app_state().digester.forget(bandit)
    click.echo(f"Read {imported.read}; new: {imported.new}.")
    if imported.other_arm:
        click.echo(
            f"note: {imported.other_arm} decisions are stored for another arm than in {name}; they"
            " count as they were stored first.",
            err=True,
        )
    if imported.unmerged:
        click.echo(
            f"note: learned sums of {imported.unmerged}"
            f" bandit{'' if imported.unmerged == 1 else 's'} were not merged: the target has"
            " learned its own.",
            err=True,
        )
    for bandit, number in missing_models(storage).items():
        click.echo(
            f"note: model {number} of {bandit} is deployed and not in this storage, since exports"
            " have no models: until it is there the policy of the code serves. Bring the models"
            f" back from a backup, or run 'flask bandit rollback {bandit}'.",
            err=True,
        )


@contextmanager
def _input(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    with open(file, "rb") as content:
        yield content


@contextmanager
def progress_bar(label: str, length: int | None = None) -> Iterator[Callable[[int], object]]:
    """Show how far it is, if somebody looks at a terminal."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    steps = None if length is not None else iter(int, 1)
    # Drawing takes longer than a commit.
    with click.progressbar(
        steps, length, label, show_pos=True, file=sys.stderr, update_min_steps=BATCH
    ) as bar:
        yield bar.update


def _moment(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Read a date or a time, in UTC unless it says otherwise, as seconds since the epoch."""
    try:
        # Python 3.10 does not know the Z.
        moment = datetime.fromisoformat(value[:-1] + "+00:00" if value[-1:] in "Zz" else value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a date; write it as '2025-12-31' or '2025-12-31T18:00+01:00'"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    try:
        before = moment.timestamp()
    except (OverflowError, ValueError):
        raise click.BadParameter(f"{value!r} is too long ago to be a time in UTC") from None
    if before > time.time():
        raise click.BadParameter(f"{moment.isoformat()} is in the future")
    return before


def _spared(before: float) -> float:
    """Return a time that is early enough for every reward window to be over."""
    windows = {
        name: bandit.options.reward_window
        for name, bandit in app_state().bandits.items()
        if bandit.options.reward_window is not None
    }
    if not windows:
        return before
    name = max(windows, key=windows.__getitem__)
    over = time.time() - windows[name] - GRACE
    if before > over:
        click.echo(
            f"note: decisions since {_in_words(over)} are kept: the reward window of {name!r} may"
            " be open.",
            err=True,
        )
    return min(before, over)


def _close_windows() -> None:
    """Let policies learn from what is about to be pruned; afterwards they cannot."""
    state = app_state()
    for name in state.bandits:
        # From the beginning: an import may have brought older decisions.
        state.closer.close(name, again=True)


def _in_words(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="seconds")


@click.command("prune")
@click.option(
    "--before",
    required=True,
    callback=_moment,
    metavar="DATE",
    help="A date, or a date and time, as 2025-12-31 or 2025-12-31T18:00+01:00; UTC by default.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_appcontext
def prune(before: float, yes: bool) -> None:
    """Remove the details of decisions made before a DATE. The counts stay.

    Contexts, subjects and probabilities are removed. What is needed to count once stays.

    Where a bandit has a reward_window, windows that are over are closed first, so that the policy
    learns from what is pruned; and decisions of any bandit that are younger than the longest window
    are kept, whatever the DATE, since theirs may be open.
    """
    with opened_storage() as storage:
        before = _spared(before)
        when = _in_words(before)
        if not yes:
            count = sum(entry.decision.at < before for entry in storage.iter_log())
            if not count:
                click.echo(f"No decision before {when} has details to remove.")
                return
            click.confirm(
                f"Remove the details of {_decisions(count)} made before {when}? This cannot be"
                " undone.",
                abort=True,
            )
        _close_windows()
        for key in storage.read_counts():
            _read_log(storage, *key)
        click.echo(f"Removed the details of {_decisions(storage.prune(before))}.")


@click.command("reread")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@with_appcontext
def reread(names: tuple[str, ...]) -> None:
    """Read the whole log again for the charts and tests of the dashboard.

    The app reads what is new by itself, and after an import everything. This is for a log that was
    changed in another way. All bandits in the code if there is no NAME. What was pruned since it
    was read is lost to the charts; the counts are not touched.
    """
    with opened_storage() as storage:
        state = app_state()
        for name in dict.fromkeys(names or state.bandits):
            state.bandits.require(name)
            state.digester.forget(name)
            digest = _read_log(storage, name)
            click.echo(f"{name}: read {_decisions(digest.decisions)}.")


def _read_log(storage: BanditStorage, name: str, version: int | None = None) -> Digest:
    """Read what is new of a version's log, however long that takes.

    :param version: the one in force if left out
    """
    state = app_state()
    control = Control.load(storage.read_control().get(name))
    key = BanditKey(name, control.version if version is None else version)
    return state.digester.read(key, storage.read_counts().get(key, {}), control).digest


def _decisions(count: int) -> str:
    return f"{count} decision{'' if count == 1 else 's'}"


@storage_cli.command("check")
def check_storage() -> None:
    """Read and write, look at the storage's settings, and add up whether the counts are right."""
    with opened_storage() as storage:
        counts = storage.read_counts()
        # Nothing in it: what is tested is the way there.
        storage.commit(Commit())
        problems = [*storage.check(), *audit(storage)]
    for problem in problems:
        click.echo(f"- {problem}", err=True)
    if problems:
        raise click.ClickException(f"{len(problems)} to mend")
    pulls = sum(int(row.get("pulls", 0)) for arms in counts.values() for row in arms.values())
    rewards = sum(int(row.get("rewards", 0)) for arms in counts.values() for row in arms.values())
    click.echo(
        f"{type(storage).__name__} answers; its counts ({pulls} pulls, {rewards} rewards) are the"
        " sums of what is stored."
    )


@db_cli.command("upgrade")
def upgrade() -> None:
    """Make the tables of the storage, or bring them up to date."""
    with opened_storage() as storage:
        click.echo(storage.upgrade())
