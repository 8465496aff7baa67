"""Exports, imports and audits: what they hold, what they refuse, and what memory they take."""

from __future__ import annotations

import io
import json
import os
import re
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flask_bandit.errors import StorageCorruptError, StorageError
from flask_bandit.model import BanditKey, StatsDelta
from flask_bandit.storage import JSONBanditStorage, MemoryBanditStorage, SQLiteBanditStorage
from flask_bandit.storage.base import (
    Adjustment,
    BanditStorage,
    Commit,
    DecisionWrite,
    RewardWrite,
)
from flask_bandit.storage.codec import clean_commit, commit_from_record, commit_to_record
from flask_bandit.storage.transfer import BATCH, Tally, audit, read_import, write_export
from flask_bandit.testing.storage_arrays import (
    SECRET,
    added,
    everything,
    fill_arrays,
    item,
    learned,
    seen,
    sums,
)
from flask_bandit.testing.storage_moves import NEW, fill, state
from flask_bandit.testing.storage_samples import (
    KEY,
    decision,
    decisions,
    earn,
    pull,
    reward,
    rewards,
)

ALL = Tally(decisions=4, rewards=7, adjustments=1)


def exported(storage: BanditStorage) -> bytes:
    file = io.BytesIO()
    write_export(storage, file)
    return file.getvalue()


def filled() -> MemoryBanditStorage:
    storage = MemoryBanditStorage()
    fill(storage)
    return storage


