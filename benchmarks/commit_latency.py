"""How long one commit of a new decision takes on each storage: p50 and p99 at 1, 4 and 8 processes.

Each process has a storage object of its own and commits without a pause, so with more processes
than cores most of the time is waiting for a core. The storages are measured one after the other.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from flask_bandit.plugins import storage_from_uri
from flask_bandit.storage import Commit

from .places import NAMES, Place, open_places
from .samples import Samples

PROCESSES = (1, 4, 8)
ONE_PROCESS = ("memory", "zodb")
"""Storages that belong to one process."""


def work(connection: Connection, uri: str, worker: str, count: int) -> None:
    """Commit ``count`` decisions and send what each took, in seconds."""
    storage = storage_from_uri(uri)
    samples = Samples(1, worker)
    # The first one opens the connection and makes the tables.
    storage.commit(Commit(decisions=(samples.decision(),)))
    connection.send("ready")
    connection.recv()
    times = []
    for _ in range(count):
        commit = Commit(decisions=(samples.decision(),))
        started = time.perf_counter()
        storage.commit(commit, 60.0)
        times.append(time.perf_counter() - started)
    connection.send(times)
    storage.close()


def measure(uri: str, processes: int, count: int) -> np.ndarray:
    """Return the latencies of all processes in microseconds."""
    context = multiprocessing.get_context("spawn")
    started = []
    for number in range(processes):
        ours, theirs = context.Pipe()
        args = (theirs, uri, f"{processes}-{number}-{time.time_ns():x}", count)
        process = context.Process(target=work, args=args)
        process.start()
        started.append((process, ours))
    for _, connection in started:
        assert connection.recv() == "ready"
    for _, connection in started:
        connection.send("go")
    times = np.concatenate([connection.recv() for _, connection in started])
    for process, connection in started:
        process.join()
        connection.close()
    return times * 1e6


def add_rows(table: Table, place: Place, processes: list[int], count: int) -> None:
    for number in processes:
        if number > 1 and place.name in ONE_PROCESS:
            continue
        times = measure(place.uri, number, count)
        p50, p99 = np.percentile(times, [50, 99])
        table.add_row(place.name, str(number), f"{p50:.0f}", f"{p99:.0f}", f"{times.max():.0f}")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [name for name in NAMES if name != "psycopg"]
    parser.add_argument("--storages", nargs="*", default=names, metavar="NAME")
    parser.add_argument("--processes", type=int, nargs="*", default=list(PROCESSES))
    parser.add_argument("--commits", type=int, default=1000, help="per process")
    options = parser.parse_args()
    table = Table("storage", "processes", "p50 µs", "p99 µs", "longest µs")
    with (
        tempfile.TemporaryDirectory() as folder,
        open_places(Path(folder), tuple(options.storages)) as places,
    ):
        for place in places:
            add_rows(table, place, options.processes, options.commits)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
