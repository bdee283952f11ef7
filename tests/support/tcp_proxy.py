"""A TCP proxy that cuts, delays, silences and refuses connections, and drops replies, on request."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import threading
from collections.abc import Coroutine
from typing import Any
from weakref import WeakKeyDictionary

from syncapp.dev.ports import free_port


class TcpProxy:
    """Forwards all bytes between its port and a server's, in its own thread. A context manager.

    tls: what to speak TLS with on its own port; the server's has none.
    """

    def __init__(self, target_port: int, rng: random.Random, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self._target_port = target_port
        self._rng = rng
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._is_deaf = False
        self._delay_s = (0.0, 0.0)
        self._due: WeakKeyDictionary[asyncio.StreamWriter, float] = WeakKeyDictionary()
        self._is_silent = False
        self._refused: tuple[bytes, ...] = ()
        self.dropped = 0

    def __enter__(self) -> TcpProxy:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *exc: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self, share: float) -> int:
        """Cut a share of the connections, at any byte; return how many."""
        return int(self._run(self._cut(share)))

    def drop_replies(self, for_s: float) -> None:
        """Forward requests and drop replies; then cut the connections that missed a reply."""
        self._run(self._drop_replies(for_s))

    def retarget(self, target_port: int) -> None:
        """Forward new connections to another server; open connections stay."""
        self._target_port = target_port

    def delay(self, least_s: float, most_s: float) -> None:
        """From now on, delay all bytes by a random time, each way; their order stays."""
        self._delay_s = (least_s, most_s)

    def silence(self, *, on: bool) -> None:
        """Drop all bytes, and leave the connections open, as a network does that is gone."""
        self._is_silent = on

    def refuse(self, *beginnings: bytes) -> None:
        """From now on, cut connections whose first request begins so, as proxies do that allow no WebSockets."""
        self._refused = beginnings

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)

    async def _stop(self) -> None:
        self._server.close()
        await self._cut(1)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut(self, share: float) -> int:
        chosen = [pair for pair in list(self._pairs) if self._rng.random() < share]
        for pair in chosen:
            for writer in pair:
                writer.transport.abort()
        return len(chosen)

    async def _drop_replies(self, for_s: float) -> None:
        self._is_deaf = True
        await asyncio.sleep(for_s)
        self._is_deaf = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Python 3.11 logs a handler that was cancelled as an error.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._connect_and_forward(reader, writer)
        writer.transport.abort()

    async def _connect_and_forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        pair = (writer, server_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._there(reader, server_writer), self._back(server_reader, writer))
        finally:
            self._pairs.discard(pair)
            for each in pair:
                each.transport.abort()

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            is_first = True
            while data := await reader.read(65_536):
                if is_first and self._refused and data.startswith(self._refused):
                    break
                is_first = False
                await self._forward(data, writer)
        writer.transport.abort()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self._is_deaf:
                    self.dropped += 1
                    break  # the client sees the end of the connection, but no part of this reply
                await self._forward(data, writer)
        writer.transport.abort()

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self._is_silent:
            return
        if self._delay_s[1]:
            now = self._loop.time()
            due = max(self._due.get(writer, now), now + self._rng.uniform(*self._delay_s))
            self._due[writer] = due
            self._loop.call_at(due, writer.write, data)
            return
        writer.write(data)
        await writer.drain()
