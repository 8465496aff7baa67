"""The Redis storage: the shared suite on a real server, and what is special about it."""

from __future__ import annotations

import hashlib
import math
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flask_bandit.errors import ConfigurationError, StorageCorruptError, StorageError
from flask_bandit.model import BanditKey, Decision, StatsDelta, Term
from flask_bandit.plugins import storage_from_uri
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import (
    Adjustment,
    Commit,
    CommitResult,
    DecisionWrite,
    RewardWrite,
)
from flask_bandit.storage.redis import RedisBanditStorage, log
from flask_bandit.testing import StorageSuite
from flask_bandit.testing.storage_arrays import seen, sums
from flask_bandit.testing.storage_moves import copy, fill, state
from flask_bandit.testing.storage_samples import (
    BANDIT,
    KEY,
    TWO,
    decision,
    decisions,
    earn,
    pull,
    reward,
    rewards,
)
from tests.servers.redis import RedisServer, free_port

KEYS = (
    "counts",
    "decisions",
    "rewards",
    "links",
    "waiting",
    "adjustments",
    "log",
    "times",
    "arrays",
)

StartRedis = Callable[..., RedisServer]


class TestRedis(StorageSuite):
    networked = True
    shard_by: str | None = None
    uri = socket = ""

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.uri, self.socket = redis_server.uri, redis_server.socket

    def server_address(self) -> str:
        return self.socket

    def make_storage(self, location: Path) -> RedisBanditStorage:
        return RedisBanditStorage(self.uri, str(location), self.shard_by)

    def make_storage_at(self, location: Path, host: str, port: int) -> RedisBanditStorage:
        return RedisBanditStorage(f"redis://{host}:{port}/0", str(location), self.shard_by)


class TestRedisByBandit(TestRedis):
    """Commits over several bandits are atomic for each bandit only. No test of the suite breaks
    one in the middle: a value that cannot be stored is refused before anything is sent."""

    shard_by = "bandit"


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def storage(redis_server: RedisServer, prefix: str) -> Iterator[RedisBanditStorage]:
    storage = RedisBanditStorage(redis_server.uri, prefix)
    yield storage
    storage.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as client:
        yield client


# The script keeps the rules of the ledger

NAMES = st.sampled_from(["x", "y"])
ARMS = st.sampled_from(["green", "red"])
VALUES = st.floats(-1e9, 1e9) | st.integers(-(2**40), 2**40)
COUNTS = st.dictionaries(
    ARMS,
    st.fixed_dictionaries({}, optional={"pulls": st.integers(-5, 5), "reward": VALUES}).filter(len),
    min_size=1,
    max_size=2,
)
# Two numbers stand for three with "outer", so that some do not fit, also within a commit.
VECTORS = st.lists(st.integers(-9, 9).map(float), min_size=2, max_size=2).map(tuple)
TERMS = st.builds(
    Term, ARMS, st.sampled_from(["xx", "xr"]), VECTORS, st.sampled_from([False] * 5 + [True])
)
DELTAS = st.builds(StatsDelta, COUNTS, st.just(()) | st.lists(TERMS, max_size=2).map(tuple))


@st.composite
def some_decisions(draw: st.DrawFn) -> DecisionWrite:
    made = decision(draw(st.sampled_from("abc")), draw(ARMS), draw(NAMES))
    return DecisionWrite(made, draw(DELTAS))


@st.composite
def some_rewards(draw: st.DrawFn) -> RewardWrite:
    made = decision(draw(st.sampled_from("abc")), draw(ARMS), draw(NAMES))
    # Ids that do not follow from the decision's: an event may be sent for the wrong one.
    id_ = draw(st.sampled_from(["1", "2", "3"]))
    sent = replace(reward(made, value=draw(VALUES)), id=id_)
    return RewardWrite(sent, draw(st.none() | DELTAS))


COMMITS = st.builds(
    Commit,
    st.lists(some_decisions(), max_size=3).map(tuple),
    st.lists(some_rewards(), max_size=3).map(tuple),
    st.lists(st.builds(Adjustment, NAMES, NAMES, st.just(1), DELTAS), max_size=2).map(tuple),
)


