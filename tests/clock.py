"""A clock that stands still until a test moves it; ``conftest.py`` makes the fixture known."""

from __future__ import annotations

import pytest

START = 1_700_000_000.0
"""What it shows at first, in seconds since the epoch."""


class Clock:
    """What ``time.time`` returns."""

    now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the test."""
    made = Clock()
    monkeypatch.setattr("time.time", made)
    return made
