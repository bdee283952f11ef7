"""What slow clients get: a session with a large state, and what its frames must be like."""

from __future__ import annotations

import time
from typing import Any

import requests

from tests.support.raw_websocket import TEXT, Frame, RawWebSocket

LARGE: dict[str, Any] = {
    "sync_mode": "per_participant",
    "participants": [{"participant_id": f"participant-{i:03d}", "total_time_ms": 3_600_000} for i in range(240)],
    "metadata": {"text": "x" * 16_000},
}


class Large:
    """A running session whose state is about 60 kB; it is switched through one web process."""

    def __init__(self, url: str) -> None:
        self._http = requests.Session()
        made = self._http.post(f"{url}/v1/sessions", json=LARGE, timeout=60)
        self.id: str = made.json()["data"]["session_id"]
        self._url = f"{url}/v1/sessions/{self.id}"
        self.switched_s: dict[int, float] = {}
        self._http.post(f"{self._url}/start", timeout=60)
        assert 55_000 < len(self._http.get(self._url, timeout=60).content) < 80_000

    def switch(self) -> int:
        """Switch; returns the version."""
        answer = self._http.post(f"{self._url}/switch", headers={"Prefer": "return=minimal"}, timeout=60)
        version: int = answer.json()["data"]["version"]
        self.switched_s[version] = time.monotonic()
        return version


def version_of(frame: Frame) -> int | None:
    if frame.opcode != TEXT or "state" not in frame.message:
        return None
    version: int = frame.message["state"]["version"]
    return version


def read_until(raw: RawWebSocket, version: int) -> list[Frame]:
    frames: list[Frame] = []
    while not frames or version_of(frames[-1]) != version:
        frames.append(raw.next())
    return frames


def check_versions(frames: list[Frame]) -> None:
    """Check that versions rise, and that a whole state follows each gap."""
    last = 0
    for frame in frames:
        version = version_of(frame)
        if version:
            assert version > last
            if frame.message["type"] == "STATE_UPDATE":
                assert version == last + 1
            last = version
