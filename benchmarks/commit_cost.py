"""What a commit costs when there are many bandits, and when much is stored already.

The cells of a storage are measured in turns, in each round a slice of every cell, so that a busy
machine slows all of them alike: read the ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track
from rich.table import Table

from flask_bandit.plugins import storage_from_uri
from flask_bandit.storage import BanditStorage, Commit

from .places import NAMES, open_places
from .samples import Samples, reward_of

BANDITS = (1, 10, 100, 1000)
STORED = (10_000, 1_000_000)
AT_ONCE = 500


class Cell:
    """One storage with a number of decisions in it, and what slices of commits took."""

    def __init__(self, storage: BanditStorage, bandits: int, stored: int) -> None:
        self.bandits = bandits
        self.stored = stored
        self._storage = storage
        self._samples = Samples(bandits, "cell")
        self.decision_times: list[float] = []
        self.reward_times: list[float] = []
        for _ in track(range(stored // AT_ONCE), description=f"{stored} stored", transient=True):
            batch = [self._samples.decision() for _ in range(AT_ONCE)]
            storage.commit(Commit(decisions=tuple(batch)))

    def run(self, size: int) -> None:
        """Time ``size`` commits of a decision, then of a reward for each."""
        writes = [self._samples.decision() for _ in range(size)]
        pulls = [Commit(decisions=(write,)) for write in writes]
        rewards = [Commit(rewards=(reward_of(write.decision),)) for write in writes]
        self.decision_times.append(self._time(pulls))
        self.reward_times.append(self._time(rewards))

    def _time(self, commits: list[Commit]) -> float:
        started = time.perf_counter()
        for commit in commits:
            self._storage.commit(commit, 60.0)
        return (time.perf_counter() - started) / len(commits) * 1e6


def measure(name: str, options: argparse.Namespace) -> list[Cell]:
    """Fill and measure the cells of one storage."""
    sizes = [(bandits, options.stored[0]) for bandits in options.bandits]
    sizes += [(options.bandits[0], stored) for stored in options.stored[1:]]
    cells = []
    with ExitStack() as stack:
        for bandits, stored in sizes:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (place,) = stack.enter_context(open_places(folder, (name,)))
            storage = storage_from_uri(place.uri)
            stack.callback(storage.close)
            cells.append(Cell(storage, bandits, stored))
        for _ in range(options.rounds):
            for cell in cells:
                cell.run(options.slice)
    return cells


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [name for name in NAMES if name not in ("memory", "psycopg")]
    parser.add_argument("--storages", nargs="*", default=names, metavar="NAME")
    parser.add_argument("--bandits", type=int, nargs="*", default=list(BANDITS))
    parser.add_argument("--stored", type=int, nargs="*", default=list(STORED))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--slice", type=int, default=50, help="commits per cell and round")
    options = parser.parse_args()
    table = Table(
        "storage", "bandits", "decisions stored", "decision µs", "ratio", "reward µs", "ratio"
    )
    for name in options.storages:
        cells = measure(name, options)
        first = cells[0]
        for cell in cells:
            row = [name, f"{cell.bandits:,}", f"{cell.stored:,}"]
            for times, base in (
                (cell.decision_times, first.decision_times),
                (cell.reward_times, first.reward_times),
            ):
                row += [f"{median(times):.0f}", f"{median(times) / median(base):.2f}"]
            table.add_row(*row)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
