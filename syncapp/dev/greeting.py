"""What `make run` prints when everything runs: commands to try, which work as they are, and who may do what."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Mapping
from pathlib import Path

from syncapp.access.tokens import Authenticator
from syncapp.config import Settings
from syncapp.errors import TokensNotConfigured
from syncapp.server.listen_address import ListenAddress

_TOKEN_S = 43_200


_KEYS = ("auth_secrets", "auth_public_keys", "auth_jwks_url")


def greeting(
    settings: Settings, listening: ListenAddress, directory: Path, stores: Mapping[str, str], again: str
) -> str:
    """Return the message. With `AUTH=required` its commands have a token that may do everything for 12 hours.

    stores: the variables with the URLs of the stores. again: the shell command that starts the same run again.
    """
    session, url = uuid.uuid4(), listening.url
    needs_token = settings.auth == "required"
    header = ' -H "Authorization: Bearer $TOKEN"' if needs_token else ""
    query = "&token=$TOKEN" if needs_token else ""
    urls = " ".join(f"{name}={_shown(url)}" for name, url in stores.items())
    return f"""
SyncApp runs at {url} (data in {directory}; Ctrl-C stops it). Try:

{_token(settings) if needs_token else ""}\
  curl -s {url}/v1/sessions{header} -H 'Content-Type: application/json' -d '{{"session_id": "{session}",
    "sync_mode": "per_participant", "participants": [{{"participant_id": "white", "total_time_ms": 300000}},
    {{"participant_id": "black", "total_time_ms": 300000}}]}}'
  curl -s -X POST {url}/v1/sessions/{session}/start{header}
  curl -s -X POST {url}/v1/sessions/{session}/switch{header}

Pages      {url}/ starts a game, a stage timer, a quiz, an auction or an exam; {url}/console shows all sessions
Client     {url}/sdk/syncapp.js (docs/clients.md)
API docs   {url}/api-docs
WebSocket  ws{url.removeprefix("http")}/ws?sessionId={session}{query}
Commands   AUTH=off {urls} \\
             .venv/bin/flask --app wsgi audit status

{_access(settings, listening, again)}
"""


def _token(settings: Settings) -> str:
    try:
        token = Authenticator(settings).mint(sub="make-run", scopes=["admin"], expires_in_s=_TOKEN_S)
    except TokensNotConfigured:
        return "  TOKEN=...   # one of yours: without AUTH_SECRETS, this server signs none\n"
    return f"  TOKEN={token}\n"


def _access(settings: Settings, listening: ListenAddress, again: str) -> str:
    """Return who may do what, and how to try the other mode."""
    if settings.auth == "required":
        return """Callers need a token (AUTH=required). With the AUTH and AUTH_SECRETS of this server, this makes one:

  .venv/bin/flask --app wsgi tokens create --sub ada --scope session:watch"""
    is_private = ipaddress.ip_address(listening.address).is_loopback
    who = (
        f"Everyone on this machine may do everything (AUTH=off, {listening.address})."
        if is_private
        else f"WARNING: everyone who reaches {listening.bind} may do everything (AUTH=off, not only on this machine)."
    )
    if ignored := [name.upper() for name in _KEYS if getattr(settings, name)]:
        return f"""{who}
With AUTH=off, {_listed(ignored)} ignored. To require tokens, stop it, and give AUTH=required, too:

  {again} AUTH=required ..."""
    return f"""{who} To try it with tokens, stop it, and:

  export AUTH=required AUTH_SECRETS=$(openssl rand -hex 32)
  .venv/bin/flask --app wsgi tokens create --sub ada --scope session:watch
  {again}"""


def _listed(names: list[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"


def _shown(url: str) -> str:
    """Return a URL without its password."""
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:...@", url)
