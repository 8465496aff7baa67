"""``flask bandit replay``: what policies would have earned, from a file of logged decisions.

Needs no storage and no app.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import click

from ..algorithms import CONTEXTUAL_POLICIES
from ..analysis.clustered import Estimate
from ..analysis.events import Columns, read_events
from ..analysis.replaying import Replay, Survey, replay, survey
from ..bandits import Bandit
from ..errors import BanditError
from ..features import Features
from ..model import DEFAULT_GOAL, LogEntry
from ..options import DEFAULT_FLOOR
from ..plugins import import_object, policy_from_name

AXIS, CURVE = 41, 40
"""Characters of a bar and of a curve."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_FORM_HINT = "write 'age=numeric', or a form in JSON, as 'country=[\"de\", \"fr\"]'"
_POLICY_HINT = "write a name such as thompson, or epsilon_greedy(epsilon=0.2)"


@dataclass(frozen=True)
class Row:
    """A policy as it was asked for, and what came of it."""

    name: str
    outcome: Replay


@dataclass(frozen=True)
class Source:
    """A file, and how to read it; it is read once for each policy and once before."""

    file: str
    columns: Columns
    features: tuple[str, ...]
    numeric: tuple[str, ...]
    bandit: str | None

    @contextmanager
    def entries(self) -> Iterator[Iterator[LogEntry]]:
        """Open the file; what cannot be read becomes a message."""
        try:
            with open(self.file, encoding="utf-8-sig", newline="") as lines:
                yield read_events(
                    lines,
                    self.file,
                    columns=self.columns,
                    features=self.features,
                    numeric=self.numeric,
                    bandit=self.bandit,
                )
        except UnicodeDecodeError as error:
            raise click.ClickException(
                f"{self.file} is not text in UTF-8 ({error.reason} at byte {error.start}): "
                "unpack it, or save it as UTF-8"
            ) from None
        except (BanditError, OSError) as error:
            raise click.ClickException(str(error)) from error


