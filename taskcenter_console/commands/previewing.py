"""``taskcenter trigger preview`` and ``trigger lint``: a trigger before it is saved, and after. (spec 4.1)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskcenter.errors import Problem
from taskcenter.models import Trigger
from taskcenter_console.terminal import emit, moment, note, say, table

from . import common
from .common import Out

if TYPE_CHECKING:
    from taskcenter_console.services.lookahead import Previewed

__all__ = ["ask", "lint_all", "show"]


def ask(name: str | None, data: dict[str, Any], count: int) -> Previewed:
    """A saved trigger (by its id, or its task), with the fields of ``data`` put over it; or one of these alone."""
    from taskcenter_console.services import lookahead as service
    from taskcenter_console.services import tasks, triggers

    center = common.open_center() if name is not None else common.center_if_running()
    if center is None:  # nothing runs here: what a cron means can be said all the same
        return service.preview(data, count=count)
    with center:
        given: Any = data
        if name is not None:
            saved = triggers.find(center, name)[1]
            names = {field.alias or key: key for key, field in Trigger.model_fields.items()}
            own = {names.get(key, key): value for key, value in data.items()}
            given = {**saved.model_dump(mode="python"), **own} if data else saved
        others = [trigger for task in tasks.all_tasks(center) for trigger in task.triggers]
        calendars = center.calendars()
        return service.preview(given, others, count=count, calendars=calendars)


def show(found: Previewed, out: Out) -> None:
    """Ends with 1 when the trigger would be refused."""
    if out.json:
        emit(found.to_dict())
    elif out.quiet:
        for slot in found.found.slots:
            say(slot.at.isoformat())
    else:
        say(found.found.sentence)
        cells = [[slot.wall.isoformat(sep=" "), moment(slot.at), slot.mark or ""] for slot in found.found.slots]
        if cells:
            table((f"slot in {found.trigger.timezone}", "here", "the clock"), cells)
        elif found.ok:
            note("no slot is known before it happens")
        for problem in found.found.problems:
            say(_line(problem))
        for quiet in found.quiet:
            cron = f"  ({quiet.cron})" if quiet.cron else ""
            say(f"  quieter: {moment(quiet.at)}, {quiet.tasks} other task{'s' if quiet.tasks != 1 else ''}{cron}")
    if not found.ok:
        raise SystemExit(1)


def _line(problem: Problem) -> str:
    return f"{'✗' if problem.severity == 'error' else '!'} {problem.code}: {problem}"


def lint_all(task: str | None, out: Out) -> None:
    """Findings about every saved trigger, or those of one task. Ends with 1 when there are any."""
    from taskcenter_console.services import lookahead as service
    from taskcenter_console.services import tasks

    with common.open_center() as center:
        every = tasks.all_tasks(center)
        chosen = tasks.get(center, task).id if task is not None else None
        calendars = center.calendars()
        found = [one for one in service.findings(every, calendars) if chosen in (None, one[0].id)]
    if out.json:
        emit({
            "items": [
                {"task": owner.slug, "triggerId": trigger.id, **problem.to_dict()} for owner, trigger, problem in found
            ]
        })  # fmt: skip
    elif out.quiet:
        for _, trigger, _ in found:
            say(trigger.id)
    else:
        cells = [[owner.slug, trigger.id[:8], problem.severity, problem.code, problem]
                 for owner, trigger, problem in found]  # fmt: skip
        table(("task", "trigger", "says", "code", "because"), cells, empty="nothing to say about any trigger")
    if found:
        raise SystemExit(1)
