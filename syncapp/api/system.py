"""`/health`, `/ready`, `/metrics`, `/v1/time` and the API's documentation."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict

from flask import Blueprint, Flask, Response, current_app
from flask_swagger_ui import get_swaggerui_blueprint

from syncapp import metrics
from syncapp.api import responses
from syncapp.api.schema import (
    VERSION,
    AuditQueueAnswer,
    HealthAnswer,
    ReadyAnswer,
    TimeAnswer,
    answers,
    document,
    documented,
    spec,
)
from syncapp.errors import StoreUnavailable
from syncapp.redis import TRANSLATION

blueprint = Blueprint("system", __name__)

DRIFT_TOLERANCE_MS = 50


@blueprint.get("/health")
@documented(resp=answers(HTTP_200=HealthAnswer), tags=["system"])
def health() -> Response:
    """Tell that this process answers."""
    return responses.data({"status": "ok"})


@blueprint.get("/ready")
@documented(resp=answers(HTTP_200=ReadyAnswer), tags=["system"])
def ready() -> Response:
    """Tell whether Redis and PostgreSQL are reachable and fit; 503 names what is not, or that this process ends."""
    services = current_app.extensions["syncapp"]
    services.guards.draining.check()
    found = {name: check() for name, check in services.checks.items()}
    shown = {name: reason or "ok" for name, reason in found.items()}
    bad = [f"{name}: {reason}" for name, reason in found.items() if reason]
    if bad:
        fault = StoreUnavailable("not ready: " + "; ".join(bad), shown | {"retry_after_s": 1})
        return responses.error(fault)
    worries = services.worries()
    return responses.data(shown | ({"worries": worries} if worries else {}))


@blueprint.get("/v1/audit/queue")
@documented(resp=answers(HTTP_200=AuditQueueAnswer), tags=["system"])
def audit_queue() -> Response:
    """Tell how many audit events wait, were stored, and could not be."""
    with TRANSLATION:
        return responses.data(asdict(current_app.extensions["syncapp"].queue()))


@blueprint.get("/metrics")
def show_metrics() -> Response:
    """Return all metrics as Prometheus text; of the audit queue what it was when Redis last answered."""
    with contextlib.suppress(StoreUnavailable), TRANSLATION:
        metrics.show_queue(**asdict(current_app.extensions["syncapp"].queue()))
    text, content_type = metrics.render()
    return Response(text, content_type=content_type)


@blueprint.get("/v1/time")
@documented(resp=answers(HTTP_200=TimeAnswer), tags=["system"])
def time() -> Response:
    """Return the server's clock, which every session runs by."""
    now_ms = current_app.extensions["syncapp"].store.time_ms()
    return responses.data({"timestamp_ms": now_ms, "server_version": VERSION, "drift_tolerance_ms": DRIFT_TOLERANCE_MS})


@blueprint.get("/api-docs.json")
def openapi() -> Response:
    """Return the OpenAPI document."""
    return Response(json.dumps(document()), content_type="application/json")


def register(app: Flask) -> None:
    """Add these routes, and the documentation's page, which asks no other host for anything."""
    spec.app = app
    app.register_blueprint(blueprint)
    pages = get_swaggerui_blueprint(
        "/api-docs", "/api-docs.json", config={"app_name": "SyncApp API", "validatorUrl": None}
    )
    app.register_blueprint(pages)
    # Without the slash too, so that the page needs no redirect.
    app.add_url_rule("/api-docs", "api_docs", app.view_functions["swagger_ui.show"])
