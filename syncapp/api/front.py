"""The short way to the routes that are used most: reading one session, and the commands on one session.

Around these views, Flask takes longer than the views themselves: it matches a path with all routes, and makes a
request, contexts, a session and a URL adapter of which almost nothing is used. `Front` knows the route, and calls what
Flask would call in the same order: hooks, view, error handlers. It passes everything else on to Flask, the only place
where routes are declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, has_app_context, request_finished, request_started
from flask.globals import _cv_app, _cv_request
from flask.sessions import NullSession
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.routing import Rule

from syncapp.domain.commands import COMMANDS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PREFIX = "/v1/sessions/"
_PATTERN = f"{_PREFIX}<session>"
_ENDPOINTS = frozenset({"sessions.read", *(f"sessions.{name}" for name in COMMANDS if name != "create")})
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_ID_END = len(_PREFIX) + 36
_NO_ARGS: ImmutableMultiDict[str, str] = ImmutableMultiDict()
_NO_SESSION = NullSession()
_LATER = frozenset({"headers", "root_path", "scheme", "server"})
_KEEP_CONTEXT = "werkzeug.debug.preserve_context"
_BODILESS = frozenset({204, 304})

Route = tuple[Rule, Callable[..., Any]]


class RoutedRequest(Request):
    """A request whose route is known. What views rarely use is read when it is used."""

    def __init__(
        self, environ: WSGIEnvironment, rule: Rule, view_args: dict[str, Any]
    ) -> None:  # not super's: see above
        self.environ = environ
        self.shallow = False
        self.method = environ["REQUEST_METHOD"]
        self.path = environ["PATH_INFO"]
        self.remote_addr = environ.get("REMOTE_ADDR")
        self.url_rule = rule
        self.view_args = view_args
        query = environ.get("QUERY_STRING", "")
        self.query_string = query.encode("latin-1")
        if not query:
            self.__dict__["args"] = _NO_ARGS

    def __getattr__(self, name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(name)
        super().__init__(self.environ, populate_request=False)
        return self.__dict__[name]


class _AppContext:
    """What `g` and `current_app` are found in."""

    __slots__ = ("app", "g")

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.g = app.app_ctx_globals_class()


class _RequestContext:
    """What `request` is found in, and what Flask's error handling uses."""

    __slots__ = ("_after_request_functions", "_session", "app", "request")

    def __init__(self, app: Flask, request: Request) -> None:
        self.app = app
        self.request = request
        self._after_request_functions: list[Callable[[Response], Response]] = []
        self._session = _NO_SESSION


class Front:
    """WSGI middleware directly around Flask's own; it is made when all routes and hooks are registered."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._next: WSGIApplication = app.wsgi_app
        self._before = tuple(app.before_request_funcs.get(None, ()))
        self._after = tuple(reversed(app.after_request_funcs.get(None, ())))
        self._routes: dict[tuple[str, str], Route] = {
            (method, rule.rule.removeprefix(_PATTERN)): (rule, app.view_functions[rule.endpoint])
            for rule in app.url_map.iter_rules()
            if rule.endpoint in _ENDPOINTS
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path = environ["PATH_INFO"]
        route = self._routes.get((environ["REQUEST_METHOD"], path[_ID_END:])) if path.startswith(_PREFIX) else None
        session = path[len(_PREFIX) : _ID_END]
        # Flask itself uses a context that is there already, or keeps one, for a test or a command.
        if route is None or not _ID.match(session) or _KEEP_CONTEXT in environ or has_app_context():
            return self._next(environ, start_response)
        app = self._app
        request = RoutedRequest(environ, route[0], {"session": session})
        in_app = _cv_app.set(_AppContext(app))  # type: ignore[arg-type]  # as much of Flask's as is used
        in_request = _cv_request.set(_RequestContext(app, request))  # type: ignore[arg-type]  # as above
        try:
            try:
                response = self._response(route[1], session)
            except Exception as error:  # noqa: BLE001  # Flask's handler answers it, as it does for its own
                response = app.handle_exception(error)
            return sent(response, environ, start_response)
        finally:
            _cv_request.reset(in_request)
            _cv_app.reset(in_app)

    def _response(self, view: Callable[..., Any], session: str) -> Response:
        app = self._app
        answer: Any = None
        try:
            if request_started.receivers:
                request_started.send(app, _async_wrapper=app.ensure_sync)
            for before in self._before:
                if (answer := before()) is not None:
                    break
            else:
                answer = view(session)
        except Exception as error:  # noqa: BLE001  # as above
            answer = app.handle_user_exception(error)
        response = answer if isinstance(answer, Response) else app.make_response(answer)
        for after in self._after:
            response = after(response)
        if request_finished.receivers:
            request_finished.send(app, _async_wrapper=app.ensure_sync, response=response)
        return response


def sent(response: Response, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Begin a response as werkzeug would, and return its body."""
    parts, headers = response.response, list(response.headers)
    names = {name.lower() for name, _ in headers}
    if not isinstance(parts, list) or response._on_close or response.status_code in _BODILESS or "location" in names:
        return response(environ, start_response)
    if "content-length" not in names:
        headers.append(("Content-Length", str(sum(map(len, parts)))))
    start_response(response.status, headers)
    return parts
