"""``flask bandit export``, ``import``, ``prune``, ``storage check`` and ``db upgrade``."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest
from flask import Flask
from flask.cli import FlaskGroup

from flask_bandit.analysis.digest import Digest
from flask_bandit.control import Control
from flask_bandit.storage import JSONBanditStorage, MemoryBanditStorage
from flask_bandit.storage.base import BanditStorage, Commit
from flask_bandit.testing.storage_arrays import seen
from flask_bandit.testing.storage_moves import NEW, fill, state
from flask_bandit.testing.storage_samples import KEY, decision, decisions, earn, pull, reward
from flask_bandit.web import cli_data

from .conftest import make_app

PATIENCE = 120.0
THERE_AND_BACK = "4 decisions, 7 rewards and 1 adjustment"


def app_on(storage: BanditStorage) -> Flask:
    return make_app(MAB_STORAGE_ENGINE=storage)


def run(app: Flask, *args: str, stdin: str | bytes | None = None) -> Any:
    """Run the command as ``flask`` does, found by its entry point."""
    group = FlaskGroup(create_app=lambda: app)
    return app.test_cli_runner().invoke(group, ["bandit", *args], input=stdin)


@pytest.fixture(params=["json", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BanditStorage]:
    """A storage with one of each in it, of bandits that the app does not have."""
    storage: BanditStorage = MemoryBanditStorage()
    if request.param == "json":
        storage = JSONBanditStorage(tmp_path / "bandits.json")
    fill(storage)
    yield storage
    storage.close()


def failing(storage: BanditStorage, *args: str, status: int = 1) -> str:
    """Run a command that fails with a message and return it."""
    result = run(app_on(storage), *args)
    assert result.exit_code == status
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    return str(result.output)


# Export and import


def test_export_and_import(storage: BanditStorage, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    result = run(app_on(storage), "export", str(file))
    assert (result.exit_code, result.output) == (0, f"Exported {THERE_AND_BACK}.\n")
    other = MemoryBanditStorage()
    result = run(app_on(other), "import", str(file))
    assert result.exit_code == 0
    assert result.output == f"Read {THERE_AND_BACK}; new: {THERE_AND_BACK}.\n"
    assert state(other) == state(storage)
    result = run(app_on(other), "import", str(file))
    assert "new: 0 decisions, 0 rewards and 0 adjustments" in result.output
    assert state(other) == state(storage)


def test_export_to_standard_output_and_import_from_standard_input(
    storage: BanditStorage,
) -> None:
    result = run(app_on(storage), "export", "-")
    assert result.exit_code == 0
    assert result.stderr == f"Exported {THERE_AND_BACK}.\n"
    assert all(json.loads(line) for line in result.stdout.splitlines())
    other = MemoryBanditStorage()
    result = run(app_on(other), "import", "-", stdin=result.stdout_bytes)
    assert result.exit_code == 0
    assert state(other) == state(storage)


def test_import_says_what_counts_for_another_arm(tmp_path: Path) -> None:
    one, two = MemoryBanditStorage(), MemoryBanditStorage()
    one.commit(decisions(decision("d", "green")))
    two.commit(decisions(decision("d", "red")))
    run(app_on(one), "export", str(tmp_path / "e"))
    result = run(app_on(two), "import", str(tmp_path / "e"))
    assert result.exit_code == 0
    assert "note: 1 decisions are stored for another arm" in result.stderr


def test_import_says_whose_model_did_not_come(tmp_path: Path) -> None:
    """Exports have no models, and what operators decided does come."""
    one, two = MemoryBanditStorage(), MemoryBanditStorage()
    one.commit(decisions(decision("d", "green")))
    one.write_control("btn", Control(model=3).dump(), None)
    run(app_on(one), "export", str(tmp_path / "e"))
    result = run(app_on(two), "import", str(tmp_path / "e"))
    assert result.exit_code == 0
    assert "note: model 3 of btn is deployed and not in this storage" in result.stderr
    assert "flask bandit rollback btn" in result.stderr


def test_import_says_whose_sums_were_not_merged(tmp_path: Path) -> None:
    one, two = MemoryBanditStorage(), MemoryBanditStorage()
    for storage, id_, vector in ((one, "d1", (1.0, 2.0)), (two, "d2", (1.0, 3.0))):
        for made in (decision(id_), decision(f"{id_}o", bandit="other")):
            storage.commit(Commit((seen(made, vector),)))
    run(app_on(one), "export", str(tmp_path / "e"))
    result = run(app_on(two), "import", str(tmp_path / "e"))
    assert result.exit_code == 0
    assert result.stderr == (
        "note: learned sums of 2 bandits were not merged: the target has learned its own.\n"
    )
    assert two.read_counts()[KEY]["green"]["pulls"] == 2
    # Where they are just the same, nothing is missing.
    run(app_on(two), "export", str(tmp_path / "own"))
    assert run(app_on(two), "import", str(tmp_path / "own")).stderr == ""
    result = run(app_on(two), "storage", "check")
    assert (result.exit_code, result.stderr) == (0, "")


def test_export_does_not_overwrite(storage: BanditStorage, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    file.write_text("mine")
    assert "use --force" in failing(storage, "export", str(file))
    assert file.read_text() == "mine"
    assert run(app_on(storage), "export", "--force", str(file)).exit_code == 0
    assert len(file.read_text().splitlines()) == 9


def test_export_follows_a_link_and_keeps_off_devices(
    storage: BanditStorage, tmp_path: Path
) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert run(app_on(storage), "export", "--force", str(tmp_path / "link")).exit_code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").stat().st_size > 0
    os.mkfifo(tmp_path / "fifo")
    output = failing(storage, "export", "--force", str(tmp_path / "fifo"))
    assert "not a regular file" in output
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_export_that_breaks_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    (tmp_path / "old").write_text("an older export")

    def broken(storage: BanditStorage, file: IO[bytes], progress: object) -> None:
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(cli_data, "write_export", broken)
    output = failing(MemoryBanditStorage(), "export", "--force", str(tmp_path / "old"))
    assert ("No space left" if isinstance(error, OSError) else "Aborted") in output
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "an older export"


def test_where_nothing_can_be_written_or_read(storage: BanditStorage, tmp_path: Path) -> None:
    missing = failing(storage, "export", str(tmp_path / "no" / "export"))
    assert "No such file" in missing
    assert "see to the path" in missing
    assert "is a directory" in failing(storage, "export", str(tmp_path), status=2)
    assert "does not exist" in failing(storage, "import", str(tmp_path / "no"), status=2)
    assert "is a directory" in failing(storage, "import", str(tmp_path), status=2)


def test_import_of_a_cut_file_changes_nothing(storage: BanditStorage, tmp_path: Path) -> None:
    file = tmp_path / "export"
    run(app_on(storage), "export", str(file))
    content = file.read_bytes()
    for size in (0, 20, len(content) // 2, len(content) - 5):
        file.write_bytes(content[:size])
        other = MemoryBanditStorage()
        output = failing(other, "import", str(file))
        assert f"{file}, line " in output
        assert "Nothing was imported" in output
        assert state(other) == ({}, [], [])


def test_commands_close_the_storage(tmp_path: Path) -> None:
    source = MemoryBanditStorage()
    fill(source)
    run(app_on(source), "export", str(tmp_path / "e"))
    path = tmp_path / "new.json"
    assert run(app_on(JSONBanditStorage(path)), "import", str(tmp_path / "e")).exit_code == 0
    # The readable file is complete.
    assert json.loads(path.read_text())["bandits"]["other"]["3"] == {"green": {"pulls": 1}}


@pytest.mark.parametrize(
    "command",
    [
        ["export", "-"],
        ["import", __file__],
        ["prune", "--before", "2020-01-01", "--yes"],
        ["storage", "check"],
    ],
)
def test_a_storage_that_does_not_answer(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "bandits.json"
    path.with_name("bandits.json.log").write_text("damaged\n")
    output = failing(JSONBanditStorage(path), *command)
    assert output.startswith("Error: ")
    assert str(path) in output or __file__ in output


@pytest.mark.parametrize("command", [["export", "-"], ["storage", "check"], ["db", "upgrade"]])
def test_an_app_without_bandits(command: list[str]) -> None:
    result = run(Flask("bare"), *command)
    assert result.exit_code == 1
    assert "init_app" in result.output


def test_a_setting_that_cannot_work() -> None:
    app = make_app(MAB_STORAGE_ENGINE=None, MAB_STORAGE_URI="jsn:///x")
    result = run(app, "storage", "check")
    assert result.exit_code == 1
    assert "json" in result.output
    assert "Traceback" not in result.output


# Prune


def test_prune_asks(storage: BanditStorage) -> None:
    counts = storage.read_counts()
    app, command = app_on(storage), ["prune", "--before", "1970-01-01T00:33:20"]
    result = run(app, *command, stdin="n\n")
    assert result.exit_code == 1
    assert "details of 2 decisions made before 1970-01-01T00:33:20+00:00? " in result.output
    assert len(list(storage.iter_log())) == 4
    result = run(app, *command, stdin="y\n")
    assert result.exit_code == 0
    assert result.output.endswith("Removed the details of 2 decisions.\n")
    assert [entry.decision.id for entry in storage.iter_log()] == ["d2", "d3"]
    assert storage.read_counts() == counts
    result = run(app, *command)
    assert result.exit_code == 0
    assert "No decision before" in result.output


def test_what_is_pruned_stays_in_the_charts_of_every_version() -> None:
    storage = MemoryBanditStorage()
    made = [decision("d1"), decision("d2", version=2), decision("d3", bandit="gone")]
    storage.commit(decisions(*made))
    result = run(app_on(storage), "prune", "--yes", "--before", "2024-01-01")
    assert result.exit_code == 0
    assert list(storage.iter_log()) == []
    for each in made:
        stored = storage.read_digest(each.key)
        assert stored is not None
        assert Digest.load(stored.state).decisions == 1


@pytest.mark.parametrize(
    ("date", "left"),
    [
        ("1970-01-01", 4),
        ("1970-01-02", 0),
        ("1970-01-01T00:33:20", 2),
        ("1970-01-01T00:33:20Z", 2),
        ("1970-01-01 01:33:20+01:00", 2),
        ("1970-01-01T00:33:21", 1),
    ],
)
def test_dates(date: str, left: int) -> None:
    storage = MemoryBanditStorage()
    fill(storage)
    assert NEW == 2000
    result = run(app_on(storage), "prune", "--yes", "--before", date)
    assert result.exit_code == 0
    assert len(list(storage.iter_log())) == left
    assert f"Removed the details of {4 - left} decision" in result.output


@pytest.mark.parametrize(
    ("date", "words"),
    [
        ("2999-01-01", "in the future"),
        ("yesterday", "write it as '2025-12-31'"),
        ("2025-02-30", "write it as '2025-12-31'"),
        ("", "write it as '2025-12-31'"),
        ("1700000000", "write it as '2025-12-31'"),
    ],
)
def test_dates_that_are_none(date: str, words: str) -> None:
    storage = MemoryBanditStorage()
    fill(storage)
    output = failing(storage, "prune", "--yes", "--before", date, status=2)
    assert words in " ".join(output.split())
    assert len(list(storage.iter_log())) == 4


def test_prune_needs_a_date(storage: BanditStorage) -> None:
    assert "--before" in failing(storage, "prune", "--yes", status=2)


# Check and upgrade


def test_storage_check(storage: BanditStorage) -> None:
    result = run(app_on(storage), "storage", "check")
    assert result.exit_code == 0
    name = type(storage).__name__
    assert result.output == (
        f"{name} answers; its counts (31 pulls, 5 rewards) are the sums of what is stored.\n"
    )


def test_storage_check_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryBanditStorage()
    fill(storage)
    counts = {
        key: {arm: dict(row) for arm, row in arms.items()}
        for key, arms in storage.read_counts().items()
    }
    counts[decision("x").key]["green"]["pulls"] = 30
    monkeypatch.setattr(storage, "read_counts", lambda timeout=None: counts)
    monkeypatch.setattr(storage, "check", lambda: ["the disk is slow: buy another"])
    output = failing(storage, "storage", "check")
    assert "- the disk is slow: buy another\n" in output
    assert "- 'color_btn' version 1, arm 'green': the count of 'pulls' is 30, and " in output
    assert "2 to mend" in output


def test_upgrade_says_what_it_did(storage: BanditStorage) -> None:
    result = run(app_on(storage), "db", "upgrade")
    assert result.exit_code == 0
    assert result.output == f"{type(storage).__name__} has no tables to update.\n"


def test_help_names_every_command() -> None:
    output = run(make_app(), "--help").output
    for name in ("check", "db", "export", "import", "import-flask-mab", "prune", "storage"):
        assert f"\n  {name}" in output


# Real processes

APP = """
import os
from flask import Flask
from flask_bandit import BanditMiddleware

