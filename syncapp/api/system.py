"""`/health`, `/ready`, `/metrics`, `/v1/time`, `/v1/audit` and the OpenAPI document."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog
from flask import Blueprint, Flask, Response, current_app, g

from syncapp import metrics
from syncapp.access.permissions import is_allowed
from syncapp.api import requests, responses
from syncapp.api.reference import openapi
from syncapp.api.reference.schemas import VERSION, answers, documented
from syncapp.api.reference.system_schemas import (
    AuditQueueAnswer,
    HealthAnswer,
    ReadyAnswer,
    TimeAnswer,
    UnreadyAnswer,
    VerificationAnswer,
)
from syncapp.audit.last_verification import Verification
from syncapp.audit.queue_stats import QueueStats
from syncapp.domain.instants import iso
from syncapp.errors import StoreUnavailable, retry_after
from syncapp.store.client import TRANSLATION

log = structlog.get_logger(__name__)

if TYPE_CHECKING:
    from syncapp import Services

blueprint = Blueprint("system", __name__)

DRIFT_TOLERANCE_MS = 50


@blueprint.get("/health")
@documented(resp=answers(HTTP_200=HealthAnswer), tags=["system"], needs_token=False)
def health() -> Response:
    """Report that this process is alive.

    The check uses neither the store nor PostgreSQL.
    """
    return responses.bare({"status": "ok"})


@blueprint.get("/ready")
@documented(resp=answers(HTTP_200=ReadyAnswer, HTTP_503=UnreadyAnswer), tags=["system"], needs_token=False)
def ready() -> Response:
    """Report whether this process can take commands: 503 if it cannot, or if it is shutting down.

    `worries` lists problems that do not stop commands, such as a delay of the audit log. With `AUTH=required`, all but
    `status` needs a token with the scope `admin`, or `METRICS_TOKEN`; without one the status is shown alone.
    """
    services: Services = current_app.extensions["syncapp"]
    if services.guards.shutdown.is_on:
        return _unready(["this process is shutting down"], {})
    health, unwell = services.store_health(), services.loops.unwell()
    # A store that does not answer is not asked twice: health checks time out after a few seconds.
    audit_fault = services.audit_fault(ask_store=health.reason is None)
    bad = [f"redis {health.reason}"] if health.reason else []
    bad += [f"the loop {name} of this process is stuck or has ended" for name in unwell]
    parts: dict[str, Any] = {"redis": health.reason or "ok", "postgresql": audit_fault or "ok"}
    worries = [*([f"postgresql {audit_fault}; audit events wait"] if audit_fault else []), *health.worries]
    worries += services.worries() if health.reason is None else []
    if health.nodes:
        parts["redis_nodes"] = dict(health.nodes)
    if worries:
        parts["worries"] = worries
    return _unready(bad, parts) if bad else responses.bare({"status": "ready"} | (parts if _shows_details() else {}))


def _unready(problems: list[str], parts: dict[str, Any]) -> Response:
    g.fault = f"not ready: {'; '.join(problems)}"  # for the log
    details = {"problems": problems} | parts if _shows_details() else {}
    return responses.bare({"status": "unavailable"} | details, 503, dict(retry_after(1)))


def _shows_details() -> bool:
    return is_allowed(requests.principal(), "readiness")


@blueprint.get("/v1/audit/queue")
@documented(resp=answers(HTTP_200=AuditQueueAnswer), tags=["system"])
def audit_queue() -> Response:
    """Return how many audit events wait, are stored, and could not be stored.

    The counts come from the store, without PostgreSQL.
    """
    requests.permitted("audit_queue")
    return responses.data(asdict(_queue()))


def _queue() -> QueueStats:
    """Return the counts of the audit queue. Raises `StoreUnavailable` on any error of the store."""
    queue: Callable[[], QueueStats] = current_app.extensions["syncapp"].queue
    try:
        with TRANSLATION:
            return queue()
    except StoreUnavailable:
        raise
    except Exception as error:
        log.warning("queue_not_read", error=f"{type(error).__name__}: {error}")
        raise StoreUnavailable("the audit queue could not be read", {"retry_after_s": 1}) from error


@blueprint.get("/v1/audit/verification")
@documented(resp=answers(HTTP_200=VerificationAnswer), tags=["system"])
def audit_verification() -> Response:
    """Return the outcome of the last `flask audit verify` of the whole log.

    It comes from the store, and nothing is checked now. A run that was stopped by hand, and one of a single session,
    leave no outcome.
    """
    requests.permitted("audit_verification")
    read: Callable[[], Verification | None] = current_app.extensions["syncapp"].verification
    with TRANSLATION:
        last = read()
    return responses.data({"last": last and _shown(last)})


def _shown(last: Verification) -> dict[str, Any]:
    return {
        "outcome": last.outcome,
        "started_at": iso(last.started_ms),
        "finished_at": iso(last.finished_ms),
        "sessions": last.sessions,
        "events": last.events,
        "faulty_sessions": last.faulty_sessions,
        "forks": last.forks,
        "erased_parts": last.erased_parts,
    }


@blueprint.get("/metrics")
def show_metrics() -> Response:
    """Return all metrics as Prometheus text; those of the audit queue are as of the store's last answer."""
    requests.permitted("metrics")
    with contextlib.suppress(StoreUnavailable):
        metrics.show_queue(**asdict(_queue()))
    text, content_type = metrics.render()
    return Response(text, content_type=content_type)


@blueprint.get("/v1/time")
@documented(resp=answers(HTTP_200=TimeAnswer), tags=["system"], needs_token=False)
def time() -> Response:
    """Return the time of the server's clock, which all sessions use.

    It is for clients without a WebSocket, where `PING` does the same. docs/protocol.md explains how to use it.
    """
    now_ms = current_app.extensions["syncapp"].store.time_ms()
    return responses.bare({"timestamp_ms": now_ms, "server_version": VERSION, "drift_tolerance_ms": DRIFT_TOLERANCE_MS})


@blueprint.get("/api-docs.json")
def api_document() -> Response:
    """Return the OpenAPI document."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # the application behind the proxy
    return Response(openapi.encoded(app), headers={"Cache-Control": "no-cache"}, content_type="application/json")
