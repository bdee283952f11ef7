"""`flask sessions buckets`: shows how the buckets are spread over the masters of a cluster."""

from __future__ import annotations

from collections import defaultdict

import click
from redis.exceptions import RedisError

from syncapp.cli.counts import counted
from syncapp.config import Settings
from syncapp.errors import one_line
from syncapp.store.bucket_spread import Move, moves, spread
from syncapp.store.client import connect as connect_store
from syncapp.store.client import topology_of
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.keys import Keyspace


def command(settings: Settings) -> click.Command:
    """Return the command."""

    @click.command("buckets")
    def show() -> None:
        """Show how many buckets each server of the store has, and how to spread them evenly over a cluster."""
        keys = Keyspace(settings.sync_buckets)
        try:
            pool = pool_of(connect_store(settings))
            if pool.is_cluster:
                topology_of(settings).refresh()
            by_node = spread(pool, keys)
            for name, buckets in sorted(by_node.items()):
                click.echo(f"{name}: {counted(len(buckets), 'bucket')}")
            if not pool.is_cluster:
                return
            planned = moves(by_node)
            ids = {node.name: node.call(packed("CLUSTER", "MYID"))[0] for node in pool.nodes()} if planned else {}
        except RedisError as error:
            raise click.ClickException(f"the store cannot be read: {one_line(error)}") from error
        if planned:
            click.echo("To spread them evenly, with Valkey 9:")
            for line in _commands(settings, keys, planned, ids):
                click.echo(line)
        else:
            click.echo("They are spread evenly.")

    return show


def _commands(settings: Settings, keys: Keyspace, planned: list[Move], ids: dict[str, str]) -> list[str]:
    """Return one command for each pair of servers."""
    topology = topology_of(settings)
    ranges = defaultdict(list)
    for move in planned:
        slot = topology.slot_of(keys.deadlines(move.bucket).encode())
        ranges[move.source, move.target].append(f"{slot} {slot}")
    return [
        f"  valkey-cli -h {source.rpartition(':')[0]} -p {source.rpartition(':')[2]} CLUSTER MIGRATESLOTS SLOTSRANGE "
        f"{' '.join(slots)} NODE {ids[target]}"
        for (source, target), slots in sorted(ranges.items())
    ]
