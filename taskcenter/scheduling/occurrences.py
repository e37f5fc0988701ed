"""When a trigger fires: checked when written, asked for the next slot, and told in a sentence. (spec 4.1, 4.3)

The only door to croniter, which is asked for naive wall times and nothing else. Zones, gaps and overlaps are ours,
by the rule of Debian's cron:

- a *fixed* time (neither minute nor hour begins with ``*``) that falls into a spring gap fires at the first minute
  after the gap, once; one that falls into an autumn overlap fires in the first pass only;
- with a *wildcard* minute or hour the slots follow real elapsed time: every instant whose wall clock matches.

When both a day and a weekday are given either may match, unless one of them begins with ``*`` (``*/7`` too): then
both must, as Vixie's cron has it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from croniter import croniter  # type: ignore[import-untyped,unused-ignore]

from ..errors import Problem
from ..models import Trigger

__all__ = ["check_trigger", "describe", "next_slot", "slots"]

_MINUTE = timedelta(minutes=1)
_INSTANT = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_INTERVAL = 100 * 366 * 86_400.0
_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NAMES = {
    "month": {name[:3].lower(): number for number, name in enumerate(_MONTHS, 1)},
    "weekday": {name[:3].lower(): number for number, name in enumerate(_DAYS[:7])},
}
_FIELD_OF_TYPE = {"cron": "cron_expression", "interval": "interval_seconds", "one_shot": "run_at"}
_WIRE_NAME = {
    "cron_expression": "cronExpression",
    "interval_seconds": "intervalSeconds",
    "anchor": "anchor",
    "run_at": "runAt",
}


class _BadCron(ValueError):
    """A cron expression that cannot be used; the message is the sentence for the user."""


# --- the cron text --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cron:
    """A checked expression: five numeric fields as croniter understands them."""

    fields: tuple[str, str, str, str, str]
    wildcard: bool
    both_days: bool
    last_workday: bool  # LW, which croniter does not know: asked for as 26-31 and sorted out here

    def next_wall(self, after: datetime) -> datetime | None:
        """The first matching naive wall time after ``after``; None when there is none within 50 years."""
        try:
            ticks = croniter(" ".join(self.fields), after, datetime, day_or=not self.both_days)
            while True:
                found: datetime = ticks.get_next(datetime)
                if not self.last_workday or _is_last_workday(found):
                    return found.replace(microsecond=0)
        except (ValueError, OverflowError):  # none is found, or the calendar ends
            return None


def _is_last_workday(day: datetime) -> bool:
    # The last working day is a weekday with only weekend days between it and the end of the month.
    if day.weekday() > 4:
        return False
    step = 3 if day.weekday() == 4 else 1
    return (day + timedelta(days=step)).month != day.month


@lru_cache(maxsize=4096)
def _parse(text: str) -> _Cron:
    """Raises _BadCron with the sentence to show."""
    if not text.isascii():
        raise _BadCron("holds a sign that is not plain ASCII (a copied dash or blank, perhaps)")
    words = text.split()
    if words and words[0].startswith("@"):
        macro = _MACROS.get(words[0].lower())
        if macro is None or len(words) > 1:
            raise _BadCron(f"{text.strip()!r} is not a known macro; known are {', '.join(sorted(_MACROS))}")
        words = macro.split()
    if words and words[0].partition("=")[0] in ("TZ", "CRON_TZ"):
        raise _BadCron("carries a time zone of its own; put that into the timezone field")
    if len(words) in (6, 7):
        raise _BadCron(
            f"has {len(words)} fields; only five are taken (minute hour day month weekday), no seconds or years"
        )
    if len(words) != 5:
        raise _BadCron(
            f"has {len(words)} field{'s' if len(words) != 1 else ''} instead of five: minute hour day month weekday"
        )
    minute, hour, day, month, weekday = (_field(word, *limits) for word, limits in zip(words, _FIELDS, strict=True))
    last_workday = day == "lw"
    cron = _Cron(
        fields=(minute, hour, "26-31" if last_workday else day, month, weekday),
        wildcard=minute[0] == "*" or hour[0] == "*",
        both_days=day[0] == "*" or weekday[0] == "*",
        last_workday=last_workday,
    )
    if last_workday and weekday != "*":
        raise _BadCron("LW and a weekday cannot be combined")
    try:
        croniter.expand(" ".join(cron.fields))
    except (ValueError, KeyError) as problem:
        raise _BadCron(f"is not a cron expression that can be used: {problem}") from None
    return cron


def _field(text: str, what: str, low: int, high: int) -> str:
    if text == "?" and what in ("day", "weekday"):
        return "*"
    return ",".join(_item(item, what, low, high) for item in text.lower().split(","))


def _item(item: str, what: str, low: int, high: int) -> str:
    if what == "day" and item in ("l", "lw"):
        return item
    if what == "day" and (near := re.fullmatch(r"(\d{1,2})w", item)):
        return f"{_number(near[1], what, low, high)}w"
    if what == "weekday" and (nth := re.fullmatch(r"(\w{1,3})#([1-5])", item)):
        return f"{_number(nth[1], what, low, high) % 7}#{nth[2]}"
    if what == "weekday" and (last := re.fullmatch(r"([0-7]|[a-z]{3})l|l([0-7]|[a-z]{3})", item)):
        return f"l{_number(last[1] or last[2], what, low, high) % 7}"
    span, slash, step = item.partition("/")
    if slash and not (step.isdigit() and 1 <= int(step[:4]) <= high - low + 1 and len(step) <= 4):
        raise _BadCron(f"the {what} step {step!r} must be a whole number from 1 to {high - low + 1}")
    if span != "*":
        first, dash, last_text = span.partition("-")
        start = _number(first, what, low, high)
        end = _number(last_text, what, low, high) if dash else start
        if what == "weekday" and dash and end == 0 < start:
            end = 7  # FRI-SUN
        if end < start:
            raise _BadCron(f"the {what} range {span!r} runs backwards")
        span = f"{start}-{end}" if dash else f"{start}"
    return f"{span}/{int(step)}" if slash else span


def _number(text: str, what: str, low: int, high: int) -> int:
    named = _NAMES.get(what, {}).get(text)
    if named is not None:
        return named
    if not (text.isdigit() and len(text) <= 4):
        raise _BadCron(f"{text!r} is not a {what}")
    if not low <= int(text) <= high:
        raise _BadCron(f"the {what} {text} is outside {low} to {high}")
    return int(text)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    if not name or not name.isascii():
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, malformed, or a folder such as "America"
        return None


# --- checks ---------------------------------------------------------------------------------------------------------


def check_trigger(trigger: Trigger, now: datetime, path: str = "") -> list[Problem]:
    """Everything that is wrong with ``trigger``, each with its place (below ``path``) and a sentence."""

    def problem(code: str, field: str, sentence: str) -> Problem:
        return Problem(code, f"{path}.{field}" if path else field, sentence)

    problems: list[Problem] = []
    own = _FIELD_OF_TYPE[trigger.type]
    for field, wire in _WIRE_NAME.items():
        belongs = field == own or (field == "anchor" and trigger.type == "interval")
        if not belongs and getattr(trigger, field) is not None:
            problems.append(problem("wrong_field", wire, f"does not belong to a trigger of type {trigger.type}"))
    if _zone(trigger.timezone) is None:
        sentence = f"{trigger.timezone!r} is not a known time zone (an IANA name such as Europe/Berlin)"
        problems.append(problem("unknown_timezone", "timezone", sentence))
    if getattr(trigger, own) is None:
        problems.append(problem("missing", _WIRE_NAME[own], f"is missing; a trigger of type {trigger.type} needs it"))
    elif trigger.type == "interval":
        seconds = trigger.interval_seconds or 0.0
        if not 1 <= seconds <= _LONGEST_INTERVAL:
            sentence = f"must be at least 1 second and at most 100 years, not {seconds:g}"
            problems.append(problem("interval", "intervalSeconds", sentence))
    elif trigger.type == "cron":
        text = trigger.cron_expression or ""
        try:
            cron = _parse(text)
        except _BadCron as bad:
            problems.append(problem("cron", "cronExpression", str(bad)))
        else:
            if cron.next_wall(_naive(now)) is None:
                sentence = f"{text!r} never comes: no date within 50 years matches it"
                problems.append(problem("never", "cronExpression", sentence))
    return problems


# --- slots ----------------------------------------------------------------------------------------------------------


def next_slot(trigger: Trigger, after: datetime) -> datetime | None:
    """The first slot strictly after ``after``, aware and in UTC; None when there is none any more.

    The trigger must have passed :func:`check_trigger`; of one that has not, no slot is known. An interval without an
    anchor counts from 1970-01-01 UTC, and no slot lies before the anchor.
    """
    after = after.astimezone(UTC)
    if trigger.type == "one_shot":
        return trigger.run_at if trigger.run_at is not None and trigger.run_at > after else None
    if trigger.type == "interval":
        return _next_interval(trigger, after)
    zone = _zone(trigger.timezone)
    try:
        cron = _parse(trigger.cron_expression or "")
    except _BadCron:
        return None
    if zone is None:
        return None
    try:
        return _next_wildcard(cron, zone, after) if cron.wildcard else _next_fixed(cron, zone, after)
    except OverflowError:  # past the year 9999
        return None


def slots(trigger: Trigger, start: datetime, end: datetime, limit: int) -> list[datetime]:
    """The slots with ``start < slot <= end``, oldest first, at most ``limit``."""
    return [slot for slot, _ in zip(_all_until(trigger, start, end), range(limit), strict=False)]


def _all_until(trigger: Trigger, start: datetime, end: datetime) -> Iterator[datetime]:
    slot = next_slot(trigger, start)
    while slot is not None and slot <= end:
        yield slot
        slot = next_slot(trigger, slot)


def _next_interval(trigger: Trigger, after: datetime) -> datetime | None:
    seconds = trigger.interval_seconds
    if seconds is None or not math.isfinite(seconds) or seconds < 1:
        return None
    every = timedelta(seconds=seconds)
    anchor = trigger.anchor or _EPOCH
    if after < anchor:
        return anchor
    try:
        return anchor + ((after - anchor) // every + 1) * every  # whole microseconds: no drift
    except OverflowError:
        return None


def _naive(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None)


def _wall(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _next_fixed(cron: _Cron, zone: ZoneInfo, after: datetime) -> datetime | None:
    # Wall times up to now cannot lead to a later instant, and the road from wall time to instant never goes back.
    wall: datetime | None = _wall(after, zone)
    while wall is not None and (wall := cron.next_wall(wall)) is not None:
        instant = _instant_of(wall, zone)
        if instant > after:
            return instant
    return None


def _instant_of(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first pass of a wall time; for one in a gap, the first minute after the gap."""
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    if _wall(instant, zone) == wall:
        return instant
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)  # in a gap the two readings enclose the change
    return _whole_minute(_change(zone, early - _INSTANT, instant))


