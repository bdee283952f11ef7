"""Rules that a schema cannot express: the only reasons to refuse a request that fits it. Loaded by schemathesis."""

from __future__ import annotations

import re

import schemathesis  # type: ignore[import-not-found]  # lives in an environment of its own

BETWEEN_FIELDS = {
    # of a create: mode, participants, groups and times
    "missing", "not_in_mode", "sum_mismatch", "duplicate", "unknown_group", "participant_index", "too_short",
    "less_than_equal",
    # of other requests
    "contradiction", "negative", "backwards", "one_of", "needs_version", "in_future", "random_uuid",
    # of the session that it is for
    "unknown_participant", "expired_participant", "no_budget",
    # of a caller's document as a whole
    "nul_character", "too_large", "number_too_large",
}  # fmt: skip


@schemathesis.check  # type: ignore[untyped-decorator]  # the library has no types for it
def refused_for_a_rule_between_fields(ctx: object, response: schemathesis.Response, case: schemathesis.Case) -> None:
    if response.status_code != 400 or not (case.meta and case.meta.generation.mode.is_positive):
        return
    error = response.json()["error"]
    if error["code"] == "INVALID_STATE_TRANSITION":
        return
    assert error["code"] == "VALIDATION_ERROR", error["message"]
    # If-None-Match counts only with wait_ms, and a batch's args are those of its command.
    faults = [
        fault for fault in error.get("details") or () if not fault["field"].startswith(("If-None-Match", "args."))
    ]
    codes = {fault["code"] for fault in faults} - BETWEEN_FIELDS
    if re.search(r"[0-9]\.0\b", str(case.body)):
        codes.discard("int_type")  # 1.0 is a whole number for a schema, and none for the server, as it says
    if '"' not in case.headers.get("If-Match", '"'):
        codes.discard("etag")  # schemathesis 4.32 sends some without quotes in its coverage phase, against the pattern
    assert not codes, f"the schema allows what the server refuses: {error['message']}"
