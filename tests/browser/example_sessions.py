"""The sessions of the pictures, as fields of `POST /v1/sessions`."""

from __future__ import annotations

from typing import Any

STAGE: dict[str, Any] = {
    "sync_mode": "global",
    "total_time_ms": 120_000,
    "action_on_timeout": {"type": "notify"},
    "metadata": {
        "stage": {
            "title": "Main stage",
            "items": {
                "welcome": {"place": 1, "title": "Welcome", "speaker": "Ada Lovelace", "ms": 300_000},
                "talk": {"place": 2, "title": "Lightning talk: leap seconds", "speaker": "Alan Turing", "ms": 120_000},
                "keynote": {
                    "place": 3,
                    "title": "Keynote: keeping time",
                    "speaker": "Grace Hopper",
                    "ms": 1_500_000,
                    "notes": "Needs a lectern.",
                },
                "questions": {"place": 4, "title": "Questions and answers", "speaker": "", "ms": 600_000},
            },
            "current": {"item": "talk", "used_ms": 0},
            "warn": {"yellow_ms": 60_000, "red_ms": 20_000},
        }
    },
}
QUIZ: dict[str, Any] = {
    "sync_mode": "per_cycle",
    "time_per_cycle_ms": 30_000,
    "warn_at_ms": [10_000],
    "action_on_timeout": {"type": "notify"},
    "metadata": {"title": "Friday quiz"},
}
QUESTIONS = "\n".join(
    (
        *("Which planet is the largest?", "* Jupiter", "Mars", "Saturn", "Venus", ""),
        *("How many seconds are in an hour?", "360", "* 3,600", "36,000", "86,400"),
    )
)
LOT: dict[str, Any] = {
    "sync_mode": "global",
    "total_time_ms": 180_000,
    "warn_at_ms": [60_000, 10_000, 5_000],
    "metadata": {
        "lot": 17,
        "title": "Harbour at dusk, oil on canvas",
        "note": "Unsigned, about 1890.",
        "currency": "EUR",
        "price": 1000,
        "bidder": None,
        "step": 50,
        "extend_to_ms": 20_000,
        "hard_limit_ms": 600_000,
    },
}
EXTRA = "Extra time 25 %"
EXAM: dict[str, Any] = {
    "sync_mode": "global",
    "total_time_ms": 6_750_000,
    "warn_at_ms": [1_800_000, 300_000],
    "metadata": {
        "title": "Mathematics",
        "groups": [{"name": "Standard", "time_ms": 5_400_000}, {"name": EXTRA, "time_ms": 6_750_000}],
        "candidates": [{"name": f"A-{n}", "group": EXTRA if n == 103 else "Standard"} for n in range(101, 107)],
    },
}
