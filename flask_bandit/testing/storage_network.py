"""The part of ``StorageSuite`` for storages on a server: connections that break or hang."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ..errors import StorageError
from ..storage.base import BanditStorage, Commit
from .proxy import Address, FaultProxy
from .storage_samples import BANDIT, KEY, decision, decisions, earn, pull, reward

_F = TypeVar("_F", bound=Callable[..., Any])

DEADLINE = 0.5
"""Seconds given to a call that cannot succeed."""
FAR_TOO_LONG = 10.0
"""Seconds after which such a call has clearly forgotten its deadline, on any machine."""


def needs_server(test: _F) -> _F:
    """Mark a test that only a storage with ``networked = True`` has."""
    test.__dict__["needs_networked"] = True
    return test


class NetworkTests:
    """What must hold for a storage that talks to a server over TCP."""

    def server_address(self) -> Address:
        """Return where the server listens: (host, port) or the path of its Unix socket."""
        raise NotImplementedError

    def make_storage_at(self, location: Path, host: str, port: int) -> BanditStorage:
        """Open the storage kept at ``location``, reaching its server at this host and port."""
        raise NotImplementedError

    @pytest.fixture
    def proxy(self) -> Iterator[FaultProxy]:
        """A proxy before the server."""
        proxy = FaultProxy(self.server_address())
        yield proxy
        proxy.close()

    @pytest.fixture
    def remote(self, tmp_path: Path, proxy: FaultProxy) -> Iterator[BanditStorage]:
        """A storage behind the proxy that has its connection and its tables already."""
        storage = self.make_storage_at(tmp_path, "127.0.0.1", proxy.port)
        storage.commit(decisions(decision("first")), 60.0)
        yield storage
        storage.close()

    @needs_server
    def test_lost_answers_are_replayed_and_count_once(
        self, remote: BanditStorage, proxy: FaultProxy
    ) -> None:
        """Each answer of a commit is lost in turn, until none is left to be lost."""
        for number in range(1, 30):
            made = decision(f"cut{number}")
            commit = Commit((pull(made),), (earn(reward(made)),))
            cuts = proxy.cuts
            proxy.cut_answer(number)
            try:
                remote.commit(commit, 30.0)
            except StorageError:
                remote.commit(commit, 30.0)
            remote.commit(commit, 30.0)
            row = remote.read_counts(30.0)[KEY]["green"]
            assert (row["pulls"], row["rewards"]) == (1 + number, number)
            proxy.cut_answer(10**9)
            if proxy.cuts == cuts:
                break
        assert proxy.cuts >= 1
        assert number < 29, "a commit of that many round trips"

    @needs_server
    def test_lost_answers_of_a_control_write_are_no_refusal(
        self, remote: BanditStorage, proxy: FaultProxy
    ) -> None:
        """An error leaves open what is stored; who gets ``False`` knows that it is not."""
        seen = None
        for number in range(1, 30):
            cuts = proxy.cuts
            proxy.cut_answer(number)
            try:
                assert remote.write_control(BANDIT, {"n": number}, seen, 30.0)
            except StorageError:
                stored = remote.read_control(30.0).get(BANDIT)
                assert stored in (seen, {"n": number})
                remote.write_control(BANDIT, {"n": number}, seen, 30.0)
            seen = {"n": number}
            proxy.cut_answer(10**9)
            assert remote.read_control(30.0) == {BANDIT: seen}
            if proxy.cuts == cuts:
                break
        assert proxy.cuts >= 1
        assert number < 29, "a write of that many round trips"

    @needs_server
    def test_lost_answers_of_a_digest_write_are_no_refusal(
        self, remote: BanditStorage, proxy: FaultProxy
    ) -> None:
        """An error leaves open whether it is stored; who gets ``False`` knows that it is not."""
        for number in range(1, 30):
            stored, cuts = remote.read_digest(KEY, 30.0), proxy.cuts
            proxy.cut_answer(number)
            try:
                assert remote.write_digest(
                    KEY, {"n": number}, stored.revision if stored else 0, 30.0
                )
            except StorageError:
                remote.write_digest(KEY, {"n": number}, stored.revision if stored else 0, 30.0)
            proxy.cut_answer(10**9)
            found = remote.read_digest(KEY, 30.0)
            assert found is not None
            assert found.state == {"n": number}
            if proxy.cuts == cuts:
                break
        assert proxy.cuts >= 1
        assert number < 29, "a write of that many round trips"

    @needs_server
    def test_hanging_server_meets_the_deadline(
        self, remote: BanditStorage, proxy: FaultProxy
    ) -> None:
        proxy.hang()
        calls: list[Callable[[], object]] = [
            lambda: remote.commit(decisions(decision("hung")), DEADLINE),
            lambda: remote.read_counts(DEADLINE),
            lambda: remote.get_decisions(["first"], DEADLINE),
            lambda: remote.erase(["first"], DEADLINE),
            lambda: remote.read_control(DEADLINE),
            lambda: remote.write_control(BANDIT, {"n": 1}, None, DEADLINE),
            lambda: remote.read_digest(KEY, DEADLINE),
            lambda: remote.write_digest(KEY, {"n": 1}, 0, DEADLINE),
        ]
        for call in calls:
            started = time.monotonic()
            with pytest.raises(StorageError):
                call()
            assert time.monotonic() - started < FAR_TOO_LONG
        proxy.resume()
        remote.commit(decisions(decision("hung")), 30.0)
        assert remote.read_counts(30.0)[KEY]["green"]["pulls"] == 2

    @needs_server
    def test_refused_connections_are_an_error_until_they_are_not(
        self, remote: BanditStorage, proxy: FaultProxy
    ) -> None:
        proxy.refuse()
        for _ in range(3):
            with pytest.raises(StorageError):
                remote.commit(decisions(decision("refused")), DEADLINE)
            with pytest.raises(StorageError):
                remote.read_counts(DEADLINE)
        proxy.accept()
        remote.commit(decisions(decision("refused")), 30.0)
        assert remote.read_counts(30.0)[KEY]["green"]["pulls"] == 2

    @needs_server
    def test_broken_idle_connections_are_replaced(
        self, remote: BanditStorage, proxy: FaultProxy
    ) -> None:
        """A server that was restarted while nobody asked costs no error."""
        for number in range(3):
            proxy.resume()
            remote.commit(decisions(decision(f"again{number}")), 30.0)
            proxy.resume()
            assert remote.read_counts(30.0)[KEY]["green"]["pulls"] == 2 + number
        assert [entry.decision.id for entry in remote.iter_log()][:2] == ["first", "again0"]

    @needs_server
    def test_not_connected_before_first_use(self, tmp_path: Path, proxy: FaultProxy) -> None:
        proxy.refuse()
        storage = self.make_storage_at(tmp_path, "127.0.0.1", proxy.port)
        storage.close()
        proxy.accept()
        storage.commit(decisions(decision("first")), 60.0)
        storage.close()
