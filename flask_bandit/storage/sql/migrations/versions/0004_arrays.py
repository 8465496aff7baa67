"""Arrays of sums, which contextual policies learn from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

NAME = "bandit_arrays"


def upgrade() -> None:
    """Make the table, unless an app's own migrations did."""
    if sa.inspect(op.get_bind()).has_table(NAME):
        return
    numbers = sa.LargeBinary().with_variant(sa.ARRAY(sa.Double), "postgresql")
    op.create_table(
        NAME,
        sa.Column("bandit", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("arm", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", numbers, nullable=False),
        sa.PrimaryKeyConstraint("bandit", "version", "arm", "name", name=f"pk_{NAME}"),
    )


def downgrade() -> None:
    """Remove the table; what was learned is lost."""
    op.drop_table(NAME)
