"""The audit trail: moves events from the outbox to PostgreSQL, each exactly once."""
