"""Small logs: decisions as tuples, and what the storage and the reader make of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flask_bandit.analysis.digest import Digest, Reader
from flask_bandit.model import ArmStats, Decision, LogEntry, Reward

CELL = 10.0


@dataclass(frozen=True)
class Seen:
    """A decision: when, which arm, with which probabilities, and what it earned."""

    at: float
    arm: str
    chances: Mapping[str, float] | None
    earned: float = 0.0


def digest(decisions: Iterable[Seen], window: float | None = None, read_at: float = 1e9) -> Digest:
    """Read a log; a span is ten seconds."""
    reader = Reader(1, "reward", window, read_at, CELL)
    reader.read(_entry(number, seen) for number, seen in enumerate(decisions))
    return reader.part(-1.0, 1e12)


def _entry(number: int, seen: Seen) -> LogEntry:
    decision = Decision(str(number), "b", 1, seen.arm, seen.chances, "p", seen.at)
    if not seen.earned:
        return LogEntry(decision)
    reward = Reward(f"r{number}", str(number), "b", 1, seen.arm, seen.earned, seen.at)
    return LogEntry(decision, (reward,))


def counts(decisions: Iterable[Seen]) -> dict[str, ArmStats]:
    """Count as a storage does."""
    total: dict[str, ArmStats] = {}
    for seen in decisions:
        old = total.get(seen.arm, ArmStats())
        total[seen.arm] = ArmStats(
            old.pulls + 1,
            old.rewards + bool(seen.earned),
            old.reward + seen.earned,
            old.reward_sq + seen.earned**2,
        )
    return total


def plain(pulls: int, rewards: int) -> ArmStats:
    """Return counts of an arm whose rewards are 1."""
    return ArmStats(pulls, rewards, float(rewards), float(rewards))
