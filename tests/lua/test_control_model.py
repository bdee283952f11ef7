"""The model of time controls does what players of chess, Go and shogi expect, in examples computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.clock_records import Refused
from tests.support.control_model import ControlModel
from tests.support.owner_clock import MAX_REMAINING_MS, OwnerClock, first_ms
from tests.support.store import NOON_MS
from tests.support.store_sessions import NOTIFY, SKIP

BYO_YOMI = {"time_ms": 10_000, "periods": 3, "period_ms": 5_000}
CANADIAN = {"time_ms": 10_000, "period_moves": 2, "period_ms": 5_000}
BLITZ = {"time_ms": 10_000, "increment_ms": 2_000}


class Played:
    """A running session of participants a, b, …; instants count from its start."""

    def __init__(self, *stages: dict[str, Any], names: str = "ab", body: dict[str, Any] | None = None, **more: Any):
        self.now_ms = 0
        self.model = ControlModel(
            {
                "sync_mode": "per_participant",
                "participants": [{"participant_id": name} for name in names],
                "time_control": {"stages": list(stages), **more},
                **(body or {}),
            },
            NOON_MS,
        )
        self.model.start(NOON_MS)

    def do(self, command: str, after_ms: int = 0, *args: Any, **named: Any) -> Any:
        """Run a command later; return its event."""
        self.now_ms += after_ms
        return getattr(self.model, command)(NOON_MS + self.now_ms, *args, **named)

    def move(self, *spent_ms: int, **named: Any) -> Any:
        """Play moves of the sides in turn; return the event of the last one."""
        event = None
        for spent in spent_ms:
            event = self.do("switch", spent, **named)
        return event

    def main(self) -> list[int]:
        """Return the main times."""
        return [self.model.clock(name).remaining for name in self.model.budgets]

    def overtime(self, name: str = "a") -> tuple[Any, Any, Any]:
        """Return periods left, moves left in the block, and what is left of it."""
        values = self.model.clock(name).values()
        return values["periods_left"], values["block_moves_left"], values["period_remaining_ms"]

    def happened(self, *kinds: str) -> list[tuple[str, int]]:
        """Return the events after the start, with their instants; of these kinds, if any are given."""
        found = [(event["type"], event["at_ms"] - NOON_MS) for event in self.model.events[2:]]
        return [each for each in found if not kinds or each[0] in kinds]

    def deadline(self) -> int:
        """Return the instant of the flag."""
        at_ms = self.model.deadline()
        assert at_ms is not None
        return at_ms - NOON_MS

    def phase(self, after_ms: int = 0) -> tuple[str, int, int | None]:
        """Return the phase of the clock that runs, what is left of it, and when the next one begins."""
        self.do("settle", after_ms)
        clock = self.model.state()["clock"]
        following = clock["next_at_ms"]
        return clock["phase"], clock["phase_remaining_ms"], following and following - NOON_MS


@pytest.mark.parametrize("least", [0, 1, 2, 3, 7, 8, 9, 100, 1023, 1024, 1025])
def test_the_first_ms_of_a_condition_is_found(least: int) -> None:
    assert first_ms(lambda ms: ms >= least) == least
    assert first_ms(lambda ms: ms >= least, 8) == max(8, least)


def test_an_absolute_clock_only_falls() -> None:
    played = Played({"time_ms": 10_000})
    played.move(3_000, 1_000, 2_000)
    assert played.main() == [5_000, 9_000]
    played.do("settle", 9_000)
    assert played.model.status == "expired"
    assert played.happened()[-1] == ("participant_expired", 15_000)
    assert played.main() == [5_000, 0]


def test_a_fischer_increment_is_added_after_the_move_and_never_above_the_cap() -> None:
    played = Played({**BLITZ, "cap_ms": 11_000})
    event = played.move(500)
    assert (event["spent_ms"], event["bonus_ms"], event["remaining_ms"]) == (500, 1_500, 11_000)
    played.move(3_000, 4_000)
    assert played.main() == [9_000, 9_000]


def test_a_clock_above_its_cap_keeps_what_it_has() -> None:
    played = Played({**BLITZ, "cap_ms": 5_000})
    played.move(1_000)
    assert played.main() == [9_000, 10_000]


def test_a_bonus_before_the_move_is_granted_at_the_start() -> None:
    played = Played(BLITZ, first_bonus="before_move")
    assert played.main() == [12_000, 12_000]
    played.move(1_000)
    assert played.main() == [13_000, 12_000]


def test_a_simple_delay_comes_before_the_clock_falls() -> None:
    played = Played({"time_ms": 10_000, "delay": "simple", "delay_ms": 2_000})
    assert played.deadline() == 12_000
    assert played.phase(500) == ("delay", 1_500, 2_000)
    assert played.phase(1_500) == ("main", 10_000, 12_000)
    event = played.move(1_000)
    assert (event["spent_ms"], event["bonus_ms"], event["remaining_ms"]) == (3_000, 2_000, 9_000)
    assert played.move(1_999)["remaining_ms"] == 10_000


def test_the_used_part_of_a_delay_stays_used_in_a_pause() -> None:
    played = Played({"time_ms": 10_000, "delay": "simple", "delay_ms": 2_000})
    played.do("pause", 1_500)
    assert played.phase(60_000) == ("delay", 500, None)
    played.do("resume")
    played.move(1_500)
    assert played.main() == [9_000, 10_000]


def test_with_a_simple_delay_a_clock_at_zero_still_has_the_delay_of_each_move() -> None:
    played = Played({"time_ms": 0, "delay": "simple", "delay_ms": 2_000})
    played.move(1_999, 1_999)
    assert (played.model.status, played.main()) == ("running", [0, 0])
    played.do("settle", 2_000)
    assert played.happened()[-1] == ("participant_expired", 5_998)


def test_bronstein_gives_back_what_the_move_used_and_counts_the_whole_turn_across_pauses() -> None:
    played = Played({"time_ms": 10_000, "delay": "bronstein", "delay_ms": 2_000})
    played.do("pause", 800)
    played.do("resume", 5_000)
    event = played.move(700)
    assert (event["spent_ms"], event["bonus_ms"], event["remaining_ms"]) == (1_500, 1_500, 10_000)
    played.move(0, 3_000)
    assert played.main() == [9_000, 10_000]
    assert played.deadline() - played.now_ms == 10_000  # the delay does not save a move that reaches zero


def test_a_bronstein_delay_before_the_move_is_granted_once() -> None:
    played = Played({"time_ms": 0, "delay": "bronstein", "delay_ms": 2_000}, first_bonus="before_move")
    played.move(500, 1_999)
    assert played.main() == [2_000, 2_000]
    played.do("settle", 2_000)
    assert played.model.status == "expired"


def test_a_move_that_overruns_the_main_time_and_a_period_loses_one_period() -> None:
    played = Played(BYO_YOMI)
    assert played.deadline() == 25_000
    event = played.move(17_000)
    assert played.happened() == [("period_started", 10_000), ("period_lost", 15_000), ("cycle_switched", 17_000)]
    assert played.main() == [0, 10_000]
    assert played.overtime() == (2, None, 5_000)
    assert (event["spent_ms"], event["bonus_ms"], event["remaining_ms"]) == (17_000, 0, 0)


def test_a_period_is_full_again_after_a_move_and_zero_loses_it() -> None:
    played = Played(BYO_YOMI)
    played.move(10_000, 0)
    assert played.overtime() == (3, None, 5_000)
    played.move(4_999, 0)
    assert played.overtime() == (3, None, 5_000)
    played.move(5_000, 0)
    assert played.overtime() == (2, None, 5_000)
    played.do("settle", 9_999)
    assert played.phase() == ("period", 1, played.now_ms + 1)
    played.do("settle", 1)
    assert played.model.status == "expired"


def test_without_main_time_the_first_period_begins_at_the_start_of_the_turn() -> None:
    played = Played({"time_ms": 0, "periods": 2, "period_ms": 5_000})
    played.move(1_000)
    assert played.happened() == [("period_started", 0), ("cycle_switched", 1_000), ("period_started", 1_000)]


def test_a_pause_keeps_the_used_part_of_a_period() -> None:
    played = Played(BYO_YOMI)
    played.do("pause", 12_000)
    assert played.overtime() == (3, None, 3_000)
    played.do("resume", 60_000)
    assert played.phase(2_999) == ("period", 1, 75_000)
    played.do("settle", 1)
    assert played.overtime() == (2, None, 5_000)


def test_an_increment_brings_a_clock_in_byo_yomi_back_to_main_time_but_no_period() -> None:
    played = Played({**BYO_YOMI, "increment_ms": 1_000})
    event = played.move(17_000)
    assert (played.main(), played.overtime()) == ([1_000, 10_000], (2, None, None))
    assert (event["bonus_ms"], event["remaining_ms"]) == (1_000, 1_000)
    played.move(0, 6_000)
    assert played.overtime() == (1, None, None)


def test_the_overrun_on_entry_is_charged_to_the_block_and_the_move_counts() -> None:
    played = Played(CANADIAN)
    assert played.deadline() == 15_000
    played.move(12_000)
    assert played.happened()[0] == ("block_started", 10_000)
    assert played.overtime() == (None, 1, 3_000)
    played.move(0, 1_000)
    assert played.overtime() == (None, 2, 5_000)
    assert played.happened("cycle_switched", "block_started")[-2:] == [
        ("cycle_switched", 13_000),
        ("block_started", 13_000),
    ]


def test_a_block_that_runs_out_is_the_flag() -> None:
    played = Played(CANADIAN)
    played.move(12_000, 0)
    played.do("settle", 3_000)
    assert (played.model.status, played.now_ms) == ("expired", 15_000)
    assert played.overtime() == (None, 1, 0)


def test_time_for_a_move_is_lost_if_it_is_not_used() -> None:
    played = Played({"per_move_ms": 3_000})
    event = played.move(1_000)
    assert (event["bonus_ms"], event["remaining_ms"]) == (1_000, 3_000)
    played.do("settle", 3_000)
    assert played.model.status == "expired"


def test_an_hourglass_passes_each_ms_on_and_splits_it_among_several() -> None:
    played = Played({"time_ms": 10_000, "hourglass": True}, names="abc")
    played.move(1_001)
    assert played.main() == [8_999, 10_500, 10_501]
    played.do("pause", 1)
    assert played.main() == [8_999, 10_499, 10_502]
    assert sum(played.main()) == 30_000


def test_what_an_hourglass_passes_on_is_shown_at_once() -> None:
    played = Played({"time_ms": 10_000, "hourglass": True})
    event = played.do("adjust", 2_000, "add", 500, "b")
    assert (event["remaining_ms"], event["adjusted_ms"]) == (12_500, 500)
    played.move(0)
    assert played.main() == [8_000, 12_500]


def test_the_next_stage_is_entered_on_completing_its_move_and_keeps_unused_time() -> None:
    played = Played({"moves": 2, **BLITZ}, {"time_ms": 5_000, "increment_ms": 3_000})
    played.move(1_000, 1_000)
    assert played.model.clock("a").values()["moves_to_next_stage"] == 1
    event = played.move(1_000)
    assert (event["spent_ms"], event["bonus_ms"], event["remaining_ms"]) == (1_000, 7_000, 17_000)
    assert played.model.events[-1] == {
        "type": "stage_entered",
        "at_ms": NOON_MS + 3_000,
        "participant_id": "a",
        "remaining_ms": 17_000,
        "stage": 2,
        "moves_to_next_stage": None,
    }
    assert played.move(0, 1_000)["remaining_ms"] == 19_000


def test_with_the_bonus_before_the_move_a_new_stage_brings_its_own() -> None:
    played = Played({"moves": 1, **BLITZ}, {"time_ms": 0, "increment_ms": 3_000}, first_bonus="before_move")
    played.move(1_000)
    assert played.main() == [14_000, 12_000]


def test_a_bronstein_delay_is_granted_ahead_in_the_first_stage_that_has_one() -> None:
    bronstein = {"time_ms": 1_000, "delay": "bronstein", "delay_ms": 500}
    played = Played({"moves": 1, "time_ms": 10_000}, {"moves": 1, **bronstein}, bronstein, first_bonus="before_move")
    played.move(1_000, 0)
    assert played.main() == [10_500, 11_500]
    played.move(100)
    assert played.main() == [11_500, 11_500]


def test_a_move_is_granted_the_bronstein_delay_of_its_own_stage() -> None:
    first = {"moves": 1, "time_ms": 10_000, "delay": "bronstein", "delay_ms": 3_000}
    longer = {"time_ms": 5_000, "delay": "bronstein", "delay_ms": 10_000}
    for second, main_ms in (({"time_ms": 5_000}, 15_000), (longer, 25_000)):
        played = Played(first, second, first_bonus="before_move")
        assert played.main() == [13_000, 13_000]
        played.move(1_000)
        assert played.main() == [main_ms, 13_000]


def test_a_stage_repeats_with_its_time() -> None:
    played = Played({"moves": 2, "time_ms": 10_000, "repeat": True})
    played.move(1_000, 0, 1_000, 0, 1_000, 0, 1_000)
    assert played.main() == [26_000, 20_000]
    assert played.model.clock("a").values() == {
        "stage": 1,
        "moves_to_next_stage": 2,
        "periods_left": None,
        "period_remaining_ms": None,
        "block_moves_left": None,
        "turn_ms": 0,
    }


def test_a_new_stage_ends_overtime_and_brings_all_its_periods() -> None:
    played = Played({"moves": 1, **BYO_YOMI}, {"time_ms": 1_000, "periods": 2, "period_ms": 5_000})
    played.move(17_000)
    assert (played.main()[0], played.overtime()) == (1_000, (2, None, None))
    assert played.happened("cycle_switched", "stage_entered") == [("cycle_switched", 17_000), ("stage_entered", 17_000)]


def test_a_stage_of_time_per_move_leaves_nothing_to_the_next_stage() -> None:
    played = Played({"moves": 1, "per_move_ms": 3_000}, {"moves": 1, "time_ms": 5_000}, {"per_move_ms": 2_000})
    played.move(1_000, 0, 1_000)
    assert played.main() == [2_000, 5_000]


def test_whole_seconds_are_charged_and_at_least_one() -> None:
    played = Played({"time_ms": 10_000}, charge_unit_ms=1_000, min_charge_ms=1_000)
    event = played.move(2_999)
    assert (event["spent_ms"], event["bonus_ms"], event["remaining_ms"]) == (2_999, 999, 8_000)
    event = played.move(1)
    assert (event["spent_ms"], event["bonus_ms"], event["remaining_ms"]) == (1, -999, 9_000)


def test_the_flag_falls_when_the_last_whole_unit_is_charged() -> None:
    played = Played({"time_ms": 90_000}, charge_unit_ms=60_000)
    assert played.deadline() == 120_000
    played.move(119_999)
    assert played.main()[0] == 30_000
    played.move(0)
    assert played.deadline() - played.now_ms == 60_000


def test_units_count_from_the_start_of_the_turn_also_in_a_period() -> None:
    played = Played({"time_ms": 90_000, "periods": 1, "period_ms": 60_000}, charge_unit_ms=60_000)
    assert played.phase(0) == ("main", 90_000, 120_000)
    played.do("settle", 120_000)
    assert played.overtime() == (1, None, 30_000)
    assert played.deadline() == 180_000


def test_a_clock_with_less_than_the_least_charge_is_out_of_time_at_once() -> None:
    played = Played({"time_ms": 3_000}, min_charge_ms=2_000)
    played.move(0, 0)
    assert (played.main(), played.model.status) == ([1_000, 1_000], "expired")
    assert played.happened()[-1] == ("participant_expired", 0)


def test_the_least_charge_lets_a_period_begin_at_once() -> None:
    played = Played({**BYO_YOMI, "time_ms": 3_000}, min_charge_ms=2_000)
    played.move(0, 0)
    assert played.happened()[-1] == ("period_started", 0)
    assert played.overtime() == (3, None, 6_000)
    played.move(0)
    assert played.overtime() == (3, None, 5_000)


def test_a_move_within_the_margin_leaves_the_clock_below_zero_and_earns_its_bonus() -> None:
    played = Played(BLITZ, margin_ms=1_000)
    assert played.deadline() == 11_000
    event = played.move(10_886)
    assert (event["remaining_ms"], event["bonus_ms"]) == (1_114, 2_000)
    played.do("settle", 11_000)
    assert (played.model.status, played.main()[1]) == ("expired", -1_000)


def test_a_margin_counts_below_zero_from_a_clock_that_is_there_already() -> None:
    played = Played({"time_ms": 10_000}, margin_ms=1_000)
    played.move(10_400, 0)
    assert (played.main()[0], played.deadline() - played.now_ms) == (-400, 600)


def test_the_margin_follows_the_last_period() -> None:
    played = Played(BYO_YOMI, margin_ms=300)
    assert played.deadline() == 25_300
    played.move(25_299)
    assert (played.model.status, played.overtime()) == ("running", (1, None, 5_000))


def test_odds_are_controls_of_ones_own() -> None:
    people = [{"participant_id": "a", "time_control": {"stages": [BYO_YOMI]}}, {"participant_id": "b"}]
    played = Played(BLITZ, body={"participants": people})
    played.move(11_000, 1_000, 3_000)
    assert (played.main(), played.overtime()) == ([0, 11_000], (3, None, 5_000))
    assert played.overtime("b") == (None, None, None)


def test_a_turn_that_runs_out_of_time_is_skipped_without_bonus_and_is_no_move_of_the_stage() -> None:
    played = Played({"moves": 2, **BLITZ}, BLITZ, names="abc", body={"action_on_timeout": SKIP})
    played.move(0)
    played.do("settle", 10_000)
    assert played.model.active == "c"
    assert (played.main()[1], played.model.clock("b").moves_left) == (0, 2)
    played.move(1_000, 1_000)
    assert played.model.active == "c"
    assert played.model.clock("b").turn_ms == 0


def test_the_flag_of_notify_falls_once_and_the_owner_earns_nothing_more() -> None:
    played = Played({**BYO_YOMI, "increment_ms": 1_000}, body={"action_on_timeout": NOTIFY})
    played.do("settle", 30_000)
    assert [kind for kind, _ in played.happened()] == [
        "period_started",
        "period_lost",
        "period_lost",
        "participant_expired",
    ]
    event = played.move(1_000)
    assert (event["remaining_ms"], event["bonus_ms"], played.overtime()) == (0, 0, (1, None, -6_000))


def test_an_adjustment_of_the_main_time_ends_overtime_and_restores_no_period() -> None:
    played = Played(BYO_YOMI)
    played.do("settle", 17_000)
    event = played.do("adjust", 0, "add", 4_000)
    assert (event["remaining_ms"], event["adjusted_ms"], played.overtime()) == (4_000, 4_000, (2, None, None))
    assert played.phase(1_000) == ("main", 3_000, 21_000)
    played.do("settle", 3_000)
    assert played.overtime() == (2, None, 5_000)
    assert played.happened("period_started") == [("period_started", 10_000), ("period_started", 21_000)]


def test_an_adjustment_that_adds_nothing_leaves_the_period() -> None:
    played = Played(BYO_YOMI)
    played.do("settle", 12_000)
    event = played.do("adjust", 0, "add", -5_000)
    assert (event["remaining_ms"], event["adjusted_ms"]) == (0, 0)
    assert played.phase() == ("period", 3_000, 15_000)


def test_an_adjustment_acts_on_what_a_clock_with_a_delay_shows() -> None:
    played = Played({"time_ms": 10_000, "delay": "simple", "delay_ms": 2_000})
    event = played.do("adjust", 3_000, "set", 4_000)
    assert (event["adjusted_ms"], played.deadline()) == (-5_000, 7_000)


def test_warnings_count_main_time_only_unless_the_scope_is_the_period() -> None:
    control = {"time_ms": 10_000, "periods": 2, "period_ms": 5_000}
    warned = Played(control, body={"warn_at_ms": [2_000, 5_000]})
    warned.do("settle", 20_000)
    assert warned.happened("time_warning") == [("time_warning", 5_000), ("time_warning", 8_000)]
    warned = Played(control, body={"warn_at_ms": [2_000, 5_000], "warn_scope": "period"})
    warned.do("settle", 20_000)
    assert warned.happened("time_warning") == [("time_warning", at) for at in (5_000, 8_000, 13_000, 18_000)]


def test_a_warning_waits_for_the_delay() -> None:
    control = {"time_ms": 10_000, "delay": "simple", "delay_ms": 2_000}
    played = Played(control, body={"warn_at_ms": [4_000]})
    played.do("settle", 9_000)
    assert played.happened() == [("time_warning", 8_000)]
    assert played.model.events[-1]["remaining_ms"] == 4_000


def test_a_book_move_costs_and_earns_nothing_but_counts_in_the_stage() -> None:
    played = Played({"moves": 2, **BLITZ}, {"time_ms": 5_000})
    event = played.move(3_000, is_free=True)
    assert (event["spent_ms"], event["bonus_ms"], event["remaining_ms"]) == (3_000, 3_000, 10_000)
    played.move(0, 0)
    assert played.main()[0] == 17_000


def test_members_of_a_group_share_one_control() -> None:
    people = [{"participant_id": name, "group_id": name.upper()[0]} for name in ("a1", "b1", "a2", "b2")]
    body = {"sync_mode": "per_group", "participants": people}
    played = Played({"moves": 2, **BLITZ}, BLITZ, body=body)
    played.move(1_000, 0, 1_000)
    assert played.main() == [22_000, 12_000]
    assert played.happened()[-1] == ("stage_entered", 2_000)
    assert played.model.active == "b2"


def test_a_time_never_exceeds_what_is_stored() -> None:
    clock = OwnerClock.beginning({"stages": [{"time_ms": 2_592_000_000}]})
    clock.add(MAX_REMAINING_MS)
    assert clock.remaining == MAX_REMAINING_MS


def test_no_move_is_accepted_after_the_flag() -> None:
    played = Played(BYO_YOMI)
    with pytest.raises(Refused):
        played.move(25_000)
    assert played.happened()[-1] == ("participant_expired", 25_000)
