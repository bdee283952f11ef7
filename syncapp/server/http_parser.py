"""Rules of HTTP/1.1 (RFC 9112) that gunicorn's parser does not check: `Host`, `Connection`, versions, chunk sizes.

gunicorn's parser, with these rules, decides about every request that is not usual (`usual_requests`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.errors import InvalidChunkSize
from gunicorn.http.message import Request

from syncapp.errors import BadRequest, PayloadTooLarge

_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Za-z:.%_~-]+\])(?::[0-9]{0,5})?\Z")
# The beginning of a chunk's first line, which may be incomplete: up to 16 digits, then its end or an extension.
_SIZE = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:\r\n|\r?\Z|[ \t]*;|[ \t]+\Z))|\Z")


@lru_cache(maxsize=256)
def is_host(text: str) -> bool:
    """Tell whether a text is a valid `Host`."""
    return _HOST.match(text) is not None


@lru_cache(maxsize=256)
def closes(connection: str, version: tuple[int, int]) -> bool:
    """Tell whether a request is the last one of its connection; connection: its header fields `Connection`, joined."""
    words = {word.strip().lower() for word in connection.split(",")}
    return "close" in words or (version < (1, 1) and "keep-alive" not in words)


class Head(Request):
    """The head of a request; `HttpReader.read_body` reads the body."""

    version: tuple[int, int]

    def set_body_reader(self) -> None:
        """Check the host, and choose how the body is read. Raises `BadRequest` and gunicorn's errors."""
        hosts = [value for name, value in self.headers if name == "HOST"]
        if not hosts and self.version > (1, 0):
            raise BadRequest("HTTP/1.1 requires the header Host")
        if hosts and not is_host(hosts[0]):
            raise BadRequest("the header Host is not a valid host")
        self.version = min(self.version, (1, 1))  # later 1.x versions are answered as 1.1
        super().set_body_reader()

    def should_close(self) -> bool:
        """Tell whether this is the last request of its connection."""
        if self.must_close or self.method == "CONNECT":
            return True
        return closes(",".join(value for name, value in self.headers if name == "CONNECTION"), self.version)


class Chunks(ChunkedReader):
    """A body in chunks; an invalid or too large size is refused before more of the chunk is read."""

    def __init__(self, request: Any, unreader: Any, max_bytes: int) -> None:
        super().__init__(request, unreader)
        self._remaining = max_bytes

    @classmethod
    def of(cls, request: Any, unreader: Any, max_bytes: int) -> Body:
        """Return a body that is read in this way."""
        return Body(cls(request, unreader, max_bytes))

    def parse_chunk_size(self, unreader: Any, data: bytes | None = None) -> tuple[int, bytes | None]:
        """Return the size of the next chunk and what was read of it. Raises `PayloadTooLarge`, `InvalidChunkSize`."""
        line = bytearray(data or b"")
        while True:
            if not _SIZE.match(line):
                raise InvalidChunkSize(bytes(line[:20]))
            if b"\r\n" in line or len(line) > self.limit_chunk_size_line:
                break
            self.read_into(unreader, line)
        size, rest = super().parse_chunk_size(unreader, bytes(line))
        self._remaining -= size
        if self._remaining < 0:
            raise PayloadTooLarge("the body is larger than this server accepts")
        return size, rest
