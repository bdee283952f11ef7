"""All processes die under load, at random; the log has every acknowledged command once, and nothing else.

    make chaos                                           20,000 commits, also of a Valkey that is killed
    python -m tests.system.chaos --commits 3000 --seed 7

Two web processes, a worker, a Valkey that syncs each write and a PostgreSQL, all private. Processes reach both stores
through proxies. Clients send commands with idempotency keys, through either web process, until each is acknowledged.
Meanwhile processes are killed, stopped and continued, connections are cut and replies dropped, several at a time. In
the end nothing is missing or doubled, and every chain, state and total is verified. The same seed chooses the same
commands and faults; their timing differs.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import requests

from syncapp.audit.findings import AuditFault, Fork
from syncapp.audit.verify import VerifyResult, verify
from syncapp.config import Settings
from syncapp.dev.ports import free_port
from syncapp.dev.processes import Process
from syncapp.dev.runner import NO_LIMITS, App, Web, app_env
from syncapp.dev.servers import Servers
from syncapp.history.consistency import Consistency
from syncapp.postgres.schema import upgrade
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.tcp_proxy import TcpProxy

BODIES: list[dict[str, Any]] = [
    {
        "sync_mode": "per_participant",
        "increment_ms": 1000,
        "participants": [{"participant_id": name, "total_time_ms": 86_400_000} for name in ("white", "black")],
    },
    {
        "sync_mode": "per_group",
        "groups": [{"group_id": name, "total_time_ms": 86_400_000} for name in ("red", "blue")],
        "participants": [
            {"participant_id": f"p{number}", "group_id": ("red", "blue")[number % 2]} for number in range(5)
        ],
    },
    # Commits every 1.5 s without commands.
    {"sync_mode": "per_cycle", "time_per_cycle_ms": 1500, "warn_at_ms": [500], "metadata": {"who": "nobody"}},
    {"sync_mode": "count_up", "participants": [{"participant_id": "runner"}]},
]


class Rig:
    """Servers, processes and the proxies between them. A context manager."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self._stack = ExitStack()
        self.servers = self._stack.enter_context(
            Servers(
                directory,
                valkey_options=("--appendfsync", "always"),
                postgres_options=("fsync=off", "full_page_writes=off"),  # the machine itself does not crash here
            )
        )
        assert self.servers.valkey
        assert self.servers.postgres
        self.valkey, self.postgres = self.servers.valkey, self.servers.postgres
        upgrade(self.servers.database_url)
        self.to_valkey = self._stack.enter_context(TcpProxy(self.valkey.port, rng))
        self.to_postgres = self._stack.enter_context(TcpProxy(self.postgres.port, rng))
        env = app_env(
            os.environ,
            self.servers,
            REDIS_URL=f"redis://127.0.0.1:{self.to_valkey.port}/0",
            DATABASE_URL=f"postgresql://postgres@127.0.0.1:{self.to_postgres.port}/postgres",
            HOST="127.0.0.1",
            WEB_CONCURRENCY="1",
            TMPDIR=str(directory),
            REDIS_TIMEOUT_S="1",
            AUDIT_BATCH="50",
            AUDIT_RETRY_DELAY_S="1",
            AUDIT_RETRIES="3",
            AUDIT_CLAIM_IDLE_S="3",
            **NO_LIMITS,
        )
        direct = {"REDIS_URL": self.servers.redis_url, "DATABASE_URL": self.servers.database_url}
        self.settings = Settings.from_env(env | direct)
        self.webs = [
            Web(env | {"PORT": str(free_port())}, directory=directory, output=directory / f"web-{number}.log")
            for number in range(2)
        ]
        self.worker = App("worker", env, directory=directory, output=directory / "worker.log")
        self.processes: list[Process] = [*self.webs, self.worker, self.postgres, self.valkey]
        for process in (*self.webs, self.worker):
            self._stack.callback(process.stop)
            process.spawn()
        for web in self.webs:
            web.wait_ready()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes:
            process.unpause()
        self._stack.close()

    def caller(self, seed: str) -> Caller:
        """Return a caller of both web processes."""
        return Caller([web.url for web in self.webs], random.Random(seed))


