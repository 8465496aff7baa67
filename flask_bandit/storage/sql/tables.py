"""The tables, as SQLAlchemy describes them; the migrations make them.

Imports SQLAlchemy and nothing of this package, so that an app's own migrations can import it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql

VERSION_TABLE = "bandit_alembic_version"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables of this package, for an app whose own migrations shall know them."""


def _sequence() -> Column[int]:
    # SQLite numbers rows only in a primary key that is called INTEGER.
    kind = BigInteger().with_variant(Integer, "sqlite")
    return Column("seq", kind, Identity(), primary_key=True)


counts = Table(
    "bandit_counts",
    metadata,
    Column("bandit", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("arm", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    Column("total", Double, nullable=False),
)

decisions = Table(
    "bandit_decisions",
    metadata,
    _sequence(),
    Column("id", Text, nullable=False),
    Column("bandit", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("arm", Text, nullable=False),
    Column("propensity", Double),
    Column("propensities", Text),
    Column("context", Text),
    Column("subject", Text),
    Column("policy_version", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("delta", Text, nullable=False),
    Column("awaited", Boolean, nullable=False),
    UniqueConstraint("id"),
    # For the log of some days. With the number it alone says which rows those are.
    Index(None, "bandit", "at", "seq"),
)

rewards = Table(
    "bandit_rewards",
    metadata,
    _sequence(),
    Column("id", Text, nullable=False),
    Column("decision_id", Text, nullable=False),
    Column("bandit", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("arm", Text, nullable=False),
    Column("goal", Text, nullable=False),
    Column("value", Double, nullable=False),
    Column("at", Double, nullable=False),
    Column("delta", Text),
    Column("delta_arm", Text, nullable=False),
    Column("counted", Boolean, nullable=False),
    UniqueConstraint("id"),
    Index(None, "decision_id"),
)

adjustments = Table(
    "bandit_adjustments",
    metadata,
    _sequence(),
    Column("id", Text, nullable=False),
    Column("bandit", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("delta", Text, nullable=False),
    UniqueConstraint("id"),
)

# What contextual policies learn from. PostgreSQL adds these up by itself; in SQLite they are bytes,
# little-endian numbers of 64 bits.
arrays = Table(
    "bandit_arrays",
    metadata,
    Column("bandit", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("arm", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary().with_variant(ARRAY(Double), "postgresql"), nullable=False),
)

# What an operator decided about a bandit, as a JSON object.
control = Table(
    "bandit_control",
    metadata,
    Column("bandit", Text, primary_key=True),
    Column("state", Text, nullable=False),
)

# What a version's log adds up to, as a JSON object; it can be made again from the log.
digest = Table(
    "bandit_digest",
    metadata,
    Column("bandit", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
)

# Alembic makes this one. Named here, or an app's autogenerate would propose to drop it.
alembic_version = Table(
    VERSION_TABLE,
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)

_DIALECT: Any = postgresql.dialect()  # type: ignore[no-untyped-call]


def columns(table: Table) -> str:
    """Return the names of a table's columns, as SQL; without the number that a row gets."""
    return ", ".join(c.name for c in table.columns if c.name != "seq")


def recordset(name: str, table: Table, *more: str) -> str:
    """Return SQL for PostgreSQL that makes rows of a table of a JSON parameter.

    :param name: of the parameter and of the rows
    :param more: columns beside those of the table, each with its type
    """
    names = [f"{c.name} {c.type.compile(_DIALECT)}" for c in table.columns if c.name != "seq"]
    return f"json_to_recordset(CAST(:{name} AS json)) AS {name}({', '.join([*names, *more])})"
