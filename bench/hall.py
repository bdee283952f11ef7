"""The hall: the sockets of one client process, in pairs that play, or all on one session.

The loop sends precomputed frames, and reads only as much of a message as shows that it is the opponent's. It knows when
it was late itself: a delivery during which it was is *tainted*.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field

from bench.wire import Wire

LATE_NS = 5_000_000
"""A loop that is later than this taints the deliveries that were under way."""
_AT_ONCE = 64  # input of so many sockets is read between two looks at the clock
_CONNECTING = 200  # connections that may wait for their first state
_LONGEST_S = 600.0
_LAST_S = 10.0
_PORTS = 20_000  # connections from one address


@dataclass(slots=True)
class Played:
    """The result of a run, in monotonic ns, which all processes of a machine share.

    deliveries: when each command was sent, how long the opponent waited for the message, whether the client was late
    meanwhile. deferred: commands that had to wait because the turn had not come yet. lost: commands without an answer.
    refused: the answers to others.
    """

    deliveries: list[tuple[int, int, bool]] = field(default_factory=list)
    deferred: int = 0
    lost: int = 0
    refused: list[str] = field(default_factory=list)
    late_ns: list[int] = field(default_factory=list)

    def add(self, other: Played) -> None:
        """Add what another process played."""
        self.deliveries += other.deliveries
        self.deferred += other.deferred
        self.lost += other.lost
        self.refused += other.refused
        self.late_ns += other.late_ns


@dataclass(slots=True, eq=False)
class _Seat:
    """One player's socket."""

    socket: socket.socket
    table: _Table
    command: bytes
    began_ns: int = 0
    is_open: bool = False
    buffer: bytes = b""


@dataclass(slots=True, eq=False)
class _Table:
    """One session: its seats, its newest version, whose turn that is, and the command under way.

    sent_ns: when the command was sent; 0 if there is none. asked: the version at that time.
    """

    session: str
    seats: list[_Seat] = field(default_factory=list)
    version: int = 0
    turn: int = 0
    sent_ns: int = 0
    asked: int = 0
    owed: int = 0
    awaited: _Seat | None = None


