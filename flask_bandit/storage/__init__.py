"""Where counts and the log are kept: the protocol, and the storages.

Those that need an extra are imported when they are named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import (
    ARRAYS,
    Adjustment,
    BanditStorage,
    Commit,
    CommitResult,
    DecisionWrite,
    RewardWrite,
    StoredDigest,
    arrays_adjustment,
)
from .codec import (
    clean_bandit,
    clean_commit,
    clean_contexts,
    clean_control,
    clean_key,
    commit_from_record,
    commit_to_record,
)
from .digests import digest_from_text, digest_text
from .json_file import JSONBanditStorage
from .ledger import Ledger
from .memory import MemoryBanditStorage
from .settle import Change, StoredReward, Touched, grown, settle, touched
from .sqlite import SQLiteBanditStorage

if TYPE_CHECKING:
    from .redis import RedisBanditStorage
    from .sql import SQLBanditStorage
    from .zodb import ZODBBanditStorage

__all__ = [
    "ARRAYS",
    "Adjustment",
    "BanditStorage",
    "Change",
    "Commit",
    "CommitResult",
    "DecisionWrite",
    "JSONBanditStorage",
    "Ledger",
    "MemoryBanditStorage",
    "RedisBanditStorage",
    "RewardWrite",
    "SQLBanditStorage",
    "SQLiteBanditStorage",
    "StoredDigest",
    "StoredReward",
    "Touched",
    "ZODBBanditStorage",
    "arrays_adjustment",
    "clean_bandit",
    "clean_commit",
    "clean_contexts",
    "clean_control",
    "clean_key",
    "commit_from_record",
    "commit_to_record",
    "digest_from_text",
    "digest_text",
    "grown",
    "settle",
    "touched",
]

_LAZY = {
    "RedisBanditStorage": ".redis",
    "SQLBanditStorage": ".sql",
    "ZODBBanditStorage": ".zodb",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