def _features(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """Read ``name=form`` each."""
    spec: dict[str, Any] = {}
    for value in values:
        name, separator, form = value.partition("=")
        if not separator or not name.strip() or name.strip() in spec:
            raise click.BadParameter(f"{value!r} cannot be read, or comes twice; {_FORM_HINT}")
        try:
            is_json = form.lstrip()[:1] in ("[", "{")
            spec[name.strip()] = json.loads(form) if is_json else form.strip()
        except ValueError:
            raise click.BadParameter(f"{form!r} is not JSON; {_FORM_HINT}") from None
    return spec


def _columns(context: click.Context, parameter: click.Parameter, value: str | None) -> Columns:
    """Read ``arm=...,reward=...,propensity=...``."""
    given: dict[str, str] = {}
    for part in (value or "").split(",") if value else ():
        name, _, column = part.partition("=")
        if name.strip() not in vars(Columns()) or not column.strip():
            raise click.BadParameter(
                f"{part!r} cannot be read; write 'arm=item_id,reward=click,propensity=p'"
            )
        given[name.strip()] = column.strip()
    return Columns(**given)


@click.command("replay")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--policy",
    "policies",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A policy to replay, as thompson or epsilon_greedy(epsilon=0.2); give it several times.",
)
@click.option(
    "--features",
    multiple=True,
    callback=_features,
    metavar="NAME=FORM",
    help="What contextual policies read: 'age=numeric' or 'country=[\"de\", \"fr\"]'.",
)
@click.option("--bandit", help="Whose decisions to read, where FILE has those of several.")
@click.option("--goal", default=DEFAULT_GOAL, show_default=True, help="Whose rewards count.")
@click.option(
    "--columns",
    callback=_columns,
    metavar="NAME=COLUMN,...",
    help="Other headings of a CSV file: 'arm=item_id,reward=click,propensity=p'.",
)
@click.option(
    "--floor",
    type=click.FloatRange(0.0, 1.0),
    default=DEFAULT_FLOOR,
    show_default=True,
    help="Share of the traffic that is spread evenly.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "form", flag_value="json", help="Print one JSON object with all digits.")
@click.option("--csv", "form", flag_value="csv", help="Print a row of CSV for each policy.")
def replay_command(
    file: str,
    policies: tuple[str, ...],
    features: dict[str, Any],
    bandit: str | None,
    goal: str,
    columns: Columns,
    floor: float,
    seed: int,
    form: str | None,
) -> None:
    """Tell what policies would have earned, had they learned from the decisions in FILE.

    FILE is what 'flask bandit export' wrote, a decision log in JSON Lines, or CSV with the columns
    arm, reward and propensity (the probability with which the arm was taken) and one for each
    feature. Best is a log in which every arm had the same probability.

    Each policy goes through the log from the beginning. It is replayed on the events at which it
    would have chosen what was logged, and learns from these only; so in a uniform log of K arms
    about one event in K counts. The same seed gives the same numbers.
    """
    source = Source(file, columns, tuple(features), _numeric(features), bandit)
    names = dict.fromkeys(policies)
    try:
        spec = Features.parse(features).spec() if features else {}
        bandits = {name: _bandit(name, spec, floor) for name in names}
    except (BanditError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    found = _surveyed(source, goal)
    with _progress(_size(found) * len(bandits), "Replaying") as progress:
        rows = []
        for name, one in bandits.items():
            with source.entries() as entries:
                outcome = replay(one, entries, found, goal, seed=seed, progress=progress)
                rows.append(Row(name, outcome))
    show = {"json": _as_json, "csv": _as_csv, None: _as_text}[form]
    click.echo(show(rows, found, seed), nl=form != "csv")


def _numeric(features: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the features whose cells are numbers."""
    return tuple(
        name
        for name, form in features.items()
        if isinstance(form, str) or (isinstance(form, Mapping) and "hashed" not in form)
    )


def _bandit(text: str, spec: Mapping[str, Any], floor: float) -> Bandit:
    """Make a bandit of ``name`` or ``name(parameter=value, ...)``."""
    name, params = _call(text)
    is_path = "." in name or ":" in name
    if name in CONTEXTUAL_POLICIES or (
        is_path and getattr(import_object(name), "contextual", False)
    ):
        if not spec:
            raise click.UsageError(
                f"{name} chooses by the context; name its features, as --features 'age=numeric'"
            )
        params = {"features": spec, **params}
    return Bandit(policy_from_name(name, params), floor=floor)


def _call(text: str) -> tuple[str, dict[str, Any]]:
    name, separator, rest = text.partition("(")
    if not separator:
        return name.strip(), {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        return name.strip(), {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    except (SyntaxError, ValueError):
        raise click.UsageError(f"--policy {text!r} cannot be read; {_POLICY_HINT}") from None


def _surveyed(source: Source, goal: str) -> Survey:
    with _progress(None, "Reading") as progress, source.entries() as entries:
        found = survey(entries, goal, progress)
        found.require_enough()
    if not found.rewards and found.other_goals:
        raise click.ClickException(
            f"nothing was rewarded for the goal {goal!r}; name one of these with --goal: "
            f"{', '.join(sorted(found.other_goals))}"
        )
    return found


def _size(found: Survey) -> int:
    return found.events + found.left.total + found.certain


@contextmanager
def _progress(length: int | None, label: str) -> Iterator[Callable[[int], object]]:
    """Show how far it is, if somebody looks at a terminal."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    endless = iter(int, 1) if length is None else None
    with click.progressbar(
        endless, length, label, file=sys.stderr, update_min_steps=(length or 200_000) // 200 + 1
    ) as bar:
        yield bar.update


def _logged(found: Survey) -> dict[str, Any]:
    return {
        "events": found.events,
        "arms": found.arms,
        "uniform": found.is_uniform,
        "least_propensity": found.least,
        "reward": asdict(found.logged) if found.logged else None,
        "left_out": {**asdict(found.left), "certain": found.certain},
    }


def _as_json(rows: list[Row], found: Survey, seed: int) -> str:
    policies = [{"name": row.name, **asdict(row.outcome)} for row in rows]
    return json.dumps({"seed": seed, "log": _logged(found), "policies": policies}, indent=2)


def _as_csv(rows: list[Row], found: Survey, seed: int) -> str:
    lines = io.StringIO()
    write = csv.writer(lines, lineterminator="\n").writerow
    write(["policy", "version", "accepted", "reward", "error", "low", "high"])
    for row in rows:
        reward = row.outcome.reward
        cells = [reward.value, reward.error, reward.low, reward.high] if reward else [""] * 4
        write([row.name, row.outcome.version, row.outcome.accepted, *cells])
    return lines.getvalue()


def _as_text(rows: list[Row], found: Survey, seed: int) -> str:
    measured: list[tuple[str, Estimate | None, int]] = [("as logged", found.logged, found.events)]
    measured += [(row.name, row.outcome.reward, row.outcome.accepted) for row in rows]
    known = [reward for _, reward, _ in measured if reward]
    low, high = min(one.low for one in known), max(one.high for one in known)
    width = max(len(name) for name, _, _ in measured)
    lines = [*_heading(found, seed), ""]
    lines.append(f"{'policy':{width}}  {'reward':>8}  {'95 % interval':>18}  {'events':>9}")
    for name, reward, count in measured:
        value = f"{reward.value:8.4g}" if reward else f"{'-':>8}"
        ends = f"{reward.low:.4g} to {reward.high:.4g}" if reward else "too few events"
        lines.append(f"{name:{width}}  {value}  {ends:>18}  {count:9,}")
    lines += ["", f"95 % intervals, on an axis from {low:.4g} to {high:.4g}"]
    lines += [f"{name:{width}}  {_bar(one, low, high)}" for name, one, _ in measured if one]
    curves = [(row.name, [point[2] for point in row.outcome.curve]) for row in rows]
    curves = [(name, curve[-CURVE:]) for name, curve in curves if curve]
    if curves:
        # The first few events swing too far for a scale.
        settled = [value for _, curve in curves for value in curve[len(curve) // 4 :]]
        low, high = min(settled), max(settled)
        lines += ["", f"Reward per event so far, from {low:.4g} (▁) to {high:.4g} (█)"]
        lines += [f"{name:{width}}  {_curve(curve, low, high)}" for name, curve in curves]
    return "\n".join(lines)


def _heading(found: Survey, seed: int) -> Iterator[str]:
    yield f"{found.events:,} events of {len(found.arms):,} arms, seed {seed}."
    if found.left.total or found.certain:
        certain = f"{found.certain:,} where an arm had probability 0" if found.certain else ""
        parts = [str(found.left) if found.left.total else "", certain]
        yield f"Left out: {', '.join(filter(None, parts))}."
    if not found.is_uniform:
        yield (
            f"The log is not uniform: an arm's probability was {found.least:.3g} to "
            f"{found.most:.3g},"
        )
        yield f"so only about {found.expected:,.0f} events can be replayed."


def _bar(one: Estimate, low: float, high: float) -> str:
    cell = (high - low) / (AXIS - 1)
    start, end, middle = (
        round((value - low) / cell) if cell > 0.0 else 0 for value in (one.low, one.high, one.value)
    )
    cells = ["─" if start < place < end else " " for place in range(AXIS)]
    cells[start], cells[end] = "├", "┤"
    cells[middle] = "●"
    return "".join(cells).rstrip()


def _curve(values: list[float], low: float, high: float) -> str:
    span = (high - low) or 1.0
    places = (int((value - low) / span * len(_BLOCKS)) for value in values)
    return "".join(_BLOCKS[min(max(place, 0), len(_BLOCKS) - 1)] for place in places)
