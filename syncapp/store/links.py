"""The links of sessions, and the ids of revoked ones, which all processes read.

The store has what a list of links shows, but not their tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
import redis
from msgspec import Struct
from msgspec.structs import asdict, replace

from syncapp.domain.link_ids import MAX_LIFETIME_S, epoch_of
from syncapp.domain.session_ids import tenant_of
from syncapp.errors import TooManyLinks
from syncapp.store.bucket_record import BucketGuard
from syncapp.store.client import TRANSLATION, call_all
from syncapp.store.connection_pool import even_if_full, packed, pool_of
from syncapp.store.key_scan import KeyScan
from syncapp.store.keys import Keyspace
from syncapp.store.replication import Replication

MAX_LINKS = 1000
"""Maximum unexpired links of one session, revoked ones included: that bounds what processes keep of revoked ones."""
PAGE = 1000
"""Maximum revocations that one call reads."""


class Link(Struct, frozen=True):
    """A link, without its token.

    created_s, expires_s: in s since 1970, the former with milliseconds. created_by: the principal's id, '' if erased.
    """

    jti: str
    scope: str
    created_s: float
    expires_s: int
    created_by: str = ""
    participant_id: str | None = None
    label: str | None = None
    revoked: bool = False


class Revocation(Struct, frozen=True):
    """A revoked token: its place among all revocations, its id, and when it expires (s since 1970)."""

    position: str
    jti: str
    expires_s: float


class LinkStore:
    """Lists and revokes links. All methods raise `StoreUnavailable`.

    replication: what new and revoked links wait for; by default nothing. guard: refuses what concerns one session while
    the store has other buckets.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keyspace,
        replication: Replication | None = None,
        guard: BucketGuard | None = None,
    ) -> None:
        self._pool = pool_of(client)
        self._keys = keys
        self._replication = replication or Replication(client)
        self._require_buckets: Callable[[], None] = guard.require if guard else lambda: None

    def add(self, session_id: str, link: Link) -> None:
        """Record a new link. Raises `TooManyLinks`."""
        known = self._read(session_id)
        if len(known) >= MAX_LINKS:
            message = f"this session has {MAX_LINKS} links that have not expired, the maximum; revoked ones count"
            raise TooManyLinks(message, {"limit": MAX_LINKS})
        key, until_s = self._keys.links(session_id), max(each.expires_s for each in [*known, link])
        self._commit(packed("HSET", key, link.jti, _text(link)), packed("PEXPIREAT", key, until_s * 1000))

    def links_of(self, session_id: str, epoch: int) -> list[Link]:
        """Return the links of a session in this epoch that neither expired nor were revoked, oldest first."""
        return [each for each in self._read(session_id) if not each.revoked and epoch_of(each.jti) == epoch]

    def revoke(self, session_id: str, links: Sequence[Link]) -> None:
        """Revoke links of a session; a full store accepts it, too."""
        if not links:
            return
        self._require_buckets()
        self.add_revoked((each.jti, each.expires_s) for each in links)
        # This only changes the list. If it fails, the list shows links that do not work any more.
        texts = [part for each in links for part in (each.jti, _text(replace(each, revoked=True)))]
        self._call(even_if_full("HSET", self._keys.links(session_id), *texts))

    def add_revoked(self, ids: Iterable[tuple[str, float]]) -> None:
        """Tell all processes that tokens are revoked: the id and expiry (s) of each."""
        oldest_ms = max(0, round((time.time() - MAX_LIFETIME_S) * 1000))
        head = (self._keys.revoked(), "MINID", "~", oldest_ms, "*")
        commands = [even_if_full("XADD", *head, "jti", jti, "exp", round(expires_s)) for jti, expires_s in ids]
        for first in range(0, len(commands), PAGE):
            self._commit(*commands[first : first + PAGE])

    def revoked_from(self, position: str) -> list[Revocation]:
        """Return revocations from a position on, this one included; '' for the first one. At most `PAGE`."""
        command = packed("XRANGE", self._keys.revoked(), position or "-", "+", "COUNT", PAGE)
        (entries,) = self._call(command)
        named = [(place, dict(zip(fields[::2], fields[1::2], strict=True))) for place, fields in entries]
        return [Revocation(place, fields["jti"], float(fields["exp"])) for place, fields in named]

    def forget(self, session_id: str) -> None:
        """Forget the links of an erased session. They end with it: a link belongs to one life of a session."""
        self._require_buckets()
        mark = self._keys.outbox(self._keys.bucket(session_id))
        self._commit(packed("DEL", self._keys.links(session_id)), mark=mark)

    def forget_creator(self, tenant: str, sub: str) -> int:
        """Remove a principal, and the labels that it gave, from a tenant's links; return how many links had it.

        Scans all keys.
        """
        count, scan = 0, KeyScan(self._pool, self._keys.all_links(), PAGE)
        while not scan.is_complete:
            for session_id in filter(None, map(self._keys.links_session_of, scan.next())):
                if tenant_of(session_id) != tenant:
                    continue
                named = [each for each in self._read(session_id) if each.created_by == sub]
                texts = [part for each in named for part in (each.jti, _text(replace(each, created_by="", label=None)))]
                if texts:
                    self._call(packed("HSET", self._keys.links(session_id), *texts))
                count += len(named)
        return count

    def _read(self, session_id: str) -> list[Link]:
        """Return all links that have not expired, oldest first; remove the others."""
        self._require_buckets()
        key, now_s = self._keys.links(session_id), time.time()
        (fields,) = self._call(packed("HGETALL", key))
        links = [Link(jti=jti, **orjson.loads(text)) for jti, text in zip(fields[::2], fields[1::2], strict=True)]
        if expired := [each.jti for each in links if each.expires_s <= now_s]:
            self._call(packed("HDEL", key, *expired))
        return sorted((each for each in links if each.expires_s > now_s), key=lambda each: (each.created_s, each.jti))

    def _commit(self, *commands: bytes, mark: str = "") -> None:
        """Send changes; mark: a key to write to, if they perhaps write nothing. Raises `NotReplicated`."""
        with TRANSLATION:
            replies, replicas = self._replication.call(*commands, mark=mark)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            self._replication.check(replicas)

    def _call(self, *commands: bytes) -> list[Any]:
        return call_all(self._pool, commands)


def _text(link: Link) -> bytes:
    return orjson.dumps({name: value for name, value in asdict(link).items() if value and name != "jti"})
