"""Commands of `flask`, run in the process of the tests."""

from __future__ import annotations

from collections.abc import Callable

from click.testing import Result
from flask import Flask

from syncapp import cli
from syncapp.config import Settings
from tests.support.captured_logs import capture_own_logs

FlaskCommand = Callable[..., Result]
"""Runs the command with these words."""


def run_flask(settings: Settings, *words: str) -> Result:
    """Run a command of `flask` with these settings, without the rest of the application."""
    app = Flask("test")
    cli.register(app, settings)
    with capture_own_logs():  # while logging is not configured, log lines would go to standard output
        return app.test_cli_runner().invoke(args=words)
