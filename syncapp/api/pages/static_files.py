"""Scripts, styles and type declarations: read and compressed once, and checked again by clients before each use."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from flask import Response, request
from werkzeug.exceptions import NotFound

from syncapp.api.compression import MIN_BYTES, takes_gzip

TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".ts": "application/typescript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Content types by suffix. Systems disagree about some of them: for Debian, `.ts` is a video."""


@dataclass(frozen=True)
class StaticFile:
    """A file as it is sent. compressed: as gzip, None if it is too small for that. tag: names the content."""

    body: bytes
    compressed: bytes | None
    tag: str


def static_file(folder: Path, name: str, *, max_age_s: int) -> Response:
    """Return the response with a file of a folder, or 304. Raises `NotFound` if it has no such file.

    max_age_s: how long a client may use the file before it asks again, in seconds.
    """
    path = folder / name
    if Path(name).name != name or path.suffix not in TYPES:
        raise NotFound
    try:
        changed = path.stat()
    except OSError:
        raise NotFound from None
    file = _read(path, changed.st_mtime_ns, changed.st_size)
    packed = file.compressed if takes_gzip(request.headers.get("Accept-Encoding", "")) else None
    response = Response(packed or file.body, content_type=TYPES[path.suffix])
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    if file.compressed:
        response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = f"public, max-age={max_age_s}, must-revalidate" if max_age_s else "no-cache"
    response.set_etag(file.tag, weak=True)  # both encodings have the same tag
    response.make_conditional(request)  # in place
    return response


@lru_cache(maxsize=128)
def _read(path: Path, _changed_ns: int, _size: int) -> StaticFile:
    """Return a file, read again when its size or its time of change differs."""
    body = path.read_bytes()
    return StaticFile(body, _gzip(body) if len(body) >= MIN_BYTES else None, sha256(body).hexdigest()[:32])


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()
