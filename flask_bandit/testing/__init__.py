"""Test suites to inherit: they hold your policy or storage to what the built-in ones promise."""

import pytest

# Before the import, so that a failing assertion in a suite shows its values.
pytest.register_assert_rewrite(
    "flask_bandit.testing.policies",
    "flask_bandit.testing.storages",
    "flask_bandit.testing.storage_processes",
)

from .policies import PolicySuite  # noqa: E402
from .storages import StorageSuite  # noqa: E402

__all__ = ["PolicySuite", "StorageSuite"]
