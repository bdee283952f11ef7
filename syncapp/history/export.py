"""Exports: streams a session's events as JSON, newline-delimited JSON or CSV (docs/audit.md).

Each format ends with the number of events, so that a truncated file can be recognized.
"""

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
    "group_id", "remaining_ms", "elapsed_ms", "actor", "request_id", "reason", "event", "patch", "principal", "jti",
    "erased",
)  # fmt: skip
_BYTE_ORDER_MARK = "\ufeff"
"""Spreadsheets recognize UTF-8 by it."""
_ESCAPED = ("=", "+", "-", "@", "'", "\t", "\r", "\n")


def json(session_id: str, pages: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    """Yield one document: `{"data": {"session_id": …, "events": […], "count": …}}`."""
    yield b'{"data":{"session_id":' + orjson.dumps(session_id) + b',"events":['
    between, count = b"", 0
    for page in pages:
        if page:
            yield between + b",\n".join(map(orjson.dumps, page))
            between, count = b",\n", count + len(page)
    yield b'],"count":%d}}\n' % count


def ndjson(session_id: str, pages: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    """Yield one line for each event, then `{"type": "export_end", "session_id": …, "count": …}`."""
    count = 0
    for page in pages:
        yield b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in page)
        count += len(page)
    end = {"type": "export_end", "session_id": session_id, "count": count}
    yield orjson.dumps(end, option=orjson.OPT_APPEND_NEWLINE)


def csv_lines(session_id: str, pages: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    """Yield a table with a header row; the last row has `# … events` in its first cell. Event and patch are JSON."""
    text = io.StringIO(newline="")
    text.write(_BYTE_ORDER_MARK)
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    count = 0
    for page in pages:
        writer.writerows([_cell(event, name) for name in CSV_COLUMNS] for event in page)
        yield _take(text)
        count += len(page)
    writer.writerow([f"# {count} events", *[""] * (len(CSV_COLUMNS) - 1)])
    yield _take(text)


def _take(text: io.StringIO) -> bytes:
    taken = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return taken


def _cell(event: Mapping[str, Any], name: str) -> Any:
    """Return a cell's value.

    A reason, a principal and the id of a token are free text. If a spreadsheet would read one as a formula, or if it
    begins with an apostrophe, it gets an apostrophe in front. Other ids stay unchanged: they have no parentheses,
    quotes or `=`, so they cannot call a function.
    """
    if name == "reason":
        return _escaped(event["event"].get("reason"))
    value = event.get(name)
    if name == "erased":
        return " ".join(value or ())
    if name in ("principal", "jti"):
        return _escaped(value)
    return orjson.dumps(value).decode() if isinstance(value, dict) else value


def _escaped(text: Any) -> Any:
    return f"'{text}" if isinstance(text, str) and text.lstrip(" ").startswith(_ESCAPED) else text


FORMS = {"json": json, "ndjson": ndjson, "csv": csv_lines}
