"""URLs of servers and of Sentinels: their parts, and their faults."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncapp.config import Settings, SettingsError
from syncapp.redis_url import SCHEMES, parse
from syncapp.store.client import connect, has_tasks_server

NOT_A_URL = "is not a URL; percent-encode special characters in its user and password"
NO_SCHEME = f"must start with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}"
NO_HOSTS = "needs the Sentinels as host or host:port, separated by commas"
NO_NAME = "needs the name that the Sentinels know the server by: redis+sentinel://h1,h2,h3/name"
NO_NUMBER = "needs a number as the database after the name: redis+sentinel://h1,h2,h3/name/0"
BAD_OPTION = "has an option that Redis connections do not support"


def read(**environ: str) -> Settings:
    return Settings.from_env({"AUTH": "off", **environ})


def fault_of(setting: str, url: str) -> str:
    """Return what is said about a URL; nothing if it is taken."""
    try:
        read(**{setting: url})
    except SettingsError as error:
        return str(error).removeprefix(f"{setting} ")
    return ""


@pytest.mark.parametrize(
    ("url", "sentinels", "name", "options", "own"),
    [
        ("redis+sentinel://h1,h2,h3/clocks", [("h1", 26379), ("h2", 26379), ("h3", 26379)], "clocks", {}, {}),
        ("redis+sentinel://h1:1,10.0.0.2:65535/my-clocks.1/", [("h1", 1), ("10.0.0.2", 65535)], "my-clocks.1", {}, {}),
        ("redis+sentinel://[::1]:5,[fe80::2]/c/7", [("::1", 5), ("fe80::2", 26379)], "c", {"db": 7}, {}),
        (
            "redis+sentinel://u:p%40%2F%3A%25@h/a%20b/0?sentinel_password=s%26s",
            [("h", 26379)],
            "a b",
            {"username": "u", "password": "p@/:%", "db": 0},
            {"password": "s&s"},
        ),
        (
            "redis+sentinel://:p@h/c?sentinel_username=a&sentinel_password=b&client_name=me",
            [("h", 26379)],
            "c",
            {"password": "p", "client_name": "me"},
            {"username": "a", "password": "b"},
        ),
    ],
)
def test_the_parts_of_a_url_of_sentinels(
    url: str, sentinels: list[tuple[str, int]], name: str, options: dict[str, Any], own: dict[str, str]
) -> None:
    found = parse(url)
    assert (list(found.sentinels), found.name) == (sentinels, name)
    assert (dict(found.options), dict(found.sentinel_options)) == (options, own)
    assert not found.has_tls
    assert parse(url.replace("redis+", "rediss+", 1)).has_tls


@pytest.mark.parametrize(
    ("url", "has_tls", "is_socket"),
    [("redis://h:1/2", False, False), ("rediss://h", True, False), ("unix:///run/redis.sock", False, True)],
)
def test_the_url_of_one_server_names_no_sentinels(url: str, has_tls: bool, is_socket: bool) -> None:
    found = parse(url)
    assert (list(found.sentinels), found.has_tls, found.is_socket) == ([], has_tls, is_socket)


@pytest.mark.parametrize("setting", ["REDIS_URL", "TASKS_REDIS_URL"])
@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://h/0", NO_SCHEME),
        ("sentinel://h/clocks", NO_SCHEME),
        ("redis+sentinels://h/clocks", NO_SCHEME),
        ("redis+sentinel://h1,h2", NO_NAME),
        ("redis+sentinel://h1,h2/", NO_NAME),
        ("redis+sentinel://u:secret@h1//0", NO_NAME),
        ("redis+sentinel:///clocks", NO_HOSTS),
        ("redis+sentinel://u:secret@/clocks", NO_HOSTS),
        ("redis+sentinel://h1,,h3/clocks", NO_HOSTS),
        ("redis+sentinel://h1, h2/clocks", NO_HOSTS),
        ("redis+sentinel://h1:0/clocks", NO_HOSTS),
        ("redis+sentinel://h1:65536/clocks", NO_HOSTS),
        ("redis+sentinel://h1:secret/clocks", NO_HOSTS),
        ("redis+sentinel://::1/clocks", NO_HOSTS),
        ("redis+sentinel://h1/0/clocks", NO_NUMBER),
        ("redis+sentinel://h1/clocks/0/1", NO_NUMBER),
        ("redis+sentinel://h1/clocks/-1", NO_NUMBER),
        ("redis+sentinel://u:se@cret@h1/clocks", NOT_A_URL),
        ("redis+sentinel://u:se@cret@h1", NOT_A_URL),
        ("redis+sentinel://u:123/se@h1", NOT_A_URL),
        ("redis+sentinel://u:secret@h1/clocks#secret", NOT_A_URL),
        ("redis+sentinel://u:secret@h1/clocks?socket_timeout=secret", NOT_A_URL),
        ("redis+sentinel://u:secret@h1/clocks?sentinel_pasword=secret", BAD_OPTION),
        ("redis://u:secret@h/0?sentinel_password=secret", BAD_OPTION),
    ],
)
def test_each_fault_is_one_line_without_the_url(setting: str, url: str, fault: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(**{setting: url})
    assert str(refused.value) == f"{setting} {fault}"


@given(
    password=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4),
    encode=st.booleans(),
    form=st.sampled_from([
        "redis+sentinel://u:{}@h1,h2/clocks",
        "rediss+sentinel://:{}@h1:x,h2/clocks/0",
        "redis+sentinel://u:{}@h1,h2",
        "redis+sentinel://u:x@h1/clocks?sentinel_password={}",
        "redis+sentinel://u:x@h1/clocks?sentinel_password=x&{}=1",
        "redis://u:{}@h:port/0",
        "sentinel://u:{}@h/0",
    ]),
)  # fmt: skip
def test_no_fault_shows_a_password(password: str, encode: bool, form: str) -> None:
    known = {NOT_A_URL, NO_SCHEME, NO_HOSTS, NO_NAME, NO_NUMBER, BAD_OPTION}
    url = form.format(quote(password, safe="") if encode else password)
    for setting in ("REDIS_URL", "TASKS_REDIS_URL"):
        assert fault_of(setting, url) in known | {""}


def test_urls_of_sentinels_are_taken_and_not_shown() -> None:
    url = "redis+sentinel://u:hunter2@h1,h2,h3/clocks/0?sentinel_password=hunter3"
    found = read(REDIS_URL=url, TASKS_REDIS_URL=url.replace("clocks", "tasks"))
    assert (found.redis_url, has_tasks_server(found)) == (url, True)
    assert "hunter" not in repr(found)
    assert "hunter" not in repr(connect(found).connection_pool)
