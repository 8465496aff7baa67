"""An index of the decisions of a bandit by time."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

NAME = "ix_bandit_decisions_bandit_at_seq"


def upgrade() -> None:
    """Make the index, unless an app's own migrations did."""
    columns = ["bandit", "at", "seq"]
    op.create_index(NAME, "bandit_decisions", columns, if_not_exists=True)


def downgrade() -> None:
    """Remove the index."""
    op.drop_index(NAME, "bandit_decisions", if_exists=True)
