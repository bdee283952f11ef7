"""The stress program in its short form; `make stress` runs it for longer, with other seeds."""

from __future__ import annotations

import os
import random

import pytest

from syncapp.dev.servers import Valkey
from tests.support.cluster import MakeCluster
from tests.support.types import Redis
from tests.support.web_clients import logged_errors
from tests.system.stress import Stress, probe

SECONDS = float(os.environ.get("STRESS_SECONDS", "8"))
CLIENTS = int(os.environ.get("STRESS_CLIENTS", "80"))
SEED = int(os.environ.get("STRESS_SEED") or random.randrange(1 << 32))


@pytest.mark.timeout(SECONDS + 400)
def test_whatever_fails_versions_rise_everybody_converges_and_nothing_is_left(
    make_cluster: MakeCluster, redis: Redis, redis_url: str, valkey: Valkey
) -> None:
    print(f"STRESS_SEED={SEED}")
    cluster = make_cluster(worker=False, WS_SLOW_CLOSE_S="5", REDIS_TIMEOUT_S="1")
    seen = Stress(cluster, valkey, redis_url, seed=SEED, clients=CLIENTS).run(SECONDS)
    print(dict(sorted(seen.items())))
    assert not logged_errors(cluster)
    assert {probe(url) for url in cluster.urls} == {"pending"}
