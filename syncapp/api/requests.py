"""Reads requests: caller, body, expected version, idempotency key, request id, preferences and waiting time."""

from __future__ import annotations

import random
import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

import flask
from flask import g, request

from syncapp.access.permissions import check
from syncapp.api import etags
from syncapp.domain.command_bodies import CommandBody
from syncapp.domain.field_types import IDEMPOTENCY_KEY_PATTERN
from syncapp.domain.principal import ANYONE, Principal
from syncapp.domain.results import Claim
from syncapp.domain.schemas import session_id
from syncapp.domain.session_ids import qualified
from syncapp.domain.strict_json import decode
from syncapp.domain.validation import Request
from syncapp.domain.version_order import Order
from syncapp.errors import UnsupportedMediaType, ValidationFailed
from syncapp.server.admission import only_parameters

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

MAX_WAIT_MS = 25_000
"""Routers of platforms give up on an answer after 30 s."""
_JSON_TYPES = frozenset({"application/json", "application/merge-patch+json"})
_ENCODINGS = (
    ("Content-Encoding", "HTTP_CONTENT_ENCODING", "identity"),
    ("Transfer-Encoding", "HTTP_TRANSFER_ENCODING", "chunked"),
)
_SMALL_BYTES = 1024  # no more than the least MAX_BODY_BYTES
_TAG_HINT = 'must be an entity tag, such as "<epoch>-<version>"'
_FOREIGN = (0, 0)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN.removesuffix("$") + r"\Z")


def this_request() -> flask.Request:
    """Return the request itself: each access through the proxy costs time."""
    found: flask.Request = request._get_current_object()  # type: ignore[attr-defined]  # werkzeug's proxy
    return found


def principal() -> Principal:
    """Return who calls: everybody is `ANYONE` with `AUTH=off`. `syncapp.api.authentication` sets it."""
    found: Principal = g._get_current_object().get("principal", ANYONE)
    return found


def permitted(action: str, session: str | None = None) -> str:
    """Check that the caller may do this, and return the qualified id of the session, '' for None.

    session: the session in the path. Raises `Forbidden`; `ValidationFailed` if it is not a UUID.
    """
    caller = principal()
    if session is None:
        check(caller, action)
        return ""
    check(caller, action, session.lower())
    return qualified(caller.tenant, session_id(session))


def request_id() -> str:
    """Return the id for the logs: the caller's `X-Request-Id` if it is valid, otherwise a new one."""
    this = g._get_current_object()  # each access through the proxy would search for the context
    found: str | None = this.get("request_id")
    if found is None:
        given = this_request().environ.get("HTTP_X_REQUEST_ID", "")
        # An id must be unique, but not secret: the system's random numbers would cost a system call each.
        found = this.request_id = given if _REQUEST_ID.match(given) else f"{random.getrandbits(128):032x}"
    return found


def body() -> Any:
    """Return the decoded JSON body, {} if there is none.

    Raises `UnsupportedMediaType`, also for an encoded body, what `decode` raises, and werkzeug's 413 if the body is
    larger than the limit.
    """
    this = this_request()
    environ = this.environ
    if "HTTP_TRANSFER_ENCODING" not in environ and environ.get("CONTENT_LENGTH") in (None, "", "0"):
        return {}
    raw = _raw_body(this)
    if not raw:
        return {}
    if environ.get("CONTENT_TYPE") != "application/json" and this.mimetype not in _JSON_TYPES:
        raise UnsupportedMediaType(f"send application/json, not {this.mimetype or 'a body without a type'}")
    for name, key, only in _ENCODINGS:
        if (given := environ.get(key, only)).strip().lower() != only:
            raise UnsupportedMediaType(f"send the body without {name}: {given}")
    return decode(raw, "the body")


def _raw_body(this: flask.Request) -> bytes:
    """Return the body; a small one is in memory already, and werkzeug would wrap it in several streams."""
    stream, length = this.environ["wsgi.input"], this.environ.get("CONTENT_LENGTH", "")
    if isinstance(stream, BytesIO) and length.isdecimal() and int(length) <= _SMALL_BYTES:
        return stream.read(int(length))
    return this.get_data(cache=False)


