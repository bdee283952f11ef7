"""SyncApp: authoritative shared clocks. `create_app` is the only place that wires things together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from syncapp.access.rate_limits import RateLimits
    from syncapp.access.revocations import Revocations
    from syncapp.access.tokens import Authenticator
    from syncapp.audit.last_verification import Verification
    from syncapp.audit.queue_stats import QueueStats
    from syncapp.config import Settings
    from syncapp.history.queries import HistoryQueries
    from syncapp.loops import Loops
    from syncapp.realtime.hub import Hub
    from syncapp.server.admission import Guards
    from syncapp.server.authentication import Gate
    from syncapp.store.bucket_record import BucketGuard
    from syncapp.store.clock_steps import ClockStepWatch
    from syncapp.store.health import StoreHealth
    from syncapp.store.links import LinkStore
    from syncapp.store.node_sweepers import NodeSweepers
    from syncapp.store.session_list import SessionList
    from syncapp.store.sessions import SessionStore
    from syncapp.store.sweeper import Sweeper

__version__ = "0.1.0"
"""Version of this release: the only place that states it; the API and its documents show it."""


@dataclass(frozen=True)
class Services:
    """The services that routes use; kept as `app.extensions["syncapp"]`.

    queue: reads the counts of the audit queue from the store. verification: reads from it the outcome of the last
    `flask audit verify`. store_health, audit_fault: check the store and PostgreSQL for `/ready`. worries: further
    problems that `/ready` reports. bucket_guard: refuses the use of sessions while the store has another number of
    buckets. server_loops, check_queue: turns of loops that watch servers. loops: the background loops of this process.
    links: the links of sessions. revocations: the revoked tokens. gate: admits WebSockets, streams and long polls.
    authenticator: verifies the tokens of callers, and makes those of links. batch_calls: has the store's commands of
    several greenlets sent together.
    """

    settings: Settings
    store: SessionStore
    session_list: SessionList
    hub: Hub
    sweeper: Sweeper | NodeSweepers
    guards: Guards
    limits: RateLimits
    queue: Callable[[], QueueStats]
    verification: Callable[[], Verification | None]
    history: HistoryQueries
    store_health: Callable[[], StoreHealth]
    audit_fault: Callable[..., str | None]
    worries: Callable[[], list[str]]
    bucket_guard: BucketGuard
    clock_watch: ClockStepWatch
    server_loops: Mapping[str, Callable[[], float]]
    check_queue: Callable[[], float] | None
    loops: Loops
    authenticator: Authenticator
    links: LinkStore
    revocations: Revocations
    gate: Gate
    batch_calls: Callable[[], None]
    stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start the background loops of a web process; call it only after the fork."""
        self.batch_calls()
        self.sweeper.start()
        # The check logs at the start what /ready would report.
        threading.Thread(target=self.store_health, name="store_health", daemon=True).start()
        self.loops.start("clock_watch", self.bucket_guard.before(self.clock_watch.turn), self.stopped)
        for name, turn in self.server_loops.items():
            self.loops.start(name, turn, self.stopped)
        if self.check_queue:
            self.loops.start("queue_server", self.check_queue, self.stopped)
        self.authenticator.start()
        if self.authenticator.required:
            self.loops.start("revocations", self.revocations.turn, self.stopped)

    def stop(self) -> None:
        """Stop the background loops; another process can sweep at once."""
        self.stopped.set()
        self.sweeper.stop()


