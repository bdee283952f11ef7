"""A client of server-sent events."""

from __future__ import annotations

import json
from typing import Any

import requests

from tests.support.web_clients import RestClient


class Events:
    """A client of a stream; a context manager."""

    def __init__(self, api: RestClient, session_id: str, last_id: str = "", **query: Any) -> None:
        headers = api.headers | ({"Last-Event-ID": last_id} if last_id else {})
        url = f"{api.url}/v1/sessions/{session_id}/stream"
        self.answer = requests.get(url, params=query, headers=headers, stream=True, timeout=60)
        self._lines = self.answer.iter_lines(chunk_size=1)
        self.last_id = last_id

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *exc: object) -> None:
        self.answer.close()

    def event(self) -> list[str]:
        """Return the lines of the next event; none at the end."""
        lines: list[str] = []
        for line in self._lines:
            if not line:
                return lines
            lines.append(line.decode())
        return []

    def next(self) -> dict[str, Any]:
        """Return the next message; heartbeats are passed over."""
        while lines := self.event():
            fields = dict(line.split(": ", 1) for line in lines)
            self.last_id = fields.get("id", self.last_id)
            if "data" in fields and "event" not in fields:
                message: dict[str, Any] = json.loads(fields["data"])
                return message
        raise EOFError
