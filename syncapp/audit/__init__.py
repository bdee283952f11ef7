"""The audit trail: from the outbox into PostgreSQL, each event once."""
