"""The queue's own server, in this process: whether it is one, whether it can be used, and how that is told."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from syncapp import connection_limits, task_queue
from syncapp.audit.queue_stats import QueueCounts
from syncapp.config import Settings
from syncapp.dev.ports import free_port
from syncapp.dev.servers import Valkey
from syncapp.queue_server import QueueServer, QueueUnavailable
from syncapp.store.client import connect
from syncapp.store.connection_pool import pool_of
from syncapp.store.health import StoreCheck
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.captured_logs import capture_own_logs
from tests.support.flask_commands import run_flask
from tests.support.paths import ROOT
from tests.support.store import make_settings
from tests.support.types import Redis

QUEUE, SCHEDULE = "huey.redis.syncapp", "huey.schedule.syncapp"


@pytest.fixture(scope="module")
def valkey_of_tasks(run_directory: Path) -> Iterator[Valkey]:
    data = Path(tempfile.mkdtemp(prefix="tasks-", dir=run_directory))
    server = Valkey(run_directory, data / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(valkey_of_tasks: Valkey) -> Iterator[Redis]:
    with Redis.from_url(valkey_of_tasks.url, socket_timeout=60) as client:
        client.flushall()
        yield client
        client.acl_deluser("limited")


def queue_server(url: str) -> QueueServer:
    settings = Settings(tasks_redis_url=url, redis_timeout_s=60)
    return QueueServer(settings, task_queue.connect(settings))


def check(server: QueueServer) -> float:
    assert server.turn
    return server.turn()


def away() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:6379/5"])
def test_without_a_url_of_its_own_or_with_that_of_the_store_the_queue_shares_the_stores_pool(url: str) -> None:
    settings = Settings(redis_url="redis://127.0.0.1:6379/5", tasks_redis_url=url, worker_threads=4)
    store = connect(settings, decode=False)
    queue = task_queue.connect(settings, store, max_connections=1)
    assert pool_of(queue.storage.conn) is pool_of(store)
    assert QueueServer(settings, queue).turn is None
    assert (connection_limits.redis_of_web(settings), connection_limits.redis_of_worker(settings)) == (64 + 3, 4 + 5)
    assert (connection_limits.queue_of_web(settings), connection_limits.queue_of_worker(settings)) == (0, 0)


def test_a_queue_with_its_own_server_has_its_own_pool() -> None:
    settings = Settings(tasks_redis_url=away(), worker_threads=4)
    store = connect(settings, decode=False)
    pool = pool_of(task_queue.connect(settings, store, max_connections=1).storage.conn)
    assert pool is not pool_of(store)
    assert pool.max_connections == 1
    assert pool.connection_kwargs["socket_timeout"] == 2
    assert (connection_limits.redis_of_web(settings), connection_limits.redis_of_worker(settings)) == (64 + 2, 4 + 3)
    assert (connection_limits.queue_of_web(settings), connection_limits.queue_of_worker(settings)) == (2, 4 + 4)


def test_after_a_failure_nobody_asks_the_server_until_a_check_has_succeeded(valkey_of_tasks: Valkey) -> None:
    server, calls = queue_server(valkey_of_tasks.url), []

    def fail() -> None:
        calls.append("failed")
        raise RedisConnectionError("no host names here: db.example.org")

    with capture_own_logs() as logs:
        for _ in range(16):
            with pytest.raises(QueueUnavailable):
                server.enqueue(fail)
        assert calls == ["failed"]
        assert server.worries() == ["the server of the task queue does not answer: audit events wait up to 5 s"]
        assert server.scheduled_count() is None
        check(server)
        assert server.worries() == []
        server.enqueue(lambda: calls.append("queued"))
    assert calls == ["failed", "queued"]
    assert server.scheduled_count() == 0
    assert [line["event"] for line in logs] == ["task_queue_unfit", "task_queue_fit"]


def test_a_check_comes_sooner_after_a_failure_and_is_told_once(valkey_of_tasks: Valkey) -> None:
    assert check(queue_server(valkey_of_tasks.url)) == 5
    server = queue_server(away())
    with capture_own_logs() as logs:
        assert [check(server) for _ in range(3)] == [1, 1, 1]
    assert [(line["log_level"], line["event"]) for line in logs] == [("warning", "task_queue_unfit")]


def test_a_check_leaves_nothing_in_the_queue(client: Redis, valkey_of_tasks: Valkey) -> None:
    client.lpush(QUEUE, "a task")
    check(queue_server(valkey_of_tasks.url))
    assert client.lrange(QUEUE, 0, -1) == [b"a task"]
    client.delete(QUEUE)
    check(queue_server(valkey_of_tasks.url))
    assert client.keys() == []


@pytest.mark.parametrize("command", ["lpush", "lpos", "brpop", "zadd", "zcard", "zrangebyscore", "hmget"])
def test_a_missing_right_on_the_queues_server_is_a_worry(command: str, client: Redis, valkey_of_tasks: Valkey) -> None:
    client.acl_setuser(
        "limited", enabled=True, passwords=["+secret"], keys=["huey.*"], commands=["+@all", f"-{command}"]
    )
    server = queue_server(valkey_of_tasks.url.replace("//", "//limited:secret@"))
    with capture_own_logs():
        check(server)
    (worry,) = server.worries()
    assert worry.startswith("the server of the task queue denies this user commands or keys that are needed")


def documented_rights() -> Iterator[list[str]]:
    """Yield the words of each ACL SETUSER in the document, after the user's name."""
    text = (ROOT / "docs/keys.md").read_text()
    for user in ("syncapp", "syncapp_tasks"):
        yield text.split(f"ACL SETUSER {user} ", 1)[1].split("```", 1)[0].replace("PASSWORD", "secret").split()


