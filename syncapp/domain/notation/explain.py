"""The rules of a time control in plain words, for people who play by it."""

from __future__ import annotations

from collections.abc import Iterator

from syncapp.domain.notation.controls import kind_of, main_time
from syncapp.domain.notation.durations import words
from syncapp.domain.time_control import Stage, TimeControl


def explain(control: TimeControl) -> str:
    """Return all rules of a control, one or more sentences a line."""
    normal = control.normalized()
    return "\n".join([_schedule(normal), *_bonuses(normal), *_common_rules(normal)])


def summary(control: TimeControl) -> str:
    """Return a control in a few words, such as `10 min +5 s`."""
    text = ", then ".join(_short(stage) for stage in control.stages)
    return text + ("; the first bonus at the start" if _first_bonus(control) else "")


def _short(stage: Stage) -> str:
    match kind_of(stage):
        case "per move":
            text = f"{words(stage.per_move_ms or 0)} for each move"
        case "hourglass":
            text = f"hourglass of {words(main_time(stage))}"
        case _:
            text = words(main_time(stage)) if main_time(stage) else "no main time"
    bonuses = (
        (f" +{words(stage.increment_ms or 0)}", stage.increment_ms),
        (
            f" with {words(stage.delay_ms or 0)} {'Bronstein' if stage.delay == 'bronstein' else 'simple'} delay",
            stage.delay_ms,
        ),
        (f" and {_counted(stage.periods or 0, 'period')} of {words(stage.period_ms or 0)}", stage.periods),
        (f" and {_counted(stage.period_moves or 0, 'move')} per {words(stage.period_ms or 0)}", stage.period_moves),
        (", repeated", stage.repeat),
    )
    moves = f"{_counted(stage.moves, 'move')} in " if stage.moves else ""
    return moves + text + "".join(bonus for bonus, applies in bonuses if applies)


def _schedule(control: TimeControl) -> str:
    """Return the stages as one sentence."""
    single = len(control.stages) == 1
    text = ", then ".join(
        _stage(stage, "the whole game" if single else "the rest of the game") for stage in control.stages
    )
    return f"{text[0].upper()}{text[1:]}."


def _stage(stage: Stage, rest: str) -> str:
    time = words(main_time(stage)) if main_time(stage) else "no main time"
    moves = _counted(stage.moves or 0, "move")
    if stage.per_move_ms:
        text = f"{words(stage.per_move_ms)} for each {f'of {moves}' if stage.moves else 'move'}"
    elif stage.hourglass:
        text = f"{time} for everybody, as in an hourglass"
    elif stage.moves:
        text = f"{moves} {'in' if main_time(stage) else 'with'} {time}"
    elif stage.period_ms or not main_time(stage):
        text = f"{time} of main time" if main_time(stage) else time
    else:
        text = f"{time} for {rest}"
    return text + (f"; the same time is added again after every {moves}" if stage.repeat else "")


def _bonuses(control: TimeControl) -> Iterator[str]:
    """Yield what each stage adds, with the numbers of the stages if they differ."""
    groups: dict[str, list[int]] = {}
    for index, stage in enumerate(control.stages):
        groups.setdefault(" ".join(_of_stage(stage, control)), []).append(index + 1)
    for text, numbers in groups.items():
        if len(groups) > 1:
            yield f"{_numbered(numbers)}: {text or 'No time is added for moves.'}"
        elif text:
            yield text
    if _first_bonus(control):
        first = control.stages[0]
        bonus = first.increment_ms or first.delay_ms or 0
        start = main_time(first) + bonus
        if first.increment_ms and first.cap_ms:
            start = max(main_time(first), min(start, first.cap_ms))
        yield f"The bonus of the first move is granted at the start: the clock begins at {words(start)}."


def _of_stage(stage: Stage, control: TimeControl) -> Iterator[str]:
    """Yield the sentences on bonuses and overtime of a stage."""
    if stage.increment_ms:
        before = control.first_bonus == "before_move"
        start = "From the first move on, " if len({each.increment_ms for each in control.stages}) == 1 else ""
        when = "before each move" if before else "after each completed move"
        yield f"{start}{words(stage.increment_ms)} {_are(stage.increment_ms)} added {when}."
        if stage.cap_ms:
            yield f"This never raises the clock above {words(stage.cap_ms)}."
    match kind_of(stage):
        case "simple":
            delay = words(stage.delay_ms or 0)
            yield f"In each move the clock waits {delay} before it begins to fall; a delay that is not used is lost."
            yield "A clock without time still has the delay of the move."
        case "bronstein":
            delay = words(stage.delay_ms or 0)
            yield f"The clock falls at once, and the time that a move took, at most {delay}, is given back after it."
            yield "A clock that reaches zero during the move has expired, though time would have been given back."
        case "byo-yomi":
            yield from _byo_yomi(stage)
        case "canadian":
            yield from _canadian(stage)
        case "per move":
            yield "Time that a move does not use is lost."
        case "hourglass":
            yield "What one uses, the others gain at the same moment: the sum of all clocks never changes."


def _byo_yomi(stage: Stage) -> Iterator[str]:
    count, period = stage.periods or 0, words(stage.period_ms or 0)
    start = "After the main time there" if main_time(stage) else "There"
    yield f"{start} {'is' if count == 1 else 'are'} {_counted(count, 'byo-yomi period')} of {period}."
    yield "A move that is completed within a period makes it full again; time that it leaves unused is not kept."
    if count == 1:
        yield "When the period is used up, the time has expired."
    else:
        yield f"A longer move loses one period for each full {period}: floor(time / {period}) periods."
        yield "When the last period is lost, the time has expired."
    if stage.increment_ms:
        yield "An increment brings main time back, so the next move begins in it; lost periods stay lost."


def _canadian(stage: Stage) -> Iterator[str]:
    moves, block = _counted(stage.period_moves or 0, "move"), words(stage.period_ms or 0)
    yield f"After the main time, {moves} must be completed in each block of {block}."
    if main_time(stage):
        yield "The move during which the main time ends is the first move of the first block, which it runs into."
    yield f"After {moves} a full block begins; what is left of the old one is not kept."


def _common_rules(control: TimeControl) -> Iterator[str]:
    """Yield what holds in all stages."""
    if len(control.stages) > 1 or control.stages[-1].repeat:
        yield "The time of a stage is granted when the moves before it are completed, and added to what is left."
    unit, least = control.charge_unit_ms, control.min_charge_ms
    if unit > 1:
        yield f"The time of a move is charged in whole units of {words(unit)}, rounded down." + (
            f" Each move costs at least {words(least)}." if least else ""
        )
    elif least:
        yield f"Each move costs at least {words(least)}."
    if control.margin_ms:
        yield (
            f"A move is still accepted less than {words(control.margin_ms)} after the time has run out; "
            "the clock is then below zero, and bonuses are granted as usual. After that the time has expired."
        )
    elif any(stage.period_ms for stage in control.stages):
        yield "Zero counts as used up: a move that ends at exactly zero comes too late for that time or period."
    else:
        yield "Zero counts as expired: a move must be completed before the clock reaches it."


def _first_bonus(control: TimeControl) -> bool:
    """Return whether there is a bonus at the start."""
    first = control.stages[0]
    return control.first_bonus == "before_move" and (bool(first.increment_ms) or first.delay == "bronstein")


def _numbered(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"Stage {numbers[0]}"
    return f"Stages {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _are(ms: int) -> str:
    """Return the verb for a time: 1 s is, 30 s are."""
    return "is" if words(ms) in {"1 d", "1 h", "1 min", "1 s", "1 ms"} else "are"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
