"""The walk over wall time: which days and which times of day a cron names, without any zone. (spec 4.3)

Wall times are whole seconds since 1970-01-01 00:00 as the clock on the wall shows them, days are counted from the
same day. One month is one mask of 31 bits, so that a month without a match costs one step and a match one shift.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache

from .cron import LAST, LAST_WORKDAY, NEAREST, Cron

__all__ = ["DAY", "bits", "days", "next_wall", "ticks"]

DAY = 86_400
_FIRST_DAY = date(1970, 1, 1).toordinal()
_LAST_YEAR = 9998
_LAST_DAY = date(_LAST_YEAR, 12, 31).toordinal() - _FIRST_DAY
_EVERY_WEEK = 1 | 1 << 7 | 1 << 14 | 1 << 21 | 1 << 28


@lru_cache(maxsize=4096)
def bits(mask: int) -> tuple[int, ...]:
    """The values that a mask names, in order."""
    return tuple(value for value in range(mask.bit_length()) if mask >> value & 1)


@lru_cache(maxsize=1024)
def ticks(minutes: int, seconds: int) -> tuple[timedelta, ...]:
    """The moments of one hour, counted from its beginning."""
    return tuple(timedelta(minutes=minute, seconds=second) for minute in bits(minutes) for second in bits(seconds))


@lru_cache(maxsize=8192)
def _month(year: int, month: int) -> tuple[int, int, int]:
    """Its first day, counted from 1970; that day's weekday (Sunday is 0); its length."""
    first = date(year, month, 1).toordinal()
    following = date(year, month + 1, 1) if month < 12 else date(year + 1, 1, 1)
    return first - _FIRST_DAY, first % 7, following.toordinal() - first


def _days_of_month(cron: Cron, first: int, length: int) -> int:
    """Bit d stands for the d-th of a month that begins on the weekday ``first``."""
    week = ((cron.weekdays | cron.weekdays << 7) >> first) & 0x7F
    by_weekday = (week * _EVERY_WEEK) << 1
    for weekday, nth in cron.weekday_marks:
        day = 1 + (weekday - first) % 7
        by_weekday |= 1 << (day + 7 * (nth - 1) if nth else day + (length - day) // 7 * 7)
    by_day = cron.days
    for day, kind in cron.day_marks:
        if kind == LAST:
            by_day |= 1 << length
        elif kind == LAST_WORKDAY:
            by_day |= 1 << _nearest_workday(length, first, length)
        elif kind == NEAREST:
            by_day |= 1 << _nearest_workday(min(day, length), first, length)
    matching = by_day & by_weekday if cron.both_days else by_day | by_weekday
    return matching & ((1 << length + 1) - 2)


def _nearest_workday(day: int, first: int, length: int) -> int:
    weekday = (first + day - 1) % 7
    if weekday == 6:
        return day - 1 if day > 1 else 3
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day


def days(cron: Cron, start: int, end: int) -> Iterator[int]:
    """The matching days from ``start`` to ``end``, both included, up to the year 9998."""
    if start > _LAST_DAY:
        return
    begin = date.fromordinal(start + _FIRST_DAY)
    year, month, skip = begin.year, begin.month, begin.day
    while True:
        if cron.months >> month & 1:
            origin, first, length = _month(year, month)
            if origin > end:
                return
            left = _days_of_month(cron, first, length) >> skip << skip
            while left:
                lowest = left & -left
                day = origin + lowest.bit_length() - 2
                if day > end:
                    return
                yield day
                left ^= lowest
        skip, month = 0, month + 1
        if month > 12:
            year, month = year + 1, 1
            if year > _LAST_YEAR or _month(year, 1)[0] > end:
                return


def next_wall(cron: Cron, after: int, until: int) -> int | None:
    """The first matching wall time after ``after`` and not after ``until``."""
    today, rest = divmod(after + 1, DAY)
    for day in days(cron, today, until // DAY):
        time = _time_from(cron, rest if day == today else 0)
        if time is not None:
            found = day * DAY + time
            return found if found <= until else None
    return None


def _time_from(cron: Cron, time: int) -> int | None:
    """The first matching second of a day at or after ``time``."""
    hour, rest = divmod(time, 3600)
    if cron.hours >> hour & 1:
        minute, second = divmod(rest, 60)
        if cron.minutes >> minute & 1 and cron.seconds >> second:
            return time + _lowest(cron.seconds >> second)
        if later := cron.minutes >> minute + 1:
            return hour * 3600 + (minute + 1 + _lowest(later)) * 60 + _lowest(cron.seconds)
    if later := cron.hours >> hour + 1:
        return (hour + 1 + _lowest(later)) * 3600 + _lowest(cron.minutes) * 60 + _lowest(cron.seconds)
    return None


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
