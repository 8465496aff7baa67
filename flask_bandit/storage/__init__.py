"""Where counts and the log are kept: the protocol, and the storages that need no extra."""

from .base import (
    Adjustment,
    BanditStorage,
    Commit,
    CommitResult,
    DecisionWrite,
    RewardWrite,
)
from .codec import clean_commit, commit_from_record, commit_to_record
from .json_file import JSONBanditStorage
from .ledger import Ledger
from .memory import MemoryBanditStorage

__all__ = [
    "Adjustment",
    "BanditStorage",
    "Commit",
    "CommitResult",
    "DecisionWrite",
    "JSONBanditStorage",
    "Ledger",
    "MemoryBanditStorage",
    "RewardWrite",
    "clean_commit",
    "commit_from_record",
    "commit_to_record",
]
