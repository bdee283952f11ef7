"""Metrics of several web processes on one port count together."""

from __future__ import annotations

import re

import requests

from tests.support.cluster import MakeCluster


def requests_counted(url: str) -> int:
    text = requests.get(f"{url}/metrics", timeout=60).text
    found = re.search(r'syncapp_http_requests_total\{method="GET",route="/health",status="200"\} (\d+)', text)
    return int(found[1]) if found else 0


def test_any_web_process_answers_for_all_of_its_machine(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(web=1, worker=False, WEB_CONCURRENCY="2")
    url = cluster.urls[0]
    for _ in range(40):
        requests.get(f"{url}/health", timeout=60)
    assert {requests_counted(url) for _ in range(10)} == {40}
    cluster.web[0].stop()
    cluster.web[0].start()
    assert requests_counted(url) == 0
