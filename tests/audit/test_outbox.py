"""The outbox streams: read by one reader at a time, kept until acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import redis as redis_py

from syncapp.audit.drain import Drain
from syncapp.audit.event import OutboxEntry
from syncapp.audit.log import AuditLog, Stored
from syncapp.audit.outbox import Outbox, OutboxBacklog
from syncapp.dev.ports import free_port
from syncapp.store.client import connect
from syncapp.store.keys import AUDIT_GROUP, Keyspace
from tests.support.step_clock import StepClock
from tests.support.store import make_settings

KEYS = Keyspace()
KEY = KEYS.outbox(7)


@pytest.fixture
def client(redis: redis_py.Redis, redis_url: str) -> redis_py.Redis:
    return connect(make_settings(redis_url), decode=False)


@pytest.fixture
def outbox(client: redis_py.Redis) -> Outbox:
    return Outbox(client, KEYS, claim_idle_s=30, reader="a")


def write(client: redis_py.Redis, *messages: str) -> None:
    for message in messages:
        client.xadd(KEY, {"message": message})


def raws(entries: list[OutboxEntry]) -> list[bytes | None]:
    return [entry.raw for entry in entries]


class Kept(AuditLog):
    """An audit log that has stored whatever it is given."""

    def __init__(self) -> None:
        pass

    def store(self, entries: Iterable[OutboxEntry]) -> Stored:
        return Stored(len(list(entries)))


def counts(client: redis_py.Redis) -> dict[str, int]:
    """Return how often each command ran on the server."""
    stats: Any = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}


def lost(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command whose reply is lost."""

    def call(*args: Any, **options: Any) -> Any:
        command(*args, **options)
        raise redis_py.TimeoutError("lost")

    return call


def test_new_entries_come_once_in_order_and_stay_until_acknowledged(client: redis_py.Redis, outbox: Outbox) -> None:
    write(client, "1", "2", "3")
    first = outbox.read_new(7, 2)
    assert raws(first) == [b"1", b"2"]
    assert {entry.bucket for entry in first} == {7}
    assert raws(outbox.read_new(7, 2)) == [b"3"]
    assert outbox.read_new(7, 2) == []
    assert client.xlen(KEY) == 3
    outbox.acknowledge(7, first)
    outbox.acknowledge(7, [])
    assert client.xlen(KEY) == 1
    assert raws(outbox.read_pending(7, 10)) == [b"3"]


def test_what_a_reader_left_pending_comes_to_it_again(client: redis_py.Redis, outbox: Outbox) -> None:
    assert outbox.read_pending(7, 10) == []
    write(client, "1", "2")
    assert raws(outbox.read_new(7, 10)) == raws(outbox.read_pending(7, 10)) == [b"1", b"2"]


def test_the_first_reading_takes_over_everything_and_later_ones_what_is_idle_for_long(
    client: redis_py.Redis,
) -> None:
    clock = StepClock()
    outbox = Outbox(client, KEYS, clock=clock)
    write(client, "1", "2")
    dead = Outbox(client, KEYS, reader="dead")
    dead.read_new(7, 10)
    taken = outbox.read_pending(7, 10)
    assert raws(taken) == [b"1", b"2"]
    outbox.acknowledge(7, taken)
    assert outbox.read_pending(7, 10) == []

    write(client, "3")
    (left,) = dead.read_new(7, 10)
    assert outbox.read_pending(7, 10) == []
    client.xclaim(KEY, AUDIT_GROUP, "dead", 0, [left.stream_id], idle=30_001)
    clock.now_s += 9.9
    assert outbox.read_pending(7, 10) == []  # others' entries are looked for every 10 s
    clock.now_s += 0.1
    assert raws(outbox.read_pending(7, 10)) == [b"3"]


def test_what_was_taken_over_with_entries_of_its_own_is_not_forgotten(client: redis_py.Redis) -> None:
    outbox = Outbox(client, KEYS, reader="a", clock=StepClock())
    assert outbox.read_pending(7, 100) == []
    write(client, *map(str, range(150)))
    assert len(outbox.read_new(7, 50)) == 50
    Outbox(client, KEYS, reader="dead").read_new(7, 100)
    pending: Any = client.xpending_range(KEY, AUDIT_GROUP, "-", "+", 150, consumername="dead")
    ids = [entry["message_id"] for entry in pending]
    client.xclaim(KEY, AUDIT_GROUP, "dead", 0, ids, idle=30_001, justid=True)
    taken: list[OutboxEntry] = []
    while entries := outbox.read_pending(7, 100):
        taken += entries
        outbox.acknowledge(7, entries)
    assert len(taken) == 150


def test_a_drain_that_left_nothing_behind_sends_only_what_it_needs(client: redis_py.Redis) -> None:
    drain = Drain(Outbox(client, KEYS, clock=StepClock()), Kept(), batch=1000)
    write(client, "1")
    assert drain.run(7).moved == 1
    write(client, "2", "3")
    before = counts(client)
    assert drain.run(7).moved == 2
    sent = {name: count - before.get(name, 0) for name, count in counts(client).items() if name.startswith("x")}
    assert {name: count for name, count in sent.items() if count} == {"xreadgroup": 1, "xdel": 1, "xack": 1}


