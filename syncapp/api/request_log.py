"""The log lines of requests: failures, and refused tokens and rights. Paths are logged as routes, without the query."""

from __future__ import annotations

import time

import structlog
from flask import Request, g

from syncapp.api import requests
from syncapp.token_bucket import TokenBucket

log = structlog.get_logger(__name__)

_REFUSALS_PER_S, _REFUSALS_BURST = 1, 20
"""How many refusals one process logs: a client that guesses must not fill the disk. Metrics count all."""


class RequestLog:
    """Logs what an operator should see of requests; the number of requests is in the metrics."""

    def __init__(self) -> None:
        self._unready = ""
        self._refusals = TokenBucket(_REFUSALS_PER_S, _REFUSALS_BURST, time.monotonic())

    def add(self, this: Request, route: str, method: str, status: int, took_s: float) -> None:
        """Log a request, if it failed or was refused."""
        if status >= 500 and not (route == "/ready" and self._unready == g.get("fault")):
            log.warning(
                "request failed",
                method=method,
                route=route,
                status=status,
                error=g.get("fault"),
                request_id=requests.request_id(),
                took_ms=round(took_s * 1000, 1),
            )
        elif status in (401, 403) and "refusal" in g and not self._refusals.take(time.monotonic()):
            log.info(
                "request refused",
                method=method,
                route=route,
                status=status,
                reason=g.refusal,
                address=this.remote_addr,
                request_id=requests.request_id(),
            )
        if route == "/ready":  # polled every few seconds: each problem is logged once
            self._unready = g.get("fault", "")
