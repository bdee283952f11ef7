"""What the transports and the public session share: what is known of one session, and how well."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from syncapp_client.offset import ServerClock
from syncapp_client.timeline import Timeline
from syncapp_client.tokens import Tokens
from syncapp_client.values import Reason


class Lost(Exception):
    """A transport has ended, and why.

    wait_s: the server asks to wait this long. blocked: WebSockets do not get through, though the server might.
    """

    def __init__(self, reason: Reason, *, wait_s: float = 0.0, blocked: bool = False) -> None:
        super().__init__(reason.code, reason.message)
        self.reason = reason
        self.wait_s = wait_s
        self.blocked = blocked


@dataclass
class Watched:
    """One session, as far as it is known.

    waits: whether a session that does not exist yet is waited for. report: is told whether the state is current, and if
    not, why. stopped: set when nobody wants the session any more.
    """

    session_id: str
    tokens: Tokens
    waits: bool
    report: Callable[[bool, Reason | None], None]
    timeline: Timeline = field(default_factory=Timeline)
    clock: ServerClock = field(default_factory=ServerClock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def absent(self) -> None:
        """Enter that the session does not exist. Raises `Lost`, unless it is waited for."""
        if self.timeline.state is not None:
            raise Lost(Reason("DELETED", "the session was deleted", final=True))
        if not self.waits:
            raise Lost(Reason("SESSION_NOT_FOUND", "there is no such session", final=True))
        self.report(False, Reason("SESSION_NOT_FOUND", "the session does not exist yet"))