@pytest.fixture(params=["json", "memory", "sqlite"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BanditStorage]:
    makers: dict[str, Callable[[], BanditStorage]] = {
        "json": lambda: JSONBanditStorage(tmp_path / "bandits.json"),
        "memory": MemoryBanditStorage,
        "sqlite": lambda: SQLiteBanditStorage(tmp_path / "bandits.db"),
    }
    storage = makers[request.param]()
    yield storage
    storage.close()


# There and back


def test_what_a_file_looks_like() -> None:
    first, *lines, last = exported(filled()).splitlines()
    assert json.loads(first) == {"format": "flask-bandit-export", "version": 1}
    commits = [json.loads(line) for line in lines]
    assert [sorted(commit) for commit in commits[-2:]] == [["rewards"], ["adjustments"]]
    assert commits[0]["decisions"][0]["subject"] == "ü"
    assert commits[0]["rewards"][1]["delta"] == {
        "green": {"rewards": 1, "reward": 20.0, "reward_sq": 400.0}
    }
    end = json.loads(last)
    assert (end["end"], end["commits"]) == (True, len(lines))


def test_import_makes_an_equal_storage_once(target: BanditStorage) -> None:
    source = filled()
    content = exported(source)
    imported = read_import(target, io.BytesIO(content), "f")
    assert (imported.read, imported.new, imported.other_arm) == (ALL, ALL, 0)
    assert state(target) == state(source)
    imported = read_import(target, io.BytesIO(content), "f")
    assert (imported.read, imported.new) == (ALL, Tally())
    assert state(target) == state(source)
    # With the same lines again.
    assert exported(target) == content


def learning() -> MemoryBanditStorage:
    storage = MemoryBanditStorage()
    fill_arrays(storage)
    return storage


def test_arrays_in_a_file() -> None:
    """Each bandit's and version's in one line behind all others, as numbers that come back."""
    source = learning()
    lines = [json.loads(line) for line in exported(source).splitlines()]
    assert [number for number, line in enumerate(lines) if '"terms"' in json.dumps(line)] == [
        len(lines) - 3,
        len(lines) - 2,
    ]
    (first,), (second,) = (line["adjustments"] for line in lines[-3:-1])
    assert sorted(second) == ["bandit", "delta", "id", "terms", "version"]
    assert second["id"].startswith("arrays:")
    assert second["terms"] == [["a:b", "s:xr", [0.7, -1e300]]]
    xx = source.read_arrays()[KEY]["red"]["s:xx"]
    assert ["red", "s:xx", xx.tolist()] in first["terms"]


def test_arrays_are_imported_once(target: BanditStorage) -> None:
    source = learning()
    content = exported(source)
    for new in (4, 0):
        imported = read_import(target, io.BytesIO(content), "f")
        # With one adjustment more than fill() makes.
        assert (imported.read.adjustments, imported.new.adjustments) == (4, new)
        assert imported.unmerged == 0
        assert everything(target) == everything(source)
        assert exported(target) == content
        assert audit(target) == []


def test_arrays_of_two_pasts_are_not_added_up(target: BanditStorage) -> None:
    """Not even where the target has learned by itself since the import; its counts grow."""
    source = learning()
    read_import(target, io.BytesIO(exported(source)), "f")
    target.commit(Commit((seen(decision("here")),)))
    source.commit(Commit((seen(decision("there"), SECRET),)))
    before = sums(target)
    for _ in range(2):
        imported = read_import(target, io.BytesIO(exported(source)), "f")
        assert (imported.unmerged, imported.new.adjustments) == (1, 0)
        assert sums(target) == before
    assert target.read_counts()[KEY]["green"]["pulls"] == 20 + 4
    assert audit(target) == []


def test_sums_that_are_too_large_for_floats_are_refused(target: BanditStorage) -> None:
    """Neither JSON nor an export has a word for them."""
    for number in range(2):
        target.commit(item(f"a{number}", added("green", "s:xr", (1.0, 8e307))))
    before = everything(target)
    with pytest.raises(StorageError, match="too large"):
        target.commit(item("a2", added("green", "s:xr", (1.0, 8e307))))
    assert everything(target) == before
    assert exported(target)


def test_records_of_increments() -> None:
    """Without terms they say nothing of them; with terms, only what has to be said."""
    made = decision("d")
    commit = Commit(
        (seen(made),),
        (learned(reward(made), (0.1, -0.0, 5e-324)), RewardWrite(reward(made, "buy"), None)),
        item("a", added("green", "s:xr", (1 / 3,))).adjustments,
    )
    record = json.loads(json.dumps(commit_to_record(clean_commit(commit))))
    assert commit_from_record(record) == commit
    assert repr(commit_from_record(record).rewards) == repr(commit.rewards)
    assert record["decisions"][0]["terms"] == [["green", "s:xx", [1.0, 2.0, 3.0], True]]
    assert record["adjustments"][0]["terms"] == [["green", "s:xr", [1 / 3]]]
    assert "terms" not in json.dumps(commit_to_record(clean_commit(decisions(made))))


def test_control_is_taken_over_where_there_is_none(target: BanditStorage) -> None:
    source = filled()
    source.write_control("color_btn", {"state": "paused", "ü": [1, 1.5, True]}, None)
    source.write_control("other", {"version": 3}, None)
    target.write_control("other", {"version": 4}, None)
    content = exported(source)
    lines = [json.loads(line) for line in content.splitlines()]
    assert lines[1] == {
        "control": {"bandit": "color_btn", "state": {"state": "paused", "ü": [1, 1.5, True]}}
    }
    assert lines[-1]["commits"] == len(lines) - 4
    expected = {
        "color_btn": {"state": "paused", "ü": [1, 1.5, True]},
        "other": {"version": 4},
    }
    for new in (replace(ALL, controls=1), Tally()):
        imported = read_import(target, io.BytesIO(content), "f")
        assert (imported.read, imported.new) == (replace(ALL, controls=2), new)
        assert target.read_control() == expected
    assert state(target) == state(source)
    assert audit(target) == []


def test_a_tally_in_words() -> None:
    assert str(Tally(1, 2, 0)) == "1 decision, 2 rewards and 0 adjustments"
    assert str(Tally(1, 2, 0, 1)) == "1 decision, 2 rewards, 0 adjustments and 1 control state"


def test_later_export_adds_what_is_new(target: BanditStorage) -> None:
    source = filled()
    read_import(target, io.BytesIO(exported(source)), "f")
    fill(source)
    source.commit(decisions(decision("later"), decision("latest"), decision("new")))
    source.commit(rewards(reward(decision("d2", "blue")), reward(decision("latest"))))
    source.prune(NEW)
    imported = read_import(target, io.BytesIO(exported(source)), "f")
    assert imported.new == Tally(decisions=3)
    assert target.read_counts() == source.read_counts()
    assert audit(target) == []


def test_round_trip_through_three_storages(tmp_path: Path) -> None:
    """JSON -> SQLite -> JSON, pruned decisions and many batches included."""
    storages = [
        JSONBanditStorage(tmp_path / "1.json"),
        SQLiteBanditStorage(tmp_path / "2.db"),
        JSONBanditStorage(tmp_path / "3.json"),
    ]
    fill(storages[0])
    storages[0].prune(NEW)
    for number in range(3 * BATCH + 7):
        made = decision(f"many{number}", context={"n": number / 7}, at=number / 3)
        storages[0].commit(Commit((pull(made),), (earn(reward(made, value=number / 11)),)))
    for source, other in ((storages[0], storages[1]), (storages[1], storages[2])):
        read_import(other, io.BytesIO(exported(source)), "f")
        assert audit(other) == []
    first, *_, last = map(state, storages)
    assert last[1:] == first[1:]
    # Sums of floats depend on the order in which a storage adds them.
    assert last[0].keys() == first[0].keys()
    for key, arms in first[0].items():
        for arm, row in arms.items():
            assert last[0][key][arm] == pytest.approx(row, rel=1e-12)
    for storage in storages:
        storage.close()


def test_through_a_pipe() -> None:
    source, target = filled(), MemoryBanditStorage()
    content = exported(source)
    read_import(target, Pipe(content), "pipe")
    assert state(target) == state(source)
    empty = MemoryBanditStorage()
    with pytest.raises(StorageCorruptError, match="cut off"):
        read_import(empty, Pipe(content[: content.rindex(b'{"end"')]), "p")
    assert state(empty) == ({}, [], [])


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


def test_lines_may_end_as_on_windows() -> None:
    source, target = filled(), MemoryBanditStorage()
    read_import(target, io.BytesIO(exported(source).replace(b"\n", b"\r\n")), "f")
    assert state(target) == state(source)


def test_what_another_storage_holds_stays() -> None:
    """The same decision with another arm, as two storages have it that grew apart."""
    source, target = MemoryBanditStorage(), MemoryBanditStorage()
    made = decision("d")
    source.commit(Commit((pull(made),), (earn(reward(made)),)))
    target.commit(decisions(replace(made, arm="red")))
    imported = read_import(target, io.BytesIO(exported(source)), "f")
    assert (imported.other_arm, imported.new) == (1, Tally(rewards=1))
    assert target.read_counts() == {KEY: {"red": {"pulls": 1}}}
    assert audit(target) == []


def test_progress_is_told() -> None:
    source = MemoryBanditStorage()
    for number in range(BATCH + 1):
        source.commit(decisions(decision(f"{number}")))
    told: list[int] = []
    file = io.BytesIO()
    write_export(source, file, told.append)
    assert sum(told) == BATCH + 1
    told.clear()
    file.seek(0)
    read_import(MemoryBanditStorage(), file, "f", told.append)
    assert told == [BATCH, 1]


# Files that are not whole


def resealed(content: bytes, change: Callable[[list[Any]], None]) -> bytes:
    """Change the records of an export and close it again with a right checksum."""
    records = [json.loads(line) for line in content.splitlines()][:-1]
    change(records)
    lines = [json.dumps(record).encode() for record in records]
    crc = 0
    for line in lines:
        crc = zlib.crc32(line, crc)
    commits = sum("control" not in record for record in records[1:])
    end = {"end": True, "commits": commits, "checksum": f"{crc:08x}"}
    return b"\n".join([*lines, json.dumps(end).encode()])


def control_of(bandit: object, content: object) -> dict[str, Any]:
    return {"control": {"bandit": bandit, "state": content}}


def refuse(content: bytes, words: str) -> None:
    target = MemoryBanditStorage()
    with pytest.raises(StorageCorruptError, match=words) as caught:
        read_import(target, io.BytesIO(content), "backup.jsonl")
    assert str(caught.value).startswith("backup.jsonl, line ")
    assert "Nothing was imported" in str(caught.value)
    assert state(target) == ({}, [], [])
    assert target.read_control() == {}


def test_every_truncation_is_noticed() -> None:
    source = filled()
    source.write_control("color_btn", {"state": "paused"}, None)
    content = exported(source)
    for size in range(0, len(content) - 1, 7):
        refuse(content[:size], "cut off|damaged|not JSON")
    lines = content.splitlines(keepends=True)
    for number in range(len(lines)):
        refuse(b"".join(lines[:number]), "cut off")


def test_changed_bytes_and_lines_are_noticed() -> None:
    content = exported(filled())
    for at in range(0, len(content) - 2, 11):
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        refuse(changed, "line")
    lines = content.splitlines(keepends=True)
    refuse(b"".join([*lines[:2], *lines[3:]]), "11 commits|commits, and")
    refuse(b"".join([*lines[:2], lines[3], lines[2], *lines[4:]]), "checksum does not match")
    refuse(content + lines[2], "behind the line that ends")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r[0].update(format="other"), "line 1: it does not begin an export"),
        (lambda r: r[0].update(version=2), "line 1: .*upgrade Flask-Bandit"),
        (lambda r: r.insert(2, {}), "line 3: it is no commit"),
        (lambda r: r.insert(2, []), "line 3: it is not a JSON object"),
        (lambda r: r[1].update(more=1), "line 2: it is no commit .it has more"),
        (lambda r: r[1]["decisions"][0].pop("arm"), "line 2: .*'arm'"),
        (lambda r: r[1]["decisions"][0].update(arm=3), "line 2: .*must be a str"),
        (lambda r: r[1]["decisions"][0].update(delta=[]), "line 2: it is no commit"),
        (lambda r: r[1]["decisions"][0].update(delta={"a": {"pulls": 0.5}}), "line 2: .*int"),
        (lambda r: r[1]["decisions"][0].update(at=float("nan")), "line 2: .*finite"),
        (lambda r: r[1]["decisions"][0].update(terms=1), "line 2: it is no commit"),
        (lambda r: r[1]["decisions"][0].update(terms=[["a", "b"]]), "line 2: it is no commit"),
        (lambda r: r[1]["rewards"][0].update(terms=[["a", "b", 1]]), "line 2: it is no commit"),
        (lambda r: r[1]["rewards"][0].update(terms=[["a", "b", "1"]]), "line 2: .*convert it"),
        (lambda r: r[1]["rewards"][0].update(terms=[["a", 1, [1.0]]]), "line 2: .*must be a str"),
        (lambda r: r[1].update(decisions=5), "line 2: it is no commit"),
        (lambda r: r[1]["rewards"].append(None), "line 2: it is no commit"),
        (lambda r: r.insert(1, {"control": []}), "line 2: it is no control"),
        (lambda r: r.insert(1, {"control": {"bandit": "b"}}), "line 2: it is no control"),
        (lambda r: r.insert(1, control_of(["b"], {})), "line 2: .*must be a str"),
        (lambda r: r.insert(1, control_of(3, {})), "line 2: .*must be a str"),
        (lambda r: r.insert(1, control_of("b", [])), "line 2: .*give a dict"),
        (lambda r: r.insert(1, control_of("b", {"x": float("nan")})), "line 2: .*finite"),
    ],
)
def test_records_that_are_no_commits(change: Callable[[list[Any]], None], words: str) -> None:
    refuse(resealed(exported(filled()), change), words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut off"),
        (b"\n", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"color_btn": {"arms": []}}', "import-flask-mab"),
        (b'{"journal": "flask-bandit"}', "does not begin an export"),
        (b"3", "not a JSON object"),
    ],
)
def test_other_files(content: bytes, words: str) -> None:
    refuse(content, words)


