"""The parts of the Python client that need no server: pauses, measurements, tokens, queues."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close
from websockets.http11 import Response
from websockets.sync.client import ClientConnection

from syncapp_client import Change, Client, State, SyncAppError, connect
from syncapp_client.commands import Command
from syncapp_client.connection import Connection
from syncapp_client.feeds import MOST_WAITING
from syncapp_client.handshake import closed_by_server, refused_by_server
from syncapp_client.offset import KEPT, ServerClock
from syncapp_client.rest import refusal
from syncapp_client.retries import Retries, jitter_s
from syncapp_client.supervisor import Supervisor
from syncapp_client.timeline import Timeline
from syncapp_client.tokens import Tokens, expiry_s
from syncapp_client.values import Reason
from syncapp_client.watched import Lost, Watched


class LocalClock:
    """A local clock that a test sets, in ms, and how long the computer has slept, in s."""

    def __init__(self) -> None:
        self.ms = 1000.0
        self.slept_s = 0.0

    def server(self) -> ServerClock:
        return ServerClock(lambda: self.ms, lambda: self.slept_s)

    def measure(self, clock: ServerClock, round_trip_ms: float, offset_ms: float) -> bool:
        """Ask a server whose clock is ahead by the offset; the way back takes all of the round trip."""
        t0_ms = self.ms
        self.ms += round_trip_ms
        return clock.add(t0_ms, t0_ms + offset_ms)


class Paused:
    """Retries whose pauses are recorded, and take no time."""

    def __init__(self, seed: int = 1, timeout_s: float = 15) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []
        self.retries = Retries(timeout_s, random.Random(seed), self._sleep, lambda: self.now_s)

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds

    def run(self, outcomes: Iterator[str | SyncAppError], *, repeatable: bool = True, changes: bool = True) -> str:
        def attempt(left_s: float) -> str:
            found = next(outcomes)
            if isinstance(found, SyncAppError):
                raise found
            return found

        return self.retries.run(attempt, repeatable=repeatable, changes=changes)


def offline() -> SyncAppError:
    return SyncAppError("OFFLINE", "no answer", outcome_unknown=True)


def state(version: int, epoch: int = 1) -> State:
    return cast("State", {"epoch": epoch, "version": version})


def jwt(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


# Pauses


def test_a_pause_is_random_up_to_half_a_second_doubled_for_each_try_and_30_s() -> None:
    rng = random.Random(7)
    for tries, longest_s in ((0, 0.5), (1, 1), (3, 4), (5, 16), (6, 30), (1000, 30)):
        pauses = [jitter_s(tries, rng) for _ in range(500)]
        assert 0 <= min(pauses) < longest_s / 10
        assert longest_s * 0.9 < max(pauses) <= longest_s


def test_pauses_follow_the_random_numbers_that_are_given() -> None:
    paused, rng = Paused(seed=3), random.Random(3)
    assert paused.run(iter([offline(), offline(), offline(), "done"])) == "done"
    assert paused.pauses == [rng.uniform(0, 0.5), rng.uniform(0, 1), rng.uniform(0, 2)]


def test_a_pause_is_at_least_as_long_as_the_server_asks() -> None:
    paused = Paused()
    busy = SyncAppError("RATE_LIMITED", "too many", retry_after_s=4)
    assert paused.run(iter([busy, "done"])) == "done"
    assert paused.pauses == [4]


def test_a_server_that_asks_to_wait_longer_than_there_is_time_is_not_waited_for() -> None:
    paused = Paused(timeout_s=15)
    with pytest.raises(SyncAppError, match="RATE_LIMITED") as raised:
        paused.run(iter([SyncAppError("RATE_LIMITED", "too many", retry_after_s=60)]))
    assert (paused.pauses, raised.value.retry_after_s) == ([], 60)


def test_what_is_never_answered_times_out_with_an_unknown_outcome() -> None:
    paused = Paused()
    with pytest.raises(SyncAppError) as raised:
        paused.run(iter(offline, None))
    assert (raised.value.code, raised.value.outcome_unknown) == ("TIMEOUT", True)
    assert paused.now_s == pytest.approx(15)


def test_what_has_no_key_is_not_sent_again_after_a_lost_reply() -> None:
    paused = Paused()
    with pytest.raises(SyncAppError) as raised:
        paused.run(iter([offline(), "done"]), repeatable=False)
    assert (raised.value.code, raised.value.outcome_unknown, paused.pauses) == ("OFFLINE", True, [])


def test_a_refusal_with_the_same_key_says_that_no_earlier_try_took_effect() -> None:
    with pytest.raises(SyncAppError) as raised:
        Paused().run(iter([offline(), SyncAppError("CONFLICT", "another version", status=409)]))
    assert not raised.value.outcome_unknown
    with pytest.raises(SyncAppError) as raised:
        Paused().run(iter([offline(), SyncAppError("UNAUTHORIZED", "expired", status=401)]))
    assert raised.value.outcome_unknown


def test_a_response_that_is_not_the_services_is_taken_for_a_lost_one() -> None:
    page = refusal(502, {"Retry-After": "2"}, b"<html>Bad gateway</html>")
    assert (page.code, page.outcome_unknown, page.retry_after_s) == ("OFFLINE", True, 2)
    ours = refusal(503, {}, b'{"error": {"code": "STORE_FULL", "message": "full", "details": {"retry_after_s": 5}}}')
    assert (ours.code, ours.outcome_unknown, ours.retry_after_s) == ("STORE_FULL", False, 5)


def test_a_change_that_replicas_lack_is_sent_again_and_may_have_taken_effect() -> None:
    document = b'{"error": {"code": "NOT_REPLICATED", "message": "0 of 1", "details": {"retry_after_s": 1}}}'
    paused = Paused()
    assert paused.run(iter([refusal(503, {}, document), "done"])) == "done"
    assert paused.pauses == [1]
    with pytest.raises(SyncAppError) as raised:
        Paused().run(iter([refusal(503, {}, document)]), repeatable=False)
    assert raised.value.outcome_unknown


def test_a_command_has_one_key_and_its_preconditions_beside_its_arguments() -> None:
    command = Command("switch", {"participant_id": "white", "expected_version": 3, "spent_ms": None})
    message, request = command.message("c1"), command.request("id")
    assert message == {
        "type": "COMMAND",
        "id": "c1",
        "command": "switch",
        "idempotency_key": command.key,
        "args": {"participant_id": "white"},
        "expected_version": 3,
    }
    assert request == ("POST", "/v1/sessions/id/switch", {"participant_id": "white", "expected_version": 3})
    assert Command("switch", {}).key != command.key
    assert Command("switch", {"idempotency_key": "mine"}).key == "mine"


# The server's clock


def test_the_offset_is_that_of_the_best_of_the_last_eight_round_trips() -> None:
    local = LocalClock()
    clock = local.server()
    assert (clock.now(), clock.known) == (None, False)
    local.measure(clock, 10, 5000)
    for _ in range(KEPT - 1):
        local.measure(clock, 40, 5000)
    best = clock.stats()
    assert (best.round_trip_ms, best.error_ms, best.spread_ms, best.samples) == (10, 5, 15, 8)
    assert best.offset_ms == 4995
    assert clock.now() == local.ms + 4995
    local.measure(clock, 40, 5000)  # the best one is the ninth now
    assert (clock.stats().round_trip_ms, clock.stats().samples) == (40, 8)


def test_an_answer_to_a_question_from_before_the_measurements_were_discarded_does_not_count() -> None:
    local = LocalClock()
    clock = local.server()
    asked_ms = local.ms
    local.ms += 5
    clock.discard()
    assert not clock.add(asked_ms, 9000)
    assert clock.now() is None
    assert local.measure(clock, 10, 5000)


def test_a_sleep_of_the_computer_discards_the_measurements() -> None:
    local = LocalClock()
    clock = local.server()
    local.measure(clock, 10, 5000)
    assert not clock.has_slept()
    local.slept_s = 3600
    assert clock.has_slept()
    assert clock.now() is None
    assert not clock.has_slept()


def test_a_measurement_that_contradicts_the_others_replaces_them() -> None:
    local = LocalClock()
    clock = local.server()
    local.measure(clock, 10, 5000)
    local.measure(clock, 30, 9000)  # the local clock stood still for 4 s
    assert (clock.stats().samples, clock.stats().offset_ms) == (1, 8985)


# Tokens


class Minted:
    """A function that gives tokens of a minute's life, more or less, and counts."""

    def __init__(self, lives_s: float) -> None:
        self.now_s = 1_000_000.0
        self.lives_s = lives_s
        self.count = 0
        self.fails = False
        self.tokens = Tokens(self, lambda: self.now_s)

    def __call__(self) -> str:
        if self.fails:
            raise OSError("the back end is away")
        self.count += 1
        return jwt(exp=self.now_s + self.lives_s, n=self.count)


