"""One thread at a time, now and then."""

from __future__ import annotations

import threading

import pytest

from flask_bandit.background import Background

PATIENCE = 30.0


def test_it_works_in_a_thread_and_once_per_period() -> None:
    names: list[str] = []
    background = Background(names.append)
    thread = background.poke("a", 1000.0)
    assert thread is not None
    thread.join(PATIENCE)
    assert names == ["a"]
    assert background.poke("a", 1000.0) is None
    other = background.poke("b", 1000.0)
    assert other is not None
    other.join(PATIENCE)
    assert names == ["a", "b"]


def test_while_one_works_no_other_begins() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(name: str) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    background = Background(work)
    first = background.poke("a", 0.0)
    assert first is not None
    assert begun.wait(PATIENCE)
    assert background.poke("b", 0.0) is None
    go_on.set()
    first.join(PATIENCE)
    second = background.poke("b", 0.0)
    assert second is not None
    second.join(PATIENCE)


def test_who_waits_is_known_and_not_begun() -> None:
    background = Background(lambda name: pytest.fail("it was to wait"))
    assert not background.is_known("a")
    background.wait("a", 1000.0)
    assert background.is_known("a")
    assert background.poke("a", 1000.0) is None
