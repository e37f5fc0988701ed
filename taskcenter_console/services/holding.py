"""Legal holds as people name them: by slug or the beginning of a run's id; stored are whole ids. (spec 6.5)"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from retention import history
from retention.policy import Hold
from taskcenter.clock import utc_now
from taskcenter.errors import NotFound, Refused
from taskcenter.models import Task

from . import tasks
from .center import Caller, Center

__all__ = ["named", "put_on", "refuse_if_held", "taken_off", "words"]


def named(name: str, note: str = "") -> Hold:
    """The hold that ``NAME`` of a task, or ``run:ID``, asks for."""
    kind, _, run = name.partition(":")
    return Hold(run=run, note=note) if kind == "run" and run else Hold(task=name, note=note)


def put_on(center: Center, hold: Hold, caller: Caller) -> Hold:
    """As it is stored: on the id of what it names, with who put it on and when. Raises NotFound."""
    return _with_id(center, hold).model_copy(update={"by": hold.by or caller.actor, "since": hold.since or utc_now()})


def _with_id(center: Center, hold: Hold) -> Hold:
    if hold.task is not None:
        return hold.model_copy(update={"task": tasks.get(center, hold.task).id})
    return hold.model_copy(update={"run": center.store.get_run(hold.run or "").id})


def taken_off(center: Center, holds: Sequence[Hold], name: str) -> list[Hold]:
    """The holds without the one on ``name``. Raises NotFound when there is none."""
    asked = named(name)
    meant = {(asked.task, asked.run)}
    with contextlib.suppress(NotFound):  # a hold may outlive what it names
        found = _with_id(center, asked)
        meant.add((found.task, found.run))
    left = [hold for hold in holds if (hold.task, hold.run) not in meant]
    if len(left) == len(holds):
        raise NotFound(f"there is no legal hold on {name!r}: taskcenter retention show lists them", name=name)
    return left


def words(center: Center, hold: Hold) -> str:
    """What it stands on, as people name it."""
    if hold.task is not None:
        task = center.store.find_task(hold.task)
        return f"task {task.slug if task else hold.task}"
    run = center.store.find_run(hold.run or "")
    return f"run {run.id[:8]} of {run.task_slug}" if run else f"run {hold.run}"


def refuse_if_held(center: Center, task: Task) -> None:
    """Raises Refused when a hold names the task or one of its runs: they would go with it."""
    for hold in history.read(center.store).holds:
        run = center.store.find_run(hold.run) if hold.run is not None else None
        if hold.task in (task.id, task.slug) or (run is not None and run.task_id == task.id):
            note = f" ({hold.note})" if hold.note else ""
            raise Refused(
                f"{task.slug} cannot be deleted: there is a legal hold on {words(center, hold)}{note}. "
                f"Take it off first: taskcenter retention set --release {f'run:{hold.run}' if hold.run else task.slug}"
            )
