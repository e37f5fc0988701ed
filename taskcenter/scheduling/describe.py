"""A trigger in words: ``at 02:30 every weekday, Europe/Berlin``. (spec 4.1)"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ..models import Trigger
from .cron import BadCron, Cron, cron_of

__all__ = ["describe"]

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


def describe(trigger: Trigger) -> str:
    """When the trigger fires, in words: ``at 02:30 every weekday, Europe/Berlin``."""
    match trigger.type:
        case "cron":
            return _cron_words(trigger)
        case "interval":
            return _interval_words(trigger)
        case "one_shot":
            return "once, but no time is given" if trigger.run_at is None else f"once at {_moment(trigger.run_at)}"
        case "planned":
            times = [_moment(time) for time in sorted(trigger.plan)]
            if len(times) < 2:
                return f"at 1 planned time, {times[0]}" if times else "at no planned time"
            return f"at {len(times)} planned times, from {times[0]} to {times[-1]}"
        case "after":
            ends = {"success": "succeeds", "failed": "fails", "done": "ends"}[trigger.condition]
            count = len(trigger.task_ids)
            return f"each time {'the other task' if count == 1 else f'one of {count} other tasks'} {ends}"
        case "startup":
            return "once when the service starts"
        case "ad_hoc":
            return "when it is asked for with its token"


def _interval_words(trigger: Trigger) -> str:
    span = _span(trigger.interval_seconds or 0)
    if trigger.counts_from == "completion":
        return f"{'1 ' if span[0].isalpha() else ''}{span} after the end of the run before"
    return f"every {span}" + (f", counted from {_moment(trigger.anchor)}" if trigger.anchor else "")


def _cron_words(trigger: Trigger) -> str:
    try:
        cron = cron_of(trigger)
    except BadCron as bad:
        return f"never: the cron expression {bad}"
    _, _, _, day, month, weekday = cron.texts
    words = [_moment_words(cron), _day_words(day, weekday, cron.both_days)]
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


def _moment_words(cron: Cron) -> str:
    second, minute, hour = cron.texts[:3]
    if second == "0":
        return _time_words(minute, hour)
    if second.isdigit() and minute.isdigit() and all(part.isdigit() for part in hour.split(",")):
        tail = f"{int(minute):02d}:{int(second):02d}"
        return f"at {_and([f'{int(part):02d}:{tail}' for part in hour.split(',')])}"
    if second in ("*", "*/1"):
        lead = "every second"
    elif re.fullmatch(r"\*/\d+", second):
        lead = f"every {second[2:]} seconds"
    else:
        lead = f"at second{'' if second.isdigit() else 's'} {_list_words(second, 'second')}"
    if minute == hour == "*":
        return f"{lead} of every minute" if lead.startswith("at") else lead
    return f"{lead} of {_time_words(minute, hour).removeprefix('at ')}"


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
        by_weekday = f"every {_and([_DAYS[number] for number in range(0, 7, int(weekday[2:]))])}"
    if day == "*":
        return "every day" if weekday == "*" else by_weekday
    special = {"l": "on the last day of the month", "lw": "on the last working day of the month"}
    by_day = special.get(day) or (
        f"every {_ordinal(int(day[2:]))} day of the month"
        if day.startswith("*/")
        else f"on day{'s' if ',' in day or '-' in day else ''} {_list_words(day, 'day')} of the month"
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
