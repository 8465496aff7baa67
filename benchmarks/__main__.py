"""Runs all benchmarks one after the other: ``make bench``."""

from __future__ import annotations

import runpy
import sys

MODULES = (
    "requests",
    "new_visitors",
    "commit_latency",
    "commit_cost",
    "propensities",
    "regret",
    "delayed_rewards",
    "verdicts",
    "dashboard",
    "contextual",
    "gate",
    "ope",
    "open_bandit",
)


def main() -> None:
    for module in MODULES:
        sys.argv[1:] = []
        runpy.run_module(f"benchmarks.{module}", run_name="__main__")


if __name__ == "__main__":
    main()
