"""`POST /v1/sessions/batch`: one command on many sessions."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app, request

from syncapp.access.permissions import check, narrowed
from syncapp.access.rate_limits import RateLimits
from syncapp.api import request_hooks, requests, responses
from syncapp.api.batch_commands import Batch, run_each
from syncapp.api.reference.history_schemas import BatchAnswer
from syncapp.api.reference.parameters import CreateHeaders
from syncapp.api.reference.schemas import ErrorAnswer, answers, documented
from syncapp.domain.commands import COMMANDS
from syncapp.domain.results import Result
from syncapp.domain.session_ids import qualified
from syncapp.errors import SyncError, ValidationFailed
from syncapp.store.sessions import SessionStore

blueprint = Blueprint("batches", __name__, url_prefix="/v1/sessions")


@blueprint.post("/batch")
@documented(
    json=Batch,
    headers=CreateHeaders,
    resp=answers(HTTP_200=BatchAnswer, HTTP_403=ErrorAnswer, HTTP_413=ErrorAnswer, HTTP_415=ErrorAnswer),
    tags=["commands"],
)
def batch() -> Response:
    """Run one command on up to 100 sessions; each runs atomically and has its own result.

    The status is always 200. The results are in the order of the request; the `status` of each is what the command
    alone would have returned. An `Idempotency-Key` applies to each session. `If-Match` is refused.
    """
    if "If-Match" in request.headers:
        raise ValidationFailed.of(
            "If-Match", "cannot be used in a batch, because each session has its own version", "misplaced"
        )
    asked = Batch.parse(requests.body())
    given, caller = asked.command_body, requests.principal()
    claim, address = requests.claim(given), request.remote_addr or ""
    request_hooks.take(len(asked.session_ids), counted=1)
    services = current_app.extensions["syncapp"]
    limits: RateLimits = services.limits
    store: SessionStore = services.store
    command = COMMANDS[asked.command]

    def run(session: str) -> Result:
        check(caller, command.name, session)
        body, name = narrowed(caller, command.name, given), qualified(caller.tenant, session)
        with limits.charge(address, command.name, name, body, claim) as charge:
            return charge.settle(command.run(store, name, body, charge.claim))

    found = run_each(asked.session_ids, run)
    results = [_item(*each) for each in zip(asked.session_ids, found, strict=True)]
    failed = sum(isinstance(each, SyncError) for each in found)
    return responses.data({"results": results, "succeeded": len(found) - failed, "failed": failed})


def _item(session_id: str, found: Result | SyncError) -> dict[str, Any]:
    item: dict[str, Any] = {"session_id": session_id}
    if isinstance(found, SyncError):
        return item | {"status": found.status, "error": found.document()}
    if found.session is None:
        item["status"] = 204
    else:
        item |= {"status": 200, "data": responses.shown(found)[0]}
    return item | ({"replayed": True} if found.replayed else {})
