"""`/v1/sessions/<session>/links`: links, which let people into one session without an account.

A link is a token for one session. Its id begins with the session's epoch (`syncapp.domain.link_ids`), so that it never
opens a later session with the same id.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, current_app, request

from syncapp.api import requests, responses
from syncapp.api.reference.link_schemas import LinkAnswer, LinksAnswer
from syncapp.api.reference.schemas import ErrorAnswer, answers, documented
from syncapp.domain.instants import iso
from syncapp.domain.link_ids import new_link_id
from syncapp.domain.link_schemas import CreateLink
from syncapp.domain.principal import Principal
from syncapp.domain.session import Session
from syncapp.domain.session_ids import public_id
from syncapp.errors import Forbidden, NotFound, TokensNotConfigured, ValidationFailed
from syncapp.store.links import Link

if TYPE_CHECKING:
    from syncapp import Services

blueprint = Blueprint("links", __name__, url_prefix="/v1/sessions/<session>/links")
_REVOKED = answers(HTTP_204=None, HTTP_403=ErrorAnswer, HTTP_404=ErrorAnswer, HTTP_501=ErrorAnswer)


def _services() -> Services:
    services: Services = current_app.extensions["syncapp"]
    return services


@blueprint.post("")
@documented(
    json=CreateLink,
    resp=answers(
        HTTP_201=LinkAnswer,
        HTTP_403=ErrorAnswer,
        HTTP_404=ErrorAnswer,
        HTTP_409=ErrorAnswer,
        HTTP_413=ErrorAnswer,
        HTTP_415=ErrorAnswer,
        HTTP_501=ErrorAnswer,
    ),
    tags=["links"],
)
def create_link(session: str) -> Response:
    """Create a link: a token for this session, and the address of a page that uses it.

    The token is not stored, so this is the only response that has it. The link ends when it expires or is revoked, and
    with the session: a later session with the same id needs new links. It may outlive the token that created it. A
    session can have 1,000 links that have not expired; revoked ones count.
    """
    name = requests.permitted("create_link", session)
    _check_links()
    if "Idempotency-Key" in request.headers:
        message = "is not supported here: each request creates a link. Revoke links that are not needed"
        raise ValidationFailed.of("Idempotency-Key", message, "unsupported")
    asked, caller, services = CreateLink.parse(requests.body()), requests.principal(), _services()
    found = services.store.get(name, caller).found
    participant_id = _participant_of(asked, caller, found)
    now_s = time.time()
    link = Link(
        jti=new_link_id(found.epoch),
        scope=asked.scope,
        created_s=round(now_s, 3),
        expires_s=int(now_s) + asked.expires_in_s,
        created_by=caller.sub,
        participant_id=participant_id,
        label=asked.label,
    )
    token = services.authenticator.mint(
        sub=f"link:{link.jti}",
        scopes=asked.scopes,
        tenant=caller.tenant,
        session_id=public_id(name),
        participant_id=participant_id,
        expires_in_s=asked.expires_in_s,
        jti=link.jti,
        is_link=True,
    )
    # Not `url_root`, which decodes the labels of a host, and fails for malformed ones.
    root = services.settings.public_url or f"{request.scheme}://{request.host}"
    services.limits.charge_link(caller)
    services.links.add(name, link)
    path = "watch" if asked.page == "watch" else f"{asked.page}/{public_id(name)}"
    document = _shown(link) | {"token": token, "url": f"{root.rstrip('/')}/{path}#token={token}"}
    return responses.data(document, 201, {"Location": f"/v1/sessions/{public_id(name)}/links/{link.jti}"})


@blueprint.get("")
@documented(
    resp=answers(HTTP_200=LinksAnswer, HTTP_403=ErrorAnswer, HTTP_404=ErrorAnswer, HTTP_501=ErrorAnswer),
    tags=["links"],
)
def list_links(session: str) -> Response:
    """Return the links of a session that have neither expired nor been revoked, oldest first, without their tokens."""
    name = requests.permitted("list_links", session)
    return responses.data({"links": [_shown(each) for each in _links_of(name)]})


@blueprint.delete("")
@documented(resp=_REVOKED, tags=["links"])
def revoke_links(session: str) -> Response:
    """Revoke all links of a session.

    Within a second, their WebSockets, streams and long polls are closed and their requests get 401.
    """
    name = requests.permitted("revoke_link", session)
    return _revoke(name, _links_of(name))


@blueprint.delete("/<jti>")
@documented(resp=_REVOKED, tags=["links"])
def revoke_link(session: str, jti: str) -> Response:
    """Revoke one link.

    Within a second, its WebSockets, streams and long polls are closed and its requests get 401.
    """
    name = requests.permitted("revoke_link", session)
    found = [each for each in _links_of(name) if each.jti == jti]
    if not found:
        raise NotFound("this session has no such link; it may have expired, or was revoked")
    return _revoke(name, found)


def _check_links() -> None:
    if not _services().authenticator.required:
        raise TokensNotConfigured("links need AUTH=required: with AUTH=off, everyone may do everything without one")


def _links_of(name: str) -> list[Link]:
    """Return the links of a session in its present life. Raises `SessionNotFound` if there is none."""
    _check_links()
    services = _services()
    return services.links.links_of(name, services.store.get(name, requests.principal()).found.epoch)


def _revoke(name: str, links: Sequence[Link]) -> Response:
    services = _services()
    services.links.revoke(name, links)
    for link in links:  # the other processes read it from the store
        services.revocations.add(link.jti, link.expires_s)
    return responses.empty({})


def _participant_of(asked: CreateLink, caller: Principal, session: Session) -> str | None:
    """Return the participant that a new link acts as. Raises `Forbidden` if it would allow more than the caller may."""
    if missing := sorted(asked.scopes - caller.scopes):
        raise Forbidden(
            f"a link cannot have a scope that its creator lacks: {missing[0]}", {"missing_scope": missing[0]}
        )
    acts = asked.scopes & {"session:act", "session:control"}
    if asked.participant_id is not None and not acts:
        raise ValidationFailed.of("participant_id", "needs the scope session:act", "contradiction")
    participant_id = asked.participant_id or (caller.participant_id if acts else None)
    if caller.participant_id not in (None, participant_id) and acts:
        message = "this token acts as one participant only, and so do the links that it creates"
        raise Forbidden(message, {"reason": "participant_id"})
    if participant_id is not None and participant_id not in session.definition.participant_ids:
        raise ValidationFailed.of("participant_id", "is not a participant of this session", "unknown_participant")
    return participant_id


def _shown(link: Link) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "jti": link.jti,
        "scope": link.scope,
        "participant_id": link.participant_id,
        "created_at": iso(round(link.created_s * 1000)),
        "expires_at": iso(link.expires_s * 1000),
        "created_by": link.created_by,
    }
    return shown if link.label is None else shown | {"label": link.label}
