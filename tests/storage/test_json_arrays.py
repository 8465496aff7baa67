"""Arrays of sums in the files of the JSON storage: in its log, in its index, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_bandit.errors import StorageCorruptError, StorageError
from flask_bandit.storage import JSONBanditStorage
from flask_bandit.storage.base import Commit
from flask_bandit.storage.json_file import upkeep
from flask_bandit.storage.json_file.checkpoint import seal, unseal
from flask_bandit.storage.json_file.framing import frame
from flask_bandit.storage.json_file.journal import Journal
from flask_bandit.testing.storage_arrays import (
    SECRET,
    YY,
    Y,
    added,
    everything,
    fill_arrays,
    item,
    learned,
    seen,
    sums,
)
from flask_bandit.testing.storage_moves import NEW, OLD
from flask_bandit.testing.storage_samples import KEY, decision, decisions, reward


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bandits.json"


@pytest.fixture
def storage(path: Path) -> Iterator[JSONBanditStorage]:
    storage = JSONBanditStorage(path)
    yield storage
    storage.close()


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.log")


def index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.index")


def lines(path: Path) -> list[Any]:
    return [json.loads(line)[2] for line in log_of(path).read_bytes().splitlines()]


def lines_with(path: Path, what: str) -> list[int]:
    return [number for number, line in enumerate(lines(path)) if f'"{what}": ' in json.dumps(line)]


@pytest.mark.parametrize("index", [1, 1 << 20])
def test_index_has_the_arrays(
    storage: JSONBanditStorage, path: Path, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "INDEX_BYTES", index)
    fill_arrays(storage)
    expected = everything(storage)
    storage.close()
    assert index_of(path).exists() == (index == 1)
    assert everything(storage) == expected
    assert storage.erase(["a1"]) == 1
    arrays = expected[1]
    for _ in range(2):
        storage.close()
        assert sums(storage) == arrays
        index_of(path).unlink(missing_ok=True)


def test_an_index_of_before_there_were_arrays(
    storage: JSONBanditStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "INDEX_BYTES", 1)
    fill_arrays(storage)
    expected = everything(storage)
    storage.close()
    document = unseal(index_of(path).read_bytes())
    assert document is not None
    assert document.pop("arrays")
    document["format"] = 2
    del document["checksum"]
    mark = json.dumps(document.pop("journal"))
    index_of(path).write_bytes(seal(f'{{"journal": {mark},\n{json.dumps(document)[1:-1]}'))
    assert everything(storage) == expected


def test_sums_take_the_place_of_terms_when_the_log_is_written_anew(
    storage: JSONBanditStorage, path: Path
) -> None:
    """In one line behind all others, however often it is written anew."""
    others = JSONBanditStorage(path), JSONBanditStorage(path)
    fill_arrays(storage)
    storage.write_control("b", {"state": "paused"}, None)
    assert lines_with(path, "terms")
    assert not lines_with(path, "arrays")
    expected = sums(storage)
    rewrites: list[Callable[[], int]] = [
        lambda: storage.erase(["a1"]),
        lambda: storage.redact({"d0": {"n": 1}}),
        lambda: storage.prune(OLD + 0.5),
        lambda: storage.prune(NEW),
    ]
    for number, rewrite in enumerate(rewrites):
        assert others[0].read_arrays().keys() == expected.keys()
        assert rewrite()
        assert not lines_with(path, "terms")
        assert lines_with(path, "arrays") == [len(lines(path)) - 1]
        for one in (*others, JSONBanditStorage(path)):
            assert sums(one) == expected
            assert everything(one) == everything(storage)
            one.close()
        # Of an arm that has none yet: how floats are added up says nothing here.
        new = decision(f"n{number}", f"arm{number}")
        others[number % 2].commit(Commit((seen(new),), (learned(reward(new)),)))
        expected[KEY][new.arm] = {"s:xx": YY, "s:xr": list(Y)}
        assert sums(storage) == expected
    assert storage.read_control() == {"b": {"state": "paused"}}


def test_what_is_redacted_is_in_no_file(storage: JSONBanditStorage, path: Path) -> None:
    made = [decision(f"d{n}", context={"name": f"Name{n}.", "page": n}) for n in range(3)]
    storage.commit(Commit(tuple(map(seen, made))))
    assert storage.redact({"d0": {"page": 0}, "d1": None}) == 2
    for _ in range(2):
        content = b"".join(file.read_bytes() for file in path.parent.iterdir())
        assert [f"Name{n}.".encode() in content for n in range(3)] == [False, False, True]
        storage.close()


def test_a_log_without_terms_has_no_line_of_sums(storage: JSONBanditStorage, path: Path) -> None:
    storage.commit(decisions(decision("d", subject="Ann")))
    assert storage.erase(["d"]) == 1
    assert not lines_with(path, "arrays")


def test_terms_that_cannot_be_added_do_not_grow_the_log(
    storage: JSONBanditStorage, path: Path
) -> None:
    """Neither those that wait, which are stored without them, nor those that are refused."""
    made, red = decision("d"), reward(decision("e", "red"), arm="green")
    storage.commit(Commit((seen(decision("e", "red")),)))
    storage.commit(Commit(rewards=(learned(reward(made), SECRET), learned(red, SECRET))))
    assert repr(SECRET[1]) not in log_of(path).read_text()
    size = log_of(path).stat().st_size
    for _ in range(3):
        storage.commit(Commit(rewards=(learned(reward(made), SECRET), learned(red, SECRET))))
        with pytest.raises(StorageError, match="has 6 numbers"):
            storage.commit(item("bad", added("red", "s:xx", Y)))
    assert log_of(path).stat().st_size == size


@pytest.mark.parametrize(
    "wrong",
    [
        {"arrays": 1},
        {"arrays": [["color_btn", 1, "green", "s:xx"]]},
        {"arrays": [["color_btn", 1, "green", "s:xx", "AAAA"]]},
        {"arrays": [["color_btn", 1, "green", "s:xx", None]]},
        {"adjustments": [{"id": "a", "bandit": "b", "version": 1, "delta": {}, "terms": [[1]]}]},
    ],
)
def test_a_line_that_holds_no_arrays(
    storage: JSONBanditStorage, path: Path, wrong: dict[str, Any]
) -> None:
    """Its checksums are right: it was written so."""
    fill_arrays(storage)
    storage.close()
    journal = Journal(str(log_of(path)))
    assert journal.open()
    list(journal.pull(journal.size()))
    mark = journal.mark
    with log_of(path).open("ab") as file:
        file.write(frame(json.dumps(wrong).encode(), mark.chain))
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match=f"line {mark.lines + 1} .* it holds no"):
            storage.read_arrays()
    journal.close()
