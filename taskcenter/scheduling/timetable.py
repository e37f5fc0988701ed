"""The slots of a trigger of any type, with its window and its calendar: the one answer that all others ask for.

``advance`` gives the next instant at which something must be decided. That is every slot of the timetable, those
excluded by a calendar too (they get a verdict that says so), and, with the rule *next* or *previous working day*,
the instant on the working day to which an excluded slot moves. Such a day is looked for within two weeks, at the
same wall time; an excluded slot that finds none is skipped and nothing more. (spec 4.1, 4.7)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final
from zoneinfo import ZoneInfo

from ..models import Trigger
from .calendars import Calendars
from .occurrences import next_slot, slots
from .state import Firing, TriggerState

__all__ = [
    "BY_EVENT",
    "FINITE",
    "advance",
    "due_slots",
    "effective_due",
    "in_window",
    "is_plain",
    "jitter",
    "moved_from",
    "moved_to",
    "next_run",
    "outside",
    "request_slots",
    "start_of",
]

BY_EVENT: Final = frozenset({"ad_hoc", "after", "startup"})
"""Types that fire by a request and have no timetable."""
FINITE: Final = frozenset({"one_shot", "planned"})
"""Types with a list of times, each once. All of their verdicts are known to their state."""
FARTHEST_MOVE: Final = 14
_INSTANT = timedelta(microseconds=1)
_BEGIN = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)
_CLOCK_CHANGE = timedelta(hours=3)
_MOST_LOOKED_AT = 1_000


def start_of(ts: TriggerState) -> datetime:
    """Where to look from: after the cursor, or after the definition came into force."""
    if ts.trigger.type in FINITE:
        return _BEGIN
    return ts.cursor if ts.cursor is not None else ts.since


def advance(ts: TriggerState, after: datetime, calendars: Calendars, active: bool = False) -> datetime | None:
    """The first instant strictly after ``after`` at which ``ts`` has a slot. ``active``: a run of it is open."""
    found = _timetable(ts, after, active)
    trigger = ts.trigger
    if trigger.calendar is None or trigger.calendar_rule == "skip":
        return found
    moved = _first_moved(ts, after, found, calendars)
    return moved if found is None or (moved is not None and moved < found) else found


def due_slots(
    ts: TriggerState, now: datetime, calendars: Calendars, limit: int, active: bool = False
) -> tuple[list[datetime], datetime | None]:
    """The slots up to ``now`` that have no verdict, oldest first, at most ``limit``; and the slot after them."""
    found: list[datetime] = []
    once = ts.trigger.counts_from == "completion"
    at = ts.next_slot if ts.next_known and not once else advance(ts, start_of(ts), calendars, active)
    while at is not None and at <= now and len(found) < limit:
        found.append(at)
        if once:
            return found, None
        at = advance(ts, at, calendars, active)
        if at is not None and at <= now and is_plain(ts.trigger):
            found += slots(ts.trigger, found[-1], now, limit - len(found))
            return found, next_slot(ts.trigger, found[-1])
    return found, at


def is_plain(trigger: Trigger) -> bool:
    """Whether all of its slots are those of its timetable, so that many can be asked for at once."""
    plain = trigger.calendar is None and trigger.end_at is None and trigger.start_at is None
    return plain and (trigger.type == "cron" or (trigger.type == "interval" and trigger.counts_from == "schedule"))


def request_slots(ts: TriggerState, firings: Sequence[Firing]) -> dict[datetime, Firing]:
    """Requests by slot: their instants; two at one instant, or one from a clock set back, get the next free one."""
    found: dict[datetime, Firing] = {}
    last = ts.cursor
    for firing in sorted(firings, key=lambda firing: (firing.at, firing.id)):
        last = firing.at if last is None or firing.at > last else last + _INSTANT
        found[last] = firing
    return found


def _timetable(ts: TriggerState, after: datetime, active: bool) -> datetime | None:
    trigger = ts.trigger
    kind = trigger.type
    if kind == "cron" or (kind == "interval" and trigger.counts_from == "schedule"):
        start = trigger.start_at
        if start is not None and after < start:
            after = start - _INSTANT
        slot = next_slot(trigger, after)
        return slot if slot is None or trigger.end_at is None or slot <= trigger.end_at else None
    if kind in FINITE:
        return min((at for at in _times(trigger) if at > after and not _settled(ts, at)), default=None)
    return _after_completion(ts, after, active) if kind == "interval" else None


def _settled(ts: TriggerState, slot: datetime) -> bool:
    verdict = ts.verdicts.get(slot)
    return verdict is not None and verdict != "superseded"


def _after_completion(ts: TriggerState, after: datetime, active: bool) -> datetime | None:
    """So long after the end of the run before, or after the last slot that got none."""
    trigger = ts.trigger
    if active or trigger.interval_seconds is None:
        return None
    base = ts.cursor or ts.since
    if ts.last_finished is None and trigger.anchor is not None and trigger.anchor > base:
        slot = trigger.anchor
    else:
        slot = max(base, ts.last_finished or base) + timedelta(seconds=trigger.interval_seconds)
    if trigger.start_at is not None:
        slot = max(slot, trigger.start_at)
    late = trigger.end_at is not None and slot > trigger.end_at
    return slot if slot > after and not late else None


def in_window(trigger: Trigger, at: datetime) -> bool:
    started = trigger.start_at is None or at >= trigger.start_at
    return started and (trigger.end_at is None or at <= trigger.end_at)


def effective_due(ts: TriggerState, slot: datetime) -> datetime:
    """From when lateness counts. A single time that was past when it was written is due from then on."""
    return max(slot, ts.since) if ts.trigger.type in FINITE else slot


def outside(ts: TriggerState, slot: datetime, calendars: Calendars) -> str | None:
    """Why the trigger's calendar excludes ``slot`` (perhaps no words: ""); None when it does not."""
    calendar = ts.trigger.calendar
    return None if calendar is None else calendars.why_not(calendar, slot)


