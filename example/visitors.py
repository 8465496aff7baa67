"""Sends visitors to a running shop, and checks that it counted what they did, to the unit."""

from __future__ import annotations

import argparse
import ipaddress
import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from urllib.parse import urlsplit

from .shopper import ATTEMPTS, TRUE_RATES, Address, Browser, NoAnswerError, Visit, visit_shop

try:
    from rich.progress import track
except ImportError:
    HAS_RICH = False
else:
    HAS_RICH = True

Counts = dict[str, dict[str, dict[str, int]]]

HEADINGS = ("bandit", "arm", "true", "pulls", "clicks", "rate", "share", "first 25%", "last 25%")
LEGEND = """true: what the visitors who saw the arm click on average; rate: what they did click
share: of the traffic, also of the first and the last quarter of the visitors"""


def main() -> int:
    """Run the visitors.

    :return: the exit code, 0 if all counts are right
    """
    args = arguments()
    servers = args.url or [("127.0.0.1", 5000)]
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    say(f"{args.visitors:,} visitors in {args.processes} processes, seed {seed}")
    try:
        before = read_counts(servers, attempts=3)
        started = time.monotonic()
        visits = list(shown_progress(send(args, servers, seed), args.visitors))
        seconds = time.monotonic() - started
        after = read_counts(servers)
    except NoAnswerError as error:
        shops = " or ".join(f"http://{host}:{port}" for host, port in servers)
        say(f"No good answer from {shops}. {error}.")
        say("Start the shop with 'python -m example', or say where it is with --url.")
        return 1
    counted = difference(before, after)
    show_table(table_rows(visits, counted))
    say(f"{args.visitors / seconds:,.0f} visitors per second")
    return verdict(visits, counted)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m example.visitors", description=__doc__)
    parser.add_argument("--visitors", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument(
        "--url",
        type=loopback,
        action="append",
        help="of the shop, of each server if it has several (default: http://127.0.0.1:5000)",
    )
    parser.add_argument("--seed", type=int, help="of the visitors' inclinations")
    args = parser.parse_args()
    if args.visitors < 1 or args.processes < 1:
        parser.error("--visitors and --processes start at 1")
    return args


def loopback(url: str) -> Address:
    """Return host and port of a URL on this machine.

    :raises ArgumentTypeError: it is elsewhere: this is a load, and nobody asked others for it
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
        port = parts.port or 80
    except ValueError:
        is_here, port = False, 0
    if parts.scheme != "http" or not is_here:
        raise argparse.ArgumentTypeError(
            f"{url!r} is not a page of this machine: write http://127.0.0.1:PORT"
        )
    return host, port


def read_counts(servers: Sequence[Address], attempts: int = ATTEMPTS) -> Counts:
    """Read the counts that the shop has stored.

    :raises NoAnswerError: it gives none
    """
    browser = Browser(servers)
    try:
        counts: Counts = json.loads(browser.insist("GET", "/counts.json", attempts))
    finally:
        browser.close()
    return counts


def send(args: argparse.Namespace, servers: Sequence[Address], seed: int) -> Iterator[Visit]:
    """Send the visitors from several processes; yields each as it leaves."""
    visit = partial(visit_shop, servers, seed=seed)
    # Spawned, not forked: progress bars run threads, and a fork would copy their locks.
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        yield from pool.imap_unordered(visit, range(args.visitors))


def difference(before: Counts, after: Counts) -> Counts:
    """Return what was counted in between."""
    return {
        bandit: {
            arm: {key: counts[key] - before[bandit][arm][key] for key in counts}
            for arm, counts in arms.items()
        }
        for bandit, arms in after.items()
    }


def verdict(visits: list[Visit], counted: Counts) -> int:
    """Say whether the stored counts are right.

    :return: the exit code
    """
    wrong = problems(visits, counted)
    failures = sum(visit.failures for visit in visits)
    clicks = sum(visit.clicked for visit in visits)
    seen = f"{len(visits):,} visitors and {clicks:,} clicks"
    for problem in wrong:
        say(f"WRONG: {problem}")
    if wrong:
        say("Was anyone else in the shop, or does its log tell of a storage that failed?")
        return 1
    if failures:
        say(f"{failures:,} requests had no answer and were sent again.")
        say(f"No acknowledged count is lost: answered <= stored <= sent, for {seen}.")
    else:
        say(f"The counts in storage equal what the visitors saw, to the unit: {seen}.")
    return 0


def problems(visits: Iterable[Visit], counted: Counts) -> list[str]:
    """Compare what was stored with what the visitors know.

    Without lost answers everything must be equal. A page whose answer was lost may have been
    counted, for any arm; a click is sent until it is answered, and counts once.
    """
    visits = list(visits)
    found = [f"visitor {visit.index} was moved to another arm" for visit in visits if visit.moved]
    lost = sum(visit.lost_pages for visit in visits)
    for bandit, arms in counted.items():
        shown = Counter(visit.arms[bandit] for visit in visits)
        clicked = Counter(visit.arms[bandit] for visit in visits if visit.clicked)
        surplus = 0
        for arm, stored in arms.items():
            extra = stored["pulls"] - shown[arm]
            surplus += extra
            if extra < 0 or extra > lost:
                found.append(
                    f"{bandit}, {arm}: {shown[arm]} visitors saw it, {stored['pulls']} are stored"
                )
            if stored["clicks"] != clicked[arm]:
                found.append(
                    f"{bandit}, {arm}: {clicked[arm]} clicks answered, {stored['clicks']} stored"
                )
        if surplus > lost:
            found.append(f"{bandit}: {surplus} more pulls stored than seen, {lost} answers lost")
    return found


def table_rows(visits: list[Visit], counted: Counts) -> list[list[str]]:
    """Return the table's rows; shares are of all visitors, of the first quarter and the last."""
    quarter = max(1, len(visits) // 4)
    by_arrival = sorted(visits, key=lambda visit: visit.index)
    rows = []
    for bandit in TRUE_RATES:
        for arm in TRUE_RATES[bandit]:
            stored = counted[bandit][arm]
            here = [visit for visit in visits if visit.arms[bandit] == arm]
            pulls, clicks = stored["pulls"], stored["clicks"]
            true = sum(visit.probability for visit in here) / len(here) if here else None
            row = [bandit, arm, percent(true), f"{pulls:,}", f"{clicks:,}"]
            row.append(percent(clicks / pulls if pulls else None))
            for part in (visits, by_arrival[:quarter], by_arrival[-quarter:]):
                row.append(percent(sum(v.arms[bandit] == arm for v in part) / len(part)))
            rows.append(row)
    return rows


def percent(rate: float | None) -> str:
    """Return a rate as the table writes it."""
    return "-" if rate is None else f"{rate:.1%}"


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def shown_progress(visits: Iterator[Visit], total: int) -> Iterator[Visit]:
    """Pass the visits on, and show how far they are."""
    if HAS_RICH and sys.stdout.isatty():
        yield from track(visits, description="In the shop", total=total)
        return
    step = max(1, total // 10)
    for number, visit in enumerate(visits, 1):
        if number % step == 0:
            say(f"  {number:,} of {total:,}")
        yield visit


def show_table(rows: list[list[str]]) -> None:
    """Print the table, with a gap between bandits."""
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    bandit = ""
    for row in [list(HEADINGS), *rows]:
        if row[0] != bandit:
            say("")
        bandit = row[0]
        names = [cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        say("  ".join(names + numbers))
    say(f"\n{LEGEND}\n")


if __name__ == "__main__":
    sys.exit(main())
