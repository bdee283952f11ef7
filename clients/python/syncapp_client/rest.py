"""Requests to the REST API, on `requests`: one try each, or repeated where that is safe."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, cast
from urllib.parse import quote

import requests
from requests.auth import AuthBase

from syncapp_client.commands import Command
from syncapp_client.errors import OFFLINE, UNEXPECTED, SyncAppError
from syncapp_client.retries import Retries
from syncapp_client.tokens import Tokens
from syncapp_client.values import Done, State

CONNECT_S = 5.0
TRY_S = 7.0
"""How long one try of a request may take: less than a command has in all, so that there is time for another."""


@dataclass(frozen=True)
class Answer:
    """A response: its status, its headers by any case, and its document (`data`, where it has that), or its text."""

    status: int
    headers: Mapping[str, str]
    data: Any


class _Bearer(AuthBase):
    """Sets the token, or none. Without it, `requests` would send what `.netrc` has for the host."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Rest:
    """The REST API of one server. Threads may share it; `close` it in the end.

    base: its address. Raises `ValueError` if that is none.
    """

    def __init__(self, base: str, tokens: Tokens, retries: Retries) -> None:
        if not base.startswith(("http://", "https://")):
            raise ValueError(f"the address of a server begins with http:// or https://, unlike {base!r}")
        self.base = base.rstrip("/")
        self.tokens = tokens
        self.retries = retries
        self._http = requests.Session()
        self._http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # a proxy may set some

    def close(self) -> None:
        """Close the connections that are kept."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Answer:
        """Send a request, and again after transient failures if it is a read or has an idempotency key.

        Raises `SyncAppError`.
        """
        headers = {} if key is None else {"Idempotency-Key": key}
        changes = method not in ("GET", "HEAD")
        return self.retries.run(
            lambda left_s: self.attempt(
                method, path, body=body, params=params, headers=headers, timeout_s=max(0.1, min(left_s, TRY_S))
            ),
            repeatable=not changes or key is not None,
            changes=changes,
        )

    def pages(self, path: str, name: str, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the rows of all pages."""
        query = dict(params)
        while True:
            page = self.request("GET", path, params=query).data
            yield from page[name]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def run(self, session_id: str, command: Command) -> Done:
        """Run a command, trying again with its key. Raises `SyncAppError`."""
        return self.retries.run(lambda left_s: self.command(session_id, command, left_s), repeatable=True, changes=True)

    def command(self, session_id: str, command: Command, left_s: float) -> Done:
        """Try a command once. Raises `SyncAppError`."""
        method, path, body = command.request(path_part(session_id))
        headers = {"Idempotency-Key": command.key}
        answer = self.attempt(method, path, body=body, headers=headers, timeout_s=max(0.1, min(left_s, TRY_S)))
        replayed = answer.headers.get("Idempotency-Replayed") == "true"
        if answer.data is None:
            return Done(None, None, replayed)
        state = cast("State", answer.data)
        return Done(state["version"], state["epoch"], replayed, state)

    def attempt(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request once, and once more with another token if the server refuses this one.

        Raises `SyncAppError`, `OFFLINE` if there is no answer.
        """
        while True:
            token = self.tokens.current()
            try:
                answer = self._send(token, method, path, timeout_s, body, params, headers)
            except SyncAppError as error:
                if error.status != requests.codes.unauthorized or not self.tokens.refuse(token):
                    raise
            else:
                self.tokens.accept()
                return answer

    def _send(
        self,
        token: str | None,
        method: str,
        path: str,
        timeout_s: float,
        body: Any,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        try:
            response = self._http.request(
                method,
                self.base + path,
                params={name: value for name, value in (params or {}).items() if value is not None},
                json=body,
                headers={"X-Request-Id": str(uuid.uuid4()), **(headers or {})},
                auth=_Bearer(token),
                timeout=(min(CONNECT_S, timeout_s), timeout_s),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            message = f"no answer from {self.base}: {type(error).__name__}"
            raise SyncAppError(OFFLINE, message, outcome_unknown=True) from error
        if not response.ok or response.is_redirect:
            raise refusal(response.status_code, response.headers, response.content)
        if not response.content:
            return Answer(response.status_code, response.headers, None)
        if not response.headers.get("Content-Type", "").startswith("application/json"):
            return Answer(response.status_code, response.headers, response.text)
        document = response.json()
        is_wrapped = isinstance(document, dict) and document.keys() == {"data"}
        return Answer(response.status_code, response.headers, document["data"] if is_wrapped else document)


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> SyncAppError:
    """Return the exception for a response that refuses a request; those of a proxy that may pass are `OFFLINE`."""
    retry_after_s = retry_after(headers.get("Retry-After"))
    error = error_of(body)
    if error is not None:
        return SyncAppError.of_document(error, status, retry_after_s)
    known = {401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND", 408: OFFLINE, 429: "RATE_LIMITED"}
    code = known.get(status, OFFLINE if status >= requests.codes.server_error else UNEXPECTED)
    message = f"the server, or a proxy before it, answered {status}"
    return SyncAppError(code, message, status=status, retry_after_s=retry_after_s, outcome_unknown=code == OFFLINE)


def error_of(body: bytes) -> Mapping[str, Any] | None:
    """Return the error document in a body; None if it is not the service's."""
    try:
        found = json.loads(body)["error"]
        return found if isinstance(found["code"], str) else None
    except (ValueError, KeyError, TypeError):
        return None


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After`; None if there is none, or it is a date."""
    try:
        found = float(value or "")
    except ValueError:
        return None
    return found if math.isfinite(found) and found >= 0 else None


def path_part(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="")