def test_resealing_changes_nothing_else() -> None:
    """The test above refuses for the reason it gives."""
    source, target = filled(), MemoryBanditStorage()
    read_import(target, io.BytesIO(resealed(exported(source), lambda records: None)), "f")
    assert state(target) == state(source)


def test_an_import_that_breaks_off_is_finished_by_the_next() -> None:
    source = MemoryBanditStorage()
    for number in range(3 * BATCH):
        source.commit(decisions(decision(f"{number}")))

    class Failing(MemoryBanditStorage):
        left = 2

        def commit(self, commit: Commit, timeout: float | None = None) -> Any:
            self.left -= 1
            if self.left == -1:
                raise StorageError("the disk is full")
            return super().commit(commit, timeout)

    target = Failing()
    content = exported(source)
    with pytest.raises(StorageError, match="full"):
        read_import(target, io.BytesIO(content), "f")
    assert target.read_counts()[KEY]["green"]["pulls"] == 2 * BATCH
    assert read_import(target, io.BytesIO(content), "f").new == Tally(decisions=BATCH)
    assert state(target) == state(source)


# Memory


class Endless(MemoryBanditStorage):
    """Yields as many decisions as asked for and keeps nothing."""

    count = 0

    def iter_commits(self) -> Iterator[Commit]:
        for number in range(self.count):
            made = decision(f"d{number}", context={"n": number})
            yield Commit((pull(made),), (earn(reward(made)),))

    def commit(self, commit: Commit, timeout: float | None = None) -> Any:
        self.count += len(commit.decisions)
        return MemoryBanditStorage().commit(commit)


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_what_is_moved(tmp_path: Path) -> None:
    """7,000 decisions take what 500 do, but for noise that is less than their ids would take."""
    peaks = []
    for count in (500, 7_000):
        source, target = Endless(), Endless()
        source.count = count
        with open(tmp_path / f"{count}", "w+b") as file:
            out = peak_of(lambda: write_export(source, file))  # noqa: B023
            file.seek(0)
            into = peak_of(lambda: read_import(target, file, "f"))  # noqa: B023
            checked = peak_of(lambda: audit(source))  # noqa: B023
            assert file.tell() == os.fstat(file.fileno()).st_size
        assert target.count == count
        peaks.append((out, into, checked))
    for few, many in zip(*peaks, strict=True):
        assert many < few + 400_000


