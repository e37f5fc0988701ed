"""``taskcenter queue`` and ``taskcenter workers``: what waits, and who executes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskcenter_console.terminal import brief, emit, mark, say, span, table

from . import common
from .common import Out, output
from .showing import show_list, tell

if TYPE_CHECKING:
    from taskcenter.scheduling.state import Limits

__all__ = ["queue", "workers"]


@click.group()
def queue() -> None:
    """Show what waits for a worker, and let a run go first."""


@queue.command("list")
@output
def list_queue(out: Out) -> None:
    """List the runs that wait, the next one first; without a place: its time has not come."""
    from taskcenter_console.services import queue as service

    with common.open_center() as center:
        found = service.listing(center)
    show_list(
        out,
        found,
        name=lambda item: item.run_id,
        columns=("place", "run", "task", "priority", "since", "waits for"),
        cells=lambda item: [item.place or "", item.run_id[:8], item.task, item.priority.value, brief(item.since),
                            item.waits_for or ""],
        empty="nothing waits",
    )  # fmt: skip


@queue.command("limits")
@output
def list_limits(out: Out) -> None:
    """List how many runs may go at once: of the pool, of a task, with a tag, on a connection."""
    from taskcenter_console.services import queue as service

    with common.open_center() as center:
        _show_limits(service.limits(center), out)


@queue.command("limit")
@click.argument("what", metavar="pool|task:NAME|tag:NAME|connection:NAME")
@click.argument("at_once", metavar="N", type=int)
@output
def set_limit(what: str, at_once: int, out: Out) -> None:
    """Let at most N runs go at once; 0 takes the limit away. Runs that are on their way go on."""
    from taskcenter_console.services import queue as service

    scope, _, name = what.partition(":")
    with common.open_center() as center:
        _show_limits(service.set_limit(center, scope, name, at_once, common.caller()), out)


def _show_limits(limits: Limits, out: Out) -> None:
    from taskcenter.scheduling.limits import limits_json

    known = limits_json(limits)
    if out.json:
        emit(known)
        return
    rows = [["pool", "", known.pop("pool") or "the places of the workers"]]
    rows += [[scope, name, number] for scope, named in known.items() for name, number in named.items()]
    table(("limit of", "name", "at once"), rows)


@queue.command()
@click.argument("run_id", metavar="RUN")
@click.option(
    "--to", type=click.Choice(["high", "normal", "low"]), default="high", show_default=True, help="Its new priority."
)
@output
def bump(run_id: str, to: str, out: Out) -> None:
    """Give a run that waits another priority."""
    from taskcenter.status import Priority
    from taskcenter_console.services import queue as service

    with common.open_center() as center:
        run = service.bump(center, run_id, Priority(to), common.caller())
    tell(out, run.to_json(), run.id, f"run {run.id[:8]} of {run.task_slug} waits with the priority {to} now")


@click.command()
@output
def workers(out: Out) -> None:
    """List the workers of the type taskcenter and their processes."""
    from taskcenter_console.services import workers as service

    with common.open_center() as center:
        found = service.listing(center)
    if out.json:
        emit({"items": found})
        return
    if out.quiet:
        for worker in found:
            say(str(worker["holder"]))
        return
    rows = []
    for worker in found:
        place = f"{worker['running']} of {worker['limit'] or 'any'}"
        rows.append([worker["name"] or worker["holder"], worker["host"], mark(worker["state"]), worker["pool"], place,
                     brief(worker["heardAt"]) if worker["heardAt"] else "", "", "", "", "", "", ""])  # fmt: skip
        for process in worker["processes"]:
            run = process["runId"][:8] if process["runId"] else ""
            memory = f"{process['memoryMb']:.0f} MB" if process["memoryMb"] is not None else ""
            which = f"{process['pid'] or ''} {run}".strip()
            age = span(process["ageSeconds"] * 1000) if process["ageSeconds"] is not None else ""
            cpu = f"{process['cpuSeconds']:.1f} s" if process["cpuSeconds"] is not None else ""
            rows.append(["", "", process["phase"] or "", "", "", "", process["role"], which, age, cpu, memory,
                         "; ".join(process["marks"])])  # fmt: skip
    columns = (
        "worker",
        "host",
        "state",
        "pool",
        "runs",
        "heard",
        "process",
        "pid, run",
        "age",
        "CPU",
        "memory",
        "look",
    )
    table(columns, rows, empty="no worker of the type taskcenter is there; taskcenter up starts one")
