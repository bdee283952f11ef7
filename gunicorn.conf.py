from gevent import monkey

monkey.patch_all()  # first of all: a module imported earlier would keep the sockets and locks that block

import contextlib
import errno
import os
import resource
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from typing import Any

import gevent
from gunicorn.workers.ggevent import GeventWorker

# Before prometheus_client is imported anywhere: the workers count together, and any of them answers for all.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="syncapp-metrics-")
    os.environ["SYNCAPP_METRICS_OWNER"] = str(os.getpid())


HANDSHAKE_S = 10
"""How long a new connection may take for its first request."""
SEEN_S = 0.5
"""How long a process that ends at least says so, at `/ready`, before it takes no more connections."""
LAST_WORDS_S = 2.0
"""What clients may take to read to the end, once they are told that the process ends."""


class Worker(GeventWorker):
    """A gevent worker that ends in order: it says so, closes its WebSockets one by one, and answers what runs.

    Gunicorn's own would wait `graceful_timeout` for every browser or router that keeps a connection open.
    """

    ends = False

    def run(self) -> None:
        """Serve until told to stop."""
        self.silent: set[gevent.Greenlet] = set()
        self.greeted: weakref.WeakSet[gevent.Greenlet] = weakref.WeakSet()
        self.cfg.set("graceful_timeout", int(LAST_WORDS_S))  # for the requests that still run at the end
        gevent.spawn(self._end_silent)
        super().run()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin the end, on SIGTERM: of the server, or of a worker that a reload replaces."""
        if not self.ends:
            self.ends = True
            gevent.spawn(self._drain)

    def handle_request(self, *args: Any) -> None:
        """Answer a request; a client that was given up in the middle (`syncapp.wire`) is no error."""
        try:
            super().handle_request(*args)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            raise StopIteration from None

    @contextlib.contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Bound the wait for the next request of a connection, and remember who waits."""
        waiting = gevent.getcurrent()
        limit_s = self.cfg.keepalive if waiting in self.greeted else HANDSHAKE_S
        self.greeted.add(waiting)
        self.silent.add(waiting)
        try:
            with gevent.Timeout(limit_s, False):
                yield
        finally:
            self.silent.discard(waiting)

    def _drain(self) -> None:
        try:
            seen_s = time.monotonic() + SEEN_S
            draining = self.wsgi.extensions["syncapp"].guards.draining
            draining.run()
            end_s = time.monotonic() + LAST_WORDS_S
            while draining.held and time.monotonic() < end_s:
                gevent.sleep(0.05)
            gevent.sleep(max(0.0, seen_s - time.monotonic()))
        finally:
            self.alive = False

    def _end_silent(self) -> None:
        while self.alive:
            gevent.sleep(0.5)
        gevent.sleep(0.5)  # a request that is on its way still gets its answer
        gevent.killall(list(self.silent), StopIteration, block=False)  # gunicorn's word for "no more requests"


# What differs between machines comes from the environment, the rest is decided here.
bind = f"{os.environ.get('HOST') or '0.0.0.0'}:{os.environ.get('PORT') or 8000}"
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
worker_class = Worker
# Counts WebSockets and requests together: without room above WS_MAX_CONNECTIONS health checks would starve.
most_sockets = int(os.environ.get("WS_MAX_CONNECTIONS") or 5000)
worker_connections = int(os.environ.get("WORKER_CONNECTIONS") or most_sockets + 1000)
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


def post_worker_init(worker: Worker) -> None:
    """Start what a web process does besides answering; here, because threads do not survive a fork."""
    worker.wsgi.extensions["syncapp"].sweeper.start()


def worker_exit(server: Any, worker: Worker) -> None:
    """Let another process sweep at once, instead of when the lease of this one has ended."""
    if worker.booted:  # never true in gunicorn's main process, which may call this, too
        worker.wsgi.extensions["syncapp"].sweeper.stop()


def child_exit(server: Any, worker: Any) -> None:
    """Take a worker that is gone out of the gauges."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the metrics' files, if this server made their directory."""
    if os.environ.get("SYNCAPP_METRICS_OWNER") == str(os.getpid()):
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
