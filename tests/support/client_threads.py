"""Many clients at once, on threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from tests.support.cluster import Cluster
from tests.support.web_clients import CHESS


class ClientThreads:
    """A pool of threads that send requests to every web process."""

    def __init__(self, cluster: Cluster, threads: int) -> None:
        self.urls = [f"{url}/v1/sessions" for url in cluster.urls]
        self.pool = ThreadPoolExecutor(threads)
        adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=threads)
        self.http = requests.Session()
        self.http.mount("http://", adapter)

    def post(self, process: int, path: str = "", json: Any = None, **headers: str) -> requests.Response:
        return self.http.post(self.urls[process % len(self.urls)] + path, json=json, headers=headers, timeout=60)

    def at_once(self, calls: list[Callable[[], requests.Response]]) -> list[requests.Response]:
        return [future.result() for future in [self.pool.submit(call) for call in calls]]

    def running(self, **more: Any) -> str:
        made = self.post(0, json=CHESS | more)
        assert made.status_code == 201, made.text
        session_id: str = made.json()["data"]["session_id"]
        assert self.post(1, f"/{session_id}/start").status_code == 200
        return session_id