def in_order(result: CommitResult) -> CommitResult:
    """Return a result with what has no order in one."""
    return replace(result, unlearned=tuple(sorted(result.unlearned, key=repr)))


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(sent=st.lists(COMMITS, min_size=1, max_size=8))
def test_it_answers_as_the_memory_storage(redis_server: RedisServer, sent: list[Commit]) -> None:
    storage = RedisBanditStorage(redis_server.uri, uuid.uuid4().hex)
    memory = MemoryBanditStorage()
    for commit in sent:
        try:
            theirs = memory.commit(commit)
        except StorageError:
            with pytest.raises(StorageError, match="numbers"):
                storage.commit(commit)
        else:
            assert in_order(storage.commit(commit)) == in_order(theirs)
        assert storage.read_counts() == memory.read_counts()
        assert sums(storage) == sums(memory)
    assert list(storage.iter_log()) == list(memory.iter_log())
    assert len(list(storage.iter_commits())) == len(list(memory.iter_commits()))
    storage.close()


def test_sums_are_exact(storage: RedisBanditStorage) -> None:
    large = 2**53 + 1
    values = [0.1, 0.2, 0.3, 1e-300, 1 / 3, -1e16, 1e16, 5e-324, 1.7e308]
    total = 0.0
    for number, value in enumerate(values, 1):
        total += value
        delta = StatsDelta({"a": {"pulls": large, "reward": value}})
        storage.commit(Commit(adjustments=(Adjustment(str(number), "b", 1, delta),)))
        row = storage.read_counts()[BanditKey("b", 1)]["a"]
        assert (row["pulls"], row["reward"]) == (large * number, total)
        assert type(row["pulls"]) is int


@pytest.mark.parametrize("sums", [{"reward": 1.7e308}, {"pulls": 2**62}])
def test_a_sum_that_would_overflow_is_refused_whole(
    storage: RedisBanditStorage, sums: dict[str, float]
) -> None:
    first = Adjustment("1", BANDIT, 1, StatsDelta({"red": sums}))
    storage.commit(Commit(adjustments=(first,)))
    before = state(storage)
    with pytest.raises(StorageError, match="too large"):
        storage.commit(Commit((pull(decision("d")),), (), (replace(first, id="2"),)))
    assert state(storage) == before


def test_a_number_comes_back_as_it_was_sent(storage: RedisBanditStorage) -> None:
    values: list[float] = [1, 1.0, -0.0, 1e16, 0.1, 5e-324, -(2**60)]
    row = {f"n{i}": value for i, value in enumerate(values)}
    made = decision("d", at=1_700_000_000.123456)
    storage.commit(Commit((DecisionWrite(made, StatsDelta({"green": row})),)))
    (commit,) = storage.iter_commits()
    back = commit.decisions[0].delta.counts["green"]
    assert [(type(v), v, math.copysign(1, v)) for v in back.values()] == [
        (type(v), v, math.copysign(1, v)) for v in values
    ]
    assert storage.get_decisions(["d"])["d"].at == made.at


def test_a_log_of_several_pages(storage: RedisBanditStorage) -> None:
    made = [decision(f"d{number}", at=float(number)) for number in range(1203)]
    for start in range(0, len(made), 300):
        storage.commit(decisions(*made[start : start + 300]))
    storage.commit(Commit(rewards=tuple(earn(reward(one)) for one in made)))
    entries = list(storage.iter_log())
    assert [entry.decision for entry in entries] == made
    assert all(len(entry.rewards) == 1 for entry in entries)
    assert storage.prune(before=1000.0) == 1000
    assert [entry.decision.id for entry in storage.iter_log()] == [
        f"d{n}" for n in range(1000, 1203)
    ]


def test_a_commit_larger_than_a_script_s_stack(storage: RedisBanditStorage) -> None:
    made = [decision(f"d{number}") for number in range(9000)]
    storage.commit(Commit(tuple(map(pull, made)), tuple(earn(reward(one)) for one in made)))
    assert storage.read_counts()[KEY]["green"]["rewards"] == 9000


