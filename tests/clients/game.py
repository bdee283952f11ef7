"""A game over REST with a generated client: `python game.py URL`. That it type-checks is half of the test."""

from __future__ import annotations

import sys
import uuid

from client import Client
from client.api.commands import complete, start, switch
from client.api.sessions import create, read
from client.models.command_answer import CommandAnswer
from client.models.create_session import CreateSession
from client.models.create_session_sync_mode import CreateSessionSyncMode
from client.models.error_answer import ErrorAnswer
from client.models.error_code import ErrorCode
from client.models.new_participant import NewParticipant
from client.models.start import Start
from client.models.state import State
from client.models.state_answer import StateAnswer
from client.models.state_status import StateStatus
from client.models.switch import Switch


def state(answer: CommandAnswer | ErrorAnswer | None) -> State:
    """Return the state that a command answered with."""
    assert isinstance(answer, CommandAnswer), answer
    assert isinstance(answer.data, State), answer
    return answer.data


def play(url: str) -> None:
    """Create, start, switch, complete and read a session."""
    client = Client(base_url=url, raise_on_unexpected_status=True)
    players = [NewParticipant(participant_id=name, total_time_ms=300_000) for name in ("white", "black")]
    body = CreateSession(sync_mode=CreateSessionSyncMode.PER_PARTICIPANT, participants=players, increment_ms=3000)
    created = state(create.sync(client=client, body=body, idempotency_key=str(uuid.uuid4())))
    assert created.status is StateStatus.PENDING
    session = created.session_id

    started = state(start.sync(session, client=client, body=Start()))
    assert started.active_participant_id == "white"
    tag = f'"{started.epoch}-{started.version}"'
    switched = state(switch.sync(session, client=client, body=Switch(participant_id="white"), if_match=tag))
    assert switched.active_participant_id == "black"

    refused = switch.sync_detailed(session, client=client, body=Switch(expected_version=1))
    assert isinstance(refused.parsed, ErrorAnswer)
    assert refused.status_code == 409
    assert refused.parsed.error.code is ErrorCode.CONFLICT

    completed = state(complete.sync(session, client=client))
    assert completed.status is StateStatus.COMPLETED
    found = read.sync_detailed(session, client=client)
    assert isinstance(found.parsed, StateAnswer)
    assert found.parsed.data.version == completed.version
    assert found.headers["ETag"] == f'"{completed.epoch}-{completed.version}"'
    print("python: a game was played")


if __name__ == "__main__":
    play(sys.argv[1])