def test_the_documented_rights_suffice_for_the_queue(client: Redis, valkey_of_tasks: Valkey) -> None:
    command: Any = client.execute_command  # untyped in redis-py
    _, words = documented_rights()
    command("ACL", "SETUSER", "limited", *words)
    command("ACL", "LOG", "RESET")
    settings = Settings(tasks_redis_url=valkey_of_tasks.url.replace("//", "//limited:secret@"))
    huey = task_queue.connect(settings)
    server = QueueServer(settings, huey)
    ran = []
    task = huey.task(name="noted", retries=1)(lambda: ran.append(1))
    check(server)
    assert server.worries() == []
    server.enqueue(lambda: huey.enqueue(task.s()))
    huey.execute(huey.dequeue())
    huey.add_schedule(task.s(delay=0.01))
    assert server.scheduled_count() == 1
    assert len(huey.read_schedule(datetime(2100, 1, 1))) == 1  # noqa: DTZ001 Huey's are naive
    assert ran == [1]
    assert command("ACL", "LOG") == []


def test_the_store_needs_no_rights_for_a_queue_elsewhere(redis: Redis, redis_url: str) -> None:
    words, _ = documented_rights()
    lists = {"~huey.*", "+lpush", "+lpos", "+brpop", "+lrem", "+llen", "+lrange"}
    assert lists < set(words)
    command: Any = redis.execute_command  # untyped in redis-py
    command("ACL", "SETUSER", "storeonly", *[word for word in words if word not in lists])
    try:
        settings = make_settings(redis_url.replace("//", "//storeonly:secret@"), tasks_redis_url=away())
        with closing(connect(settings)) as store:
            assert StoreCheck(store, SessionStore(store, settings).check).health().reason is None
            assert QueueCounts(store, Keyspace(), lambda: None).read().delayed is None
    finally:
        redis.acl_deluser("storeonly")


def a_replica(client: Redis) -> None:
    client.replicaof("127.0.0.1", str(free_port()))


def a_key_of_another_type(client: Redis) -> None:
    client.set(QUEUE, "text")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(a_replica, "is a replica, not a primary"), (a_key_of_another_type, "has a key of another type")],
)
def test_a_server_that_accepts_no_task_is_a_worry(
    spoil: Callable[[Redis], None], reason: str, client: Redis, valkey_of_tasks: Valkey
) -> None:
    server = queue_server(valkey_of_tasks.url)
    spoil(client)
    try:
        with capture_own_logs():
            check(server)
        assert reason in server.worries()[0]
    finally:
        client.replicaof("NO", "ONE")
    client.delete(QUEUE)
    with capture_own_logs():
        check(server)
    assert server.worries() == []


def test_a_full_server_takes_tasks(client: Redis, valkey_of_tasks: Valkey) -> None:
    client.config_set("maxmemory", 1)
    try:
        server = queue_server(valkey_of_tasks.url)
        check(server)
        assert server.worries() == []
    finally:
        client.config_set("maxmemory", 0)


def test_a_queue_that_cannot_be_read_has_no_task_and_raises_nothing() -> None:
    settings = Settings(tasks_redis_url=away())
    huey = task_queue.connect(settings)
    assert huey.dequeue() is None
    assert huey.read_schedule() == []


def test_the_command_says_that_it_does_not_know_how_many_retries_are_scheduled(
    redis: Redis, redis_url: str, database_url: str
) -> None:
    settings = Settings(redis_url=redis_url, database_url=database_url, tasks_redis_url=away())
    done = run_flask(settings, "audit", "status")
    assert done.exit_code == 0
    assert "completed 0, failed 0, delayed unknown, " in done.output