# The log of a stretch of time


def test_a_stretch_of_time_is_read_without_the_rest(start_redis: StartRedis) -> None:
    server = start_redis()
    storage = RedisBanditStorage(server.uri)
    made = [decision(f"d{number}", at=float(number)) for number in range(10_000)]
    for start in range(0, len(made), 400):
        storage.commit(decisions(*made[start : start + 400]))
    late = decision("late", at=3000.5)
    storage.commit(decisions(late))
    with server.client() as client:
        # Blocks of a thousand, and two pages in each; the late one makes the last one wide.
        for since, until, pages, expected in (
            (9_990.0, None, 1, made[9_990:]),
            (9_998.0, None, 1, made[9_998:]),
            (None, 3.0, 2, made[:3]),
            (4_999.0, 5_001.0, 5, made[4_999:5_001]),
            (3_000.0, 3_001.0, 3, [made[3000], late]),
            (20_000.0, None, 0, []),
        ):
            client.config_resetstat()
            found = [entry.decision for entry in storage.iter_log(since=since, until=until)]
            assert found == expected
            stats = client.info("commandstats")
            calls = stats.get("cmdstat_hmget", {"calls": 0})["calls"]
            assert calls <= 2 * (pages + 2), "each page asks for decisions and for links"
    storage.close()


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    batches=st.lists(
        st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.booleans()), max_size=7
    ),
    since=st.none() | st.integers(0, 9),
    until=st.none() | st.integers(1, 10),
)
@example([([1], True), ([5], False)], 5, None)
@example([([1, 1, 1], True), ([5], False)], 5, None)
@example([([5], False), ([1], True)], 5, None)
@example([([5, 1, 1, 1], True)], 5, None)
@example([([1, 5, 5, 5], True)], None, 5)
def test_the_log_of_a_time_whatever_was_noted(
    redis_server: RedisServer,
    batches: list[tuple[list[int], bool]],
    since: float | None,
    until: float | None,
) -> None:
    """Blocks of three, and commits by a version of this library that noted no times."""
    storage = RedisBanditStorage(redis_server.uri, uuid.uuid4().hex)
    text = storage._commit_script.text.replace(b"BLOCK = 1000", b"BLOCK = 3")
    forgetful = text.replace(b"pairs(blocks)", b"pairs({})")
    assert len({storage._commit_script.text, text, forgetful}) == 3
    made: list[Decision] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "BLOCK", 3)
        for times, noted in batches:
            script = text if noted else forgetful
            storage._commit_script.text = script
            storage._commit_script.sha = hashlib.sha1(script).hexdigest()
            batch = [decision(f"d{len(made) + n}", at=float(at)) for n, at in enumerate(times)]
            storage.commit(decisions(*batch))
            made += batch
        assert [entry.decision for entry in storage.iter_log(since=since, until=until)] == [
            one
            for one in made
            if (since is None or one.at >= since) and (until is None or one.at < until)
        ]
    storage.close()


def test_times_that_are_not_of_this_library(
    storage: RedisBanditStorage, client: Any, prefix: str
) -> None:
    storage.commit(decisions(decision("1")))
    client.hset(f"{{{prefix}}}:times", "0", "{}")
    before = state(storage)
    with pytest.raises(StorageError, match="times of block 0"):
        storage.commit(decisions(decision("2")))
    with pytest.raises(StorageCorruptError, match="times of block"):
        list(storage.iter_log(since=1.0))
    assert state(storage) == before


# Control states, summaries of the log, and people who go


@pytest.mark.parametrize("value", ["", "text", "{}", "1\x1e[]", "1\x1e{", "1\x1e{}\x1e"])
def test_a_control_state_that_is_not_of_this_library(
    storage: RedisBanditStorage, client: Any, prefix: str, value: str
) -> None:
    client.hset(f"{{{prefix}}}:control", BANDIT, value)
    with pytest.raises(StorageCorruptError, match=BANDIT):
        storage.read_control()
    assert not storage.write_control(BANDIT, {"a": 1}, {"b": 1})


