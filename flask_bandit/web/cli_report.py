"""``flask bandit report``: a bandit's page as a file for a colleague (extra ``admin``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext

from ..plugins import import_object
from .cli_data import opened_storage
from .cli_life import note_memory
from .pages import read_page
from .state import app_state

_WRITER = "flask_bandit.web.admin.standalone:standalone_report"


@click.command("report")
@click.argument("name")
@click.option(
    "--html",
    "file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    required=True,
    help="Where to write it.",
)
@click.option("--version", type=int, help="An older version, as it was before a reset.")
@click.option("--locale", help="How numbers are written, such as 'de'; English if left out.")
@with_appcontext
def report_command(name: str, file: Path, version: int | None, locale: str | None) -> None:
    """Write a bandit's page, with its charts and tables, as one HTML file.

    It has no script and loads nothing, so it can be mailed, kept and printed.
    """
    with opened_storage() as storage:
        note_memory(storage)
        write: Any = import_object(_WRITER, "admin")
        state = app_state()
        page = read_page(state, name, version, most=None)
        file.write_text(write(page, state.app.name, locale), encoding="utf-8")
    click.echo(f"Wrote {file}: version {page.report.version} of {name}.")
