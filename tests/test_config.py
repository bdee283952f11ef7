"""Settings: read once, every fault named, documented as they are."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from syncapp.config import Settings, SettingsError

ROOT = Path(__file__).parent.parent


def test_without_an_environment_every_setting_has_its_default() -> None:
    assert Settings.from_env({}) == Settings()


def test_values_are_read_by_the_type_of_their_default() -> None:
    found = Settings.from_env(
        {"SYNC_BUCKETS": "32", "AUDIT_RETRY_BACKOFF": "1.5", "REDIS_VERIFY_TLS": "off", "LOG_LEVEL": "debug"}
    )
    assert (found.sync_buckets, found.audit_retry_backoff, found.redis_verify_tls, found.log_level) == (
        32,
        1.5,
        False,
        "DEBUG",
    )


def test_postgres_urls_of_either_scheme_are_taken() -> None:
    assert Settings.from_env({"DATABASE_URL": "postgres://u:p@h/d?sslmode=require"}).database_url == (
        "postgresql://u:p@h/d?sslmode=require"
    )


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("REDIS_URL", "redis://127.0.0.1:abc/0"),
        ("DATABASE_URL", "postgresql://u:se#cret/x@h/db"),
        ("DATABASE_URL", "postgres://u:se%zzcret@h/db"),
    ],
)
def test_a_url_that_cannot_be_read_is_named_and_not_shown(name: str, url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({name: url})
    assert str(refused.value) == f"{name} is no URL; percent-encode what is special in its user and password"


def test_urls_of_several_hosts_of_sockets_and_with_escapes_are_taken() -> None:
    for url in ("postgresql://a:1,b:2/db", "postgresql:///db?host=/run/pg", "postgresql://u:p%40ss@h/db"):
        assert Settings.from_env({"DATABASE_URL": url}).database_url == url


def test_an_empty_variable_counts_as_absent() -> None:
    assert Settings.from_env({"SYNC_BUCKETS": " "}) == Settings()


def test_every_bad_value_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({
            "SYNC_BUCKETS": "0", "SESSION_TTL_S": "x", "REDIS_VERIFY_TLS": "maybe", "REDIS_URL": "http://x",
            "DATABASE_URL": "mysql://x", "LOG_FORMAT": "xml", "AUDIT_RETRY_BACKOFF": "nan",
        })  # fmt: skip
    for name in (
        "SYNC_BUCKETS",
        "SESSION_TTL_S",
        "REDIS_VERIFY_TLS",
        "REDIS_URL",
        "DATABASE_URL",
        "LOG_FORMAT",
        "AUDIT_RETRY_BACKOFF",
    ):
        assert name in str(refused.value)


def test_every_setting_says_what_it_is_for() -> None:
    assert all(item.metadata["help"].endswith(".") for item in fields(Settings))


@pytest.mark.parametrize("name", ["README.md", ".env.example"])
def test_the_documents_list_every_setting_with_its_default(name: str) -> None:
    text = (ROOT / name).read_text()
    for item in fields(Settings):
        shown = (
            str(item.default).lower()
            if isinstance(item.default, bool)
            else f"{item.default:g}"
            if isinstance(item.default, float)
            else str(item.default)
        )
        pattern = (
            rf"\| `{item.name.upper()}` \| `{re.escape(shown)}` \|"
            if name == "README.md"
            else rf"(?m)^# ?{item.name.upper()}={re.escape(shown)}$"
        )
        assert re.search(pattern, text), f"{name} does not tell the truth about {item.name.upper()} ({shown})"
