"""`flask tokens`: makes and explains tokens. It needs neither Redis nor PostgreSQL."""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from syncapp.access.permissions import ACTIONS, Reach, check
from syncapp.access.token_text import TokenText
from syncapp.access.tokens import Authenticator
from syncapp.config import Settings
from syncapp.domain.principal import DEFAULT_TENANT, RESERVED_SCOPES, SCOPES, Principal
from syncapp.errors import Forbidden, SyncError, Unauthorized

_SCOPE_HELP = (
    f"What it may do; repeatable: {', '.join(SCOPES)}. "
    f"{' and '.join(RESERVED_SCOPES)} is reserved for later; it allows nothing yet."
)
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])\Z")
_MAX_S = 3650 * 86_400
_NEAR_SCOPE = frozenset({"scope", "scopes", "scp", "permissions", "roles"})
"""Claims in which other services have scopes, in lower case."""
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def commands(settings: Settings) -> click.Group:
    """Return the group of commands."""
    group = click.Group("tokens", help="Make and explain tokens.")
    group.add_command(_create(settings))
    group.add_command(_show(settings))
    return group


def _create(settings: Settings) -> click.Command:
    @click.command("create")
    @click.option("--sub", required=True, help="Id of the principal: who is calling.")
    @click.option("--scope", multiple=True, required=True, help=_SCOPE_HELP)
    @click.option("--session", "session_id", help="The only session that it may use (a UUID).")
    @click.option("--participant", "participant_id", help="The only participant that it may act as.")
    @click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Tenant of its sessions.")
    @click.option("--expires", default="1h", show_default=True, help="How long it is valid: 90s, 15m, 1h, 7d.")
    def create(
        sub: str,
        scope: tuple[str, ...],
        session_id: str | None,
        participant_id: str | None,
        tenant: str,
        expires: str,
    ) -> None:
        """Print a new token, signed with the first of AUTH_SECRETS."""
        scopes = [word for each in scope for word in each.split()]
        if unknown := [word for word in scopes if word not in SCOPES]:
            raise click.ClickException(f"{unknown[0]!r} is not a scope; scopes are {', '.join(SCOPES)}")
        try:
            token = Authenticator(settings).mint(
                sub=sub,
                scopes=dict.fromkeys(scopes),
                tenant=tenant,
                session_id=session_id,
                participant_id=participant_id,
                expires_in_s=_seconds(expires),
                jti=secrets.token_urlsafe(9),
            )
        except SyncError as error:
            raise click.ClickException(error.message) from error
        if settings.auth == "off":
            click.echo("AUTH is off: everyone may do everything, with or without a token.", err=True)
        click.echo(token)

    return create


def _seconds(duration: str) -> int:
    if not (found := _DURATION.match(duration)):
        raise click.ClickException("--expires must be a number with a unit, such as 90s, 15m, 1h or 7d")
    if (seconds := int(found[1]) * _UNIT_S[found[2]]) > _MAX_S:
        raise click.ClickException(f"--expires must be at most {_MAX_S // 86_400}d")
    return seconds


def _show(settings: Settings) -> click.Command:
    @click.command("show")
    @click.argument("token")
    def show(token: str) -> None:
        """Explain a token, and exit with code 1 if it is not accepted.

        With - it is read from standard input, so that it is not kept in the shell's history.
        """
        text = (sys.stdin.read() if token == "-" else token).strip().removeprefix("Bearer ").strip()  # noqa: S105 a dash is no token
        authenticator = Authenticator(settings)
        try:
            parsed = TokenText.parse(text)
            click.echo(f"Header    {json.dumps(parsed.header)}")
            claims = parsed.claims()
        except Unauthorized as error:
            raise click.ClickException(error.message) from error
        click.echo(f"Claims    {json.dumps(claims, indent=2)}".replace("\n", "\n          "))
        refusals = [*_show_key(authenticator, parsed), *_show_rights(authenticator, claims)]
        if refusals:
            raise click.ClickException(f"not accepted here: {'; '.join(refusals)}")

    return show


def _show_key(authenticator: Authenticator, parsed: TokenText) -> Iterator[str]:
    """Show the key that a token was signed with; yield why there is none."""
    try:
        key = authenticator.keys.key_of(parsed)
        click.echo(f"Key       {key.source}{f', kid {json.dumps(key.kid)}' if key.kid else ''} ({key.algorithm})")
    except Unauthorized as error:
        click.echo("Key       none")
        yield error.message


def _show_rights(authenticator: Authenticator, claims: dict[str, Any]) -> Iterator[str]:
    """Show until when a token is valid and what it allows; yield what is wrong with its claims."""
    now_s = time.time()
    try:
        principal = authenticator.rules.principal(claims, now_s)
    except Unauthorized as error:
        yield error.message
        return
    expires_s = principal.expires_s or 0
    left = timedelta(seconds=max(0, round(expires_s - now_s)))
    click.echo(f"Valid     until {datetime.fromtimestamp(expires_s, UTC):%Y-%m-%dT%H:%M:%SZ}, {left} left")
    click.echo(f"For       {json.dumps(principal.sub)}: {_reach(principal)}")
    click.echo(f"Allows    {', '.join(_allowed(principal)) or 'nothing'}")
    if ignored := [*_ignored(claims)]:
        click.echo(f"Ignored   {', '.join(ignored)}")
    if principal.jti:
        click.echo("Revoked   not checked: only web processes know what was revoked")


def _ignored(claims: dict[str, Any]) -> Iterator[str]:
    """Yield what looks like a scope and is none: unknown words of the scope claim, and claims with a similar name."""
    for word in dict.fromkeys(claims.get("scope", "").split()):
        if word not in SCOPES:
            yield f"{json.dumps(word)} (not a scope)"
    for name in claims:
        if name.lower() in _NEAR_SCOPE and name != "scope":
            yield f"claim {json.dumps(name)} (scopes go into the claim scope: one text, with spaces between them)"


def _reach(principal: Principal) -> str:
    """Return which sessions a principal may use, and as whom, as text."""
    sessions = f"session {principal.session_id}" if principal.session_id else "all sessions"
    acting = f", as participant {principal.participant_id}" if principal.participant_id else ""
    return f"{sessions} of tenant {principal.tenant}{acting}"


def _allowed(principal: Principal) -> Iterator[str]:
    """Yield the names of the actions that a principal may do."""
    for name, action in ACTIONS.items():
        try:
            check(principal, name, principal.session_id if action.reach is Reach.SESSION else None)
        except Forbidden:
            continue
        yield name
