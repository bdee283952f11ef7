"""Lint both API documents, and compile what generators make of them: `make lint-api`. Needs Node.js 20.19 or newer.

The tools are pinned beside this file; no server is needed, because an application makes its documents without one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).parent
GENERATED = TOOLS / "generated"


def main() -> int:
    """Run all tools, so that one run shows all faults."""
    if not (shutil.which("npm") and shutil.which("node")):
        print("lint-api: needs Node.js with npm (Debian: apt-get install nodejs npm); nothing was checked")
        return 1
    install()
    write_documents()
    commands = (
        ("redocly", "lint", "--config", "redocly.yaml", "generated/openapi.json"),
        ("spectral", "lint", "-r", "spectral.yaml", "-F", "warn", "generated/openapi.json", "generated/asyncapi.json"),
        ("openapi-typescript", "generated/openapi.json", "-o", "generated/api.ts"),
        ("node", "asyncapi.mjs", "generated/asyncapi.json", "generated/asyncapi-3.0.json", "generated/models"),
        ("tsc", "-p", "."),
    )
    failed = [command[0] for command in commands if not run(*command)]
    print("lint-api: " + (f"{', '.join(failed)} found faults" if failed else "no faults"))
    return 1 if failed else 0


def install() -> None:
    """Install the tools of the lock file, unless they are installed."""
    installed, lock = TOOLS / "node_modules/.package-lock.json", TOOLS / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime > lock.stat().st_mtime:
        return
    quiet = ("--silent", "--ignore-scripts", "--no-audit", "--no-fund")
    subprocess.run(["npm", "ci", *quiet], cwd=TOOLS, check=True)


def write_documents() -> None:
    """Write both documents as an application that requires tokens makes them; nothing connects."""
    from syncapp import create_app
    from syncapp.config import Settings

    shutil.rmtree(GENERATED, ignore_errors=True)
    (GENERATED / "models").mkdir(parents=True)
    client = create_app(
        Settings(auth="required", auth_secrets="a secret that signs nothing: for the documents")
    ).test_client()
    for path, name in (
        ("/api-docs.json", "openapi.json"),
        ("/asyncapi.json", "asyncapi.json"),
        ("/asyncapi.json?version=3.0.0", "asyncapi-3.0.json"),
    ):
        found = client.get(path)
        if found.status_code != 200:
            sys.exit(f"lint-api: {path} is {found.status_code}, see above")
        (GENERATED / name).write_bytes(found.data)


def run(tool: str, *arguments: str) -> bool:
    """Run a tool; show its output only if it finds faults."""
    command = ["node"] if tool == "node" else [f"node_modules/.bin/{tool}"]
    found = subprocess.run([*command, *arguments], cwd=TOOLS, capture_output=True, text=True, check=False)
    if found.returncode:
        print(f"--- {tool}\n{found.stdout}{found.stderr}")
    return found.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
