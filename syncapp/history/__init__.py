"""Answers from the audit log, and recovery of lost sessions."""
