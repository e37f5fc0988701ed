"""``taskcenter task``: the saved tasks. Everything is checked whole before anything is stored. (spec 1.1, 1.5)"""

from __future__ import annotations

from typing import Any

import click

from taskcenter.errors import Problem, Refused, ValidationFailed
from taskcenter_console.terminal import brief, emit, mark, moment, note, say, table

from . import common
from .common import Out, output
from .taskform import fields, given_fields

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
    data = _document(file)
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    if not isinstance(data, dict) or isinstance(data.get("tasks"), list):
        problem = Problem("not_one", "", "must hold one task; for several use: taskcenter task import")
        raise ValidationFailed("stdin" if file == "-" else file, [problem])
    return data


def _document(file: str) -> Any:
    """What a file holds, with a composite in its own form (steps, no task type) turned into a task."""
    if file.endswith(".py"):
        from taskcenter_console.services.composites import task_data

        from .planning import find_all

        return [task_data(one.spec) for one in find_all(file, None)]
    data = common.read_document(file)
    if isinstance(data, dict) and "steps" in data and not {"taskType", "task_type"} & data.keys():
        name = data.get("name") or (file.rpartition("/")[2].partition(".")[0] if file != "-" else "")
        named = {key: data[key] for key in ("description", "tags") if key in data}
        return {"name": name, "taskType": "composite", **named, "graph": data}
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
    if out.json:
        emit({"items": rows})
    elif out.quiet:
        for row in rows:
            say(row["slug"])
    else:
        cells = [
            [row["slug"], row["taskType"], mark(row["status"]), mark(row["lastRunStatus"]),
             brief(row["lastRunAt"]), brief(row["nextRunAt"]), ", ".join(row["tags"])]
            for row in rows
        ]  # fmt: skip
        columns = ("task", "type", "status", "last run", "at", "next run", "tags")
        table(columns, cells, empty="no tasks; make one with: taskcenter task create")
        if len(rows) == limit:
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
    what = {
        "cron": f"cron {trigger['cronExpression']}",
        "interval": f"every {trigger['intervalSeconds'] or 0:g} s",
        "one_shot": f"once at {moment(trigger['runAt'])}",
    }[trigger["type"]]
    zone = f" ({trigger['timezone']})" if trigger["type"] == "cron" else ""
    return f"{what}{zone}{'' if trigger['enabled'] else ' (off)'}"


@task.command()
@click.argument("name", metavar="TASK")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output
def delete(name: str, yes: bool, out: Out) -> None:
    """Delete a task with its runs, its logs and its deployment. The audit keeps what was done."""
    from taskcenter_console.services import tasks as service

    with common.open_center() as center:
        found = service.get(center, name)
        if not yes:
            if not common.can_ask(out):
                raise Refused(f"deleting {found.slug} takes its runs and logs with it: confirm with --yes")
            click.confirm(f"Delete {found.deployment_name} with its runs and logs?", abort=True, err=True)
        service.delete(center, found.slug, common.caller())
    if out.json:
        emit({"deleted": found.slug, "id": found.id})
    elif out.quiet:
        say(found.slug)
    else:
        say(f"- {found.deployment_name} was deleted")


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


@task.command("import")
@click.argument("file", metavar="FILE")
@click.option("--apply", is_flag=True, help="Carry it out. Without it, say only what would happen.")
@output
def import_tasks(file: str, apply: bool, out: Out) -> int:
    """Preview what an import of FILE (JSON, YAML or .py; - is stdin) would do, or do it with --apply.

    All of it or nothing: when one task is refused, none is stored, and the exit code is 2.
    """
    from taskcenter_console.services import tasks as service

    data = _document(file)
    document = data if isinstance(data, list) or (isinstance(data, dict) and "tasks" in data) else [data]
    with common.open_center() as center, common.stdout_kept():
        items = service.import_tasks(center, document, common.caller(), apply=apply)
    refused = [item for item in items if item.kind == "refused"]
    done = apply and not refused
    if out.json:
        emit({"applied": done, "items": [item.to_dict() for item in items]})
    elif out.quiet:
        for item in items:
            say(f"{item.kind} {item.name}")
    else:
        table(("task", "change"), [[item.name, mark(item.kind)] for item in items], empty="the file holds no task")
        for item in refused:
            for problem in item.problems:
                say(f"  ✗ {item.name}: {problem}")
        say(_import_said(len(items), len(refused), apply))
    return 2 if refused else 0


def _import_said(count: int, refused: int, apply: bool) -> str:
    if refused:
        return f"{refused} of {count} are refused; nothing was stored"
    return "stored" if apply else "nothing was stored yet; do it with --apply"


@task.command()
@click.argument("names", metavar="[TASK]...", nargs=-1)
@click.option("-o", "--output", "file", metavar="FILE", help="Write to FILE (whole or not at all) instead of stdout.")
@output
def export(names: tuple[str, ...], file: str | None, out: Out) -> None:
    """Write tasks, all of them or the named ones, as the JSON that `task import` takes."""
    from taskcenter_console.services import tasks as service

    with common.open_center() as center:
        document = service.export(center, names)
    if file is None or file == "-":
        emit(document)
        return
    common.write_whole(file, document)
    if out.json:
        emit({"file": file, "tasks": len(document["tasks"])})
    elif not out.quiet:
        say(f"{len(document['tasks'])} tasks were written to {file}")


@task.command()
@click.argument("key", metavar="TYPE", required=False)
@output
def types(key: str | None, out: Out) -> None:
    """List the task types, or show the fields of one. No server is needed."""
    from taskcenter_console.services import task_types as service
    from taskcenter_console.services.center import Center

    with Center(common.settings()) as center, common.stdout_kept():
        if key is None:
            found, broken = service.list_types(center)
        else:
            found, broken = [service.get(center, key)], {}
    rows = [{**service.describe(kind), "description": _first_line(kind.function)} for kind in found]
    if key is not None:
        _say_type({**rows[0], "schema": found[0].schema()}, out)
    elif out.json:
        emit({"items": rows, "broken": broken})
    elif out.quiet:
        for row in rows:
            say(row["key"])
    else:
        table(("type", "title", "about"), [[row["key"], row["title"], row["description"]] for row in rows])
        for name, said in broken.items():
            note(f"✗ broken: {name}: {said}")


def _first_line(function: Any) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def _say_type(row: dict[str, Any], out: Out) -> None:
    if out.json:
        emit(row)
        return
    schema = row["schema"]
    required = set(schema.get("required", ()))
    if out.quiet:
        for name in schema.get("properties", {}):
            say(name)
        return
    say(f"{row['key']}: {row['description'] or row['title']}")
    if row["danger"]:
        say(f"! {row['danger']}")
    say()
    cells = [
        [name, _kind(field), "required" if name in required else _default(field), field.get("description", "")]
        for name, field in schema.get("properties", {}).items()
    ]
    table(("field", "kind", "default", "about"), cells, empty="it takes no fields")


def _kind(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "anyOf" in field:
        return " | ".join(dict.fromkeys(_kind(part) for part in field["anyOf"] if part.get("type") != "null"))
    return str(field.get("type", field.get("$ref", "any"))).rpartition("/")[2]


def _default(field: dict[str, Any]) -> str:
    return common.short(field.get("default"), 40)
