"""A storage in an SQL database, by SQLAlchemy and Alembic; needs the extra ``sql``."""

from __future__ import annotations

from .storage import SQLBanditStorage
from .tables import metadata

__all__ = ["SQLBanditStorage", "metadata"]
