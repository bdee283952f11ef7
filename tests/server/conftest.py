"""Web processes: one with small limits, one that requires tokens, and one with a client."""

from __future__ import annotations

import pytest

from tests.support.cluster import Cluster, MakeCluster
from tests.support.raw_http import MOST_BODY_BYTES
from tests.support.tokens import SECRET
from tests.support.types import Redis
from tests.support.web_clients import RestClient, metric_value, wait_until

STRICT = {
    "ALLOWED_ORIGINS": "https://play.example, https://admin.example",
    "WS_MAX_CONNECTIONS": "8",
    "WS_MAX_CONNECTIONS_PER_SESSION": "4",
    "WS_MAX_CONNECTIONS_PER_ADDRESS": "6",
    "WS_MAX_MESSAGE_BYTES": "2000",
    "WS_MESSAGES_PER_S": "20",
    "WS_MESSAGES_BURST": "30",
    "WS_PING_INTERVAL_S": "1",
    "PROXY_HOPS": "1",
}


@pytest.fixture(scope="module")
def strict_cluster(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(web=1, worker=False, **STRICT)


@pytest.fixture
def strict(strict_cluster: Cluster) -> Cluster:
    """A web process with small limits; connections of earlier tests have ended."""
    wait_until(lambda: metric_value(strict_cluster.urls[0], "syncapp_ws_connections") == 0)
    return strict_cluster


@pytest.fixture(scope="module")
def guarded(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process that requires tokens."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False, AUTH="required", AUTH_SECRETS=SECRET, AUTH_LEEWAY_S="0")


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process of one worker: a request that blocks it blocks all."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False, MAX_BODY_BYTES=str(MOST_BODY_BYTES))


@pytest.fixture
def api(web: Cluster) -> RestClient:
    return RestClient(web.urls[0])


@pytest.fixture
def path(api: RestClient) -> str:
    """A running session's path."""
    return f"/v1/sessions/{api.running()}"
