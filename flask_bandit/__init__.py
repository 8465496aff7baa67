"""In-app bandit experiments for Flask: the public names, and nothing else."""

from .errors import (
    BanditError,
    ConfigurationError,
    LateChoiceError,
    StorageCorruptError,
    StorageError,
    StorageTimeoutError,
    UnknownArmError,
    UnknownBanditError,
)
from .web.decorators import choose_arm, reward_endpt
from .web.extension import BanditMiddleware, add_bandit
from .web.signals import decision_made, reward_recorded, storage_failed, storage_recovered
from .web.visit import reward, suggest_arm_for

__version__ = "0.1.0"

__all__ = [
    "BanditError",
    "BanditMiddleware",
    "ConfigurationError",
    "LateChoiceError",
    "StorageCorruptError",
    "StorageError",
    "StorageTimeoutError",
    "UnknownArmError",
    "UnknownBanditError",
    "add_bandit",
    "choose_arm",
    "decision_made",
    "reward",
    "reward_endpt",
    "reward_recorded",
    "storage_failed",
    "storage_recovered",
    "suggest_arm_for",
]
