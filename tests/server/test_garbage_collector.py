"""Python's cyclic garbage collector in web processes: short steps, and no leak."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from syncapp.loops import Loops
from syncapp.metrics import GC_PAUSES
from syncapp.server.garbage_collector import GROWTH_S, IDLE_S, YOUNG_OBJECTS, GarbageCollector
from tests.support.cluster import Cluster
from tests.support.step_clock import StepClock
from tests.support.web_clients import metric_value, wait_until


class Node:
    """An object that may be part of a reference cycle."""

    def __init__(self) -> None:
        self.other: object = None


def make_cycle() -> weakref.ref[Node]:
    """Make two objects that refer to each other and that nothing uses; return a reference that does not count."""
    one, two = Node(), Node()
    one.other, two.other = two, one
    return weakref.ref(one)


class Process(GarbageCollector):
    """The collector of a process whose time and CPU time the test tells; it is process."""

    def __init__(self) -> None:
        self.now, self.used = StepClock(), StepClock()
        super().__init__(clock=self.now, cpu_clock=self.used)

    def pass_time(self, by_s: float, share: float = 0.9) -> None:
        """Let time pass, in which the process uses this share of a core."""
        self.now.now_s += by_s
        self.used.now_s += by_s * share


@pytest.fixture
def process() -> Iterator[Process]:
    """Python's own visits are put back after the test."""
    thresholds = gc.get_threshold()
    gc.disable()
    yield Process()
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.enable()


def survive_youth() -> None:
    """Visit the young objects, as Python does after many were made."""
    gc.collect(0)
    gc.collect(1)


def settle_cycle(process: Process) -> weakref.ref[Node]:
    """Settle an object that refers to itself, and make it garbage; return a reference that does not count."""
    node = Node()
    node.other = node
    survive_youth()
    process.turn()
    return weakref.ref(node)


def test_a_cycle_that_is_young_is_freed_by_the_next_step(process: Process) -> None:
    process.visit_all()
    kept = [Node() for _ in range(10)]
    survive_youth()
    cycle = make_cycle()
    process.turn()
    assert cycle() is None
    assert len(kept) == 10


def test_a_step_does_not_visit_what_earlier_ones_have_settled(process: Process) -> None:
    process.visit_all()
    before = gc.get_freeze_count()
    kept = [Node() for _ in range(1000)]
    survive_youth()
    process.turn()
    assert gc.get_freeze_count() >= before + len(kept) / 2  # others free theirs meanwhile
    assert len(gc.get_objects()) < 1000


def test_cycles_that_were_settled_are_freed_once_the_objects_have_grown_by_a_quarter(process: Process) -> None:
    process.visit_all()
    cycle = settle_cycle(process)
    survive_youth()
    process.pass_time(GROWTH_S * 2)
    process.turn()
    assert cycle() is not None  # nothing has grown
    kept = [[None] for _ in range(gc.get_freeze_count() // 3)]
    survive_youth()
    process.turn()
    assert cycle() is None
    assert kept


def test_growth_has_all_objects_visited_once_a_minute_at_most(process: Process) -> None:
    process.visit_all()
    kept = []

    def visits() -> float:
        return sum(
            sample.value
            for metric in GC_PAUSES.collect()
            for sample in metric.samples
            if sample.name.endswith("_count") and sample.labels["visited"] == "all"
        )

    before = visits()
    for _ in range(4):
        kept.append([[None] for _ in range(gc.get_freeze_count() // 2)])
        survive_youth()
        process.pass_time(GROWTH_S / 2 - 1)
        process.turn()
    assert visits() == before + 1


def test_connections_that_come_and_go_are_no_growth(process: Process) -> None:
    process.visit_all()
    settled = process._settled
    for _ in range(8):
        kept = [[None] for _ in range(settled // 10)]
        survive_youth()
        process.pass_time(GROWTH_S)
        process.turn()
        del kept  # freed by reference counts
    assert process._settled == settled


def test_a_quiet_process_frees_what_is_left_of_a_busy_time(process: Process) -> None:
    process.visit_all()
    cycle = settle_cycle(process)
    process.pass_time(IDLE_S)
    process.turn()
    assert cycle() is not None  # it is busy
    process.pass_time(10, share=0.1)
    process.turn()
    assert cycle() is None


def test_it_runs_by_itself(process: Process) -> None:
    stopped = threading.Event()
    gc.enable()
    process.start(Loops(), stopped)
    try:
        assert gc.get_threshold()[0] == YOUNG_OBJECTS
        cycles = [make_cycle() for _ in range(YOUNG_OBJECTS)]
        kept: list[list[Node]] = []

        def make_more() -> bool:
            kept.append([Node() for _ in range(1000)])
            return all(cycle() is None for cycle in cycles)

        wait_until(make_more)
    finally:
        stopped.set()


def test_a_web_process_shows_its_pauses(web: Cluster) -> None:
    assert metric_value(web.urls[0], 'syncapp_gc_pause_seconds_count{visited="all"}') >= 1
