"""Random bodies of create requests, of every mode and kind of time control."""  # noqa: INP001  # a folder of the JavaScript package

from __future__ import annotations

import random
from typing import Any

Document = dict[str, Any]
KINDS = (
    *("absolute", "fischer", "capped", "simple", "bronstein", "byo_yomi", "csa", "canadian", "per_move"),
    *("hourglass", "stages"),
)
PLAIN = ("per_participant", "per_group", "per_cycle", "global", "count_up", "stopwatch")
LABELS = (
    *(f"{mode} {kind}" for mode in ("per_participant", "per_group") for kind in KINDS),
    *(f"{mode} plain" for mode in PLAIN),
)
BUDGETS = {"per_cycle": "time_per_cycle_ms", "global": "total_time_ms", "count_up": "max_time_ms"}


class Bodies:
    """Random bodies of create requests. rng: where chance comes from."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.scale = 1

    def draw(self, label: str) -> tuple[set[str], Document]:
        """Return the names of further rules, and a body of one of LABELS."""
        rng = self.rng
        mode, kind = label.split()
        self.scale = rng.choice([1, 1000, 997])
        action = rng.choice(["end_session", "end_session", "skip_cycle", "notify"])
        if kind == "hourglass" and action == "skip_cycle":
            action = "end_session"
        body: Document = {"action_on_timeout": {"type": action}, "metadata": {"round": 1}}
        if rng.random() < 0.3:
            body["warn_at_ms"] = [self.time(1, 5, 10)]
        if kind == "plain":
            return {action}, body | self._plain(mode)
        people, groups = self._people(mode, least=2)
        control, rules = self._control(kind)
        body |= {"sync_mode": mode, "participants": people, "time_control": control, "takeback_cycles": 3} | groups
        if kind != "hourglass" and rng.random() < 0.3:
            (groups["groups"] if groups else people)[0]["time_control"] = self._control(rng.choice(KINDS[:-2]))[0]
            rules.add("odds")
        if rng.random() < 0.45:
            body["lag_compensation"] = {
                "per_move_ms": rng.choice([0, 5, 50]),
                "quota_ms": rng.choice([1, 7, 300, 5000]),
            }
            rules.add("lag")
        return {action, *rules}, body

    def time(self, *units: int) -> int:
        """Return one of these times, in ms."""
        return self.rng.choice(units) * self.scale

    def _plain(self, name: str) -> Document:
        mode = "count_up" if name == "stopwatch" else name
        budget_ms = self.rng.choice([1000, 1001, 5000, 60_000, 3_600_000])
        has_owners = mode in ("per_participant", "per_group")
        people, groups = self._people(mode, least=1 if has_owners else 0)
        body: Document = {"sync_mode": mode, "participants": people} | groups
        if has_owners:
            for each in groups.get("groups", people):
                each["total_time_ms"] = budget_ms + self.rng.choice([0, 0, 500])
            return body | {"increment_ms": self.rng.choice([0, 0, 1, 500]), "takeback_cycles": 3}
        return body if name == "stopwatch" else body | {BUDGETS[mode]: budget_ms}

    def _people(self, mode: str, least: int) -> tuple[list[Document], Document]:
        people: list[Document] = [{"participant_id": f"p{i}"} for i in range(self.rng.randint(least, 4))]
        if mode != "per_group":
            return people, {}
        names = [f"g{i}" for i in range(min(len(people), self.rng.choice([2, 2, 3])))]
        for place, each in enumerate(people):
            each["group_id"] = names[place % len(names)]
        return people, {"groups": [{"group_id": name} for name in self.rng.sample(names, len(names))]}

    def _control(self, kind: str) -> tuple[Document, set[str]]:
        rng = self.rng
        control: Document = {"stages": [{"time_ms": self.time(5, 10, 30), "hourglass": True}]}
        rules: set[str] = set()
        if kind == "stages":
            control = {"stages": [self._stage(rng.choice(KINDS[:-2])) for _ in range(rng.randint(2, 3))]}
            for stage in control["stages"]:
                stage["moves"] = rng.choice([1, 1, 2])
            control["stages"][-1]["repeat"] = True
        elif kind != "hourglass":
            control = {"stages": [self._stage(kind)]}
        options: Document = {"margin_ms": self.time(1, 5)}
        if kind != "hourglass":
            options |= {"charge_unit_ms": self.time(2, 5, 1), "min_charge_ms": self.time(1, 3)}
            options["first_bonus"] = "before_move"
        for name, value in options.items():
            if rng.random() < 0.3:
                control[name] = value
                rules.add(name)
        return control, rules

    def _stage(self, kind: str) -> Document:
        bonus_ms, period_ms = self.time(1, 2, 5), self.time(1, 3, 5, 10)
        stages: dict[str, Document] = {
            "absolute": {},
            "fischer": {"increment_ms": bonus_ms},
            "capped": {"increment_ms": bonus_ms, "cap_ms": self.time(10, 20)},
            "simple": {"delay": "simple", "delay_ms": bonus_ms},
            "bronstein": {"delay": "bronstein", "delay_ms": bonus_ms},
            "byo_yomi": {"periods": self.rng.randint(1, 4), "period_ms": period_ms},
            "csa": {"periods": self.rng.randint(1, 3), "period_ms": period_ms, "increment_ms": bonus_ms},
            "canadian": {"period_moves": self.rng.randint(1, 3), "period_ms": period_ms},
            "per_move": {"per_move_ms": period_ms},
        }
        return stages[kind] | ({} if kind == "per_move" else {"time_ms": self.time(2, 5, 10, 30)})
