"""Connections: the gunicorn worker, WebSockets and server-sent events."""
