"""Coverage of the processes that tests start."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

COVERAGE_CONFIG = "COVERAGE_PROCESS_CONFIG"
"""The variable that has coverage trace a process."""


def traced(env: Mapping[str, str], concurrency: str) -> dict[str, str]:
    """Return the environment with what coverage shall trace in its processes: "gevent" or "thread".

    Never both: coverage would share one lock among them, and under gevent a greenlet that waits for a lock which a
    native thread releases may wait for ever.
    """
    if not (text := env.get(COVERAGE_CONFIG)):
        return dict(env)
    config = json.loads(base64.b64decode(text)) | {"concurrency": [concurrency]}
    return {**env, COVERAGE_CONFIG: base64.b64encode(json.dumps(config).encode()).decode()}
