"""``task import`` and ``task export``: tasks as files. (spec 1.5)"""

from __future__ import annotations

from typing import Any

import click

from taskcenter_console.terminal import emit, mark, say, table

from . import common
from .common import Out, output

__all__ = ["document_of", "export", "import_tasks"]


def document_of(file: str) -> Any:
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


@click.command("import")
@click.argument("file", metavar="FILE")
@click.option("--apply", is_flag=True, help="Carry it out. Without it, say only what would happen.")
@output
def import_tasks(file: str, apply: bool, out: Out) -> int:
    """Preview what an import of FILE (JSON, YAML or .py; - is stdin) would do, or do it with --apply.

    All of it or nothing: when one task is refused, none is stored, and the exit code is 2.
    """
    from taskcenter_console.services import tasks as service

    data = document_of(file)
    whole = data if isinstance(data, list) or (isinstance(data, dict) and "tasks" in data) else [data]
    with common.open_center() as center, common.stdout_kept():
        items = service.import_tasks(center, whole, common.caller(), apply=apply)
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


@click.command()
@click.argument("names", metavar="[TASK]...", nargs=-1)
@click.option("-o", "--output", "file", metavar="FILE", help="Write to FILE (whole or not at all) instead of stdout.")
@output
def export(names: tuple[str, ...], file: str | None, out: Out) -> None:
    """Write tasks, all of them or the named ones, as the JSON that `task import` takes."""
    from taskcenter_console.services import tasks as service

    with common.open_center() as center:
        document = service.export(center, common.caller(), names)
    if file is None or file == "-":
        emit(document)
        return
    common.write_whole(file, document)
    if out.json:
        emit({"file": file, "tasks": len(document["tasks"])})
    elif not out.quiet:
        say(f"{len(document['tasks'])} tasks were written to {file}")
