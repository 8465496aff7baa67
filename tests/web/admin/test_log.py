"""The decision log: read backwards a page at a time, filtered, and as files."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_bandit.errors import StorageError
from flask_bandit.model import MERGED, Decision, LogEntry, Reward
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import BanditStorage, Commit
from flask_bandit.testing.storage_samples import decision, decisions, earn, pull, reward
from flask_bandit.web.admin.files import (
    COLUMNS,
    csv_chunks,
    file_name,
    json_chunks,
    plain_cell,
    utc,
)
from flask_bandit.web.admin.log import (
    MOST_AT_ONCE,
    MOST_READ,
    LogFilter,
    Position,
    parse_filter,
    parse_position,
    read_log_page,
)

from .conftest import ROOT, admin_app

NOW = 1_700_000_000.0
DAY = 86400.0
ALL = LogFilter("btn")


def stored(storage: BanditStorage, *made: Decision) -> None:
    storage.commit(decisions(*made))


def ids_on_pages(storage: BanditStorage, wanted: LogFilter = ALL, size: int = 7) -> list[str]:
    """Return the decisions' ids as they follow each other on all pages."""
    return [id_ for page in ids_of_pages(storage, wanted, size) for id_ in page]


def ids_of_pages(storage: BanditStorage, wanted: LogFilter = ALL, size: int = 7) -> list[list[str]]:
    """Return the decisions' ids on each page, from the newest on."""
    pages, before = [], None
    while True:
        page = read_log_page(storage, wanted, before, size)
        pages.append([entry.decision.id for entry in page.entries])
        assert len(pages[-1]) <= size
        if page.older is None:
            return pages
        assert before is None or page.older < before, "each page goes on"
        before = page.older


def newest_first(storage: BanditStorage, wanted: LogFilter = ALL) -> list[str]:
    """Return the ids in the order in which the pages shall have them."""
    found = sorted(wanted.entries(storage), key=Position.of, reverse=True)
    return [entry.decision.id for entry in found]


def scattered(count: int, seed: int) -> list[Decision]:
    """Make decisions over years, in bursts, some of them at equal times, and in any order."""
    chance = random.Random(seed)
    bursts = [NOW - chance.expovariate(1 / (200 * DAY)) for _ in range(8)]
    made = []
    for number in range(count):
        at = chance.choice(bursts) + chance.choice([0.0, chance.expovariate(1 / 60)])
        arm = chance.choice(["green", "red", "blue"])
        subject = chance.choice([None, "s1", "s2"])
        version = chance.choice([1, 1, 2])
        made.append(decision(f"d{number}", arm, "btn", at=at, subject=subject, version=version))
    return made


@pytest.mark.parametrize("seed", range(3))
def test_pages_show_each_decision_once(storage: BanditStorage, seed: int) -> None:
    stored(storage, *scattered(500, seed), decision("other", bandit="other", at=NOW))
    pages = ids_of_pages(storage)
    assert [id_ for page in pages for id_ in page] == newest_first(storage)
    assert sum(map(len, pages)) == 500
    assert {len(page) for page in pages[:-1]} == {7}


@settings(deadline=None, max_examples=60)
@given(
    times=st.lists(
        st.one_of(
            st.sampled_from([0.0, -5.0, NOW, NOW + 0.5, 4e9]),
            st.floats(-1e10, 2e11, allow_nan=False),
        ),
        max_size=40,
    ),
    size=st.integers(1, 9),
)
def test_pages_show_each_decision_once_whatever_its_time(times: list[float], size: int) -> None:
    storage = MemoryBanditStorage()
    stored(storage, *(decision(f"d{n}", bandit="btn", at=at) for n, at in enumerate(times)))
    assert ids_on_pages(storage, size=size) == newest_first(storage)


def test_a_decision_that_comes_meanwhile_moves_nothing(storage: BanditStorage) -> None:
    stored(storage, *scattered(30, 1))
    expected = newest_first(storage)
    first = read_log_page(storage, ALL, None, 10)
    stored(storage, decision("late", bandit="btn", at=NOW + 1))
    second = read_log_page(storage, ALL, first.older, 10)
    assert [one.decision.id for one in (*first.entries, *second.entries)] == expected[:20]


