"""`flask tokens` makes and explains tokens, without Redis and PostgreSQL."""

from __future__ import annotations

import re
import time
from typing import Any

import click
import jwt
import pytest
from click.testing import CliRunner, Result

from syncapp.access.tokens import Authenticator
from syncapp.cli import tokens
from syncapp.config import Settings
from syncapp.domain.principal import SCOPES
from tests.support.tokens import SECRET, token

SESSION = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"
NOWHERE = {"redis_url": "redis://127.0.0.1:1/0", "database_url": "postgresql://127.0.0.1:1/none"}


def run(*words: str, stdin: str = "", **settings: Any) -> Result:
    given: dict[str, Any] = {"auth": "required", "auth_secrets": SECRET, **NOWHERE} | settings
    group: click.Group = tokens.commands(Settings(**given))
    return CliRunner().invoke(group, words, input=stdin)


def test_a_token_is_made_and_printed_alone() -> None:
    done = run(
        "create", "--sub", "ada", "--scope", "session:act", "--scope", "history:read session:time",
        "--session", SESSION,
        "--participant", "white", "--tenant", "acme", "--expires", "15m",
    )  # fmt: skip
    assert (done.exit_code, done.stderr) == (0, "")
    made = jwt.decode(done.stdout.removesuffix("\n"), SECRET, algorithms=["HS256"])
    assert made["exp"] == made["iat"] + 900
    assert abs(made["iat"] - time.time()) < 60
    assert re.fullmatch(r"[\w-]{12}", made["jti"])
    assert {name: value for name, value in made.items() if name not in ("exp", "iat", "jti")} == {
        "sub": "ada",
        "scope": "session:act history:read session:time",
        "session_id": SESSION,
        "participant_id": "white",
        "tenant": "acme",
    }


@pytest.mark.parametrize(("duration", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800)])
def test_a_duration_has_a_unit(duration: str, seconds: int) -> None:
    made = run("create", "--sub", "ada", "--scope", "admin", "--expires", duration).stdout.strip()
    claims = jwt.decode(made, SECRET, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == seconds


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--expires", "90"), "--expires must be a number with a unit, such as 90s, 15m, 1h or 7d"),
        (("--expires", "0s"), "--expires must be a number with a unit, such as 90s, 15m, 1h or 7d"),
        (("--expires", "1h30m"), "--expires must be a number with a unit, such as 90s, 15m, 1h or 7d"),
        (("--expires", "3651d"), "--expires must be at most 3650d"),
        (("--session", "7"), "the session_id claim must be a UUID"),
        (("--participant", "a b"), "the participant_id claim must be the id of a participant"),
        (
            ("--tenant", "-"),
            "the tenant claim must be 1 to 64 characters of A-Z a-z 0-9 . _ -, a letter or digit first",
        ),
        (("--sub", ""), "the sub claim must be a text of 1 to 128 characters, without control characters"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words: tuple[str, ...], message: str) -> None:
    done = run("create", "--sub", "ada", "--scope", "admin", *words)
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"Error: {message}\n")


def test_a_scope_that_there_is_not_is_refused() -> None:
    done = run("create", "--sub", "ada", "--scope", "session:act sessions")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: 'sessions' is not a scope; scopes are session:create, session:watch, ")


def test_the_help_lists_the_scopes_and_which_are_reserved() -> None:
    said = " ".join(run("create", "--help").stdout.split())
    assert ", ".join(SCOPES) in said
    assert "webhook:manage is reserved for later; it allows nothing yet." in said


def test_without_a_secret_no_token_is_made() -> None:
    done = run("create", "--sub", "ada", "--scope", "admin", auth_secrets="")
    assert (done.exit_code, done.stderr) == (1, "Error: this server signs no tokens: AUTH_SECRETS is not set\n")


def test_with_auth_off_a_token_is_made_with_a_hint() -> None:
    done = run("create", "--sub", "ada", "--scope", "admin", auth="off")
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
    assert done.stderr == "AUTH is off: everyone may do everything, with or without a token.\n"


@pytest.mark.parametrize("prefix", ["", "Bearer ", "  "])
def test_a_token_is_explained_also_from_standard_input(prefix: str) -> None:
    text = token(sub="ada\x7f", scope="session:act", session_id=SESSION, participant_id="white", jti="one", sid="ä")
    given, piped = run("show", prefix + text), run("show", "-", stdin=f"{prefix}{text}\n")
    assert given.exit_code == 1  # the sub has a control character
    text = token(sub="ada", scope="session:act", session_id=SESSION, participant_id="white", jti="one")
    given, piped = run("show", prefix + text), run("show", "-", stdin=f"{prefix}{text}\n")
    assert given.exit_code == 0
    assert given.stdout == piped.stdout
    assert text not in given.stdout
    for line in (
        r'Header    \{"alg": "HS256", "typ": "JWT"\}',
        r'            "participant_id": "white",',
        r"Key       secret 1 of AUTH_SECRETS \(HS256\)",
        r"Valid     until \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, (0:59:\d\d|1:00:00) left",
        rf'For       "ada": session {SESSION} of tenant default, as participant white',
        r"Allows    read, watch, switch",
        r"Revoked   not checked: only web processes know what was revoked",
    ):
        assert re.search(f"^{line}$", given.stdout, re.MULTILINE), line


def test_what_looks_like_a_scope_and_is_none_is_named() -> None:
    shown = run("show", token(scope="session:watch sessions SESSION:ACT sessions", scopes=["admin"], Scope="admin"))
    assert shown.exit_code == 0
    where = "(scopes go into the claim scope: one text, with spaces between them)"
    (line,) = re.findall("^Ignored   (.*)$", shown.stdout, re.MULTILINE)
    assert line == (
        f'"sessions" (not a scope), "SESSION:ACT" (not a scope), claim "scopes" {where}, claim "Scope" {where}'
    )
    assert "Ignored" not in run("show", token(scope="session:watch  session:act")).stdout


def test_a_list_of_scopes_is_refused_with_what_to_write() -> None:
    shown = run("show", token(scope=["session:watch"]))  # type: ignore[arg-type]  # a claim of the wrong type
    assert (shown.exit_code, "Allows" in shown.stdout) == (1, False)
    assert "the scope claim must be a text, with spaces between the scopes" in shown.stderr


def test_a_token_that_is_not_accepted_is_explained_with_everything_that_is_wrong() -> None:
    done = run("show", token(secret=SECRET[::-1], expires_in_s=-3600))
    assert done.exit_code == 1
    assert '"sub": "ada"' in done.stdout
    assert "Key       none" in done.stdout
    assert re.fullmatch(
        r"Error: not accepted here: the signature of .* does not match any key; the token expired 36\d\d s ago\n",
        done.stderr,
    )


@pytest.mark.parametrize("text", ["", "abc", "a.b.c", "ey.\x00.x"])
def test_what_is_no_token_is_said_without_repeating_it(text: str) -> None:
    done = run("show", "-", stdin=text)
    assert (done.exit_code, done.stdout) == (1, "")
    assert re.fullmatch(r"Error: the [^\n]*token[^\n]*\n", done.stderr)


def test_what_is_shown_is_what_a_server_accepts() -> None:
    made = run("create", "--sub", "ada", "--scope", "session:control").stdout.strip()
    assert Authenticator(Settings(auth="required", auth_secrets=SECRET)).principal(made).sub == "ada"
    assert "create_link" in run("show", made).stdout
