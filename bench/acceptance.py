"""The acceptance list of the seed document: each row with the tests that show that SyncApp meets it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A row: what the list asked for, what SyncApp has, and the tests (as pytest names them, without `tests/`).

    measured: a key of `validation.measured` that must be true, too.
    """

    asked: str
    here: str
    tests: tuple[str, ...] = ()
    measured: str = ""


ROWS = (
    Row(
        "1.1 All dependencies installed",
        "exact versions in `requirements*.txt`; `make` installs them",
        ("dev/test_make_run.py::test_every_requirement_is_pinned",),
    ),
    Row("1.1 TypeScript compiles without errors", "mypy, strict, over app, tests and bench", measured="types"),
    Row("1.1 ESLint and Prettier configured", "ruff checks and formats", measured="lint"),
    Row(
        "1.1 Project structure created",
        "packages, and a table of imports between them that a test enforces",
        (
            "test_architecture.py::test_imports_go_in_the_direction_of_the_table",
            "test_architecture.py::test_frameworks_stay_where_they_belong",
        ),
    ),
    Row(
        "1.1 `.env.example` with all config variables",
        "compared with the settings and the README's table",
        ("test_config.py",),
    ),
    Row(
        "1.2 All CRUD operations implemented",
        "`SessionStore`: create, get, seven commands, update, delete",
        (
            "store/test_sessions.py::test_a_new_session_is_pending_at_version_1_and_its_epoch_is_its_instant",
            "store/test_metadata.py::test_metadata_takes_merge_patches_in_any_status",
            "store/test_sessions.py::test_delete_is_final_and_a_new_session_of_this_id_has_a_later_epoch",
            "api/test_sessions.py::test_a_game_from_start_to_finish",
        ),
    ),
    Row(
        "1.2 Optimistic locking working",
        "compare-and-set by epoch and version, inside the script",
        (
            "store/test_sessions.py::test_a_conflict_carries_both_versions_and_the_current_state",
            "system/test_race.py::test_of_fifty_with_the_same_expected_version_one_wins",
        ),
    ),
    Row(
        "1.2 Redis Pub/Sub cross-instance communication",
        "each commit published by its script; one subscription per session and process",
        (
            "realtime/test_hub.py::test_a_watcher_is_told_the_state_and_then_every_commit_as_the_store_has_it",
            "realtime/test_hub.py::test_a_missed_message_is_noticed_at_the_next_and_repaired",
        ),
    ),
    Row("1.2 >90% test coverage", "the store: see the table of coverage", measured="store coverage"),
    Row("1.2 Performance targets met (<5ms operations)", "see the seed's targets", measured="seed targets"),
    Row(
        "1.3 Migrations run successfully",
        "plain SQL files, in order, once, under a lock",
        (
            "postgres/test_migrations.py::test_upgrade_applies_every_file_in_order_and_then_nothing",
            "postgres/test_migrations.py::test_two_upgrades_at_once_apply_each_file_once",
        ),
    ),
    Row(
        "1.3 All tables and indexes created",
        "`migrations/`, sync_events partitioned by month",
        ("postgres/test_database.py::test_the_sql_function_makes_each_month_once_also_when_two_ask",),
    ),
    Row(
        "1.3 Connection pool working",
        "one connection per worker thread, replaced when lost",
        (
            "postgres/test_database.py::test_a_lost_connection_is_replaced_by_the_next_transaction",
            "postgres/test_database.py::test_each_thread_has_a_connection_and_a_failed_transaction_leaves_it_clean",
        ),
    ),
    Row(
        "1.3 Integration tests created (14)",
        "every test of `tests/postgres` and `tests/audit/test_log.py` on a real PostgreSQL",
        ("postgres",),
    ),
    Row(
        "1.4 BullMQ queue processing jobs",
        "outbox streams, drained by Huey tasks",
        (
            "system/test_workers.py::test_when_all_is_well_an_event_is_stored_without_waiting_for_a_sweep",
            "audit/test_drain.py::test_a_drain_moves_everything_in_batches_and_leaves_an_empty_stream",
        ),
    ),
    Row(
        "1.4 Retry logic working (5 attempts)",
        "Huey retries after 2, 4, 8, 16, 32 s; then an alert, and the sweep goes on",
        (
            "test_tasks.py::test_while_a_retry_waits_nudges_leave_its_bucket_alone",
            "test_tasks.py::test_the_last_retry_is_told_at_critical_and_the_sweep_begins_anew",
            "system/test_workers.py::test_events_of_an_outage_of_postgresql_all_arrive_after_it",
        ),
    ),
    Row(
        "1.4 Integration with RedisStateManager complete",
        "one row for each acknowledged commit, whatever process is killed",
        (
            "system/test_race.py::test_acknowledged_switches_are_versions_cycles_and_rows",
            "system/test_faults.py::test_a_killed_worker_neither_loses_nor_doubles_an_event",
        ),
    ),
    Row("1.4 >85% test coverage", "outbox, drains, audit, tasks: see the table of coverage", measured="audit coverage"),
    Row(
        "1.4 Non-blocking async writes",
        "no request waits for PostgreSQL",
        ("system/test_faults.py::test_an_outage_of_postgresql_is_not_seen_by_clients_and_loses_nothing",),
    ),
    Row("1.5 Code review passed (zero instance-local state)", "see above", measured="no local state"),
    Row(
        "1.5 Multi-instance test passed",
        "the run of two processes above, and the tests with two",
        ("system/test_race.py::test_a_killed_web_process_takes_no_acknowledged_switch_with_it",),
        measured="relay",
    ),
    Row("1.5 Performance validation passed", "see the seed's targets", measured="seed targets"),
    Row("1.5 Test coverage validated (>80%)", "overall", measured="overall coverage"),
    Row(
        "1.5 Documentation complete",
        "this page, docs/ and README, which tests check",
        ("dev/test_make_run.py::test_make_help_lists_every_target",),
    ),
)
