"""PostgreSQL: connections, migrations, and what can be wrong with it."""
