"""The slots of one trigger that are due together, on their way to their verdicts. Part of ``decide``. (spec 4.4–4.7)"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from ..models import MisfirePolicy
from ..slot_reasons import ON_TIME, SlotReason, SlotReasonCode, iso
from ..status import Origin
from .ahead import plan_ahead
from .decisions import Cancel, RunRequest, TriggerMove, run_key
from .ledger import Occurrence, Verdict, compress
from .misfire import (
    Cause,
    Next,
    cause_of,
    decide_misfire,
    is_disabled,
    is_late,
    lateness,
    misfire_event,
    misfire_reason,
    policy_for,
)
from .overlap import Overlap, active_runs, decide_overlap
from .state import Firing, OpenRun, State, TaskState, TriggerState
from .timetable import (
    BY_EVENT,
    FINITE,
    advance,
    effective_due,
    in_window,
    jitter,
    moved_from,
    moved_to,
    next_run,
    outside,
    start_of,
)

__all__ = ["AHEAD_PER_LOOK", "Batch", "Look"]

AHEAD_PER_LOOK: Final = 10_000
_INSTANT = timedelta(microseconds=1)
_ORIGINS = {"ad_hoc": Origin.AD_HOC, "after": Origin.AFTER, "startup": Origin.STARTUP}


class Look:
    """One look at the state: what it is made from, and what it has decided so far."""

    def __init__(self, state: State, now: datetime) -> None:
        self.state = state
        self.now = now
        self.runs_of: dict[str, list[OpenRun]] = defaultdict(list)
        for run in state.runs:
            self.runs_of[run.task_id].append(run)
        self.occurrences: list[Occurrence] = []
        self.runs: list[RunRequest] = []
        self.cancel: dict[str, Cancel] = {}
        self.withdraw: list[str] = []
        self.moves: list[TriggerMove] = []
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.ahead = 0
        self.unfinished = False

    def make_ahead(self, ts: TriggerState, upcoming: datetime | None) -> None:
        """Make the runs ahead that are missing; those of later triggers wait for the next look when they are many."""
        if self.state.horizon is None:
            return
        if self.ahead >= AHEAD_PER_LOOK:
            self.unfinished = True
            return
        made = plan_ahead(self.state, ts, upcoming, self.now)
        self.ahead += len(made)
        self.runs += made

    def take_back(self, ts: TriggerState, keep: frozenset[str] = frozenset()) -> None:
        """Withdraw the runs made ahead that no worker has taken."""
        self.withdraw += [run.run_id for run in ts.planned if not run.started and run.run_id not in keep]


class Batch:
    """The slots of one trigger that are due, on their way to their verdicts."""

    def __init__(self, look: Look, ts: TriggerState, task: TaskState, payloads: Mapping[datetime, Firing]) -> None:
        self.look = look
        self.state = look.state
        self.now = look.now
        self.ts = ts
        self.trigger = ts.trigger
        self.task = task
        self.payloads = payloads
        self.standings = (self.state.standing, task.standing, ts.standing)
        self.planned = {run.slot: run for run in ts.planned if run.slot <= look.now}
        self.rows: dict[datetime, Occurrence] = {}
        self.used: set[str] = set()
        self.next = Next.GOES_ON
        self.fired = False
        self.told: tuple[datetime, MisfirePolicy, Cause] | None = None

    def judge(self, due: Sequence[datetime], held: Cause | None, too_many: bool) -> None:
        owed = self._let_through(due, held)
        if not owed:
            return
        if too_many:
            for slot in owed:
                cause = self._cause(slot)
                reason = misfire_reason(cause.code, self._late(slot), "", cause, "more is owed than is made up for")
                self._row(slot, Verdict.EXPIRED, reason)
        elif is_late(effective_due(self.ts, owed[0]), self.now, self.trigger.misfire_grace_seconds):
            self._late_slots(owed)
        else:
            self._fire(owed, dict.fromkeys(owed, ON_TIME), {}, caught_up=False)

    def _late(self, slot: datetime) -> int:
        return lateness(effective_due(self.ts, slot), self.now)

    def _cause(self, slot: datetime) -> Cause:
        return cause_of(slot, self.state, self.standings, self.trigger.misfire_grace_seconds)

    def _row(self, slot: datetime, verdict: Verdict, reason: SlotReason, run_id: str | None = None) -> None:
        amends = self.ts.verdicts.get(slot)
        self.rows[slot] = Occurrence(self.ts.id, slot, verdict, reason, self.now, self.task.id, run_id, amends=amends)

    # --- what keeps a slot from being owed ------------------------------------------------------------------------

    def _let_through(self, due: Sequence[datetime], held: Cause | None) -> list[datetime]:
        """The slots that are owed; the others get their verdict here."""
        ts, trigger = self.ts, self.trigger
        past = any(standing.hold is not None or standing.past for standing in self.standings)
        plain = not (ts.verdicts or self.planned or held or past or trigger.calendar)
        if plain and (trigger.start_at is None and trigger.end_at is None):
            return list(due)
        owed: list[datetime] = []
        for slot in due:
            verdict = ts.verdicts.get(slot)
            if verdict is not None and verdict is not Verdict.SUPERSEDED:
                continue
            planned = self.planned.get(slot)
            if planned is not None and planned.started:
                self.used.add(planned.run_id)
                self._row(slot, Verdict.FIRED, ON_TIME, planned.run_id)
                self.fired = True
                continue
            reason = self._barred(slot, held)
            if reason is None:
                owed.append(slot)
            else:
                self._row(slot, Verdict.SKIPPED, reason)
        return owed

    def _barred(self, slot: datetime, held: Cause | None) -> SlotReason | None:
        trigger = self.trigger
        if not in_window(trigger, slot):
            return SlotReason(
                SlotReasonCode.OUTSIDE_WINDOW, {"startAt": iso(trigger.start_at), "endAt": iso(trigger.end_at)}
            )
        note = outside(self.ts, slot, self.state.calendars)
        if note is not None:
            data: dict[str, Any] = {"calendar": trigger.calendar}
            target = None if trigger.type in BY_EVENT else moved_to(trigger, slot, self.state.calendars)
            if target is not None and target > self.ts.since:
                data["movedTo"] = iso(target)
            return SlotReason(SlotReasonCode.CALENDAR_EXCLUDED, {**data, "note": note} if note else data)
        cause = held if held is not None else self._cause(slot)
        return SlotReason(cause.code, cause.data) if is_disabled(cause) else None

    # --- misfire --------------------------------------------------------------------------------------------------

    def _late_slots(self, owed: Sequence[datetime]) -> None:
        """Slots by policy: usually one group, more when the causes of one batch have policies of their own."""
        groups: dict[MisfirePolicy, list[datetime]] = {}
        causes: dict[datetime, Cause] = {}
        before: Cause | None = None
        grace = self.trigger.misfire_grace_seconds
        for slot in owed:
            cause = self._cause(slot)
            if before is not None and cause.hold is None and not is_late(slot, self.now, grace):
                cause = before  # still in grace: it goes with those before it
            before = causes[slot] = cause
            groups.setdefault(policy_for(self.trigger, cause), []).append(slot)
        fire: list[datetime] = []
        reasons: dict[datetime, SlotReason] = {}
        carriers: dict[datetime, datetime] = {}
        for policy, slots in groups.items():
            found = decide_misfire(slots, self.now, policy, self.trigger.catch_up, self.trigger.type)
            for slot in slots:
                code = causes[slot].code if causes[slot].hold is not None else SlotReasonCode.MISFIRE_POLICY
                reasons[slot] = misfire_reason(code, self._late(slot), policy, causes[slot])
            for slot in found.skip:
                self._row(slot, Verdict.SKIPPED, reasons[slot])
            limit = f"at most {self.trigger.catch_up.max} are made up for"
            if self.trigger.catch_up.window is not None:
                limit += f", none older than {self.trigger.catch_up.window:g} s"
            for slot in found.expire:
                cause = causes[slot]
                self._row(slot, Verdict.EXPIRED, misfire_reason(cause.code, self._late(slot), policy, cause, limit))
            fire += found.fire
            for slot in found.coalesce:
                carriers[slot] = found.fire[-1]
            if found.next is Next.FROM_NOW:
                self.next = Next.FROM_NOW
        first = owed[0]
        self.told = (first, policy_for(self.trigger, causes[first]), causes[first])
        if fire:
            self._fire(sorted(fire), reasons, carriers, caught_up=True)

    # --- overlap, and the run -------------------------------------------------------------------------------------

    def _fire(
        self,
        slots: Sequence[datetime],
        reasons: Mapping[datetime, SlotReason],
        carriers: Mapping[datetime, datetime],
        caught_up: bool,
    ) -> None:
        """``carriers``: coalesced slot → the slot whose run stands for it."""
        runs = self.look.runs_of[self.task.id]
        active = active_runs(self.trigger, runs)
        overlap = decide_overlap(self.trigger.overlap, slots, active)
        by_overlap = self._overlap_reason(active) if active else None
        for run_id in overlap.cancel:
            assert by_overlap is not None
            self.look.cancel.setdefault(run_id, Cancel(run_id, by_overlap))
        for slot in overlap.fire:
            self._row(slot, Verdict.FIRED, self._moved(slot, reasons[slot]), self._run(slot, overlap, caught_up))
        into = overlap.into or (self.rows[overlap.fire[0]].run_id if overlap.fire else None)
        for slot in overlap.coalesce:
            assert by_overlap is not None
            self._row(slot, Verdict.COALESCED, by_overlap, into)
        for slot in overlap.skip:
            assert by_overlap is not None
            self._row(slot, Verdict.SKIPPED, by_overlap)
        for slot, carrier in carriers.items():
            fate = self.rows[carrier]
            if fate.verdict is Verdict.SKIPPED:
                self._row(slot, Verdict.SKIPPED, fate.reason)
            else:
                self._row(slot, Verdict.COALESCED, reasons[slot], fate.run_id)

    def _overlap_reason(self, active: Sequence[OpenRun]) -> SlotReason:
        data = {"run": active[0].id, "overlap": self.trigger.overlap, "scope": self.trigger.overlap_scope}
        return SlotReason(SlotReasonCode.OVERLAP, data)

    def _moved(self, slot: datetime, reason: SlotReason) -> SlotReason:
        if self.trigger.calendar is None or self.trigger.calendar_rule == "skip":
            return reason
        source = moved_from(self.ts, slot, self.state.calendars)
        return reason if source is None else SlotReason(reason.code, {**reason.data, "movedFrom": iso(source)})

    def _run(self, slot: datetime, overlap: Overlap, caught_up: bool) -> str:
        """The run of a slot: the one made ahead, or a request for one."""
        self.fired = True
        planned = self.planned.get(slot)
        serial = self.trigger.overlap_scope if overlap.serial else ""
        priority = self.trigger.priority or self.task.priority
        request = self._request(slot, serial, caught_up)
        key = request.key
        if planned is not None:
            self.used.add(planned.run_id)
            key = planned.run_id
            request = replace(request, run_id=key)
        if planned is None or serial or caught_up:
            self.look.runs.append(request)
        self.look.runs_of[self.task.id].append(
            OpenRun(key, self.task.id, self.now, self.ts.id, slot, priority=priority, ready_at=request.ready_at,
                    serial=serial, caught_up=caught_up)
        )  # fmt: skip
        return key

    def _request(self, slot: datetime, serial: str, caught_up: bool) -> RunRequest:
        trigger = self.trigger
        firing = self.payloads.get(slot)
        payload = trigger.payload
        if firing is not None and firing.payload is not None:
            payload = {**(trigger.payload or {}), **firing.payload}
        return RunRequest(
            key=run_key(trigger.id, slot),
            task_id=self.task.id,
            created_at=self.now,
            trigger_id=trigger.id,
            slot=slot,
            ready_at=slot + jitter(trigger, slot) if trigger.jitter_seconds else None,
            origin=_ORIGINS.get(trigger.type, Origin.SCHEDULER),
            priority=trigger.priority or self.task.priority,
            total_attempts=1 + trigger.retry_policy.max_attempts,
            payload=payload,
            serial=serial,
            caught_up=caught_up,
            upstream_run_id=firing.upstream_run_id if firing is not None else None,
        )

    # --- how the trigger goes on ----------------------------------------------------------------------------------

    def close(self, due: Sequence[datetime], upcoming: datetime | None, held: Cause | None) -> None:
        look, ts, trigger = self.look, self.ts, self.trigger
        rows = [self.rows[slot] for slot in due if slot in self.rows]
        look.occurrences += rows if trigger.type in FINITE else compress(rows)
        cursor = due[-1] if ts.cursor is None or due[-1] > ts.cursor else ts.cursor
        changes: dict[str, Any] = {}
        if trigger.counts_from == "completion" and not self.fired:
            cursor = max(cursor, self.now)
        if self.next is Next.FROM_NOW:
            changes = (
                {"run_at": self.now + timedelta(seconds=1)} if trigger.type == "one_shot" else {"anchor": self.now}
            )
            cursor = max(cursor, self.now)
        elif trigger.type == "one_shot" and upcoming is None and trigger.enabled:
            changes = {"enabled": False}
        if changes or trigger.counts_from == "completion":
            verdicts = {**ts.verdicts, **{slot: row.verdict for slot, row in self.rows.items()}}
            moved = trigger.model_copy(update=changes)
            after = replace(ts, trigger=moved, cursor=cursor, next_known=False, verdicts=verdicts)
            upcoming = advance(after, start_of(after), look.state.calendars, self.fired) if moved.enabled else None
        else:
            after = ts
        shown = upcoming
        if trigger.calendar is not None and upcoming is not None:
            shown = next_run(replace(after, cursor=cursor), upcoming - _INSTANT, look.state.calendars)
        last_run = self.now if self.fired else None
        look.moves.append(TriggerMove(ts.id, ts.cursor, cursor, upcoming, shown, last_run, changes))
        if self.told is not None:
            enabled = bool(changes.get("enabled", trigger.enabled))
            look.events.append(misfire_event(look.state.scheduler_id, ts, self.told, self.now, shown, enabled))
        past = [run.run_id for run in ts.planned if run.slot <= cursor and run.run_id not in self.used]
        if changes or held is not None:
            look.take_back(ts, keep=frozenset(self.used))
        else:
            look.withdraw += past
            look.make_ahead(ts, upcoming)
