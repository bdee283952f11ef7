"""Client addresses: one client is one group, however its address is written; invalid addresses share a group."""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
import redis as redis_py
from hypothesis import given
from hypothesis import strategies as st

from syncapp import create_app
from syncapp.access.client_address import UNKNOWN, client_of, group_of, parse
from syncapp.errors import RateLimited
from syncapp.server.admission import ConnectionQuotas
from tests.support.store import make_settings

NAT64 = IPv6Network("64:ff9b::/96")
V4 = st.integers(0, 2**32 - 1).map(IPv4Address)


def is_plain(address: IPv6Address) -> bool:
    """Whether it stands for no IPv4 address."""
    return address.ipv4_mapped is None and address not in NAT64


V6 = st.integers(0, 2**128 - 1).map(IPv6Address).filter(is_plain)
PORTS = st.one_of(st.just(""), st.integers(0, 65535).map(lambda port: f":{port}"), st.just(":_hidden"))
ZONES = st.sampled_from(["", "%eth0", "%25en1", "%1"])
AROUND = st.sampled_from(["{}", " {}", "{}  ", '"{}"', ' "{}" ', "\t{}"])


@st.composite
def forms_of_v4(draw: st.DrawFn, address: IPv4Address) -> str:
    mapped = IPv6Address((0xFFFF << 32) | int(address))
    embedded = IPv6Address(int(IPv6Address("64:ff9b::")) | int(address))
    forms = [f"{address}{draw(PORTS)}", f"[{address}]{draw(PORTS)}", str(mapped), f"::FFFF:{address}"]
    forms += [f"[::ffff:{address}]{draw(PORTS)}", f"0:0:0:0:0:ffff:{address}", mapped.exploded, str(embedded)]
    return draw(AROUND).format(draw(st.sampled_from(forms)))


@st.composite
def forms_of_v6(draw: st.DrawFn, address: IPv6Address) -> str:
    text = draw(st.sampled_from([str(address), address.exploded, str(address).upper(), address.exploded.upper()]))
    zoned = text + draw(ZONES)
    return draw(AROUND).format(draw(st.sampled_from([zoned, f"[{zoned}]{draw(PORTS)}"])))


@given(V4, st.data())
def test_an_ipv4_address_is_one_group_in_every_form(address: IPv4Address, data: st.DataObject) -> None:
    assert group_of(data.draw(forms_of_v4(address))) == str(address)


@given(V6, V6, st.data())
def test_an_ipv6_address_is_its_network_of_64_bits_in_every_form(
    address: IPv6Address, other: IPv6Address, data: st.DataObject
) -> None:
    neighbour = IPv6Address((int(address) >> 64 << 64) | (int(other) & (2**64 - 1)))
    network = str(IPv6Network((int(address), 64), strict=False))
    assert group_of(data.draw(forms_of_v6(address))) == network
    if is_plain(neighbour):
        assert group_of(data.draw(forms_of_v6(neighbour))) == network
    apart = IPv6Address(int(address) ^ (1 << 64))
    if is_plain(apart):
        assert group_of(str(apart)) != network


NO_ADDRESSES = [
    "", " ", "unknown", "_hidden", "_SEVKISEK", "for=192.0.2.1", "192.0.2", "192.0.2.256", "01.2.3.4", "1.2.3.4.",
    "::g", "[::1", "::1]", "192.0.2.1:80:80", "[[::1]]", "localhost", "1" * 10_000, "%eth0", "\x00", "192.0.2.1\n",
    "\u0661.\u0662.\u0663.\u0664",  # digits that are not ASCII
]  # fmt: skip


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_is_in_one_group(text: str) -> None:
    assert group_of(text) == UNKNOWN
    for hops in range(3):
        assert client_of(text, hops, "10.0.0.9") == "10.0.0.9"


@given(st.text())
def test_any_text_is_an_address_or_the_peers(text: str) -> None:
    assert parse(text) is not None or group_of(text) == UNKNOWN
    found = client_of(text, 1, "10.0.0.9")
    assert found == "10.0.0.9" or parse(found) is not None


@given(st.lists(st.text(alphabet='"\\, 1.:[]%a_'), max_size=4), V4, st.integers(1, 3))
def test_whatever_a_client_writes_the_trusted_proxys_entry_counts(
    forged: list[str], client: IPv4Address, hops: int
) -> None:
    seen_by_proxies = [str(client), "10.1.0.1", "10.1.0.2"][:hops]
    assert client_of(", ".join([*forged, *seen_by_proxies]), hops, "10.0.0.9") == str(client)


def test_with_fewer_entries_than_proxies_the_peer_is_the_client() -> None:
    assert client_of("203.0.113.7", 2, "198.51.100.1") == "198.51.100.1"
    assert client_of(None, 1, "198.51.100.1") == "198.51.100.1"
    assert client_of("203.0.113.7", 0, "198.51.100.1") == "198.51.100.1"


FORMS = [
    "203.0.113.7",
    "203.0.113.7:5678",
    "::ffff:203.0.113.7",
    '"203.0.113.7"',
    "[::ffff:cb00:7107]:443",
    "::FFFF:203.0.113.7",
]


def test_a_rate_limit_holds_in_whatever_form_the_proxy_writes_the_address(
    redis_url: str, database_url: str, redis: redis_py.Redis
) -> None:
    limited = make_settings(
        redis_url, database_url=database_url, rate_limit_per_s=0.001, rate_limit_burst=3, proxy_hops=1
    )
    client = create_app(limited).test_client()

    def status(forwarded: str, peer: str = "10.0.0.9") -> int:
        answer = client.get("/v1/time", headers={"X-Forwarded-For": forwarded}, environ_base={"REMOTE_ADDR": peer})
        return answer.status_code

    assert [status(form) for form in FORMS] == [200, 200, 200, 429, 429, 429]
    assert [status(f'", {form}') for form in FORMS] == [429] * 6  # an open quote
    networks = ["2001:db8::1", "2001:DB8:0:0:5::1", "[2001:db8::2]:443", "2001:db8:0:0:ffff::"]
    assert [status(form) for form in networks] == [200, 200, 200, 429]
    assert status("2001:db8:0:1::1") == 200
    assert [status(f"_hidden{number}") for number in range(4)] == [200, 200, 200, 429]
    assert status("unknown", peer="10.0.0.10") == 200
    assert client.get("/health", headers={"X-Forwarded-For": FORMS[0]}).status_code == 200


def test_a_quota_of_connections_holds_in_whatever_form_an_address_comes() -> None:
    quotas = ConnectionQuotas(make_settings("", ws_max_connections_per_address=2))
    with ExitStack() as stack:
        for form in FORMS[:2]:
            stack.enter_context(quotas.hold("session", form))
        for form in FORMS:
            with pytest.raises(RateLimited) as refused, quotas.hold("session", form):
                pass
            assert refused.value.details["reason"] == "ws_max_connections_per_address"
        stack.enter_context(quotas.hold("session", "203.0.113.8"))
    assert not quotas._open
