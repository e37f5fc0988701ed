"""Who else fires at the same moment, and which minutes near it are quiet. (spec 4.1)"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from ..models import Trigger
from .occurrences import slots
from .walk_zones import find_zone

__all__ = ["QuietMinute", "quiet_minutes", "tasks_at"]

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class QuietMinute:
    """A minute of the same hour in which ``tasks`` other tasks fire. ``cron``: the same cron, moved to it."""

    at: datetime
    tasks: int
    cron: str | None


def tasks_at(triggers: Iterable[Trigger], moment: datetime, but: str = "") -> int:
    """How many other tasks have a slot in the minute of ``moment``. ``but``: the task that asks."""
    start = moment.replace(second=0, microsecond=0) - timedelta(microseconds=1)
    return len({
        trigger.task_id
        for trigger in triggers
        if trigger.task_id != but and trigger.enabled and slots(trigger, start, start + _MINUTE, 1)
    })  # fmt: skip


def quiet_minutes(trigger: Trigger, moment: datetime, triggers: Iterable[Trigger], count: int = 3) -> list[QuietMinute]:
    """The minutes of the hour of ``moment`` in which fewer other tasks fire, the quietest first, then the nearest."""
    zone = find_zone(trigger.timezone) or ZoneInfo("UTC")
    wall = moment.astimezone(zone)
    begin = moment - timedelta(minutes=wall.minute, seconds=wall.second, microseconds=wall.microsecond)
    busy: dict[int, set[str]] = defaultdict(set)
    for other in triggers:
        if other.enabled and other.task_id != trigger.task_id:
            for slot in slots(other, begin - timedelta(microseconds=1), begin + _HOUR - _MINUTE / 60, 3600):
                busy[(slot - begin) // _MINUTE].add(other.task_id)
    own = Counter({minute: len(tasks) for minute, tasks in busy.items()})
    order = sorted((own[n], abs(n - wall.minute), n) for n in range(60) if n != wall.minute)
    better = [(tasks, n) for tasks, _, n in order if tasks < own[wall.minute]]
    return [QuietMinute(begin + n * _MINUTE, tasks, _moved(trigger, n)) for tasks, n in better[:count]]


def _moved(trigger: Trigger, minute: int) -> str | None:
    """The cron with another minute; None when it has more than one."""
    if trigger.type != "cron" or not trigger.cron_expression:
        return None
    fields = trigger.cron_expression.split()
    place = 1 if trigger.cron_seconds == "first" else 0
    if len(fields) < 5 or not fields[place].isdigit():
        return None
    return " ".join([*fields[:place], str(minute), *fields[place + 1 :]])
