"""What clients are told through proxies that real deployments have in front."""

from __future__ import annotations

import pytest
import requests
from nginx import nginx
from peers import Api

from conftest import Cluster, MakeCluster, Redis  # isort: skip  # pytest puts this folder on the path


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False)


def test_commands_and_answers_pass_an_nginx_as_debian_sets_it_up(web: Cluster) -> None:
    with nginx(web.urls[0]) as proxy:
        api = Api(proxy.url)
        session_id = api.running()
        assert api.command(session_id, "switch")["version"] == api.state(session_id)["version"]
        assert requests.get(f"{proxy.url}/nothing", timeout=60).status_code == 404
