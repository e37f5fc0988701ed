"""Named calendars: sets of times, made of rules that include and exclude. (spec 4.7)

A calendar *has* an instant when one of its ``include`` rules matches (or it has none: then every instant) and none
of its ``exclude`` rules does. A trigger with a calendar fires at the slots that the calendar has; a blackout window
is a calendar that only excludes. Within a rule the kinds that are given must all match (a Friday *and* after 18:00),
and of each kind one entry is enough; rules stand beside each other. Days and times are those of the calendar's zone.

The only door to dateutil, which is asked for recurrence rules (RRULE) of whole days and slower; see ``ics`` for the
import.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulestr  # type: ignore[import-untyped,unused-ignore]
from pydantic import Field

from ..errors import Problem
from ..models import Model, Utc

__all__ = ["Calendar", "Calendars", "DayRange", "Rule", "Span", "TimeRange", "Weekday", "check_calendar"]

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = timedelta(days=1)
_DEEPEST = 8


class DayRange(Model):
    """Whole days, both ends included."""

    first: date = Field(alias="from")
    last: date = Field(alias="to")


class TimeRange(Model):
    """A time of day, the end excluded. One that ends before it begins goes over midnight, as part of its first day."""

    first: time = Field(alias="from")
    last: time = Field(alias="to")


class Span(Model):
    """One stretch of time, the end excluded."""

    first: Utc = Field(alias="from")
    last: Utc = Field(alias="to")


class Rule(Model):
    """Some times. ``calendar``: those that another calendar has."""

    note: str = ""
    dates: frozenset[date] = frozenset()
    weekdays: tuple[Weekday, ...] = ()
    ranges: tuple[DayRange, ...] = ()
    times: tuple[TimeRange, ...] = ()
    spans: tuple[Span, ...] = ()
    rrule: Annotated[str, Field(max_length=500)] | None = None
    starts: datetime | None = None
    """Of a recurrence rule: its first time, on the clock of the calendar's zone."""
    lasts: float | None = Field(None, gt=0, le=366 * 86_400)
    """Of a recurrence rule: how many seconds each time lasts; absent: the whole day."""
    but_not: frozenset[date] = frozenset()
    """Of a recurrence rule: days that are left out."""
    calendar: str | None = None


