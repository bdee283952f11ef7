"""The application that gunicorn and the `flask` command load."""

from syncapp import create_app
from syncapp.config import load

app = create_app(load())
