"""What a commit to the JSON storage costs when much is stored already.

Run ``python -m benchmarks.json_write_cost``. The cells of a table are measured in turns, in each
round a slice of every cell, so that a busy machine slows all of them alike: read the ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from flask_bandit.model import Decision, Reward, StatsDelta
from flask_bandit.storage import JSONBanditStorage
from flask_bandit.storage.base import Commit, DecisionWrite, RewardWrite

ARMS = ("green", "red", "blue")
PROPENSITIES = dict.fromkeys(ARMS, 1 / 3)
STORED = (1_000, 10_000, 100_000)
BANDITS = (1, 1_000)


class Cell:
    """One storage with a number of decisions in it, and what slices of commits took."""

    def __init__(self, folder: Path, bandits: int, stored: int) -> None:
        self.bandits = bandits
        self.stored = stored
        self.storage = JSONBanditStorage(folder / f"{bandits}-{stored}.json")
        self._decisions = self._make_decisions()
        self.decision_times: list[float] = []
        self.reward_times: list[float] = []
        written = 0
        while written < stored:
            batch = [next(self._decisions) for _ in range(min(500, stored - written))]
            self.storage.commit(Commit(decisions=tuple(batch)))
            written += len(batch)

    def _make_decisions(self) -> Iterator[DecisionWrite]:
        number = 0
        while True:
            arm = ARMS[number % 3]
            made = Decision(
                id=f"{number:032x}",
                bandit=f"bandit_{number % self.bandits}",
                version=1,
                arm=arm,
                propensities=PROPENSITIES,
                policy_version="thompson(prior=(1.0, 1.0))",
                at=time.time(),
            )
            yield DecisionWrite(made, StatsDelta({arm: {"pulls": 1}}))
            number += 1

    def run(self, size: int) -> None:
        """Time ``size`` commits of a decision, then of a reward for each."""
        writes = [next(self._decisions) for _ in range(size)]
        pulls = [Commit(decisions=(write,)) for write in writes]
        rewards = [Commit(rewards=(reward_of(write.decision),)) for write in writes]
        self.decision_times.append(self._time(pulls))
        self.reward_times.append(self._time(rewards))

    def _time(self, commits: list[Commit]) -> float:
        started = time.perf_counter()
        for commit in commits:
            self.storage.commit(commit, 1.0)
        return (time.perf_counter() - started) / len(commits) * 1e6


def reward_of(made: Decision) -> RewardWrite:
    """Make the reward of a decision."""
    reward = Reward(
        f"{made.id}:reward", made.id, made.bandit, made.version, made.arm, 1.0, time.time()
    )
    sums = {"rewards": 1, "reward": 1.0, "reward_sq": 1.0}
    return RewardWrite(reward, StatsDelta({made.arm: sums}))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--slice", type=int, default=50, help="commits per cell and round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cells = [Cell(Path(folder), bandits, stored) for bandits in BANDITS for stored in STORED]
        for _ in range(options.rounds):
            for cell in cells:
                cell.run(options.slice)
        report(cells)
        for cell in cells:
            cell.storage.close()


def report(cells: list[Cell]) -> None:
    """Print medians of the slices, means, and the ratio to the smallest storage of a group."""
    print("microseconds per commit (median of the slices; mean, which has the checkpoints in it)")
    print("bandits  stored   decision   (mean)  ratio    reward   (mean)  ratio")
    first = cells[0]
    for cell in cells:
        if cell.bandits != first.bandits:
            first = cell
        columns = []
        for times, base in (
            (cell.decision_times, first.decision_times),
            (cell.reward_times, first.reward_times),
        ):
            mean = sum(times) / len(times)
            columns.append(f"{median(times):8.1f} {mean:8.1f} {median(times) / median(base):6.2f}")
        print(f"{cell.bandits:7} {cell.stored:7}   {'  '.join(columns)}")


if __name__ == "__main__":
    main()