class Caller:
    """Sends commands with idempotency keys, each again and again until it is acknowledged.

    urls: base URLs of web processes, one of which is chosen at random. timeout_s: to connect, and to get an answer.
    acknowledged: session, epoch, version and event of each command. refused: answers that a repetition does not change.
    odd: lost answers, and other failures than a 503 with `Retry-After`.
    """

    def __init__(self, urls: Sequence[str], rng: random.Random, timeout_s: tuple[float, float] = (1, 3)) -> None:
        self._urls = urls
        self._rng = rng
        self._timeout_s = timeout_s
        self._http = requests.Session()
        self.acknowledged: list[tuple[str, int, int, str]] = []
        self.tries = 0
        self.replays = 0
        self.refused: list[str] = []
        self.odd: list[str] = []

    def do(self, method: str, path: str, body: Any = None) -> None:
        """Send a command to `/v1/sessions` and what follows that, until it is acknowledged or refused."""
        headers = {"Idempotency-Key": f"{self._rng.getrandbits(64):x}", "Prefer": "return=minimal"}
        while True:
            self.tries += 1
            url = f"{self._rng.choice(self._urls)}/v1/sessions{path}"
            try:
                answer = self._http.request(method, url, json=body, headers=headers, timeout=self._timeout_s)
                if answer.status_code < 300:
                    self.replays += "Idempotency-Replayed" in answer.headers
                    data = answer.json()["data"]
                    self.acknowledged.append(
                        (data["session_id"], data["epoch"], data["version"], data["event"]["type"])
                    )
                    return
                told = f"{method} {path}: {answer.status_code} {answer.text[:300]}"
                if answer.status_code < 500:
                    self.refused.append(told)
                    return
                if answer.status_code != 503 or "Retry-After" not in answer.headers:
                    self.odd.append(told)
                self.heard(answer)
            except (requests.RequestException, ValueError, KeyError) as error:
                self.odd.append(f"{method} {path}: {error!r}"[:300])  # no answer, or an incomplete one
            time.sleep(self._rng.uniform(0.02, 0.2))

    def heard(self, answer: requests.Response) -> None:
        """Note the answer to an attempt that failed."""


