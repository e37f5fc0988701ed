"""``taskcenter composite``: composites in files, in the catalogue and saved. Files need no server. (spec 3)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskcenter.errors import TaskCenterError, ValidationFailed
from taskcenter_console.terminal import emit, note, say, table

from . import common
from .choices import Choices, choices
from .common import Out, output
from .planning import find_all, find_one, format_option, maybe_center, name_option, planned, show
from .showing import show_list

if TYPE_CHECKING:
    from composites.validate import Known
    from taskcenter_console.services.center import Center

__all__ = ["composite"]


@click.group()
def composite() -> None:
    """List, check, plan, show and render composites.

    FILE_OR_NAME is a .py or .json file, the name of a saved composite when a center runs here, or the name of one in
    the catalogue (the bundled one and the project's composites/ folder). Files and the catalogue need no server.
    """


@composite.command("list")
@output
def list_composites(out: Out) -> None:
    """List the composites of the catalogue, of the project and of the running center."""
    rows, broken = _everything()
    read = show_list(
        out,
        rows,
        name=lambda row: str(row["name"]),
        columns=("composite", "steps", "where", "description"),
        cells=lambda row: [row["name"], row["steps"], _where(row), row["description"]],
        empty="none",
        broken=broken,
    )
    for one in broken if read else ():
        note(f"✗ broken file {one['file']}: {one['message']}")


def _where(row: dict[str, Any]) -> str:
    return f"saved, revision {row['revision']}" if row["revision"] else str(row["source"])


def _everything() -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    from composites.load import CATALOG, catalog
    from taskcenter_console.services.composites import locate

    project = common.settings().project
    with common.stdout_kept():
        found, broken = catalog(project / "composites")
    rows = {
        one.spec.name: {
            "name": one.spec.name,
            "steps": len(one.spec.steps),
            "source": "catalogue" if one.file.parent == CATALOG else str(one.file),
            "revision": None,
            "description": one.spec.description,
        }
        for one in found
    }
    with maybe_center("") as center:
        if center is not None:
            from taskcenter_console.services.tasks import all_tasks

            for task in (one for one in all_tasks(center) if one.task_type == "composite"):
                spec = locate(task.slug, center.settings, center)[0].spec
                rows[task.slug] = {
                    "name": task.slug,
                    "steps": len(spec.steps),
                    "source": "saved",
                    "revision": task.revision,
                    "description": task.description,
                }
    return [rows[name] for name in sorted(rows)], [{"file": str(b.file), "message": b.message} for b in broken]


@composite.command()
@click.argument("names", metavar="FILE_OR_NAME...", nargs=-1, required=True)
@output
def check(names: tuple[str, ...], out: Out) -> int:
    """Say everything that is wrong with composites; exit code 2 when something is."""
    results: list[dict[str, Any]] = []
    worst = 0
    for name in names:
        try:
            with maybe_center(name) as center:
                results += _checked(name, center)
        except TaskCenterError as error:
            problems = list(getattr(error, "problems", ())) if isinstance(error, ValidationFailed) else []
            said = [p.to_dict() for p in problems] or [{"code": error.code, "path": "", "message": error.message}]
            results.append({"name": None, "source": name, "ok": False, "problems": said})
            worst = max(worst, error.exit_code)
    worst = max([worst, *(0 if result["ok"] else 2 for result in results if result["name"])])
    if out.json:
        emit({"items": results})
    else:
        _say_checked(results, out.quiet)
    return worst


def _checked(name: str, center: Center | None) -> list[dict[str, Any]]:
    from taskcenter_console.services.composites import check_named, offline_known

    found = find_all(name, center)
    known: Known
    if center is not None:
        from taskcenter_console.services.tasks import known as known_to

        known = known_to(center)
    else:
        known = offline_known(common.settings())
    rows = []
    for one in found:
        with common.stdout_kept():
            problems = check_named(one, known)
        errors = [p for p in problems if p.severity == "error"]
        rows.append(
            {
                "name": one.spec.name,
                "source": one.source,
                "ok": not errors,
                "steps": len(one.spec.steps),
                "problems": [p.to_dict() for p in problems],
            }
        )
    return rows


def _say_checked(results: list[dict[str, Any]], quiet: bool) -> None:
    for result in results:
        name = result["name"] or result["source"]
        problems = result["problems"]
        errors = [p for p in problems if p.get("severity", "error") == "error"]
        if result["ok"] and not quiet:
            warned = f", {len(problems)} warnings" if problems else ""
            say(f"● {name}: ok, {result['steps']} steps{warned}")
        elif not result["ok"]:
            say(f"✗ {name}: {len(errors)} problem{'' if len(errors) == 1 else 's'}")
        for problem in problems:
            glyph = "✗" if problem in errors else "!"
            place = f"{problem['path']}: " if problem["path"] else ""
            if problem in errors or not quiet:
                say(f"  {glyph} {place}{problem['message']} [{problem['code']}]")


@composite.command("plan")
@click.argument("name", metavar="FILE_OR_NAME")
@name_option
@choices
@format_option
@output
def plan_composite(name: str, which: str | None, chosen: Choices, form: str, out: Out) -> None:
    """Say what a run would do, step by step; nothing is executed."""
    made, spec = planned(name, which, chosen)
    show(made, spec, form, out)


@composite.command("show")
@click.argument("name", metavar="FILE_OR_NAME")
@name_option
@output
def show_composite(name: str, which: str | None, out: Out) -> None:
    """Show a composite: its settings, its steps and what each waits for."""
    with maybe_center(name) as center:
        one = find_one(name, which, center)
    spec = one.spec
    if out.json:
        emit({"name": spec.name, "source": one.source, "revision": one.revision, "composite": spec.to_dict()})
        return
    if out.quiet:
        say(spec.name)
        return
    from composites.render import to_tree

    say(spec.description or "")
    where = f"saved, revision {one.revision}" if one.revision else one.source
    facts = {"from": where, "tags": ", ".join(spec.tags), "inputs": common.short(dict(spec.inputs))}
    for label, value in facts.items():
        if value:
            say(f"{label:8s}{value}")
    say()
    say(_drawn(to_tree, spec))
    say()
    into: dict[str, list[str]] = {}
    for edge in spec.edges:
        into.setdefault(edge.to_step_key, []).append(
            edge.from_step_key + (f" [{edge.condition}]" if edge.condition != "success" else "")
        )
    rows = [
        [step.step_key, step.task_type or f"task {step.referenced_task_id}", ", ".join(into.get(step.step_key, [])),
         common.short(step.payload)]
        for step in spec.steps
    ]  # fmt: skip
    table(("step", "type", "after", "payload"), rows, empty="no steps")


@composite.command()
@click.argument("name", metavar="FILE_OR_NAME")
@name_option
@format_option
@output
def render(name: str, which: str | None, form: str, out: Out) -> None:
    """Draw a composite as a tree, Mermaid, Graphviz DOT or JSON."""
    from composites.render import render as draw

    with maybe_center(name) as center:
        one = find_one(name, which, center)
    if out.json and form != "json":
        emit({"name": one.spec.name, "format": form, "text": _drawn(lambda spec: draw(spec, form), one.spec)})
    else:
        say(_drawn(lambda spec: draw(spec, form), one.spec))


def _drawn(draw: Any, spec: Any) -> str:
    """A picture needs sound edges: what is wrong with them is said instead of a failing drawing."""
    from composites.validate import check as find_problems

    wrong = [p for p in find_problems(spec).errors if p.path.startswith(("edges", "steps")) or p.code == "cycle"]
    if wrong:
        raise ValidationFailed(f"the composite {spec.name!r}", wrong)
    return str(draw(spec))
