"""`python -m syncapp [COMMAND …]`: check the settings, then become the command, if there is one.

The Procfile starts gunicorn and Huey with it. gunicorn reads WEB_CONCURRENCY, and Huey WORKER_THREADS as an option,
before any code of SyncApp runs: a value that is not a number would end in a traceback or in an error about `-w`.
"""

from __future__ import annotations

import os
import sys

from syncapp.config import load

load()
if command := sys.argv[1:]:
    os.execvp(command[0], command)  # noqa: S606 the command comes from the Procfile
