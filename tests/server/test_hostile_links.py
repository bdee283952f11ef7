"""What somebody with a spectator's link tries: nothing changes, and nothing of other sessions is seen."""

from __future__ import annotations

import json
import random
import uuid
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed

from syncapp.domain.commands import COMMANDS
from tests.support.cluster import Cluster
from tests.support.tokens import bearer, token
from tests.support.web_clients import CHESS, OpenWebSocket, RestClient, WebSocketClient

pytestmark = pytest.mark.usefixtures("no_errors_logged")

CONNECTIONS, MESSAGES = 12, 60


class Attacker:
    """Sends hostile messages, and keeps what it is told. ids: of sessions; good: the token of its link."""

    def __init__(self, chance: random.Random, ids: list[str], good: str) -> None:
        self._chance = chance
        self._ids = ids
        self._good = good
        self.told: list[dict[str, Any]] = []

    def message(self) -> str:
        pick = self._chance.choice
        session_id = pick(
            [*self._ids, str(uuid.UUID(int=self._chance.getrandbits(128))), "acme/" + self._ids[0], None, 7]
        )
        asked: dict[str, Any] = {
            "type": pick(
                ["SUBSCRIBE", "UNSUBSCRIBE", "RECONNECT", "COMMAND", "COMMAND", "AUTH", "PING", "AUTHENTICATED"]
            ),
            "session_id": session_id,
        }
        if asked["type"] == "COMMAND":
            command = pick([*COMMANDS, "erase", "create_link"])
            args = pick([{}, CHESS, {"participant_id": "white"}, {"metadata": {}}, {"op": "add", "ms": 1000}])
            asked |= {"id": 1, "command": command, "args": args, "idempotency_key": pick(["k", None])}
        if asked["type"] == "AUTH":
            del asked["session_id"]
            strangers = [
                token(secret="x" * 40), token(exp=1), token(tenant="acme", secret="x" * 40), "x" * 5000,
                self._good[:-2], self._good.split(".")[1], "." * 2, "none",
            ]  # fmt: skip
            asked["token"] = pick([self._good, *strangers])
        given = {name: value for name, value in asked.items() if value is not None}
        text = json.dumps(given)
        return pick([text, text, text, text[:-1], f"[{text}]", json.dumps(given | {"admin": True})])

    def attack(self, one: WebSocketClient) -> None:
        """Send messages until the server closes, or all are sent; read all that comes back."""
        try:
            for _ in range(MESSAGES):
                one.connection.send(self.message())
            one.connection.send('{"type": "PING", "t0": 77}')
            while (told := one.next()).get("t0") != 77:
                self.told.append(told)
            while True:  # a PONG comes before what is queued
                self.told.append(one.next(within_s=0.3))
        except TimeoutError:
            pass
        except ConnectionClosed:
            assert one.close_code() in (4401, 4403)


def test_a_spectators_link_changes_nothing_and_shows_its_own_session_only(
    guarded: Cluster, open_websocket: OpenWebSocket
) -> None:
    api = RestClient(guarded.urls[0], bearer())
    theirs = RestClient(api.url, bearer(tenant="acme"))
    own, others = api.running(), [api.running(), theirs.running()]
    answer = requests.post(
        f"{api.url}/v1/sessions/{own}/links", json={"scope": "session:watch"}, headers=api.headers, timeout=60
    )
    link = answer.json()["data"]["token"]
    seed = random.randrange(1_000_000)
    print("seed", seed)
    attacker = Attacker(random.Random(seed), [own, *others], link)
    for number in range(CONNECTIONS):
        session_id, query = ("", {}) if number % 3 else (own, {"token": link})
        one = open_websocket(api.url, session_id, **query)
        one.next()
        attacker.attack(one)
    assert {told["type"] for told in attacker.told} <= {
        "AUTHENTICATED", "CONNECTED", "STATE_SYNC", "SUBSCRIBED", "UNSUBSCRIBED", "PONG", "ERROR",
    }  # fmt: skip
    for told in attacker.told:
        if told["type"] in ("SUBSCRIBED", "CONNECTED", "STATE_SYNC"):
            assert told["sessionId"] in (own, None)
        assert "current" not in json.dumps(told.get("details"))
        assert told.get("code") != "INTERNAL_ERROR"
        assert link not in json.dumps(told)
    assert api.state(own)["version"] == api.state(others[0])["version"] == theirs.state(others[1])["version"] == 2
    listed = requests.get(f"{theirs.url}/v1/sessions", headers=theirs.headers, timeout=60).json()["data"]["sessions"]
    assert [each["session_id"] for each in listed] == [others[1]]