app = Flask(__name__)
app.config.update(SECRET_KEY="x", MAB_STORAGE_URI=os.environ["STORAGE"])
BanditMiddleware(app)
"""


@pytest.fixture
def flask(tmp_path: Path) -> Callable[..., list[str]]:
    """Return the command line of ``flask bandit`` on a storage."""
    (tmp_path / "shop.py").write_text(APP)

    def command(uri: str, *args: str) -> list[str]:
        program = [sys.executable, "-W", "error", "-m", "flask", "--app", "shop", "bandit"]
        return ["env", "-C", str(tmp_path), f"STORAGE={uri}", *program, *args]

    return command


def write_many(path: Path, count: int) -> None:
    storage = JSONBanditStorage(path)
    for number in range(0, count, 100):
        made = [decision(f"d{n}", context={"n": n}) for n in range(number, number + 100)]
        storage.commit(Commit(tuple(map(pull, made)), (earn(reward(made[0])),)))
    storage.close()


def test_a_pipe_from_one_app_to_another(tmp_path: Path, flask: Callable[..., list[str]]) -> None:
    write_many(tmp_path / "a.json", 1_000)
    with piped(flask("json:///a.json", "export", "-"), flask("sqlite:///b.db", "import", "-")) as (
        source,
        target,
    ):
        out, error = target.communicate(timeout=PATIENCE)
        assert source.wait(PATIENCE) == 0
        assert source.stderr is not None
        assert source.stderr.read() == b"Exported 1000 decisions, 10 rewards and 0 adjustments.\n"
    assert (target.returncode, error) == (0, b"")
    assert out.endswith(b"new: 1000 decisions, 10 rewards and 0 adjustments.\n")
    checked = subprocess.run(
        flask("sqlite:///b.db", "storage", "check"), capture_output=True, timeout=PATIENCE
    )
    assert checked.returncode == 0
    assert b"SQLiteBanditStorage answers; its counts (1000 pulls, 10 rewards)" in checked.stdout


@contextmanager
def piped(first: list[str], second: list[str]) -> Iterator[tuple[Any, Any]]:
    with (
        subprocess.Popen(first, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as source,
        subprocess.Popen(
            second, stdin=source.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as target,
    ):
        assert source.stdout is not None
        source.stdout.close()
        yield source, target


def test_an_export_killed_in_the_pipe_imports_nothing(
    tmp_path: Path, flask: Callable[..., list[str]]
) -> None:
    write_many(tmp_path / "a.json", 5_000)
    with subprocess.Popen(
        flask("json:///a.json", "export", "-"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as source:
        assert source.stdout is not None
        beginning = source.stdout.read(100_000)
        source.kill()
    done = subprocess.run(
        flask("json:///b.json", "import", "-"),
        input=beginning,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: standard input, line ")
    assert b"Nothing was imported" in done.stderr
    assert not (tmp_path / "b.json.log").exists()


def test_a_reader_that_goes_away(tmp_path: Path, flask: Callable[..., list[str]]) -> None:
    """As in ``flask bandit export - | head -1``."""
    write_many(tmp_path / "a.json", 2_000)
    with subprocess.Popen(
        flask("json:///a.json", "export", "-"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as source:
        assert source.stdout is not None
        assert source.stderr is not None
        assert b"flask-bandit-export" in source.stdout.readline()
        source.stdout.close()
        assert source.wait(PATIENCE) == 1
        assert b"Traceback" not in source.stderr.read()


def test_a_killed_export_leaves_no_file_of_that_name(
    tmp_path: Path, flask: Callable[..., list[str]]
) -> None:
    write_many(tmp_path / "a.json", 5_000)
    with subprocess.Popen(flask("json:///a.json", "export", "e")) as source:
        deadline = time.monotonic() + PATIENCE
        while not list(tmp_path.glob("e.*.part")):
            assert source.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        source.kill()
    assert not (tmp_path / "e").exists()


MEASURED = """
import runpy, sys
sys.argv = ["flask", *sys.argv[1:]]
try:
    runpy.run_module("flask", run_name="__main__")