# Audits


def test_audit_is_content(target: BanditStorage) -> None:
    assert audit(target) == []
    fill(target)
    assert audit(target) == []
    target.prune(NEW)
    assert audit(target) == []
    for number in range(300):
        made = decision(f"n{number}")
        target.commit(Commit((pull(made),), (earn(reward(made, value=0.1 * number - 7)),)))
    assert audit(target) == []


class Wrong(MemoryBanditStorage):
    """Its counts are changed by the test."""

    change: Callable[[dict[str, dict[str, float]]], object]

    def read_counts(self, timeout: float | None = None) -> Any:
        counts = {
            key: {arm: dict(row) for arm, row in arms.items()}
            for key, arms in super().read_counts().items()
        }
        self.change(counts[KEY])
        return counts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda arms: arms["green"].update(pulls=22),
            "'color_btn' version 1, arm 'green': the count of 'pulls' is 22, and .* up to 21",
        ),
        (lambda arms: arms["green"].update(reward=21.6001), "'reward' is 21.6001"),
        (lambda arms: arms.pop("red"), "arm 'red': the count of 'pulls' is 0"),
        (lambda arms: arms.update(new={"pulls": 1}), "arm 'new': .* is 1, and .* up to 0"),
        (lambda arms: arms["green"].update(own=0.5), "the count of 'own' is 0.5"),
    ],
)
def test_audit_finds(change: Callable[[Any], object], words: str) -> None:
    storage = Wrong()
    storage.change = change
    fill(storage)
    problems = audit(storage)
    assert re.search(words, problems[0])
    # The fix that the message names.
    fresh = MemoryBanditStorage()
    read_import(fresh, io.BytesIO(exported(storage)), "f")
    assert audit(fresh) == []


