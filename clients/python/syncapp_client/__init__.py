"""A client of SyncApp, the server of shared clocks: `connect` watches and controls one session, `Client` is REST."""

from syncapp_client.client import Client
from syncapp_client.clock import elapsed_ms, reading
from syncapp_client.errors import SyncAppError
from syncapp_client.feeds import Feed
from syncapp_client.links import Link
from syncapp_client.offset import ClockStats
from syncapp_client.session import Game, connect
from syncapp_client.values import (
    Change,
    ClockState,
    Done,
    Event,
    Group,
    Participant,
    Reading,
    Reason,
    State,
    Status,
    StatusChange,
)

__all__ = [
    "Change",
    "Client",
    "ClockState",
    "ClockStats",
    "Done",
    "Event",
    "Feed",
    "Game",
    "Group",
    "Link",
    "Participant",
    "Reading",
    "Reason",
    "State",
    "Status",
    "StatusChange",
    "SyncAppError",
    "connect",
    "elapsed_ms",
    "reading",
]
