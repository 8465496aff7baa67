"""Where counts and the log are kept: the protocol, and the storages that need no extra."""

from .base import BanditStorage
from .json_file import JSONBanditStorage
from .memory import MemoryBanditStorage

__all__ = ["BanditStorage", "JSONBanditStorage", "MemoryBanditStorage"]
