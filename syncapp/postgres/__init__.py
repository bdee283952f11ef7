"""PostgreSQL: connections, schema and its upgrades, checks, and failures."""
