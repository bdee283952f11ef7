"""The `flask` commands for operators: schema, audit log, sessions, tokens and time controls."""

from __future__ import annotations

from flask import Flask

from syncapp.cli import audit, database, sessions, time_control, tokens
from syncapp.config import Settings


def register(app: Flask, settings: Settings) -> None:
    """Add the commands to the application."""
    app.cli.add_command(database.commands(settings))
    app.cli.add_command(audit.commands(settings))
    app.cli.add_command(sessions.commands(settings))
    app.cli.add_command(tokens.commands(settings))
    app.cli.add_command(time_control.commands())
