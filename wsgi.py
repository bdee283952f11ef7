"""The application that gunicorn and the `flask` command load."""

from syncapp import create_app

app = create_app()
