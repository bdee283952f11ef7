"""`flask db`: PostgreSQL's schema."""

from __future__ import annotations

import click

from syncapp.config import Settings
from syncapp.postgres import database


def commands(settings: Settings) -> click.Group:
    """Return the group of commands."""

    @click.group("db")
    def group() -> None:
        """PostgreSQL's schema."""

    @group.command()
    def upgrade() -> None:
        """Apply the missing migrations; with nothing to apply, a role that can only read is enough."""
        try:
            applied = database.upgrade(
                settings.database_url,
                partition_months=settings.audit_partition_months,
                warn=lambda text: click.echo(f"Warning: {text}", err=True),
            )
        except database.UpgradeFailed as error:
            raise click.ClickException(f"the database was not upgraded: {error}") from error
        click.echo(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")

    return group
