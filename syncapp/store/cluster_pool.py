"""The connections of a process to a cluster: one pool for each master, and the way of a command to the right one.

A command goes to the master that has the slot of its key. A reply MOVED or ASK names another node, and TRYAGAIN and
CLUSTERDOWN ask for patience: the command did not run, so it is sent again. Nothing else is repeated.

redis-py's own commands take the same way, by connections that are none (`ClusterLine`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import redis
from redis import exceptions

from syncapp.store.cluster_line import ClusterLine
from syncapp.store.command_keys import key_of, name_of
from syncapp.store.connection_pool import ConnectionPool, packed
from syncapp.store.failover import Server
from syncapp.store.topology import Address, Topology

_DID_NOT_RUN = ("MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN ")
_MAX_MOVES = 5
_PAUSE_S = 0.02
_REFUSED_S = 1.0
_SILENT_S = 5.0
"""How long background work leaves a node alone that could not be reached, or did not reply in time."""
_ASKING = packed("ASKING")


class _Node(Server):
    """A node of a cluster. Its replies MOVED and ASK concern a slot, and not the connections to it."""

    def leave(self, generation: int) -> None:
        """Do nothing."""


class _Unit:
    """A command with a key, and those that follow it to the same node: without a key, or confirmed by the same WAIT.

    slot: None if no command has a key. asked: the node that an ASK names, for the next attempt.
    """

    def __init__(self, position: int, slot: int | None) -> None:
        self.position = position
        self.slot = slot
        self.commands: list[bytes] = []
        self.asked: Address | None = None
        self.moves = 0

    def words(self) -> list[bytes]:
        """Return the commands to send: ASKING holds for the one command after it."""
        return [word for command in self.commands for word in (_ASKING, command)] if self.asked else self.commands


class ClusterPool(redis.ConnectionPool):
    """The pools of all masters, each of up to `max_connections` connections; used like a `ConnectionPool`."""

    is_cluster = True

    def __init__(self, topology: Topology, *, wait_s: float, max_connections: int, **options: Any) -> None:
        self.topology = topology
        self._wait_s = wait_s
        self._options = options
        self._making = threading.Lock()
        self._pools: dict[Address, ConnectionPool] = {}
        self._silent_until_s: dict[Address, float] = {}
        super().__init__(max_connections=max_connections, **options)

    def batch_calls(self) -> None:
        """Do nothing: commands to a cluster are sent by themselves."""

    def call(self, *commands: bytes) -> list[Any]:
        """Send packed commands, in one round trip to each node; return the replies, including errors.

        Raises redis-py's `ConnectionError` and `TimeoutError`; then it is unknown whether the commands ran.
        """
        if len(commands) == 1 and (key := key_of(commands[0])) is not None:
            # The usual case, without what several nodes and redirections need.
            replies = self._call_node(self.topology.owner(self.topology.slot_of(key)), commands)
            if not isinstance(replies[0], exceptions.ResponseError) or not str(replies[0]).startswith(_DID_NOT_RUN):
                return replies
        replies, failure = self._call(commands, raw=False)
        if failure:
            raise failure
        return replies

    def call_each(self, *commands: bytes) -> list[Any]:
        """Do the same, but let the error of a node that fails stand in place of its replies.

        It is for background work: a node that has just failed is not asked again, so that it does not delay the others.
        """
        return self._call(commands, raw=False, skips_silent=True)[0]

    def call_raw(self, *commands: bytes) -> list[Any]:
        """Do the same as `call` for redis-py; the replies are bytes unless the pool decodes them."""
        raw = not self.connection_kwargs.get("decode_responses")
        if name_of(commands[0]) == b"SCRIPT":
            return self._load(commands, raw=raw)
        replies, failure = self._call(commands, raw=raw)
        if failure:
            raise failure
        return replies

    def _load(self, commands: Sequence[bytes], *, raw: bool) -> list[Any]:
        """Load scripts into all masters that reply, and return the replies of one. Raises an error if none does."""
        replies: list[Any] = []
        failure: Exception | None = None
        for address in self.topology.masters():
            try:
                replies = self._call_node(address, commands, raw=raw)
            except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
                failure = error
        if failure and not replies:
            raise failure
        return replies

    def nodes(self) -> list[ConnectionPool]:
        """Return the pools of all masters. Raises redis-py's `ConnectionError` if the topology cannot be read."""
        return [self._pool(address) for address in self.topology.masters()]

    def by_node(self, keys: Iterable[str]) -> list[tuple[ConnectionPool, list[int]]]:
        """Return the pool of each master that has some of the keys, and the positions of these among the keys."""
        positions: dict[Address, list[int]] = {}
        for position, key in enumerate(keys):
            positions.setdefault(self.topology.owner(self.topology.slot_of(key.encode())), []).append(position)
        return [(self._pool(address), found) for address, found in positions.items()]

    def awake(self, keys: Sequence[str]) -> Sequence[str]:
        """Return the keys on masters that have not just failed to reply; all if there are none."""
        owners = {key: self.home(key) for key in keys}
        return [key for key, owner in owners.items() if owner and not self._is_silent(owner)] or keys

    def is_silent(self, node: ConnectionPool) -> bool:
        """Return whether a node has just failed to reply."""
        return any(pool is node and self._is_silent(address) for address, pool in self._pools.items())

    def is_away(self, key: str) -> bool:
        """Return whether the master that has a key has just failed to reply."""
        owner = self.home(key)
        return owner is not None and self._is_silent(owner)

    def home(self, key: str) -> Address | None:
        """Return the address of the master that has a key, as far as it is known."""
        return self.topology.known_owner(self.topology.slot_of(key.encode()))

    def grow(self, max_connections: int) -> None:
        """Raise the maximum number of connections to each node."""
        with self._making:
            self.max_connections = max(self.max_connections, max_connections)
            for pool in self._pools.values():
                pool.grow(max_connections)

    def reset(self) -> None:
        """Forget all connections; redis-py calls this in `__init__` and after a fork."""
        super().reset()
        self._pools = {}

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """Return a line for redis-py, which sends each of its commands to the right node."""
        return ClusterLine(self.call_raw)

    def release(self, connection: Any) -> None:
        """Accept a line back; it holds nothing."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections to all nodes."""
        for pool in list(self._pools.values()):
            pool.disconnect(inuse_connections)

    def _call(
        self, commands: Sequence[bytes], *, raw: bool, skips_silent: bool = False
    ) -> tuple[list[Any], Exception | None]:
        """Return the replies, an error in place of each that is missing, and the first error of a node."""
        replies: list[Any] = [None] * len(commands)
        failure: Exception | None = None
        pending, until_s = self._units(commands), time.monotonic() + self._wait_s
        pause_s = 0.0
        while pending:
            if pause_s:
                time.sleep(pause_s)
            again: list[_Unit] = []
            by_owner, lost = self._by_owner(pending)
            for unit, error in lost:
                failure = failure or error
                replies[unit.position : unit.position + len(unit.commands)] = [error] * len(unit.commands)
            for address, units in by_owner.items():
                sent = [command for unit in units for command in unit.words()]
                try:
                    found = self._call_node(address, sent, raw=raw, skips_silent=skips_silent)
                except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
                    failure = failure or error
                    found = [error] * len(sent)
                for unit in units:
                    mine, found = found[: len(unit.words())], found[len(unit.words()) :]
                    mine = mine[1::2] if unit.asked else mine
                    if self._must_repeat(unit, mine[0], time.monotonic() < until_s):
                        again.append(unit)
                    else:
                        replies[unit.position : unit.position + len(mine)] = mine
            pending, pause_s = again, min(0.2, 2 * pause_s or _PAUSE_S)
        return replies, failure

    def _call_node(
        self, address: Address, commands: Sequence[bytes], *, raw: bool = False, skips_silent: bool = False
    ) -> list[Any]:
        """Send commands to a node; note it if the node does not reply. Raises redis-py's errors.

        skips_silent: raise one at once if the node has just failed to reply.
        """
        if skips_silent and self._is_silent(address):
            raise exceptions.ConnectionError("the node has just failed to reply")
        try:
            replies = self._pool(address).call(*commands, raw=raw)
        except exceptions.MaxConnectionsError:  # that is this process's own affair
            raise
        except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
            pause_s = _SILENT_S if isinstance(error, exceptions.TimeoutError) else _REFUSED_S
            self._silent_until_s[address] = time.monotonic() + pause_s
            self.topology.suspect()
            raise
        if self._silent_until_s:
            self._silent_until_s.pop(address, None)
        return replies

    def _units(self, commands: Sequence[bytes]) -> list[_Unit]:
        units: list[_Unit] = []
        # What a WAIT confirms goes with it. Sent apart, the WAIT could be answered first, or by another node.
        is_confirmed = bool(commands) and name_of(commands[-1]) == b"WAIT"
        for position, command in enumerate(commands):
            key = key_of(command)
            slot = None if key is None else self.topology.slot_of(key)
            if not units or (key is not None and not (is_confirmed and slot == units[-1].slot)):
                units.append(_Unit(position, slot))
            units[-1].commands.append(command)
        return units

    def _by_owner(
        self, units: Sequence[_Unit]
    ) -> tuple[dict[Address, list[_Unit]], list[tuple[_Unit, exceptions.RedisError]]]:
        """Return the units by the node that they go to, and those whose node is not known, with the reason."""
        found: dict[Address, list[_Unit]] = {}
        lost = []
        for unit in units:
            try:
                found.setdefault(self._address(unit), []).append(unit)
            except exceptions.RedisError as error:
                lost.append((unit, error))
        return found, lost

    def _address(self, unit: _Unit) -> Address:
        if unit.asked:
            return unit.asked
        return self._any_master() if unit.slot is None else self.topology.owner(unit.slot)

    def _any_master(self) -> Address:
        """Return the first master, if possible one that has not just failed to reply."""
        masters = self.topology.masters()
        return next((each for each in masters if not self._is_silent(each)), masters[0])

    def _is_silent(self, address: Address) -> bool:
        return time.monotonic() < self._silent_until_s.get(address, 0.0)

    def _must_repeat(self, unit: _Unit, reply: Any, has_time: bool) -> bool:
        """Return whether a reply shows that the command did not run and another attempt may; prepare that."""
        unit.asked = None
        if not isinstance(reply, exceptions.ResponseError):
            return False
        code, _, rest = str(reply).partition(" ")
        match code:
            case "MOVED" | "ASK":
                # While keys are moved one by one, ASK and TRYAGAIN take turns until the slot has moved.
                unit.moves += code == "MOVED"
                target = exceptions.MovedError(rest)
                if code == "MOVED":
                    self.topology.moved(target)
                else:
                    unit.asked = (target.host, target.port)
                return unit.moves <= _MAX_MOVES and has_time
            case "TRYAGAIN" | "CLUSTERDOWN":
                self.topology.suspect()
                return has_time
        return False

    def _pool(self, address: Address) -> ConnectionPool:
        pool = self._pools.get(address)
        if pool is None:
            with self._making:
                pool = self._pools.get(address)
                if pool is None:
                    host, port = address
                    options = {**self._options, "host": host, "port": port}
                    pool = self._pools[address] = ConnectionPool(
                        server=_Node(), wait_s=self._wait_s, max_connections=self.max_connections, **options
                    )
        return pool