finally:
    # getrusage would tell what the parent had at the fork.
    with open("/proc/self/status") as file:
        print(*[line.split()[1] for line in file if line.startswith("VmHWM")], file=sys.stderr)
"""


def test_memory_of_the_commands(tmp_path: Path, flask: Callable[..., list[str]]) -> None:
    """SQLite to SQLite: 20,000 decisions take 8 MB more than 200 do at the most."""
    peaks: list[list[int]] = []
    for count in (200, 20_000):
        write_many(tmp_path / f"{count}.json", count)
        peaks.append([])
        for args in (
            [f"json:///{count}.json", "export", f"{count}.first"],
            [f"sqlite:///{count}.db", "import", f"{count}.first"],
            [f"sqlite:///{count}.db", "export", f"{count}.second"],
            [f"sqlite:///{count}.db", "storage", "check"],
        ):
            command = flask(*args)
            at = command.index("-m")
            command[at : at + 2] = ["-c", MEASURED]
            done = subprocess.run(command, capture_output=True, timeout=PATIENCE)
            assert done.returncode == 0, done.stderr
            peaks[-1].append(int(done.stderr.split()[-1]))
        first, second = (tmp_path / f"{count}.{name}" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    few, many = (peak[1:] for peak in peaks)
    for less, more in zip(few, many, strict=True):
        assert more < less + 8_000, peaks


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["json:///a.json", "export", "e"], "Exporting  ["),
        (["json:///b.json", "import", "e"], "Importing  ["),
    ],
)
def test_progress_on_a_terminal(
    tmp_path: Path, flask: Callable[..., list[str]], args: list[str], words: str
) -> None:
    write_many(tmp_path / "a.json", 500)
    subprocess.run(flask("json:///a.json", "export", "e"), check=True, capture_output=True)
    screen, terminal = pty.openpty()
    command = flask(*args, *(["--force"] if "export" in args else []))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        # A terminal that nobody holds open any more is an error on Linux.
        with suppress(OSError):
            while block := os.read(screen, 65536):
                shown += block
        assert process.wait(PATIENCE) == 0
    os.close(screen)
    assert words.encode() in shown
    assert b"400" in shown
