"""The probe of a store: writes in each bucket what a commit may write."""

from __future__ import annotations

from syncapp.store.client import TRANSLATION
from syncapp.store.connection_pool import Arguments, ConnectionPool
from syncapp.store.keys import Keyspace
from syncapp.store.replication import Replication
from syncapp.store.scripts import Scripts


def probe(
    scripts: Scripts, keys: Keyspace, replication: Replication, head: Arguments, node: ConnectionPool | None
) -> list[str]:
    """Write in each bucket, and return the commands that are denied to the worker.

    head: the first arguments, which all scripts share. node: of a cluster, whose buckets are checked; by default all.
    Raises `StoreUnavailable` if one of the writes is refused, or the required replicas do not have them in time.
    """
    with TRANSLATION:
        by_node = scripts.pool.by_node([keys.deadlines(bucket) for bucket in range(keys.buckets)])
        buckets = [bucket for pool, on_it in by_node for bucket in on_it if node in (None, pool)]
        replies = scripts.call_all("check_store", [(keys.probe(bucket), head) for bucket in buckets])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        replication.confirm_all([keys.outbox(bucket) for bucket in buckets])
    return sorted({command for reply in replies for command in reply[2]})
