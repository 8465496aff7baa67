"""The Redis storage when the server dies, hangs, is full, or refuses."""

from __future__ import annotations

import logging
import socketserver
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from flask_bandit.errors import ConfigurationError, StorageError, StorageTimeoutError
from flask_bandit.plugins import storage_from_uri
from flask_bandit.storage.base import Commit
from flask_bandit.storage.redis import RedisBanditStorage
from flask_bandit.testing.storage_moves import fill, state
from flask_bandit.testing.storage_samples import KEY, decision, decisions, earn, pull, reward
from tests.servers.redis import RedisServer, free_port

StartRedis = Callable[..., RedisServer]

DEADLINE = 0.3
FAR_TOO_LONG = 10.0
PASSWORD = "s3cret/#:@ü"
ENCODED = "s3cret%2F%23%3A%40%C3%BC"


@pytest.fixture
def server(start_redis: StartRedis) -> RedisServer:
    return start_redis(appendfsync="always")


@pytest.fixture
def storage(server: RedisServer) -> Iterator[RedisBanditStorage]:
    storage = RedisBanditStorage(server.uri)
    yield storage
    storage.close()


# The server dies


class Load:
    """Threads that write until the storage fails, and note what was acknowledged."""

    def __init__(self, storage: RedisBanditStorage, round_: int) -> None:
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()
        self.errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._write, args=(storage, f"r{round_}t{number}"))
            for number in range(4)
        ]
        for thread in self._threads:
            thread.start()

    def _write(self, storage: RedisBanditStorage, name: str) -> None:
        for number in range(1_000_000):
            made = decision(f"{name}-{number}")
            self.sent.add(made.id)
            try:
                storage.commit(Commit((pull(made),), (earn(reward(made)),)), 10.0)
            except BaseException as error:
                self.errors.append(error)
                return
            self.acknowledged.add(made.id)

    def wait(self, least: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.acknowledged) < least:
            assert not self.errors, self.errors
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_killed_under_load(start_redis: StartRedis, appendfsync: str) -> None:
    """Always: nothing acknowledged is lost. Everysec: the server may hold writes back while the
    disk is busy, so the last of them may be lost, but whole commits only.
    """
    server = start_redis(appendfsync=appendfsync)
    storage = RedisBanditStorage(server.uri)
    total = 0
    for round_ in range(5):
        load = Load(storage, round_)
        load.wait(50 * round_ + 20)
        server.kill()
        load.join()
        assert {type(error) for error in load.errors} == {StorageError}
        server.start()
        stored = set(storage.get_decisions(load.sent))
        assert stored <= load.sent
        if appendfsync == "always":
            assert load.acknowledged <= stored
        total += len(stored)
        row = storage.read_counts()[KEY]["green"]
        assert row["pulls"] == row["rewards"] == total, "a commit is there as a whole"
    assert len(list(storage.iter_log())) == total
    storage.close()


def test_restarted_while_nobody_asked(storage: RedisBanditStorage, server: RedisServer) -> None:
    """Neither the broken connection nor the forgotten scripts are an error."""
    for number in range(3):
        storage.commit(decisions(decision(str(number))), 10.0)
        server.kill()
        server.start()
        assert storage.read_counts(10.0)[KEY]["green"]["pulls"] == number + 1
        server.stop()
        server.start()


def test_no_server(storage: RedisBanditStorage, server: RedisServer) -> None:
    storage.commit(decisions(decision("1")))
    server.kill()
    calls: list[Callable[[], object]] = [
        lambda: storage.commit(decisions(decision("2")), DEADLINE),
        lambda: storage.commit(decisions(decision("2"))),
        lambda: storage.read_counts(),
        lambda: storage.get_decisions(["1"]),
        lambda: list(storage.iter_log()),
        lambda: list(storage.iter_commits()),
        lambda: list(storage.iter_log(since=1.0)),
        lambda: storage.prune(1.0),
        lambda: storage.erase(["1"]),
        lambda: storage.read_control(),
        lambda: storage.write_control("b", {}, None),
        lambda: storage.read_digest(KEY),
        lambda: storage.write_digest(KEY, {}, 0),
        lambda: storage.check(),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="cannot be reached: start it") as caught:
            call()
        assert server.socket in str(caught.value)
    server.start()
    storage.commit(decisions(decision("2")))
    assert storage.read_counts()[KEY]["green"]["pulls"] == 2


