"""The floor of REST: a Flask route with one EVALSHA, under the same gunicorn settings."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import redis
from flask import Flask

from bench.rig import BARE
from syncapp.config import Settings
from syncapp.loops import Loops
from syncapp.server.admission import Guards

app = Flask(__name__, static_folder=None)
settings = Settings.from_env()
app.extensions["syncapp"] = SimpleNamespace(
    settings=settings,
    guards=Guards(settings),
    loops=Loops(),
    stopped=threading.Event(),
    start=lambda: None,
    stop=lambda: None,
)
client = redis.Redis.from_url(os.environ["REDIS_URL"])
sha = client.script_load(BARE)
client.close()


@app.route("/bare/<name>", methods=["GET", "POST"])
def bare(name: str) -> str:
    """Answer with the script's reply."""
    reply: list[bytes] = client.evalsha(sha, 1, name, "x")
    return reply[1].decode()


@app.get("/ready")
def ready() -> str:
    """Report that the app is running."""
    return "ok"
