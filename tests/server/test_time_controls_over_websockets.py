"""Clients that watch a session with time controls: events at boundaries, and patches that fold to the states."""

from __future__ import annotations

from typing import Any

from tests.support.controlled_games import PLAYERS
from tests.support.patches import apply_patch
from tests.support.web_clients import OpenWebSocket, RestClient, WebSocketClient

BYO_YOMI = {"time_ms": 150, "periods": 3, "period_ms": 200}
SLOW = {"time_ms": 60_000, "moves": 2, "increment_ms": 1000}


class Follower:
    """Follows a session by patches, and compares what they fold to with the states that another connection gets."""

    def __init__(self, open_websocket: OpenWebSocket, url: str, session_id: str) -> None:
        self.patches: WebSocketClient = open_websocket(url, session_id, format="patch")
        self.states: WebSocketClient = open_websocket(url, session_id)
        self.state: dict[str, Any] = self.patches.next("STATE_SYNC")["state"]
        self.states.next("STATE_SYNC")

    def commit(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Wait for the next commit, check it, and return its event and patch."""
        message, whole = self.patches.next("STATE_PATCH"), self.states.next("STATE_UPDATE")
        self.state = apply_patch(self.state, message)
        for moving in ("clock", "server_time_ms"):
            self.state[moving] = whole["state"][moving]
        assert self.state == whole["state"]
        assert message["event"] == whole["event"]
        return message["event"], message["patch"]

    def command(self, name: str, **args: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self.patches.send(type="COMMAND", id=name, command=name, args=args)
        return self.commit()


def test_patches_have_the_members_of_clocks_and_fold_to_the_states(web_url: str, open_websocket: OpenWebSocket) -> None:
    control = {"stages": [SLOW, {"time_ms": 30_000, "increment_ms": 1000}]}
    lag = {"per_move_ms": 100, "quota_ms": 1000}
    session_id = RestClient(web_url).create(
        participants=PLAYERS, time_control=control, takeback_cycles=5, lag_compensation=lag
    )
    follower = Follower(open_websocket, web_url, session_id)
    follower.command("start")
    for _ in range(3):
        event, patch = follower.command("switch", spent_ms=0)
        assert {"spent_ms", "bonus_ms", "lag_ms"} <= event.keys()
        moved = patch["participants"][event["participant_id"]]
        assert {"stage", "moves_to_next_stage", "turn_ms", "lag_left_ms"} <= moved.keys()
    event, _ = follower.commit()
    assert (event["type"], event["participant_id"], event["stage"]) == ("stage_entered", "white", 2)
    event, patch = follower.command("takeback", cycles=3, reason="agreed")
    assert (event["type"], event["cycles"]) == ("cycles_taken_back", 3)
    assert patch["participants"].keys() == {"white", "black"}
    event, patch = follower.command("adjust", targets="all", stage=2, op="set", ms=5000)
    assert event["adjusted"].keys() == {"white", "black"}
    assert [person["stage"] for person in follower.state["participants"]] == [2, 2]
    follower.command("complete", result={"winner": "white"})
    assert follower.state["completion"] == {"result": {"winner": "white"}}
    event, patch = follower.command("reopen")
    assert (event["type"], patch["status"], patch["session_completed_at"]) == ("session_reopened", "paused", None)
    assert "completion" not in follower.state
    follower.command("resume")


def test_periods_are_pushed_when_they_begin(web_url: str, open_websocket: OpenWebSocket) -> None:
    session_id = RestClient(web_url).create(participants=PLAYERS, time_control={"stages": [BYO_YOMI]})
    follower = Follower(open_websocket, web_url, session_id)
    started, _ = follower.command("start")
    events = [follower.commit()[0] for _ in range(4)]
    assert [(event["type"], event["at_ms"] - started["at_ms"]) for event in events] == [
        ("period_started", 150),
        ("period_lost", 350),
        ("period_lost", 550),
        ("participant_expired", 750),
    ]
    assert [event.get("periods_left") for event in events] == [3, 2, 1, None]
    assert follower.state["status"] == "expired"
