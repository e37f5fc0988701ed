"""``taskcenter run``: ask for a run and watch it, or leave it to itself."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from taskcenter.errors import Problem, ServerAway, ValidationFailed
from taskcenter_console.terminal import emit, is_terminal, moment, note, say

from . import common
from .choices import Choices, choices
from .common import Out, output

if TYPE_CHECKING:
    from taskcenter_console.services.center import Center

__all__ = ["parse_time", "run"]

_LARGE = 500_000
"""Characters of a payload that are not sent through the service, whose requests have a limit."""


def parse_time(text: str | None, option: str) -> datetime | None:
    """An ISO 8601 time; without an offset it is UTC."""
    from datetime import UTC

    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        said = f"{text!r} is not a time: write it as 2026-01-31T06:30 (UTC) or 2026-01-31T06:30+01:00"
        raise ValidationFailed(option, [Problem("not_time", "", said)]) from None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


@click.command()
@click.argument("name", metavar="TASK")
@choices
@click.option("--dry-run", is_flag=True, help="Let the worker give the plan; nothing is executed.")
@click.option("--at", metavar="ISO", help="Start at this time (UTC unless it names an offset); implies --no-wait.")
@click.option(
    "--wait/--no-wait",
    " /--detach",
    default=None,
    help="Watch until the run is over, or return as soon as it is asked for. Default: --wait.",
)
@click.option("--yes", is_flag=True, help="Confirm a task that asks for a confirmation.")
@click.option(
    "--batch",
    metavar="FILE",
    help="Run it once for each set of arguments in a JSON, .jsonl, .csv or YAML file (- is stdin: JSON); what "
    "--payload and --set say is for all of them. --dry-run says what would be done.",
)
@click.option(
    "--parallel",
    type=click.IntRange(-1, 128),
    metavar="N",
    help="Of a batch: runs at once. Default: 0, as many as there are CPUs; -1: 128.",
)
@click.option("--stop-on-error", is_flag=True, help="Of a batch: after a failed item no further one starts.")
@output
def run(
    name: str, chosen: Choices, dry_run: bool, at: str | None, wait: bool | None, yes: bool, batch: str | None,
    parallel: int | None, stop_on_error: bool, out: Out,
) -> int:  # fmt: skip
    """Run a task and watch it; the exit code is 1 when the run does not succeed.

    Ctrl-C ends the watching and not the run.
    """
    if batch is not None:
        if at is not None:
            raise click.UsageError("--at is for one run; a batch starts now.")
        from .batch import run_batch

        return run_batch(
            name, chosen, batch, parallel=parallel or 0, stop_on_error=stop_on_error, dry_run=dry_run,
            wait=wait is not False, yes=yes, out=out,
        )  # fmt: skip
    if parallel is not None or stop_on_error:
        raise click.UsageError("--parallel and --stop-on-error belong to --batch FILE.")
    when = parse_time(at, "--at")
    asked = _asked(name, chosen, dry_run, when, yes, out)
    leaves = not (wait if wait is not None else when is None)
    if asked is not None:
        if leaves and _told_by_service(asked, out):
            return 0
        _give_way()
    with common.open_center() as center:
        run_id = str(asked["id"]) if asked else _started(center, name, chosen, dry_run, when, yes, out)
        return _detached(center, run_id, out) if leaves else _watched(center, run_id, dry_run, out)


def _give_way() -> None:
    """What watches needs much to be loaded, at the very moment in which the run begins."""
    with contextlib.suppress(AttributeError, OSError):
        os.nice(10)


def _asked(
    name: str, chosen: Choices, dry_run: bool, when: datetime | None, confirm: bool, out: Out
) -> dict[str, Any] | None:
    """The run, made by the service of this machine, which has everything loaded; None when it did not make one."""
    settings = common.settings()
    common.refuse_remote(settings)
    if len(json.dumps(chosen.payload)) > _LARGE:
        return None
    from .asking import ask_for_run

    body = {"payload": chosen.payload, "options": chosen.given, "dryRun": dry_run, "confirm": confirm}
    return ask_for_run(settings, name, {**body, "at": when.isoformat() if when else None})


def _started(
    center: Center, name: str, chosen: Choices, dry_run: bool, when: datetime | None, yes: bool, out: Out
) -> str:
    """The run's id, made in this process, where a person can be asked back."""
    from taskcenter.options import RunOptions
    from taskcenter_console.services import runs as service
    from taskcenter_console.services import tasks as task_service

    task = task_service.get(center, name)
    payload = _complete(task, chosen.payload, out)
    confirmed = yes or dry_run or _confirm(task, out)
    options = chosen.options() or RunOptions()
    with common.stdout_kept():
        made = service.start(
            center, task.slug, common.caller(), payload=payload, dry_run=dry_run, at=when, confirm=confirmed,
            options=options,
        )  # fmt: skip
    return made.id


def _complete(task: Any, payload: dict[str, Any] | None, out: Out) -> dict[str, Any] | None:
    """Ask for required fields that nobody has given, when a person is there to answer."""
    if task.task_type == "composite" or not common.can_ask(out):
        return payload
    merged = {**task.payload, **(payload or {})}
    from taskcenter.task_types import registry

    asked = common.ask_missing(registry.find(task.task_type), merged)
    return {**(payload or {}), **asked} if asked else payload


def _confirm(task: Any, out: Out) -> bool:
    return bool(task.danger) and common.can_ask(out) and click.confirm(f"{task.danger} Run {task.slug}?", err=True)


def _told_by_service(run: dict[str, Any], out: Out) -> bool:
    """Say what was asked for without loading what only watching needs; False when the service is gone meanwhile."""
    if out.json:
        from .asking import ask_for_details

        details = ask_for_details(common.settings(), str(run["id"]))
        if details is None:
            return False
        emit(details)
        return True
    slot = run.get("slot")
    _say_queued(str(run["id"]), run.get("name") or "", datetime.fromisoformat(slot) if slot else None, out)
    return True


def _detached(center: Center, run_id: str, out: Out) -> int:
    from taskcenter_console.services import runs as service

    if out.json:
        emit(service.details(center, run_id))
    else:
        made = service.get(center, run_id)
        _say_queued(run_id, made.name, made.slot, out)
    return 0


def _say_queued(run_id: str, name: str, slot: datetime | None, out: Out) -> None:
    if out.quiet:
        say(run_id)
        return
    start = f", starts {moment(slot)}" if slot else ""
    say(f"· run {name or run_id} is queued{start}\n  follow it with: taskcenter runs logs -f {run_id[:8]}")


def _watched(center: Center, run_id: str, dry_run: bool, out: Out) -> int:
    from taskcenter.status import RunStatus
    from taskcenter_console.services import runs as service

    from .watching import watch

    try:
        if out.json or out.quiet:
            ended = service.wait(center, run_id)
        else:
            ended = watch(center, run_id, live=is_terminal(), lines=dry_run)
    except ServerAway:
        note("not watching any more: Task Center's database went away. The run itself may go on or be closed as lost.")
        raise
    except KeyboardInterrupt:
        note(f"\nnot watching any more; the run goes on. Follow it with: taskcenter runs logs -f {run_id[:8]}")
        raise
    if out.json:
        emit(service.details(center, run_id))
    elif out.quiet:
        say(run_id)
    return 0 if ended.status is RunStatus.SUCCESS else 1
