"""The pages for people. Their scripts and styles are files, which a strict CSP requires.

- `/`: what the service is, with demos; `/console` for whoever runs it; `/api-docs`.
- `/watch#token=…`, and `/<page>/<session>` with `#token=…` or, with `AUTH=off`, without: one session, live.
"""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Flask, Response, send_from_directory
from flask_swagger_ui import get_swaggerui_blueprint

from syncapp.api.pages.static_files import static_file

FILES, SDK, TEMPLATES = (Path(__file__).parent / name for name in ("files", "sdk", "templates"))
CONTENT_SECURITY_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in CONTENT_SECURITY_POLICY.items()),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""Headers of every HTML response. `'self'` includes WebSockets of the same host."""

SESSION_PAGES = ("play", "stage", "quiz", "auction", "exam")
"""Pages that show one session, at `/<page>/<session>`. Whatever the id is, the page is returned, and explains it."""

blueprint = Blueprint("pages", __name__)


@blueprint.after_request
def protect(response: Response) -> Response:
    """Add the headers of pages, if this is one."""
    if response.mimetype == "text/html":
        response.headers.update(HEADERS)
    return response


@blueprint.get("/pages/<name>")
def file(name: str) -> Response:
    """Return a script or a style sheet of a page."""
    return static_file(FILES, name, max_age_s=0)


@blueprint.get("/sdk/<name>")
def sdk(name: str) -> Response:
    """Return a file of the JavaScript client (`clients/js`), which pages of allowed origins import from here."""
    return static_file(SDK, name, max_age_s=60)


@blueprint.get("/watch")
def watch() -> Response:
    """Return the page that shows one session live: `/watch#token=…`, or `/watch?session=…` with `AUTH=off`."""
    return send_from_directory(TEMPLATES, "watch.html")


@blueprint.get("/")
def home() -> Response:
    """Return the first page, which starts demos."""
    return send_from_directory(TEMPLATES, "home.html")


@blueprint.get("/console")
def console() -> Response:
    """Return the page from which all sessions are run."""
    return send_from_directory(TEMPLATES, "console.html")


def _add_session_page(name: str) -> None:
    def show(session: str) -> Response:  # the page's script reads the id
        return send_from_directory(TEMPLATES, f"{name}.html")

    blueprint.add_url_rule(f"/{name}/<session>", name, show, methods=["GET"])


for _name in SESSION_PAGES:
    _add_session_page(_name)


def register(app: Flask) -> None:
    """Add the pages; they load nothing from other hosts."""
    # The logo of the standard layout, StandaloneLayout, has an inline style.
    config = {"app_name": "SyncApp API", "layout": "BaseLayout", "validatorUrl": None, "oauth2RedirectUrl": None}
    swagger = get_swaggerui_blueprint("/api-docs", "/api-docs.json", config=config)
    # The library's own template has an inline script; its other files are used unchanged.
    swagger.template_folder = str(TEMPLATES)
    swagger.after_request(protect)
    app.register_blueprint(blueprint)
    app.register_blueprint(swagger)
    # Also without the trailing slash, so that the page needs no redirect.
    app.add_url_rule("/api-docs", "swagger_ui.show")