def _whole_minute(instant: datetime) -> datetime:
    rest = timedelta(seconds=instant.second, microseconds=instant.microsecond)
    return instant + (_MINUTE - rest if rest else rest)


def _next_wildcard(cron: _Cron, zone: ZoneInfo, after: datetime) -> datetime | None:
    at, offset = after, _offset(zone, after)
    while True:
        wall = cron.next_wall((at + offset).replace(tzinfo=None))
        if wall is None:
            return None
        found = wall.replace(tzinfo=UTC) - offset
        change = _first_change(zone, at, found, offset)
        if change is None:
            return found
        # The clock is set before the slot comes: look again from there, with the new clock, that minute included.
        at, offset = change - _INSTANT, _offset(zone, change)


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def _first_change(zone: ZoneInfo, start: datetime, end: datetime, offset: timedelta) -> datetime | None:
    """The first instant in (start, end] at which the zone's offset is no longer ``offset``."""
    # Looked for day by day: no zone changes its clock twice within one.
    low = start
    while low < end:
        high = min(low + timedelta(days=1), end)
        if _offset(zone, high) != offset:
            return _change(zone, low, high)
        low = high
    return None


def _change(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The instant in (low, high] at which the offset of ``high`` begins, to the second."""
    offset = _offset(zone, high)
    low, high = low.replace(microsecond=0), _whole_second(high)
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        low, high = (low, middle) if _offset(zone, middle) == offset else (middle, high)
    return high


def _whole_second(instant: datetime) -> datetime:
    return instant if not instant.microsecond else instant.replace(microsecond=0) + timedelta(seconds=1)


# --- words ----------------------------------------------------------------------------------------------------------


def describe(trigger: Trigger) -> str:
    """When the trigger fires, in words: ``at 02:30 every weekday, Europe/Berlin``."""
    if trigger.type == "one_shot":
        return "once, but no time is given" if trigger.run_at is None else f"once at {_moment(trigger.run_at)}"
    if trigger.type == "interval":
        since = f", counted from {_moment(trigger.anchor)}" if trigger.anchor else ""
        return f"every {_span(trigger.interval_seconds or 0)}{since}"
    try:
        cron = _parse(trigger.cron_expression or "")
    except _BadCron as bad:
        return f"never: the cron expression {bad}"
    minute, hour, day, month, weekday = cron.fields
    words = [_time_words(minute, hour), _day_words("lw" if cron.last_workday else day, weekday, cron.both_days)]
    if words[1] == "every day" and ":" not in words[0]:
        words.pop()  # "every 5 minutes" says it
    if month != "*":
        words.append(f"in {_list_words(month, 'month')}")
    return f"{' '.join(words)}, {trigger.timezone}"


def _moment(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return unit if count == 1 else f"{count} {unit}s"
    return "second" if seconds == 1 else f"{seconds:g} seconds"


def _time_words(minute: str, hour: str) -> str:
    if minute.isdigit() and all(part.isdigit() for part in hour.split(",")):
        return f"at {_and([f'{int(part):02d}:{int(minute):02d}' for part in hour.split(',')])}"
    if minute.isdigit():
        past = f"at minute {minute} of "
    elif minute == "*" or re.fullmatch(r"\*/\d+", minute):
        past = "every minute" if minute in ("*", "*/1") else f"every {minute[2:]} minutes"
        if hour == "*":
            return past
        past += " of "
    else:
        past = f"at minutes {_list_words(minute, 'minute')} of "
    if hour in ("*", "*/1"):
        return past + "every hour"
    if re.fullmatch(r"\*/\d+", hour):
        return past + f"every {_ordinal(int(hour[2:]))} hour"
    return past + f"{'hour' if hour.isdigit() else 'hours'} {_list_words(hour, 'hour')}"


def _day_words(day: str, weekday: str, both: bool) -> str:
    weekdays = {"1-5": "every weekday", "0,6": "every Saturday and Sunday", "6,0": "every Saturday and Sunday"}
    by_weekday = weekdays.get(weekday) or f"every {_list_words(weekday, 'weekday')}"
    if weekday.startswith("*/"):
        by_weekday = f"every {_ordinal(int(weekday[2:]))} weekday counted from Sunday"
    if day == "*":
        return "every day" if weekday == "*" else by_weekday
    special = {"l": "on the last day of the month", "lw": "on the last working day of the month"}
    by_day = special.get(day) or (
        f"every {_ordinal(int(day[2:]))} day of the month"
        if day.startswith("*/")
        else f"on day {_list_words(day, 'day')} of the month"
    )
    if weekday == "*":
        return by_day
    return f"{by_day} and only when it is {by_weekday}" if both else f"{by_day} and also {by_weekday}"


def _list_words(field: str, what: str) -> str:
    return _and([_item_words(item, what) for item in field.split(",")])


def _item_words(item: str, what: str) -> str:
    span, slash, step = item.partition("/")
    if nth := re.fullmatch(r"(\d)#(\d)", span):
        return f"{_ordinal(int(nth[2]))} {_DAYS[int(nth[1])]} of the month"
    if last := re.fullmatch(r"l(\d)", span):
        return f"last {_DAYS[int(last[1])]} of the month"
    if near := re.fullmatch(r"(\d+)w", span):
        return f"{near[1]} (or the nearest working day)"
    if span == "l":
        return "last"
    words = " to ".join(_value_words(part, what) for part in span.split("-")) if span != "*" else "all"
    if slash:
        return f"every {_ordinal(int(step))} {what} of {words}{'' if '-' in span or span == '*' else ' on'}"
    return words


def _value_words(value: str, what: str) -> str:
    if what == "month":
        return _MONTHS[int(value) - 1]
    return _DAYS[int(value)] if what == "weekday" else value


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _ordinal(number: int) -> str:
    if 10 <= number % 100 <= 20:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
