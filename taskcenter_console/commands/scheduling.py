"""``taskcenter scheduler`` and ``calendar``: the scheduler as a whole, and the days it knows. (spec 4.2, 4.7)"""

from __future__ import annotations

from typing import Any

import click

from taskcenter.errors import NotFound, Problem, ValidationFailed
from taskcenter_console.terminal import emit, moment, say

from . import common
from .common import Out, output
from .showing import show_list
from .triggers import instant, policies, say_owed

__all__ = ["calendar", "scheduler"]


@click.group()
def scheduler() -> None:
    """The scheduler: its state, who leads, pause, disable and resume it."""


@scheduler.command()
@output
def state(out: Out) -> None:
    """Say whether slots fire, since when, by whom and why, and which service leads."""
    from taskcenter_console.services import scheduler as service

    with common.open_center() as center:
        found = service.state(center)
    if out.json:
        emit(found.to_dict())
    elif out.quiet:
        say(found.mode)
    else:
        _say(found)


def _say(found: Any) -> None:
    say(f"{'●' if found.mode == 'running' else '‖'} the scheduler is {found.mode}")
    if found.since is not None:
        until = f" until {moment(found.until)}" if found.until else ""
        say(f"  since {moment(found.since)}{until}, by {found.by}" + (f": {found.note}" if found.note else ""))
    if found.owed:
        say(f"  {found.owed} slots wait for their verdict")
    if found.leader is None:
        say("  no service leads it now: nothing fires until one does (taskcenter up)")
    else:
        say(f"  led by {found.leader['holder']}")


def _hold(mode: str, until: str | None, reason: str, out: Out) -> None:
    from taskcenter.scheduling.state import Mode
    from taskcenter_console.services import scheduler as service

    when = instant(until, "--until")
    with common.open_center() as center:
        service.hold(center, Mode(mode), common.caller(), until=when, note=reason)
        found = service.state(center)
    if out.json:
        emit(found.to_dict())
    elif out.quiet:
        say(found.mode)
    else:
        _say(found)


@scheduler.command()
@click.option("--until", metavar="TIME", help="When it resumes by itself (+2h, or a time).")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who wonder.")
@output
def pause(until: str | None, reason: str, out: Out) -> None:
    """Nothing fires; slots wait and get their verdict by the misfire policy on resume."""
    _hold("paused", until, reason, out)


@scheduler.command()
@click.option("--until", metavar="TIME", help="When it runs again by itself (+2h, or a time).")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who wonder.")
@output
def disable(until: str | None, reason: str, out: Out) -> None:
    """Nothing fires, and slots are skipped as they come."""
    _hold("disabled", until, reason, out)


@scheduler.command()
@policies
@output
def resume(owed: Any, out: Out) -> None:
    """Let it run again; says how many slots are owed."""
    from taskcenter_console.services import scheduler as service

    with common.open_center() as center:
        count = service.resume(center, common.caller(), owed)
        found = service.state(center)
    if out.json:
        emit({**found.to_dict(), "owed": count})
    elif out.quiet:
        say(found.mode)
    else:
        _say(found)
        say_owed(count, owed or "as each trigger says")


@click.group()
def calendar() -> None:
    """Named calendars: days and times on which triggers may fire, or may not."""


@calendar.command("list")
@output
def list_calendars(out: Out) -> None:
    """List the calendars."""
    with common.open_center() as center:
        found = list(center.need_schedule().calendars.all())
    show_list(
        out,
        found,
        name=lambda item: item.name,
        columns=("calendar", "zone", "includes", "excludes"),
        cells=lambda item: [item.name, item.timezone, len(item.include), len(item.exclude)],
        empty="no calendars; make one with: taskcenter calendar set FILE",
    )


@calendar.command("set")
@click.argument("file", metavar="FILE")
@click.option("--name", metavar="NAME", help="For an .ics file: what the calendar is called.")
@output
def set_calendar(file: str, name: str | None, out: Out) -> None:
    """Make or replace a calendar from FILE (JSON, YAML or .ics; its events are days that are excluded)."""
    from taskcenter_console.services import calendars as service

    with common.open_center() as center:
        if file.endswith(".ics"):
            if not name:
                raise click.UsageError("An .ics file needs --name.")
            made = service.import_ics(center, name, common.read_text(file), common.caller())
        else:
            data = common.read_document(file)
            if not isinstance(data, dict):
                raise ValidationFailed(file, [Problem("not_object", "", "must hold one calendar")])
            made = service.put(center, {**data, **({"name": name} if name else {})}, common.caller())
    if out.json:
        emit(made.to_json())
    else:
        say(made.name if out.quiet else f"● the calendar {made.name} was saved")


@calendar.command()
@click.argument("name", metavar="NAME")
@output
def show(name: str, out: Out) -> None:
    """Show a calendar as JSON."""
    with common.open_center() as center:
        found = next((item for item in center.need_schedule().calendars.all() if item.name == name), None)
    if found is None:
        raise NotFound(f"there is no calendar {name!r}", name=name)
    if out.quiet:
        say(found.name)
    else:
        emit(found.to_json())


@calendar.command()
@click.argument("name", metavar="NAME")
@output
def remove(name: str, out: Out) -> None:
    """Remove a calendar; refused while a trigger or another calendar uses it."""
    from taskcenter_console.services import calendars as service

    with common.open_center() as center:
        service.remove(center, name, common.caller())
    if out.json:
        emit({"removed": name})
    else:
        say(name if out.quiet else f"- the calendar {name} was removed")
