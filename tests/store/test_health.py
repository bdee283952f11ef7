"""`/ready` reports whether commands are accepted, without error texts of redis-py."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
import requests
from redis import exceptions
from websockets.sync.client import connect as connect_socket

from syncapp.dev.ports import free_port
from syncapp.domain.results import Claim, Result
from syncapp.errors import StoreUnavailable
from syncapp.store.client import connect
from syncapp.store.health import StoreCheck, StoreHealth, reason_of
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.cluster import MakeCluster
from tests.support.paths import ROOT
from tests.support.store import chess_request, dump_session, make_settings
from tests.support.types import Redis
from tests.support.web_clients import RestClient, metric_value, wait_until


def health(url: str) -> StoreHealth:
    chosen = make_settings(url, redis_timeout_s=2)
    with closing(connect(chosen)) as client:
        return StoreCheck(client, SessionStore(client, chosen).check).health()


def test_a_server_that_is_fit_has_no_reason_and_the_probe_leaves_no_trace(redis: Redis, redis_url: str) -> None:
    assert health(redis_url).reason is None
    assert all(redis.pttl(key) <= 1000 for key in redis.keys("*"))  # -2 if it has already expired
    wait_until(lambda: not redis.keys("*"), within_s=30)


def test_a_full_server_is_not_ready(redis: Redis, redis_url: str) -> None:
    redis.config_set("maxmemory", 1)
    try:
        assert health(redis_url).reason == "is out of memory and refuses writes"
    finally:
        redis.config_set("maxmemory", 0)
    assert health(redis_url).reason is None


def test_a_server_without_the_replicas_it_wants_is_not_ready(redis: Redis, redis_url: str) -> None:
    redis.config_set("min-replicas-to-write", 1)
    try:
        assert health(redis_url).reason == "has too few replicas connected and refuses writes"
    finally:
        redis.config_set("min-replicas-to-write", 0)
    assert health(redis_url).reason is None


def test_a_server_that_cannot_save_is_not_ready_and_recovers(valkey_with: Any, tmp_path: Path) -> None:
    with valkey_with("--appendonly", "no", "--save", "1 1") as server:
        server.wait_ready()
        with Redis.from_url(server.url) as client:
            data = Path(client.config_get("dir")["dir"])
            (data / "dump.rdb").mkdir()  # a snapshot cannot replace a directory
            client.set("a", "1")  # one change starts a snapshot, which fails
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] != "ok", within_s=60)
            found = health(server.url)
            assert found.reason == "cannot save to its disk and refuses writes"
            (data / "dump.rdb").rmdir()
            wait_until(lambda: health(server.url).reason is None, within_s=60)  # the server retries


def test_a_node_of_a_cluster_and_a_sentinel_are_named(valkey_with: Any, tmp_path: Path, run_directory: Path) -> None:
    # By default the nodes' own port is 10,000 above the clients', where outgoing connections may have it.
    with valkey_with("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        server.wait_ready()
        assert health(server.url).reason == "is a node of a cluster, which needs another kind of URL: redis+cluster://"
    with valkey_with() as server:
        server.wait_ready()
        config, port = tmp_path / "sentinel.conf", free_port()
        config.write_text(f"sentinel monitor it 127.0.0.1 {server.port} 1\n")
        argv = [server.argv[0], str(config), "--sentinel", "--port", str(port), "--bind", "127.0.0.1"]
        sentinel = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        try:
            with Redis.from_url(f"redis://127.0.0.1:{port}") as client:
                _wait_for_answer(client)
            assert "is a Sentinel" in str(health(f"redis://127.0.0.1:{port}/0").reason)
        finally:
            sentinel.terminate()
            sentinel.wait()


def test_a_replica_is_not_ready_until_it_is_promoted(valkey_with: Any) -> None:
    with valkey_with("--repl-diskless-sync-delay", "0") as primary, valkey_with() as server:
        primary.wait_ready()
        server.wait_ready()
        with Redis.from_url(server.url) as client:
            client.replicaof("127.0.0.1", primary.port)
            # Before that, it may be loading the primary's data, and refuse to be promoted.
            wait_until(lambda: client.info("replication").get("master_link_status") == "up")
            assert health(server.url).reason == "is a replica, not a primary"
            client.replicaof("NO", "ONE")
            assert health(server.url).reason is None


@pytest.mark.parametrize(
    ("policy", "reason", "worries"),
    [
        ("allkeys-lru", "would evict live sessions (maxmemory-policy allkeys-lru)", 0),
        ("volatile-lru", None, 1),
        ("noeviction", None, 0),
    ],
)
def test_an_eviction_policy_is_judged_by_what_it_would_take(
    redis: Redis, redis_url: str, policy: str, reason: str | None, worries: int
) -> None:
    redis.config_set("maxmemory-policy", policy)
    try:
        found = health(redis_url)
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    assert found.reason == reason
    assert sum("may evict keys that retries need" in each for each in found.worries) == worries


def _wait_for_answer(client: Redis) -> None:
    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis_py.RedisError:
            return False

    wait_until(answers, within_s=30)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ConnectionError("Error 111 connecting to db.internal:6379. Connection refused."),
        exceptions.TimeoutError("Timeout connecting to db.internal:6379"),
        exceptions.AuthenticationError("invalid username-password pair for db.internal"),
        exceptions.ResponseError("NOPERM User app has no permissions to access db.internal"),
        exceptions.ResponseError("db.internal says no"),
        ValueError("db.internal"),
    ],
)
def test_no_word_of_a_drivers_error_is_shown(error: Exception) -> None:
    assert "db.internal" not in reason_of(error)
    assert "app" not in reason_of(error)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max number of clients reached", "accepts no more connections"),
        ("ACL failure in script: User app has no permissions to run the 'publish' command", "denies this user"),
        ("XREADGROUP needs something", "answers with an error (XREADGROUP)"),
        ("something else", "answers with an error"),
    ],
)
def test_errors_without_a_code_of_their_own(text: str, reason: str) -> None:
    assert reason_of(exceptions.ResponseError(text)).startswith(reason)


COMMIT_RIGHTS = ["zadd", "xadd", "set", "publish", "hset", "hget", "hmget", "zrem", "pexpireat"]
COMMIT_RIGHTS += ["del", "hdel", "persist"]  # to begin or to remove a session


@pytest.fixture
def user(redis: Redis, redis_url: str) -> Iterator[str]:
    """URL of a user with all rights, until a test revokes some."""
    everything: Any = {"keys": ["*"], "channels": ["*"], "commands": ["+@all"]}
    redis.acl_setuser("app", enabled=True, reset=True, passwords=["+secret"], **everything)
    yield redis_url.replace("//", "//app:secret@", 1)
    redis.acl_deluser("app")


@pytest.mark.parametrize("right", [*COMMIT_RIGHTS, "channels", "keys"])
@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "keyed"])
def test_a_user_who_lacks_a_right_leaves_no_half_commit_behind(
    redis: Redis, user: str, right: str, keyed: bool
) -> None:
    chosen = make_settings(user)
    store = SessionStore(connect(chosen), chosen)
    owner = SessionStore(connect(make_settings(user)), make_settings(user))
    claim = Claim(idempotency_key="a-key" if keyed else None)
    # Each in its own bucket, because a dump includes the bucket's outbox.
    ids = {Keyspace().bucket(each): each for each in (str(uuid.uuid4()) for _ in range(100))}
    made = [owner.create(chess_request(session_id=each)).found.session_id for each in list(ids.values())[:4]]
    for session_id in made[1:]:
        owner.start(session_id)
    before = [dump_session(redis, session_id) for session_id in made]
    match right:
        case "channels":
            redis.acl_setuser("app", enabled=True, reset_channels=True)
        case "keys":
            redis.acl_setuser(
                "app", enabled=True, reset_keys=True, keys=["sync:*session*", "sync:*deadlines", "sync:*nudge"]
            )
        case _:
            redis.acl_setuser("app", enabled=True, commands=[f"-{right}"])
    assert health(user).reason == "denies this user commands or keys that are needed (docs/keys.md)"
    commands: list[Callable[..., Result]] = [store.start, store.switch, store.complete, store.delete]
    refused = []
    for session_id, command in zip(made, commands, strict=True):
        try:
            command(session_id, claim)
        except StoreUnavailable:
            refused.append(session_id)
    for session_id, was in zip(made, before, strict=True):
        # A refused command changed nothing; a command that does not need the missing right is done completely.
        assert (dump_session(redis, session_id) == was) == (session_id in refused)
    if right in ("xadd", "zadd", "set", "publish", "channels", "keys", "hset", "hmget"):
        assert refused == made
    redis.acl_setuser("app", enabled=True, commands=["+@all"], keys=["*"], channels=["*"])
    assert health(user).reason is None
    for session_id, command in zip(made, commands, strict=True):
        if session_id in refused:
            result = command(session_id, claim)
            assert not result.replayed


def test_a_user_with_the_documented_rights_and_no_others_runs_everything(
    redis: Redis, redis_url: str, make_cluster: MakeCluster, database_url: str
) -> None:
    text = (ROOT / "docs" / "keys.md").read_text()
    words = text.split("ACL SETUSER syncapp ", 1)[1].split("```", 1)[0].replace("PASSWORD", "secret").split()
    ask: Any = redis.execute_command
    ask("ACL", "SETUSER", "syncapp", *words)
    try:
        ask("ACL", "LOG", "RESET")
        cluster = make_cluster(web=1, REDIS_URL=redis_url.replace("//", "//syncapp:secret@", 1))
        (url,) = cluster.urls
        api = RestClient(url)
        session_id = api.running(warn_at_ms=[1000])
        with connect_socket(f"ws{url[4:]}/ws?sessionId={session_id}") as socket:
            for command in ("switch", "pause", "resume", "switch", "complete"):
                api.command(session_id, command)
            wait_until(lambda: '"completed"' in str(socket.recv(timeout=30)), within_s=60)
        other = api.create()
        api.delete(other)
        wait_until(lambda: metric_value(url, 'syncapp_audit_queue{state="completed"}') >= 9, within_s=60)
        assert requests.get(f"{url}/ready", timeout=30).json()["redis"] == "ok"
        wait_until(lambda: metric_value(url, 'syncapp_processes{kind="worker"}') == 1 or _looked(url), within_s=60)
        denied = [entry for entry in ask("ACL", "LOG") if _what(entry) != "config|get"]
        assert denied == []
    finally:
        for process in cluster.processes:
            process.stop()
        redis.acl_deluser("syncapp")


def _looked(url: str) -> bool:
    requests.get(f"{url}/ready", timeout=30)
    return False


def _what(entry: Any) -> str:
    """Return the command or key that an entry of ACL LOG is about."""
    pairs = dict(zip(entry[::2], entry[1::2], strict=True)) if isinstance(entry, list) else entry
    found = pairs.get(b"object", b"")
    return found.decode() if isinstance(found, bytes) else str(found)


@pytest.mark.parametrize("kind", ["deadlines", "outbox"])
def test_a_key_of_another_type_is_told_refuses_every_commit_of_its_bucket_and_breaks_nothing(
    redis: Redis, redis_url: str, kind: str
) -> None:
    chosen = make_settings(redis_url)
    store = SessionStore(connect(chosen), chosen)
    made = [store.create(chess_request()).found.session_id for _ in range(4)]
    for session_id in made[1:]:
        store.start(session_id)
    keys = {getattr(Keyspace(), kind)(Keyspace().bucket(each)) for each in made}
    saved: dict[str, Any] = {key: redis.dump(key) for key in keys}
    for key in keys:
        redis.delete(key)
        redis.set(key, "something else")
    before = [redis.hgetall(Keyspace().session(each)) for each in made]
    assert health(redis_url).reason == "has a key of another type where one of ours belongs (docs/keys.md)"
    commands: list[Callable[..., Result]] = [store.start, store.switch, store.complete, store.delete]
    for session_id, command in zip(made, commands, strict=True):
        with pytest.raises(StoreUnavailable) as refused:
            command(session_id, Claim(idempotency_key="a-key"))
        assert refused.value.details["reason"] == "WRONGTYPE"
    assert [redis.hgetall(Keyspace().session(each)) for each in made] == before
    for key, text in saved.items():
        redis.restore(key, 0, text, replace=True)
    assert health(redis_url).reason is None
    for session_id, command in zip(made, commands, strict=True):
        assert not command(session_id, Claim(idempotency_key="a-key")).replayed


@pytest.mark.parametrize("right", ["xreadgroup", "xack", "xdel", "xautoclaim"])
def test_what_the_worker_may_not_do_is_a_worry(redis: Redis, user: str, right: str) -> None:
    redis.acl_setuser("app", enabled=True, commands=[f"-{right}"])
    found = health(user)
    assert found.reason is None
    assert any(right.upper() in worry and "audit events wait" in worry for worry in found.worries)


def test_options_of_the_url_do_not_change_how_replies_are_read(redis: Redis, redis_url: str) -> None:
    odd = f"{redis_url}?protocol=3&decode_responses=no&max_connections=1&socket_timeout=9&health_check_interval=1"
    assert health(odd).reason is None
    chosen = make_settings(odd)
    store = SessionStore(connect(chosen), chosen)
    session_id = store.create(chess_request()).found.session_id
    assert store.switch(store.start(session_id).found.session_id).found.version == 3
    assert connect(chosen).get_connection_kwargs()["socket_timeout"] == chosen.redis_timeout_s
