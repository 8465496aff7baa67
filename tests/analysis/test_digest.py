"""The digest against sums over the same list of decisions, taken directly."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_bandit.analysis.digest import (
    CELLS,
    CHANCE,
    MOST_SPANS,
    OFFERED,
    PULLS,
    REWARD,
    REWARD_SQ,
    REWARDS,
    Digest,
    Reader,
    Span,
    cell_length,
)
from flask_bandit.model import HELD_OUT, Decision, LogEntry, Reward

ARMS = ("a", "b", "c")
NOW = 1_700_000_000.0


def entry(
    number: int,
    arm: str = "a",
    at: float = NOW,
    propensities: dict[str, float] | None = None,
    rewards: Sequence[tuple[float, float, str]] = (),
    version: int = 1,
    suffix: str = "",
) -> LogEntry:
    """Return a decision with rewards given as (value, seconds later, goal)."""
    decision = Decision(f"d{number}{suffix}", "btn", version, arm, propensities, "p", at)
    return LogEntry(
        decision,
        tuple(
            Reward(f"r{number}-{place}", decision.id, "btn", version, arm, value, at + later, goal)
            for place, (value, later, goal) in enumerate(rewards)
        ),
    )


chances = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3).map(
    lambda raw: {arm: value / sum(raw) for arm, value in zip(ARMS, raw, strict=True)}
)
vectors = st.one_of(
    chances,
    st.none(),
    # What a prefetch leaves: the arm's own probability alone.
    st.sampled_from(ARMS).map(lambda arm: {arm: 0.25}),
)


@st.composite
def logs(draw: st.DrawFn) -> list[LogEntry]:
    entries = []
    for number in range(draw(st.integers(0, 25))):
        propensities = draw(vectors)
        arms = list(propensities) if propensities else ARMS
        rewards = draw(
            st.lists(
                st.tuples(
                    st.floats(-5, 5), st.floats(0, 200), st.sampled_from(["reward", "other"])
                ),
                max_size=2,
            )
        )
        at = NOW + draw(st.floats(0, 1000))
        entries.append(entry(number, draw(st.sampled_from(arms)), at, propensities, rewards))
    return entries


def chance(entry: LogEntry, arm: str) -> float:
    assert entry.decision.propensities is not None
    return entry.decision.propensities[arm]


def close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


def read(
    entries: Sequence[LogEntry], cell: float | None = 16.0, window: float | None = None
) -> Digest:
    reader = Reader(1, "reward", window, NOW + 10_000, cell)
    reader.read(entries)
    return reader.part(-math.inf, math.inf)


@given(logs(), st.sampled_from([None, 1.0, 64.0]), st.sampled_from([None, 100.0]))
def test_sums_are_those_of_the_decisions(
    entries: list[LogEntry], cell: float | None, window: float | None
) -> None:
    total = read(entries, cell, window).total()
    full = [e for e in entries if e.decision.propensities and len(e.decision.propensities) == 3]
    assert total.decisions == len(entries)
    assert total.unknown == sum(e.decision.propensities is None for e in entries)
    assert total.vectors == len(full)
    for arm in ARMS:
        row = total.row(arm)
        mine = [e for e in entries if e.decision.arm == arm]
        counted = [r for e in mine for r in e.rewards if r.goal == "reward"]
        assert row.sums[PULLS] == len(mine)
        assert row.sums[REWARDS] == len(counted)
        assert close(row.sums[REWARD], sum(r.value for r in counted))
        assert close(row.sums[REWARD_SQ], sum(r.value**2 for r in counted))
        assert row.sums[OFFERED] == len(full)
        assert close(row.sums[CHANCE], sum(chance(e, arm) for e in full))
        known = [
            (
                sum(
                    r.value
                    for r in e.rewards
                    if r.goal == "reward" and r.at <= e.decision.at + (window or math.inf)
                ),
                chance(e, arm),
            )
            for e in mine
            if e.decision.propensities
        ]
        for i in range(3):
            for j in range(3):
                assert close(row.moment(i, j), sum(r**i / p**j for r, p in known))


@given(logs())
def test_the_ratio_is_that_of_the_decisions(entries: list[LogEntry]) -> None:
    ratio = read(entries).ratio
    full = [e for e in entries if e.decision.propensities and len(e.decision.propensities) == 3]
    for arm in ARMS:
        assert ratio.shown.get(arm, 0) == sum(e.decision.arm == arm for e in full)
        expected = sum(chance(e, arm) for e in full)
        assert close(ratio.expected.get(arm, 0.0), expected)
        for other in ARMS:
            if arm <= other:
                product = sum(chance(e, arm) * chance(e, other) for e in full)
                assert close(ratio.products.get((arm, other), 0.0), product)


@given(logs())
def test_it_is_read_back_from_json_as_it_was(entries: list[LogEntry]) -> None:
    digest = read(entries)
    digest.through, digest.written_at, digest.counted = NOW, NOW + 1, 7
    assert Digest.load(json.loads(json.dumps(digest.dump()))) == digest


@given(logs(), st.floats(0, 1000))
def test_two_parts_add_up_to_the_whole(entries: list[LogEntry], cut: float) -> None:
    reader = Reader(1, "reward", None, NOW, 16.0)
    reader.read(entries)
    edge = NOW + cut
    whole, early = reader.part(-math.inf, math.inf), reader.part(-math.inf, edge)
    early.append(reader.part(edge, math.inf), NOW)
    assert early.spans == whole.spans
    assert early.ratio.shown == whole.ratio.shown


def test_the_order_of_the_entries_does_not_matter() -> None:
    entries = [
        entry(n, ARMS[n % 3], NOW + 7.0 * n, {"a": 0.5, "b": 0.3, "c": 0.2}) for n in range(50)
    ]
    assert read(entries).spans == read(entries[::-1]).spans


def test_other_versions_and_the_holdout_are_left_out() -> None:
    entries = [entry(1), entry(2, version=2), entry(3, suffix=HELD_OUT)]
    assert read(entries).decisions == 1


def test_spans_are_merged_where_they_are_shortest_and_nothing_is_lost() -> None:
    digest = Digest()
    # A slow day of hours, and then a minute of seconds.
    times = [NOW + 3600.0 * n for n in range(100)] + [NOW + 360_000.0 + n for n in range(60)]
    for number, at in enumerate(times):
        part = read([entry(number, at=at, propensities={"a": 0.5, "b": 0.5})], 1.0)
        digest.append(part, at)
        assert len(digest.spans) <= MOST_SPANS
    assert digest.decisions == 160
    assert digest.ratio.shown == {"a": 160}
    lengths = [span.end - span.start for span in digest.spans]
    assert max(lengths) < 3600.0  # It was the seconds that were merged.
    edges = [(span.start, span.end) for span in digest.spans]
    assert edges == sorted(edges)
    assert all(one[1] <= other[0] for one, other in pairwise(edges))


def test_coarser_spans_hold_the_same_and_leave_the_digest_alone() -> None:
    chances = {"a": 0.5, "b": 0.25, "c": 0.25}
    digest = read([entry(n, ARMS[n % 3], NOW + 16.0 * n, chances) for n in range(100)])
    before = digest.dump()
    coarse = digest.coarser(10)
    assert len(coarse) == 10
    assert digest.dump() == before
    assert Digest(coarse).total().dump() == digest.total().dump()
    assert max(span.end - span.start for span in coarse) <= 16.0 * 20


def test_a_merged_span_was_read_when_its_older_part_was() -> None:
    one, other = Span(0.0, 1.0, 50.0), Span(1.0, 2.0, 40.0)
    one.add(other)
    assert (one.start, one.end, one.read_at) == (0.0, 2.0, 40.0)


def test_the_least_probability_is_remembered_for_every_arm() -> None:
    digest = read(
        [
            entry(1, "a", propensities={"a": 0.9, "b": 0.1}),
            entry(2, "b", propensities={"a": 0.2, "b": 0.8}),
            entry(3, "b", propensities={"b": 0.05}),
        ]
    )
    rows = digest.total().arms
    assert (rows["a"].least, rows["b"].least) == (0.2, 0.05)
    assert (rows["a"].sums[OFFERED], rows["b"].sums[OFFERED]) == (2, 2)


@pytest.mark.parametrize("seconds", [0.0, 1.0, 239.0, 3600.0, 86400.0, 400 * 86400.0])
def test_cells_are_powers_of_two_and_neither_too_many_nor_too_few(seconds: float) -> None:
    cell = cell_length(seconds)
    assert cell >= 1.0
    assert math.log2(cell).is_integer()
    assert seconds / cell <= 2 * CELLS
    assert cell == 1.0 or seconds / cell > CELLS / 1.0001


@pytest.mark.parametrize(
    "plain",
    [
        None,
        {},
        {"layout": 0},
        {"layout": 1},
        {"layout": 1, "spans": 3, "ratio": {}, "through": 0, "written_at": 0, "counted": 0},
        {
            "layout": 1,
            "spans": [[1, 2]],
            "ratio": {"shown": {}, "expected": {}, "products": []},
            "through": 0,
            "written_at": 0,
            "counted": 0,
        },
    ],
)
def test_what_cannot_be_read_is_made_anew(plain: dict[str, object] | None) -> None:
    assert Digest.load(plain) == Digest()
