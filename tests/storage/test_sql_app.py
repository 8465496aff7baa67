"""The SQL storage in an app's own database: Flask-SQLAlchemy's engine, Flask-Migrate's metadata."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import flask_migrate
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, inspect

import flask_bandit.storage.sql
from flask_bandit.errors import ConfigurationError
from flask_bandit.storage.sql import SQLBanditStorage, metadata
from flask_bandit.storage.sql.migrate import VERSIONS
from flask_bandit.testing.storage_samples import KEY, decision, decisions
from tests.servers.postgres import PostgresServer


@pytest.fixture(params=["postgresql", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/app.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def db() -> SQLAlchemy:
    return SQLAlchemy()


@pytest.fixture
def app(uri: str, db: SQLAlchemy) -> Flask:
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = uri
    db.init_app(app)

    class Order(db.Model):  # type: ignore[name-defined, misc]
        id = db.Column(db.Integer, primary_key=True)

    return app


def differences(engine: Engine, *known: Any) -> list[Any]:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, list(known)))  # type: ignore[arg-type]


def test_the_apps_engine(app: Flask, db: SQLAlchemy) -> None:
    """Named by a function, since ``db.engine`` needs an app context, which comes later."""
    storage = SQLBanditStorage(lambda: db.engine)
    assert "not connected" in repr(storage)
    with app.app_context():
        storage.commit(decisions(decision("a")), 60.0)
        storage.commit(decisions(decision("b")), 60.0)
        db.create_all()
        order = db.session.execute(db.text('SELECT count(*) FROM "order"')).scalar()
        assert order == 0
        db.session.rollback()
        # Nothing of the storage's ways stays behind on the app's connections.
        with db.engine.connect() as connection:
            assert connection.get_isolation_level() == connection.default_isolation_level
        assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert storage.read_counts(60.0)[KEY]["green"]["pulls"] == 2
        storage.close()
        db.engine.dispose()


def test_migrations_make_what_the_metadata_says(app: Flask, db: SQLAlchemy) -> None:
    with app.app_context():
        storage = SQLBanditStorage(db.engine)
        storage.upgrade()
        db.create_all()
        assert differences(db.engine, db.metadata, metadata) == []
        names = set(inspect(db.engine).get_table_names()) - {"order"}
        assert names == set(metadata.tables)
        assert all(name.startswith("bandit_") for name in names)
        storage.close()
        db.engine.dispose()


def test_all_constraints_have_names() -> None:
    for table in metadata.tables.values():
        assert all(constraint.name for constraint in table.constraints)
        assert all(index.name for index in table.indexes)


def test_the_known_versions_are_those_of_the_migrations() -> None:
    config = Config()
    directory = Path(flask_bandit.storage.sql.__file__).parent / "migrations"
    config.set_main_option("script_location", str(directory))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [VERSIONS[-1]]
    assert [script.revision for script in scripts.walk_revisions()] == list(VERSIONS)[::-1]


@pytest.mark.filterwarnings("ignore:'get_engine':DeprecationWarning")
def test_flask_migrate_knows_the_tables(
    app: Flask, db: SQLAlchemy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "migrations"
    flask_migrate.Migrate(app, db, directory=str(directory))
    # Its env.py sets up logging from a file, which would silence the tests that follow.
    monkeypatch.setattr("logging.config.fileConfig", lambda *a, **k: None)
    with app.app_context():
        flask_migrate.init()
        env = directory / "env.py"
        text = env.read_text()
        told = text.replace("target_metadata=get_metadata()", "target_metadata=both()")
        assert told != text
        env.write_text(
            told.replace(
                "def get_metadata",
                "def both():\n    from flask_bandit.storage.sql import metadata\n"
                "    return [get_metadata(), metadata]\n\n\ndef get_metadata",
            )
        )
        flask_migrate.migrate()
        flask_migrate.upgrade()
        assert inspect(db.engine).has_table("bandit_counts")
        storage = SQLBanditStorage(lambda: db.engine)
        storage.commit(decisions(decision("a")), 60.0)
        assert "up to date" in storage.upgrade()
        before = sorted((directory / "versions").glob("*.py"))
        flask_migrate.migrate()
        assert sorted((directory / "versions").glob("*.py")) == before
        storage.close()
        db.engine.dispose()


def test_migrations_leave_the_apps_logging_alone(app: Flask, db: SQLAlchemy) -> None:
    logger = logging.getLogger("shop.orders")
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logger.disabled)
    with app.app_context():
        storage = SQLBanditStorage(db.engine)
        storage.upgrade()
        storage.close()
        db.engine.dispose()
    assert (root.level, list(root.handlers), logger.disabled) == before


def test_what_is_no_engine() -> None:
    with pytest.raises(ConfigurationError, match="lambda: db.engine"):
        SQLBanditStorage(42)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="lambda: db.engine"):
        SQLBanditStorage(lambda: None).read_counts()  # type: ignore[arg-type, return-value]