@pytest.mark.parametrize(
    "wanted",
    [
        replace(ALL, arm="red"),
        replace(ALL, version=2),
        replace(ALL, subjects={"s1"}),
        replace(ALL, subjects={"s1"}, ids={"d7", "d8"}),
        replace(ALL, since=NOW - 100 * DAY),
        replace(ALL, until=NOW - 100 * DAY),
        replace(ALL, arm="green", subjects={"s2"}, since=NOW - 200 * DAY, until=NOW - DAY),
        replace(ALL, arm="none"),
        replace(ALL, since=NOW, until=NOW - 1),
    ],
)
def test_filters(storage: BanditStorage, wanted: LogFilter) -> None:
    made = scattered(200, 4)
    stored(storage, *made)

    def fits(one: Decision) -> bool:
        return (
            wanted.arm in (None, one.arm)
            and wanted.version in (None, one.version)
            and (wanted.subjects is None or one.subject in wanted.subjects or one.id in wanted.ids)
            and (wanted.since is None or one.at >= wanted.since)
            and (wanted.until is None or one.at < wanted.until)
        )

    found = ids_on_pages(storage, wanted)
    assert found == newest_first(storage, wanted)
    assert set(found) == {one.id for one in made if fits(one)}


class Counted(MemoryBanditStorage):
    """Counts how many entries of its log are read."""

    read = 0

    def iter_log(self, *args: Any, **kwargs: Any) -> Iterator[LogEntry]:
        for entry in super().iter_log(*args, **kwargs):
            self.read += 1
            yield entry


def a_year(storage: BanditStorage, count: int) -> None:
    """Store decisions that are spread over a year, all in one commit."""
    step = 365 * DAY / count
    stored(
        storage,
        *(
            decision(f"d{n:06}", "rare" if n == 5 else "usual", "btn", at=NOW - n * step)
            for n in range(count)
        ),
    )


def test_a_page_of_a_long_log_reads_little_of_it() -> None:
    storage = Counted()
    a_year(storage, 30_000)
    page = read_log_page(storage, ALL)
    assert [entry.decision.id for entry in page.entries] == [f"d{n:06}" for n in range(50)]
    assert storage.read < MOST_READ


def test_a_rare_filter_stops_somewhere_and_goes_on_from_there() -> None:
    storage = Counted()
    count = 30_000
    a_year(storage, count)
    stored(storage, decision("oldest", "rare", "btn", at=NOW - 400 * DAY))
    wanted = replace(ALL, arm="rare")
    first = read_log_page(storage, wanted)
    assert [entry.decision.id for entry in first.entries] == ["d000005"]
    assert MOST_READ <= storage.read <= MOST_READ + MOST_AT_ONCE
    assert first.read_to is not None
    assert NOW - 365 * DAY < first.read_to < NOW
    assert first.older == Position(first.read_to, "")
    assert ids_on_pages(storage, wanted) == ["d000005", "oldest"]


def test_a_burst_long_ago_and_one_moment_with_many_decisions() -> None:
    storage = Counted()
    burst = NOW - 900 * DAY
    stored(
        storage,
        *(decision(f"same{n:05}", bandit="btn", at=burst) for n in range(MOST_AT_ONCE + 500)),
        *(decision(f"near{n:05}", bandit="btn", at=burst + n / 100) for n in range(4000)),
    )
    assert ids_on_pages(storage, size=500) == newest_first(storage)


def test_what_is_pruned_or_stands_for_another_is_in_no_page(storage: BanditStorage) -> None:
    stored(
        storage,
        decision("a", bandit="btn", at=NOW - DAY),
        decision("b", bandit="btn", at=NOW),
        decision("c", bandit="btn", at=NOW, policy_version=f"{MERGED}b", propensities=None),
    )
    storage.prune(NOW - 1)
    assert ids_of_pages(storage) == [["b"]]


@pytest.mark.parametrize("text", ["tomorrow", "2025-13-01", "1e400", "2025-01-01T10:00ZZ", "Z"])
def test_a_time_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="write it as 2025-12-31"):
        parse_filter("btn", {"since": text}, lambda subject: ((), ()))


def test_times_of_a_filter_are_utc() -> None:
    arguments = {"since": "2025-12-31", "until": "2025-12-31T01:00+01:00"}
    wanted = parse_filter("btn", arguments, lambda subject: ((), ()))
    assert wanted.since == wanted.until == 1767139200.0
    assert parse_filter("btn", {"since": "2025-12-31T00:00:00Z"}, lambda s: ((), ())).since == (
        1767139200.0
    )


@pytest.mark.parametrize("text", ["nan", "inf", "soon"])
def test_a_position_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_position({"before": text})


# The pages of the view.


def shown(page: str) -> list[str]:
    """Return the ids of the decisions in a page's table."""
    return re.findall(r"<code>(d\d+|[ab])</code>", page)


def older(page: str) -> str | None:
    found = re.search(r'rel="next" href="([^"]*)"', page)
    return found and found[1].replace("&amp;", "&")


def test_pages_follow_each_other_by_their_links(storage: BanditStorage) -> None:
    app = admin_app(storage=storage)
    stored(storage, *scattered(180, 2))
    client = app.test_client()
    found: list[str] = []
    url: str | None = f"{ROOT}log?name=btn&arm=red"
    while url:
        page = client.get(url).text
        found += shown(page)
        url = older(page)
    assert found == newest_first(storage, replace(ALL, arm="red"))
    assert len(found) > 50


