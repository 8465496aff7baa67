"""``flask bandit simulate``: what each policy would cost, before there is any visitor.

Needs no storage, and an app only if one of its bandits is named.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from textwrap import fill
from typing import Any

import click
import numpy as np
from flask.cli import with_appcontext

from ..algorithms import POLICIES
from ..analysis.simulation import Outcome, Plan, batch_sizes, simulate
from ..bandits import Bandit
from ..errors import BanditError
from .state import app_state

WIDTH = 80
LONGEST_NAME = 24
MAX_VISITORS = 10_000_000
MAX_RUNS = 10_000

_RATES_HINT = "write a rate for each arm, as green=.05,red=.1"
# An arm's id may hold commas and equals signs; its rate may not.
_RATE = re.compile(r"\s*(?P<arm>.+?)\s*=(?P<rate>[^=,]*)(?:,|$)", re.DOTALL)
_LEFT_OUT = ("holdout", "reward_window", "half_life")


@dataclass(frozen=True)
class Candidate:
    """A bandit to simulate; the app's own one is shown first."""

    name: str
    bandit: Bandit
    is_own: bool = False


@dataclass(frozen=True)
class Result:
    """One row of the table: a bandit and what came of it."""

    candidate: Candidate
    outcome: Outcome


def _rates(context: click.Context, parameter: click.Parameter, value: str) -> dict[str, float]:
    """Read ``arm=rate,arm=rate``."""
    rates: dict[str, float] = {}
    end = 0
    for match in _RATE.finditer(value):
        if match.start() != end:
            break
        end = match.end()
        arm = match["arm"]
        if arm in rates:
            raise click.BadParameter(f"the arm {arm!r} has two rates; {_RATES_HINT}")
        rates[arm] = _rate(arm, match["rate"])
    if end != len(value):
        raise click.BadParameter(f"{value[end:]!r} has no rate; {_RATES_HINT}")
    if len(rates) < 2:
        raise click.BadParameter(f"there is nothing to choose between; {_RATES_HINT}")
    return rates


def _rate(arm: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    # Written so that a NaN fails.
    if not 0.0 <= rate <= 1.0:
        raise click.BadParameter(
            f"the rate of {arm!r} is {text!r}; write a number from 0 to 1: the share of the "
            "visitors of this arm who bring a reward"
        )
    return rate


@click.command("simulate")
@click.argument("bandit", required=False)
@click.option(
    "--rates",
    required=True,
    callback=_rates,
    metavar="ARM=RATE,...",
    help="True rate of each arm, as green=.05,red=.1.",
)
@click.option("--visitors", type=click.IntRange(1, MAX_VISITORS), default=10_000, show_default=True)
@click.option("--daily", type=click.IntRange(1), help="Visitors a day, to tell days to a decision.")
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1.0, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="How probable it must be that an arm is the best.",
)
@click.option(
    "--runs",
    type=click.IntRange(2, MAX_RUNS),
    default=50,
    show_default=True,
    help="How often each policy is simulated.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The same seed gives the same numbers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all digits.")
def simulate_command(
    bandit: str | None,
    rates: dict[str, float],
    visitors: int,
    daily: int | None,
    confidence: float,
    runs: int,
    seed: int,
    as_json: bool,
) -> None:
    """Compare all policies on arms whose rates you assume.

    Each policy serves the same number of visitors, whose rewards are 0 or 1 and come at once. With
    the name of one of the app's BANDITs, its own policy, floor and burn-in come first; the others
    have their defaults.

    Regret is the number of rewards lost against showing everybody the best arm. A run comes to a
    decision at the first check at which one arm is the best with the probability --confidence,
    by Beta(1, 1) posteriors; checks are made at 100 visitors, whenever there are 5 % more, and at
    the end. The table has the median of the runs, or "> VISITORS" if more than half of them did
    not get there.
    """
    candidates = [Candidate(family, Bandit(policy())) for family, policy in POLICIES.items()]
    if bandit is not None:
        own = _own_bandit(bandit, rates)
        rates = {arm: rates[arm] for arm in own.arm_ids}
        candidates.insert(0, Candidate(bandit, own, is_own=True))
    plan = Plan(rates, visitors, runs, confidence)
    results = _simulate_all(candidates, plan, seed)
    show = _as_json if as_json else _as_text
    click.echo(show(results, plan, seed, daily))


