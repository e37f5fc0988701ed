"""Import of an iCalendar text (RFC 5545) into a calendar: holidays, maintenance windows. (spec 4.7)

Taken: VEVENT with DTSTART, DTEND or DURATION, RRULE, RDATE, EXDATE and SUMMARY; whole days, UTC, named zones and
floating times. A cancelled event is left out. What cannot be taken is said in a problem, one per event, and the rest
is imported: ``problems`` of severity ``warning``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

from ..errors import Problem
from .calendars import Calendar, Calendars, DayRange, Rule, Span, check_calendar

__all__ = ["calendar_from_ics"]

MOST_EVENTS: Final = 10_000
_DURATION = re.compile(r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_DAY = timedelta(days=1)


@dataclass(slots=True)
class _Line:
    """One property: its name, its parameters, its value."""

    name: str
    parameters: dict[str, str]
    value: str


@dataclass(slots=True)
class _Event:
    number: int
    lines: dict[str, list[_Line]] = field(default_factory=dict)

    def first(self, name: str) -> _Line | None:
        found = self.lines.get(name)
        return found[0] if found else None


def calendar_from_ics(
    name: str, text: str, *, timezone: str = "UTC", use: Literal["include", "exclude"] = "exclude"
) -> tuple[Calendar, list[Problem]]:
    """A calendar whose times are the events of ``text`` (``include``) or all but them (``exclude``)."""
    rules: list[Rule] = []
    problems: list[Problem] = []
    count = 0
    for event in _events(text):
        count += 1
        if count > MOST_EVENTS:
            problems.append(Problem("too_many", "events", f"only the first {MOST_EVENTS} events are taken", "warning"))
            break
        status = event.first("STATUS")
        if status is not None and status.value.upper() == "CANCELLED":
            continue
        try:
            made = _rules_of(event, ZoneInfo(timezone))
        except (ValueError, KeyError, OverflowError, OSError) as problem:
            sentence = f"cannot be taken: {str(problem).strip(chr(39))}"
            problems.append(Problem("event", f"events[{event.number}]", sentence, "warning"))
            continue
        bad = [p for rule in made for p in check_calendar(Calendar(name=name, include=(rule,)), Calendars(), "")]
        if bad:
            sentence = f"cannot be taken: {bad[0].message}"
            problems.append(Problem("event", f"events[{event.number}]", sentence, "warning"))
        else:
            rules += made
    if count == 0:
        problems.append(Problem("empty", "events", "holds no event (BEGIN:VEVENT)", "warning"))
    return Calendar.model_validate({"name": name, "timezone": timezone, use: tuple(rules)}), problems


def _events(text: str) -> Iterator[_Event]:
    """The events of the text. Folded lines are joined; alarms and other things inside an event are passed over."""
    event: _Event | None = None
    inside = 0
    number = 0
    for raw in re.sub(r"\r?\n[ \t]", "", text).splitlines():
        line = _line(raw)
        if line is None:
            continue
        if line.name == "BEGIN" and line.value.upper() == "VEVENT" and event is None:
            event = _Event(number)
            number += 1
        elif event is not None and line.name == "BEGIN":
            inside += 1
        elif event is not None and line.name == "END" and inside:
            inside -= 1
        elif event is not None and line.name == "END":
            yield event
            event = None
        elif event is not None and not inside:
            event.lines.setdefault(line.name, []).append(line)


def _line(raw: str) -> _Line | None:
    match = re.fullmatch(r'([A-Za-z0-9-]+)((?:;[A-Za-z0-9-]+=(?:"[^"]*"|[^";:]*))*):(.*)', raw)
    if match is None:
        return None
    pairs = re.findall(r';([A-Za-z0-9-]+)=("[^"]*"|[^";:]*)', match[2])
    return _Line(match[1].upper(), {key.upper(): value.strip('"') for key, value in pairs}, match[3].strip())


def _rules_of(event: _Event, zone: ZoneInfo) -> list[Rule]:
    start_line = event.first("DTSTART")
    if start_line is None:
        raise ValueError("it has no DTSTART")
    if event.first("RECURRENCE-ID") is not None:
        raise ValueError("it changes one time of another event (RECURRENCE-ID)")
    start = _time(start_line, start_line.value, zone)
    lasts = _lasts(event, start, zone)
    summary = event.first("SUMMARY")
    note = re.sub(r"\\([,;\\])", r"\1", summary.value)[:200] if summary else ""
    repeat = event.first("RRULE")
    if repeat is None:
        rules = [_once(start, lasts, note, zone)]
    else:
        but_not = frozenset(_day(at) for at in _times(event, "EXDATE", zone))
        rules = [_repeated(repeat.value, start, lasts, note, but_not)]
    return [*rules, *(_once(at, lasts, note, zone) for at in _times(event, "RDATE", zone))]


def _once(start: date | datetime, lasts: timedelta, note: str, zone: ZoneInfo) -> Rule:
    if not isinstance(start, datetime):
        last = start + max(lasts - _DAY, timedelta(0))
        return Rule(note=note, ranges=(DayRange(first=start, last=last),))
    first = start.replace(tzinfo=zone).astimezone(UTC)
    return Rule(note=note, spans=(Span(first=first, last=first + lasts),))


def _repeated(rrule: str, start: date | datetime, lasts: timedelta, note: str, but_not: frozenset[date]) -> Rule:
    if isinstance(start, datetime):
        return Rule(note=note, rrule=rrule, starts=start, lasts=lasts.total_seconds(), but_not=but_not)
    starts = datetime(start.year, start.month, start.day)
    seconds = None if lasts <= _DAY else lasts.total_seconds()
    return Rule(note=note, rrule=rrule, starts=starts, lasts=seconds, but_not=but_not)


def _lasts(event: _Event, start: date | datetime, zone: ZoneInfo) -> timedelta:
    end, duration = event.first("DTEND"), event.first("DURATION")
    if end is not None:
        until = _time(end, end.value, zone)
        if isinstance(until, datetime) != isinstance(start, datetime):
            raise ValueError("DTSTART is a day and DTEND a time, or the other way round")
        lasts = until - start
    elif duration is not None:
        match = _DURATION.fullmatch(duration.value.lstrip("+"))
        if match is None:
            raise ValueError(f"the DURATION {duration.value!r} cannot be read")
        weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        lasts = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    else:
        lasts = timedelta(0) if isinstance(start, datetime) else _DAY
    if lasts <= timedelta(0):
        raise ValueError("it lasts no time")
    return lasts


def _times(event: _Event, name: str, zone: ZoneInfo) -> list[date | datetime]:
    return [_time(line, text, zone) for line in event.lines.get(name, ()) for text in line.value.split(",")]


def _day(at: date | datetime) -> date:
    return at.date() if isinstance(at, datetime) else at


def _time(line: _Line, text: str, zone: ZoneInfo) -> date | datetime:
    """A day, or a naive time on the clock of ``zone``."""
    text = text.strip()
    if re.fullmatch(r"\d{8}", text):
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    if not re.fullmatch(r"\d{8}T\d{6}Z?", text):
        raise ValueError(f"the time {text!r} cannot be read")
    at = datetime.strptime(text.rstrip("Z"), "%Y%m%dT%H%M%S")
    if text.endswith("Z"):
        return at.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)
    own = line.parameters.get("TZID")
    return at.replace(tzinfo=ZoneInfo(own)).astimezone(zone).replace(tzinfo=None) if own else at
