"""What a trigger may not have meant: warnings, never refusals. (spec 4.1)

``docs/time.md`` lists the codes. A trigger that :func:`check_trigger` refuses has no warnings: the refusal says it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from ..errors import Problem
from ..models import Trigger
from .cron import BadCron, Cron, cron_of
from .walk_zones import EPOCH, Meeting, find_zone, first_slot, meetings

__all__ = ["lint"]

_AHEAD = timedelta(days=5 * 366)
_LATEST = datetime.max.replace(tzinfo=UTC) - _AHEAD
_ALL = (1 << 60) - 1
_ALL_HOURS = (1 << 24) - 1


def lint(trigger: Trigger, now: datetime, path: str = "") -> list[Problem]:
    """Warnings about ``trigger``, each with its place (below ``path``) and a sentence with dates."""
    if trigger.type != "cron":
        return []
    zone = find_zone(trigger.timezone)
    try:
        cron = cron_of(trigger)
    except BadCron:
        return []
    if zone is None or (first := first_slot(cron, zone, now.astimezone(UTC))) is None:
        return []
    found = [_never_soon(first, now), _every_minute(cron), _day_and_weekday(cron), *_clock_changes(cron, zone, now)]
    place = f"{path}.cronExpression" if path else "cronExpression"
    return [Problem(code, place, sentence, severity="warning") for code, sentence in filter(None, found)]


def _never_soon(first: datetime, now: datetime) -> tuple[str, str] | None:
    if first - now <= _AHEAD:
        return None
    return "never_soon", f"does not come within 5 years: first on {first:%Y-%m-%d}"


def _every_minute(cron: Cron) -> tuple[str, str] | None:
    minute, hour = cron.texts[1:3]
    if cron.seconds == _ALL and cron.minutes != _ALL and "-" not in minute:
        return "every_minute", f"fires in every second of minute {minute}; for once a minute give one second, as 0"
    if cron.minutes != _ALL or cron.hours == _ALL_HOURS or "-" in hour:
        return None  # every minute from 9 to 17 is usually meant
    return "every_minute", f"fires in every minute of hour {hour}; for once an hour give one minute, as 0"


def _day_and_weekday(cron: Cron) -> tuple[str, str] | None:
    day, weekday = cron.texts[3], cron.texts[5]
    if day == "*" or weekday == "*":
        return None
    if cron.both_days:
        sentence = f"day {day} and weekday {weekday} must both match, since one of them begins with a star"
    else:
        sentence = f"fires on day {day} and also on weekday {weekday}: either is enough"
    return "day_and_weekday", sentence


def _clock_changes(cron: Cron, zone: ZoneInfo, now: datetime) -> list[tuple[str, str]]:
    """The next gap and the next overlap that a fixed time falls into. Wildcards are meant to follow the clock."""
    minute, hour = cron.texts[1:3]
    if minute[0] == "*" or hour[0] == "*":
        return []
    found: dict[str, str] = {}
    now = now.astimezone(UTC)
    for meeting in meetings(cron, zone, now, min(now, _LATEST) + _AHEAD):
        found.setdefault(meeting.kind, _meeting_words(meeting, cron, zone))
        if len(found) == 2:
            break
    return list(found.items())


def _meeting_words(meeting: Meeting, cron: Cron, zone: ZoneInfo) -> str:
    wall = EPOCH + timedelta(seconds=meeting.wall)
    clock = f"{wall:%H:%M:%S}" if wall.second else f"{wall:%H:%M}"
    there = (EPOCH + timedelta(seconds=meeting.slot)).astimezone(zone)
    if meeting.kind == "gap":
        then = "with seconds it is left out that day" if cron.elapsed else f"fires once, at {there:%Y-%m-%d %H:%M}"
        return f"{clock} does not exist on {wall:%Y-%m-%d} in {zone.key}: {then}"
    then = "with seconds it fires both times" if cron.elapsed else "fires the first time only"
    return f"{clock} comes twice on {wall:%Y-%m-%d} in {zone.key}: {then}"
