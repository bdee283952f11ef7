"""Origins: which pages may use the API. REST, streams and WebSockets share one rule.

A browser sends a page's origin (`scheme://host:port`) with each request to another origin, and with each request that
may change something. Clients that are not browsers send none, and pages of the service's own origin are always allowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?)(:[0-9]{1,5})?\Z")
_PORTS = {"http": ":80", "https": ":443"}
_EXPOSED = (
    "ETag, Retry-After, Idempotency-Replayed, X-Request-Id, Location, Preference-Applied, Content-Disposition, Allow, "
    "WWW-Authenticate, RateLimit, RateLimit-Policy"
)
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Content-Type, Authorization, If-Match, If-None-Match, Idempotency-Key, Prefer, "
    "X-Request-Id, Last-Event-ID, Cache-Control",
    "Access-Control-Max-Age": "7200",
}
"""The answer to a preflight of an allowed origin. It is valid for two hours, the maximum in Chromium."""


def fault(setting: str) -> str | None:
    """Return what is wrong with a value of `ALLOWED_ORIGINS`, or None."""
    for number, origin in enumerate(_split(setting), 1):
        if origin != "*" and not _ORIGIN.match(origin):
            example = "* or origins such as https://play.example:8443, without a path, separated by commas"
            return f"must be {example}; entry {number} is not one"
    return None


class Origins:
    """The origins of `ALLOWED_ORIGINS`."""

    def __init__(self, setting: str) -> None:
        self._listed = frozenset(_split(setting))
        self._all = "*" in self._listed

    def lists(self, origin: str) -> bool:
        """Tell whether a page of this origin may read answers."""
        return self._all or origin.lower() in self._listed

    def admits(self, environ: Mapping[str, Any]) -> bool:
        """Tell whether a request may change or watch a session: it has no origin, an allowed one, or our own.

        Even without `Origin`, a browser may report that the request comes from another site's page.
        """
        origin = environ.get("HTTP_ORIGIN")
        if origin is None:
            return self._all or environ.get("HTTP_SEC_FETCH_SITE") != "cross-site"
        return self.lists(origin) or _is_own(origin, environ)

    def headers(self, origin: str | None) -> dict[str, str]:
        """Return the CORS headers for the answer to a request of this origin; no page may send credentials."""
        if not self._listed:
            return {}
        if origin is None or not self.lists(origin):
            return {"Vary": "Origin"}
        return {
            "Access-Control-Allow-Origin": "*" if self._all else origin,
            "Access-Control-Expose-Headers": _EXPOSED,
            "Vary": "Origin",
        }


def _is_own(origin: str, environ: Mapping[str, Any]) -> bool:
    """Tell whether a page is the service's own, such as `/api-docs`.

    No page can forge `Sec-Fetch-Site`, and it stays right behind proxies that change `Host` or the scheme. Browsers
    send it over plain HTTP only to the same machine.
    """
    site: str | None = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site == "same-origin"
    return origin.lower() == _plain(f"{environ.get('wsgi.url_scheme')}://{environ.get('HTTP_HOST')}")


def _plain(origin: str) -> str:
    """Return an origin in lower case, without the default port of its scheme."""
    origin = origin.lower()
    return origin.removesuffix(_PORTS.get(origin.split(":", 1)[0], "/"))


def _split(setting: str) -> list[str]:
    """Return the origins of a setting in the form that browsers send."""
    return [_plain(part.strip().removesuffix("/")) for part in setting.split(",") if part.strip()]