@pytest.mark.parametrize("connected", [True, False])
def test_a_hanging_server_meets_the_deadline(
    storage: RedisBanditStorage, server: RedisServer, connected: bool
) -> None:
    storage.commit(decisions(decision("1")))
    if not connected:
        storage.close()
    server.pause()
    calls: list[Callable[[], object]] = [
        lambda: storage.commit(decisions(decision("2")), DEADLINE),
        lambda: storage.read_counts(DEADLINE),
        lambda: storage.get_decisions(["1"], DEADLINE),
        lambda: storage.erase(["1"], DEADLINE),
        lambda: storage.read_control(DEADLINE),
        lambda: storage.write_control("b", {}, None, DEADLINE),
        lambda: storage.read_digest(KEY, DEADLINE),
        lambda: storage.write_digest(KEY, {}, 0, DEADLINE),
    ]
    for call in calls:
        started = time.monotonic()
        with pytest.raises(StorageTimeoutError, match="sending it again is safe"):
            call()
        assert time.monotonic() - started < FAR_TOO_LONG
    server.resume()
    # What was sent while it hung may be done by now, and counts once all the same.
    storage.commit(decisions(decision("2")), 10.0)
    assert storage.read_counts()[KEY]["green"]["pulls"] == 2


def test_no_time_left(storage: RedisBanditStorage) -> None:
    storage.commit(decisions(decision("1")))
    with pytest.raises(StorageTimeoutError):
        storage.commit(decisions(decision("2")), 0.0)
    assert storage.read_counts()[KEY]["green"]["pulls"] == 1


# The server refuses


def test_full_memory_is_an_error_and_nothing_is_half_written(
    storage: RedisBanditStorage, server: RedisServer
) -> None:
    fill(storage)
    before = state(storage)
    made = decision("d9")
    commit = Commit((pull(made), pull(decision("later"))), (earn(reward(made)),))
    with server.client() as client:
        client.config_set("maxmemory", "1")
        for _ in range(2):
            for call in (
                lambda: storage.commit(commit),
                lambda: storage.write_control("b", {"state": "paused"}, None),
                lambda: storage.write_digest(KEY, {"n": 1}, 0),
            ):
                with pytest.raises(StorageError, match="its memory is full: raise maxmemory"):
                    call()
        assert storage.read_control() == {}
        assert storage.read_digest(KEY) is None
        assert state(storage) == before, "reading works"
        client.config_set("maxmemory", "0")
    assert len(storage.commit(commit).new) == 3


def test_memory_that_fills_up_in_the_middle(
    storage: RedisBanditStorage, server: RedisServer
) -> None:
    """Whatever commit meets the limit is there as a whole or not at all."""
    with server.client() as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 200_000)
        acknowledged = 0

        def write() -> None:
            nonlocal acknowledged
            for number in range(100_000):
                made = [decision(f"{number}-{n}") for n in range(20)]
                storage.commit(Commit(tuple(map(pull, made)), tuple(earn(reward(m)) for m in made)))
                acknowledged += 20

        with pytest.raises(StorageError, match="memory is full"):
            write()
        assert acknowledged > 0
        row = storage.read_counts()[KEY]["green"]
        assert row["pulls"] == row["rewards"] == acknowledged
        assert len(list(storage.iter_log())) == acknowledged


def test_a_replica_refuses(storage: RedisBanditStorage, server: RedisServer) -> None:
    fill(storage)
    before = state(storage)
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StorageError, match="read-only replica: connect to the primary"):
            storage.commit(decisions(decision("d9")))
        with pytest.raises(StorageError, match="read-only replica: connect to the primary"):
            storage.write_control("b", {}, None)
        with pytest.raises(StorageError, match="read-only replica: connect to the primary"):
            storage.write_digest(KEY, {}, 0)
        client.execute_command("REPLICAOF", "NO", "ONE")
    assert state(storage) == before


def test_a_disk_that_fails(storage: RedisBanditStorage, server: RedisServer) -> None:
    fill(storage)
    before = state(storage)
    gone = server.directory / "gone"
    gone.mkdir()
    with server.client() as client:
        client.config_set("save", "3600 1")
        client.config_set("dir", str(gone))
        gone.rmdir()
        client.bgsave()
        deadline = time.monotonic() + 30
        while client.info("persistence")["rdb_last_bgsave_status"] != "err":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(StorageError, match="cannot write to its disk"):
            storage.commit(decisions(decision("d9")))
        client.config_set("save", "")
    assert state(storage) == before