class Client(threading.Thread):
    """A client that plays its own sessions until `enough`, and then completes them."""

    def __init__(self, number: int, seed: int, caller: Caller, enough: Callable[[], bool]) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self._rng = random.Random(f"{seed}-{number}")
        self._enough = enough
        self._number = number
        self.caller = caller
        self.sessions: list[str] = []

    def run(self) -> None:
        for place in range(3):
            self.sessions.append(self._made(BODIES[(self._number + place) % len(BODIES)]))
        while not self._enough():
            session_id = self._rng.choice(self.sessions)
            for command, body in self._draw_commands():
                self.caller.do("POST" if command else "PATCH", f"/{session_id}/{command}".rstrip("/"), body)
        for session_id in self.sessions:
            self.caller.do("POST", f"/{session_id}/complete")

    def _made(self, body: dict[str, Any]) -> str:
        session_id = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        self.caller.do("POST", "", body | {"session_id": session_id, "idle_timeout_s": 86_400})
        self.caller.do("POST", f"/{session_id}/start")
        return session_id

    def _draw_commands(self) -> list[tuple[str, Any]]:
        """Return commands that leave a running session running."""
        choice = self._rng.random()
        if choice < 0.1:
            return [("pause", None), ("resume", None)]
        if choice < 0.2:
            return [("", {"metadata": {"round": self._rng.randrange(1000), "odd": "é\\\n\t"}})]
        return [("switch", None)] * self._rng.randrange(1, 5)


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault: its target, and a function that causes the fault and repairs it after a while."""

    name: str
    victim: object
    do: Callable[[float], None]


def _kill(process: Process) -> Callable[[float], None]:
    def kill(for_s: float) -> None:
        process.kill()
        time.sleep(for_s)
        process.spawn()

    return kill


def _freeze(process: Process) -> Callable[[float], None]:
    def freeze(for_s: float) -> None:
        process.pause()
        time.sleep(for_s)
        process.unpause()

    return freeze


def _cut(proxy: TcpProxy) -> Callable[[float], None]:
    def cut(for_s: float) -> None:
        end_s = time.monotonic() + for_s
        while time.monotonic() < end_s:
            proxy.cut(0.5)
            time.sleep(0.05)

    return cut


def fault_kinds(rig: Rig, *, kill_valkey: bool) -> list[FaultKind]:
    """Return all kinds of faults."""
    killed = [("worker", rig.worker), ("web", rig.webs[0]), ("web", rig.webs[1]), ("PostgreSQL", rig.postgres)]
    valkey: tuple[str, Process] = ("Valkey", rig.valkey)
    return [
        *(FaultKind(f"kill {name}", process, _kill(process)) for name, process in killed + [valkey] * kill_valkey),
        *(FaultKind(f"stop {name}", process, _freeze(process)) for name, process in [*killed, valkey]),
        FaultKind("cut from Valkey", rig.to_valkey, _cut(rig.to_valkey)),
        FaultKind("cut from PostgreSQL", rig.to_postgres, _cut(rig.to_postgres)),
        FaultKind("drop Valkey's replies", rig.to_valkey, rig.to_valkey.drop_replies),
        FaultKind("drop PostgreSQL's replies", rig.to_postgres, rig.to_postgres.drop_replies),
    ]


class Monkey:
    """Causes and repairs faults: on several targets at a time, but one fault per target."""

    def __init__(self, rig: Rig, rng: random.Random, *, kill_valkey: bool) -> None:
        self._rng = rng
        self._harms = fault_kinds(rig, kill_valkey=kill_valkey)
        self._locks = {id(harm.victim): threading.Lock() for harm in self._harms}
        self.done: Counter[str] = Counter()
        self.failed: list[Exception] = []

    def run(self, enough: Callable[[], bool]) -> None:
        """Cause each kind of fault once, in random order, and then random ones until `enough`."""
        order = self._rng.sample(self._harms, len(self._harms))
        threads = []
        while not enough() or order:
            harm = order.pop() if order else self._rng.choice(self._harms)
            self.done[harm.name] += 1
            threads.append(threading.Thread(target=self._do, args=(harm, self._rng.uniform(0.05, 1.5))))
            threads[-1].start()
            time.sleep(self._rng.uniform(0.1, 1.5))
        for thread in threads:
            thread.join()
        assert not self.failed, self.failed

    def _do(self, harm: FaultKind, for_s: float) -> None:
        try:
            with self._locks[id(harm.victim)]:
                harm.do(for_s)
        except Exception as error:  # noqa: BLE001 told by the thread that waits for this one
            self.failed.append(error)


class Outcome:
    """The log compared with the acknowledged commands, and with the store.

    harms: how many faults of each kind there were. dropped: replies that a proxy dropped.
    """

    def __init__(self, settings: Settings, callers: Sequence[Caller], harms: Counter[str], dropped: int = 0) -> None:
        self.acknowledged = [each for caller in callers for each in caller.acknowledged]
        self.refused = [each for caller in callers for each in caller.refused]
        self.odd = [each for caller in callers for each in caller.odd]
        self.tries = sum(caller.tries for caller in callers)
        self.replays = sum(caller.replays for caller in callers)
        self.harms = harms
        self.dropped = dropped
        with closing(psycopg2.connect(settings.database_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT session_id::text, epoch, version, event_type, actor FROM sync_events")
            self.logged = cursor.fetchall()
            cursor.execute("SELECT kind, error FROM sync_dead_letters")
            self.letters = cursor.fetchall()
        self.checked = VerifyResult()
        self.faults: list[AuditFault | Fork] = list(verify(settings.database_url, self.checked))
        with connect(settings) as client:
            self.faults += Consistency(client, Keyspace(settings.sync_buckets), settings.database_url).compare()
            names = sorted({each[0] for each in self.acknowledged})
            found, _ = SessionStore(client, settings).summaries(names)
        self.stored = {name: each.version if each else 0 for name, each in zip(names, found, strict=True)}

    def check(self) -> None:
        """Raise `AssertionError` unless the log has each acknowledged command once, and nothing else."""
        assert not self.refused, self.refused[:5]
        by_clients = Counter(tuple(row[:4]) for row in self.logged if row[4] == "client")
        told = Counter(self.acknowledged)
        assert not told - by_clients, f"missing: {list((told - by_clients).items())[:5]}"
        assert not by_clients - told, f"not acknowledged: {list((by_clients - told).items())[:5]}"
        assert max(told.values()) == 1, "one commit was acknowledged to two commands"
        assert max(Counter(row[:3] for row in self.logged).values()) == 1
        assert self.stored == Counter(row[0] for row in self.logged)
        assert not self.letters, self.letters[:5]
        assert not self.faults, [str(fault) for fault in self.faults[:5]]
        assert self.checked.events == len(self.logged)

    def __str__(self) -> str:
        harms = ", ".join(f"{name} {count}" for name, count in sorted(self.harms.items()))
        return (
            f"{len(self.logged)} commits, {len(self.acknowledged)} of them acknowledged commands in {self.tries} tries;"
            f" {self.replays} answers were replays, {self.dropped} replies were dropped\n"
            f"{sum(self.harms.values())} faults: {harms}\n"
            f"verified {self.checked.events} events of {self.checked.sessions} sessions: {len(self.faults)} faults,"
            f" {len(self.letters)} dead letters"
        )


@contextmanager
def joined(clients: list[Client]) -> Iterator[None]:
    """Start the clients, and wait until they have ended."""
    for client in clients:
        client.start()
    yield
    for client in clients:
        client.join(120)
        assert not client.is_alive(), f"{client.name} was never answered"


def run(directory: Path, *, seed: int, commits: int, clients: int = 8, kill_valkey: bool = False) -> Outcome:
    """Cause faults under load until enough commands are acknowledged; then wait until all events are drained."""
    rng = random.Random(seed)
    with Rig(directory, rng) as rig:
        monkey = Monkey(rig, rng, kill_valkey=kill_valkey)
        group: list[Client] = []
        may_end = threading.Event()

        def enough() -> bool:
            return sum(len(client.caller.acknowledged) for client in group) >= commits

        group += [
            Client(number, seed, rig.caller(f"{seed}-{number}-calls"), lambda: enough() and may_end.is_set())
            for number in range(clients)
        ]
        try:
            with joined(group):
                monkey.run(enough)
                may_end.set()
            wait_drained(rig.settings)
        except BaseException:
            for process in rig.processes:
                print(f"--- {process.name}\n{process.output()[-3000:]}", file=sys.stderr)
            raise
        dropped = rig.to_valkey.dropped + rig.to_postgres.dropped
        return Outcome(rig.settings, [client.caller for client in group], monkey.done, dropped)


def wait_drained(settings: Settings) -> None:
    """Wait until the outboxes are empty; all sessions are over."""
    keys = Keyspace(settings.sync_buckets)
    with connect(settings) as client:
        end_s = time.monotonic() + 120
        while sum(client.xlen(keys.outbox(bucket)) for bucket in range(keys.buckets)):
            assert time.monotonic() < end_s, "the outboxes did not empty"
            time.sleep(0.1)


def main() -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="syncapp-chaos-") as directory:
        outcome = run(
            Path(directory), seed=chosen.seed, commits=chosen.commits, clients=chosen.clients, kill_valkey=True
        )
    print(f"{outcome}\nin {time.monotonic() - began_s:.0f} s", flush=True)
    outcome.check()
    return 0


if __name__ == "__main__":
    sys.exit(main())
