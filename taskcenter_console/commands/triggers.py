"""``taskcenter trigger``, ``fire``, ``backfill``: when tasks fire. (spec 4.1, 4.9)"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from taskcenter_console.terminal import emit, mark, moment, note, say, table

from . import common
from .common import Out, output
from .showing import show_list, tell

if TYPE_CHECKING:
    from taskcenter.models import Task, Trigger

__all__ = ["backfill", "fire", "instant", "policies", "sentence", "trigger"]


def instant(text: str | None, option: str) -> datetime | None:
    """A time from the command line: ISO, in this machine's zone when it names none; ``now``, ``+90m``, ``-2h``."""
    if text is None:
        return None
    from taskcenter.clock import utc_now
    from taskcenter_console.services import periods

    return periods.instant(text, option, utc_now())


def policies(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--owed``: what becomes of the slots that a pause kept."""
    kinds = click.Choice(["fire_now", "fire_all", "skip", "reschedule"])
    text = "What becomes of the slots it kept, instead of the triggers' own policies."
    return click.option("--owed", type=kinds, help=text)(function)


def sentence(trigger: Any) -> str:
    """A trigger in a few words, of any type. ``trigger``: the model or its JSON."""
    from taskcenter.models import Trigger
    from taskcenter.scheduling.occurrences import describe

    made = trigger if isinstance(trigger, Trigger) else Trigger.model_validate(trigger)
    match made.type:
        case "planned":
            text = f"at {len(made.plan)} planned time{'s' if len(made.plan) != 1 else ''}"
        case "ad_hoc":
            text = "by its token" if made.token_hash else "by its token (revoked)"
        case "after":
            text = f"after runs of {len(made.task_ids)} task{'s' if len(made.task_ids) != 1 else ''} ({made.condition})"
        case "startup":
            text = "when the service starts"
        case _:
            text = describe(made)
    if not made.enabled:
        return f"{text} (off)"
    if made.paused_reason or made.paused_until:
        until = f" until {moment(made.paused_until)}" if made.paused_until else ""
        return f"{text} (paused{until})"
    return text


@click.group()
def trigger() -> None:
    """When tasks fire: add, change, pause and remove triggers. A trigger is named by its id or the start of it."""


@trigger.command("list")
@click.argument("task", metavar="TASK", required=False)
@output
def list_triggers(task: str | None, out: Out) -> None:
    """List triggers, of one task or of all."""
    from taskcenter_console.services import tasks as service

    with common.open_center() as center:
        tasks = [service.get(center, task)] if task else service.all_tasks(center)
    found = [(owner, item) for owner in tasks for item in owner.triggers]
    show_list(
        out,
        found,
        name=lambda one: one[1].id,
        columns=("trigger", "task", "type", "fires", "next slot", "misfire", "overlap"),
        cells=lambda one: _cells(*one),
        empty="no triggers; add one with: taskcenter trigger add TASK --cron '0 2 * * *'",
        json=lambda one: {**one[1].to_json(), "taskSlug": one[0].slug},
    )


def _cells(owner: Task, item: Trigger) -> list[Any]:
    due = moment(item.next_run_at) if item.next_run_at else ""
    return [item.id[:8], owner.slug, item.type, sentence(item), due, item.misfire_policy, item.overlap]


_OPTIONS = [
    click.option("--cron", metavar="EXPR", help="Five or six fields, as in crontab."),
    click.option("--seconds", type=click.Choice(["first", "last"]), help="Where the seconds of six fields stand."),
    click.option("--every", type=float, metavar="SECONDS", help="A fixed rate."),
    click.option("--from-completion", is_flag=True, help="With --every: counted from the end of the run before."),
    click.option("--at", multiple=True, metavar="TIME", help="Once at this time; repeat it for a plan of times."),
    click.option("--after", multiple=True, metavar="TASK", help="When runs of this task end. Repeatable."),
    click.option("--condition", type=click.Choice(["success", "failed", "done"]), help="With --after: how they end."),
    click.option("--ad-hoc", is_flag=True, help="By a token, which is made and shown once."),
    click.option("--startup", is_flag=True, help="When the service starts."),
    click.option("--timezone", metavar="ZONE", help="The zone of --cron and --at. Default: UTC."),
    click.option("--misfire", type=click.Choice(["fire_now", "fire_all", "skip", "reschedule"]), help="When late."),
    click.option("--grace", type=click.IntRange(0), metavar="SECONDS", help="How late is late. Default: 60."),
    click.option("--catch-up", type=click.IntRange(1, 10_000), metavar="N", help="The most that fire_all makes up."),
    click.option(
        "--overlap",
        type=click.Choice(["skip", "buffer_one", "buffer_all", "cancel_other", "allow"]),
        help="When a run is still active.",
    ),
    click.option("--scope", type=click.Choice(["trigger", "task"]), help="Whose runs --overlap looks at."),
    click.option("--retries", type=click.IntRange(0, 100), metavar="N", help="Extra attempts."),
    click.option("--backoff", type=click.IntRange(0), metavar="MS", help="Milliseconds between attempts."),
    click.option("--calendar", metavar="NAME", help="Only at times of this calendar."),
    click.option(
        "--calendar-rule", type=click.Choice(["skip", "next_working_day", "previous_working_day"]),
        help="What becomes of an excluded slot.",
    ),
    click.option("--jitter", type=float, metavar="SECONDS", help="Spread the starts over so many seconds."),
    click.option("--start", metavar="TIME", help="No slot before."),
    click.option("--end", metavar="TIME", help="No slot after."),
    click.option("--priority", type=click.Choice(["high", "normal", "low"]), help="Of its runs."),
    click.option("--payload", metavar="JSON", help="Fields of the payload that its runs override."),
]  # fmt: skip


def _fields(function: Callable[..., Any]) -> Callable[..., Any]:
    import functools

    names = [p for option in _OPTIONS for p in _names(option)]

    @functools.wraps(function)
    def call(*args: Any, **values: Any) -> Any:
        form = {name: values.pop(name) for name in names}
        return function(*args, form=form, **values)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call


def _names(option: Callable[..., Any]) -> list[str]:
    probe = click.command()(option(lambda **_: None))
    return [param.name for param in probe.params if param.name]


def _given(form: dict[str, Any]) -> dict[str, Any]:
    """The trigger's JSON form of what was given."""
    data: dict[str, Any] = {}
    kinds = [name for name in ("cron", "every", "at", "after", "ad_hoc", "startup") if form[name]]
    if len(kinds) > 1:
        raise click.UsageError(f"One trigger has one type: {', '.join('--' + k.replace('_', '-') for k in kinds)}.")
    if form["cron"]:
        data |= {"type": "cron", "cronExpression": form["cron"]}
    if form["every"] is not None:
        data |= {"type": "interval", "intervalSeconds": form["every"]}
    if form["at"]:
        times = [_at(text, form["timezone"]) for text in form["at"]]
        data |= {"type": "one_shot", "runAt": times[0]} if len(times) == 1 else {"type": "planned", "plan": times}
    if form["after"]:
        data |= {"type": "after", "taskIds": list(form["after"])}
    if form["ad_hoc"] or form["startup"]:
        data["type"] = "ad_hoc" if form["ad_hoc"] else "startup"
    plain = {
        "seconds": "cronSeconds", "condition": "condition", "timezone": "timezone", "misfire": "misfirePolicy",
        "grace": "misfireGraceSeconds", "overlap": "overlap", "scope": "overlapScope", "calendar": "calendar",
        "calendar_rule": "calendarRule", "jitter": "jitterSeconds", "priority": "priority",
    }  # fmt: skip
    data |= {wire: form[name] for name, wire in plain.items() if form[name] is not None}
    if form["from_completion"]:
        data["from"] = "completion"
    if form["catch_up"] is not None:
        data["catchUp"] = {"max": form["catch_up"]}
    if form["retries"] is not None or form["backoff"] is not None:
        data["retryPolicy"] = {"maxAttempts": form["retries"] or 0, "backoffMs": form["backoff"] or 0}
    for name, wire in (("start", "startAt"), ("end", "endAt")):
        when = instant(form[name], f"--{name}")
        if when is not None:
            data[wire] = when.isoformat()
    if form["payload"] is not None:
        data["payload"] = common.read_object(form["payload"], "--payload")
    return data


def _at(text: str, zone: str | None) -> str:
    from .taskform import in_zone

    ahead = instant(text, "--at") if text[:1] == "+" else None
    return ahead.isoformat() if ahead is not None else in_zone(text, zone)


@trigger.command()
@click.argument("task", metavar="TASK")
@_fields
@output
def add(task: str, form: dict[str, Any], out: Out) -> None:
    """Add a trigger to a task."""
    from taskcenter_console.services import triggers as service

    data = _given(form)
    if "type" not in data:
        raise click.UsageError("Say when it fires: --cron, --every, --at, --after, --ad-hoc or --startup.")
    with common.open_center() as center:
        owner, made, token = service.add(center, task, data, common.caller())
        url = common.service_address(center)
    if out.json:
        emit({**made.to_json(), "taskSlug": owner.slug, "token": token})
    elif out.quiet:
        say(token or made.id)
    else:
        say(f"● trigger {made.id[:8]} of {owner.slug}: {sentence(made)}")
        if made.next_run_at:
            say(f"  next slot: {moment(made.next_run_at)}")
        if token:
            say(f"  token (shown this once): {token}")
            say(f"  it fires by: curl -X POST {url}/api/hooks/{token}")


@trigger.command()
@click.argument("name", metavar="TRIGGER")
@_fields
@output
def edit(name: str, form: dict[str, Any], out: Out) -> None:
    """Change fields of a trigger. Slots that are past are never owed again by it."""
    from taskcenter_console.services import triggers as service

    data = _given(form)
    if not data:
        raise click.UsageError("Nothing to change: give at least one option.")
    with common.open_center() as center:
        _, before = service.find(center, name)
        if "type" in data and data["type"] != before.type:
            own = {"cron": ("cronExpression", "cronSeconds"), "interval": ("intervalSeconds", "anchor", "from"),
                   "one_shot": ("runAt",), "planned": ("plan",), "after": ("taskIds", "condition")}  # fmt: skip
            data = {**dict.fromkeys(own.get(before.type, ())), **data}
        elif data.get("type") == "interval" and "intervalSeconds" in data:
            data["anchor"] = None
        owner, made = service.change(center, before.id, data, common.caller())
    _say(owner, made, "was changed", out)


def _say(owner: Any, made: Any, what: str, out: Out) -> None:
    if out.json:
        emit({**made.to_json(), "taskSlug": owner.slug})
    elif out.quiet:
        say(made.id)
    else:
        say(f"● trigger {made.id[:8]} of {owner.slug} {what}: {sentence(made)}")
        if made.next_run_at and made.enabled:
            say(f"  next slot: {moment(made.next_run_at)}")


@trigger.command()
@click.argument("name", metavar="[TRIGGER]", required=False)
@_fields
@click.option("--count", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many slots.")
@output
def preview(name: str | None, form: dict[str, Any], count: int, out: Out) -> None:
    """Say when a trigger would fire: in words, its next slots, what is doubtful, and quieter minutes.

    Of a saved trigger, of one as the options give it, or of a saved one with the options put over it. Nothing is saved.
    """
    from .previewing import ask, show

    data = _given(form)
    if name is None and "type" not in data:
        raise click.UsageError("Name a trigger, or say when it fires: --cron, --every, --at, --after, --ad-hoc.")
    show(ask(name, data, count), out)


@trigger.command()
@click.argument("task", metavar="[TASK]", required=False)
@output
def lint(task: str | None, out: Out) -> None:
    """List what the saved triggers may not have meant: all findings, of one task or of all."""
    from .previewing import lint_all

    lint_all(task, out)


@trigger.command()
@click.argument("name", metavar="TRIGGER")
@output
def remove(name: str, out: Out) -> None:
    """Remove a trigger; what became of its slots is kept with the task."""
    from taskcenter_console.services import triggers as service

    with common.open_center() as center:
        owner, made = service.remove(center, name, common.caller())
    _say(owner, made, "was removed", out)


def _switch(name: str, enabled: bool, out: Out) -> None:
    from taskcenter_console.services import triggers as service

    with common.open_center() as center:
        owner, made = service.switch(center, name, enabled, common.caller())
    _say(owner, made, "is switched on" if enabled else "is switched off", out)


@trigger.command()
@click.argument("name", metavar="TRIGGER")
@output
def enable(name: str, out: Out) -> None:
    """Switch a trigger on."""
    _switch(name, True, out)


@trigger.command()
@click.argument("name", metavar="TRIGGER")
@output
def disable(name: str, out: Out) -> None:
    """Switch a trigger off: its slots are skipped as they come."""
    _switch(name, False, out)


@trigger.command()
@click.argument("name", metavar="TRIGGER")
@click.option("--until", metavar="TIME", help="When it resumes by itself (+2h, or a time).")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who wonder.")
@output
def pause(name: str, until: str | None, reason: str, out: Out) -> None:
    """Pause a trigger: its slots wait for their verdict until it is resumed."""
    from taskcenter_console.services import triggers as service

    when = instant(until, "--until")
    with common.open_center() as center:
        owner, made = service.pause(center, name, common.caller(), until=when, reason=reason)
    _say(owner, made, "is paused", out)


@trigger.command()
@click.argument("name", metavar="TRIGGER")
@policies
@output
def resume(name: str, owed: Any, out: Out) -> None:
    """Let a paused trigger fire again; says how many slots are owed."""
    from taskcenter_console.services import triggers as service

    with common.open_center() as center:
        owner, made, count = service.resume(center, name, common.caller(), owed)
    _say(owner, made, "is resumed", out)
    if not (out.json or out.quiet):
        say_owed(count, owed or made.misfire_policy)


def say_owed(count: int, policy: str) -> None:
    if count:
        say(f"  {count} slot{'s' if count != 1 else ''} owed; what becomes of them: {policy} (choose with --owed)")


@trigger.command()
@click.argument("name", metavar="TRIGGER")
@click.option("--revoke", is_flag=True, help="Make no new one: nothing fires it any more.")
@output
def token(name: str, revoke: bool, out: Out) -> None:
    """Make a new token for an ad_hoc trigger; the one before no longer works."""
    from taskcenter_console.services import triggers as service

    with common.open_center() as center:
        if revoke:
            made, new = service.revoke_token(center, name, common.caller()), None
        else:
            made, new = service.new_token(center, name, common.caller())
    if out.json:
        emit({"triggerId": made.id, "token": new})
    elif new is not None:
        say(new)
    else:
        say(f"● the token of trigger {made.id[:8]} was revoked")


@click.command()
@click.argument("name", metavar="TASK|TRIGGER")
@click.option("--payload", metavar="JSON", help="Fields of the payload that the run overrides.")
@output
def fire(name: str, payload: str | None, out: Out) -> None:
    """Fire an ad_hoc trigger: its run is one of the scheduler's, with a verdict in the ledger."""
    from taskcenter_console.services import triggers as service

    data = common.read_object(payload, "--payload") if payload is not None else None
    with common.open_center() as center:
        made = service.fire(center, name, data, common.caller())
    fired = {"id": made.id, "triggerId": made.trigger_id, "at": made.at.isoformat()}
    tell(out, fired, made.id, f"● trigger {made.trigger_id[:8]} was fired; its run: taskcenter ledger {name}")


@click.command()
@click.argument("name", metavar="TRIGGER|TASK")
@click.option("--from", "start", required=True, metavar="TIME", help="From this slot on (included).")
@click.option("--to", "end", required=True, metavar="TIME", help="Up to this slot (included).")
@click.option("--order", type=click.Choice(["oldest", "newest"]), default="oldest", show_default=True, help="First.")
@click.option("--max-active", type=click.Choice(["0", "1"]), default="1", show_default=True,
              help="1: one after another; 0: as the limits allow.")  # fmt: skip
@click.option("--all", "every", is_flag=True, help="Also slots that had their run.")
@click.option("--yes", is_flag=True, help="Ask for the runs; without it only the dates are shown.")
@output
def backfill(name: str, start: str, end: str, order: str, max_active: str, every: bool, yes: bool, out: Out) -> None:
    """Run slots of the past again: first the dates, with --yes the runs."""
    from taskcenter_console.services import backfill as service

    first, last = instant(start, "--from"), instant(end, "--to")
    assert first is not None
    assert last is not None
    about = {"newest": order == "newest", "only_missing": not every}
    with common.open_center() as center:
        if yes:
            found = service.ask(center, name, first, last, common.caller(), max_active=int(max_active), **about)
        else:
            _, _, found = service.preview(center, name, first, last, **about)
    count = sum(item.run for item in found)
    if out.json:
        emit({"asked": yes, "runs": count, "items": [item.to_dict() for item in found]})
        return
    if not out.quiet:
        cells = [[moment(item.slot), mark(item.verdict) if item.verdict else "", "run" if item.run else "", item.why]
                 for item in found]  # fmt: skip
        table(("slot", "verdict now", "gets", "because"), cells, empty="no slot lies in this period")
    if yes:
        say(f"● {count} run{'s' if count != 1 else ''} asked for")
    elif count:
        note(f"nothing was done yet; ask for the {count} run{'s' if count != 1 else ''} with --yes")
