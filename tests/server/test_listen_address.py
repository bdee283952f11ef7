"""HOST and PORT: the web process listens on an address in every notation."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from syncapp.config import Settings, SettingsError
from syncapp.dev.runner import ROOT
from syncapp.server.listen_address import ListenAddress
from tests.support.cluster import MakeCluster
from tests.support.network import has_ipv6

IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")
HOSTS = [
    ("", "0.0.0.0", "127.0.0.1"),
    ("0.0.0.0", "0.0.0.0", "127.0.0.1"),
    ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
    ("localhost", "127.0.0.1", "127.0.0.1"),
    (" LOCALHOST ", "127.0.0.1", "127.0.0.1"),
    pytest.param("::", "[::]", "[::1]", marks=IPV6),
    pytest.param("[::]", "[::]", "[::1]", marks=IPV6),
    pytest.param("::1", "[::1]", "[::1]", marks=IPV6),
    pytest.param("[::1]", "[::1]", "[::1]", marks=IPV6),
    pytest.param("0:0:0:0:0:0:0:1", "[::1]", "[::1]", marks=IPV6),
]
"""Each way to write HOST, gunicorn's bind address, and the URL on this machine."""


@pytest.mark.parametrize(("host", "bind", "reached_at"), HOSTS)
def test_a_host_is_an_address_to_bind_and_a_url_to_ask(host: str, bind: str, reached_at: str) -> None:
    listening = ListenAddress.of(Settings.from_env({"AUTH": "off", "HOST": host, "PORT": "8765"}))
    assert (listening.bind, listening.url) == (f"{bind}:8765", f"http://{reached_at}:8765")


def test_the_name_of_this_machine_is_an_address() -> None:
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        pytest.skip("this machine does not know its own name")
    assert ListenAddress.of(Settings.from_env({"AUTH": "off", "HOST": socket.gethostname()})).address == address


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ("nowhere.invalid", "HOST is not known to this machine: "),
        ("192.0.2.1", "HOST cannot be listened on: Cannot assign requested address"),
        ("2001:db8::1", "HOST cannot be listened on: "),
    ],
)
def test_an_address_of_another_machine_is_refused_in_one_line(host: str, fault: str) -> None:
    with pytest.raises(SettingsError) as refused:
        ListenAddress.of(Settings.from_env({"AUTH": "off", "HOST": host}))
    assert str(refused.value).startswith(fault)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("host", "bind", "reached_at"), HOSTS)
def test_gunicorn_answers_on_the_loopback_address_of_the_family(
    make_cluster: MakeCluster, host: str, bind: str, reached_at: str
) -> None:
    web = make_cluster(web=1, worker=False, HOST=host).web[0]
    assert requests.get(f"http://{reached_at}:{web.port}/ready", timeout=30).status_code == 200
    assert f"Listening at: http://{bind}:{web.port}" in web.output()
    web.stop()
    assert web.exit_code == 0


@IPV6
def test_an_ipv6_wildcard_takes_ipv4_clients_too(make_cluster: MakeCluster) -> None:
    if Path("/proc/sys/net/ipv6/bindv6only").read_text().strip() != "0":
        pytest.skip("this machine keeps the families apart")
    web = make_cluster(web=1, worker=False, HOST="::").web[0]
    assert requests.get(f"http://127.0.0.1:{web.port}/health", timeout=30).status_code == 200


def test_a_wrong_host_ends_gunicorn_with_one_line(tmp_path: Path) -> None:
    env = os.environ | {"HOST": "192.0.2.1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [Path(sys.executable).parent / "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"SyncApp cannot start: HOST cannot be listened on: [\w ]+\n", done.stderr)
    assert not any(tmp_path.iterdir())
