"""Servers for the tests; and a browser test that must run and cannot is a failure, not a skip."""

from __future__ import annotations

import os

import hypothesis
import pytest

# The machines are shared: how long an example takes says nothing.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

pytest_plugins = [
    "pytester",
    "tests.clock",
    "tests.servers.postgres",
    "tests.servers.redis",
    "tests.servers.zeo",
]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if (
        report.skipped
        and item.get_closest_marker("browser")
        and os.environ.get("FLASK_BANDIT_SKIP_NOTHING")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped although nothing may be: {report.longrepr}"
    return report
