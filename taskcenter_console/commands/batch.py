"""``taskcenter run TASK --batch FILE`` and ``taskcenter batch``: one task with many sets of arguments. (spec 1.4)"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from taskcenter_console.terminal import brief, emit, mark, moment, note, say, span, table

from . import common
from .common import Out, output
from .showing import show_list

if TYPE_CHECKING:
    from taskcenter_console.services.batching import BatchRequest
    from taskcenter_console.services.center import Center

    from .choices import Choices

__all__ = ["batch", "run_batch"]

_EVERY = 0.5
_PATIENCE = 8.0
"""Seconds without any run after which it is said what may be missing."""
_SHOWN = 10
"""Errors that are told."""
_WORDS = {"notStarted": "not started"}


def run_batch(
    name: str, chosen: Choices, file: str, *, parallel: int, stop_on_error: bool, dry_run: bool, wait: bool, yes: bool,
    out: Out,
) -> int:  # fmt: skip
    """Ask for a batch and watch it to its end; with ``dry_run`` say what it would do. Gives the exit code."""
    from taskcenter.options import RunOptions
    from taskcenter_console.services import batching
    from taskcenter_console.services.batching import BatchRequest

    from .batch_file import read_items

    items, places = read_items(file)
    wanted = BatchRequest(
        items, chosen.payload or {}, chosen.options() or RunOptions(), parallel, stop_on_error, tuple(places)
    )
    with common.open_center() as center:
        if dry_run:
            return _planned(center, name, wanted, out)
        confirmed = yes or _confirm(center, name, len(items), out)
        with common.stdout_kept():
            made = batching.start(center, name, wanted, common.caller(), confirm=confirmed)
        if wait:
            return _watched(center, made.id, out)
        if out.json:
            emit(batching.details(center, made.id))
        elif out.quiet:
            say(made.id)
        else:
            say(f"· batch {made.id[:8]} of {made.task_slug}: {len(made.items)} runs, {made.parallel} at once")
            say(f"  look at it with: taskcenter batch show {made.id[:8]}")
        return 0


def _confirm(center: Center, name: str, count: int, out: Out) -> bool:
    from taskcenter_console.services import tasks as task_service

    task = task_service.get(center, name)
    asked = bool(task.danger) and common.can_ask(out)
    return asked and click.confirm(f"{task.danger} Run {task.slug} {count} times?", err=True)


def _planned(center: Center, name: str, wanted: BatchRequest, out: Out) -> int:
    from taskcenter_console.services import batching

    with common.stdout_kept():
        made = batching.plan(center, name, wanted)
    if out.json:
        emit(made)
    elif out.quiet:
        for item in made["items"]:
            if not item["ok"]:
                say(str(item["item"]))
    else:
        stops = ", stops on an error" if made["stopOnError"] else ""
        say(f"Batch of {made['task']}: {made['total']} runs, {made['parallel']} at once{stops}")
        for text in filter(None, [made["danger"]]):
            say(f"  ! {text}")
        rows = [[item["item"], mark("ok" if item["ok"] else "failed"), _told(item)] for item in made["items"]]
        table(("item", "check", "what it would do"), rows)
        for problem in made["problems"]:
            note(f"{problem['path']}: {problem['message']}" if problem["path"] else problem["message"])
    return 2 if made["problems"] else 0


def _told(item: dict[str, Any]) -> str:
    return "; ".join(filter(None, [item["summary"], *item["danger"]]))


def _watched(center: Center, batch_id: str, out: Out) -> int:
    """A line for each item that ends, then what it came to."""
    from taskcenter_console.services import batching

    told: set[int] = set()
    began = time.monotonic()
    quietly = out.json or out.quiet
    try:
        while True:
            made = batching.details(center, batch_id)
            for item in made["items"]:
                if not quietly and item["item"] not in told and item["status"] in ("success", "failed", "cancelled"):
                    told.add(item["item"])
                    say(_line(item))
            if made["closedAt"] is not None:
                break
            if not told and not quietly and time.monotonic() - began > _PATIENCE and made["counts"]["waiting"]:
                _say_waiting(center, made)
                began = float("inf")
            time.sleep(_EVERY)
    except KeyboardInterrupt:
        note(f"\nnot watching any more; the batch goes on. Look with: taskcenter batch show {batch_id[:8]}")
        raise
    if out.json:
        emit(batching.details(center, batch_id))
    elif out.quiet:
        say(batch_id)
    else:
        _say_sum(made)
    return 0 if made["status"] == "success" else 1


def _say_waiting(center: Center, made: dict[str, Any]) -> None:
    from taskcenter_console.services import scheduler

    if scheduler.state(center).leader is None:
        note("its runs are made by the service, and none leads the scheduler now; start one with: taskcenter up")
    elif made["counts"]["queued"]:
        note("its runs wait; why: taskcenter queue list")


def _line(item: dict[str, Any]) -> str:
    took = span(item["durationMs"]) if item["durationMs"] is not None else ""
    run = f"run {item['runId'][:8]}" if item["runId"] else ""
    said = (item["error"] or item["message"] or "").partition("\n")[0][:100]
    return "  ".join(part for part in (f"{mark(item['status'])}: item {item['item']}", took, run, said) if part)


def _say_sum(made: dict[str, Any]) -> None:
    counts = ", ".join(f"{count} {_WORDS.get(name, name)}" for name, count in made["counts"].items() if count)
    say(f"{mark(made['status'])}: batch {made['id'][:8]} of {made['task']}, {made['total']} items: {counts}")
    if made["stopped"]:
        say(f"  {made['stopped']}")
    for error in made["errors"][:_SHOWN]:
        more = f" and {error['count'] - len(error['items'])} more" if error["count"] > len(error["items"]) else ""
        which = ", ".join(map(str, error["items"]))
        say(f"  {error['count']} × {error['error']} (item{'s' if error['count'] > 1 else ''} {which}{more})")
    if len(made["errors"]) > _SHOWN:
        say(f"  and {len(made['errors']) - _SHOWN} other errors")


@click.group()
def batch() -> None:
    """Batches of runs: list, show, cancel. One is started with: taskcenter run TASK --batch FILE.

    A batch is named by its id or the first characters of it.
    """


@batch.command("list")
@click.option("--task", metavar="TASK", help="Only batches of this task.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="How many at most.")
@click.option("--offset", type=click.IntRange(0), default=0, help="How many to leave out first.")
@output
def list_batches(task: str | None, limit: int, offset: int, out: Out) -> None:
    """List batches, newest first."""
    from taskcenter_console.services import batching

    with common.open_center() as center:
        found = batching.list_batches(center, task=task, limit=limit, offset=offset)
    show_list(
        out,
        found,
        name=lambda item: str(item["id"]),
        columns=("batch", "task", "status", "items", "success", "failed", "at once", "asked for", "by"),
        cells=lambda item: [item["id"][:8], item["task"], mark(item["status"]), item["total"],
                            item["counts"]["success"], item["counts"]["failed"], item["parallel"],
                            brief(item["createdAt"]), item["createdBy"]],
        empty="no batches yet; start one with: taskcenter run TASK --batch FILE",
    )  # fmt: skip


@batch.command()
@click.argument("batch_id", metavar="BATCH")
@click.option("--results", is_flag=True, help="With --json: what each run has given, too.")
@output
def show(batch_id: str, results: bool, out: Out) -> int:
    """Show a batch: its items, each with its run, and what it came to. The exit code is 1 when something failed."""
    from taskcenter_console.services import batching

    with common.open_center() as center:
        made = batching.details(center, batch_id, results=results)
    if out.json:
        emit(made)
    elif out.quiet:
        say(made["id"])
    else:
        rows = [[item["item"], mark(item["status"]), (item["runId"] or "")[:8], span(item["durationMs"]),
                 common.short(item["arguments"], 60), (item["error"] or item["message"] or "").partition("\n")[0][:80]]
                for item in made["items"]]  # fmt: skip
        table(("item", "status", "run", "took", "arguments", "message"), rows)
        say(f"asked for {moment(made['createdAt'])} by {made['createdBy']}, {made['parallel']} at once")
        _say_sum(made)
    return 1 if made["status"] in ("failed", "cancelled") or made["counts"]["failed"] else 0


@batch.command()
@click.argument("batch_id", metavar="BATCH")
@click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the audit and in the runs' messages.")
@output
def cancel(batch_id: str, reason: str, out: Out) -> None:
    """Cancel a batch: no further item starts, and the runs on their way are cancelled."""
    from taskcenter_console.services import batching

    with common.open_center() as center:
        asked = batching.cancel(center, batch_id, common.caller(), reason=reason)
        made = batching.details(center, batch_id)
    if out.json:
        emit(made)
    elif out.quiet:
        say(made["id"])
    else:
        say(f"batch {made['id'][:8]} of {made['task']}: {made['counts']['notStarted']} items never start, "
            f"{len(asked)} runs are cancelled")  # fmt: skip
