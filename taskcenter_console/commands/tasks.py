"""``taskcenter task``: the saved tasks. Everything is checked whole before anything is stored. (spec 1.1, 1.5)"""

from __future__ import annotations

from typing import Any

import click

from taskcenter.errors import Problem, ValidationFailed
from taskcenter_console.terminal import brief, emit, mark, moment, note, say

from . import common
from .common import Out, output
from .exchange import document_of, export, import_tasks
from .revisions import diff, history, rollback
from .showing import show_list, tell
from .taskform import fields, given_fields
from .tasktypes import types

__all__ = ["task"]


@click.group()
def task() -> None:
    """Create, list, change, import and export tasks. A task is named by its slug, its id or TYPE/SLUG."""


@task.command()
@click.argument("file", metavar="FILE", required=False)
@fields
@output
def create(file: str | None, form: dict[str, Any], out: Out) -> None:
    """Create a task from FILE (JSON, YAML, or a .py file with one composite; - is stdin), from options, or both.

    Options win over the file. Required fields of the payload that are missing are asked for on a terminal.
    """
    from taskcenter.task_types import registry
    from taskcenter_console.services import tasks as service

    data = _from_file(file) if file else {}
    data |= given_fields(form, data.get("payload"))
    with common.open_center() as center:
        kind = data.get("taskType", data.get("task_type"))
        if common.can_ask(out) and isinstance(kind, str) and isinstance(data.get("payload", {}), dict):
            asked = common.ask_missing(registry.find(kind), data.get("payload", {}))
            if asked:
                data["payload"] = {**data.get("payload", {}), **asked}
        with common.stdout_kept():
            saved = service.save(center, data, common.caller())
        _say_saved(center, saved, "created", out)


def _from_file(file: str) -> dict[str, Any]:
    data = document_of(file)
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    if not isinstance(data, dict) or isinstance(data.get("tasks"), list):
        problem = Problem("not_one", "", "must hold one task; for several use: taskcenter task import")
        raise ValidationFailed("stdin" if file == "-" else file, [problem])
    return data


@task.command()
@click.argument("which", metavar="TASK")
@fields
@output
def edit(which: str, form: dict[str, Any], out: Out) -> None:
    """Change fields of a task. --set changes single fields of the payload, --payload replaces all of it.

    --cron, --every and --at replace all triggers. Refused when somebody else changes the task at the same moment.
    """
    from taskcenter_console.services import tasks as service

    with common.open_center() as center:
        before = service.get(center, which)
        data = given_fields(form, before.payload)
        if not data:
            raise click.UsageError("Nothing to change: give at least one option.")
        with common.stdout_kept():
            saved = service.save(center, data, common.caller(), update=before.slug, expected_revision=before.revision)
        _say_saved(center, saved, "changed", out)


def _say_saved(center: Any, saved: Any, verb: str, out: Out) -> None:
    from taskcenter_console.services import tasks as service

    if out.json:
        emit(service.details(center, saved.slug))
    elif out.quiet:
        say(saved.slug)
    else:
        say(f"● {saved.deployment_name} was {verb} (revision {saved.revision})")
        due = [trigger.next_run_at for trigger in saved.triggers if trigger.enabled and trigger.next_run_at]
        if due and saved.status.value == "active":
            say(f"  next run: {moment(min(due))}")


@task.command("list")
@click.option("--status", metavar="STATUS", help="Only active, paused or disabled ones.")
@click.option("--type", "task_type", metavar="TYPE", help="Only tasks of this task type.")
@click.option("--tag", metavar="TAG", help="Only tasks with this tag.")
@click.option("--owner", metavar="OWNER", help="Only tasks of this owner.")
@click.option("--search", metavar="TEXT", help="Only tasks with this text in name or description.")
@click.option(
    "--sort",
    type=click.Choice(["name", "created_at", "updated_at", "status"]),
    default="name",
    show_default=True,
    help="By what they are ordered.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many at most.")
