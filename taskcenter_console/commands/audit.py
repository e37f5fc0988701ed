"""``taskcenter audit``: who did what, and whether the record of it is whole."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from taskcenter_console.terminal import brief, emit, moment, note, say, table

from . import common
from .common import Out, output
from .running import parse_time
from .showing import show_list, tell

if TYPE_CHECKING:
    from taskcenter.models import AuditRecord

__all__ = ["audit"]


@click.group()
def audit() -> None:
    """Who did what to what, when and from where; and whether all of it still stands as it was written."""


@audit.command("list")
@click.option("--task", metavar="TASK", help="Only of this task; of a deleted one by its id.")
@click.option("--run", metavar="RUN", help="Only of this run.")
@click.option("--type", "event_type", metavar="TYPE", help="Only of this type, such as task_updated.")
@click.option("--actor", metavar="WHO", help="Only what this one did.")
@click.option("--channel", type=click.Choice(["ui", "api", "cli", "prefect", "system"]), help="Only through this door.")
@click.option("--result", type=click.Choice(["ok", "refused", "failed"]), help="Only ones that ended so.")
@click.option("--since", metavar="ISO", help="Only from this time on.")
@click.option("--until", metavar="ISO", help="Only before this time.")
@click.option("--before", type=int, metavar="N", help="Only entries with a smaller number: the next page.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="How many at most.")
@output
def list_entries(
    task: str | None, run: str | None, since: str | None, until: str | None, out: Out, **exact: Any
) -> None:
    """List entries, newest first."""
    from taskcenter.ports import AuditFilter
    from taskcenter_console.services import auditing

    where = AuditFilter(since=parse_time(since, "--since"), until=parse_time(until, "--until"), **exact)
    with common.open_center() as center:
        found = auditing.page(center, where, task=task, run=run)
    read = show_list(
        out,
        found,
        name=lambda entry: entry.id,
        columns=("no", "when", "who", "door", "what", "object", "message"),
        cells=_cells,
        empty="no entries",
    )
    if read and len(found) == where.limit:
        note(f"there may be more: --before {found[-1].sequence}")


def _cells(entry: AuditRecord) -> list[Any]:
    return [entry.sequence, brief(entry.created_at), entry.actor, entry.channel, entry.event_type, entry.object,
            entry.message.partition("\n")[0][:80]]  # fmt: skip


@audit.command()
@click.argument("entry", metavar="ENTRY")
@output
def show(entry: str, out: Out) -> None:
    """Show one entry, by its id or its number: what was before and after, and its place in the chain."""
    from taskcenter_console.services import auditing

    with common.open_center() as center:
        found = auditing.show(center, entry)
    if out.json:
        emit(found.to_json())
    elif out.quiet:
        say(found.id)
    else:
        _say_entry(found)


def _say_entry(entry: AuditRecord) -> None:
    place = f"{entry.position}, {entry.hash}" if entry.hash else "not sealed yet"
    facts = {
        "entry": f"{entry.sequence} {entry.id}",
        "what": f"{entry.event_type} ({entry.result})",
        "object": entry.object,
        "who": f"{entry.actor} by {entry.channel}" + (f" from {entry.address}" if entry.address else ""),
        "when": moment(entry.created_at),
        "task": entry.task_id,
        "run": entry.run_id,
        "message": entry.message,
        "data": common.short(entry.metadata, 2000) if entry.metadata else None,
        "chain": place,
    }
    for label, value in facts.items():
        if value:
            say(f"{label:11s}{value}")
    before, after = entry.before or {}, entry.after or {}
    changed = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    if changed:
        say()
        rows = [[name, common.short(before.get(name)), common.short(after.get(name))] for name in changed]
        table(("field", "before", "after"), rows)


@audit.command()
@click.option("-o", "--output", "file", metavar="FILE", help="Write to this file. Default: stdout.")
@output
def export(file: str | None, out: Out) -> None:
    """Take the whole audit out as a file that can be verified anywhere: one JSON object per line."""
    from taskcenter_console.services import auditing

    with common.open_center() as center:
        lines = auditing.export(center, common.caller())
        if file is None or file == "-":
            sys.stdout.flush()
            for line in lines:
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return
        count = -2  # the first and the last line are no entries
        with common.whole_file(file, mode=0o600) as sink:  # who did what is not for everybody on this machine
            for line in lines:
                sink.write(line)
                count += 1
    tell(out, {"file": file, "entries": count}, file, f"● {count} entries in {file}")


@audit.command()
@click.argument("source", metavar="[SOURCE]", required=False)
@click.option("--expect", multiple=True, metavar="POSITION:HASH", help="A head that was noted earlier. Repeatable.")
@output
def verify(source: str | None, expect: tuple[str, ...], out: Out) -> int:
    """Find every entry that was changed, removed, put in or moved; the exit code is 1 when there is one.

    SOURCE is a SQLite file, a database address or an exported file, and needs no running center. Without it the
    center's own audit is sealed up to now and verified.
    """
    from taskcenter_console.services import auditing

    expected = auditing.expected_of(expect)
    if source is None:
        with common.open_center() as center:
            report = auditing.verify(center, expected)
    else:
        report = auditing.verify_source(source, expected)
    if out.json:
        emit(report.to_dict())
        return 0 if report.ok else 1
    for finding in report.findings:
        where = f"position {finding.position}: " if finding.position is not None else ""
        say(f"✗ {where}{finding.message}" if not out.quiet else f"{finding.position or '-'}")
    if not out.quiet:
        purged = f", {report.purged} purged by retention" if report.purged else ""
        say(f"{'●' if report.ok else '✗'} {report.entries} entries{purged}, {len(report.findings)} findings")
        if report.unsealed:
            note(f"{report.unsealed} entries have no place in the chain yet: nothing is said about them")
        say(f"head  {report.head.position}:{report.head.hash}")
    return 0 if report.ok else 1
