"""The application that gunicorn and the `flask` command load."""

from syncapp import create_app
from syncapp.config import load
from syncapp.store.bucket_record import following

app = create_app(following(load()))
