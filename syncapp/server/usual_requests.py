"""Reads usual requests with llhttp (`httptools`), and leaves every other one to gunicorn's parser (`http_parser`).

A proxy and this server must never interpret one request differently, so only one parser decides what is refused. A
request is usual if its head came as a whole and leaves nothing to decide: HTTP/1.1 with a well-known method, a path,
`Host`, no header twice or over several lines, none with an underscore, and no body but one with `Content-Length`.
Below a path prefix that gunicorn takes from the environment (`SCRIPT_NAME`), no request is usual.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.errors import ConfigurationProblem
from gunicorn.http.unreader import IterUnreader
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from syncapp.server.http_parser import Head, closes, is_host

_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_TARGET = re.compile(rb"/(?!/)[!\"$-~]*\Z")  # printable ASCII without "#"; "//host/path" is read in different ways
_NAME = re.compile(rb"[!#$%&'*+.^`|~0-9A-Za-z-]+\Z")
_UNUSUAL = frozenset({"EXPECT", "TRANSFER-ENCODING", "UPGRADE"})
_MODEL = b"GET / HTTP/1.1\r\nHost: model\r\n\r\n"
_OF_ONE_REQUEST = ("HTTP_HOST", "REMOTE_ADDR", "REMOTE_PORT", "wsgi.input", "wsgi.early_hints", "gunicorn.socket")
_MAX_LENGTH_DIGITS = 15


class UsualRequest:
    """A request with its WSGI environ, as `HttpAnswer` needs it. length: of the body, which `HttpReader` reads."""

    __slots__ = ("closes", "environ", "is_usual", "length", "uri")

    version = (1, 1)
    trailers: tuple[()] = ()

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.uri = b""
        self.is_usual = True
        self.length = 0
        self.closes = False

    @property
    def method(self) -> str:
        """The method, in upper case."""
        found: str = self.environ["REQUEST_METHOD"]
        return found

    @property
    def headers(self) -> Iterator[tuple[str, str]]:
        """The headers as gunicorn's parser has them: names in upper case."""
        for key, value in self.environ.items():
            if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                yield key.removeprefix("HTTP_").replace("_", "-"), value

    def should_close(self) -> bool:
        """Tell whether this is the last request of its connection."""
        return self.closes

    def on_url(self, url: bytes) -> None:
        """Take the request's target; httptools calls this."""
        self.uri += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; httptools calls this."""
        key = _key(name)
        if key is None or key in self.environ:
            self.is_usual = False
        else:
            self.environ[key] = value.decode("latin-1").strip(" \t")


class UsualRequests:
    """Makes the usual requests of one listening socket.

    server: the socket's own address. Raises what gunicorn raises if no environ can be made for it.
    """

    def __init__(self, cfg: Any, server: Any) -> None:
        model = Head(cfg, IterUnreader([_MODEL]), ("127.0.0.1", 0))
        try:
            _, environ = wsgi.create(model, None, ("127.0.0.1", 0), server, cfg)
        except ConfigurationProblem:  # the model's path does not begin with the prefix
            self._is_off = True
            return
        # A peer that gunicorn trusts may set the scheme by headers, and use underscores.
        is_trusting = bool(cfg.forwarded_allow_ips) or cfg.proxy_protocol != "off"
        self._is_off = is_trusting or cfg.is_ssl or bool(environ["SCRIPT_NAME"])
        self._environ = {name: value for name, value in environ.items() if name not in _OF_ONE_REQUEST}
        self._environ["wsgi.multithread"] = True
        self._max_fields = model.limit_request_fields
        self._max_line = min(model.limit_request_line or model.limit_request_field_size, model.limit_request_field_size)

    def parse(self, head: bytes, client: Any, peer: Any) -> UsualRequest | None:
        """Return the request that a head, with its empty line, begins; None if it is not usual."""
        if self._is_off or not isinstance(peer, tuple):
            return None
        request = UsualRequest(environ := self._environ.copy())
        fields_before = len(environ)
        parser = HttpRequestParser(request)
        try:
            parser.feed_data(head)
        except (HttpParserError, HttpParserUpgrade):
            return None
        fields = len(environ) - fields_before
        method = _METHODS.get(parser.get_method())
        lines = head.count(b"\r\n")
        if (
            not request.is_usual
            or method is None
            or fields > self._max_fields
            or not lines == head.count(b"\n") == head.count(b"\r") == fields + 2
            or not _TARGET.match(request.uri)
            or not head.startswith(b"%b %b HTTP/1.1\r\n" % (method.encode(), request.uri))
            or not is_host(environ.get("HTTP_HOST", ""))
            or (len(head) > self._max_line and self._has_long_line(head))
        ):
            return None
        if (length := environ.get("CONTENT_LENGTH")) is not None:
            if not (length.isascii() and length.isdigit() and len(length) <= _MAX_LENGTH_DIGITS):
                return None
            request.length = int(length)
        if connection := environ.get("HTTP_CONNECTION"):
            request.closes = closes(connection, request.version)
        uri = request.uri.decode("ascii")
        path, _, environ["QUERY_STRING"] = uri.partition("?")
        environ["REQUEST_METHOD"], environ["RAW_URI"] = method, uri
        environ["PATH_INFO"] = wsgi.util.unquote_to_wsgi_str(path) if "%" in path else path
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = peer[0], str(peer[1])
        environ["gunicorn.socket"] = client
        environ["wsgi.input"] = io.BytesIO()
        return request

    def _has_long_line(self, head: bytes) -> bool:
        return any(len(line) + 2 > self._max_line for line in head.split(b"\r\n"))


@lru_cache(maxsize=1024)
def _key(name: bytes) -> str | None:
    """Return the environ's key for a header's name; None if the header makes a request unusual."""
    text = name.decode("latin-1").upper()
    if not _NAME.match(name) or text in _UNUSUAL:
        return None
    key = text.replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
