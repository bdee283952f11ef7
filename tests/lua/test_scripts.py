"""The scripts keep the contract that their headers state."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

import lupa.lua51
import pytest
import redis as redis_py

from syncapp import errors
from syncapp.domain import control_clock, control_text, session_layout
from syncapp.domain.principal import Principal
from syncapp.domain.results import Claim, Costs
from syncapp.domain.schemas import CreateSession
from syncapp.store import functions, scripts
from syncapp.store.keys import Keyspace
from tests.lua import mutants
from tests.support.store import ManualClock, chess_request, dump_session, make_store

DOCS = scripts.LUA_DIR.parent / "docs"
COMMANDS = scripts.names()
OF_BUCKETS = [name for name in COMMANDS if name.startswith(("charge_", "refund_"))]
"""Scripts on the keys of a principal or of all tenants, with keys and arguments of their own."""
OF_SESSIONS = [name for name in COMMANDS if name not in OF_BUCKETS]
PARTIALS = sorted(path.stem for path in scripts.LUA_DIR.glob("_*.lua"))
# The globals that Redis provides, and the functions of Lua's library that scripts may use.
KNOWN_GLOBALS = {"redis", "cjson", "KEYS", "ARGV", "string", "table", "math"} | {
    "assert", "error", "ipairs", "next", "pairs", "tonumber", "tostring", "type", "unpack",
}  # fmt: skip
READING = {"GET", "HGET", "HMGET", "ZCARD", "INFO", "TIME", "XLEN", "ZMSCORE"}
WRITING = {"DEL", "HDEL", "HSET", "PERSIST", "PEXPIREAT", "SET", "XADD", "ZADD", "ZREM", "PUBLISH"}
RETURNED = re.compile(r"(?:refuse|reply)\('(\w+)'|'(\w+)' (?:and|or) '(\w+)'|or '(unknown\w+)'|\[1\] = '(\w+)'")


def source(name: str) -> str:
    return (scripts.LUA_DIR / f"{name}.lua").read_text()


def header(name: str) -> str:
    return source(name).split("-- @include", 1)[0]


def code(text: str) -> str:
    return re.sub(r"--[^\n]*", "", text)


def bytecode_globals(chunk: bytes) -> Iterator[tuple[str, str]]:
    """Yield (get or set, name) of every global that compiled Lua 5.1 uses, as `luac -l` would list them."""
    at = 12

    def number(size: int = 4) -> int:
        nonlocal at
        value = int.from_bytes(chunk[at : at + size], "little")
        at += size
        return value

    def text() -> str:
        nonlocal at
        size = number(8)
        value = chunk[at : at + size]
        at += size
        return value[:-1].decode()

    def constant() -> str | None:
        nonlocal at
        kind = number(1)
        if kind == 4:
            return text()
        at += {0: 0, 1: 1, 3: 8}[kind]
        return None

    def function() -> Iterator[tuple[str, str]]:
        nonlocal at
        text()
        at += 4 + 4 + 4
        instructions = [number() for _ in range(number())]
        constants = [constant() for _ in range(number())]
        operations = {5: "get", 7: "set"}
        yield from ((operations[w & 63], str(constants[w >> 14])) for w in instructions if w & 63 in operations)
        for _ in range(number()):
            yield from function()
        lines = number()
        at += 4 * lines
        for _ in range(number()):
            text()
            at += 8
        for _ in range(number()):
            text()

    assert struct.unpack("4sBBBBBBBB", chunk[:12]) == (b"\x1bLua", 0x51, 0, 1, 4, 8, 4, 8, 0)
    yield from function()


def compiled(text: str) -> bytes:
    text = re.sub(r"^#!.*", "", text)  # the server reads this line itself
    lua = lupa.lua51.LuaRuntime(encoding=None)
    function = lua.eval(b"function(text) return string.dump(assert(loadstring(text))) end")
    return bytes(function(text.encode()))


@pytest.mark.parametrize("name", [*COMMANDS, *PARTIALS])
def test_every_script_and_partial_compiles_and_uses_no_accidental_global(name: str) -> None:
    used = set(bytecode_globals(compiled(scripts.expand(name))))
    assert {name for kind, name in used if kind == "set"} == set()
    assert {name for kind, name in used if kind == "get"} <= KNOWN_GLOBALS


@pytest.mark.parametrize("name", COMMANDS)
def test_the_server_takes_every_script(name: str, redis: redis_py.Redis) -> None:
    redis.script_load(scripts.expand(name))


def test_the_server_takes_the_library_of_functions_and_it_uses_no_accidental_global(redis: redis_py.Redis) -> None:
    name, library = scripts.library()
    used = set(bytecode_globals(compiled(library)))
    assert {name for kind, name in used if kind == "set"} == set()
    assert {name for kind, name in used if kind == "get"} <= KNOWN_GLOBALS - {"KEYS", "ARGV"}
    redis.function_flush("SYNC")
    redis.function_load(library)
    ((_, found, *_),) = redis.function_list()
    assert found == name.encode()
    assert all(f"'{name}_{script}'" in library for script in COMMANDS)


def test_the_library_defines_what_the_scripts_define() -> None:
    def defined(name: str) -> set[str]:
        definitions = scripts.expand(name).split(functions.CALL_MARK)[0]
        return set(re.findall(r"^local function (\w+)", definitions, re.MULTILINE))

    assert set().union(*map(defined, COMMANDS)) == defined("_all")


@pytest.mark.parametrize("name", COMMANDS)
def test_what_precedes_the_calls_depends_on_none_and_a_function_may_keep_it(name: str) -> None:
    definitions, each_call = scripts.expand(name).split(functions.CALL_MARK)
    assert not re.search(r"\b(KEYS|ARGV)\b", code(definitions))
    assert re.search(r"\bKEYS\b", code(each_call))
    outer = [line for line in code(definitions).splitlines() if line and not line.startswith(("#!", "  ", "}", "end"))]
    assert [line for line in outer if not re.match(r"local (function \w+\(|[A-Z_, ]+ = )", line)] == []
    assert not re.search(r"\b[A-Z][A-Z_]+(\.\w+|\[[^]]+\]) = ", code(definitions + each_call))  # constants stay so


@pytest.mark.parametrize("name", COMMANDS)
def test_no_definition_hides_another_one(name: str) -> None:
    definitions = scripts.expand(name).split(functions.CALL_MARK)[0]
    defined = re.findall(r"^local function (\w+)", definitions, re.MULTILINE)
    assert len(defined) == len(set(defined))


@pytest.mark.parametrize("name", [name for name in PARTIALS if name != "_arguments"])
def test_partials_read_neither_keys_nor_arguments(name: str) -> None:
    assert not re.search(r"\b(KEYS|ARGV)\b", code(source(name)))


def declared(name: str, table: str) -> list[int]:
    """Numbers of the keys or arguments that a header describes."""
    block = re.search(rf"-- {table}  ((?:.|\n--  )*)", source(name).split("\nlocal ", 1)[0])
    return [int(n) for n in re.findall(r"(?<!\S)(\d+)(?:…)? ", block[1])] if block else []


def used(name: str, table: str) -> list[int]:
    """Numbers of the keys or arguments that a script or partial reads itself, in the order of the code."""
    text = code(source(name))
    numbers = re.findall(rf"{table}\[(\d+)\]", text) + re.findall(rf"unpack\({table}, (\d+)\)", text)
    assert len(numbers) == len(re.findall(rf"\b{table}\b", text))  # no other form
    return [int(n) for n in numbers]


def test_the_shared_keys_and_arguments_are_declared_and_each_is_named_once() -> None:
    assert declared("_arguments", "KEYS") == used("_arguments", "KEYS") == list(range(1, 11))
    assert declared("_arguments", "ARGV") == used("_arguments", "ARGV") == list(range(1, 16))


@pytest.mark.parametrize("name", OF_BUCKETS)
def test_keys_and_arguments_of_buckets_are_declared_and_each_is_named_once(name: str) -> None:
    assert "_arguments" not in re.findall(r"@include (_\w+)", source(name))
    for table in ("KEYS", "ARGV"):
        assert declared(name, table) == used(name, table) == list(range(1, 1 + len(used(name, table))))
        assert declared(name, table)


@pytest.mark.parametrize("name", OF_SESSIONS)
def test_declared_arguments_are_the_used_ones_and_each_is_named_once(name: str) -> None:
    top = re.findall(r"^-- @include (_\w+)", source(name), re.MULTILINE)
    assert top[-1] == "_arguments"
    assert declared(name, "KEYS") == used(name, "KEYS") == []
    assert declared(name, "ARGV") == used(name, "ARGV") == list(range(16, 16 + len(used(name, "ARGV"))))


@pytest.mark.parametrize("name", COMMANDS)
def test_declared_replies_are_known_words_and_the_used_ones_are_declared(name: str) -> None:
    block = re.search(r"-- Replies((?:.|\n--    )*)", header(name))
    assert block
    declared = set(re.findall(r"\w+", block[1].replace("--", "")))
    assert declared <= {"ok", *errors.BY_WORD}
    own = {word for words in RETURNED.findall(code(source(name))) for word in words if word}
    assert own <= declared


def test_every_word_is_declared_somewhere() -> None:
    headers = "".join(header(name) for name in [*COMMANDS, "_arguments"])
    assert all(word in headers for word in errors.BY_WORD)


@pytest.mark.parametrize("name", [*COMMANDS, *PARTIALS])
def test_only_commit_writes_only_clock_reads_the_time_and_nothing_scans(name: str) -> None:
    called = set(re.findall(r"redis\.p?call\('(\w+)'", code(source(name))))
    assert called <= READING | WRITING
    # A bucket is written before the command begins; nothing of a session depends on it.
    assert not called & WRITING or name in ("_write", "_commit", "_limits", "_quotas", "_bucket")
    assert name in ("_write", "_commit") or called & WRITING <= {"SET", "ZADD", "DEL"}
    assert "TIME" not in called or name == "_clock"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_fits_on_one_screen(name: str) -> None:
    assert len(source(name).splitlines()) <= 52


def test_lua_and_python_agree_on_a_reply() -> None:
    listed = re.search(r"local SCALARS = \{(.*?)\}", source("_session"), re.DOTALL)
    assert listed
    assert tuple(re.findall(r"'(\w+)'", listed[1])) == session_layout.SCALARS
    widths = f"p = {session_layout.RECORD_WIDTH}, g = {session_layout.RECORD_WIDTH}, c = {control_clock.CLOCK_WIDTH}"
    assert f"local WIDTH = {{{widths}}}" in source("_records")
    letters = dict(re.findall(r"(\w) = '(\w+)'", source("_time_control").split("local NAMES")[1].split("}")[0]))
    assert letters == control_text.CONTROL_LETTERS | control_text.STAGE_LETTERS
    assert f"local POSITIONAL = {session_layout.PLACED} " in source("_snapshot")


def test_the_limits_read_what_loads_a_session_and_one_field_more() -> None:
    (loaded,) = re.findall(r"'HMGET', key,\s+('scalars'.*?)\)", source("_session"), re.DOTALL)
    (read,) = re.findall(r"'HMGET', keys.session,\s+('scalars'.*?)\)", source("_limits"), re.DOTALL)
    assert read == f"{loaded}, 'limit_us'"


def test_an_include_is_spliced_in_once_and_a_replaced_partial_takes_its_place() -> None:
    text = scripts.expand("switch_session", {"_clock": "-- a clock"})
    assert text.count("local function load_session") == 1
    assert "-- a clock" in text
    assert "'TIME'" not in text


@pytest.mark.parametrize("name", OF_BUCKETS)
@pytest.mark.parametrize("missing", ["no keys", "no arguments", "an argument too few"])
def test_a_malformed_call_on_buckets_fails_and_writes_nothing(
    name: str, missing: str, redis: redis_py.Redis, redis_url: str
) -> None:
    keys = [f"bucket {number}" for number in declared(name, "KEYS")]
    arguments = ["1" for _ in declared(name, "ARGV")]
    calls = {"no keys": ([], arguments), "no arguments": (keys, []), "an argument too few": (keys, arguments[:-1])}
    scripts_of_store = make_store(redis_url, set_clock=False)._runner._scripts
    with pytest.raises(redis_py.ResponseError):
        scripts_of_store.call(name, *calls[missing])
    assert redis.dbsize() == 0


@pytest.mark.parametrize("name", OF_SESSIONS)
@pytest.mark.parametrize(
    "missing", ["no keys", "no arguments", "a key too few", "an argument too few", "a key too many"]
)
def test_a_malformed_call_fails_and_writes_nothing(
    name: str, missing: str, redis: redis_py.Redis, redis_url: str
) -> None:
    ManualClock(redis)
    store = make_store(redis_url)
    session_id = store.create(chess_request()).found.session_id
    if name in ("switch_session", "pause_session"):
        store.start(session_id)
    keys = list(store._runner._keys.commit(session_id))
    arguments: list[str | bytes | int] = [session_id, *[""] * 6, 3_600_000, 3_600_000, 1000, *[""] * 5]
    if missing == "no keys":
        keys = []
    elif missing == "no arguments":
        arguments = []
    elif missing == "a key too few":
        keys.pop()
    elif missing == "an argument too few":
        arguments.pop()
    else:
        keys.append("idempotency key without a fingerprint")
    before = dump_session(redis, session_id)
    with pytest.raises(redis_py.ResponseError):
        store._runner._scripts.call(name, keys, arguments)
    assert dump_session(redis, session_id) == before


@pytest.mark.parametrize("limits", ["50000 2000000 50000 2000000", "50000 2000000 taken 1", "taken", "nothing"])
def test_limits_without_a_key_fail_unless_the_principal_was_charged(
    limits: str, redis: redis_py.Redis, redis_url: str
) -> None:
    ManualClock(redis)
    store = make_store(redis_url)
    session_id = store.create(chess_request()).found.session_id
    keys = store._runner._keys.commit(session_id)
    arguments: list[str | bytes | int] = [session_id, *[""] * 6, 3_600_000, 3_600_000, 1000, *[""] * 4]
    before = dump_session(redis, session_id)
    with pytest.raises(redis_py.ResponseError, match="a key is missing"):
        store._runner._scripts.call("start_session", keys, [*arguments, limits, ""])
    assert dump_session(redis, session_id) == before
    store._runner._scripts.call("start_session", keys, [*arguments, "50000 2000000 taken 50000 0", ""])
    assert dump_session(redis, session_id) != before


def table(document: str, heading: str) -> set[str]:
    """Names in the first cells of the table that comes next after a text."""
    rows = (DOCS / document).read_text().split(heading, 1)[1].split("\n\n|", 1)[1].split("\n\n", 1)[0]
    first_cells = (row.strip("|").split("|")[0] for row in rows.splitlines())
    return {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_event_is_documented() -> None:
    text = "".join(code(source(name)) for name in [*COMMANDS, *PARTIALS])
    made = set(re.findall(r"commit\(session, keys, call, now, \w+, '(\w+)'", text))
    made |= set(re.findall(r"= '(\w+_(?:expired|timed_out))'", text)) | set(re.findall(r"or '(\w+_expired)'", text))
    made |= set(re.findall(r"(?:, |and |or |entry\()'(\w+_(?:lost|started|entered))'", text))
    assert len(made) == 22
    assert table("protocol.md", "## Events") == made


def test_every_field_of_a_sessions_hash_is_documented(redis: redis_py.Redis, redis_url: str) -> None:
    people = [{"participant_id": f"p{i}", "group_id": f"g{i % 2}", "total_time_ms": 1000} for i in range(129)]
    new: dict[str, Any] = {"sync_mode": "per_group", "participants": people, "warn_at_ms": [500], "metadata": {"a": 1}}
    new["action_on_timeout"] = {"type": "end_session", "more": 1}
    new |= {"takeback_cycles": 1, "groups": [{"group_id": "g0"}, {"group_id": "g1", "time_control": "pgn:60"}]}
    store = make_store(redis_url, set_clock=False)
    session_id = store.create(CreateSession.parse(new)).found.session_id
    store.start(session_id, Claim(principal=Principal(sub="ada"), costs=Costs(commits=1)))
    store.complete(session_id, Claim(principal=Principal(sub="ada")), reason="over")
    fields: dict[bytes, bytes] = redis.hgetall(Keyspace().session(session_id))  # type: ignore[assignment]  # its types cover every protocol
    documented = table("keys.md", "## The session's hash")
    patterns = {re.sub(r"<\w+>", "[^:]+", name) for name in documented}
    for field in map(bytes.decode, fields):
        assert any(re.fullmatch(pattern, field) for pattern in patterns), field
    for pattern in patterns:
        assert any(re.fullmatch(pattern, field) for field in map(bytes.decode, fields)), pattern
    assert table("keys.md", "snapshots have the same order.") == set(session_layout.SCALARS)


def test_each_mutation_still_finds_its_text() -> None:
    """`make mutants` runs rarely: a text that moved to another file must not be noticed only then."""
    assert mutants.misplaced() == []
