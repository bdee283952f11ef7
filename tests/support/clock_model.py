"""The clock of docs/clock.md as plain Python: slow, in memory, and meant to be obviously right.

A `Model` is one session. Its commands take the server's time first, as the scripts read it; a refused command
raises `Refused`. It is written from the documents, not from the scripts, so that the two can be compared.
"""

from __future__ import annotations

from typing import Any

from tests.support.clock_records import (
    IDLE,
    LIVE,
    SCOPES,
    SHARED,
    TIMEOUT,
    TIMEOUT_EVENTS,
    WARNING,
    Budget,
    Due,
    Person,
    Refused,
    after,
    body_groups,
    body_people,
    iso,
)


class Model:
    """One session, made from the body of a create request."""

    def __init__(self, body: dict[str, Any], now_ms: int, *, max_unattended: int = 1000) -> None:
        self.mode: str = body["sync_mode"]
        default_action = {"type": "skip_cycle" if self.mode == "per_cycle" else "end_session"}
        self.action: dict[str, Any] = body.get("action_on_timeout") or default_action
        self.body = body
        self.people = {
            p["participant_id"]: Person(p.get("total_time_ms"), p.get("group_id")) for p in body_people(body)
        }
        self.budgets = self._budgets()
        self.idle_timeout_ms = 1000 * (body.get("idle_timeout_s") or 86_400)
        self.metadata: dict[str, Any] = body.get("metadata") or {}
        self.completion: dict[str, Any] = {}
        self.status = "pending"
        self.turn: str | None = None
        self.last_of_group: dict[str, str] = {}
        self.cycle_count = 0
        self.running_time = 0
        self.run_started: int | None = None
        self.session_started: int | None = None
        self.session_completed: int | None = None
        self.fired: set[int] = set()
        self.crossed = False
        self.version = 0
        self.epoch = self.created = self.updated = self.now = now_ms
        self.idle_at: int | None = None
        self.not_idle_before = 0
        self.unattended = 0
        self.max_unattended = max_unattended
        self.events: list[dict[str, Any]] = []
        self._commit("session_created", now_ms)
        self._touch()

    def _budgets(self) -> dict[str, Budget]:
        if self.mode == "per_participant":
            granted = {name: person.granted for name, person in self.people.items()}
        elif self.mode == "per_group":
            granted = {group["group_id"]: group.get("total_time_ms") for group in body_groups(self.body)}
            for name, given in granted.items():
                if given is None:
                    granted[name] = sum(p.granted or 0 for p in self.people.values() if p.group_id == name)
        else:
            field = {"per_cycle": "time_per_cycle_ms", "global": "total_time_ms", "count_up": "max_time_ms"}[self.mode]
            granted = {SHARED: self.body.get(field)}
        return {name: Budget(ms, ms) for name, ms in granted.items() if ms is not None}

    # Commands.

    def start(self, now_ms: int, participant_id: str | None = None) -> dict[str, Any]:
        """Begin, with `participant_id` or the first in rotation."""
        self._begin(now_ms, "pending")
        self._known(participant_id, "unknown_participant")
        self.status = "running"
        self.session_started = self.now
        self._start_cycle(participant_id or next(iter(self.people), None), self.now)
        return self._finish("session_started", **self._actors(), remaining_ms=self.shown())

    def switch(
        self, now_ms: int, participant_id: str | None = None, next_participant_id: str | None = None
    ) -> dict[str, Any]:
        """End the cycle."""
        self._begin(now_ms, "running")
        self._known(participant_id, "unknown_participant")
        self._known(next_participant_id, "unknown_next_participant")
        if participant_id not in (None, self.active):
            raise Refused("not_active_participant")
        if next_participant_id and self.has_expired(next_participant_id) and self.action["type"] != "notify":
            raise Refused("expired_next_participant")
        self._charge(self.now)
        budget = self.budget()
        if budget and self.mode in ("per_participant", "per_group") and not budget.has_expired:
            budget.remaining += self.body.get("increment_ms", 0)
        left = self.shown()
        actors = self._actors()
        following = self._end_cycle(next_participant_id or self._next_in_rotation(), self.now)
        return self._finish("cycle_switched", **actors, next_participant_id=following, remaining_ms=left)

    def pause(self, now_ms: int) -> dict[str, Any]:
        """Pause the clock."""
        self._begin(now_ms, "running")
        self._charge(self.now)
        self.run_started = None
        self.status = "paused"
        return self._finish("session_paused", **self._actors(), remaining_ms=self.shown())

    def resume(self, now_ms: int) -> dict[str, Any]:
        """Resume the paused cycle."""
        self._begin(now_ms, "paused")
        self.status = "running"
        self.run_started = self.now
        return self._finish("session_resumed", **self._actors(), remaining_ms=self.shown())

    def adjust(
        self,
        now_ms: int,
        op: str,
        ms: int,
        participant_id: str | None = None,
        group_id: str | None = None,
        not_after_ms: int | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Change one budget."""
        self._begin(now_ms, *LIVE)
        owner = self._adjusted(participant_id, group_id)
        runs = self.status == "running" and owner == self.owner()
        shown = self.shown(owner)
        assert shown is not None
        target = {"add": shown + ms, "set": ms, "at_least": max(shown, ms)}[op]
        if not (runs and self.action["type"] == "notify"):
            target = max(min(0, shown), target)
        if not_after_ms is not None and self.now + target > not_after_ms:
            target = max(not_after_ms - self.now, min(target, shown))
        budget = self.budgets[owner]
        budget.remaining += target - shown
        if target > 0:
            budget.has_expired = False
            if owner == self.owner():
                self.crossed = False
        if owner == self.owner():
            self.fired = {threshold for threshold in self.fired if threshold >= target}
        named = {} if owner == SHARED else {f"{SCOPES[self.mode]}_id": owner}
        return self._finish("time_adjusted", **named, remaining_ms=target, adjusted_ms=target - shown, reason=reason)

    def complete(self, now_ms: int, reason: str | None = None, result: Any = None) -> dict[str, Any] | None:
        """Complete the session."""
        return self._close(now_ms, "completed", reason, result)

    def cancel(self, now_ms: int, reason: str | None = None) -> dict[str, Any] | None:
        """Cancel the session."""
        return self._close(now_ms, "cancelled", reason)

    def update(self, now_ms: int, metadata: dict[str, Any]) -> dict[str, Any]:
        """Merge into the metadata: flat values only, which is all that this model needs."""
        self.settle(now_ms)
        self.metadata = {**self.metadata, **metadata}
        return self._finish("metadata_updated")

    def restore(self, now_ms: int, epoch: int, rule: str) -> None:
        """Restore the session from the log; `rule` says what happens to the time since the last commit."""
        self.epoch, self.version, self.now = epoch, 0, self.updated
        if rule != "run":
            self._charge(self.updated)
            self.now = max(now_ms, self.updated)
            self.run_started = self.now if self.status == "running" and rule == "credit" else None
            self.status = "paused" if self.status == "running" and rule == "freeze" else self.status
            self.unattended = 0
        self.not_idle_before = max(now_ms, self.updated, self.deadline() or 0) + self.idle_timeout_ms
        self._commit("session_restored", self.now, **self._actors(), remaining_ms=self.shown(), reason=rule)
        if self.counts_idle():
            self.idle_at = max(now_ms, self.updated) + self.idle_timeout_ms
        self.settle(now_ms)

    def attend(self, now_ms: int) -> None:
        """Record a watcher, at the server's time; nothing is settled or committed."""
        if self.idle_at is not None and self.idle_at > now_ms:
            self.idle_at = max(self.idle_at, now_ms + self.idle_timeout_ms)

    # What is due without a command.

    def counts_idle(self) -> bool:
        """Return whether idle time counts, that is, whether no clock runs towards an end."""
        rounds = self.mode == "per_cycle" and self.action["type"] == "skip_cycle" and not self.body.get("max_cycles")
        return self.status in LIVE and (self.deadline() is None or self.crossed or rounds)

    def settle(self, now_ms: int) -> None:
        """Apply what is due, each at its own instant."""
        self.now = max(now_ms, self.updated)
        while (due := self.next_due()) and due.at_ms <= self.now:
            if due.kind == WARNING:
                self._warn(due.at_ms, due.threshold_ms)
            elif due.kind == TIMEOUT:
                self._time_out(due.at_ms)
            else:
                actors = self._actors()
                self._end("cancelled", due.at_ms)
                self._commit("session_cancelled", due.at_ms, **actors, reason="idle")

    def next_due(self) -> Due | None:
        """Return what is due next; what the last commit made overdue is due at that commit's instant."""
        if self.status not in LIVE:
            return None
        dues = [Due(self.idle_at, IDLE)] if self.idle_at is not None else []
        zero_ms = self.deadline()
        if zero_ms is not None:
            unfired = [ms for ms in self.body.get("warn_at_ms") or [] if ms not in self.fired]
            dues += [Due(max(zero_ms - ms, self.updated), WARNING, -ms, ms) for ms in unfired]
            if not self.crossed:
                dues.append(Due(max(zero_ms, self.updated), TIMEOUT))
        return min(dues, default=None)

    def _actors(self) -> dict[str, str | None]:
        """Return the active participant and its group."""
        group_id = self.people[self.active].group_id if self.active and self.mode == "per_group" else None
        return {"participant_id": self.active, "group_id": group_id}

    def _warn(self, at_ms: int, threshold_ms: int) -> None:
        self.fired.add(threshold_ms)
        remaining_ms = (self.deadline() or 0) - at_ms
        self._commit("time_warning", at_ms, **self._actors(), remaining_ms=remaining_ms, threshold_ms=threshold_ms)

    def _time_out(self, at_ms: int) -> None:
        budget = self.budget()
        assert budget is not None
        budget.has_expired = True
        self._act_on_timeout(at_ms, (self.deadline() or 0) - at_ms if self.action["type"] == "notify" else 0)

    def _act_on_timeout(self, at_ms: int, left: int) -> None:
        actors, following = self._actors(), None
        if self.action["type"] == "notify":
            self.crossed = True
        else:
            self._charge(at_ms)
            if self.action["type"] == "skip_cycle" and self.mode in SCOPES and not self._all_expired():
                following = self._end_cycle(self._next_in_rotation(), at_ms)
                self.unattended += 1
            else:
                self._end("expired", at_ms)
        outcome = {"next_participant_id": following, "remaining_ms": left, "action_on_timeout": self.action}
        self._commit(TIMEOUT_EVENTS[self.mode], at_ms, **actors, **outcome)
        if self.status == "running" and self.unattended >= self.max_unattended:
            self.run_started = None
            self.status = "paused"
            self._commit("session_paused", at_ms, **self._actors(), remaining_ms=self.shown(), reason="unattended")

    # Values that the rules depend on.

    @property
    def active(self) -> str | None:
        """The active participant."""
        return self.turn if self.status in ("running", "paused") else None

    def owner(self) -> str | None:
        """Return the owner of the budget that runs, would run, or ran last."""
        name = self.turn or next(iter(self.people), None)
        if self.mode == "per_participant":
            return name
        if self.mode == "per_group":
            assert name is not None
            return self.people[name].group_id
        return SHARED if SHARED in self.budgets else None

    def budget(self) -> Budget | None:
        """Return the budget of the owner."""
        owner = self.owner()
        return None if owner is None else self.budgets[owner]

    def elapsed(self) -> int:
        """Return how long the clock has been running."""
        return 0 if self.run_started is None else self.now - self.run_started

    def shown(self, owner: str | None = None) -> int | None:
        """Return the time on an owner's clock; by default, on the clock that runs or would run."""
        owner = owner or self.owner()
        if owner is None:
            return None
        return self.budgets[owner].remaining - (self.elapsed() if owner == self.owner() else 0)

    def deadline(self) -> int | None:
        """Return the instant at which the running clock reaches 0."""
        budget = self.budget()
        return None if budget is None or self.run_started is None else self.run_started + budget.remaining

    def has_expired(self, participant_id: str) -> bool:
        """Return whether a participant's budget, or its group's, has expired."""
        if self.mode == "per_participant":
            return self.budgets[participant_id].has_expired
        return self.mode == "per_group" and self.budgets[self.people[participant_id].group_id or ""].has_expired

    # Changes.

    def _begin(self, now_ms: int, *statuses: str) -> None:
        self.settle(now_ms)
        if self.status not in statuses:
            raise Refused("invalid_transition")

    def _known(self, participant_id: str | None, word: str) -> None:
        if participant_id is not None and participant_id not in self.people:
            raise Refused(word)

    def _commit(self, kind: str, at_ms: int, **fields: Any) -> dict[str, Any]:
        self.version += 1
        self.updated = at_ms
        event = {"type": kind, "at_ms": at_ms, **{name: value for name, value in fields.items() if value is not None}}
        self.events.append(event)
        if not self.counts_idle():
            self.idle_at = None
        elif self.idle_at is None:
            self.idle_at = max(at_ms + self.idle_timeout_ms, self.not_idle_before)
        return event

    def _finish(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Commit a command, and apply what it made due."""
        event = self._commit(kind, self.now, **fields)
        self._touch()
        self.settle(self.now)
        return event

    def _touch(self) -> None:
        """Record that a client sent a command."""
        self.unattended = self.not_idle_before = 0
        self.idle_at = self.now + self.idle_timeout_ms if self.counts_idle() else None

    def _charge(self, at_ms: int) -> None:
        """Charge the elapsed time; a new run starts."""
        if self.run_started is None:
            return
        elapsed = at_ms - self.run_started
        self.run_started = at_ms
        self.running_time += elapsed
        if budget := self.budget():
            budget.remaining -= elapsed
            budget.used += elapsed
        if self.turn:
            self.people[self.turn].used += elapsed

    def _start_cycle(self, participant_id: str | None, at_ms: int) -> None:
        self.turn = participant_id
        self.run_started = at_ms
        if participant_id and self.mode == "per_group":
            self.last_of_group[self.people[participant_id].group_id or ""] = participant_id
        budget = self.budget()
        if budget:
            self.fired = {ms for ms in self.body.get("warn_at_ms") or [] if ms >= budget.remaining}
            self.crossed = budget.has_expired

    def _end_cycle(self, following: str | None, at_ms: int) -> str | None:
        """Count the charged cycle, and start the next one; return its participant, if any."""
        self.cycle_count += 1
        if self.turn:
            self.people[self.turn].cycle_count += 1
        if self.cycle_count == self.body.get("max_cycles"):
            self._end("completed", at_ms)
            return None
        if self.mode == "per_cycle":
            self.budgets = self._budgets()
        self._start_cycle(following, at_ms)
        return following

    def _end(self, status: str, at_ms: int) -> None:
        self._charge(at_ms)
        self.status = status
        self.run_started = None
        self.session_completed = at_ms

    def _close(self, now_ms: int, status: str, reason: str | None, result: Any = None) -> dict[str, Any] | None:
        self.settle(now_ms)
        if self.status == status:
            return None
        if self.status not in LIVE:
            raise Refused("invalid_transition")
        actors = self._actors()
        self._end(status, self.now)
        if status == "completed":
            given = {"reason": reason, "result": result}
            self.completion = {name: value for name, value in given.items() if value is not None}
        return self._finish(f"session_{status}", **actors, reason=reason, result=result)

    def _all_expired(self) -> bool:
        """Return whether all participants have expired; never true in per_cycle, as each cycle has a full budget."""
        return bool(self.people) and all(map(self.has_expired, self.people))

    def _next_in_rotation(self) -> str | None:
        if self.turn is None:
            return None
        if self.mode != "per_group":
            order = after(list(self.people), self.turn)
            return next((name for name in order if not self.has_expired(name)), order[0])
        members: dict[str, list[str]] = {name: [] for name in self.budgets}
        for name, person in self.people.items():
            members[person.group_id or ""].append(name)
        own = self.people[self.turn].group_id or ""
        groups = [name for name in after(list(self.budgets), own) if members[name]]
        group = next((name for name in groups if not self.budgets[name].has_expired), groups[0])
        last = self.last_of_group.get(group)
        return after(members[group], last)[0] if last else members[group][0]

    def _adjusted(self, participant_id: str | None, group_id: str | None) -> str:
        """Return the owner of the budget that an adjustment names."""
        if participant_id is not None:
            self._known(participant_id, "unknown_participant")
        if participant_id is not None and self.mode in ("per_participant", "per_group"):
            return participant_id if self.mode == "per_participant" else self.people[participant_id].group_id or ""
        if group_id is not None and self.mode == "per_group":
            if group_id not in self.budgets:
                raise Refused("unknown_group")
            return group_id
        if participant_id is not None:
            raise Refused("no_participant_budget")
        if group_id is not None:
            raise Refused("no_group_budget")
        owner = self.owner()
        if owner is None:
            raise Refused("no_budget")
        return owner

    # The state document.

    def state(self) -> dict[str, Any]:
        """Return the state document as of the last settling, without the session's id."""
        own = self.mode == "per_participant"
        shown: dict[str, Any] = {
            "sync_mode": self.mode,
            "status": self.status,
            "epoch": self.epoch,
            "version": self.version,
            "participants": [
                {
                    "participant_id": name,
                    "participant_index": place,
                    "total_time_ms": person.granted,
                    "time_used_ms": person.used,
                    "time_remaining_ms": self.budgets[name].remaining if own else None,
                    "cycle_count": person.cycle_count,
                    "is_active": name == self.active,
                    "has_expired": self.has_expired(name),
                    **({"group_id": person.group_id} if person.group_id else {}),
                }
                for place, (name, person) in enumerate(self.people.items())
            ],
            "active_participant_id": self.active,
            "cycle_count": self.cycle_count,
            "total_time_ms": None
            if self.mode in ("per_cycle", "count_up")
            else self.body.get("total_time_ms") or sum(budget.granted for budget in self.budgets.values()),
            "time_per_cycle_ms": self.body.get("time_per_cycle_ms"),
            "increment_ms": self.body.get("increment_ms", 0),
            "cycle_started_at": iso(self.run_started),
            "session_started_at": iso(self.session_started),
            "session_completed_at": iso(self.session_completed),
            "created_at": iso(self.created),
            "updated_at": iso(self.updated),
            "idle_timeout_s": self.idle_timeout_ms // 1000,
            "idle_at": iso(self.idle_at),
            "action_on_timeout": self.action,
            "metadata": self.metadata,
            "server_time_ms": self.now,
            "clock": {
                "scope": SCOPES.get(self.mode, "session"),
                "direction": "up" if self.mode == "count_up" else "down",
                "running": self.status == "running",
                "remaining_ms": self.shown(),
                "elapsed_ms": self.elapsed() + (self.running_time if self.mode == "count_up" else 0),
                "deadline_ms": self.deadline(),
            },
        }
        if self.mode == "per_group":
            shown["groups"] = [
                {
                    "group_id": name,
                    "total_time_ms": budget.granted,
                    "time_used_ms": budget.used,
                    "time_remaining_ms": budget.remaining,
                    "has_expired": budget.has_expired,
                }
                for name, budget in self.budgets.items()
            ]
        if self.mode in ("per_cycle", "global", "count_up"):
            budget = self.budget()
            shown |= {"time_used_ms": self.running_time, "time_remaining_ms": budget.remaining if budget else None}
        if self.completion:
            shown["completion"] = self.completion
        if self.body.get("warn_at_ms"):
            shown["warn_at_ms"] = sorted(self.body["warn_at_ms"], reverse=True)
        return shown | {name: self.body[name] for name in ("max_time_ms", "max_cycles") if self.body.get(name)}
