"""From wall time to instants: the clocks of the zones, and Debian's rule where they are set. (spec 4.3)

A zone's year is cut into spans with one offset each. Within a span wall time and instants differ by a constant, so
the walk over wall time does all the work; what is special happens where a span begins:

- the clock was put forward (a gap): a fixed time inside the gap fires once, at the first minute after it;
- the clock was put back (an overlap): a fixed time inside it has had its first pass and does not fire again;
- crons that follow elapsed time do neither: each instant whose wall clock matches is a slot.

Instants are whole seconds since 1970-01-01 UTC. Slots are known for the years 2 to 9998.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from .cron import Cron
from .walk import DAY, bits, days, next_wall, ticks

__all__ = [
    "HORIZON",
    "Meeting",
    "Span",
    "find_zone",
    "first_slot",
    "instant_of",
    "mark_of",
    "meetings",
    "slots_between",
]

HORIZON = 50 * 366 * DAY
"""What does not come within 50 years never comes: the 29th of February on a Sunday needs at most 40."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


class Span(NamedTuple):
    """``start <= instant < end`` with one offset, and the offset that ended at ``start``."""

    start: int
    end: int
    offset: int
    before: int


class Meeting(NamedTuple):
    """A fixed time that meets a change of the clock."""

    kind: Literal["gap", "overlap"]
    wall: int
    slot: int
    """The instant of the first minute after the gap, or of the first pass."""


@lru_cache(maxsize=1024)
def find_zone(name: str) -> ZoneInfo | None:
    if not name or not name.isascii():
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, malformed, or a folder such as "America"
        return None


def instant_of(moment: datetime) -> int:
    """The last whole second at or before an aware datetime."""
    return (moment - EPOCH) // _SECOND


_KNOWN = range(instant_of(datetime(2, 1, 1, tzinfo=UTC)), instant_of(datetime(9999, 1, 1, tzinfo=UTC)))


# --- the clocks -------------------------------------------------------------------------------------------------------


def _offset(zone: ZoneInfo, instant: int) -> int:
    there = (EPOCH + timedelta(seconds=instant)).astimezone(zone).utcoffset()
    return 0 if there is None else there // _SECOND


@lru_cache(maxsize=8192)
def _spans(zone: ZoneInfo, year: int) -> tuple[Span, ...]:
    # Looked for day by day: the closest two changes of any zone since 1970 are days apart.
    begin, end = instant_of(datetime(year, 1, 1, tzinfo=UTC)), instant_of(datetime(year + 1, 1, 1, tzinfo=UTC))
    before = offset = _offset(zone, begin - 1)
    spans, start, low = [], begin, begin - 1
    while low < end - 1:
        high = min(low + DAY, end - 1)
        there = _offset(zone, high)
        if there != offset:
            change = _change(zone, low, high, there)
            if change > start:
                spans.append(Span(start, change, offset, before))
            before, offset, start = offset, there, change
        low = high
    spans.append(Span(start, end, offset, before))
    return tuple(spans)


def _change(zone: ZoneInfo, low: int, high: int, offset: int) -> int:
    """The first instant in (low, high] with the offset of ``high``."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(zone, middle) == offset else (middle, high)
    return high


def _span_at(zone: ZoneInfo, instant: int) -> Span | None:
    if instant not in _KNOWN:
        return None
    for span in _spans(zone, (EPOCH + timedelta(seconds=instant)).year):
        if instant < span.end:
            return span
    return None


# --- slots ------------------------------------------------------------------------------------------------------------


def _entry(cron: Cron, span: Span, after: int) -> tuple[int | None, int]:
    """What Debian's rule says of the beginning of ``span``: a slot for the times in a gap (None without one, or when
    it is not after ``after``), and the wall time after which the span's own matches count."""
    wall = max(after, span.start - 1) + span.offset
    if cron.elapsed or span.before == span.offset:
        return None, wall
    if span.before > span.offset:
        return None, max(wall, span.start + span.before - 1)
    meeting = _gap(cron, span)
    if meeting is None or meeting.slot <= after:
        return None, wall
    return meeting.slot, max(wall, meeting.slot + span.offset)


def _gap(cron: Cron, span: Span) -> Meeting | None:
    back = span.start + span.offset
    skipped = next_wall(cron, span.start + span.before - 1, back - 1)
    return None if skipped is None else Meeting("gap", skipped, back + -back % 60 - span.offset)


