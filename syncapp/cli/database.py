"""`flask db`: the schema of PostgreSQL."""

from __future__ import annotations

import click

from syncapp.config import Settings
from syncapp.postgres import schema
from syncapp.postgres.migrations import UpgradeFailed


def commands(settings: Settings) -> click.Group:
    """Return the group of commands."""

    @click.group("db")
    def group() -> None:
        """Manage PostgreSQL's schema."""

    @group.command()
    def upgrade() -> None:
        """Apply missing migrations.

        If none is missing, a read-only role is enough.
        """
        try:
            applied = schema.upgrade(
                settings.database_url,
                partition_months=settings.audit_partition_months,
                warn=lambda text: click.echo(f"Warning: {text}", err=True),
            )
        except UpgradeFailed as error:
            raise click.ClickException(f"the database was not upgraded: {error}") from error
        click.echo(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")

    return group