def _own_bandit(name: str, rates: Mapping[str, float]) -> Bandit:
    """Return the app's bandit, of whose arms all and no others must have rates."""
    try:
        bandit: Bandit = with_appcontext(_of_app)(name)
        bandit.check_reward(1.0)
        bandit.check_reward(0.0)
    except (BanditError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    unknown = [arm for arm in rates if arm not in bandit.arm_ids]
    missing = [arm for arm in bandit.arm_ids if arm not in rates]
    if unknown or missing:
        wrong = f"has no arm {unknown[0]!r}" if unknown else f"also has the arm {missing[0]!r}"
        raise click.ClickException(
            f"{name!r} {wrong}; give a rate to each of its arms: {', '.join(bandit.arm_ids)}"
        )
    ignored = [option for option in _LEFT_OUT if getattr(bandit.options, option)]
    if ignored:
        click.echo(f"note: not simulated: {', '.join(ignored)} of {name!r}", err=True)
    return bandit


def _of_app(name: str) -> Bandit:
    return app_state().bandits[name]


def _simulate_all(candidates: list[Candidate], plan: Plan, seed: int) -> list[Result]:
    """Return the app's own bandit, and then all policies from the least regret to the most."""
    batches = sum(1 for _ in batch_sizes(plan.visitors))
    results = []
    try:
        with _progress(batches * len(candidates)) as progress:
            for candidate in candidates:
                # A generator for each: with one row more, the others stay as they are.
                rng = np.random.default_rng(seed)
                results.append(Result(candidate, simulate(candidate.bandit, plan, rng, progress)))
    except BanditError as error:
        raise click.ClickException(str(error)) from error
    return sorted(results, key=lambda each: (not each.candidate.is_own, each.outcome.regret))


@contextmanager
def _progress(length: int) -> Iterator[Callable[[int], object]]:
    """Show how far it is, if somebody looks at a terminal."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    with click.progressbar(
        length=length, label="Simulating", file=sys.stderr, update_min_steps=length // 200 + 1
    ) as bar:
        yield bar.update


def _days(outcome: Outcome, daily: int | None) -> float | None:
    if daily is None or outcome.decided_after is None:
        return None
    return outcome.decided_after / daily


def _as_json(results: list[Result], plan: Plan, seed: int, daily: int | None) -> str:
    rows: list[dict[str, Any]] = [
        {
            "name": result.candidate.name,
            "is_own": result.candidate.is_own,
            "policy": result.candidate.bandit.policy_version,
            "floor": result.candidate.bandit.options.share(len(plan.rates)),
            **asdict(result.outcome),
            "days": _days(result.outcome, daily),
        }
        for result in results
    ]
    return json.dumps({**asdict(plan), "daily": daily, "seed": seed, "policies": rows}, indent=2)


def _as_text(results: list[Result], plan: Plan, seed: int, daily: int | None) -> str:
    arms = ", ".join(f"{arm} {rate:g}" for arm, rate in plan.rates.items())
    lines = [f"{plan.visitors:,} visitors, {plan.runs:,} runs, seed {seed}; rates: {arms}."]
    first = results[0].candidate
    if first.is_own:
        share = first.bandit.options.share(len(plan.rates))
        lines.append(
            f"{first.name} is {first.bandit.policy_version} with floor {share:g}; the others have "
            "their defaults."
        )
    lines = [fill(line, WIDTH) for line in lines]
    lines += ["", *_table(_columns(results, plan, daily)), ""]
    lines += [
        "regret    rewards lost against showing everybody the best arm, ± standard error",
        f"decision  visitors until an arm is the best with probability {plan.confidence:g}: median",
        *([f"days      the same, at {daily:,} visitors a day"] if daily else []),
        "right     of the runs that came to a decision, those that named a best arm",
    ]
    return "\n".join(lines)


def _columns(results: list[Result], plan: Plan, daily: int | None) -> list[list[str]]:
    """Return the columns of the table, each with its heading."""
    outcomes = [result.outcome for result in results]
    columns = [
        ["policy", *(_short(result.candidate.name) for result in results)],
        ["regret", *(f"{each.regret:,.1f} ±{each.regret_error:5,.1f}" for each in outcomes)],
    ]
    for arm in plan.rates:
        columns.append([_short(arm), *(f"{each.shares[arm]:.1%}" for each in outcomes)])
    never = f"> {plan.visitors:,}"
    after = (each.decided_after for each in outcomes)
    columns.append(["decision", *(never if n is None else f"{n:,}" for n in after)])
    if daily:
        never = f"> {plan.visitors / daily:,.1f}"
        days = (_days(each, daily) for each in outcomes)
        columns.append(["days", *(never if n is None else f"{n:,.1f}" for n in days)])
    right = (each.right for each in outcomes)
    columns.append(["right", *("-" if n is None else f"{n:.0%}" for n in right)])
    return columns


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _table(columns: list[list[str]]) -> Iterator[str]:
    """Yield the lines; what is too wide goes below, beside the first column again."""
    first, rest = columns[0], columns[1:]
    while rest:
        block, width = [_padded(first, str.ljust)], max(map(len, first))
        while rest and (len(block) == 1 or width + 2 + max(map(len, rest[0])) <= WIDTH):
            width += 2 + max(map(len, rest[0]))
            block.append(_padded(rest.pop(0), str.rjust))
        yield from ("  ".join(row).rstrip() for row in zip(*block, strict=True))
        if rest:
            yield ""


def _padded(column: list[str], pad: Callable[[str, int], str]) -> list[str]:
    width = max(map(len, column))
    return [pad(cell, width) for cell in column]