def create_app(settings: Settings | None = None, *, partials: Mapping[str, str] | None = None) -> Flask:
    """Return the application; nothing starts before the first request.

    settings: by default those of the environment, with the store's number of buckets if `SYNC_BUCKETS` is not set.
    partials: Lua partials that replace files, for tests that set the clock. Raises `SettingsError` if the environment
    is invalid.
    """
    # Imported here, so that the worker and users of SessionStore do not load Flask.
    import structlog
    from flask import Flask
    from werkzeug.middleware.proxy_fix import ProxyFix

    from syncapp import cli, config, logs, task_queue
    from syncapp.access.client_address import ForwardedFor
    from syncapp.access.rate_limits import RateLimits
    from syncapp.access.revocations import Revocations
    from syncapp.access.tokens import Authenticator
    from syncapp.alerts import Alerts
    from syncapp.api import (
        batch,
        clock_text,
        pages,
        request_hooks,
        responses,
        session_list,
        sessions,
        streams,
        system,
    )
    from syncapp.api import history as history_api
    from syncapp.api import (
        links as links_api,
    )
    from syncapp.api.front import Front
    from syncapp.api.reference import asyncapi
    from syncapp.audit.drain_requests import DrainRequests
    from syncapp.audit.last_failure import LastFailure
    from syncapp.audit.last_verification import LastVerification
    from syncapp.audit.outbox import Outbox
    from syncapp.audit.queue_stats import QueueCounts
    from syncapp.config import Settings
    from syncapp.history.queries import HistoryQueries
    from syncapp.history.read_pool import ReadPool
    from syncapp.history.recovery import Recovery
    from syncapp.loops import Loops
    from syncapp.postgres.check import check
    from syncapp.queue_server import QueueServer
    from syncapp.realtime.hub import Hub
    from syncapp.server import websocket
    from syncapp.server.admission import Guards
    from syncapp.server.authentication import Gate
    from syncapp.server.command_queue import CommandPool
    from syncapp.server.command_runner import Backend
    from syncapp.server.connection_loop import ConnectionLoop
    from syncapp.store.bucket_record import BucketGuard, following
    from syncapp.store.client import connect as connect_store
    from syncapp.store.client import server_loops, servers_of
    from syncapp.store.clock_steps import ClockStepWatch
    from syncapp.store.connection_pool import pool_of
    from syncapp.store.health import StoreCheck
    from syncapp.store.keys import Keyspace
    from syncapp.store.links import LinkStore
    from syncapp.store.node_metrics import NodeMetrics
    from syncapp.store.node_sweepers import make_sweeper
    from syncapp.store.process_registry import ProcessRegistry
    from syncapp.store.replication import Replication
    from syncapp.store.session_list import SessionList
    from syncapp.store.sessions import SessionStore
    from syncapp.tasks import enqueue_drain

    settings = settings or following(Settings.from_env())
    logs.configure(settings)
    for name in config.renamed():
        structlog.get_logger(__name__).warning("setting renamed", given=name, use=config.RENAMED[name])
    loops = Loops()
    client, keys = connect_store(settings), Keyspace(settings.sync_buckets)
    bucket_guard = BucketGuard.of(client, settings)
    on_nudge = DrainRequests(enqueue_drain, loops=loops).nudge
    read_pool = ReadPool(
        settings.database_url, connections=settings.history_connections, timeout_s=settings.history_timeout_s
    )
    plain_store = SessionStore(client, settings, on_nudge=on_nudge, partials=partials, guard=bucket_guard)
    outbox = Outbox(client, keys)
    history = HistoryQueries(read_pool, plain_store.time_ms, outbox.has_undrained)
    recovery = Recovery(plain_store, history, outbox, settings)
    on_miss = recovery.on_miss if settings.recover_on_miss else None
    store = SessionStore(client, settings, on_nudge=on_nudge, on_miss=on_miss, partials=partials, guard=bucket_guard)
    # The sweeper has its own connection, so that expiries and requests never wait for each other.
    sweeper_client = connect_store(settings, max_connections=1)
    sweeper_store = SessionStore(sweeper_client, settings, on_nudge=on_nudge, partials=partials, guard=bucket_guard)
    sweeper = make_sweeper(sweeper_client, sweeper_store, settings, loops)
    hub = Hub(settings, read=store.read, attend=plain_store.attend, cached=store.cached, client=client, loops=loops)
    guards, limits = Guards(settings, loops), RateLimits(settings, store.cached, store.read)
    links = LinkStore(client, keys, Replication.of(client, settings), bucket_guard)
    revocations = Revocations(links)
    authenticator = Authenticator(settings, revocations.is_revoked)
    gate = Gate(authenticator, revocations, settings.auth_leeway_s)
    processes = ProcessRegistry(client, keys, kind="web", loops=loops, is_away=lambda: bucket_guard.is_moving)
    servers = servers_of(settings)
    clock_watch = ClockStepWatch(client, keys, processes, server=servers[0], alert=Alerts(settings))

    queue_server = QueueServer(settings, task_queue.connect(settings, client, max_connections=1))
    last_failure = LastFailure(client, keys)

    def audit_fault(*, ask_store: bool) -> str | None:
        failure = check(settings.database_url) or (last_failure.read() if ask_store else None)
        return failure.sentence if failure else None

    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # otherwise Flask answers // with a redirect to whatever Host was sent
    app.url_map.strict_slashes = False
    # No route is a coroutine, so Flask need not check each call.
    app.ensure_sync = lambda func: func  # type: ignore[method-assign]  # Flask's own hook
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.extensions["syncapp"] = Services(
        settings,
        store,
        SessionList(client, keys, plain_store),
        hub,
        sweeper,
        guards,
        limits,
        queue=QueueCounts(client, keys, queue_server.scheduled_count).read,
        verification=LastVerification(client, keys).read,
        history=history,
        store_health=StoreCheck(client, plain_store.check).health,
        audit_fault=audit_fault,
        worries=lambda: [
            *(worry for server in servers for worry in server.worries()),
            *queue_server.worries(),
            *clock_watch.worries(),
            *processes.update_metric(),
            *authenticator.worries(),
        ],
        bucket_guard=bucket_guard,
        clock_watch=clock_watch,
        server_loops={**server_loops(settings), "node_metrics": NodeMetrics(client, keys).turn},
        check_queue=queue_server.turn,
        loops=loops,
        authenticator=authenticator,
        links=links,
        revocations=revocations,
        gate=gate,
        batch_calls=pool_of(client).batch_calls,
    )
    request_hooks.register(app, settings, guards.origins)
    responses.register(app)
    app.register_blueprint(sessions.blueprint)
    app.register_blueprint(session_list.blueprint)
    app.register_blueprint(batch.blueprint)
    app.register_blueprint(clock_text.blueprint)
    app.register_blueprint(streams.blueprint)
    app.register_blueprint(links_api.blueprint)
    app.register_blueprint(asyncapi.blueprint)
    app.register_blueprint(history_api.blueprint)
    app.register_blueprint(system.blueprint)
    pages.register(app)
    loop = ConnectionLoop()
    pool = CommandPool(settings.redis_max_connections // 2 or 1, loop.run)
    backend = Backend(settings, store, hub, pool, limits, guards.quotas, gate, guards.shutdown, loop)
    websocket.register(app, backend, guards)
    app.wsgi_app = Front(app)  # type: ignore[method-assign]  # the documented way to add middleware
    if settings.proxy_hops:
        forwarded = ForwardedFor(app.wsgi_app, settings.proxy_hops)
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # as above
            forwarded, x_for=0, x_proto=settings.proxy_hops, x_host=0
        )
    cli.register(app, settings)
    return app
