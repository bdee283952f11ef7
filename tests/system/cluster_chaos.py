"""Masters of a Valkey Cluster die, or their slots move, under load; nothing that was acknowledged is lost or doubled.

    python -m tests.system.cluster_chaos --commits 20000 --seed 7     kills masters, ten times in all
    python -m tests.system.cluster_chaos --how hang                   stops them instead, so that nothing answers
    python -m tests.system.cluster_chaos --how plan                   has them change places with their replicas
    python -m tests.system.cluster_chaos --reshard 60                 moves slots of live sessions there and back

Three masters with a replica each, two web processes and two workers; changes wait for a replica. Clients send commands
with idempotency keys, through either web process, until each is acknowledged. Watchers of both web processes have the
newest versions in the end. The same seed chooses the same commands and masters; their timing differs.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import redis
import requests

from syncapp.dev.valkey_node import ValkeyNode
from syncapp.store.keys import slot_tag
from tests.support.cluster_rig import ClusterRig
from tests.support.raw_websocket import CLOSE, PING, PONG, TEXT, ConnectionEnded, RawWebSocket
from tests.support.web_clients import wait_until
from tests.system.chaos import BODIES, Caller, Client, Outcome, joined, wait_drained

SOON_S = 5.0
"""Limit for sessions of a new master to be played and watched again, on a machine that is not busy."""
_TIMEOUT_S = (5, 30)
"""Web processes do not die here, so each request gets an answer."""


class VersionWatcher(threading.Thread):
    """Watches sessions over one WebSocket; keeps the newest order of each, and when it came."""

    def __init__(self, url: str, first: str) -> None:
        super().__init__(name=f"watcher of {url}", daemon=True)
        self._socket = RawWebSocket(url, first)
        assert self._socket.status == 101, self._socket.answer
        self._watched = {first}
        self.orders: dict[str, tuple[int, int]] = {}
        self.arrived_s: dict[tuple[str, int], float] = {}
        self.errors: Counter[str] = Counter()
        self.fault = ""
        self._is_closing = False
        self.start()

    def watch(self, session_ids: Iterable[str]) -> None:
        """Watch further sessions."""
        for session_id in set(session_ids) - self._watched:
            self._watched.add(session_id)
            self._socket.send({"type": "SUBSCRIBE", "session_id": session_id})

    def run(self) -> None:
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    frame = self._socket.next(60)
                    if frame.opcode == TEXT:
                        self._hear(frame.message)
                    elif frame.opcode == PING:
                        self._socket.send(frame.payload, PONG)
                    elif frame.opcode == CLOSE:
                        self.fault = f"closed with {frame.code}"
        except (OSError, ConnectionEnded):
            if not self._is_closing:
                self.fault = self.fault or "the connection was lost"
        except AssertionError as error:
            self.fault = str(error)

    def wait_for(self, versions: dict[str, int]) -> None:
        """Wait until these are the newest versions that it has."""
        end_s = time.monotonic() + 60
        while wrong := {
            name: (self.orders.get(name), version)
            for name, version in versions.items()
            if self.orders.get(name, (0, 0))[1] != version
        }:
            assert not self.fault, self.fault
            assert time.monotonic() < end_s, f"{len(wrong)} states and newest versions: {dict([*wrong.items()][:5])}"
            time.sleep(0.01)

    def close(self) -> None:
        """End the connection and the thread."""
        self._is_closing = True
        with self._socket:
            pass
        self.join(60)
        assert not self.fault, self.fault

    def _hear(self, message: dict[str, object]) -> None:
        state = message.get("state")
        if isinstance(state, dict):
            name, version = state["session_id"], state["version"]
            self.orders[name] = state["epoch"], version
            self.arrived_s.setdefault((name, version), time.monotonic())
        elif message["type"] == "ERROR":
            self.errors[str(message["code"])] += 1


class Probe:
    """A session of one master, with a watcher and a caller at each web process, to measure when it works again."""

    def __init__(self, rig: ClusterRig, master: ValkeyNode, rng: random.Random) -> None:
        self.session_id = next(rig.ids_of(master, rng))
        self.callers = [_ProbeCaller([url], random.Random(rng.random()), _TIMEOUT_S) for url in rig.urls]
        self.callers[0].do("POST", "", BODIES[0] | {"session_id": self.session_id, "idle_timeout_s": 86_400})
        self.callers[0].do("POST", f"/{self.session_id}/start")
        self._watchers = [VersionWatcher(url, self.session_id) for url in rig.urls]
        self._wait_watched(2)
        self._threads = [threading.Thread(target=self._play, args=(each,), daemon=True) for each in self.callers]

    def play(self) -> None:
        """Send a command through each web process until it is accepted."""
        for thread in self._threads:
            thread.start()

    def result(self, kill_s: float, serves_s: float) -> Failover:
        """Wait until both commands are accepted and both watchers have the newest version; return when that was.

        Completes the session.
        """
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "a command was not accepted within 120 s"
        newest = max(version for caller in self.callers for _, _, version, _ in caller.acknowledged)
        self._wait_watched(newest)
        watched_s = [each.arrived_s[self.session_id, newest] for each in self._watchers]
        for watcher in self._watchers:
            watcher.close()
        self.callers[0].do("POST", f"/{self.session_id}/complete")
        return Failover(
            serves_s - kill_s,
            *(
                [max(0.0, each - serves_s) for each in instants]
                for instants in (
                    [caller.reached_s for caller in self.callers],
                    [caller.accepted_s for caller in self.callers],
                    watched_s,
                )
            ),
        )

    def _play(self, caller: _ProbeCaller) -> None:
        caller.reached_s = 0.0
        caller.do("POST", f"/{self.session_id}/switch")
        caller.accepted_s = time.monotonic()
        caller.reached_s = caller.reached_s or caller.accepted_s

    def _wait_watched(self, version: int) -> None:
        wait_until(lambda: all((self.session_id, version) in each.arrived_s for each in self._watchers), within_s=120)


class _ProbeCaller(Caller):
    """Notes when a command first reached a master, even if that had no replica yet, and when it was accepted."""

    reached_s = 0.0
    accepted_s = 0.0

    def heard(self, answer: requests.Response) -> None:
        if answer.json()["error"]["code"] == "NOT_REPLICATED":
            self.reached_s = self.reached_s or time.monotonic()


@dataclass
class Failover:
    """What a failover took.

    promoted_s: from the kill until a replica serves. The next ones are from then on, one for each web process, until a
    command reached the new master, was accepted (a replica had it), and a watcher had the newest version. bystanders_s:
    the longest time that a command on a session of another master took meanwhile until it was accepted.
    """

    promoted_s: float
    reached_s: list[float]
    accepted_s: list[float]
    watched_s: list[float]
    bystanders_s: list[float] = field(default_factory=list)


class Bystander(threading.Thread):
    """Plays a session of a master to which nothing happens, through one web process, until it is told to stop."""

    def __init__(self, url: str, session_id: str, rng: random.Random) -> None:
        super().__init__(name=f"bystander at {url}", daemon=True)
        self.caller = Caller([url], rng, _TIMEOUT_S)
        self.slowest_s = 0.0
        self._path = f"/{session_id}"
        self._stopped = threading.Event()
        self.caller.do("POST", "", BODIES[0] | {"session_id": session_id, "idle_timeout_s": 86_400})
        self.caller.do("POST", f"{self._path}/start")
        self.start()

    def run(self) -> None:
        while not self._stopped.wait(0.02):
            began_s = time.monotonic()
            self.caller.do("POST", f"{self._path}/switch")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    def stop(self) -> float:
        """Complete the session; return the longest time that a command took until it was accepted."""
        self._stopped.set()
        self.join(120)
        self.caller.do("POST", f"{self._path}/complete")
        return self.slowest_s


class Failovers:
    """Replaces one master after another, each when the cluster is whole again, and measures each failover.

    how: `kill` masters; `hang`, stop them, so that nothing answers, and kill them when the replica serves; `plan`, have
    them change places with their replicas.
    """

    def __init__(self, rig: ClusterRig, rng: random.Random, how: str = "kill") -> None:
        self._rig = rig
        self._rng = rng
        self._how = how
        self.done: list[Failover] = []
        self.callers: list[Caller] = []

    def cause(self, count: int) -> None:
        """Replace masters in turn, `count` times."""
        order: list[ValkeyNode] = []
        for _ in range(count):
            masters = self._rig.nodes.masters()
            order = [node for node in order if node in masters] or self._rng.sample(masters, len(masters))
            self._cause_one(order.pop(0))

    def _cause_one(self, master: ValkeyNode) -> None:
        probe = Probe(self._rig, master, self._rng)
        other = next(node for node in self._rig.nodes.masters() if node is not master)
        names = self._rig.ids_of(other, self._rng)
        bystanders = [Bystander(url, next(names), random.Random(self._rng.random())) for url in self._rig.urls]
        self.callers += [*probe.callers, *(each.caller for each in bystanders)]
        (replica,) = self._rig.nodes.replicas_of(master)
        began_s = time.monotonic()
        if self._how == "plan":
            self._rig.nodes.fail_over(replica)
        elif self._how == "hang":
            master.pause()
        else:
            master.kill()
        probe.play()
        serves_s = _wait_served(replica, slot_tag(self._rig.keys.session(probe.session_id)))
        if self._how != "plan":
            master.kill()
            master.start()
        failover = probe.result(began_s, serves_s)
        failover.bystanders_s = [each.stop() for each in bystanders]
        self.done.append(failover)
        self._rig.nodes.wait_ok()


def _wait_served(node: ValkeyNode, tag: str) -> float:
    """Wait until a node accepts a write; return when it did (monotonic s)."""

    def is_set() -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(node.ask("SET", f"probe:{{{tag}}}", "1", "PX", 1000))
        return False

    wait_until(is_set, within_s=120)
    return time.monotonic()


class SlotMoves:
    """SlotMoves slots of live sessions to another master and back."""

    def __init__(self, rig: ClusterRig, rng: random.Random, sessions: Callable[[], list[str]]) -> None:
        self._rig = rig
        self._rng = rng
        self._sessions = sessions
        self.done: Counter[str] = Counter()

    def run(self, atomic_s: float, classic_s: float) -> None:
        """Move slots as Valkey 9 does, all at once, and then key by key."""
        for way, move, for_s in (
            ("atomic", self._rig.nodes.migrate_slots, atomic_s),
            ("classic", self._migrate_keys, classic_s),
        ):
            end_s = time.monotonic() + for_s
            while time.monotonic() < end_s:
                slot = self._rig.slot_of(self._rng.choice(self._sessions()))
                home = self._rig.nodes.node_of_slot(slot)
                other = self._rng.choice([each for each in self._rig.nodes.masters() if each is not home])
                for source, target in ((home, other), (other, home)):
                    move(slot, slot, source, target)
                    self.done[way] += 1
                    time.sleep(self._rng.uniform(0, 0.2))

    def _migrate_keys(self, slot: int, _: int, source: ValkeyNode, target: ValkeyNode) -> None:
        """Move a slot as older servers do: key by key, with both nodes told before and after."""
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        time.sleep(self._rng.uniform(0, 4))  # a slot with more keys takes longer
        for node in (target, source):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        wait_until(lambda: self._rig.nodes.node_of_slot(slot) is target)


@dataclass
class Run:
    """A finished run.

    converged_s: from the last command until all watchers had the newest versions. watchers_errors: what they were told.
    """

    outcome: Outcome
    failovers: list[Failover]
    converged_s: float
    watchers_errors: Counter[str]

    def check(self) -> None:
        """Raise `AssertionError` if something was lost or doubled, or an answer was wrong."""
        self.outcome.check()
        assert not self.outcome.odd, self.outcome.odd[:10]

    def check_speed(self) -> None:
        """Raise `AssertionError` if it took more than `SOON_S` until sessions of a new master worked again."""
        for failover in self.failovers:
            assert max(*failover.accepted_s, *failover.watched_s) <= SOON_S, failover

    def __str__(self) -> str:
        lines = [str(self.outcome), f"everybody knew the newest versions after {self.converged_s:.1f} s"]
        lines.append(f"errors that watchers were told: {dict(self.watchers_errors)}")
        if self.failovers:
            lines.append(_line("kill to promotion", [each.promoted_s for each in self.failovers]))
            for name in ("reached_s", "accepted_s", "watched_s"):
                times = [value for each in self.failovers for value in getattr(each, name)]
                lines.append(_line(f"promotion to {name.removesuffix('_s')}", times))
            lines.append(
                _line("commands of other masters", [each for one in self.failovers for each in one.bystanders_s])
            )
        return "\n".join(lines)


def _line(what: str, times: Sequence[float]) -> str:
    return f"{what}: median {statistics.median(times):.2f} s, maximum {max(times):.2f} s"


def run(
    directory: Path,
    *,
    seed: int,
    commits: int,
    clients: int = 6,
    kills: int = 0,
    how: str = "kill",
    reshard_s: tuple[float, float] = (0, 0),
    node_timeout_ms: int = 1500,
    **env: str,
) -> Run:
    """Kill masters or move slots under load until enough commands are acknowledged; wait until all is drained.

    kills, how: see `Failovers`. reshard_s: how long to move slots at once, and key by key.
    """
    rng = random.Random(seed)
    with ClusterRig(directory, node_timeout_ms=node_timeout_ms, **{"REDIS_MIN_REPLICAS": "1", **env}) as rig:
        failovers = Failovers(rig, rng, how)
        group: list[Client] = []
        may_end = threading.Event()

        def acknowledged() -> int:
            return sum(len(client.caller.acknowledged) for client in group)

        def sessions() -> list[str]:
            return [session_id for client in group for session_id in client.sessions]

        for number in range(clients):
            caller = Caller(rig.urls, random.Random(f"{seed}-{number}-calls"), _TIMEOUT_S)
            group.append(Client(number, seed, caller, may_end.is_set))
        moves = SlotMoves(rig, rng, sessions)
        try:
            with ExitStack() as stack:
                watchers = list[VersionWatcher]()
                with joined(group):
                    try:
                        wait_until(lambda: len(sessions()) == 3 * clients, within_s=120)
                        for url in rig.urls:
                            watchers.append(VersionWatcher(url, sessions()[0]))
                            stack.callback(watchers[-1].close)
                            watchers[-1].watch(sessions())
                        failovers.cause(kills)
                        moves.run(*reshard_s)
                        wait_until(lambda: acknowledged() >= commits, within_s=600)
                    finally:
                        may_end.set()
                ended_s = time.monotonic()
                callers = [*(client.caller for client in group), *failovers.callers]
                newest: dict[str, int] = {}
                for caller in callers[: len(group)]:
                    for name, _, version, _ in caller.acknowledged:
                        newest[name] = max(newest.get(name, 0), version)
                for watcher in watchers:
                    watcher.wait_for(newest)
                converged_s = time.monotonic() - ended_s
                told = sum((each.errors for each in watchers), Counter[str]())
            wait_drained(rig.settings)
            harms = Counter({how: kills} if kills else {}) + moves.done
            return Run(Outcome(rig.settings, callers, harms), failovers.done, converged_s, told)
        except BaseException:
            print(rig.output(), file=sys.stderr)
            raise


def main() -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--how", choices=("kill", "hang", "plan"), default="kill")
    parser.add_argument("--node-timeout-ms", type=int, default=1500)
    parser.add_argument("--reshard", type=float, default=0, help="seconds; no master is killed")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="syncapp-cluster-chaos-") as directory:
        done = run(
            Path(directory),
            seed=chosen.seed,
            commits=chosen.commits,
            clients=chosen.clients,
            kills=0 if chosen.reshard else chosen.kills,
            how=chosen.how,
            node_timeout_ms=20_000 if chosen.reshard else chosen.node_timeout_ms,
            reshard_s=(chosen.reshard, chosen.reshard / 3),
        )
    print(f"{done}\nin {time.monotonic() - began_s:.0f} s", flush=True)
    done.check()
    done.check_speed()
    return 0


if __name__ == "__main__":
    sys.exit(main())
