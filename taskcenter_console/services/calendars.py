"""Named calendars: saved whole, checked against the others. (spec 4.7)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from taskcenter.clock import utc_now
from taskcenter.errors import Problem, Refused, ValidationFailed
from taskcenter.scheduling.calendars import Calendar, check_calendar
from taskcenter.scheduling.ics import calendar_from_ics

from . import tasks as task_service
from .center import Caller, Center

__all__ = ["import_ics", "put", "remove"]


def put(center: Center, data: Mapping[str, Any], caller: Caller) -> Calendar:
    """Make or replace a calendar. Raises ValidationFailed with every problem; nothing is stored then."""
    try:
        calendar = Calendar.model_validate(data)
    except ValidationError as error:
        problems = [
            Problem(item["type"], ".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_url=False)
        ]
        raise ValidationFailed(f"the calendar {data.get('name') or ''!r}", problems) from None
    return _save(center, calendar, caller)


def import_ics(center: Center, name: str, text: str, caller: Caller) -> Calendar:
    """The events of an .ics file as times that are excluded; refused when one of them cannot be taken."""
    calendar, problems = calendar_from_ics(name, text)
    if problems:
        raise ValidationFailed(f"the calendar {name!r}", problems)
    return _save(center, calendar, caller)


def _save(center: Center, calendar: Calendar, caller: Caller) -> Calendar:
    schedule = center.need_schedule()
    problems = check_calendar(calendar, schedule.calendars.all())
    if problems:
        raise ValidationFailed(f"the calendar {calendar.name!r}", problems)
    entry = caller.entry(
        "calendar_saved", object=f"calendar {calendar.name}", message=f"the calendar {calendar.name} was saved"
    )
    schedule.calendars.put(calendar, utc_now(), audit=(entry,))
    return calendar


def remove(center: Center, name: str, caller: Caller) -> None:
    users = [f"task {t.slug}" for t in task_service.all_tasks(center) if any(r.calendar == name for r in t.triggers)]
    users += [
        f"calendar {item.name}"
        for item in center.need_schedule().calendars.all()
        if any(rule.calendar == name for rule in (*item.include, *item.exclude))
    ]
    if users:
        raise Refused(f"the calendar {name} is used by {', '.join(users[:10])}: change that first")
    entry = caller.entry("calendar_removed", object=f"calendar {name}", message=f"the calendar {name} was removed")
    center.need_schedule().calendars.delete(name, utc_now(), audit=(entry,))