def test_a_subject_is_found_by_user_id_pseudonym_and_decision(storage: BanditStorage) -> None:
    app = admin_app(storage=storage)
    state = app.extensions["bandit"]
    mine = state.pseudonyms("user-42")[0]
    stored(
        storage,
        decision("a", bandit="btn", at=NOW, subject=mine),
        decision("b", bandit="btn", at=NOW),
        decision("d1", bandit="btn", at=NOW, subject="another"),
    )
    client = app.test_client()
    for text, expected in {
        "user-42": ["a"],
        mine: ["a"],
        "b": ["b"],
        "another": ["d1"],
        "nobody": [],
    }.items():
        page = client.get(f"{ROOT}log", query_string={"name": "btn", "subject": text})
        assert shown(page.text) == expected, text
        assert page.text.count("No decision fits this filter") == (not expected)


def test_a_subject_is_found_with_what_was_decided_before_they_signed_in() -> None:
    app = admin_app()
    mab = app.extensions["bandit"].hooks
    mab.subject = lambda: subject
    subject: str | None = None
    client = app.test_client()
    client.get("/btn")
    subject = "user-42"
    client.get("/btn")
    (entry,) = app.extensions["bandit"].storage.iter_log("btn")
    assert entry.decision.subject is None
    page = client.get(f"{ROOT}log?name=btn&subject=user-42").text
    assert f"<code>{entry.decision.id}</code>" in page


def test_a_wrong_filter_is_told() -> None:
    client = admin_app().test_client()
    for query in ("since=gestern", "before=nan", "version=new"):
        answer = client.get(f"{ROOT}log?name=btn&{query}")
        assert answer.status_code == 400
        assert 'role="alert"' in answer.text
    assert client.get(f"{ROOT}log.csv?name=btn&since=gestern").status_code == 400


def test_numbers_are_written_as_the_visitor_does() -> None:
    storage = MemoryBanditStorage()
    client = admin_app(storage=storage).test_client()
    filled(storage)
    page = client.get(f"{ROOT}log?name=btn", headers={"Accept-Language": "de"}).text
    assert "<strong>0,5</strong>" in page
    assert "<bdi>red</bdi> 0,25" in page
    assert "<bdi>reward</bdi> = -2,5 <small>at 2023-11-14T22:13:21Z</small>" in page
    assert "<strong>unknown</strong>" in page


def test_an_empty_log_says_what_to_do() -> None:
    assert "@choose_arm" in admin_app().test_client().get(f"{ROOT}log?name=btn").text


# The files.


def filled(storage: BanditStorage) -> list[LogEntry]:
    first = decision(
        "a",
        bandit="btn",
        at=NOW + 0.125,
        subject="=cmd|' /C calc'!A0",
        context={"device": "phone", "text": 'a "b", c\nd', "n": [1, None]},
    )
    second = decision("b", "+red", "btn", at=NOW, propensities=None)
    given = reward(first, value=-2.5), reward(first, goal="=buy", value=1.0)
    storage.commit(Commit((pull(first), pull(second)), tuple(map(earn, given))))
    return list(storage.iter_log("btn"))


def entries_of(text: str) -> Iterator[LogEntry]:
    """Make entries again of a JSON Lines file."""
    for line in text.splitlines():
        plain = json.loads(line)
        plain["policy_version"] = plain.pop("policy")
        assert plain.pop("time") == utc(plain["at"])
        given = [
            Reward(
                decision_id=plain["id"],
                bandit=plain["bandit"],
                version=plain["version"],
                arm=plain["arm"],
                **one,
            )
            for one in plain.pop("rewards")
        ]
        yield LogEntry(Decision(**plain), tuple(given))


def test_json_lines_hold_all_that_is_stored(storage: BanditStorage) -> None:
    app = admin_app(storage=storage)
    entries = filled(storage)
    answer = app.test_client().get(f"{ROOT}log.jsonl?name=btn")
    assert answer.mimetype == "application/jsonl"
    assert answer.headers["Content-Disposition"] == "attachment; filename=btn-decisions.jsonl"
    assert list(entries_of(answer.text)) == entries


