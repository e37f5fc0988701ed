"""``taskcenter snapshot``: kept structures of databases, side by side."""

from __future__ import annotations

from typing import Any

import click

from taskcenter_console.terminal import brief, emit, say, table

from . import common
from .common import Out, output
from .showing import CHANGES, show_list

__all__ = ["snapshot"]

_PARTS = ("tables", "views", "routines", "triggers", "sequences", "types")


@click.group()
def snapshot() -> None:
    """Look at the kept structures of databases and at what changed between them."""


@snapshot.command("list")
@click.option("--connection", metavar="NAME", help="Only those of this connection.")
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True, help="At most so many.")
@output
def list_snapshots(connection: str | None, limit: int, out: Out) -> None:
    """List the kept snapshots, last seen first."""
    from taskcenter_console.services import snapshots as service

    with common.open_center() as center:
        found = service.listing(center, connection, limit=limit)
    show_list(
        out,
        found,
        name=lambda s: s.id,
        columns=("snapshot", "connection", "database", "engine", "hash", "first seen", "last seen"),
        cells=lambda s: [s.id[:8], s.connection, s.database, s.dialect, s.schema_hash[:12], brief(s.first_captured_at),
                         brief(s.captured_at)],
        empty="no snapshot is kept; a task of the type schema_snapshot makes one",
        json=lambda s: s.model_dump(mode="json", by_alias=True, exclude={"structure"}),
    )  # fmt: skip


@snapshot.command()
@click.argument("id", metavar="SNAPSHOT")
@output
def show(id: str, out: Out) -> None:
    """Show what a snapshot holds: the beginning of its id (6 characters or more) is enough."""
    from taskcenter_console.services import snapshots as service

    with common.open_center() as center:
        found = service.get(center, id)
    if out.json:
        emit(found.to_json())
        return
    if out.quiet:
        say(found.schema_hash)
        return
    say(f"{found.connection} {found.database} ({found.dialect})  {found.schema_hash}")
    say(f"first seen {brief(found.first_captured_at)}, last seen {brief(found.captured_at)}")
    say()
    rows = []
    for part in _PARTS:
        for name, item in sorted(found.structure.get(part, {}).items()):
            columns = item.get("columns", {}) if isinstance(item, dict) else {}
            rows.append([part.removesuffix("s"), name, ", ".join(columns)])
    table(("kind", "name", "columns"), rows, empty="the database was empty")


@snapshot.command()
@click.argument("id", metavar="SNAPSHOT")
@click.argument("before", metavar="[BEFORE]", required=False)
@output
def diff(id: str, before: str | None, out: Out) -> int:
    """Say what changed since the snapshot BEFORE; by default the one of the same database that was seen before.

    Exit code 1 when there are differences.
    """
    from taskcenter_console.services import snapshots as service

    with common.open_center() as center:
        found = service.between(center, id, before)
    if out.json:
        emit({
            "before": found.before.id, "after": found.after.id, "changed": found.changed, "diff": found.diff,
            "breaking": list(found.breaking),
        })  # fmt: skip
    elif not out.quiet:
        say(f"from {found.before.id[:8]} ({brief(found.before.captured_at)}) to {found.after.id[:8]}")
        table(("", "kind", "name", "what"), [row for part in CHANGES for row in _rows(part, found.diff.get(part, []))],
              empty="nothing changed")  # fmt: skip
        for reason in found.breaking:
            say(f"! breaking: {reason}")
    return 1 if found.changed else 0


def _rows(part: str, changes: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [CHANGES[part], item["kind"], item["name"], "; ".join(
            f"{field}: {common.short(values['before'], 40)} → {common.short(values['after'], 40)}"
            for field, values in item.get("fields", {}).items()
        )]
        for item in changes
    ]  # fmt: skip
