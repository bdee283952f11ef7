"""The rules in plain words name what players ask about."""

from __future__ import annotations

import pytest

from syncapp.domain.notation import explain, parse

WORDS = {
    "pgn:300": ["5 min for the whole game.", "Zero counts as expired"],
    "pgn:40/5400+30:1800+30": [
        "40 moves in 1 h 30 min, then 30 min for the rest of the game.",
        "From the first move on, 30 s are added after each completed move.",
        "The time of a stage is granted when the moves before it are completed, and added to what is left.",
    ],
    "pgn:40/7200:20/3600:900+30": [
        "40 moves in 2 h, then 20 moves in 1 h, then 15 min for the rest of the game.",
        "Stages 1 and 2: No time is added for moves.",
        "Stage 3: 30 s are added after each completed move.",
    ],
    "uscf:G/3;inc1": [
        "From the first move on, 1 s is added before each move.",
        "The bonus of the first move is granted at the start: the clock begins at 3 min 1 s.",
    ],
    "syncapp:3d +1d up to 3d, bonus before move": [
        "This never raises the clock above 3 d.",
        "the clock begins at 3 d.",
    ],
    "pgn:300+5d": ["the clock waits 5 s before it begins to fall", "a delay that is not used is lost"],
    "pgn:300+5b": ["The clock falls at once", "at most 5 s, is given back", "reaches zero during the move has expired"],
    "sgf:1800 5x30": [
        "30 min of main time.",
        "After the main time there are 5 byo-yomi periods of 30 s.",
        "makes it full again; time that it leaves unused is not kept",
        "loses one period for each full 30 s: floor(time / 30 s) periods",
        "Zero counts as used up",
    ],
    "csa:$TIME_LIMIT:00:00+10": [
        "No main time.",
        "There is 1 byo-yomi period of 10 s.",
        "charged in whole units of 1 s, rounded down.",
        "Each move costs at least 1 s.",
    ],
    "csa:600+10+5": ["An increment brings main time back", "lost periods stay lost"],
    "sgf:540 25/60": [
        "After the main time, 25 moves must be completed in each block of 1 min.",
        "is the first move of the first block",
        "After 25 moves a full block begins; what is left of the old one is not kept.",
    ],
    "pgn:1/86400": ["1 d for each move.", "Time that a move does not use is lost."],
    "pgn:*180": ["3 min for everybody", "the sum of all clocks never changes"],
    "pgn:40/9000": ["40 moves in 2 h 30 min; the same time is added again after every 40 moves."],
    "cutechess:60 timemargin=500": [
        "A move is still accepted less than 500 ms after the time has run out",
        "the clock is then below zero, and bonuses are granted as usual",
    ],
    "syncapp:10m, least 2s": ["Each move costs at least 2 s."],
    "syncapp:40 in 0s +5s; 20 in 30s per move; 10m, bonus before move": [
        "40 moves with no main time, then 30 s for each of 20 moves, then 10 min for the rest of the game."
    ],
}


@pytest.mark.parametrize("text", WORDS)
def test_the_rules_of_each_kind_are_explained(text: str) -> None:
    explanation = explain(parse(text))
    for words in WORDS[text]:
        assert words in explanation


def test_an_explanation_has_a_line_for_each_rule() -> None:
    assert len(explain(parse("pgn:40/5400+30:1800+30")).splitlines()) == 4
