from gevent import monkey

monkey.patch_all()  # first of all: a module imported earlier would keep the sockets and locks that block

import gc
import os
import resource
import shutil
import tempfile
from typing import Any

from syncapp.config import Settings, stop_if_wrong
from syncapp.server.gunicorn_worker import GunicornWorker
from syncapp.server.listen_address import ListenAddress

# Checked before anything starts: in a worker, an invalid setting would end in a traceback.
with stop_if_wrong():
    settings = Settings.from_env()
    listening = ListenAddress.of(settings)

# Before prometheus_client is imported anywhere: the workers count together, and any of them answers for all.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="syncapp-metrics-")
    os.environ["SYNCAPP_METRICS_OWNER"] = str(os.getpid())

# What differs between machines comes from the environment, the rest is decided here.
bind = listening.bind
workers = settings.web_concurrency
worker_class = GunicornWorker
# Counts WebSockets and requests together: without room above WS_MAX_CONNECTIONS health checks would starve.
worker_connections = settings.worker_connections or settings.ws_max_connections + 1000
# Each connection is a file, and the usual limit of 1024 is for people, not for servers.
files, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
wanted_files = worker_connections + 1000
if most_files != resource.RLIM_INFINITY:
    wanted_files = min(wanted_files, most_files)
if files < wanted_files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted_files, most_files))
max_requests = 0  # a restart would take the worker's WebSockets with it

timeout = 30
graceful_timeout = 15  # a worker is gone after 10 s; platforms kill 30 s after SIGTERM
keepalive = 95  # longer than a router's idle limit, so that the router closes first

limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
forwarded_allow_ips = ""  # the app alone decides whom to believe, by PROXY_HOPS

accesslog = None  # one line a request costs more than the request; /metrics counts them
errorlog = "-"
control_socket_disable = True
# The heartbeat file must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def post_worker_init(worker: GunicornWorker) -> None:
    """Start what a web process does besides answering; here, because threads do not survive a fork."""
    worker.wsgi.extensions["syncapp"].start()
    # What is there by now stays: a collection that looked at all of it would keep everybody waiting.
    gc.collect()
    gc.freeze()


def worker_exit(server: Any, worker: GunicornWorker) -> None:
    """Let another process sweep at once, instead of when the lease of this one has ended."""
    if worker.booted:  # never true in gunicorn's main process, which may call this, too
        worker.wsgi.extensions["syncapp"].stop()


def child_exit(server: Any, worker: Any) -> None:
    """Take a worker that is gone out of the gauges."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the metrics' files, if this server made their directory."""
    if os.environ.get("SYNCAPP_METRICS_OWNER") == str(os.getpid()):
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
