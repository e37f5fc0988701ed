"""``task history|diff|rollback``: versions of a task. (spec 1.1)"""

from __future__ import annotations

import json
from typing import Any

import click

from taskcenter_console.terminal import emit, moment, say

from . import common
from .common import Out, output
from .showing import CHANGES, show_list, tell

__all__ = ["diff", "history", "rollback"]


@click.command()
@click.argument("name", metavar="TASK")
@output
def history(name: str, out: Out) -> None:
    """List the revisions of a task: when, who and why, newest first."""
    from taskcenter_console.services import history as service

    with common.open_center() as center:
        rows = service.revisions(center, name)
    show_list(
        out,
        rows,
        name=lambda row: str(row["revision"]),
        columns=("revision", "at", "by", "what"),
        cells=lambda row: [row["revision"], moment(row["createdAt"]), row["createdBy"], row["reason"]],
        empty="no revisions",
    )


@click.command()
@click.argument("name", metavar="TASK")
@click.argument("old", metavar="[FROM]", type=click.IntRange(1), required=False)
@click.argument("new", metavar="[TO]", type=click.IntRange(1), required=False)
@output
def diff(name: str, old: int | None, new: int | None, out: Out) -> int:
    """Show what differs between two revisions, field by field; by default the last change. Exit code 1 when they do."""
    from taskcenter_console.services import revisions as service

    with common.open_center() as center:
        old, new, found = service.diff(center, name, old, new)
    if out.json:
        emit({"from": old, "to": new, "items": [item.to_dict() for item in found]})
    elif not found:
        say(f"revisions {old} and {new} are the same")
    else:
        if not out.quiet:
            say(f"from revision {old} to {new}")
        for item in found:
            values = {"added": (item.after,), "removed": (item.before,)}.get(item.kind, (item.before, item.after))
            say(f"{CHANGES[item.kind]} {item.path}: {' → '.join(_shown(value) for value in values)}")
    return 1 if found else 0


def _shown(value: Any) -> str:
    return common.short(value, 300) or json.dumps(value)


@click.command()
@click.argument("name", metavar="TASK")
@click.argument("revision", type=click.IntRange(1))
@click.option("--reason", metavar="TEXT", default="", help="Why; stands in the audit and with the revision.")
@output
def rollback(name: str, revision: int, reason: str, out: Out) -> None:
    """Make the definition of an old revision the newest, as a revision of its own."""
    from taskcenter_console.services import revisions as service
    from taskcenter_console.services import tasks

    with common.open_center() as center, common.stdout_kept():
        saved = service.rollback(center, name, revision, common.caller(), reason=reason)
        data = tasks.details(center, saved.slug) if out.json else {}
    done = f"● {saved.deployment_name} is as it was in revision {revision} (now revision {saved.revision})"
    tell(out, data, str(saved.revision), done)
