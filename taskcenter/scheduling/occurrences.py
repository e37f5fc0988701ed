"""When a trigger fires: checked when written, asked for its slots, and told in a sentence. (spec 4.1, 4.3)

The rooms behind this door: ``cron`` reads the text into bitmasks, ``walk`` finds the wall times they name,
``walk_zones`` turns those into instants by the rule of Debian's cron, ``describe`` finds the words. This module is
the only one that knows croniter, which reads every cron once more when it is written: what the two do not read alike
is refused.

When both a day and a weekday are given either may match, unless one of them begins with ``*`` (``*/7`` too): then
both must, as Vixie's cron has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from ..errors import Problem
from ..models import Trigger
from .cron import LAST, NEAREST, BadCron, Cron, Marks, cron_of
from .describe import describe
from .walk import next_wall
from .walk_zones import HORIZON, find_zone, first_slot, instant_of, slots_between

__all__ = ["check_trigger", "croniter_reading", "describe", "next_slot", "own_reading", "slots"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_INTERVAL = 100 * 366 * 86_400.0
_FIELD_OF_TYPE = {"cron": "cron_expression", "interval": "interval_seconds", "one_shot": "run_at"}
_WIRE_NAME = {
    "cron_expression": "cronExpression",
    "cron_seconds": "cronSeconds",
    "interval_seconds": "intervalSeconds",
    "anchor": "anchor",
    "run_at": "runAt",
}
_BELONGS_TOO = {("cron", "cron_seconds"), ("interval", "anchor")}

Reading = tuple[tuple[int, ...], frozenset[tuple[int, int]], frozenset[tuple[int, int]]]
"""The masks of the six fields, the marks of the day, the marks of the weekday."""


# --- checks ---------------------------------------------------------------------------------------------------------


def check_trigger(trigger: Trigger, now: datetime, path: str = "") -> list[Problem]:
    """Everything that is wrong with the times of ``trigger``, each with its place (below ``path``) and a sentence."""

    def problem(code: str, field: str, sentence: str) -> Problem:
        return Problem(code, f"{path}.{field}" if path else field, sentence)

    problems: list[Problem] = []
    own = _FIELD_OF_TYPE.get(trigger.type)
    for field, wire in _WIRE_NAME.items():
        belongs = field == own or (trigger.type, field) in _BELONGS_TOO
        if not belongs and getattr(trigger, field) is not None:
            problems.append(problem("wrong_field", wire, f"does not belong to a trigger of type {trigger.type}"))
    if find_zone(trigger.timezone) is None:
        sentence = f"{trigger.timezone!r} is not a known time zone (an IANA name such as Europe/Berlin)"
        problems.append(problem("unknown_timezone", "timezone", sentence))
    if own is None:
        return problems
    if getattr(trigger, own) is None:
        problems.append(problem("missing", _WIRE_NAME[own], f"is missing; a trigger of type {trigger.type} needs it"))
    elif trigger.type == "interval":
        seconds = trigger.interval_seconds or 0.0
        if not 1 <= seconds <= _LONGEST_INTERVAL:
            sentence = f"must be at least 1 second and at most 100 years, not {seconds:g}"
            problems.append(problem("interval", "intervalSeconds", sentence))
    elif trigger.type == "cron":
        wrong = _wrong_cron(trigger, now)
        if wrong is not None:
            problems.append(problem(wrong[0], "cronExpression", wrong[1]))
    return problems


def _wrong_cron(trigger: Trigger, now: datetime) -> tuple[str, str] | None:
    try:
        cron = cron_of(trigger)
    except BadCron as bad:
        return "cron", str(bad)
    try:
        agreed = croniter_reading(cron) == own_reading(cron)
    except (ValueError, KeyError, TypeError) as refusal:
        return "cron", f"is not a cron expression that can be used: {refusal}"
    if not agreed:
        return "cron", "is not a cron expression that can be used: croniter reads it differently; write it more plainly"
    start = instant_of(now.astimezone(UTC))
    if next_wall(cron, start, start + HORIZON) is None:
        return "never", f"{trigger.cron_expression!r} never comes: no date within 50 years matches it"
    return None


def own_reading(cron: Cron) -> Reading:
    return cron[1:7], frozenset(cron.day_marks), frozenset(cron.weekday_marks)


def croniter_reading(cron: Cron) -> Reading:
    """What croniter makes of the same fields, in the same terms. Raises ValueError where it refuses them."""
    from croniter import croniter  # type: ignore[import-untyped,unused-ignore]  # its import costs 28 ms

    second, minute, hour, day, month, weekday = cron.texts
    known = "l" if day == "lw" else day  # croniter has no LW
    read = croniter(" ".join((minute, hour, known, month, weekday, second)), 0.0)
    minutes, hours, days, months, weekdays, seconds = (
        _mask(values, low, high) for values, (low, high) in zip(read.expanded, croniter.RANGES[:6], strict=True)
    )
    day_marks: Marks = tuple((number, NEAREST) for number in read.nearest_weekday)
    if "l" in read.expanded[2]:
        day_marks = cron.day_marks if day == "lw" else ((0, LAST),)
    weekday_marks: Marks = tuple(
        (number, LAST if nth == "l" else nth)
        for number, all_nth in read.nth_weekday_of_month.items()
        for nth in all_nth
    )
    masks = (seconds, minutes, hours, 0 if read.nearest_weekday else days, months, 0 if weekday_marks else weekdays)
    return masks, frozenset(day_marks), frozenset(weekday_marks)


def _mask(values: list[int | str], low: int, high: int) -> int:
    numbers = range(low, high + 1) if "*" in values else [value for value in values if isinstance(value, int)]
    return sum(1 << number for number in set(numbers))


# --- slots ----------------------------------------------------------------------------------------------------------


def next_slot(trigger: Trigger, after: datetime) -> datetime | None:
    """The first slot strictly after ``after``, aware and in UTC; None when there is none any more.

    The trigger must have passed :func:`check_trigger`; of one that has not, no slot is known. An interval without an
    anchor counts from 1970-01-01 UTC, and no slot lies before the anchor. What fires by an event has no slots.
    """
    after = after.astimezone(UTC)
    if trigger.type == "one_shot":
        return trigger.run_at if trigger.run_at is not None and trigger.run_at > after else None
    if trigger.type == "interval":
        return _next_interval(trigger, after)
    if trigger.type == "planned":
        return min((time for time in trigger.plan if time > after), default=None)
    if trigger.type != "cron":
        return None
    zone = find_zone(trigger.timezone)
    try:
        cron = cron_of(trigger)
    except BadCron:
        return None
    return None if zone is None else first_slot(cron, zone, after)


def slots(trigger: Trigger, start: datetime, end: datetime, limit: int) -> list[datetime]:
    """The slots with ``start < slot <= end``, oldest first, at most ``limit``."""
    if trigger.type == "interval":
        return _intervals(trigger, start.astimezone(UTC), end.astimezone(UTC), limit)
    if trigger.type != "cron":
        return [slot for slot, _ in zip(_all_until(trigger, start, end), range(limit), strict=False)]
    zone = find_zone(trigger.timezone)
    try:
        cron = cron_of(trigger)
    except BadCron:
        return []
    return [] if zone is None else slots_between(cron, zone, start.astimezone(UTC), end.astimezone(UTC), limit)


def _all_until(trigger: Trigger, start: datetime, end: datetime) -> Iterator[datetime]:
    slot = next_slot(trigger, start)
    while slot is not None and slot <= end:
        yield slot
        slot = next_slot(trigger, slot)


def _intervals(trigger: Trigger, start: datetime, end: datetime, limit: int) -> list[datetime]:
    first = _next_interval(trigger, start)
    if first is None or first > end or limit < 1:
        return []
    every = timedelta(seconds=trigger.interval_seconds or 0)
    return [first + n * every for n in range(min(limit, (end - first) // every + 1))]


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
