"""The modes of a session and their traits. No other Python module distinguishes modes by name.

`lua/_modes.lua` is the corresponding table of the scripts.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Mode = Literal["per_participant", "per_cycle", "per_group", "global", "count_up"]


class ModeTraits(NamedTuple):
    """The traits in which modes differ.

    scope: the owner of the running clock. has_turns: each cycle belongs to one participant, in rotation. counts_up: the
    clock is a stopwatch. budget_field: the field of a create request that holds the session's own budget; None if
    participants or groups have the budgets. needs_budget: that field is required. shows_total: the state shows the sum
    of all budgets. on_timeout: the action on timeout by default.
    """

    scope: Literal["participant", "group", "cycle", "session"]
    has_turns: bool
    counts_up: bool = False
    budget_field: Literal["time_per_cycle_ms", "total_time_ms", "max_time_ms"] | None = None
    needs_budget: bool = True
    shows_total: bool = True
    on_timeout: Literal["end_session", "skip_cycle"] = "end_session"

    @property
    def has_participant_budgets(self) -> bool:
        """Whether each participant has a budget."""
        return self.scope == "participant"

    @property
    def has_group_budgets(self) -> bool:
        """Whether participants belong to groups, which have the budgets."""
        return self.scope == "group"

    @property
    def has_owner_budgets(self) -> bool:
        """Whether participants or groups have budgets, to which increments are credited."""
        return self.budget_field is None

    @property
    def renews_budget(self) -> bool:
        """Whether each cycle starts with the full budget."""
        return self.scope == "cycle"


MODES: dict[str, ModeTraits] = {
    "per_participant": ModeTraits("participant", has_turns=True),
    "per_cycle": ModeTraits(
        "cycle", has_turns=True, budget_field="time_per_cycle_ms", shows_total=False, on_timeout="skip_cycle"
    ),
    "per_group": ModeTraits("group", has_turns=True),
    "global": ModeTraits("session", has_turns=False, budget_field="total_time_ms"),
    "count_up": ModeTraits(
        "session",
        has_turns=False,
        counts_up=True,
        budget_field="max_time_ms",
        needs_budget=False,
        shows_total=False,
    ),
}

GROUP_MODES = " and ".join(name for name, traits in MODES.items() if traits.has_group_budgets)
"""The modes with groups, as text for messages."""
OWNER_MODES = " and ".join(name for name, traits in MODES.items() if traits.has_owner_budgets)
"""The modes whose participants or groups have budgets, as text for messages."""
