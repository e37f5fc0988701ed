"""The text of a cron expression as bitmasks, one per field. (spec 4.1)

Five fields (minute hour day month weekday), or six when the caller says whether the seconds stand ``first`` or
``last``. :func:`parse` is on the road of every slot and reads the text itself; croniter, a few times slower, reads it
once more when a trigger is written, and both must agree (``occurrences.check_trigger``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from ..models import Trigger

__all__ = ["LAST", "LAST_WORKDAY", "NEAREST", "BadCron", "Cron", "Field", "SecondsPosition", "cron_of", "parse"]

SecondsPosition = Literal["first", "last"]

LAST = 0
"""A mark: the last day of the month, or with a weekday the last one of its kind."""
LAST_WORKDAY = -1
"""A mark of the day field: the last day from Monday to Friday."""
NEAREST = -2
"""A mark of the day field: the day from Monday to Friday nearest to a date, within the month."""

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = (
    *(("second", 0, 59), ("minute", 0, 59), ("hour", 0, 23)),
    *(("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7)),
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES = {
    "month": {name: number for number, name in enumerate(_MONTHS, 1)},
    "weekday": {name: number for number, name in enumerate(_WEEKDAYS)},
}
_NEAREST = re.compile(r"(\d{1,2})w")
_NTH = re.compile(r"(\w{1,3})#([1-5])")
_LAST = re.compile(r"([0-7]|[a-z]{3})l|l([0-7]|[a-z]{3})")
_ORDER = "minute hour day month weekday"

Marks = tuple[tuple[int, int], ...]


class BadCron(ValueError):
    """A cron expression that cannot be used; the message is the sentence for the user."""


class Field(NamedTuple):
    """One field: its text in plain numbers, the values it names as bits, and what only a calendar can settle."""

    text: str
    mask: int
    marks: Marks = ()


class Cron(NamedTuple):
    """A checked expression. Bit n of a mask stands for the value n; Sunday is 0."""

    texts: tuple[str, str, str, str, str, str]
    seconds: int
    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int
    day_marks: Marks
    """``(day, NEAREST)``, ``(0, LAST)``, ``(0, LAST_WORKDAY)``"""
    weekday_marks: Marks
    """``(weekday, n)`` for the n-th of its kind, ``(weekday, LAST)``"""
    both_days: bool
    """Day and weekday must both match (one of them begins with a star); else either may."""
    elapsed: bool
    """Follows elapsed time through a change of the clock; else it is a fixed time by Debian's rule."""


def cron_of(trigger: Trigger) -> Cron:
    """Raises BadCron with the sentence to show."""
    return parse(trigger.cron_expression or "", trigger.cron_seconds)


@lru_cache(maxsize=4096)
def parse(text: str, seconds: SecondsPosition | None = None) -> Cron:
    """Raises BadCron with the sentence to show."""
    if not text.isascii():
        raise BadCron("holds a sign that is not plain ASCII (a copied dash or blank, perhaps)")
    words = text.lower().split()
    if words and words[0][0] == "@":
        macro = _MACROS.get(words[0])
        if macro is None or len(words) > 1:
            raise BadCron(f"{text.strip()!r} is not a known macro; known are {', '.join(sorted(_MACROS))}")
        words, seconds = macro.split(), None
    if words and words[0].startswith(("tz=", "cron_tz=")):
        raise BadCron("carries a time zone of its own; put that into the timezone field")
    texts = ["0", *words] if seconds is None else words[-1:] + words[:-1] if seconds == "last" else words
    if len(texts) != 6:
        raise BadCron(_wrong_number(len(words), seconds))
    second, minute, hour, day, month, weekday = map(_field, texts, range(6))
    if (0, LAST_WORKDAY) in day.marks and weekday.text != "*":
        raise BadCron("LW and a weekday cannot be combined")
    star_time = minute.text[0] == "*" or hour.text[0] == "*"
    return Cron(
        (second.text, minute.text, hour.text, day.text, month.text, weekday.text),
        second.mask,
        minute.mask,
        hour.mask,
        day.mask,
        month.mask,
        (weekday.mask | weekday.mask >> 7) & 0x7F,
        day.marks,
        weekday.marks,
        day.text[0] == "*" or weekday.text[0] == "*",
        star_time or seconds is not None,
    )


