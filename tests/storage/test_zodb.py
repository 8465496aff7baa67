"""The ZODB storage: the shared suite on a file and on a ZEO server, and its own habits."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_bandit.storage import BanditStorage, ZODBBanditStorage
from flask_bandit.testing import StorageSuite
from tests.servers.zeo import ZEOServer


class TestFile(StorageSuite):
    shared = False

    def make_storage(self, location: Path) -> BanditStorage:
        return ZODBBanditStorage(location / "bandits.fs")


class TestServer(StorageSuite):
    networked = True
    # ZEO takes hundreds of commits in a second, not thousands.
    commits_per_process = 100

    @pytest.fixture(autouse=True)
    def _address(self, zeo_server: ZEOServer) -> None:
        self.address = (zeo_server.host, zeo_server.port)

    def server_address(self) -> tuple[str, int]:
        return self.address

    def make_storage(self, location: Path) -> BanditStorage:
        return self.make_storage_at(location, *self.address)

    def make_storage_at(self, location: Path, host: str, port: int) -> BanditStorage:
        # One server for all tests, and a place in it for each.
        return ZODBBanditStorage(f"zeo://{host}:{port}", root=str(location))
