"""No password in what the SQL storage says, and its own errors for URIs that cannot be read."""

from __future__ import annotations

import traceback

import pytest

from flask_bandit.errors import ConfigurationError, StorageError
from flask_bandit.plugins import storage_from_uri
from flask_bandit.storage.sql.engines import cause, make_engine, translate
from flask_bandit.testing.storage_samples import decision, decisions
from tests.servers.postgres import free_port


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg://u:S3CRET@host:port/db",
        "postgresql+psycopg://u:S3@CRET:x@127.0.0.1:1/db",
        "sqlite+pysqlite://u:S3CRET@h/x.db",
        "sqlite+pysqlite:///x.db?timeout=S3CRET",
    ],
)
def test_uris_that_cannot_be_read(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="%40 for '@'") as caught:
        storage_from_uri(uri)
    error = caught.value
    assert error.__cause__ is None
    assert error.__suppress_context__
    lines = [line for line in traceback.format_exception(error) if "CRET" in line]
    assert not lines


def test_a_password_in_the_query() -> None:
    address = f"postgresql+psycopg://127.0.0.1:{free_port()}/db"
    storage = storage_from_uri(f"{address}?user=u&password=S3CRET&sslpassword=S3CRET-TOO")
    assert "127.0.0.1" in repr(storage)
    with pytest.raises(StorageError) as caught:
        storage.commit(decisions(decision("a")), 10.0)
    assert f"{address} failed" in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value)) + repr(storage)
    assert "S3CRET" not in shown


def test_a_driver_that_repeats_passwords() -> None:
    engine = make_engine(
        "postgresql+psycopg://u:HIDDEN@h/db?sslpassword=S3CRET&passfile=/S3CRET/file"
    )
    error = OSError("HIDDEN, S3CRET and /S3CRET/file are wrong")
    assert "***, *** and *** are wrong" in str(translate(error, engine, False))
    assert cause(error, engine) is None
    harmless = OSError("h is away")
    assert cause(harmless, engine) is harmless
