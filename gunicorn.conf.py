from gevent import monkey

monkey.patch_all()  # before all other imports: a module imported earlier would keep blocking sockets and locks

import os
import resource
import shutil
import signal
import tempfile
from typing import Any

from syncapp.config import Settings, stop_if_wrong
from syncapp.server.gunicorn_worker import GunicornWorker
from syncapp.server.listen_address import ListenAddress

# Checked before anything starts: in a worker, an invalid setting would end in a traceback.
with stop_if_wrong():
    settings = Settings.from_env()
    listen_address = ListenAddress.of(settings)

# Set before prometheus_client is imported anywhere: the workers then share their counts, and any of them can show all.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="syncapp-metrics-")
    os.environ["SYNCAPP_METRICS_OWNER"] = str(os.getpid())

# What differs between machines comes from the environment; the rest is set here.
bind = listen_address.bind
workers = settings.web_concurrency
worker_class = GunicornWorker
# WebSockets and requests count together: without room above WS_MAX_CONNECTIONS, health checks could not connect.
worker_connections = settings.worker_connections or settings.ws_max_connections + 1000
# Each connection needs a file descriptor, and the usual limit of 1,024 is too low for a server.
files, max_files = resource.getrlimit(resource.RLIMIT_NOFILE)
wanted_files = worker_connections + settings.ws_max_connections + 1000
if max_files != resource.RLIM_INFINITY:
    wanted_files = min(wanted_files, max_files)
if files < wanted_files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted_files, max_files))
max_requests = 0  # a restart of the worker would close its WebSockets

timeout = 30
graceful_timeout = 15  # a worker is gone after 10 s; platforms kill 30 s after SIGTERM
keepalive = 95  # longer than a router's idle limit, so that the router closes first

limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
forwarded_allow_ips = ""  # only the application decides which proxies to trust, by PROXY_HOPS

accesslog = None  # a log line per request costs more than the request; /metrics counts requests
errorlog = "-"
control_socket_disable = True
# The heartbeat file must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def post_worker_init(worker: GunicornWorker) -> None:
    """Start the background loops of a web process; here, because threads do not survive a fork."""
    # Imported only here: gunicorn's main process must not have metrics of its own.
    from syncapp.server.garbage_collector import GarbageCollector

    services = worker.wsgi.extensions["syncapp"]
    if guard := getattr(services, "bucket_guard", None):  # the floor of a benchmark has none
        # The store did not answer when this process took the default number of buckets: a new process asks again.
        guard.on_other = lambda: os.kill(os.getpid(), signal.SIGTERM)
    services.start()
    GarbageCollector().start(services.loops, services.stopped)


def worker_exit(server: Any, worker: GunicornWorker) -> None:
    """Let another process sweep at once, instead of after this one's lease has expired."""
    if worker.booted:  # never true in gunicorn's main process, which may also call this
        worker.wsgi.extensions["syncapp"].stop()


def child_exit(server: Any, worker: Any) -> None:
    """Remove a worker that has ended from the gauges."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the files of the metrics, if this server created their directory."""
    if os.environ.get("SYNCAPP_METRICS_OWNER") == str(os.getpid()):
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