@pytest.mark.parametrize(("lives_s", "renews_s"), [(600, 540), (60, 30), (100, 50)])
def test_a_token_is_renewed_a_minute_before_its_end_or_after_half_of_a_short_life(
    lives_s: float, renews_s: float
) -> None:
    minted = Minted(lives_s)
    first = minted.tokens.current()
    assert minted.tokens.renews_in_s == renews_s
    minted.now_s += renews_s - 1
    assert minted.tokens.current() == first
    minted.now_s += 1
    assert minted.tokens.current() != first
    assert minted.count == 2


def test_a_token_that_is_still_valid_is_kept_while_no_new_one_can_be_got() -> None:
    minted = Minted(600)
    first = minted.tokens.current()
    minted.now_s, minted.fails = minted.now_s + 550, True
    assert minted.tokens.current() == first
    minted.now_s += 60
    with pytest.raises(OSError, match="away"):
        minted.tokens.current()


def test_a_refused_token_is_replaced_by_another_three_times_at_most() -> None:
    minted = Minted(600)
    again = [minted.tokens.refuse(minted.tokens.current()) for _ in range(3)]
    assert (again, minted.count) == ([True, True, False], 3)
    minted.tokens.accept()
    assert minted.tokens.refuse(minted.tokens.current())


@pytest.mark.parametrize("source", ["fixed", lambda: "fixed", lambda: None])
def test_a_refused_token_is_not_sent_again(source: str | Callable[[], str | None]) -> None:
    tokens = Tokens(source)
    if source == "fixed" or (callable(source) and source()):
        tokens.refuse(tokens.current())
    with pytest.raises(SyncAppError, match="UNAUTHORIZED"):
        tokens.current()