def test_a_reply_that_is_lost_is_looked_for_again(
    client: redis_py.Redis, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outbox.read_pending(7, 10) == []
    write(client, "1")
    with monkeypatch.context() as patch:
        patch.setattr(client, "xreadgroup", lost(client.xreadgroup))
        with pytest.raises(redis_py.TimeoutError):
            outbox.read_new(7, 10)
    assert raws(outbox.read_pending(7, 10)) == [b"1"]


def test_takeover_goes_on_until_all_of_a_long_list_is_taken(client: redis_py.Redis, outbox: Outbox) -> None:
    write(client, *map(str, range(250)))
    Outbox(client, KEYS, reader="dead").read_new(7, 1000)
    taken = []
    while entries := outbox.read_pending(7, 1000):
        taken += raws(entries)
        outbox.acknowledge(7, entries)
    assert taken == [str(number).encode() for number in range(250)]
    assert client.xlen(KEY) == 0


def test_an_entry_deleted_while_it_was_pending_is_empty_and_can_be_acknowledged(
    client: redis_py.Redis, outbox: Outbox
) -> None:
    write(client, "1", "2")
    read = outbox.read_new(7, 10)
    client.xdel(KEY, read[0].stream_id)
    again = outbox.read_pending(7, 10)
    assert raws(again)[-1] == b"2"
    assert all(entry.raw is None for entry in again[:-1])
    outbox.acknowledge(7, again)
    assert outbox.read_pending(7, 10) == []
    assert outbox.backlogs()[7] == OutboxBacklog(0, 0, None)


def test_a_missing_group_is_made_from_the_start_of_the_stream(client: redis_py.Redis, outbox: Outbox) -> None:
    write(client, "1")
    assert raws(outbox.read_new(7, 10)) == [b"1"]
    client.xgroup_destroy(KEY, AUDIT_GROUP)
    assert raws(outbox.read_new(7, 10)) == [b"1"]
    client.flushdb()
    assert outbox.read_pending(7, 10) == []
    write(client, "2")
    assert raws(outbox.read_new(7, 10)) == [b"2"]


def test_another_error_than_a_missing_group_is_not_hidden(client: redis_py.Redis, outbox: Outbox) -> None:
    client.set(KEY, "no stream")
    for ask in (lambda: outbox.read_new(7, 1), lambda: outbox.read_pending(7, 1), outbox.backlogs):
        with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
            ask()


def test_a_batch_of_large_messages_ends_before_its_count(client: redis_py.Redis, outbox: Outbox) -> None:
    write(client, *["x" * 50_000] * 300)
    assert len(outbox.read_new(7, 1000)) == 100
    assert len(outbox.read_new(7, 1000)) == 100


def test_backlogs_tell_waiting_active_and_age_by_the_servers_clock(client: redis_py.Redis, outbox: Outbox) -> None:
    assert set(outbox.backlogs()) == set(outbox.buckets) == set(range(64))
    assert outbox.backlogs()[7] == OutboxBacklog(0, 0, None)
    now_s, _ = client.time()
    client.xadd(KEY, {"message": "1"}, id=f"{(now_s - 90) * 1000}-0")
    write(client, "2", "3")
    found = outbox.backlogs()[7]
    assert (found.waiting, found.active) == (3, 0)
    assert found.oldest_age_ms is not None
    assert 89_000 < found.oldest_age_ms < 150_000
    outbox.read_new(7, 2)
    assert (outbox.backlogs()[7].waiting, outbox.backlogs()[7].active) == (1, 2)
    client.delete(KEY)
    assert outbox.backlogs()[7] == OutboxBacklog(0, 0, None)


def test_a_client_that_decodes_reads_the_same(redis: redis_py.Redis, redis_url: str) -> None:
    decoding = Outbox(connect(make_settings(redis_url)), KEYS)
    write(redis, "é")
    (entry,) = decoding.read_new(7, 1)
    assert entry.raw == "é".encode()
    assert isinstance(entry.stream_id, str)
    assert decoding.backlogs()[7].active == 1


def test_only_buckets_with_entries_are_named_and_all_if_they_cannot_be_read(
    client: redis_py.Redis, outbox: Outbox
) -> None:
    write(client, "1")
    client.set(KEYS.outbox(9), "no stream")
    assert outbox.with_entries([5, 7, 9]) == [7, 9]  # what cannot be read may have entries
    outbox.acknowledge(7, outbox.read_new(7, 1))
    assert outbox.with_entries([5, 7]) == []
    away = connect(make_settings(f"redis://127.0.0.1:{free_port()}"), decode=False)
    assert Outbox(away, KEYS).with_entries([5, 7]) == [5, 7]