@pytest.mark.parametrize("shard_by", [None, "bandit"])
def test_a_control_key_of_another_type(
    redis_server: RedisServer, client: Any, prefix: str, shard_by: str | None
) -> None:
    storage = RedisBanditStorage(redis_server.uri, prefix, shard_by)
    client.set(f"{{{prefix}}}:control", "not mine")
    for call in (storage.read_control, lambda: storage.write_control(BANDIT, {}, None)):
        with pytest.raises(StorageError, match="give each application its own prefix"):
            call()
    storage.commit(decisions(decision("1")))
    storage.close()


DAMAGED = ["", "text", "{}", "0\x1ec\x1e{}", "1\x1e{}", "01\x1ec\x1e{}", "-1\x1ec\x1e{}"]


@pytest.mark.parametrize(
    ("value", "revision"),
    [*((value, 0) for value in DAMAGED), ("7\x1ec\x1e[1]", 7), ("7\x1ec\x1e{}\x1e", 7)],
)
def test_a_summary_that_is_not_of_this_library(
    storage: RedisBanditStorage, client: Any, prefix: str, value: str, revision: int
) -> None:
    client.hset(f"{{{prefix}}}:digests", f"{BANDIT}\x1f1", value)
    assert storage.read_digest(KEY) == (revision, {})
    assert not storage.write_digest(KEY, {"n": 1}, revision + 1)
    assert storage.write_digest(KEY, {"n": 1}, revision)
    assert storage.read_digest(KEY) == (revision + 1, {"n": 1})


@pytest.mark.parametrize("shard_by", [None, "bandit"])
def test_a_key_of_summaries_of_another_type(
    redis_server: RedisServer, client: Any, prefix: str, shard_by: str | None
) -> None:
    storage = RedisBanditStorage(redis_server.uri, prefix, shard_by)
    key = f"{{{prefix}:{BANDIT}}}:digests" if shard_by else f"{{{prefix}}}:digests"
    client.set(key, "not mine")
    for call in (lambda: storage.read_digest(KEY), lambda: storage.write_digest(KEY, {}, 0)):
        with pytest.raises(StorageError, match="give each application its own prefix"):
            call()
    assert client.get(key) == b"not mine"
    storage.commit(decisions(decision("1")))
    storage.close()


