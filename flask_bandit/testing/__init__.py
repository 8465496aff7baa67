"""For tests: ``force`` an arm, see what was stored, suites for policies and storages of your own.

Each name is imported when it is asked for: pytest loads the plugin beside it in every run, and
only the suites need pytest.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .events import BanditEvents
    from .forced import force
    from .policies import PolicySuite
    from .storages import StorageSuite

__all__ = ["BanditEvents", "PolicySuite", "StorageSuite", "force"]

_MODULES = {
    "BanditEvents": "events",
    "PolicySuite": "policies",
    "StorageSuite": "storages",
    "force": "forced",
}

_pytest: Any = sys.modules.get("pytest")
if _pytest is not None:
    # Before they are imported, so that a failing assertion in a suite shows its values.
    _pytest.register_assert_rewrite(
        "flask_bandit.testing.policies",
        "flask_bandit.testing.storages",
        "flask_bandit.testing.storage_control",
        "flask_bandit.testing.storage_digest",
        "flask_bandit.testing.storage_erase",
        "flask_bandit.testing.storage_goals",
        "flask_bandit.testing.storage_moves",
        "flask_bandit.testing.storage_network",
        "flask_bandit.testing.storage_processes",
        "flask_bandit.testing.storage_resent",
    )


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
