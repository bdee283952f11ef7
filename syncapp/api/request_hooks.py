"""Hooks around every request: origin, token, rate limit, request id, compression, metrics and log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, current_app, g, request

from syncapp.access.client_address import group_of
from syncapp.access.origins import PREFLIGHT, Origins
from syncapp.access.rate_limits import refused
from syncapp.access.read_limits import ReadLimits
from syncapp.api import requests, responses
from syncapp.api.authentication import authenticate
from syncapp.api.compression import compress
from syncapp.api.request_log import RequestLog
from syncapp.api.streamed_bodies import complete_or_reset
from syncapp.config import Settings
from syncapp.domain.principal import NOBODY
from syncapp.errors import OriginRefused, Unauthorized
from syncapp.metrics import LATENCY, REQUESTS
from syncapp.token_bucket import TokenBuckets

if TYPE_CHECKING:
    from syncapp import Services

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_NOT_STORED = ("Cache-Control", "no-store")
_RATE = "syncapp_rate"
_UNLIMITED = frozenset({"/health", "/ready", "/metrics"})


# Labels are looked up once for each route and method; there are few, because both come from our own lists.
_count = lru_cache(maxsize=1024)(REQUESTS.labels)
_latency = lru_cache(maxsize=1024)(LATENCY.labels)


def take(requests_made: int, *, counted: int = 0) -> None:
    """Charge requests to the client's address; counted: how many of them are charged already. Raises `RateLimited`."""
    limit, per_s = current_app.extensions[_RATE]
    if not limit:
        return
    address, now_s = group_of(request.remote_addr or ""), time.monotonic()
    if counted:
        limit.add(address, now_s, counted)
    wait_s = limit.take(address, now_s, requests_made)
    if wait_s:
        raise refused("rate_limit_per_s", per_s, wait_s, f"this address may make {per_s:g} requests a second")


def register(app: Flask, settings: Settings, origins: Origins) -> None:
    """Add the hooks to an application."""
    reads = ReadLimits(settings)
    per_s = settings.rate_limit_per_s
    limit = TokenBuckets(per_s, settings.rate_limit_burst) if per_s else None
    app.extensions[_RATE] = (limit, per_s)
    services = app.extensions["syncapp"]
    needs_tokens = services.authenticator.required

    @app.before_request
    def begin() -> Response | None:
        g.began_s = time.perf_counter()
        this = requests.this_request()
        environ = this.environ
        if "HTTP_ORIGIN" in environ and _is_preflight(environ, origins):
            return responses.empty(PREFLIGHT)
        if limit and this.path.rstrip("/") not in _UNLIMITED:
            take(1)
        if environ["REQUEST_METHOD"] not in _SAFE and not origins.admits(environ):
            message = "pages of this origin may not send commands; ALLOWED_ORIGINS lists the allowed origins"
            raise OriginRefused(message)
        if needs_tokens:
            _authenticate(this, services, reads)
        return None

    lines = RequestLog()

    @app.after_request
    def end(response: Response) -> Response:
        this = requests.this_request()
        compress(this, response)
        now_s = time.perf_counter()
        took_s = now_s - g.get("began_s", now_s)
        route = this.url_rule.rule if this.url_rule else "unmatched"
        method = this.method if this.method in _METHODS else "other"
        _count(route, method, response.status_code).inc()
        _latency(route, method).observe(took_s)
        _add_headers(response, origins.headers(this.environ.get("HTTP_ORIGIN")))
        if response.status_code in (401, 404):
            _charge_failure(reads, limit, route, response.status_code)
        if response.is_streamed and not response.direct_passthrough:  # a file has a Content-Length
            response.response = complete_or_reset(response.response, route, requests.request_id())
        lines.add(this, route, method, response.status_code, took_s)
        return response


def _add_headers(response: Response, of_origins: Mapping[str, str]) -> None:
    headers = response.headers
    responses.put(headers, ("X-Request-Id", requests.request_id()), ("X-Content-Type-Options", "nosniff"))
    if not headers.getlist("Cache-Control"):  # `in` would raise an exception and catch it
        responses.put(headers, _NOT_STORED)  # the clock moves; routes with cacheable answers set their own
    for name, value in of_origins.items():
        headers[name] = f"{headers[name]}, {value}" if name == "Vary" and name in headers else value


def _authenticate(this: Request, services: Services, reads: ReadLimits) -> None:
    """Set the principal, and check its reads. An address without a valid token that is in debt gets 429 for 401."""
    address = this.environ.get("REMOTE_ADDR", "")
    try:
        caller = authenticate(this, services)
    except Unauthorized:
        if reads.are_on:
            reads.check_debt(address, NOBODY)
        raise
    if reads.are_on:
        reads.check(address, caller, this.method, this.url_rule.rule if this.url_rule else None)


def _charge_failure(reads: ReadLimits, limit: TokenBuckets | None, route: str, status: int) -> None:
    """Charge an answer that may be to a guess twice, against both limits."""
    address = request.remote_addr or ""
    if reads.are_on and reads.charge_failure(address, requests.principal(), route, status) and limit:
        limit.add(group_of(address), time.monotonic(), -1)


def _is_preflight(environ: Mapping[str, Any], origins: Origins) -> bool:
    """Tell whether a request is a CORS preflight of an allowed origin."""
    asks = environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
    return asks and origins.lists(environ["HTTP_ORIGIN"])
