"""The JavaScript client that the service serves at `/sdk/`: current, small, and importable from allowed origins."""

from __future__ import annotations

import gzip
import json
import re
from hashlib import sha256

import pytest
from flask.testing import FlaskClient

from syncapp import __version__, create_app
from tests.support.paths import ROOT
from tests.support.permissions import REQUIRED
from tests.support.rest import expect_error
from tests.support.store import make_settings

CLIENT = ROOT / "clients/js"
PAGES = ROOT / "syncapp/api/pages"
MODULES = ["syncapp.js", "react.js", "element.js"]
PLAY, EVIL = "https://play.example", "https://evil.example"


@pytest.fixture
def client(redis_url: str) -> FlaskClient:
    """A service that one other origin may use, and that requires tokens."""
    return create_app(make_settings(redis_url, allowed_origins=PLAY, **REQUIRED)).test_client()


def source_hash(folder: str) -> str:
    """Return the hash of sources and of what decides about their output, as `build.mjs` computes it."""
    common = ["build.mjs", "package-lock.json", "package.json", "tsconfig.json"]
    sources = sorted(f"{folder}/{path.name}" for path in (CLIENT / folder).glob("*.ts"))
    found = sha256()
    for name in [*common, *sources]:
        found.update(f"{name}\0".encode() + (CLIENT / name).read_bytes() + b"\0")
    return found.hexdigest()[:20]


@pytest.mark.parametrize(("built", "folder"), [*((f"sdk/{name}", "src") for name in MODULES), ("files/qr.js", "pages")])
def test_the_files_are_built_from_the_current_sources(built: str, folder: str) -> None:
    stated = re.search(r"sources sha256:([0-9a-f]{20})", (PAGES / built).read_text())
    assert stated, built
    assert stated[1] == source_hash(folder), "run: make build-clients"


def test_the_client_has_the_version_of_the_service() -> None:
    assert json.loads((CLIENT / "package.json").read_text())["version"] == __version__


def test_the_files_name_their_licence() -> None:
    for path in [*(PAGES / "sdk" / name for name in MODULES), PAGES / "files/qr.js"]:
        assert path.read_text().startswith(
            f"/*! SyncApp {'QR codes' if path.stem == 'qr' else 'client'} {__version__} | MIT"
        )
    assert "Copyright (c) 2023 Anthony Fu" in (PAGES / "files/qr.js").read_text()


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_their_types_need_no_token(client: FlaskClient, name: str) -> None:
    script = client.get(f"/sdk/{name}")
    assert (script.status_code, script.mimetype) == (200, "text/javascript")
    assert script.data == (PAGES / "sdk" / name).read_bytes()
    types = client.get(f"/sdk/{name.replace('.js', '.d.ts')}")
    assert (types.status_code, types.mimetype) == (200, "application/typescript")
    assert types.data


@pytest.mark.parametrize("suffix", [".js", ".d.ts"])
def test_everything_that_a_served_file_imports_is_served_too(client: FlaskClient, suffix: str) -> None:
    for path in (PAGES / "sdk").glob(f"*{suffix}"):
        for imported in re.findall(r"""(?:from|import\()\s*["']([^"']+)["']""", path.read_text()):
            name = imported.removeprefix("./").removesuffix(".js") + suffix
            assert imported == "react" or client.get(f"/sdk/{name}").status_code == 200, f"{path.name}: {imported}"


@pytest.mark.parametrize("name", ["nothing.js", "..", "..%2f__init__.py", "%2e%2e/files/watch.js", "syncapp", ""])
def test_anything_else_is_not_found(client: FlaskClient, name: str) -> None:
    expect_error(client.get(f"/sdk/{name}"), 404, "NOT_FOUND")


def test_only_pages_of_listed_origins_can_import_modules(client: FlaskClient) -> None:
    for path in ("/sdk/syncapp.js", "/sdk/nothing.js"):
        listed = client.get(path, headers={"Origin": PLAY})
        assert listed.headers["Access-Control-Allow-Origin"] == PLAY
        other = client.get(path, headers={"Origin": EVIL})
        assert "Access-Control-Allow-Origin" not in other.headers
        for answer in (listed, other):
            assert "Origin" in answer.headers["Vary"]


def test_a_file_is_kept_for_a_minute_and_then_checked_again(client: FlaskClient) -> None:
    first = client.get("/sdk/syncapp.js", headers={"Origin": PLAY})
    assert first.headers["Cache-Control"] == "public, max-age=60, must-revalidate"
    again = client.get("/sdk/syncapp.js", headers={"Origin": PLAY, "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Access-Control-Allow-Origin"] == PLAY
    assert again.headers["Vary"] == first.headers["Vary"]
    assert client.get("/sdk/syncapp.js", headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.head("/sdk/syncapp.js").headers["Content-Length"] == str(len(first.data))


@pytest.mark.parametrize("path", ["/sdk/element.js", "/pages/qr.js", "/pages/watch.css"])
def test_scripts_and_styles_are_compressed_for_clients_that_accept_it(client: FlaskClient, path: str) -> None:
    plain = client.get(path)
    packed = client.get(path, headers={"Accept-Encoding": "gzip, br"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    for answer in (plain, packed):
        assert "Accept-Encoding" in answer.headers["Vary"]
        assert answer.headers["Content-Length"] == str(len(answer.data))
    tag = packed.headers["ETag"]
    assert client.get(path, headers={"Accept-Encoding": "gzip", "If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(("name", "most_bytes"), [("syncapp.js", 10_000), ("react.js", 1_500), ("element.js", 1_500)])
def test_a_module_is_small(client: FlaskClient, name: str, most_bytes: int) -> None:
    packed = client.get(f"/sdk/{name}", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) <= most_bytes
