"""Settings are read once, every fault is named, and the documents match."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from syncapp.config import Settings, SettingsError
from syncapp.dev.runner import procfile
from tests.support.paths import ROOT

SECRET = "0123456789abcdef0123456789abcdef"


def read(environ: dict[str, str]) -> Settings:
    """Read settings that require no tokens, unless they say otherwise."""
    return Settings.from_env({"AUTH": "off", **environ})


def test_every_setting_but_auth_has_a_default() -> None:
    assert read({}) == Settings()


@pytest.mark.parametrize("auth", [{}, {"AUTH": ""}, {"AUTH_SECRETS": SECRET}])
def test_without_auth_nothing_starts(auth: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(auth)
    assert str(refused.value) == (
        "AUTH must be set: required, with AUTH_SECRETS, AUTH_PUBLIC_KEYS or AUTH_JWKS_URL; or off, which lets everyone "
        "who reaches the port do everything"
    )


def test_secrets_and_passwords_are_not_shown() -> None:
    given = {
        "AUTH_SECRETS": f"{SECRET}, {SECRET[::-1]}",
        "METRICS_TOKEN": "metrics-are-mine-alone",
        "REDIS_URL": "rediss://u:hunter2@h/0",
        "DATABASE_URL": "postgresql://u:hunter2@h/db",
        "SENTRY_DSN": "https://hunter2@sentry.io/1",
        "ALERT_WEBHOOK_URL": "https://hooks.example/hunter2",
    }
    shown = repr(read(given))
    assert "auth='off'" in shown
    assert not [word for word in (SECRET, SECRET[::-1], "mine", "hunter2") if word in shown]


def test_values_are_read_by_the_type_of_their_default() -> None:
    found = read({"SYNC_BUCKETS": "32", "AUDIT_RETRY_BACKOFF": "1.5", "REDIS_VERIFY_TLS": "off", "LOG_LEVEL": "debug"})
    assert (found.sync_buckets, found.audit_retry_backoff, found.redis_verify_tls, found.log_level) == (
        32,
        1.5,
        False,
        "DEBUG",
    )


def test_postgres_urls_of_either_scheme_are_taken() -> None:
    assert read({"DATABASE_URL": "postgres://u:p@h/d?sslmode=require"}).database_url == (
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
        read({name: url})
    assert str(refused.value) == f"{name} is not a URL; percent-encode special characters in its user and password"


def test_urls_of_several_hosts_of_sockets_and_with_escapes_are_taken() -> None:
    for url in ("postgresql://a:1,b:2/db", "postgresql:///db?host=/run/pg", "postgresql://u:p%40ss@h/db"):
        assert read({"DATABASE_URL": url}).database_url == url


def test_an_empty_variable_counts_as_absent() -> None:
    assert read({"SYNC_BUCKETS": " "}) == Settings()


def test_every_bad_value_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        read({
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


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("AUDIT_BACKLOG_LIMIT", "-1", "must be at least 0"),
        ("SYNC_BUCKETS", "1025", "must be 1 to 1024"),
        ("REDIS_TIMEOUT_S", "61", "must be 0.05 to 60"),
        ("PORT", "80a", "must be a whole number"),
        ("PORT", "65536", "must be 1 to 65535"),
        ("WEB_CONCURRENCY", "0", "must be 1 to 1000"),
        ("WORKER_CONNECTIONS", "-1", "must be 0 to 1000000"),
        ("HOST", "127.0.0.1:8000", "must be an IP address or a host name, without a port"),
        ("HOST", "[::1", "must be an IP address or a host name, without a port"),
        ("HOST", "http://localhost", "must be an IP address or a host name, without a port"),
        ("REDIS_URL", "redis://u:secret@h/0?nope=1", "has an option that Redis connections do not support"),
        (
            "ALERT_WEBHOOK_URL",
            "https://u:secret@:80/",
            "is not a URL; percent-encode special characters in its user and password",
        ),
        ("AUTH", "on", "must be required or off"),
        ("AUTH_LEEWAY_S", "301", "must be 0 to 300"),
        ("METRICS_TOKEN", "fifteen-letters", "must have at least 16 characters, of A-Z a-z 0-9 . _ ~ + / - ="),
        ("METRICS_TOKEN", "with a space inside", "must have at least 16 characters, of A-Z a-z 0-9 . _ ~ + / - ="),
        ("AUTH_SECRETS", ",", "holds no key"),
        ("SENTRY_DSN", "https://sentry.io/1", "must have a key and a project: https://key@host/project"),
    ],
)
def test_a_fault_is_named_without_repeating_the_value(name: str, value: str, fault: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read({name: value})
    assert str(refused.value) == f"{name} {fault}"


def test_a_sentry_dsn_and_a_webhook_of_the_usual_forms_are_taken() -> None:
    for dsn in ("https://key@o1.ingest.sentry.io/42", "https://key:secret@sentry.example/some/path/7"):
        assert read({"SENTRY_DSN": dsn}).sentry_dsn == dsn
    assert read({"ALERT_WEBHOOK_URL": "http://[::1]:9/x?y=1"}).alert_webhook_url


COMMANDS = [
    procfile()["release"],
    procfile()["web"],
    procfile()["worker"],
    "gunicorn wsgi:app",
    "gunicorn --check-config wsgi:app",
    "huey_consumer syncapp.tasks.huey",
    "flask --app wsgi audit status",
    "python -m syncapp.dev",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_settings_end_every_command_with_one_line_that_names_them_all(command: str, tmp_path: Path) -> None:
    wrong = {
        "AUTH": "off",
        "LOG_LEVEL": "nope",
        "REDIS_URL": "redis://u:se/cret@h:x/0",
        "SESSION_TTL_S": "se\ncret",
        "DATA_DIR": str(tmp_path),
    }
    done = start(command, wrong)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "SyncApp cannot start: SESSION_TTL_S must be a whole number; REDIS_URL is not a URL; percent-encode special"
        " characters in its user and password; LOG_LEVEL must be one of CRITICAL, DEBUG, ERROR, INFO, WARNING\n"
    )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "name"), [("web", "WEB_CONCURRENCY"), ("worker", "WORKER_THREADS"), ("web", "PORT")])
def test_what_the_servers_themselves_read_is_checked_before_they_do(kind: str, name: str) -> None:
    done = start(procfile()[kind], {"AUTH": "off", name: "many"})
    assert (done.returncode, done.stderr) == (1, f"SyncApp cannot start: {name} must be a whole number\n")


@pytest.mark.parametrize("command", COMMANDS[:-1])
def test_every_command_but_make_run_ends_with_one_line_if_auth_is_not_set(command: str) -> None:
    done = start(command, {})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("SyncApp cannot start: AUTH must be set: required, with AUTH_SECRETS, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", procfile())
def test_auth_required_without_a_key_starts_nothing(kind: str) -> None:
    done = start(procfile()[kind], {"AUTH": "required"})
    assert (done.returncode, done.stderr) == (
        1,
        "SyncApp cannot start: AUTH is required, so AUTH_SECRETS, AUTH_PUBLIC_KEYS or AUTH_JWKS_URL must be set\n",
    )


def start(command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as a platform does, until it ends."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
    return subprocess.run(
        ["sh", "-c", f"exec {command}"],
        cwd=ROOT,
        env={"PATH": path, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_setting_says_what_it_is_for() -> None:
    assert all(item.metadata["help"].endswith(".") for item in fields(Settings))


@pytest.mark.parametrize("name", ["docs/configuration.md", ".env.example"])
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
        default = "none" if item.name == "auth" else f"`{re.escape(shown)}`" if shown else "empty"
        pattern = (
            rf"\| `{item.name.upper()}` \| {default} \|"
            if name == "docs/configuration.md"
            else rf"(?m)^# ?{item.name.upper()}={re.escape(shown)}$"
        )
        assert re.search(pattern, text), f"{name} does not tell the truth about {item.name.upper()} ({shown})"
