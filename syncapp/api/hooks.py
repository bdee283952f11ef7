"""What happens around every request: its id, its rate, its metrics."""

from __future__ import annotations

import time
from collections import OrderedDict
from functools import lru_cache

import structlog
from flask import Flask, Request, Response, g, request

from syncapp.api import requests
from syncapp.config import Settings
from syncapp.errors import RateLimited
from syncapp.metrics import LATENCY, REQUESTS

log = structlog.get_logger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNLIMITED = frozenset({"/health", "/ready", "/metrics"})
_MOST_ADDRESSES = 10_000


class RateLimit:
    """A token bucket for each address, in this process alone: cheap, and enough against a runaway client."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, address: str, now_s: float) -> float:
        """Take a token; returns 0, or after how many seconds there is one again."""
        tokens, at = self._levels.pop(address, (float(self._burst), now_s))
        tokens = min(self._burst, tokens + (now_s - at) * self._per_s)
        allowed = tokens >= 1
        self._levels[address] = (tokens - 1 if allowed else tokens, now_s)
        while len(self._levels) > _MOST_ADDRESSES:
            self._levels.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._per_s


# What is counted for a route is looked up once: few of each, because routes and methods are ours.
_count = lru_cache(maxsize=1024)(REQUESTS.labels)
_latency = lru_cache(maxsize=1024)(LATENCY.labels)


def register(app: Flask, settings: Settings) -> None:
    """Add the hooks to an application."""
    limit = RateLimit(settings.rate_limit_per_s, settings.rate_limit_burst) if settings.rate_limit_per_s else None

    @app.before_request
    def begin() -> None:
        g.began_s = time.perf_counter()
        if limit and request.path not in _UNLIMITED:
            wait_s = limit.wait_s(request.remote_addr or "", time.monotonic())
            if wait_s:
                details = {"retry_after_s": max(1, round(wait_s + 0.5))}
                raise RateLimited(f"more than {settings.rate_limit_per_s:g} requests a second", details)

    @app.after_request
    def end(response: Response) -> Response:
        this: Request = request._get_current_object()  # type: ignore[attr-defined]  # each look through the proxy costs
        now_s = time.perf_counter()
        took_s = now_s - g.get("began_s", now_s)
        route = this.url_rule.rule if this.url_rule else "unmatched"
        method = this.method if this.method in _METHODS else "other"
        _count(route, method, response.status_code).inc()
        _latency(route, method).observe(took_s)
        response.headers["X-Request-Id"] = requests.request_id()
        if response.status_code >= 500:
            log.warning(
                "request failed",
                method=method,
                route=route,
                status=response.status_code,
                request_id=requests.request_id(),
                took_ms=round(took_s * 1000, 1),
            )
        return response