def test_audit_allows_what_rounding_does() -> None:
    storage = Wrong()
    storage.change = lambda arms: arms["green"].update(reward=21.6 + 1e-12, zero=0.0)
    fill(storage)
    assert audit(storage) == []


def test_audit_does_not_take_cancellation_for_an_error() -> None:
    """Large values that cancel out leave an error that is large beside their sum."""
    storage = Wrong()
    storage.change = lambda arms: arms["green"].update(reward=arms["green"]["reward"] + 1e-6)
    for number in range(10):
        made = decision(f"{number}")
        value = 1e6 * (-1) ** number
        storage.commit(Commit((pull(made),), (earn(reward(made, value=value)),)))
    assert audit(storage) == []


class Busy(MemoryBanditStorage):
    """Somebody commits while it is read."""

    times = 0

    def iter_commits(self) -> Iterator[Commit]:
        yield from super().iter_commits()
        if self.times:
            self.times -= 1
            self.commit(decisions(decision(f"busy{self.times}")))


@pytest.mark.parametrize(("times", "problems"), [(1, 0), (2, 0), (3, 1)])
def test_audit_while_commits_go_on(times: int, problems: int) -> None:
    storage = Busy()
    fill(storage)
    storage.times = times
    found = audit(storage)
    assert len(found) == problems
    assert all("Commits went on" in problem for problem in found)


def test_bandits_and_sums_of_any_name() -> None:
    storage = MemoryBanditStorage()
    made = decision("d", "zöld", bandit="ü", version=3)
    storage.commit(
        Commit(
            (DecisionWrite(made, StatsDelta({"zöld": {"pulls": 1, "own": -0.5}})),),
            adjustments=(Adjustment("a", "other", 9, StatsDelta({"x": {"rewards": 2}})),),
        )
    )
    other = MemoryBanditStorage()
    read_import(other, io.BytesIO(exported(storage)), "f")
    assert other.read_counts()[BanditKey("ü", 3)] == {"zöld": {"pulls": 1, "own": -0.5}}
    assert state(other) == state(storage)
    assert audit(other) == []
