"""Client addresses in one form, whatever notation a proxy uses, and the groups by which limits count."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Address = IPv4Address | IPv6Address

UNKNOWN = "unknown"
"""The group of clients whose address cannot be read."""
_MAX_LENGTH = 128
_BRACKETED = re.compile(r"\[([^\[\]]+)\](?::[\w.-]*)?\Z", re.ASCII)
_V4_WITH_PORT = re.compile(r"([0-9.]+):[\w.-]*\Z", re.ASCII)
_PREFIX = 64
_NAT64 = IPv6Network("64:ff9b::/96")


def parse(text: str) -> Address | None:
    """Read an address in any notation that proxies use; None if it is not an address.

    Ports, brackets, quotes, spaces and zones are removed. An IPv6 address that stands for an IPv4 address
    (`::ffff:192.0.2.1`, `64:ff9b::192.0.2.1`) is returned as that IPv4 address.
    """
    if len(text) > _MAX_LENGTH:
        return None
    text = text.strip(" \t").removeprefix('"').removesuffix('"').strip(" \t")
    if match := _BRACKETED.match(text) or _V4_WITH_PORT.match(text):
        text = match[1]
    try:
        address = ip_address(text.split("%", 1)[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return IPv6Address(int(address))  # without its zone
    return address


@lru_cache(maxsize=4096)
def group_of(text: str) -> str:
    """Return the group in which limits count an address: the IPv4 address, the IPv6 /64 network, or `unknown`."""
    address = parse(text)
    if address is None:
        return UNKNOWN
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address), _PREFIX), strict=False))


def client_of(forwarded: str | None, hops: int, peer: str) -> str:
    """Return a client's address: the entry that the outermost of `hops` trusted proxies has added.

    forwarded: `X-Forwarded-For`. peer: the other end of the connection. It is returned if no entry can be trusted: with
    fewer entries than hops the request did not pass all proxies, so that anybody may have written the entries; and an
    entry that is not an address (`unknown`, `_hidden`) must not get its own group.
    """
    # Split at commas only, from the right: an unclosed quote of the client must not hide what proxies add.
    entries = forwarded.rsplit(",", hops) if forwarded and hops else []
    address = parse(entries[-hops]) if entries and len(entries) >= hops else None
    return str(address) if address else peer


class ForwardedFor:
    """WSGI middleware that replaces the proxy's address with the client's."""

    def __init__(self, app: WSGIApplication, hops: int) -> None:
        self._app: Callable[..., Iterable[bytes]] = app
        self._hops = hops

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        """Pass a request on."""
        peer = environ.get("REMOTE_ADDR", "")
        environ["REMOTE_ADDR"] = client_of(environ.get("HTTP_X_FORWARDED_FOR"), self._hops, peer)
        return self._app(environ, start_response)
