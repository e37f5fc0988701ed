"""``taskcenter runs``: what ran, how it went, what it said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskcenter_console.terminal import GLYPHS, brief, emit, mark, moment, note, say, span, table

from . import common
from .common import Out, output
from .showing import show_list

if TYPE_CHECKING:
    from taskcenter.models import LogLine, Run

__all__ = ["runs", "say_run"]


_CANCEL_SECONDS = 30.0
"""How long ``cancel`` waits: the grace of ten seconds, what comes after it, and a busy machine."""


@click.group()
def runs() -> None:
    """List runs, show one, read its log, cancel it, hold it and let it go on.

    A run is named by its id or the first characters of it.
    """


@runs.command("list")
@click.option("--task", metavar="TASK", help="Only runs of this task.")
@click.option("--status", metavar="STATUS", help="Only queued, running, success, failed or cancelled ones.")
@click.option("--search", metavar="TEXT", help="Only runs with this text in the task's or their own name.")
@click.option("--since", metavar="ISO", help="Only runs asked for from this time on (UTC unless it names an offset).")
@click.option("--until", metavar="ISO", help="Only runs asked for before this time.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="How many at most.")
@click.option("--cursor", metavar="CURSOR", help="Go on where a list before ended (its nextCursor).")
@output
def list_runs(
    task: str | None, status: str | None, search: str | None, since: str | None, until: str | None, limit: int,
    cursor: str | None, out: Out,
) -> None:  # fmt: skip
    """List runs, newest first."""
    from taskcenter_console.services import runs as service

    from .running import parse_time

    narrowed = any((task, status, search, since, until, cursor))
    with common.open_center() as center:
        page = service.list_runs(
            center, task=task, status=status, search=search, since=parse_time(since, "--since"),
            until=parse_time(until, "--until"), limit=limit, cursor=cursor,
        )  # fmt: skip
    read = show_list(
        out,
        page.items,
        name=lambda run: str(run.id),
        columns=("run", "task", "status", "origin", "asked for", "took", "message"),
        cells=_cells,
        empty="no run is like that" if narrowed else "no runs yet; start one with: taskcenter run TASK",
        nextCursor=page.next_cursor,
    )
    if read and page.next_cursor:
        note(f"there are more: --cursor {page.next_cursor}")


def _cells(run: Run) -> list[Any]:
    task = f"{run.task_slug}{' (dry run)' if run.dry_run else ''}"
    return [run.id[:8], task, mark(run.status.value), run.origin.value, brief(run.created_at), span(run.duration_ms),
            _first(run.message)]  # fmt: skip


def _first(text: str | None) -> str:
    line = (text or "").partition("\n")[0]
    return line if len(line) <= 80 else line[:79] + "…"


@runs.command()
@click.argument("run_id", metavar="RUN")
@output
def show(run_id: str, out: Out) -> None:
    """Show one run: how it stands, its steps and its result."""
    from taskcenter_console.services import runs as service

    with common.open_center() as center:
        data = service.details(center, run_id)
    if out.json:
        emit(data)
    elif out.quiet:
        say(data["id"])
    else:
        say_run(data)


def say_run(data: dict[str, Any]) -> None:
    """A run as ``services.runs.details`` gives it, in words."""
    phase = f" ({data['phase']})" if data["phase"] else ""
    attempt = f"{data['attempt']} of {data['totalAttempts']}" if data["totalAttempts"] > 1 else None
    facts = {
        "run": f"{data['id']} {data['name']}",
        "task": f"{data['taskType']}/{data['taskSlug']}" + (" (dry run)" if data["dryRun"] else ""),
        "revision": data["taskRevision"],
        "status": mark(data["status"]) + phase,
        "origin": data["origin"],
        "attempt": attempt,
        "resumed": data["resumedFrom"],
        "slot": moment(data["slot"]) if data["slot"] else None,
        "asked for": moment(data["createdAt"]),
        "started": moment(data["startedAt"]) if data["startedAt"] else None,
        "took": span(data["durationMs"]) if data["durationMs"] is not None else None,
        "message": data["message"],
        "error": data["error"] if data["error"] != data["message"] else None,
        "plan": data["planHash"],
        "Prefect": data["prefectUrl"],
    }
    for label, value in facts.items():
        if value:
            say(f"{label:11s}{value}")
    for item in data["progress"]:
        if text := _progress(item):
            say(f"{'progress':11s}{text}")
    steps = data["steps"]
    if steps:
        say()
        columns = ("step", "type", "status", "tries", "took", "why")
        table(columns, [_step_row(step) for step in steps])
    if data["dryRun"] and data["result"] is not None:
        say(f"{'result':11s}a plan; it stands in the log: taskcenter runs logs {data['id'][:8]}")
    elif data["result"] is not None and not steps:
        say(f"{'result':11s}{common.short(data['result'], 2000)}")


def _progress(item: dict[str, Any]) -> str:
    """Such as ``load: 40 % 4,000 rows, 210.5 a second, 30 s left``."""
    parts = [f"{item['percent']:.0f} % {item['message']}".rstrip()] if item["percent"] is not None else []
    if item["rate"] is not None:
        parts.append(f"{item['rate']:.1f}{' %' if item['done'] is None else ''} a second")
    if item["leftSeconds"] is not None:
        low, high = (span(seconds * 1000) for seconds in item["leftSeconds"])
        band = low if low == high else f"{low} to {high}"
        parts.append(f"{band} left" + (" by earlier runs" if item["by"] == "earlier runs" else ""))
    if item["overdue"]:
        parts.append("overdue")
    head = f"{item['stepKey']}: " if item["stepKey"] else ""
    return head + ", ".join(parts) if parts else ""


def _step_row(step: dict[str, Any]) -> list[Any]:
    reused = " (reused)" if step["reused"] else ""
    took = span(step["durationMs"])
    return [step["stepKey"], step["taskType"], mark(step["status"]) + reused, step["attempts"], took,
            _first(step["error"] or step["reason"])]  # fmt: skip


@runs.command()
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the audit and in the run's message.")
@click.option("--wait/--no-wait", default=True, help="Wait until all of it is gone. Default: --wait.")
@output
def cancel(run_ids: tuple[str, ...], reason: str, wait: bool, out: Out) -> int:
    """Cancel runs: one that waits at once, one at work with all its processes. One that is over stays as it is."""
    from taskcenter.status import TERMINAL_RUN
    from taskcenter_console.services import cancelling
    from taskcenter_console.services import runs as service

    with common.open_center() as center:
        found = [service.get(center, run_id).id for run_id in run_ids]
        asked = [cancelling.cancel(center, run_id, common.caller(), reason=reason) for run_id in found]
        if wait:
            asked = [service.wait(center, run.id, timeout=_CANCEL_SECONDS) for run in asked]
    _say_each(asked, out)
    return 1 if wait and any(run.status not in TERMINAL_RUN for run in asked) else 0


def _say_each(changed: list[Run], out: Out) -> None:
    if out.json:
        emit({"items": [run.to_json() for run in changed]})
        return
    for run in changed:
        if out.quiet:
            say(run.id)
        else:
            phase = f" ({run.phase.value})" if run.phase else ""
            say(f"{run.id[:8]}  {run.task_slug}  {mark(run.status.value)}{phase}  {_first(run.message)}")


@runs.command()
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the audit and in the run's message.")
@output
def pause(run_ids: tuple[str, ...], reason: str, out: Out) -> None:
    """Hold runs at work: their processes stand still, no new step starts, no time-out counts."""
    from taskcenter_console.services import pausing

    with common.open_center() as center:
        _say_each([pausing.pause(center, run_id, common.caller(), reason=reason) for run_id in run_ids], out)


@runs.command("continue")
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the audit.")
@output
def continue_runs(run_ids: tuple[str, ...], reason: str, out: Out) -> None:
    """Let held runs go on where they were."""
    from taskcenter_console.services import pausing

    with common.open_center() as center:
        _say_each([pausing.proceed(center, run_id, common.caller(), reason=reason) for run_id in run_ids], out)


@runs.command()
@click.argument("run_id", metavar="RUN")
@click.option("--yes", is_flag=True, help="Confirm a task that asks for a confirmation.")
@output
def retry(run_id: str, yes: bool, out: Out) -> None:
    """Run the same again, with the same payload and choices: a new run that names the old one."""
    from taskcenter_console.services import repeating

    with common.open_center() as center:
        _say_each([repeating.retry(center, run_id, common.caller(), confirm=yes)], out)


@runs.command()
@click.argument("run_id", metavar="RUN")
@click.option("--from", "step", metavar="STEP", help="Run this step and all after it again, whatever they were.")
@click.option("--yes", is_flag=True, help="Confirm a task that asks for a confirmation.")
@output
def resume(run_id: str, step: str | None, yes: bool, out: Out) -> None:
    """Run a composite on from where it failed: results of steps that succeeded are used again."""
    from taskcenter_console.services import repeating

    with common.open_center() as center:
        _say_each([repeating.resume(center, run_id, common.caller(), step=step, confirm=yes)], out)


@runs.command()
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@output
def compare(first: str, second: str, out: Out) -> int:
    """Say what is different between two runs; the exit code is 1 when something is."""
    from taskcenter_console.services import repeating

    with common.open_center() as center:
        found = repeating.compare(center, first, second)
    if out.json:
        emit(found)
    elif out.quiet:
        for item in found["differences"]:
            say(item["what"])
    else:
        columns = ("what", found["runs"][0]["id"][:8], found["runs"][1]["id"][:8])
        rows = [
            [item["what"], common.short(item["first"]), common.short(item["second"])] for item in found["differences"]
        ]
        table(columns, rows, empty="both runs went the same way")
    return 1 if found["differences"] else 0


@runs.command()
@click.argument("run_id", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run is over.")
@click.option("--after", type=int, default=-1, metavar="N", help="Only lines after this sequence number.")
@click.option("--step", metavar="STEP", help="Only lines of this step.")
@output
def logs(run_id: str, follow: bool, after: int, step: str | None, out: Out) -> int:
    """Print the log of a run. With --json one JSON object per line; with -f the exit code is the run's."""
    from taskcenter.status import RunStatus
    from taskcenter_console.services import runs as service

    with common.open_center() as center:
        run_id = service.get(center, run_id).id
        lines = service.follow(center, run_id) if follow else service.all_logs(center, run_id)
        for line in lines:
            if line.sequence > after and (step is None or line.step_key == step):
                _say_line(line, out)
        status = service.get(center, run_id).status
    return 1 if follow and status in (RunStatus.FAILED, RunStatus.CANCELLED) else 0


def _say_line(line: LogLine, out: Out) -> None:
    import json
    import sys

    if out.json:
        click.echo(json.dumps(line.to_json(), default=str))
    elif out.quiet:
        say(line.message)
    else:
        level = {"warning": "! ", "error": f"{GLYPHS['failed']} "}.get(line.level, "")
        where = f"[{line.step_key}] " if line.step_key else ""
        say(f"{line.time.astimezone():%H:%M:%S} {where}{level}{line.message}")
    sys.stdout.flush()
