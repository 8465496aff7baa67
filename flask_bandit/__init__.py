"""In-app bandit experiments for Flask: the public names, and nothing else."""

from .errors import (
    BanditError,
    ConfigurationError,
    LateChoiceError,
    LifecycleError,
    StorageCorruptError,
    StorageError,
    StorageTimeoutError,
    TokenError,
    UnknownArmError,
    UnknownBanditError,
)
from .web.decorators import choose_arm, reward_and_redirect, reward_endpt
from .web.extension import BanditMiddleware, add_bandit
from .web.request import reward, suggest_arm_for
from .web.signals import (
    bandit_changed,
    decision_made,
    reward_recorded,
    storage_failed,
    storage_recovered,
)

__version__ = "0.1.0"

__all__ = [
    "BanditError",
    "BanditMiddleware",
    "ConfigurationError",
    "LateChoiceError",
    "LifecycleError",
    "StorageCorruptError",
    "StorageError",
    "StorageTimeoutError",
    "TokenError",
    "UnknownArmError",
    "UnknownBanditError",
    "add_bandit",
    "bandit_changed",
    "choose_arm",
    "decision_made",
    "reward",
    "reward_and_redirect",
    "reward_endpt",
    "reward_recorded",
    "storage_failed",
    "storage_recovered",
    "suggest_arm_for",
]