def claim(asked: Request) -> Claim:
    """Return the caller's claim, from `If-Match`, `Idempotency-Key` and the body; a create has no `If-Match`.

    Raises `ValidationFailed`, which names the invalid header.
    """
    version = epoch = by_tag = None
    environ = this_request().environ
    if isinstance(asked, CommandBody):
        version, epoch, by_tag = asked.expected_version, asked.expected_epoch, _expected_by_tag(environ)
    if by_tag:
        if (epoch is not None and epoch != by_tag[0]) or (version is not None and version != by_tag[1]):
            raise ValidationFailed.of("If-Match", "names another version than the body", "contradiction")
        epoch, version = by_tag
    return Claim(epoch, version, _key(environ), request_id(), principal())


def claims_by_header() -> bool:
    """Tell whether the expected version came in `If-Match`: then a conflict is answered with 412 instead of 409."""
    given: str = this_request().environ.get("HTTP_IF_MATCH", "*")
    return given.strip() != "*"


def wants_minimal() -> bool:
    """Tell whether the caller prefers `return=minimal` (RFC 7240)."""
    preferences = this_request().environ.get("HTTP_PREFER", "").lower()
    return bool(preferences) and any(
        part.split(";")[0].replace(" ", "") == "return=minimal" for part in preferences.split(",")
    )


def erases() -> bool:
    """Return whether a delete is to erase the session from the audit log. Raises `ValidationFailed`."""
    only_parameters("erase")
    given = request.args.getlist("erase")
    if len(given) > 1:
        raise ValidationFailed.of("erase", "must be given once", "repeated")
    text = given[0] if given else "false"
    if text not in ("true", "false"):
        raise ValidationFailed.of("erase", "must be true or false", "bool_parsing")
    return text == "true"


def wait_ms() -> int | None:
    """Return how long a read waits for another version (ms), None if it is not given. Raises `ValidationFailed`."""
    args = this_request().args
    text = args.get("wait_ms") if args else None
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= MAX_WAIT_MS):
        raise ValidationFailed.of("wait_ms", f"must be a whole number of milliseconds, at most {MAX_WAIT_MS}", "range")
    return int(text)


def known_version() -> Order | str | None:
    """Return the newest (epoch, version) that `If-None-Match` names, `etags.ANY` for `*`, or None without the header.

    Raises `ValidationFailed` for a foreign tag: it would never match, so the read would not wait.
    """
    text = request.environ.get("HTTP_IF_NONE_MATCH", "").strip()
    if text in ("", etags.ANY):
        return text or None
    try:
        known = etags.read(text)
    except ValueError:
        known = [None]
    ours = [version for version in known if version]
    if len(ours) < len(known):
        raise ValidationFailed.of("If-None-Match", _TAG_HINT, "etag")
    return max(ours)


def last_event() -> Order | None:
    """Return the (epoch, version) from which a stream resumes, None without one. Raises `ValidationFailed`."""
    text = request.headers.get("Last-Event-ID", "").strip()
    found = etags.order(text)
    if text and not found:
        raise ValidationFailed.of("Last-Event-ID", "must be the id of an event from this stream", "event_id")
    return found


def _expected_by_tag(environ: WSGIEnvironment) -> Order | None:
    """Return the (epoch, version) that `If-Match` names, None for `*` or without the header.

    Foreign tags give (0, 0), which no session has. Raises `ValidationFailed`.
    """
    text = environ.get("HTTP_IF_MATCH", etags.ANY).strip()
    if text == etags.ANY:
        return None
    try:
        ours = {version for version in etags.read(text) if version}
    except ValueError:
        raise ValidationFailed.of("If-Match", _TAG_HINT, "etag") from None
    if len(ours) > 1:
        raise ValidationFailed.of("If-Match", "must name one version", "etag")
    return ours.pop() if ours else _FOREIGN


def _key(environ: WSGIEnvironment) -> str | None:
    key: str | None = environ.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not _KEY.match(key):
        raise ValidationFailed.of("Idempotency-Key", "must be 1 to 128 visible ASCII characters", "idempotency_key")
    return key