# --- working days ---------------------------------------------------------------------------------------------------


def moved_to(trigger: Trigger, slot: datetime, calendars: Calendars) -> datetime | None:
    """Where an excluded slot goes by the trigger's calendar rule; None: nowhere, not even to before ``startAt``."""
    sign = _sign(trigger)
    if trigger.calendar is None or not sign:
        return None
    for days in range(1, FARTHEST_MOVE + 1):
        at = _shift(slot, sign * days, trigger.timezone)
        if calendars.why_not(trigger.calendar, at) is None:
            return at if in_window(trigger, at) else None
    return None


def moved_from(ts: TriggerState, at: datetime, calendars: Calendars) -> datetime | None:
    """The excluded slot that ``at`` stands in for, when it is not a slot of the timetable itself."""
    if ts.trigger.calendar is None or not _sign(ts.trigger) or _timetable(ts, at - _INSTANT, False) == at:
        return None
    return next((slot for moved, slot in _moved(ts, at - _INSTANT, at, calendars) if moved == at), None)


def _first_moved(ts: TriggerState, after: datetime, until: datetime | None, calendars: Calendars) -> datetime | None:
    end = until or (_END if ts.trigger.type in FINITE else after + timedelta(days=FARTHEST_MOVE + 1))
    return min((moved for moved, _ in _moved(ts, after, end, calendars)), default=None)


def _moved(
    ts: TriggerState, start: datetime, end: datetime, calendars: Calendars
) -> Iterator[tuple[datetime, datetime]]:
    """The (moved, excluded slot) with ``start < moved <= end``. Slots from before the definition owe nothing."""
    trigger, sign = ts.trigger, _sign(ts.trigger)
    if trigger.type in FINITE:
        for slot in _times(trigger):
            excluded = in_window(trigger, slot) and outside(ts, slot, calendars) is not None
            at = moved_to(trigger, slot, calendars) if excluded else None
            if at is not None and start < at <= end and not _settled(ts, at):
                yield at, slot
        return
    if trigger.counts_from == "completion":
        return
    for days in range(1, FARTHEST_MOVE + 1):
        low, high = (_near(at, -sign * days, trigger.timezone) for at in (start, end))
        for slot in slots(trigger, max(low[0], ts.since), high[1], _MOST_LOOKED_AT):
            at = _shift(slot, sign * days, trigger.timezone)
            if not (start < at <= end and in_window(trigger, slot)) or outside(ts, slot, calendars) is None:
                continue
            if moved_to(trigger, slot, calendars) == at:
                yield at, slot


def _times(trigger: Trigger) -> tuple[datetime, ...]:
    if trigger.type == "planned":
        return trigger.plan
    return (trigger.run_at,) if trigger.run_at is not None else ()


def _sign(trigger: Trigger) -> int:
    return {"next_working_day": 1, "previous_working_day": -1}.get(trigger.calendar_rule, 0)


def _shift(at: datetime, days: int, zone: str) -> datetime:
    wall = at.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0) + timedelta(days=days)
    return wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def _near(at: datetime, days: int, zone: str) -> tuple[datetime, datetime]:
    """The bounds of what may be shifted to ``at``: hours apart where a clock is set nearby, else the one instant."""
    there = _shift(at, days, zone)
    early, late = there - _CLOCK_CHANGE, there + _CLOCK_CHANGE
    own = ZoneInfo(zone)
    steady = all(_offset(m - _CLOCK_CHANGE, own) == _offset(m + _CLOCK_CHANGE, own) for m in (there, at))
    return (there, there) if steady else (early, late)


def _offset(at: datetime, zone: ZoneInfo) -> timedelta | None:
    return at.astimezone(zone).utcoffset()


# --- what is shown --------------------------------------------------------------------------------------------------


def next_run(ts: TriggerState, after: datetime, calendars: Calendars) -> datetime | None:
    """The next slot that the calendar does not exclude: what a person is told."""
    at = advance(ts, after, calendars)
    if ts.trigger.calendar is None:
        return at
    for _ in range(_MOST_LOOKED_AT):
        if at is None or outside(ts, at, calendars) is None:
            return at
        at = advance(ts, at, calendars)
    return None


def jitter(trigger: Trigger, slot: datetime) -> timedelta:
    """How long after its slot a run starts: spread over ``jitterSeconds``, the same for the same slot always."""
    if not trigger.jitter_seconds:
        return timedelta(0)
    digest = sha256(f"{trigger.id} {slot.isoformat()}".encode()).digest()
    return timedelta(seconds=trigger.jitter_seconds * int.from_bytes(digest[:8]) / 2**64)
