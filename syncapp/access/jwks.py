"""Keys from `AUTH_JWKS_URL`: fetched, cached, and refreshed in the background or for a key that is not known yet.

States: no keys yet; fresh; old (a background thread refreshes them, and the old ones stay in use). While the URL cannot
be read, the last keys stay valid, and the next try follows after a pause. Tokens that name unknown keys cause at most
one fetch in `MIN_PAUSE_S`, however many they are.
"""

from __future__ import annotations

import http.client
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import orjson
import structlog

from syncapp.access.token_keys import TokenKey, keys_of_jwks
from syncapp.errors import one_line

log = structlog.get_logger(__name__)

MIN_PAUSE_S = 10.0
"""Minimum seconds between two fetches."""
MAX_AGE_S = 300.0
"""Age in seconds at which keys are refreshed."""
RETRY_S = 30.0
"""Seconds after a failed fetch until the next one in the background."""
_TIMEOUT_S = 5.0
_MAX_BYTES = 262_144


class JwksKeys:
    """The keys of one URL. `generation` changes whenever they do."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._lock = threading.Lock()
        self._tried_s = self._due_s = float("-inf")
        self.keys: tuple[TokenKey, ...] = ()
        self.generation = 0

    def refresh_if_due(self) -> None:
        """Start a refresh in the background if the keys are old; returns at once."""
        if (now_s := self._clock()) >= self._due_s:
            self._due_s = now_s + RETRY_S  # callers until the thread runs start no further ones
            threading.Thread(target=self.refresh, name="jwks", daemon=True).start()

    def refresh(self) -> None:
        """Fetch the keys, unless that was tried less than `MIN_PAUSE_S` ago; wait for a fetch that is under way."""
        if not self._lock.acquire(timeout=2 * _TIMEOUT_S):
            return
        try:
            now_s = self._clock()
            if now_s - self._tried_s < MIN_PAUSE_S:
                return
            self._tried_s, self._due_s = now_s, now_s + RETRY_S
            self._fetch()
            self._due_s = now_s + MAX_AGE_S
        except (OSError, http.client.HTTPException, ValueError) as error:
            text = f"{type(error).__name__}: {one_line(error)}"
            log.warning("keys not fetched", setting="AUTH_JWKS_URL", kept=len(self.keys), error=text)
        finally:
            self._lock.release()

    def _fetch(self) -> None:
        keys = keys_of_jwks(orjson.loads(fetch(self._url)))
        if keys != self.keys:
            # In this order: who sees the new generation also sees the new keys.
            self.keys = keys
            self.generation += 1
            log.info("keys fetched", setting="AUTH_JWKS_URL", keys=len(keys))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect: only the configured server may name keys. The answer counts as an error."""


def fetch(url: str) -> bytes:
    """Return the body of a URL. Raises `OSError` (also for redirects and errors), `HTTPException`, `ValueError`."""
    # Plain HTTP is allowed for this machine only, which no proxy can reach.
    proxies = urllib.request.ProxyHandler({} if url.startswith("http:") else None)
    opener = urllib.request.build_opener(_NoRedirects, proxies)
    request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "SyncApp"})  # noqa: S310 the settings allow https, and http for loopback addresses
    end_s, body = time.monotonic() + _TIMEOUT_S, b""
    with opener.open(request, timeout=_TIMEOUT_S) as answer:
        while part := answer.read1(65_536):
            body += part
            if len(body) > _MAX_BYTES:
                raise ValueError(f"the answer is larger than {_MAX_BYTES} bytes")
            if time.monotonic() > end_s:
                raise TimeoutError(f"the answer took longer than {_TIMEOUT_S:.0f} s")
    return body