@pytest.mark.parametrize("token", ["", "a.b", "a.!.c", "e30.W10.x", "e30.eyJleHAiOiAiMSJ9.x", "é.é.é"])
def test_a_text_that_does_not_say_when_it_ends_has_no_end(token: str) -> None:
    assert expiry_s(token) is None


# Versions


def test_versions_are_told_once_and_in_order_and_gaps_are_counted() -> None:
    timeline = Timeline()
    early, event = timeline.watch(None), {"type": "x"}
    for version in (2, 3, 3, 1, 6):
        timeline.offer(state(version), event)
    late = timeline.watch(None)
    timeline.offer(state(2, epoch=2), event)
    timeline.offer(state(7), event)
    timeline.end()
    assert [(each.state["epoch"], each.state["version"], each.skipped) for each in early] == [
        *((1, 2, 0), (1, 3, 0), (1, 6, 2), (2, 2, 1)),
    ]
    assert [(each.state["version"], each.event) for each in late] == [(6, None), (2, None)]


def test_an_older_version_is_told_only_if_the_store_has_lost_the_newer_ones() -> None:
    timeline = Timeline()
    feed = timeline.watch(None)
    timeline.offer(state(5), None)
    timeline.offer(state(4), None)
    timeline.offer(state(4), None, rolled_back=True)
    timeline.offer(state(5), {"type": "again"})
    timeline.end()
    assert [each.state["version"] for each in feed] == [5, 4, 5]


def test_a_watcher_that_does_not_keep_up_skips_to_the_newest_version() -> None:
    timeline = Timeline()
    slow = timeline.watch(None)
    for version in range(1, MOST_WAITING + 2):
        timeline.offer(state(version), {"type": "x"})
    timeline.end()
    assert list(slow) == [Change(state(MOST_WAITING + 1), None, MOST_WAITING)]


def test_a_watch_that_times_out_can_go_on() -> None:
    timeline = Timeline()
    feed = timeline.watch(timeout=0.01)
    with pytest.raises(TimeoutError):
        next(feed)
    timeline.offer(state(1), None)
    assert next(feed).state == state(1)


# The end of a connection


@pytest.mark.parametrize(
    ("code", "found"),
    [(code, ("CLOSED", True, 0)) for code in (1000, 1002, 1003, 1007, 1009)]
    + [(code, ("OFFLINE", False, 0)) for code in (None, 1001, 1011, 1012, 1013, 4408)]
    + [(1008, ("RATE_LIMITED", False, 60)), (4401, ("UNAUTHORIZED", False, 0)), (4403, ("FORBIDDEN", True, 0))],
)
def test_close_codes_say_whether_to_connect_again(code: int | None, found: tuple[str, bool, float]) -> None:
    watched = Watched("id", Tokens(lambda: "token"), False, lambda is_current, reason: None)
    token = watched.tokens.current()
    closed = ConnectionClosedError(None if code is None else Close(code, "why"), None)
    lost = closed_by_server(closed, watched, token)
    assert (lost.reason.code, lost.reason.final, lost.wait_s) == found


def test_a_fixed_token_that_has_ended_is_final() -> None:
    watched = Watched("id", Tokens("token"), False, lambda is_current, reason: None)
    lost = closed_by_server(ConnectionClosedError(Close(4401, "expired"), None), watched, "token")
    assert lost.reason.final


def test_a_session_that_is_gone_was_deleted_if_it_was_known() -> None:
    told: list[Reason | None] = []
    watched = Watched("id", Tokens(None), True, lambda is_current, reason: told.append(reason))
    watched.absent()
    assert [reason and reason.final for reason in told] == [False]
    watched.timeline.offer(state(1), None)
    with pytest.raises(Lost, match="DELETED"):
        watched.absent()


