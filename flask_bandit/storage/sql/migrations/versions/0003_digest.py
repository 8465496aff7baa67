"""Summaries of the log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NAME = "bandit_digest"


def upgrade() -> None:
    """Make the table, unless an app's own migrations did."""
    if sa.inspect(op.get_bind()).has_table(NAME):
        return
    op.create_table(
        NAME,
        sa.Column("bandit", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("bandit", "version", name=f"pk_{NAME}"),
    )


def downgrade() -> None:
    """Remove the table; what was in it is made again from the log."""
    op.drop_table(NAME)
