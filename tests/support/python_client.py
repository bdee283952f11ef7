"""Python clients whose limits are generous, for busy machines; what they wait for takes milliseconds."""

from __future__ import annotations

from syncapp_client import Client, Game, connect
from syncapp_client.tokens import TokenSource

SOON_S = 60.0


def connected(url: str, session_id: str, token: TokenSource = None) -> Game:
    return connect(url, session_id, token=token, timeout_s=SOON_S, command_timeout_s=SOON_S)


def client_of(url: str, token: TokenSource = None) -> Client:
    return Client(url, token=token, timeout_s=SOON_S)
