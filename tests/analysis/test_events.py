"""Logs in files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest

from flask_bandit.analysis.events import Columns, read_events
from flask_bandit.errors import ConfigurationError
from flask_bandit.model import Decision, LogEntry, Reward, StatsDelta
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import Commit, DecisionWrite, RewardWrite
from flask_bandit.storage.transfer import write_export
from flask_bandit.web.admin.files import csv_chunks, json_chunks

CSV = "arm,reward,propensity,age,land\nred,1,.5,40,de\ngreen,0,0.25,,\n"
EVEN = {"red": 0.5, "green": 0.5}


def read(text: str, **details: Any) -> list[LogEntry]:
    return list(read_events(io.StringIO(text, newline=""), "log.txt", **details))


def wrong(text: str, **details: Any) -> str:
    """Return what is said about a bad file."""
    with pytest.raises(ConfigurationError) as caught:
        read(text, **details)
    return str(caught.value)


def made(number: int, bandit: str = "b", **details: Any) -> LogEntry:
    decision = Decision(f"d{number}", bandit, 2, "red", EVEN, "p", float(number), **details)
    reward = Reward(f"r{number}", f"d{number}", bandit, 2, "red", 1.5, number + 1.0, "sale")
    return LogEntry(decision, (reward,))


LOG = [made(1, context={"x": 1.5}, subject="ann"), made(2), LogEntry(made(3).decision)]


def export(entries: Sequence[LogEntry], *others: Decision) -> str:
    storage = MemoryBanditStorage()
    for each in entries:
        delta = StatsDelta({"red": {"pulls": 1}})
        rewards = tuple(RewardWrite(one, delta) for one in each.rewards)
        storage.commit(Commit((DecisionWrite(each.decision, delta),), rewards))
    for decision in others:
        storage.commit(Commit((DecisionWrite(decision, StatsDelta({})),)))
    content = io.BytesIO()
    write_export(storage, content)
    return content.getvalue().decode()


def test_rows_of_csv() -> None:
    first, second = read(CSV, features=["age", "land"], numeric=["age"])
    assert first.decision == Decision(
        "line 2", "", 1, "red", {"red": 0.5}, "file", 2.0, {"age": 40.0, "land": "de"}
    )
    assert [one.value for one in first.rewards] == [1.0]
    assert second.decision.propensities == {"green": 0.25}
    # An empty cell is a missing value.
    assert second.decision.context == {}
    assert read(CSV)[0].decision.context == {"age": "40", "land": "de"}
    assert read(CSV, bandit="whatever")[0] == read(CSV)[0]


def test_columns_may_have_other_names() -> None:
    text = "item,click,p\r\n7,1,.5\r\n\r\n8,0,.5\r\n"
    found = read(text, columns=Columns("item", "click", "p"))
    assert [each.decision.arm for each in found] == ["7", "8"]
    assert [each.decision.id for each in found] == ["line 2", "line 4"]


def test_the_decision_log_and_an_export_say_the_same() -> None:
    assert read("".join(json_chunks(LOG))) == LOG
    assert read(export(LOG)) == LOG
    merged = Decision("m", "b", 2, "red", None, "merged:d1", 9.0)
    assert read(export(LOG, merged)) == LOG


def test_one_bandit_of_several_is_read() -> None:
    text = "".join(json_chunks([*LOG, made(4, "other")]))
    assert [each.decision.id for each in read(text, bandit="other")] == ["d4"]
    assert wrong(text) == ("log.txt holds decisions of 'b' and of 'other'; name the bandit to read")
    with pytest.raises(ConfigurationError, match="has no decision of 'c'; it has those of 'b', 'o"):
        read(text, bandit="c")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: there is no column 'arm'; its columns are none"),
        (
            "arm,reward\n",
            "line 1: there is no column 'propensity'; its columns are 'arm', 'reward'",
        ),
        ("arm,arm,reward,propensity\n", "line 1: two columns have the same name"),
        (CSV.replace(",1,", ",yes,"), "line 2: the column 'reward' holds 'yes'; write a number"),
        (CSV.replace("0.25", "nan"), "line 3: the column 'propensity' holds 'nan'"),
        (CSV.replace("0.25", "0"), "line 3: a probability is 0; it must be above 0 to 1"),
        (CSV.replace("0.25", "1.5"), "line 3: a probability is 1.5; it must be above 0 to 1"),
        (CSV.replace("green", ""), "line 3: the column 'arm' is empty"),
        (CSV.replace(",40,", ",old,"), "line 2: the column 'age' holds 'old'"),
        (CSV + "red,1\n", "line 4: it has 2 cells, and there are 5 headings"),
        (CSV + '"red', "line 4: "),
        ("".join(csv_chunks(LOG)), "is a decision log for a spreadsheet"),
    ],
)
def test_bad_csv_is_told_with_its_line(text: str, said: str) -> None:
    details = {} if "age" not in text else {"features": ["age"], "numeric": ["age"]}
    message = wrong(text, **details)
    assert said in message
    assert message.startswith("log.txt")


def test_a_feature_without_a_column() -> None:
    assert "line 1: there is no column 'size'" in wrong(CSV, features=["size"])


LINES = "".join(json_chunks(LOG))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"arm": "red"', '"weapon": "red"', "it lacks 'arm'"),
        ('"version": 2', '"version": "two"', "line 1: "),
        ('{"red": 0.5', '{"red": -0.5', "a probability is -0.5; it must be from 0 to 1"),
        ('{"red": 0.5', '{"red": "0.5"', "a probability is '0.5', not a number"),
        ('"value": 1.5', '"value": true', "the reward is True, not a number"),
        ('"at": 1.0', '"at": NaN', "the time is nan, not a number"),
        ('{"x": 1.5}', "[1.5]", "the context is [1.5], not an object"),
        ('"id": "d1"', '"id": 1', "1 is not a text"),
        ('"at": 2.0}]}', '"at": 2.0}]', "it is not JSON, or it was cut off"),
        ('"id"', '"identity"', "it is neither a decision nor of an export"),
    ],
)
def test_bad_json_is_told_with_its_line(old: str, new: str, said: str) -> None:
    message = wrong(LINES.replace(old, new))
    assert said in message
    assert message.startswith("log.txt, line 1: ")
    assert message.endswith("Correct the line, or write the file again")


def test_what_is_no_object_on_a_later_line() -> None:
    assert "log.txt, line 3: it is not a JSON object" in wrong(
        json.dumps({"format": "x"}) + "\n\n[]"
    )


def test_an_export_that_was_cut_off() -> None:
    text = export(LOG)
    lines = text.splitlines(keepends=True)
    assert "was cut off after line 3" in wrong("".join(lines[:3]))
    assert "line 3: it is not JSON" in wrong("".join(lines[:2]) + lines[2][:30])