class FakeRedis:
    """Answers every command with the same line."""

    def __init__(self, line: str = "") -> None:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        # A test that fails may leave it.
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.line = line
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    def _handler(self) -> type[socketserver.BaseRequestHandler]:
        fake = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    while self.request.recv(65536):
                        self.request.sendall(f"{fake.line}\r\n".encode())

        return Handler

    def close(self) -> None:
        """End it; its clients have closed their connections."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-LOADING Redis is loading the dataset in memory", "loading its data"),
        ("-BUSY Redis is busy running a script.", "SCRIPT KILL"),
        ("-MASTERDOWN Link with MASTER is down", "replica without its primary"),
        ("-CLUSTERDOWN The cluster is down", "missing nodes"),
        ("-NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write"),
        ("-NOPERM this user has no permissions", "may not run"),
        ("-MOVED 17 :1", "cannot be reached"),
        ("-ERR something new", "refused: see what it says. (.*something new.*)"),
    ],
)
def test_what_a_server_says_comes_with_the_fix(line: str, words: str) -> None:
    fake = FakeRedis(line)
    storage = RedisBanditStorage(f"redis://127.0.0.1:{fake.port}")
    with pytest.raises(StorageError, match=words):
        storage.commit(decisions(decision("1")), 5.0)
    storage.close()
    fake.close()


def test_nodes_that_send_in_circles() -> None:
    fake = FakeRedis()
    fake.line = f"-MOVED 17 127.0.0.1:{fake.port}"
    storage = RedisBanditStorage(f"redis://127.0.0.1:{fake.port}")
    with pytest.raises(StorageError, match="sent a command on"):
        storage.commit(decisions(decision("1")), 5.0)
    storage.close()
    fake.close()


# Credentials


def told(error: BaseException, storage: object, caplog: pytest.LogCaptureFixture) -> str:
    """Return everything that a person or a log may see of an error."""
    logging.getLogger("flask_bandit").error("It failed", exc_info=error)
    shown = "".join(traceback.format_exception(error))
    return "\n".join((shown, caplog.text, repr(error), str(error), repr(storage)))


def test_a_password_opens_and_is_told_to_nobody(
    start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = start_redis(requirepass=PASSWORD)
    good = storage_from_uri(f"redis+unix://:{ENCODED}@{server.socket}?db=0")
    good.commit(decisions(decision("1")))
    good.check()
    server.kill()
    with pytest.raises(StorageError) as caught:
        good.commit(decisions(decision("2")))
    seen = [told(caught.value, good, caplog)]
    server.start()
    for uri in (f"redis+unix://:wr0ng@{server.socket}", server.uri):
        bad = storage_from_uri(uri)
        with pytest.raises(StorageError, match="wants a user or a password") as caught:
            bad.commit(decisions(decision("2")))
        seen.append(told(caught.value, bad, caplog))
        bad.close()
    assert good.read_counts()[KEY]["green"]["pulls"] == 1
    good.close()
    for text in seen:
        for secret in (PASSWORD, ENCODED, "s3cret", "wr0ng"):
            assert secret not in text


def test_a_server_that_repeats_the_password(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeRedis("-ERR unknown command `AUTH`, with args beginning with: `s3cret`, ")
    storage = RedisBanditStorage(f"redis://:s3cret@127.0.0.1:{fake.port}")
    with pytest.raises(StorageError, match="unknown command `AUTH`") as caught:
        storage.commit(decisions(decision("1")), 5.0)
    assert "s3cret" not in told(caught.value, storage, caplog)
    storage.close()
    fake.close()


@pytest.mark.parametrize("word", ["OOM", "e", "s"])
def test_a_user_or_a_password_as_short_as_a_word_of_the_answer(word: str) -> None:
    """What it means is found in the words as they came; no word is cut in pieces."""
    fake = FakeRedis("-ERR running script: -OOM command not allowed when used memory is full")
    storage = RedisBanditStorage(f"redis://{word}:{word}@127.0.0.1:{fake.port}")
    with pytest.raises(StorageError, match="running script.*command not allowed when") as caught:
        storage.commit(decisions(decision("1")), 5.0)
    assert "its memory is full: raise maxmemory" in str(caught.value)
    storage.close()
    fake.close()


def test_a_part_of_the_password_that_a_server_repeats(caplog: pytest.LogCaptureFixture) -> None:
    """It cuts long arguments off."""
    fake = FakeRedis("-ERR unknown command `AUTH`, with args beginning with: `s3cret-and-mo`, ")
    storage = RedisBanditStorage(f"redis://:s3cret-and-more@127.0.0.1:{fake.port}")
    with pytest.raises(StorageError, match="unknown command `AUTH`") as caught:
        storage.commit(decisions(decision("1")), 5.0)
    assert "s3cret" not in told(caught.value, storage, caplog)
    storage.close()
    fake.close()


@pytest.mark.parametrize(
    "uri",
    ["redis://:s3cret/x@host:1/0", "redis://u:s3cret@host?x=1", "redis://:s3cret@h:s3cret/"],
)
def test_a_uri_that_cannot_be_read_is_not_repeated(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        storage_from_uri(uri)
    assert "s3cret" not in told(caught.value, None, caplog)


# Connecting


def test_a_port_where_nobody_listens() -> None:
    storage = RedisBanditStorage(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(StorageError, match="Redis at 127.0.0.1:"):
        storage.read_counts(5.0)