class Hall:
    """The sockets of a process; `Players` calls its methods from another one."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.poll = select.epoll()
        self.seats: dict[int, _Seat] = {}
        self.tables: list[_Table] = []
        self.opened: list[int] = []
        self.played = Played()
        self.late_until_ns = 0
        self.news: dict[int, list[int]] = defaultdict(list)

    def connect(self, ports: list[int], sessions: list[str], per_session: int, first: int) -> list[int]:
        """Open the sockets of sessions, on ports chosen at random; return how long (ns) each took to its state."""
        wanted = deque((name, place) for name in sessions for place in range(per_session))
        chance = random.Random(first)  # as a server that shares a port would spread them
        tables = {name: _Table(name) for name in sessions}
        self.tables = list(tables.values())
        self.opened = []
        total, begun, end_s = len(wanted), 0, time.monotonic() + _LONGEST_S
        while len(self.opened) < total:
            while wanted and begun - len(self.opened) < _CONNECTING:
                name, place = wanted.popleft()
                self._open(chance.choice(ports), name, place, tables[name], first + begun)
                begun += 1
            self._read(0.5)
            if time.monotonic() > end_s:
                raise TimeoutError(f"{total - len(self.opened)} of {total} sockets are not open")
        return self.opened

    def _open(self, port: int, session: str, place: int, table: _Table, number: int) -> None:
        began_ns = time.monotonic_ns()
        address = f"127.0.0.{1 + number // _PORTS}"
        opened = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(address, 0))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Closed with a reset: thousands of ports would otherwise be held for a minute.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        opened.sendall(self.wire.handshake(session))
        opened.setblocking(False)
        seat = _Seat(opened, table, self.wire.command(session, place), began_ns)
        table.seats.append(seat)
        self.seats[opened.fileno()] = seat
        self.poll.register(opened.fileno(), select.EPOLLIN)

    def play(self, rate: float, seconds: float, start_ns: int, seed: int) -> Played:
        """Switch the sessions at an even rate."""
        self.played = Played()
        order = self.tables[:]
        random.Random(seed).shuffle(order)  # neighbours would share a moment in each round
        gap_ns = 1e9 / rate
        number, count = 0, int(rate * seconds)
        due_ns = start_ns
        while number < count:
            self._wait(due_ns)
            while due_ns <= time.monotonic_ns() and number < count:
                self._act(order[number % len(order)])
                number += 1
                due_ns = start_ns + int(number * gap_ns)
        end_ns = time.monotonic_ns() + int(_LAST_S * 1e9)
        while any(table.sent_ns for table in self.tables) and time.monotonic_ns() < end_ns:
            self._wait(end_ns)
        for table in self.tables:
            self.played.lost += bool(table.sent_ns)
            table.sent_ns = table.owed = 0
        return self.played

    def fan(self, rounds: int, port: int) -> dict[int, tuple[int, int, int]]:
        """Switch the only session, and wait each time until all sockets have the news; port: see `Players.fan`."""
        (table,) = self.tables
        found: dict[int, tuple[int, int, int]] = {}
        while len(found) < rounds:
            version, began_ns = 0, 0
            if port:
                self._rest()
                version, began_ns = table.version + 1, time.monotonic_ns()
                command = self.wire.command(table.session, table.turn)
                self.wire.switch(table.seats[0].socket, command, port, version)
            end_s = time.monotonic() + _LONGEST_S
            while not (done := [each for each, at in self.news.items() if len(at) == len(self.seats)]):
                self._read(0.5)
                if time.monotonic() > end_s:
                    news = {version: len(at) for version, at in self.news.items()}
                    raise TimeoutError(f"{len(self.seats)} sockets got {news}; refused: {self.played.refused[:1]}")
            for each in done:
                times = self.news.pop(each)
                found[each] = (began_ns, times[0], times[-1])
        return found

    def _rest(self) -> None:
        """Read what still comes, for a moment."""
        end_s = time.monotonic() + 0.05
        while time.monotonic() < end_s:
            self._read(0.01)

    def _wait(self, due_ns: int) -> None:
        """Read until something is due, at most for a moment; note when this process was late for it."""
        due_ns = min(due_ns, time.monotonic_ns() + LATE_NS)
        self._read(max(0, due_ns - time.monotonic_ns()) / 1e9)
        now_ns = time.monotonic_ns()
        if now_ns - due_ns > LATE_NS:
            self.played.late_ns.append(now_ns - due_ns)
            self.late_until_ns = now_ns

    def _act(self, table: _Table) -> None:
        if table.sent_ns:
            self.played.deferred += 1
            table.owed += 1
            return
        seat = table.seats[table.turn]
        table.awaited = table.seats[1 - table.turn]
        table.asked = table.version
        table.sent_ns = time.monotonic_ns()
        seat.socket.send(seat.command)

    def _read(self, wait_s: float) -> None:
        for number, _ in self.poll.poll(wait_s, _AT_ONCE):
            seat = self.seats[number]
            try:
                data = seat.socket.recv(262_144)
            except BlockingIOError:
                continue
            if not data:
                raise ConnectionError("the server closed a WebSocket")
            at_ns = time.monotonic_ns()
            buffer = seat.buffer + data if seat.buffer else data
            if not seat.is_open and buffer.startswith(b"HTTP"):
                head = buffer.find(b"\r\n\r\n")
                if head >= 0 and not buffer.startswith(b"HTTP/1.1 101"):
                    raise ConnectionError(buffer[:300].decode("latin-1"))
                buffer = buffer[head + 4 :] if head >= 0 else buffer
                if head >= 0 and not self.wire.opened:
                    self._is_open(seat, at_ns)
            seat.buffer = b"" if not buffer else self._frames(seat, buffer, at_ns)

    def _frames(self, seat: _Seat, buffer: bytes, at_ns: int) -> bytes:
        """Take the complete frames; return what is left."""
        if buffer.startswith(b"HTTP"):
            return buffer
        while len(buffer) >= 2:
            start, size = 2, buffer[1] & 0x7F
            if size == 126:
                start, size = 4, int.from_bytes(buffer[2:4])
            elif size == 127:
                start, size = 10, int.from_bytes(buffer[2:10])
            end = start + size
            if len(buffer) < end:
                break
            kind = buffer[0] & 0x0F
            if kind == 1:
                self._message(seat, buffer[start : min(end, start + 4096)], at_ns)
            elif kind == 9:
                seat.socket.send(b"\x8a" + bytes((0x80 | size, 0, 0, 0, 0)) + buffer[start:end])
            elif kind == 8:
                raise ConnectionError(f"the server closed a WebSocket: {buffer[start:end]!r}")
            buffer = buffer[end:]
        return buffer

    def _message(self, seat: _Seat, text: bytes, at_ns: int) -> None:
        table = seat.table
        if not seat.is_open:
            if answer := self.wire.greeting(text):
                seat.socket.send(answer)
            if self.wire.opened in text:
                self._is_open(seat, at_ns)
        elif self.wire.moved in text:
            self._moved(seat, table, text, at_ns)
        elif self.wire.is_error(text):
            self.played.refused.append(text[:300].decode(errors="replace"))
            table.sent_ns = 0
        elif answer := self.wire.reply(text):
            seat.socket.send(answer)

    def _is_open(self, seat: _Seat, at_ns: int) -> None:
        seat.is_open = True
        self.opened.append(at_ns - seat.began_ns)

    def _moved(self, seat: _Seat, table: _Table, text: bytes, at_ns: int) -> None:
        version, turn = self.wire.move(text)
        if len(self.tables) == 1:
            self.news[version].append(at_ns)
        if version > table.version:
            table.version, table.turn = version, turn
        if seat is table.awaited and table.sent_ns and version > table.asked:
            tainted = table.sent_ns <= self.late_until_ns
            self.played.deliveries.append((table.sent_ns, at_ns - table.sent_ns, tainted))
            table.sent_ns = 0
            if table.owed:
                table.owed -= 1
                self._act(table)
