"""The recommended storage for one machine: an SQLite file, by the standard library's module."""

from .storage import SQLiteBanditStorage

__all__ = ["SQLiteBanditStorage"]
