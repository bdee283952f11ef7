"""What redis-py takes for a connection to a cluster: it has none, and passes commands on to the pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from syncapp.store.connection_pool import packed


class ClusterLine:
    """Passes commands on to call(*commands), and returns the replies one by one, as redis-py asks for them."""

    host = port = None
    db = 0

    def __init__(self, call: Callable[..., list[Any]]) -> None:
        self._call = call
        self._replies: deque[Any] = deque()
        self.retry = Retry(NoBackoff(), 0)

    def pack_commands(self, commands: Iterable[Sequence[Any]]) -> list[bytes]:
        """Return packed commands."""
        return [_packed(command) for command in commands]

    def send_command(self, *args: Any, **options: Any) -> None:
        """Send a command."""
        self.send_packed_command([_packed(args)])

    def send_packed_command(self, commands: Sequence[bytes], **options: Any) -> None:
        """Send commands, and keep their replies."""
        self._replies.extend(self._call(*commands))

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Return the next reply; raise it if it is an error."""
        reply = self._replies.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def should_reconnect(self) -> bool:
        """Return False: there is no connection."""
        return False

    def disconnect(self, *args: Any) -> None:
        """Forget the replies."""
        self._replies.clear()


def _packed(words: Sequence[Any]) -> bytes:
    """Pack a command; redis-py gives its name and subcommand as one word."""
    return packed(*str(words[0]).split(), *words[1:])