# Refused handshakes


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (401, "UNAUTHORIZED", ("UNAUTHORIZED", True, 0, False)),
        (403, "FORBIDDEN", ("FORBIDDEN", True, 0, False)),
        (403, "ORIGIN_NOT_ALLOWED", ("ORIGIN_NOT_ALLOWED", True, 0, False)),
        (429, "RATE_LIMITED", ("RATE_LIMITED", False, 7, False)),
        (503, "SERVER_STOPPING", ("SERVER_STOPPING", False, 7, False)),
        (400, "VALIDATION_ERROR", ("VALIDATION_ERROR", True, 0, False)),
        (426, "UPGRADE_REQUIRED", ("OFFLINE", False, 0, True)),  # a proxy has removed the headers that ask for one
        (403, "", ("OFFLINE", False, 0, True)),
        (502, "", ("OFFLINE", False, 7, True)),
    ],
)
def test_a_refused_handshake_says_whether_and_when_to_connect_again(
    status: int, body: str, found: tuple[str, bool, float, bool]
) -> None:
    watched = Watched("id", Tokens("token"), False, lambda is_current, reason: None)
    headers = Headers({"Retry-After": "7"} if found[2] else {})
    document = json.dumps({"error": {"code": body, "message": "no"}}) if body else "<html>"
    lost = refused_by_server(Response(status, "no", headers, document.encode()), watched, "token")
    assert (lost.reason.code, lost.reason.final, lost.wait_s, lost.blocked) == found


class FakeSocket:
    """A WebSocket on which a server says what a test lists, and then closes; what is sent is kept."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)
        self.sent: list[dict[str, Any]] = []

    def recv(self, timeout: float | None = None) -> str:
        if not self._messages:
            raise ConnectionClosedError(None, None)
        return json.dumps(self._messages.pop(0))

    def send(self, text: str) -> None:
        self.sent.append(json.loads(text))


def run_connection(watched: Watched, token: str | None, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a connection to its end, and return what it has sent, but for PINGs."""
    socket = FakeSocket(*messages)
    connection = Connection(cast("ClientConnection", socket), watched, token, watched.timeline.state)
    with pytest.raises(ConnectionClosedError):
        connection.run()
    return [message for message in socket.sent if message["type"] != "PING"]


def test_a_token_is_renewed_on_the_open_connection() -> None:
    minted = Minted(600)
    watched = Watched("id", minted.tokens, False, lambda is_current, reason: None)
    token = minted.tokens.current()
    connected = {"type": "CONNECTED", "epoch": 1, "version": 1}
    assert run_connection(watched, token, connected, connected) == []
    minted.now_s += 541
    sent = run_connection(watched, token, connected, connected, connected)
    assert sent == [{"type": "AUTH", "id": "auth", "token": minted.tokens.current()}]
    assert minted.count == 2


def test_a_store_that_has_lost_versions_takes_the_client_back() -> None:
    watched = Watched("id", Tokens(None), False, lambda is_current, reason: None)
    feed = watched.timeline.watch(None)
    watched.timeline.offer(state(5), None)
    run_connection(watched, None, {"type": "STATE_SYNC", "state": state(3)})
    watched.timeline.end()
    assert [each.state["version"] for each in feed] == [5, 3]


def test_a_state_that_rest_has_told_already_is_not_told_again() -> None:
    watched = Watched("id", Tokens(None), False, lambda is_current, reason: None)
    feed = watched.timeline.watch(None)
    socket = FakeSocket(*({"type": "STATE_UPDATE", "state": state(version), "event": {}} for version in (6, 7, 8)))
    watched.timeline.offer(state(5), None)
    connection = Connection(cast("ClientConnection", socket), watched, None, watched.timeline.state)
    watched.timeline.offer(state(7), None)  # by a command over REST
    with pytest.raises(ConnectionClosedError):
        connection.run()
    watched.timeline.end()
    assert [(each.state["version"], each.skipped) for each in feed] == [(5, 0), (7, 1), (8, 0)]


def test_a_fault_of_the_client_ends_the_session_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(supervisor: Supervisor) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Supervisor, "run_once", fail)
    with pytest.raises(SyncAppError, match="a fault"):
        connect("http://127.0.0.1:9", "id")


def test_a_token_is_not_replaced_by_one_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    sent: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers["Authorization"])
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        for token in ("mine", None):
            url = f"http://127.0.0.1:{server.server_port}"
            with Client(url, token=token) as client, pytest.raises(SyncAppError, match="UNEXPECTED_RESPONSE"):
                client.get("id")  # a redirect is not followed either
        server.shutdown()
    assert sent == ["Bearer mine", None]
