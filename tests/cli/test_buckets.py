"""`flask sessions buckets`: what it shows of a server and of a cluster, and that its commands spread buckets evenly."""

from __future__ import annotations

import re
import shlex
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from syncapp.cli.buckets import command
from syncapp.config import Settings
from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.store.bucket_spread import moves
from tests.support.store import make_settings
from tests.support.web_clients import wait_until


def shown(settings: Settings) -> str:
    result = CliRunner().invoke(command(settings))
    assert result.exit_code == 0, result.output
    return result.output


def test_one_server_has_all_buckets(redis_url: str) -> None:
    assert shown(make_settings(redis_url)) == f"{urlsplit(redis_url).netloc}: 64 buckets\n"


def test_the_commands_that_it_shows_spread_the_buckets_evenly(valkey_cluster: ValkeyCluster) -> None:
    settings = make_settings(valkey_cluster.url, sync_buckets=64)
    before = shown(settings)
    assert sorted(map(int, re.findall(r": (\d+) buckets", before))) == [18, 22, 24]
    nodes = {str(node.port): node for node in valkey_cluster.nodes}
    for line in before.splitlines()[4:]:
        _, _, _, _, port, *words = shlex.split(line)
        nodes[port].ask(*words)

    def is_even() -> bool:
        text = shown(settings)
        return sorted(map(int, re.findall(r": (\d+) buckets", text))) == [21, 21, 22] and "spread evenly" in text

    wait_until(is_even, within_s=60)


def test_a_store_that_is_away_is_one_line() -> None:
    result = CliRunner().invoke(command(make_settings("redis+cluster://127.0.0.1:1", redis_timeout_s=0.2)))
    assert result.exit_code == 1
    assert "Error: the store cannot be read: " in result.output.splitlines()[-1]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_moves_make_the_numbers_differ_by_at_most_one_and_are_as_few_as_possible(counts: list[int]) -> None:
    numbers = iter(range(sum(counts)))
    held = {str(place): [next(numbers) for _ in range(count)] for place, count in enumerate(counts)}
    found = moves(held)
    for move in found:
        held[move.source].remove(move.bucket)
        held[move.target].append(move.bucket)
    after = [len(buckets) for buckets in held.values()]
    assert max(after) - min(after) <= 1
    floor, rest = divmod(sum(counts), len(counts))
    ideal = sum(max(0, count - floor) for count in counts) - min(rest, sum(count > floor for count in counts))
    assert len(found) == ideal
    assert len({move.bucket for move in found}) == len(found)


@pytest.mark.parametrize("held", [{"a": [1]}, {"a": [], "b": []}, {"a": [1, 2], "b": [3]}])
def test_an_even_spread_needs_no_move(held: dict[str, list[int]]) -> None:
    assert moves(held) == []
