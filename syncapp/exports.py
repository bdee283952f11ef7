"""Exports: a session's events as JSON, as lines of JSON or as CSV, a piece at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

CONTENT_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
}
CSV_COLUMNS = (
    "epoch", "version", "type", "at", "at_ms", "status", "cycle_count", "participant_id", "next_participant_id",
    "group_id", "remaining_ms", "elapsed_ms", "actor", "request_id", "reason", "event", "patch",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def json(session_id: str, pages: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    """Yield one document: `{"data": {"session_id": …, "events": […]}}`."""
    yield b'{"data":{"session_id":' + orjson.dumps(session_id) + b',"events":['
    between = b""
    for page in pages:
        if page:
            yield between + b",\n".join(map(orjson.dumps, page))
            between = b",\n"
    yield b"]}}\n"


def ndjson(session_id: str, pages: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    """Yield one line for each event."""
    for page in pages:
        yield b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in page)


def csv_lines(session_id: str, pages: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    """Yield a table with a heading; event and patch are JSON in their cells."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for page in pages:
        writer.writerows([_cell(event, name) for name in CSV_COLUMNS] for event in page)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()


def _cell(event: Mapping[str, Any], name: str) -> Any:
    """Return a cell's value; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    value = event["event"].get("reason") if name == "reason" else event[name]
    if isinstance(value, dict):
        value = orjson.dumps(value).decode()
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA) else value


FORMS = {"json": json, "ndjson": ndjson, "csv": csv_lines}