def test_a_summary_that_is_sent_twice(
    storage: RedisBanditStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the answer was lost: the second one finds what the first one wrote."""
    call = storage._client.call
    monkeypatch.setattr(storage._client, "call", lambda *args: [call(*args), call(*args)][1])
    for revision in range(2):
        assert storage.write_digest(KEY, {"n": 1}, revision)
        assert not storage.write_digest(KEY, {"n": 1}, revision)
        assert storage.read_digest(KEY) == (revision + 1, {"n": 1})


@pytest.mark.parametrize("shard_by", [None, "bandit"])
def test_calls_of_control(start_redis: StartRedis, shard_by: str | None) -> None:
    """The states of all bandits are read, and one is written, in a single call."""
    server = start_redis()
    storage = RedisBanditStorage(server.uri, "shop", shard_by)
    names = [f"b{number}" for number in range(10)]
    for name in names:
        assert storage.write_control(name, {"state": "paused"}, None)
    with server.client() as client:
        client.script_flush()
        assert storage.write_control("b0", {"state": "running"}, {"state": "paused"})
        client.config_resetstat()
        assert not storage.write_control("b0", {}, {"state": "paused"})
        assert len(storage.read_control()) == 10
        stats = client.info("commandstats")
    assert {name: stats[f"cmdstat_{name}"]["calls"] for name in ("evalsha", "hgetall")} == {
        "evalsha": 1,
        "hgetall": 1,
    }
    storage.close()


def test_erased_text_is_gone_when_the_file_is_written_anew(start_redis: StartRedis) -> None:
    server = start_redis(aof_use_rdb_preamble="no")
    storage = RedisBanditStorage(server.uri)
    made = decision("d", subject="Ann of Nowhere", context={"page": "a place of no return"})
    storage.commit(decisions(made, decision("other", subject="Bob the Other")))
    assert storage.erase(["d"]) == 1

    def files() -> bytes:
        return b"".join(path.read_bytes() for path in server.directory.rglob("*.aof*"))

    assert b"Ann of Nowhere" in files()
    with server.client() as client:
        client.bgrewriteaof()
        deadline = time.monotonic() + 30
        while b"Ann of Nowhere" in files():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert b"no return" not in files()
    assert b"Bob the Other" in files()
    storage.close()


# Nothing is half-written


@pytest.mark.parametrize("shard_by", [None, "bandit"])
@pytest.mark.parametrize("name", KEYS)
def test_a_key_of_another_type_stops_a_commit_before_it_writes(
    redis_server: RedisServer, client: Any, prefix: str, name: str, shard_by: str | None
) -> None:
    storage = RedisBanditStorage(redis_server.uri, prefix, shard_by)
    tag = f"{{{prefix}:{BANDIT}}}" if shard_by else f"{{{prefix}}}"
    client.set(f"{tag}:{name}", "not mine")
    made = decision("d")
    # All keys are concerned: a counted and a waiting reward, an adjustment, and an array.
    waits = reward(decision("later"))
    commit = Commit(
        (seen(made),), (earn(reward(made)), earn(waits)), (Adjustment("a", BANDIT, 1, TWO),)
    )
    with pytest.raises(StorageError, match="prefix"):
        storage.commit(commit)
    written = list(client.scan_iter(f"{tag}*", count=10_000))
    assert written == [f"{tag}:{name}".encode()]
    client.delete(f"{tag}:{name}")
    assert len(storage.commit(commit).new) == 4
    storage.close()


@pytest.mark.parametrize("value", ["x", "1.5", ""])
def test_a_stored_sum_that_is_no_number(
    storage: RedisBanditStorage, client: Any, prefix: str, value: str
) -> None:
    field = "\x1f".join((BANDIT, "1", "green", "pulls"))
    client.hset(f"{{{prefix}}}:counts", field, value)
    with pytest.raises(StorageError, match="number"):
        storage.commit(decisions(decision("d")))
    assert client.keys(f"{{{prefix}}}:*") == [f"{{{prefix}}}:counts".encode()]
    with pytest.raises(StorageCorruptError, match="pulls"):
        storage.read_counts()


@pytest.mark.parametrize("value", [b"1", b"\0" * 12])
def test_a_stored_array_that_is_none(
    storage: RedisBanditStorage, client: Any, prefix: str, value: bytes
) -> None:
    field = "\x1f".join((BANDIT, "1", "green", "s:xx"))
    client.hset(f"{{{prefix}}}:arrays", field, value)
    with pytest.raises(StorageError, match="not of this library"):
        storage.commit(Commit((seen(decision("d")),)))
    assert client.keys(f"{{{prefix}}}:*") == [f"{{{prefix}}}:arrays".encode()]
    with pytest.raises(StorageCorruptError, match="s:xx"):
        storage.read_arrays()


@pytest.mark.parametrize("key", ["decisions", "rewards", "adjustments"])
def test_text_that_is_not_of_this_library(
    storage: RedisBanditStorage, client: Any, prefix: str, key: str
) -> None:
    fill(storage)
    for field in client.hkeys(f"{{{prefix}}}:{key}"):
        client.hset(f"{{{prefix}}}:{key}", field, "{}")
    with pytest.raises(StorageCorruptError, match="not what this library wrote"):
        list(storage.iter_commits())


# Round trips


@pytest.mark.parametrize("shard_by", [None, "bandit"])
def test_calls_of_a_commit_and_of_a_read(
    start_redis: StartRedis, prefix: str, shard_by: str | None
) -> None:
    server = start_redis()
    storage = RedisBanditStorage(server.uri, prefix, shard_by)
    names = [f"b{number}" for number in range(10)]
    made = [decision(f"first {name}", bandit=name) for name in names]
    storage.commit(decisions(*made))
    storage.read_counts()
    with server.client() as client:
        client.config_resetstat()
        more = [decision(f"again {name}", bandit=name) for name in names]
        result = storage.commit(
            Commit(tuple(map(seen, more)), tuple(earn(reward(m)) for m in made))
        )
        assert len(result.new) == 20
        storage.read_counts()
        storage.read_arrays()
        stats = client.info("commandstats")
    sent = {name: stats[f"cmdstat_{name}"]["calls"] for name in ("evalsha", "hgetall")}
    assert sent == (
        {"evalsha": 1, "hgetall": 2} if shard_by is None else {"evalsha": 10, "hgetall": 20}
    )
    assert "cmdstat_eval" not in stats
    storage.close()


def test_scripts_that_the_server_forgot(storage: RedisBanditStorage, client: Any) -> None:
    for number in range(3):
        storage.commit(decisions(decision(f"d{number}", at=float(number))))
        client.script_flush()
    assert storage.read_counts()[KEY]["green"]["pulls"] == 3
    assert storage.prune(before=2.0) == 2


def test_bandits_are_found_again_after_redis_lost_everything(
    redis_server: RedisServer, client: Any, prefix: str
) -> None:
    storage = RedisBanditStorage(redis_server.uri, prefix, "bandit")
    storage.commit(decisions(decision("1")))
    client.delete(*client.scan_iter(f"{{{prefix}*", count=10_000))
    storage.commit(decisions(decision("2")))
    assert storage.read_counts() == {KEY: {"green": {"pulls": 1}}}
    storage.close()


# A cluster


def start_node(start_redis: StartRedis) -> RedisServer:
    return start_redis(
        port=str(free_port()), bind="127.0.0.1", cluster_enabled="yes", cluster_node_timeout="5000"
    )


@pytest.mark.parametrize("shard_by", [None, "bandit"])
@pytest.mark.parametrize("nodes", [1, 3])
def test_cluster(start_redis: StartRedis, nodes: int, shard_by: str | None) -> None:
    first, *others = (start_node(start_redis) for _ in range(nodes))
    first.make_cluster(*others)
    uri = f"redis://127.0.0.1:{first.settings['port']}"
    storage = RedisBanditStorage(uri, "shop", shard_by)
    memory = MemoryBanditStorage()
    fill(memory)
    for _ in range(2):
        copy(memory, storage)
        assert state(storage) == state(memory)
    names = [f"b{number}" for number in range(20)]
    for _ in range(2):
        made = [decision(f"d {name}", bandit=name) for name in names]
        storage.commit(Commit(tuple(map(pull, made)), tuple(earn(reward(m)) for m in made)))
    assert [storage.read_counts()[BanditKey(name, 1)]["green"]["rewards"] for name in names] == [
        1
    ] * 20
    assert len(storage.get_decisions(d.id for d in made)) == 20
    for number, name in enumerate(names):
        assert storage.write_control(name, {"n": number}, None)
        assert storage.write_digest(BanditKey(name, 1), {"n": number}, 0)
    assert storage.read_control() == {name: {"n": n} for n, name in enumerate(names)}
    for number, name in enumerate(names):
        assert storage.read_digest(BanditKey(name, 1)) == (1, {"n": number})
    who = [decision(f"who {name}", bandit=name, subject=name) for name in names]
    storage.commit(decisions(*who))
    assert storage.erase(one.id for one in who) == 20
    assert storage.prune(before=math.inf) == 44
    used = [node.client() for node in (first, *others)]
    keys = [client.dbsize() for client in used]
    for client in used:
        client.close()
    assert sum(map(bool, keys)) == (nodes if shard_by else 1)
    assert storage.check() == []
    storage.close()


def test_slot_on_its_way_to_another_node(start_redis: StartRedis) -> None:
    one, other = start_node(start_redis), start_node(start_redis)
    one.make_cluster(other)
    storage = RedisBanditStorage(f"redis://127.0.0.1:{one.settings['port']}", "shop")
    with one.client() as here, other.client() as there:
        slot = here.execute_command("CLUSTER", "KEYSLOT", "{shop}:counts")
        source, target = (here, there) if slot < 8192 else (there, here)
        name = source.execute_command("CLUSTER", "MYID"), target.execute_command("CLUSTER", "MYID")
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", name[0])
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", name[1])
        with pytest.raises(StorageError, match="moving this slot"):
            storage.commit(decisions(decision("on its way")))
        with pytest.raises(StorageError, match="moving this slot"):
            storage.read_counts()
        assert source.dbsize() == target.dbsize() == 0
        for node in (target, source):
            node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", name[1])
    storage.commit(decisions(decision("there")))
    assert storage.read_counts()[KEY]["green"]["pulls"] == 1
    storage.close()


# What it needs of the server


def test_check_tells_settings_that_lose_data(start_redis: StartRedis) -> None:
    server = start_redis(appendonly="no", maxmemory_policy="allkeys-lru")
    storage = RedisBanditStorage(server.uri)
    first, second = storage.check()
    assert "'appendonly yes'" in first
    assert "'maxmemory-policy noeviction'" in second
    with server.client() as client:
        client.config_set("maxmemory-policy", "volatile-lru")
        client.config_set("appendonly", "yes")
        assert storage.check() == []
        client.execute_command("ACL", "SETUSER", "default", "-config", "-info")
    assert storage.check() == [], "what may not be read is unknown, not wrong"
    storage.close()


def test_check_tells_another_layout(redis_server: RedisServer, prefix: str) -> None:
    whole = RedisBanditStorage(redis_server.uri, prefix)
    parted = RedisBanditStorage(redis_server.uri, prefix, "bandit")
    whole.commit(decisions(decision("1")))
    assert whole.check() == []
    assert ["shard_by" in problem for problem in parted.check()] == [True]
    whole.close()
    parted.close()


@pytest.mark.parametrize("shard_by", [None, "bandit"])
def test_the_fewest_permissions(start_redis: StartRedis, shard_by: str | None) -> None:
    """The ones that ``docs/reference/redis_storage.rst`` names are enough."""
    server = start_redis()
    allowed = "~{shop}:* +evalsha +eval +hget +hmget +hgetall +hlen +hset +hdel +hincrby +xadd"
    allowed += " +xlen +xrange +xrevrange +exists +ping +select"
    if shard_by:
        allowed += " ~{shop:* +sadd +smembers"
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">s3cret", *allowed.split())
    uri = f"redis+unix://shop:s3cret@{server.socket}?db=0"
    storage = RedisBanditStorage(uri, "shop", shard_by)
    fill(storage)
    state(storage)
    assert len(list(storage.iter_log(since=0.0))) == 4
    assert storage.write_control(BANDIT, {"state": "paused"}, None)
    assert storage.read_control() == {BANDIT: {"state": "paused"}}
    assert storage.write_digest(KEY, {"n": 1}, 0)
    assert storage.read_digest(KEY) == (1, {"n": 1})
    storage.commit(decisions(decision("d9", subject="Ann")))
    assert storage.erase(["d9"]) == 1
    storage.commit(Commit((seen(decision("d10", context={"age": 4})),)))
    assert storage.redact({"d10": {}}) == 1
    assert len(sums(storage)) == 1
    assert storage.prune(before=math.inf) == 6
    assert storage.check() == []
    other = RedisBanditStorage(uri, "other", shard_by)
    with pytest.raises(StorageError, match="may not"):
        other.commit(decisions(decision("1")))
    other.close()
    storage.close()


READS = (
    "+evalsha +eval +hget +hmget +hgetall +hlen +xlen +xrange +xrevrange +exists +ping +smembers"
)


@pytest.mark.parametrize("shard_by", [None, "bandit"])
@pytest.mark.parametrize(
    ("rights", "told"),
    [
        ("+@all -@write -@scripting", True),
        (READS, True),
        (f"{READS} +hset +hincrby +xadd +sadd", True),
        (f"{READS} +hset +hdel +hincrby +sadd", True),
        (f"{READS} +hset +hdel +xadd +sadd", True),
        (f"{READS} +hdel +hincrby +xadd +sadd", True),
        (f"{READS} +hset +hdel +hincrby +xadd +sadd", False),
    ],
)
@pytest.mark.parametrize("used", [False, True])
def test_check_tells_a_user_who_may_not_write(
    start_redis: StartRedis, shard_by: str | None, rights: str, told: bool, used: bool
) -> None:
    server = start_redis()
    storage = RedisBanditStorage(server.uri, "shop", shard_by)
    if used:
        storage.commit(decisions(decision("1")))
    reader = RedisBanditStorage(f"redis+unix://u:pw@{server.socket}", "shop", shard_by)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "u", "on", ">pw", "~{shop*", *rights.split())
        before = set(client.keys())
        reader.read_counts()
        problems = reader.check()
        assert [("No commit can be written" in p, "may not run" in p) for p in problems] == (
            [(True, True)] if told else []
        )
        assert set(client.keys()) == before, "it leaves nothing behind"
        assert storage.check() == []
        assert set(client.keys()) == before
    storage.close()
    reader.close()


def test_check_tells_a_replica(start_redis: StartRedis) -> None:
    server = start_redis()
    storage = RedisBanditStorage(server.uri)
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
    (problem,) = storage.check()
    assert "connect to the primary" in problem
    storage.close()


def test_memory_per_decision(storage: RedisBanditStorage, client: Any, prefix: str) -> None:
    """What ``docs/reference/redis_storage.rst`` says of memory; ``pytest -s`` shows it."""
    context = {"country": "DE", "device": "phone"}
    made = [
        decision(f"{number:032x}", at=1.7e9 + number / 7, context=context)
        for number in range(20_000)
    ]

    def size() -> float:
        keys = client.keys(f"{{{prefix}}}:*")
        return float(sum(client.memory_usage(key, samples=0) for key in keys)) / len(made)

    for start in range(0, len(made), 500):
        storage.commit(decisions(*made[start : start + 500]))
    decided = size()
    for start in range(0, len(made), 500):
        storage.commit(rewards(*(reward(one) for one in made[start : start + 500])))
    rewarded = size()
    storage.prune(before=math.inf)
    print(
        f"bytes: decision {decided:.0f}, pruned {decided - rewarded + size():.0f},"
        f" reward {rewarded - decided:.0f}"
    )
    # Twice what was measured, as allocators differ.
    assert decided < 600
    assert rewarded - decided < 750
    assert rewarded - size() > 50


# URIs and options


@pytest.mark.parametrize(
    ("uri", "options", "words"),
    [
        ("redis+unix://", {}, "path of a socket"),
        ("redis://host:port/0", {}, "cannot be read"),
        ("redis://localhost?colour=red", {}, "parameter"),
        ("redis://localhost?db=zero", {}, "cannot be read"),
        ("redis://", {"prefix": "{a}"}, "without braces"),
        ("redis://", {"prefix": ""}, "without braces"),
        ("redis://", {"shard_by": "arm"}, "shard_by"),
        ("redis://", {"prefx": "a"}, "no option prefx"),
    ],
)
def test_configuration_errors(uri: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        storage_from_uri(uri, options)


@pytest.mark.parametrize("uri", ["redis://", "rediss://host:6380/2", "redis+unix:///a.sock?db=1"])
def test_schemes(uri: str) -> None:
    assert isinstance(storage_from_uri(uri, {"prefix": "a"}), RedisBanditStorage)


def test_database_number(start_redis: StartRedis) -> None:
    server = start_redis()
    storage = RedisBanditStorage(f"redis+unix://{server.socket}?db=3")
    storage.commit(decisions(decision("1")))
    storage.close()
    with server.client(db=3) as third, server.client() as zeroth:
        assert third.dbsize() > 0
        assert zeroth.dbsize() == 0


def test_redis_py_is_told_not_to_retry() -> None:
    storage = RedisBanditStorage("redis://localhost?retry_on_timeout=true&health_check_interval=9")
    connection = storage._client._new(None)
    assert isinstance(connection, redis.Connection)
    assert connection.retry._retries == 0
    assert connection.health_check_interval == 0
