"""Edits, pauses and deletions of a trigger: settle what is due, take back what was made ahead. (spec 4.2, 4.4)

An edit of the timetable never owes a past slot again: what was due is decided by the old definition first, slots that
a pause still held are *superseded*, and the new definition counts from now. Runs made ahead are taken back; a slot of
theirs that the new timetable no longer has is *superseded* at once, and comes back if a later edit has it again before
its time. An edit that leaves the timetable alone (payload, policies, switching off or on) moves no slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..models import Trigger
from ..slot_reasons import SlotReason, SlotReasonCode
from .apply import apply, move_trigger
from .decide import SLOTS_PER_TRIGGER, decide
from .decisions import Decisions, TriggerMove
from .ledger import Occurrence, Verdict, compress
from .misfire import held_by, is_disabled
from .state import PlannedRun, Standing, State, TriggerState, standing_of
from .timetable import BY_EVENT, FINITE, advance, due_slots, request_slots

__all__ = ["Revision", "resume", "revise", "same_timetable"]

_TIMETABLE = (
    *("type", "cron_expression", "cron_seconds", "interval_seconds", "anchor", "run_at", "timezone", "counts_from"),
    *("plan", "calendar", "calendar_rule", "start_at", "end_at"),
)
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Revision:
    """The decisions in the order in which they are applied, and the trigger after them (None: deleted)."""

    decisions: tuple[Decisions, ...]
    trigger: TriggerState | None


def same_timetable(old: Trigger, new: Trigger) -> bool:
    """Whether the two have the same slots by their fields."""
    return all(getattr(old, field) == getattr(new, field) for field in _TIMETABLE)


def revise(state: State, trigger_id: str, new: Trigger | None, now: datetime) -> Revision:
    """What an edit (``new``) or a deletion (None) at ``now`` brings about. ``state`` is the one before it."""
    settled, before = _settle(state, trigger_id, now)
    asked, old = _trigger(state, trigger_id).trigger, _trigger(settled, trigger_id)
    if new is not None:
        # What settling has just moved (an anchor, a time, a one_shot that is off) stays, unless the edit is about it.
        moved = {field: getattr(old.trigger, field) for field in ("anchor", "run_at", "enabled")}
        kept = {field: value for field, value in moved.items() if getattr(new, field) == getattr(asked, field)}
        new = new.model_copy(update=kept)
    if new is not None and same_timetable(old.trigger, new):
        same = replace(old, trigger=new, standing=_standing(old, new, now), planned=_started(old))
        return Revision((*before, Decisions(withdraw=_not_started(old))), same)
    after = None if new is None else _renewed(old, new, now)
    owed = [slot for slot in _owed(settled, old, now) if after is None or not _still_owed(after, slot)]
    ahead = [run for run in old.planned if run.slot > now and not run.started]
    lost = [run.slot for run in ahead if after is None or not _has(settled, after, run.slot)]
    code = SlotReasonCode.TRIGGER_DELETED if new is None else SlotReasonCode.TRIGGER_EDITED
    reason = SlotReason(code, {} if new is None else {"revision": new.revision})
    rows = [_row(old, slot, reason, now) for slot in owed]
    rows = rows if old.trigger.type in FINITE else compress(rows)
    rows += [_row(old, slot, reason, now) for slot in lost if slot not in old.verdicts]
    back = _not_started(old)
    if after is None:
        waiting = request_slots(old, settled.firings)
        rows += [_row(old, slot, reason, now) for slot in waiting]
        consumed = tuple(firing.id for firing in waiting.values())
        return Revision((*before, Decisions(tuple(rows), withdraw=back, consumed=consumed)), None)
    move = TriggerMove(trigger_id, old.cursor, after.cursor, None, None)
    last = Decisions(tuple(rows), withdraw=back, moves=(move,))
    verdicts = {**after.verdicts, **dict.fromkeys(lost, Verdict.SUPERSEDED)}
    return Revision((*before, last), replace(after, verdicts=verdicts, planned=_started(old)))


def _started(ts: TriggerState) -> tuple[PlannedRun, ...]:
    return tuple(run for run in ts.planned if run.started)


def _not_started(ts: TriggerState) -> tuple[str, ...]:
    return tuple(run.run_id for run in ts.planned if not run.started)


def resume(standing: Standing, now: datetime) -> Standing:
    """The standing after its hold was ended at ``now``."""
    hold = standing.hold
    return standing if hold is None else Standing(None, (*standing.past, replace(hold, until=now)))


def _settle(state: State, trigger_id: str, now: datetime) -> tuple[State, tuple[Decisions, ...]]:
    """Decide all that is due of this trigger as it stands."""
    part = replace(
        state,
        triggers=tuple(ts for ts in state.triggers if ts.id == trigger_id),
        firings=tuple(firing for firing in state.firings if firing.trigger_id == trigger_id),
        ended=(),
        horizon=None,
    )
    made: list[Decisions] = []
    while True:
        decisions = replace(decide(part, now), events=())
        made.append(decisions)
        part = apply(part, decisions)
        if not decisions.unfinished:
            return part, tuple(made)


def _trigger(state: State, trigger_id: str) -> TriggerState:
    return next(ts for ts in state.triggers if ts.id == trigger_id)


def _owed(state: State, ts: TriggerState, now: datetime) -> Iterator[datetime]:
    """The slots that still wait for a verdict, since something is paused."""
    task = state.tasks.get(ts.task_id)
    if task is None or ts.trigger.type in BY_EVENT:
        return
    held = held_by((state.standing, task.standing, ts.standing), now)
    if held is None or is_disabled(held):
        return
    while True:
        slots, upcoming = due_slots(ts, now, state.calendars, SLOTS_PER_TRIGGER)
        yield from (slot for slot in slots if ts.verdicts.get(slot) in (None, Verdict.SUPERSEDED))
        if not slots or upcoming is None or upcoming > now:
            return
        ts = move_trigger(ts, TriggerMove(ts.id, ts.cursor, slots[-1], upcoming, None))


def _still_owed(after: TriggerState, slot: datetime) -> bool:
    """A single time that stands in the new list too."""
    trigger = after.trigger
    return trigger.type in FINITE and slot in (*trigger.plan, trigger.run_at) and slot not in after.verdicts


def _has(state: State, after: TriggerState, slot: datetime) -> bool:
    return advance(after, slot - _INSTANT, state.calendars) == slot


def _row(ts: TriggerState, slot: datetime, reason: SlotReason, now: datetime) -> Occurrence:
    amends = ts.verdicts.get(slot)
    return Occurrence(ts.id, slot, Verdict.SUPERSEDED, reason, now, ts.task_id, amends=amends)


def _renewed(old: TriggerState, new: Trigger, now: datetime) -> TriggerState:
    cursor = now if old.cursor is None else max(old.cursor, now)
    verdicts = {slot: verdict for slot, verdict in old.verdicts.items() if slot > now or new.type in FINITE}
    if new.type in FINITE:
        if old.trigger.type not in FINITE:
            # Which of its past times the old timetable had is no longer known: none of them is owed again.
            times: Sequence[datetime | None] = (*new.plan, new.run_at)
            verdicts |= {at: Verdict.SKIPPED for at in times if at is not None and at <= cursor}
        cursor = max(old.cursor or now, now)
    return TriggerState(
        trigger=new,
        since=now,
        cursor=cursor,
        standing=_standing(old, new, now),
        verdicts=verdicts,
        last_finished=old.last_finished,
    )


def _standing(old: TriggerState, new: Trigger, now: datetime) -> Standing:
    fields = ("enabled", "paused_until", "paused_reason")
    if all(getattr(old.trigger, field) == getattr(new, field) for field in fields):
        return old.standing
    ended = old.standing.hold
    if ended is not None and (ended.until is None or ended.until > now):
        ended = replace(ended, until=now)
    return standing_of(new, now, (*old.standing.past, *([ended] if ended else [])))
