"""Tabs of several people, and pictures of what they show."""

from __future__ import annotations

import base64
import struct
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.browser_policy import complaints_of
from tests.support.web_clients import RestClient

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
COMMON: dict[str, Any] = {"locale": "en-GB", "timezone_id": "UTC", "reduced_motion": "reduce"}
FEW_COLOURS = """async (png) => {
  const image = await createImageBitmap(await (await fetch('data:image/png;base64,' + png)).blob())
  const {width, height} = image, canvas = new OffscreenCanvas(width, height), context = canvas.getContext('2d')
  context.drawImage(image, 0, 0)
  const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer), counts = new Map()
  for (const colour of pixels) counts.set(colour, (counts.get(colour) ?? 0) + 1)
  const parts = (colour) => [colour & 255, colour >> 8 & 255, colour >> 16 & 255]
  const kept = [...counts].sort((one, other) => other[1] - one[1]).slice(0, 256).map(([colour]) => parts(colour))
  const nearest = new Map()
  for (const colour of counts.keys()) {
    const [red, green, blue] = parts(colour)
    let best = 0, least = Infinity
    kept.forEach(([r, g, b], index) => {
      const distance = (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2
      if (distance < least) [best, least] = [index, distance]
    })
    nearest.set(colour, best)
  }
  let indexes = ''
  for (const colour of pixels) indexes += String.fromCharCode(nearest.get(colour))
  return {width, height, colours: kept.flat(), indexes: btoa(indexes)}
}"""
"""Maps each pixel of a PNG to the nearest of its 256 most frequent colours."""

SIDE_BY_SIDE = """<body style="margin:0;display:inline-flex;gap:24px;padding:24px;background:#d9dee5">{}</body>"""


class Studio:
    """Takes pictures of one service, and writes them into a directory. `scene` closes the tabs that it opened."""

    def __init__(self, browser: Browser, api: RestClient, directory: Path) -> None:
        self.api = api
        self.url = api.url
        self._browser = browser
        self._directory = directory
        self._contexts: list[BrowserContext] = []
        self._complaints: list[list[str]] = []
        self._count = 0

    @contextmanager
    def scene(self) -> Iterator[None]:
        """Close the tabs at the end. None may have reported an error."""
        try:
            yield
            assert [each for each in self._complaints if each] == []
        finally:
            for context in self._contexts:
                context.close()
            self._contexts.clear()
            self._complaints.clear()

    def open(self, path: str, *, is_dark: bool = False, **device: Any) -> Page:
        """Open a page on a device of its own, a desktop unless others are given."""
        looks = {"color_scheme": "dark" if is_dark else "light"}
        context = self._browser.new_context(**COMMON | looks | (device or DESKTOP))
        self._contexts.append(context)
        page = context.new_page()
        self._complaints.append(complaints_of(page))
        page.goto(f"{self.url}{path}")
        return page

    def session(self, **fields: Any) -> str:
        """Create a session whose id is the same in each run; without participants unless some are given."""
        self._count += 1
        fixed = uuid.uuid5(uuid.NAMESPACE_URL, f"picture {self._count}")
        return self.api.create(**{"session_id": str(fixed), "participants": [], **fields})

    def update(self, session_id: str, **metadata: Any) -> None:
        """Merge members into the metadata."""
        url = f"{self.url}/v1/sessions/{session_id}"
        requests.patch(url, json={"metadata": metadata}, timeout=60).raise_for_status()

    def shoot(self, **pages: Page | tuple[Page, ...]) -> None:
        """Write a picture of each page, or of several side by side; `play_go` becomes play-go.png."""
        sides = {name: each if isinstance(each, tuple) else (each,) for name, each in pages.items()}
        # All pages first: what follows takes seconds.
        shots = {name: [page.screenshot(animations="disabled") for page in each] for name, each in sides.items()}
        for name, each in shots.items():
            self._write(name.replace("_", "-"), each[0] if len(each) == 1 else self._joined(each))

    def _joined(self, shots: list[bytes]) -> bytes:
        data = (base64.b64encode(shot).decode() for shot in shots)
        images = "".join(f'<img style="height:844px" src="data:image/png;base64,{each}">' for each in data)
        context = self._browser.new_context(viewport={"width": 1280, "height": 900}, device_scale_factor=1.5)
        page = context.new_page()
        page.set_content(SIDE_BY_SIDE.format(images))
        page.wait_for_function("[...document.images].every((each) => each.complete)")
        joined = page.locator("body").screenshot()
        context.close()
        return joined

    def _write(self, name: str, png: bytes) -> None:
        context = self._browser.new_context()
        few = context.new_page().evaluate(FEW_COLOURS, base64.b64encode(png).decode())
        context.close()
        small = palette_png(few["width"], few["height"], bytes(few["colours"]), base64.b64decode(few["indexes"]))
        (self._directory / f"{name}.png").write_bytes(small)
        print(f"{name}.png: {few['width']} × {few['height']}, {len(small) / 1000:.0f} kB", flush=True)


def palette_png(width: int, height: int, colours: bytes, indexes: bytes) -> bytes:
    """Return a PNG of 8 bits a pixel; colours: 3 bytes each."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + indexes[at : at + width] for at in range(0, width * height, width))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"PLTE", colours), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
