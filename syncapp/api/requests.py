"""What a request says: its body, its claim on a session, its preferences."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import orjson
from flask import g, request

from syncapp.commands import Claim
from syncapp.errors import InvalidJson, UnsupportedMediaType, ValidationFailed
from syncapp.fields import IDEMPOTENCY_KEY_PATTERN, MAX_DEPTH, is_too_deep
from syncapp.models import CommandBody, Request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_JSON_TYPES = frozenset({"application/json", "application/merge-patch+json"})
_ETAG = re.compile(r'"(\d{1,16})-(\d{1,16})"\Z')
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN.removesuffix("$") + r"\Z")


def request_id() -> str:
    """Return the id this request is logged under: the caller's `X-Request-Id`, if it is one, or a new one."""
    this = g._get_current_object()  # each look through the proxy is a search for the context
    found: str | None = this.get("request_id")
    if found is None:
        given = request.environ.get("HTTP_X_REQUEST_ID", "")
        # Told apart, not kept secret: the system's random numbers would cost a system call each.
        found = this.request_id = given if _REQUEST_ID.match(given) else f"{random.getrandbits(128):032x}"
    return found


def body() -> Any:
    """Return the decoded JSON body, {} when there is none.

    Raises `UnsupportedMediaType`, `InvalidJson` (not JSON, NaN, nested deeper than 32), and werkzeug's
    413 when it is over the limit.
    """
    environ = request.environ
    if "HTTP_TRANSFER_ENCODING" not in environ and environ.get("CONTENT_LENGTH") in (None, "", "0"):
        return {}
    raw = request.get_data(cache=False)
    if not raw:
        return {}
    if request.mimetype not in _JSON_TYPES:
        raise UnsupportedMediaType(f"send application/json, not {request.mimetype or 'a body without a type'}")
    try:
        decoded = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"the body is not valid JSON: {error}") from None
    if is_too_deep(raw, decoded):
        raise InvalidJson(f"the body is nested deeper than {MAX_DEPTH} levels")
    return decoded


def claim(asked: Request) -> Claim:
    """Return what the caller claims, from `If-Match`, `Idempotency-Key` and the body.

    Raises `ValidationFailed` naming the header that does not fit.
    """
    version, epoch = (asked.expected_version, asked.expected_epoch) if isinstance(asked, CommandBody) else (None, None)
    environ = request.environ
    tag = environ.get("HTTP_IF_MATCH")
    if tag is not None and tag.strip() != "*":
        match = _ETAG.match(tag.strip())
        if not match:
            raise ValidationFailed.of("If-Match", 'must be one strong entity tag, "<epoch>-<version>"', "etag")
        tagged = int(match[1]), int(match[2])
        if (epoch is not None and epoch != tagged[0]) or (version is not None and version != tagged[1]):
            raise ValidationFailed.of("If-Match", "names another version than the body expects", "contradiction")
        epoch, version = tagged
    return Claim(expected_epoch=epoch, expected_version=version, idempotency_key=_key(environ), request_id=request_id())


def claims_by_header() -> bool:
    """Tell whether the expected version came in `If-Match`: a conflict is then a failed precondition."""
    return "HTTP_IF_MATCH" in request.environ


def wants_minimal() -> bool:
    """Tell whether the caller prefers `return=minimal` (RFC 7240)."""
    preferences = request.environ.get("HTTP_PREFER", "").lower()
    return bool(preferences) and any(
        part.split(";")[0].replace(" ", "") == "return=minimal" for part in preferences.split(",")
    )


def is_current(etag: str) -> bool:
    """Tell whether `If-None-Match` names this entity tag (weak comparison) or any."""
    tags = request.environ.get("HTTP_IF_NONE_MATCH", "")
    return bool(tags) and any(part.strip().removeprefix("W/") in (etag, "*") for part in tags.split(","))


def _key(environ: WSGIEnvironment) -> str | None:
    key: str | None = environ.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not _KEY.match(key):
        raise ValidationFailed.of("Idempotency-Key", "must be 1 to 128 visible ASCII characters", "idempotency_key")
    return key
