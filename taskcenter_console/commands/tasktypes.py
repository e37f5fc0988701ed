"""``task types``: the kinds of work and what each is given. (spec 1.2)"""

from __future__ import annotations

from typing import Any

import click

from taskcenter_console.terminal import emit, note, say, table

from . import common
from .common import Out, output
from .showing import show_list

__all__ = ["types"]


@click.command()
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
        return
    read = show_list(
        out,
        rows,
        name=lambda row: str(row["key"]),
        columns=("type", "title", "about"),
        cells=lambda row: [row["key"], row["title"], row["description"]],
        empty="nothing",
        broken=broken,
    )
    for name, said in broken.items() if read else ():
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
