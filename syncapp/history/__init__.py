"""Queries of the audit log, and recovery of sessions that Redis has lost."""
