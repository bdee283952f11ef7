"""When Python looks for reference cycles that nothing uses: in short steps, so that no client waits for it.

Python's own rule is to visit every object once their number has grown by a quarter. With 10,000 connections that is a
pause of half a second, in which nearly nothing is found: what a connection keeps alive is freed by reference counts.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

from syncapp.loops import Loops
from syncapp.metrics import GC_PAUSES

YOUNG_OBJECTS = 10_000
"""Objects that are made, and not freed, before the youngest ones are visited."""
YOUNG_COLLECTIONS = 2
"""Visits to the youngest objects before those that were visited once are visited again."""
STEP_S = 0.25
"""How often the objects that have survived both are visited, if there are any."""
MAX_GROWTH = 0.25
"""All objects are visited when there are this much more of them, as by Python's own rule."""
GROWTH_S = 60.0
"""All objects are visited at most this often because of their growth: while many clients connect, each visit finds the
same objects alive."""
IDLE_S = 300.0
IDLE_SHARE = 0.2
"""All objects are visited this often while the process uses less than this share of a core."""
_NEVER = 2**31 - 1


class GarbageCollector:
    """Takes over from Python's automatic visits to old objects; young ones are still visited automatically.

    An object that is still alive after a step is *settled* (`gc.freeze`): later steps do not visit it, so a step takes
    as long as the objects are many that were made since the last one. Reference counts free settled objects as always.
    Reference cycles among them wait for a visit to all objects.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, cpu_clock: Callable[[], float] = time.process_time
    ) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._settled = 0
        """How many objects were settled after the last visit to all."""
        self._newly_settled = 0
        self._visited_s = self._looked_s = clock()
        self._cpu_s = cpu_clock()

    def start(self, loops: Loops, stopped: threading.Event) -> None:
        """Settle everything that exists by now, and start the loop."""
        gc.set_threshold(YOUNG_OBJECTS, YOUNG_COLLECTIONS, _NEVER)
        self.visit_all()
        loops.start("garbage_collector", self.turn, stopped)

    def turn(self) -> float:
        """Do a step if enough young objects have survived, and visit all objects if that is due."""
        is_idle = self._is_idle()
        if gc.get_count()[2]:  # the youngest but one were visited, so some may have survived
            self._step()
        since_s = self._clock() - self._visited_s
        if (since_s >= GROWTH_S and self._has_grown()) or (since_s >= IDLE_S and is_idle):
            self.visit_all()
        return STEP_S

    def visit_all(self) -> int:
        """Free all reference cycles that nothing uses, and settle the rest; return how many objects were freed."""
        with GC_PAUSES.labels("all").time():
            gc.unfreeze()
            found = gc.collect()
            gc.freeze()
        self._settled, self._newly_settled = gc.get_freeze_count(), 0
        self._visited_s = self._clock()
        return found

    def _step(self) -> None:
        with GC_PAUSES.labels("step").time():
            gc.collect()
            self._newly_settled += len(gc.get_objects())
            gc.freeze()

    def _has_grown(self) -> bool:
        """Return whether the settled objects have become too many; counting them is left out while it cannot be."""
        allowed = int(self._settled * MAX_GROWTH)
        if self._newly_settled <= allowed:
            return False
        growth = gc.get_freeze_count() - self._settled
        self._newly_settled = max(0, growth)  # others were freed since: connections come and go
        return growth > allowed

    def _is_idle(self) -> bool:
        now_s, cpu_s = self._clock(), self._cpu_clock()
        share = (cpu_s - self._cpu_s) / max(now_s - self._looked_s, 0.001)
        self._looked_s, self._cpu_s = now_s, cpu_s
        return share < IDLE_SHARE
