"""The storage in files that need no database, for demos and small sites."""

from .storage import JSONBanditStorage

__all__ = ["JSONBanditStorage"]
