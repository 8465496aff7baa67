"""Late rewards: what a policy makes of visitors of whom it is not known yet whether they will buy.

Two arms. One converts 5 % of its visitors, at once; the other 6 %, late: each after a time of its
own, exponential with the mean ``--delay``, so some come after the window. The clock is the number
of the visitor. The library's own bandit draws and its own counting learns, in three ways:

* a decision counts when it is made, a reward when it comes: "not yet" is taken for "no";
* a decision counts when it is rewarded, or when its window closes without a reward;
* a decision counts when its window closes, with what it has earned: what ``reward_window`` does.

Run ``python -m benchmarks.delayed_rewards``; ``--fixed`` makes all of them equally late.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from flask_bandit.bandits import Bandit, ThompsonBandit
from flask_bandit.counting import decision_delta, mature_delta, reward_delta
from flask_bandit.model import Decision, Reward, StatsDelta, add_counts
from flask_bandit.options import BanditOptions

FAST, SLOW = "fast", "slow"
RATES = {FAST: 0.05, SLOW: 0.06}
GOAL = "reward"


@dataclass(frozen=True)
class Plan:
    """One run: how long it is, and after how many visitors something is known."""

    visitors: int
    window: int
    delay: float
    is_fixed: bool
    every: int
    floor: float


@dataclass
class Site:
    """A bandit, its sums, and the decisions that are not learned yet, the oldest first."""

    bandit: Bandit
    counts: dict[str, dict[str, float]] = field(default_factory=dict)
    open: deque[tuple[Decision, Reward | None]] = field(default_factory=deque)

    def add(self, delta: StatsDelta) -> None:
        """Add an increment to the sums."""
        add_counts(self.counts, delta)


Learning = Callable[[Site, Plan, int], None]
"""Learns what has become known by a visitor's time."""


def earned(now: int, reward: Reward | None) -> bool:
    return reward is not None and reward.at <= now


def at_once(site: Site, plan: Plan, now: int) -> None:
    """Learn rewards when they come; the decisions were counted when they were made."""
    waiting: deque[tuple[Decision, Reward | None]] = deque()
    policy, options = site.bandit.policy, site.bandit.options
    for decision, reward in site.open:
        if reward is None:
            continue
        if earned(now, reward):
            site.add(reward_delta(policy, options, decision, reward))
        else:
            waiting.append((decision, reward))
    site.open = waiting


def when_rewarded(site: Site, plan: Plan, now: int) -> None:
    """Learn a decision when it is rewarded, or else when its window is over."""
    waiting: deque[tuple[Decision, Reward | None]] = deque()
    policy, options = site.bandit.policy, site.bandit.options
    for decision, reward in site.open:
        if reward is not None and earned(now, reward):
            site.add(mature_delta(policy, options, decision, reward.value))
        elif decision.at + plan.window <= now:
            site.add(mature_delta(policy, options, decision, 0.0))
        else:
            waiting.append((decision, reward))
    site.open = waiting


def when_closed(site: Site, plan: Plan, now: int) -> None:
    """Learn a decision when its window is over, with what it has earned."""
    policy, options = site.bandit.policy, site.bandit.options
    while site.open and site.open[0][0].at + plan.window <= now:
        decision, reward = site.open.popleft()
        in_time = reward is not None and reward.at <= decision.at + plan.window
        total = 1.0 if in_time else 0.0
        site.add(mature_delta(policy, options, decision, total))


WAYS: dict[str, Learning] = {
    "a decision at once, a reward when it comes": at_once,
    "when rewarded, or when the window closes": when_rewarded,
    "when the window closes (reward_window)": when_closed,
}


def simulate(way: str, plan: Plan, seed: int) -> tuple[float, float]:
    """Return the better arm's share of all visitors, and of those after the first window."""
    rng, learn = random.Random(seed), WAYS[way]
    options: BanditOptions = {"floor": plan.floor}
    if learn is not at_once:
        options["reward_window"] = float(plan.window)
    bandit = ThompsonBandit(**options)
    for arm in RATES:
        bandit.add_arm(arm)
    site, shown, late = Site(bandit), 0, 0
    for now in range(plan.visitors):
        if now % plan.every == 0:
            learn(site, plan, now)
            table = bandit.draw_table(site.counts)
        decision = Decision(str(now), "b", 1, table.draw(rng.random()), None, "p", float(now))
        shown += decision.arm == SLOW
        late += decision.arm == SLOW and now >= plan.window
        site.add(decision_delta(bandit.policy, bandit.options, decision))
        site.open.append((decision, outcome(decision, plan, rng)))
    return shown / plan.visitors, late / max(plan.visitors - plan.window, 1)


def outcome(decision: Decision, plan: Plan, rng: random.Random) -> Reward | None:
    """Return the reward that a decision will earn, if it earns one."""
    if rng.random() >= RATES[decision.arm]:
        return None
    delay = plan.delay if plan.is_fixed else rng.expovariate(1.0 / plan.delay)
    at = decision.at + (delay if decision.arm == SLOW else 0.0)
    return Reward(decision.id, decision.id, "b", 1, decision.arm, 1.0, at, GOAL)


def describe(shares: Iterable[float]) -> str:
    """Return the mean share in percent, and its standard error."""
    values = [100.0 * share for share in shares]
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{fmean(values):.1f} ± {error:.1f} %"


def measure(options: argparse.Namespace, plan: Plan, console: Console) -> Table:
    """Do all runs; the same seeds for each way."""
    table = Table(title=f"Traffic of the better arm, {options.runs} runs")
    table.add_column("learned")
    for column in ("all visitors", f"after the first {plan.window}"):
        table.add_column(column, justify="right")
    seeds = range(options.seed, options.seed + options.runs)
    with ProcessPoolExecutor(options.processes) as pool:
        for way in WAYS:
            runs = pool.map(partial(simulate, way, plan), seeds)
            shares = list(track(runs, way, options.runs, console=console))
            table.add_row(way, *map(describe, zip(*shares, strict=True)))
    return table


def main(arguments: Any = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--visitors", type=int, default=8000)
    parser.add_argument("--window", type=int, default=4000, help="in visitors")
    parser.add_argument("--delay", type=float, default=2000.0, help="of the slow arm, in visitors")
    parser.add_argument("--fixed", action="store_true", help="each reward is as late as the mean")
    parser.add_argument("--every", type=int, default=20, help="visitors between two updates")
    parser.add_argument("--floor", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    late = options.delay, options.fixed
    plan = Plan(options.visitors, options.window, *late, options.every, options.floor)
    console = Console()
    console.print(measure(options, plan, console))
    console.print("Mean ± standard error. An even split is 50 %.")


if __name__ == "__main__":
    main()
