"""Where the web process listens: HOST and PORT as gunicorn, sockets and URLs write them."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from syncapp.config import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An IP address of this machine, without brackets, and a port."""

    address: str
    port: int

    @classmethod
    def of(cls, settings: Settings) -> ListenAddress:
        """Return the address of HOST and PORT; a name is looked up, IPv4 first.

        Raises `SettingsError` if this machine has no such address.
        """
        try:
            address = str(ipaddress.ip_address(settings.host))
        except ValueError:
            address = _looked_up(settings.host, settings.port)
        listening = cls(address, settings.port)
        try:
            with socket.socket(listening.family) as probe:
                probe.bind((address, 0))
        except OSError as error:
            raise SettingsError(f"HOST cannot be listened on: {error.strerror}") from None
        return listening

    @property
    def family(self) -> socket.AddressFamily:
        """The address family of its sockets."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    @property
    def bind(self) -> str:
        """Address and port in gunicorn's form."""
        return f"{_bracketed(self.address)}:{self.port}"

    @property
    def reached_at(self) -> str:
        """The address at which this machine reaches it: loopback if it listens on all addresses."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address, self.address)  # noqa: S104 compares only, binds nothing

    @property
    def url(self) -> str:
        """The base URL at which this machine reaches it."""
        return f"http://{_bracketed(self.reached_at)}:{self.port}"


def _looked_up(name: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"HOST is not known to this machine: {why}") from None
    return str(min(found, key=lambda each: each[0] != socket.AF_INET)[4][0])


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
