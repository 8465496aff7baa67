"""Damaged files of the JSON storage: the intact beginning or an error that names the file."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from flask_bandit.errors import StorageCorruptError, StorageError
from flask_bandit.model import Counts, LogEntry
from flask_bandit.storage import JSONBanditStorage
from flask_bandit.storage.base import Commit, ControlState
from flask_bandit.storage.json_file import upkeep
from flask_bandit.testing.storage_samples import decision, decisions, earn, pull, reward

NAME = "bandits.json"
LOG = f"{NAME}.log"
COMMITS = 12
CONTROLS = (2, 6, 11)
"""Which of them are no commits."""
AFTER = decisions(decision("after"))

Files = dict[str, bytes]


class State(NamedTuple):
    counts: Counts
    log: list[LogEntry]
    control: Mapping[str, ControlState]


EMPTY = State({}, [], {})


class Written(NamedTuple):
    """What a storage wrote: its files after each commit, and what they mean."""

    files: list[Files]
    states: list[State]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("written")
    patch = pytest.MonkeyPatch()
    patch.setattr(upkeep, "INDEX_BYTES", 1)
    storage = JSONBanditStorage(folder / NAME)
    result = Written([], [])
    for number in range(COMMITS):
        made = decision(f"d{number}", ("green", "rot", "אדום")[number % 3], context={"n": number})
        if number in CONTROLS:
            storage.write_control(
                "color_btn", {"n": number}, storage.read_control().get("color_btn")
            )
        else:
            storage.commit(Commit((pull(made),), (earn(reward(made)),) if number % 2 else ()))
        result.states.append(state_of(storage))
        if number % 4 == 3:
            storage.close()
        result.files.append({file.name: file.read_bytes() for file in folder.iterdir()})
    storage.close()
    patch.undo()
    return result


def state_of(storage: JSONBanditStorage) -> State:
    return State(dict(storage.read_counts()), list(storage.iter_log()), storage.read_control())


def put(folder: Path, files: Files) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / NAME


def read(path: Path) -> State:
    storage = JSONBanditStorage(path)
    try:
        state = state_of(storage)
        ids = [entry.decision.id for entry in state.log]
        assert list(storage.get_decisions(ids).values()) == [e.decision for e in state.log]
        return state
    finally:
        storage.close()


def error_of(work: Callable[[], object], folder: Path) -> StorageError | None:
    """Return the error that ``work`` raises, which names a file."""
    try:
        work()
    except StorageError as error:
        if str(folder / NAME) not in str(error):
            raise
        return error
    return None


def flip(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ chance.randint(1, 255)]) + content[at + 1 :]


def damage(content: bytes, chance: random.Random) -> bytes:
    kind = chance.choice(["cut", "flip", "cut and flip"])
    if "cut" in kind:
        content = content[: chance.randrange(len(content) + 1)]
    if "flip" in kind and content:
        content = flip(content, chance)
    return content


@pytest.mark.parametrize("seed", range(10))
def test_random_damage(written: Written, tmp_path: Path, seed: int) -> None:
    """A hundred damaged files each: a prefix of the truth or an error, and nothing lost."""
    chance = random.Random(seed)
    errors = 0
    for trial in range(100):
        files = dict(chance.choice(written.files[3:]))
        damaged = chance.choice([LOG, LOG, LOG, NAME, f"{NAME}.index"])
        files[damaged] = damage(files[damaged], chance)
        if chance.random() < 0.5 and damaged == LOG:
            files = {LOG: files[LOG]}
        folder = tmp_path / str(trial)
        path = put(folder, files)
        states: list[State] = []
        if error_of(lambda: states.append(read(path)), folder) is None:  # noqa: B023
            assert states[0] in [EMPTY, *written.states]
        storage = JSONBanditStorage(path)
        if error_of(lambda: storage.commit(AFTER), folder):  # noqa: B023
            errors += 1
            # A last line that lacks only its newline may have got it.
            assert (folder / LOG).read_bytes() in (files[LOG], files[LOG] + b"\n")
            continue
        whole = files[LOG][: files[LOG].rfind(b"\n") + 1]
        assert (folder / LOG).read_bytes().startswith(whole)
        storage.close()
        after = read(path)
        assert after.log[-1].decision.id == "after"
        assert after.log[:-1] in [[], *(state.log for state in written.states)]
    assert 20 <= errors <= 80, "both outcomes should be common"


def test_every_truncation_keeps_the_whole_lines(written: Written, tmp_path: Path) -> None:
    """Without the files made from it, a cut journal is a shorter journal."""
    content = written.files[3][LOG]
    for size in range(len(content) + 1):
        path = put(tmp_path / str(size), {LOG: content[:size]})
        lines = content[:size].count(b"\n")
        expected = [EMPTY, EMPTY, *written.states][lines]
        assert read(path) == expected, size
        storage = JSONBanditStorage(path)
        storage.commit(AFTER)
        # Only a whole line whose newline is missing is kept and completed.
        complete = size < len(content) and content[size : size + 1] == b"\n"
        expected_log = [*([EMPTY, EMPTY, *written.states][lines + complete].log)]
        assert [e.decision.id for e in storage.iter_log()] == [
            *(e.decision.id for e in expected_log),
            "after",
        ], size
        storage.close()


def test_every_flipped_byte_of_the_journal_is_found(written: Written, tmp_path: Path) -> None:
    """A writer never goes on behind a damaged line, whatever files are beside it."""
    chance = random.Random(5)
    for beside in (True, False):
        content = written.files[3][LOG]
        for at in range(len(content)):
            changed = content[:at] + bytes([content[at] ^ chance.randint(1, 255)])
            files = {LOG: changed + content[at + 1 :]}
            if beside:
                files = {**written.files[3], **files}
            path = put(tmp_path / f"{beside}{at}", files)
            with pytest.raises(StorageCorruptError, match=r"bandits\.json\.log, line"):
                JSONBanditStorage(path).commit(AFTER)
            assert path.with_name(LOG).read_bytes() == files[LOG]


def test_flipped_newline_before_a_torn_tail(written: Written, tmp_path: Path) -> None:
    """What looks like one torn line begins with an acknowledged one: it is not cut."""
    content = written.files[3][LOG]
    end = content.rindex(b"\n")
    damaged = content[:end] + b"X" + b'["0123'
    path = put(tmp_path / "a", {LOG: damaged})
    with pytest.raises(StorageCorruptError, match="line 5"):
        JSONBanditStorage(path).commit(AFTER)
    assert path.with_name(LOG).read_bytes() == damaged


def test_cut_journal_is_noticed_by_what_was_made_from_it(written: Written, tmp_path: Path) -> None:
    content = written.files[3][LOG]
    for name in (NAME, f"{NAME}.index"):
        for size in (0, 30, len(content) // 2, len(content) - 2):
            files = {LOG: content[:size], name: written.files[3][name]}
            path = put(tmp_path / f"{name}{size}", files)
            for _ in range(2):
                with pytest.raises(StorageCorruptError, match="Nothing was reset"):
                    read(path)
                with pytest.raises(StorageCorruptError, match="Nothing was reset"):
                    JSONBanditStorage(path).commit(AFTER)
            assert path.with_name(name).read_bytes() == files[name]


def test_damaged_files_beside_the_journal_are_rebuilt(written: Written, tmp_path: Path) -> None:
    chance = random.Random(6)
    for trial in range(60):
        files = dict(written.files[3])
        for name in (NAME, f"{NAME}.index"):
            files[name] = damage(files[name], chance)
        assert read(put(tmp_path / str(trial), files)) == written.states[3]


@pytest.mark.parametrize("order", [[0, 1, 3, 4], [0, 1, 2, 2, 3], [0, 2, 1, 3], [1, 2, 3]])
def test_lines_dropped_doubled_or_moved(written: Written, tmp_path: Path, order: list[int]) -> None:
    lines = written.files[3][LOG].splitlines(keepends=True)
    path = put(tmp_path / "x", {LOG: b"".join(lines[number] for number in order)})
    with pytest.raises(StorageCorruptError, match=r"line \d"):
        read(path)


def test_line_of_another_program(written: Written, tmp_path: Path) -> None:
    path = put(tmp_path / "x", {LOG: b"2026-01-01 something else\n"})
    with pytest.raises(StorageCorruptError, match=r"bandits\.json\.log, line 1"):
        read(path)
    path = put(tmp_path / "y", {LOG: b"no newline"})
    with pytest.raises(StorageCorruptError, match=r"bandits\.json\.log, line 1"):
        JSONBanditStorage(path).commit(AFTER)


def test_damage_while_the_process_runs(written: Written, tmp_path: Path) -> None:
    path = put(tmp_path / "x", {LOG: written.files[3][LOG]})
    storage = JSONBanditStorage(path)
    assert storage.read_counts() == written.states[3].counts
    with path.with_name(LOG).open("r+b") as file:
        file.seek(150)
        file.write(b"??")
    with pytest.raises(StorageCorruptError, match=r"bandits\.json\.log, the line at byte"):
        storage.get_decisions(["d0"])
    with pytest.raises(StorageCorruptError, match=r"bandits\.json\.log, line 2"):
        list(storage.iter_log())
    storage.close()
