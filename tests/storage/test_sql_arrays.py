"""What a commit sends to an SQL database for the arrays that contextual policies learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from flask_bandit.errors import StorageError
from flask_bandit.storage.base import Commit
from flask_bandit.storage.sql import SQLBanditStorage
from flask_bandit.testing.storage_arrays import YY, added, item, learned, seen, sums
from flask_bandit.testing.storage_samples import KEY, decision, earn, pull, reward
from tests.servers.postgres import PostgresServer

PATIENCE = 60.0


@pytest.fixture
def storage(postgres: PostgresServer) -> Iterator[SQLBanditStorage]:
    storage = SQLBanditStorage(postgres.new_database())
    storage.upgrade()
    yield storage
    storage.close()


def sent(storage: SQLBanditStorage, commit: Commit) -> list[str]:
    """Commit, and return the statements."""
    assert storage._calls.links is not None
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    event.listen(storage._calls.links.engine, "before_cursor_execute", note)
    storage.commit(commit, PATIENCE)
    event.remove(storage._calls.links.engine, "before_cursor_execute", note)
    return statements


def test_terms_take_no_statement_more(storage: SQLBanditStorage) -> None:
    storage.commit(Commit((seen(decision("first")),)), PATIENCE)
    made = decision("d")
    plain = sent(storage, Commit((pull(made),)))
    assert len(plain) == 1
    assert len(sent(storage, Commit((seen(decision("e")),)))) == 1
    both = sent(storage, Commit((seen(decision("f")),), (learned(reward(made)),)))
    none = sent(storage, Commit((pull(decision("g")),), (earn(reward(made, "buy")),)))
    assert len(both) == len(none) == 3
    assert [text for text in plain + none if "bandit_arrays" in text] == []
    assert sums(storage)[KEY]["green"]["s:xx"] == [3 * y for y in YY]


def test_the_long_way_takes_one_more(storage: SQLBanditStorage) -> None:
    """For all arrays together."""
    plain = sent(
        storage,
        Commit((pull(decision("a")),), (), item("1", pull(decision("a")).delta).adjustments),
    )
    delta = added("green", "x", (1.0, 2.0)) + added("red", "x", (3.0,)) + added("red", "y", (4.0,))
    more = item("2", pull(decision("b")).delta + delta).adjustments
    statements = sent(storage, Commit((pull(decision("b")),), (), more))
    assert [text for text in plain if "bandit_arrays" in text] == []
    assert len(statements) == len(plain) + 1
    assert sums(storage) == {KEY: {"green": {"x": [1.0, 2.0]}, "red": {"x": [3.0], "y": [4.0]}}}


def test_what_does_not_fit_comes_with_the_fix(storage: SQLBanditStorage) -> None:
    storage.commit(item("1", added("green", "x", (1.0, 1e308))), PATIENCE)
    for number, vector in (("2", (1.0,)), ("3", (1.0, 2.0, 3.0))):
        with pytest.raises(StorageError, match="another length.* raise the bandit's version"):
            storage.commit(item(number, added("green", "x", vector)), PATIENCE)
    with pytest.raises(StorageError, match="overflow"):
        storage.commit(item("4", added("green", "x", (1.0, 1.7e308))), PATIENCE)
    assert sums(storage) == {KEY: {"green": {"x": [1.0, 1e308]}}}
