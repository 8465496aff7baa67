"""Runs the migrations on the connection that it is handed.

It reads no file and sets up no logging: that is the app's business.
"""

from __future__ import annotations

from alembic import context

from flask_bandit.storage.sql.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
