"""gunicorn's own raw requests, valid and invalid, from its source distribution."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

_ESCAPES = {b"\\r": b"\r", b"\\n": b"\n", b"\\t": b"\t", b"\\0": b"\0"}


@cache
def raw_requests() -> dict[str, bytes]:
    """Return what each file of `tests/requests` sends, by name; nothing if the distribution cannot be downloaded."""
    with tempfile.TemporaryDirectory() as directory:
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--retries", "0", "--timeout", "20"]
        wanted = f"gunicorn=={version('gunicorn')}"
        argv = [sys.executable, "-m", "pip", "download", *options, "--dest", directory, wanted]
        try:
            subprocess.run(argv, check=True, capture_output=True, timeout=120)
            (path,) = Path(directory).glob("gunicorn-*.tar.gz")
        except (OSError, ValueError, subprocess.SubprocessError):
            return {}
        with tarfile.open(path) as archive:
            return {
                "/".join(Path(member.name).parts[-2:]): _unescaped(file.read())
                for member in archive
                if member.name.endswith(".http") and (file := archive.extractfile(member))
            }


def _unescaped(text: bytes) -> bytes:
    """Return the request that a file describes: line ends do not count, and control characters are escaped."""
    text = re.sub(rb"\\[rnt0]", lambda match: _ESCAPES[match[0]], text.replace(b"\n", b""))
    return re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), text)
