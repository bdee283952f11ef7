"""Time controls in the notations of files and programs: `dialect:notation`, such as `pgn:40/5400+30:1800+30`.

The same text means different things to different programs: `10+0` is 10 seconds in a PGN file and 10 minutes on a web
site, and `40/1:30` is 90 seconds to cutechess but two stages in PGN. So a dialect is required, and what a dialect does
not define is refused with a reason. What is written is read back: it is the same control, or an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from syncapp.domain.notation import csa, cutechess, kif, own, pgn, protocols, sgf, sites, uscf
from syncapp.domain.notation.durations import NotationError, shortened
from syncapp.domain.notation.explain import explain, summary
from syncapp.domain.time_control import TimeControl

__all__ = ["DIALECTS", "MAX_LENGTH", "NotationError", "explain", "format_control", "parse", "write"]

MAX_LENGTH = 1000
"""Longer texts are refused; those in a foreign dialect from a third of it on."""
_MOST_HINTS = 3


@dataclass(frozen=True)
class _Dialect:
    summary: str
    read: Callable[[str], TimeControl]
    write: Callable[[TimeControl], str]


_DIALECTS = {
    "pgn": _Dialect("the TimeControl tag of chess games, in seconds: 40/5400+30:1800+30", pgn.read, pgn.write),
    "minutes": _Dialect(
        "minutes and an increment in seconds, as on web sites: 15+10", sites.read_minutes, sites.write_minutes
    ),
    "uscf": _Dialect("US Chess: minutes, a delay or an increment in seconds: 40/120,SD/60;d5", uscf.read, uscf.write),
    "sgf": _Dialect("TM and OT of Go games: 1800 5x30 byo-yomi", sgf.read, sgf.write),
    "csa": _Dialect("computer shogi: main time, byo-yomi and increment in seconds: 1500+30+0", csa.read, csa.write),
    "kif": _Dialect("the time limit of Japanese shogi records: 10分+30秒", kif.read, kif.write),
    "cutechess": _Dialect("the tc option of cutechess-cli and fastchess: 40/1:30+1", cutechess.read, cutechess.write),
    "uci": _Dialect(
        "the go command of UCI chess engines: go wtime 300000 btime 300000", protocols.read_uci, protocols.write_uci
    ),
    "usi": _Dialect(
        "the go command of USI shogi engines: go btime 0 wtime 0 byoyomi 10000", protocols.read_usi, protocols.write_usi
    ),
    "xboard": _Dialect("XBoard's level and st commands: level 40 5 0", protocols.read_xboard, protocols.write_xboard),
    "gtp": _Dialect(
        "GTP's time_settings, and those of KGS and KataGo: time_settings 1800 300 25",
        protocols.read_gtp,
        protocols.write_gtp,
    ),
    "lichess": _Dialect(
        'the clock of Lichess\'s API: {"limit":300,"increment":3}', sites.read_lichess, sites.write_lichess
    ),
    "ogs": _Dialect(
        'the time control of a game on OGS: {"system":"simple","per_move":86400}', sites.read_ogs, sites.write_ogs
    ),
    "syncapp": _Dialect(
        "our own, which can say everything: 40 in 1h30m +30s; 30m +30s, margin 1s", own.read, own.write
    ),
}
DIALECTS: Mapping[str, str] = MappingProxyType({name: dialect.summary for name, dialect in _DIALECTS.items()})
"""The dialects in order, each with a line on what it is and an example."""
_SHORT_DIALECTS = ("minutes", "uscf", "sgf", "csa", "cutechess")
"""The dialects for what PGN cannot express, before our own."""


def parse(text: str) -> TimeControl:
    """Read `dialect:notation` and return the normalized control. White space counts as single spaces.

    Raises `NotationError` with a reason that continues "time_control …": a missing dialect, a notation that the dialect
    does not define, or a control beyond the limits.
    """
    if len(text) > MAX_LENGTH:
        raise NotationError(f"is a text of {len(text)} characters; at most {MAX_LENGTH} are read")
    text = " ".join(text.split())
    name, colon, notation = text.partition(":")
    dialect = _DIALECTS.get(name.strip().lower()) if colon else None
    if dialect is None:
        raise NotationError(_missing_dialect(text.strip(), name.strip() if colon else ""))
    if not notation.strip():
        raise NotationError(f"has nothing after {name.strip()}:")
    if len(text) > MAX_LENGTH // 3 and dialect is not _DIALECTS["syncapp"]:
        raise NotationError(
            f"is a text of {len(text)} characters; at most {MAX_LENGTH // 3} are read in {name.strip()}"
        )
    return dialect.read(notation.strip())


def format_control(control: TimeControl) -> str:
    """Return `dialect:notation` that `parse` reads as this control, normalized.

    In PGN if its standard can express it, else in the shortest notation of other dialects that can, else in our own.
    """
    candidates: list[str] = []
    has_delay = any(stage.delay for stage in control.stages)  # not in the standard
    for name in _SHORT_DIALECTS if has_delay else ("pgn", *_SHORT_DIALECTS):
        try:
            candidates.append(f"{name}:{write(control, name)}")
        except NotationError:
            continue
        if name == "pgn":
            break
    return min(candidates, key=len) if candidates else f"syncapp:{write(control, 'syncapp')}"


def write(control: TimeControl, dialect: str) -> str:
    """Return the notation of a control in a dialect, without the dialect's name.

    Raises `NotationError` with what the dialect cannot express.
    """
    if dialect not in _DIALECTS:
        raise NotationError(f"cannot be written as {shortened(dialect)}; the dialects are {', '.join(_DIALECTS)}")
    normal = control.normalized()
    try:
        text = _DIALECTS[dialect].write(normal)
        read = _DIALECTS[dialect].read(text)
    except NotationError as error:
        raise NotationError(f"cannot be written as {dialect}: it {error}") from None
    if read != normal:
        raise NotationError(f"cannot be written as {dialect}, which cannot express {', '.join(_lost(normal, read))}")
    return text


def _lost(control: TimeControl, read: TimeControl) -> Iterator[str]:
    """Yield the fields in which two controls differ."""
    if len(control.stages) != len(read.stages):
        yield "its stages"
        return
    for index, (stage, other) in enumerate(zip(control.stages, read.stages, strict=True)):
        ours, theirs = stage.model_dump(), other.model_dump()
        yield from (f"stages.{index}.{field}" for field in ours if ours[field] != theirs[field])
    rules, others = control.document(), read.document()
    yield from (field for field in rules if field != "stages" and rules[field] != others[field])


def _missing_dialect(text: str, name: str) -> str:
    """Return why a text without a known dialect is refused, with what dialects would take it for."""
    if re.fullmatch(r"[A-Za-z][\w-]*", name) and not name.startswith(("TM", "G", "SD")):
        return f"has an unknown dialect, {shortened(name)}; known are {', '.join(_DIALECTS)}"
    meanings: dict[str, str] = {}
    for dialect, entry in _DIALECTS.items() if len(text) <= MAX_LENGTH // 3 else ():
        try:
            meaning = summary(entry.read(text))
        except NotationError:
            continue
        if meaning not in meanings.values():
            meanings[f"{dialect}:{shortened(text)}"] = meaning
    hints = [f"{example} ({meaning})" for example, meaning in list(meanings.items())[:_MOST_HINTS]]
    if not hints:
        return "needs a dialect, such as pgn:300+2 (5 min +2 s) or minutes:5+2; see the list of dialects"
    listed = ", ".join(hints[:-1]) + " or " + hints[-1] if len(hints) > 1 else hints[0]
    return f"needs a dialect, such as {listed}"