def _wrong_number(count: int, seconds: SecondsPosition | None) -> str:
    has = f"has {count} field{'s' if count != 1 else ''}"
    if seconds is not None:
        order = f"second {_ORDER}" if seconds == "first" else f"{_ORDER} second"
        return f"{has} instead of six: {order}"
    if count == 6:
        return f"{has}; five are taken ({_ORDER}), or six when it is said whether the seconds stand first or last"
    return f"{has}; only five are taken ({_ORDER}), no years" if count == 7 else f"{has} instead of five: {_ORDER}"


@lru_cache(maxsize=4096)
def _field(text: str, place: int) -> Field:
    what, low, high = _FIELDS[place]
    if text == "?" and what in ("day", "weekday"):
        text = "*"
    if "," not in text:
        return _item(text, what, low, high)
    items = [_item(item, what, low, high) for item in text.split(",")]
    mask = 0
    for item in items:
        mask |= item.mask
    marks = tuple(mark for item in items for mark in item.marks)
    if any(kind in (LAST_WORKDAY, NEAREST) for _, kind in marks):
        raise BadCron("is not a cron expression that can be used: W takes a single day, not a list")
    if what == "weekday" and marks and mask:
        raise BadCron("is not a cron expression that can be used: # and L do not mix with plain weekdays")
    return Field(",".join(item.text for item in items), mask, marks)


def _item(text: str, what: str, low: int, high: int) -> Field:
    if what == "day":
        if text in ("l", "lw"):
            return Field(text, 0, ((0, LAST if text == "l" else LAST_WORKDAY),))
        if text.endswith("w") and (near := _NEAREST.fullmatch(text)):
            day = _number(near[1], what, low, high)
            return Field(f"{day}w", 0, ((day, NEAREST),))
    elif what == "weekday":
        if "#" in text and (nth := _NTH.fullmatch(text)):
            weekday = _number(nth[1], what, low, high) % 7
            return Field(f"{weekday}#{nth[2]}", 0, ((weekday, int(nth[2])),))
        if "l" in text and (last := _LAST.fullmatch(text)):
            weekday = _number(last[1] or last[2], what, low, high) % 7
            return Field(f"l{weekday}", 0, ((weekday, LAST),))
    span, slash, step_text = text.partition("/")
    step = _step(step_text, what, high - low + 1) if slash else 1
    if span == "*":
        start, end, plain = low, high, "*"
    else:
        first, dash, last_text = span.partition("-")
        start = _number(first, what, low, high)
        end = _number(last_text, what, low, high) if dash else start
        if what == "weekday" and dash and end == 0 < start:
            end = 7  # FRI-SUN
        if end < start:
            raise BadCron(f"the {what} range {span!r} runs backwards")
        if dash and start == end:
            return Field(f"{start}", 1 << start)
        if slash and not dash:  # 5/15: from 5 on; a week goes from Sunday to Saturday
            start, end = (start % 7, 6) if what == "weekday" else (start, high)
            plain = f"{start}"
        else:
            plain = f"{start}-{end}" if dash else f"{start}"
    if not slash:
        return Field(plain, (2 << end) - (1 << start))
    mask = 0
    for value in range(start, end + 1, step):
        mask |= 1 << value
    return Field(f"{plain}/{step}", mask)


def _step(text: str, what: str, most: int) -> int:
    if not (text.isdigit() and len(text) <= 4 and 1 <= int(text) <= most):
        raise BadCron(f"the {what} step {text!r} must be a whole number from 1 to {most}")
    return int(text)


def _number(text: str, what: str, low: int, high: int) -> int:
    if not (text.isdigit() and len(text) <= 4):
        named = _NAMES.get(what, {}).get(text)
        if named is None:
            raise BadCron(f"{text!r} is not a {what}")
        return named
    number = int(text)
    if not low <= number <= high:
        raise BadCron(f"the {what} {text} is outside {low} to {high}")
    return number