@output
def list_tasks(
    status: str | None,
    task_type: str | None,
    tag: str | None,
    owner: str | None,
    search: str | None,
    sort: str,
    limit: int,
    out: Out,
) -> None:
    """List tasks with their last run and their next one."""
    from taskcenter.ports import TaskFilter
    from taskcenter.status import TaskStatus
    from taskcenter_console.services import tasks as service

    if status is not None and status not in set(TaskStatus):
        raise click.UsageError(f"--status {status!r} is not one of {', '.join(TaskStatus)}.")
    where = TaskFilter(
        status=status, task_type=task_type, tag=tag, owner=owner, search=search, sort_by=sort, limit=limit
    )
    with common.open_center() as center:
        rows = service.list_tasks(center, where)
    read = show_list(
        out,
        rows,
        name=lambda row: str(row["slug"]),
        columns=("task", "type", "status", "last run", "at", "next run", "tags"),
        cells=lambda row: [row["slug"], row["taskType"], mark(row["status"]), mark(row["lastRunStatus"]),
                           brief(row["lastRunAt"]), brief(row["nextRunAt"]), ", ".join(row["tags"])],
        empty="no tasks; make one with: taskcenter task create",
    )  # fmt: skip
    if read and len(rows) == limit:
        note(f"{limit} shown; there may be more: --limit")


@task.command()
@click.argument("name", metavar="TASK")
@output
def show(name: str, out: Out) -> None:
    """Show a task: its payload without secrets, its triggers, its graph."""
    from taskcenter_console.services import tasks as service

    with common.open_center() as center:
        data = service.details(center, name)
    if out.json:
        emit(data)
    elif out.quiet:
        say(data["slug"])
    else:
        _say_task(data)


def _say_task(data: dict[str, Any]) -> None:
    from taskcenter.redaction import redact

    facts = {
        "task": f"{data['taskType']}/{data['slug']}" + (f" ({data['name']})" if data["name"] != data["slug"] else ""),
        "about": data["description"],
        "status": mark(data["status"]),
        "revision": data["revision"],
        "owner": data["owner"],
        "category": data["category"],
        "tags": ", ".join(data["tags"]),
        "danger": data["danger"],
        "last run": f"{mark(data['lastRunStatus'])}, {moment(data['lastRunAt'])}" if data["lastRunStatus"] else None,
        "next run": moment(data["nextRunAt"]) if data["nextRunAt"] else None,
    }
    for label, value in facts.items():
        if value:
            say(f"{label:10s}{value}")
    for trigger in data["triggers"]:
        say(f"{'trigger':10s}{_trigger(trigger)}")
    if data["payload"]:
        say("payload")
        for key, value in redact(data["payload"]).items():
            text = value if isinstance(value, str) else common.short(value, 2000) or repr(value)
            say("\n".join(f"  {line}" for line in f"{key}: {text.strip()}".splitlines()))
    if data["graph"]:
        from composites.model import CompositeSpec
        from composites.render import to_tree

        spec, problems = CompositeSpec.read({**data["graph"], "name": data["slug"]})
        if not problems:
            say(f"\n{to_tree(spec)}")


def _trigger(trigger: dict[str, Any]) -> str:
    from .triggers import sentence

    cron = f" · {trigger['cronExpression']}" if trigger["cronExpression"] else ""
    return f"{trigger['id'][:8]}  {sentence(trigger)}{cron}"


@task.command()
@click.argument("name", metavar="TASK")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output
def delete(name: str, yes: bool, out: Out) -> None:
    """Delete a task with its runs, its logs and its deployment. The audit keeps what was done."""
    from taskcenter_console.services import tasks as service

    with common.open_center() as center:
        found = service.get(center, name)
        question = f"Delete {found.deployment_name} with its runs and logs?"
        common.confirm(yes, out, question, f"deleting {found.slug} takes its runs and logs with it")
        service.delete(center, found.slug, common.caller())
    tell(out, {"deleted": found.slug, "id": found.id}, found.slug, f"- {found.deployment_name} was deleted")


def _switch(name: str, status: str, word: str, out: Out) -> None:
    from taskcenter_console.services import tasks as service

    with common.open_center() as center:
        found = service.get(center, name)
        saved = service.save(center, {"status": status}, common.caller(), update=found.slug)
        _say_saved(center, saved, word, out)


@task.command()
@click.argument("name", metavar="TASK")
@output
def enable(name: str, out: Out) -> None:
    """Let the triggers of a task fire (again)."""
    _switch(name, "active", "enabled", out)


@task.command()
@click.argument("name", metavar="TASK")
@output
def pause(name: str, out: Out) -> None:
    """Stop the triggers of a task from firing until it is enabled; it can still be run by hand."""
    _switch(name, "paused", "paused", out)


@task.command()
@click.argument("name", metavar="TASK")
@output
def disable(name: str, out: Out) -> None:
    """As pause, and no new trigger is accepted either."""
    _switch(name, "disabled", "disabled", out)


for _command in (import_tasks, export, types, history, diff, rollback):
    task.add_command(_command)