def _skip(cron: Cron, after: int, until: int) -> int | None:
    """An instant from ``after`` on before which nothing can come, whatever the zone; None when nothing comes at all."""
    wall = next_wall(cron, after - DAY, until + DAY)
    return None if wall is None else max(after, wall - DAY - 1)


def first_slot(cron: Cron, zone: ZoneInfo, after: datetime) -> datetime | None:
    """The first slot strictly after ``after``; None when none comes within 50 years."""
    at: int | None = max(instant_of(after), _KNOWN.start)
    until = instant_of(after) + HORIZON
    while at is not None and (span := _span_at(zone, at + 1)) is not None:
        slot, wall = _entry(cron, span, at)
        if slot is None and (found := next_wall(cron, wall, span.end - 1 + span.offset)) is not None:
            slot = found - span.offset
        if slot is not None:
            return EPOCH + timedelta(seconds=slot)
        at = _skip(cron, span.end - 1, until)
    return None


def slots_between(cron: Cron, zone: ZoneInfo, start: datetime, end: datetime, limit: int) -> list[datetime]:
    """The slots with ``start < slot <= end``, oldest first, at most ``limit``."""
    found: list[datetime] = []
    at: int | None = max(instant_of(start), _KNOWN.start)
    last = instant_of(end)
    while at is not None and at < last and len(found) < limit and (span := _span_at(zone, at + 1)) is not None:
        slot, wall = _entry(cron, span, at)
        stop, count = min(span.end - 1, last), len(found)
        if slot is not None and slot <= stop:
            found.append(EPOCH + timedelta(seconds=slot))
        _fill(found, cron, wall, stop + span.offset, span.offset, limit)
        at = stop if len(found) > count else _skip(cron, stop, min(last, stop + HORIZON))
    return found


def _fill(found: list[datetime], cron: Cron, after: int, until: int, offset: int, limit: int) -> None:
    """Append the instants of the wall times in (after, until]."""
    moments, hours = ticks(cron.minutes, cron.seconds), bits(cron.hours)
    for day in days(cron, (after + 1) // DAY, until // DAY):
        for hour in hours:
            begin = day * DAY + hour * 3600
            if begin + 3599 <= after:
                continue
            if begin > until or len(found) >= limit:
                break
            base = EPOCH + timedelta(seconds=begin - offset)
            if after < begin and begin + 3599 <= until:
                found.extend([base + moment for moment in moments])
            else:
                low, high = timedelta(seconds=after - begin), timedelta(seconds=until - begin)
                found.extend([base + moment for moment in moments if low < moment <= high])
        if len(found) >= limit:
            break
    del found[limit:]


# --- what the clock does to them --------------------------------------------------------------------------------------


def meetings(cron: Cron, zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[Meeting]:
    """The changes of the clock in (after, until] that one of the cron's times falls into, with the first such time."""
    at, last = instant_of(after), instant_of(until)
    while at < last and (span := _span_at(zone, at + 1)) is not None:
        if at < span.start <= last and (meeting := _meeting(cron, span)) is not None:
            yield meeting
        at = span.end - 1


def _meeting(cron: Cron, span: Span) -> Meeting | None:
    if span.before < span.offset:
        return _gap(cron, span)
    if span.before == span.offset:
        return None
    twice = next_wall(cron, span.start + span.offset - 1, span.start + span.before - 1)
    return None if twice is None else Meeting("overlap", twice, twice - span.before)


def mark_of(cron: Cron, zone: ZoneInfo, slot: datetime) -> Literal["gap", "overlap"] | None:
    """``gap``: stands for a time that the clock left out. ``overlap``: its wall time comes twice."""
    there = slot.astimezone(zone)
    wall, offset = there.replace(tzinfo=None, fold=0), there.utcoffset()
    if wall.replace(tzinfo=zone).utcoffset() != wall.replace(tzinfo=zone, fold=1).utcoffset():
        return "overlap"
    instant = instant_of(slot)
    span = _span_at(zone, instant)
    if cron.elapsed or offset is None or span is None or span.before >= span.offset:
        return None
    meeting = _gap(cron, span)
    return "gap" if meeting is not None and meeting.slot == instant else None
