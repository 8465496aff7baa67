"""The data, servers and storages of these tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..example.conftest import serve
from ..servers.postgres import PostgresServer

__all__ = ["serve", "uri", "wheel"]


@pytest.fixture(scope="session")
def wheel() -> Path:
    """Return the wheel that has the data; only where all tests are demanded it must be there."""
    open_bandit = pytest.importorskip("benchmarks.open_bandit", reason="needs the extra bench")
    try:
        found: Path = open_bandit.fetch()
    except OSError as error:
        if os.environ.get("FLASK_BANDIT_SKIP_NOTHING"):
            raise
        pytest.skip(str(error))
    return found


@pytest.fixture
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URI of an empty place on the storage that the test is parametrized with."""
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        return postgres.new_database()
    return f"sqlite:///{tmp_path / 'bandits.db'}"