class Calendar(Model):
    """A named set of times."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    timezone: str = "UTC"
    include: tuple[Rule, ...] = ()
    exclude: tuple[Rule, ...] = ()


class Calendars:
    """The calendars that are known, by name."""

    def __init__(self, calendars: Iterable[Calendar] = ()) -> None:
        self._known: Mapping[str, Calendar] = {calendar.name: calendar for calendar in calendars}

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[Calendar]:
        return iter(self._known.values())

    def has(self, name: str, at: datetime) -> bool:
        return self.why_not(name, at) is None

    def why_not(self, name: str, at: datetime) -> str | None:
        """Why the calendar ``name`` does not have ``at``, in words (perhaps none: ""); None when it has it.

        A calendar that is not known has no time: whoever deleted it may have meant to keep runs away.
        """
        return self._why_not(name, at, _DEEPEST)

    def _why_not(self, name: str, at: datetime, depth: int) -> str | None:
        calendar = self._known.get(name)
        if calendar is None:
            return f"no calendar {name!r} is known"
        wall = at.astimezone(_zone(calendar.timezone)).replace(tzinfo=None, fold=0)
        for rule in calendar.exclude:
            if self._matches(rule, at, wall, depth):
                return rule.note
        if calendar.include and not any(self._matches(rule, at, wall, depth) for rule in calendar.include):
            return "none of its times matches"
        return None

    def _matches(self, rule: Rule, at: datetime, wall: datetime, depth: int) -> bool:
        if rule.spans and not any(span.first <= at < span.last for span in rule.spans):
            return False
        if rule.calendar is not None and (depth <= 0 or self._why_not(rule.calendar, at, depth - 1) is not None):
            return False
        if rule.rrule is not None and not _recurs(rule, wall):
            return False
        if not rule.times:
            return _day_matches(rule, wall.date())
        return any(_day_matches(rule, day) for day in _days_of(rule.times, wall))


def _days_of(times: tuple[TimeRange, ...], wall: datetime) -> Iterator[date]:
    """The days to which ``wall`` belongs by one of the times of day."""
    clock, day = wall.time(), wall.date()
    for span in times:
        if span.first < span.last:
            if span.first <= clock < span.last:
                yield day
        elif clock >= span.first:
            yield day
        elif clock < span.last:
            yield day - _DAY


def _day_matches(rule: Rule, day: date) -> bool:
    if rule.dates and day not in rule.dates:
        return False
    if rule.weekdays and _WEEKDAYS[day.weekday()] not in rule.weekdays:
        return False
    return not rule.ranges or any(span.first <= day <= span.last for span in rule.ranges)


def _recurs(rule: Rule, wall: datetime) -> bool:
    assert rule.rrule is not None
    starts = rule.starts or datetime(1970, 1, 1)
    if rule.lasts is None:
        day = wall.date()
        return day not in rule.but_not and bool(_times_on(rule.rrule, starts, day))
    lasts = timedelta(seconds=rule.lasts)
    days = int(lasts / _DAY) + 1
    for back in range(days + 1):
        day = wall.date() - back * _DAY
        if day in rule.but_not:
            continue
        if any(found <= wall < found + lasts for found in _times_on(rule.rrule, starts, day)):
            return True
    return False


@lru_cache(maxsize=65_536)
def _times_on(rrule: str, starts: datetime, day: date) -> tuple[datetime, ...]:
    first = datetime.combine(day, time.min)
    return tuple(_rule_of(rrule, starts).between(first, first + _DAY - timedelta(microseconds=1), inc=True))


@lru_cache(maxsize=1024)
def _rule_of(rrule: str, starts: datetime):  # type: ignore[no-untyped-def]
    # A rule is asked in wall time, so that the end of the rule (UNTIL) is too.
    return rrulestr(re.sub(r"(UNTIL=\w+?)Z", r"\1", rrule.upper()), dtstart=starts.replace(tzinfo=None), cache=True)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


# --- checks ---------------------------------------------------------------------------------------------------------


def check_calendar(calendar: Calendar, others: Calendars, path: str = "calendar") -> list[Problem]:
    """Everything that is wrong with ``calendar``, which stands (or will stand) beside ``others``."""
    problems: list[Problem] = []
    try:
        _zone(calendar.timezone)
    except (KeyError, ValueError, OSError):
        sentence = f"{calendar.timezone!r} is not a known time zone (an IANA name such as Europe/Berlin)"
        problems.append(Problem("unknown_timezone", f"{path}.timezone", sentence))
    known = Calendars([*(other for other in others if other.name != calendar.name), calendar])
    for kind in ("include", "exclude"):
        rules: tuple[Rule, ...] = getattr(calendar, kind)
        for index, rule in enumerate(rules):
            problems += _check_rule(rule, known, f"{path}.{kind}[{index}]")
    loop = _find_loop(calendar.name, known)
    if loop:
        problems.append(Problem("cycle", path, f"the calendar is made of itself: {' → '.join(loop)}"))
    return problems


def _check_rule(rule: Rule, known: Calendars, path: str) -> list[Problem]:
    problems: list[Problem] = []
    if not (rule.dates or rule.weekdays or rule.ranges or rule.times or rule.spans or rule.rrule or rule.calendar):
        problems.append(Problem("empty", path, "says nothing: give dates, weekdays, ranges, times, spans or an rrule"))
    for name in ("ranges", "spans"):
        for index, span in enumerate(getattr(rule, name)):
            if span.last < span.first:
                problems.append(Problem("backwards", f"{path}.{name}[{index}]", "ends before it begins"))
    if rule.calendar is not None and rule.calendar not in known:
        problems.append(Problem("unknown_calendar", f"{path}.calendar", f"no calendar {rule.calendar!r} is known"))
    if rule.rrule is not None:
        bad = _rrule_problem(rule.rrule, rule.starts or datetime(1970, 1, 1))
        problems += [Problem("rrule", f"{path}.rrule", bad)] if bad else []
    elif rule.starts is not None or rule.lasts is not None or rule.but_not:
        problems.append(Problem("wrong_field", path, "starts, lasts and butNot belong to a recurrence rule"))
    return problems


def _rrule_problem(text: str, starts: datetime) -> str:
    parts = dict(part.partition("=")[::2] for part in text.upper().split(";"))
    if parts.get("FREQ") not in ("YEARLY", "MONTHLY", "WEEKLY", "DAILY"):
        return "FREQ must be YEARLY, MONTHLY, WEEKLY or DAILY"
    if set(parts) & {"BYHOUR", "BYMINUTE", "BYSECOND"}:
        return "BYHOUR, BYMINUTE and BYSECOND are not taken; give the time in starts"
    if not parts.get("INTERVAL", "1").isdigit() or int(parts.get("INTERVAL", "1")) < 1:
        return "INTERVAL must be a whole number from 1"
    try:
        found = _rule_of(text, starts).after(starts.replace(tzinfo=None) - timedelta(seconds=1), inc=True)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as problem:
        return f"is not a recurrence rule that can be used: {problem}"
    return "" if found is not None else "never comes: no day matches it"


def _find_loop(start: str, known: Calendars) -> list[str]:
    """The way from a calendar back to itself through its rules, or nothing."""
    by_name = {calendar.name: calendar for calendar in known}
    todo, seen = [[start]], {start}
    while todo:
        way = todo.pop()
        calendar = by_name.get(way[-1])
        for rule in (*calendar.include, *calendar.exclude) if calendar else ():
            if rule.calendar == start:
                return [*way, start]
            if rule.calendar is not None and rule.calendar not in seen:
                seen.add(rule.calendar)
                todo.append([*way, rule.calendar])
    return []
