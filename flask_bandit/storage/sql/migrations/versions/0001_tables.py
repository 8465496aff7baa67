"""Counts, decisions, rewards, adjustments and control."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "bandit_counts",
        sa.Column("bandit", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("arm", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("slot", sa.SmallInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint(
            *("bandit", "version", "arm", "name", "slot"), name="pk_bandit_counts"
        ),
    )
    _log_tables()
    op.create_table(
        "bandit_control",
        sa.Column("bandit", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("bandit", name="pk_bandit_control"),
    )


def downgrade() -> None:
    """Remove all tables, and with them what was counted."""
    for name in ("control", "adjustments", "rewards", "decisions", "counts"):
        op.drop_table(f"bandit_{name}")


def _log_tables() -> None:
    _create(
        "bandit_decisions",
        sa.Column("arm", sa.Text, nullable=False),
        sa.Column("propensity", sa.Double),
        sa.Column("propensities", sa.Text),
        sa.Column("context", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("policy_version", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("delta", sa.Text, nullable=False),
        sa.Column("awaited", sa.Boolean, nullable=False),
    )
    _create(
        "bandit_rewards",
        sa.Column("decision_id", sa.Text, nullable=False),
        sa.Column("arm", sa.Text, nullable=False),
        sa.Column("goal", sa.Text, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("delta", sa.Text),
        sa.Column("delta_arm", sa.Text, nullable=False),
        sa.Column("counted", sa.Boolean, nullable=False),
    )
    op.create_index("ix_bandit_rewards_decision_id", "bandit_rewards", ["decision_id"])
    _create("bandit_adjustments", sa.Column("delta", sa.Text, nullable=False))


def _create(name: str, *columns: sa.Column[Any]) -> None:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        name,
        sa.Column("seq", kind, sa.Identity(), nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("bandit", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("seq", name=f"pk_{name}"),
        sa.UniqueConstraint("id", name=f"uq_{name}_id"),
    )
