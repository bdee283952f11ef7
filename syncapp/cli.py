"""Commands of `flask`: the database's schema, and the audit trail."""

from __future__ import annotations

import click
from flask import Flask

from syncapp import cli_audit, cli_sessions, db
from syncapp.config import Settings


def register(app: Flask, settings: Settings) -> None:
    """Add the commands to an application."""
    app.cli.add_command(_database_commands(settings))
    app.cli.add_command(cli_audit.commands(settings))
    app.cli.add_command(cli_sessions.commands(settings))


def _database_commands(settings: Settings) -> click.Group:
    @click.group("db")
    def group() -> None:
        """PostgreSQL's schema."""

    @group.command()
    def upgrade() -> None:
        """Apply the missing migrations; with nothing to apply, a role that can only read is enough."""
        try:
            applied = db.upgrade(
                settings.database_url,
                partition_months=settings.audit_partition_months,
                warn=lambda text: click.echo(f"Warning: {text}", err=True),
            )
        except db.UpgradeFailed as error:
            raise click.ClickException(f"the database was not upgraded: {error}") from error
        click.echo(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")

    return group