def test_csv(storage: BanditStorage) -> None:
    app = admin_app(storage=storage)
    filled(storage)
    answer = app.test_client().get(f"{ROOT}log.csv?name=btn")
    assert answer.content_type == "text/csv; charset=utf-8"
    heading, first, second = csv.reader(io.StringIO(answer.text, newline=""))
    assert tuple(heading) == COLUMNS
    row = dict(zip(COLUMNS, first, strict=True))
    assert row["time"] == "2023-11-14T22:13:20.125+00:00"
    assert (row["decision"], row["bandit"], row["version"]) == ("a", "btn", "1")
    assert (row["arm"], row["probability"]) == ("green", "0.5")
    assert json.loads(row["probabilities"]) == {"green": 0.5, "red": 0.25, "blue": 0.25}
    assert row["policy"] == "epsilon_greedy(epsilon=0.1)"
    assert row["subject"] == "'=cmd|' /C calc'!A0"
    assert json.loads(row["context"])["text"] == 'a "b", c\nd'
    assert "reward=-2.5 at 2023-11-14T22:13:21.125+00:00" in row["rewards"]
    assert "=buy=1 at" in row["rewards"]
    assert dict(zip(COLUMNS, second, strict=True)) == {
        **dict.fromkeys(COLUMNS, ""),
        "time": "2023-11-14T22:13:20.000+00:00",
        "decision": "b",
        "bandit": "btn",
        "version": "1",
        "arm": "'+red",
        "policy": "epsilon_greedy(epsilon=0.1)",
    }


@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "  =1"),
        *("\u00a0=1", "\ufeff=1", "\u200b-1", "\uff1d1", "\uff20x"),
    ],
)
def test_no_cell_is_a_formula(text: str) -> None:
    assert plain_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a;=1", "a;'=1"),
        ("a; @1", "a;' @1"),
        ('{"q": "a;=1"}', '{"q": "a;\'=1"}'),
        ("a\n=1", "a\n'=1"),
        ("\n=1", "'\n'=1"),
        ("a\t+1;-2", "a\t'+1;'-2"),
        ("=1;=2", "'=1;'=2"),
        ("a;b=1", "a;b=1"),
    ],
)
def test_no_cell_has_a_formula_behind_a_semicolon(text: str, plain: str) -> None:
    """German spreadsheets, for one, would begin another cell there."""
    assert plain_cell(text) == plain


@pytest.mark.parametrize("text", ["green", "a=b", "a-b", "1-2", "", "{}", " a", "'=1", "0.5"])
def test_other_cells_stay(text: str) -> None:
    assert plain_cell(text) == text


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_files_have_all_in_the_order_of_the_log(storage: BanditStorage, ending: str) -> None:
    app = admin_app(storage=storage)
    stored(storage, *scattered(450, 5))
    text = app.test_client().get(f"{ROOT}log.{ending}?name=btn&arm=red&since=2022-01-01").text
    expected = [
        entry.decision.id
        for entry in storage.iter_log("btn", since=1640995200.0)
        if entry.decision.arm == "red"
    ]
    assert re.findall(r"\bd\d+\b", text) == expected
    assert expected


def test_an_empty_file() -> None:
    client = admin_app().test_client()
    assert client.get(f"{ROOT}log.csv?name=btn").text.splitlines() == [",".join(COLUMNS)]
    assert client.get(f"{ROOT}log.jsonl?name=btn").text == ""


@pytest.mark.parametrize("make", [csv_chunks, json_chunks])
def test_files_are_made_bit_by_bit(make: Any) -> None:
    taken = 0

    def entries() -> Iterator[LogEntry]:
        nonlocal taken
        while True:
            taken += 1
            yield LogEntry(decision(f"d{taken}"))

    chunks = make(entries())
    assert next(chunks)
    assert next(chunks)
    assert taken == 400


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_files_of_exactly_one_bit(ending: str) -> None:
    entries = [LogEntry(decision(f"d{n}")) for n in range(200)]
    text = "".join(csv_chunks(entries) if ending == "csv" else json_chunks(entries))
    assert len(text.splitlines()) == 200 + (ending == "csv")


def test_an_outage_in_the_middle_breaks_the_connection_and_gives_no_whole_file() -> None:
    class Failing(MemoryBanditStorage):
        def iter_log(self, *args: Any, **kwargs: Any) -> Iterator[LogEntry]:
            yield from list(super().iter_log(*args, **kwargs))
            raise StorageError("gone")

    storage = Failing()
    app = admin_app(storage=storage)
    stored(storage, *scattered(3, 1))
    with pytest.raises(StorageError, match="gone"):
        app.test_client().get(f"{ROOT}log.jsonl?name=btn").get_data()


def test_names_of_files() -> None:
    assert file_name("color_btn", "csv") == "color_btn-decisions.csv"
    assert file_name('../"\u00e9\n', "csv") == "bandit-decisions.csv"


@pytest.mark.parametrize("at", [1e300, -1e300])
def test_a_time_that_no_calendar_has(at: float) -> None:
    assert utc(at) == repr(at)


def test_a_decision_of_this_second_is_on_the_first_page(storage: BanditStorage) -> None:
    stored(storage, decision("a", bandit="btn", at=time.time()))
    assert ids_of_pages(storage) == [["a"]]
