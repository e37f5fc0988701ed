"""Batches: one task with many sets of arguments, asked for, looked at, cancelled. (spec 1.4)"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from taskcenter.batches import MOST_AT_ONCE, MOST_ITEMS, Batch, at_once, batch_status, summary
from taskcenter.clock import utc_now
from taskcenter.errors import NotFound, Problem, Refused, TaskCenterError, ValidationFailed
from taskcenter.models import Run, Task
from taskcenter.options import RunOptions
from taskcenter.redaction import redact, redact_text
from taskcenter.slot_reasons import iso
from taskcenter_adapter.batches import Batches

from . import cancelling, planning
from . import runs as run_service
from . import tasks as task_service
from .center import Caller, Center

__all__ = ["BatchRequest", "cancel", "details", "find", "list_batches", "plan", "start"]

_MOST_PROBLEMS: Final = 100
_MOST_PREVIEWS: Final = 100
"""Items of a plan that say what their run would do; all of them are checked."""


@dataclass(frozen=True)
class BatchRequest:
    """What is asked for. ``items`` are laid over ``payload``, both over the saved one; ``parallel``: ``at_once``."""

    items: Sequence[Any]
    payload: Mapping[str, Any] = field(default_factory=dict)
    options: RunOptions = RunOptions()
    parallel: int = 0
    stop_on_error: bool = False
    places: Sequence[str] = ()
    """Where each item stands in what it was read from, when a person would look for it there."""

    def place(self, index: int) -> str:
        return self.places[index] if index < len(self.places) else f"item {index + 1}"


def start(center: Center, name: str, wanted: BatchRequest, caller: Caller, *, confirm: bool = False) -> Batch:
    """Keep the batch and ask for its runs; returns at once. The leading service makes them, so many at once.

    Refused, with nothing made, when any item does not fit: every problem is named with the item and the field.
    """
    batches = _batches(center)
    task = task_service.get(center, name)
    run_service.confirmed(task, confirm)
    _check(center, task, wanted)
    run_service.deployment_of(center, task)
    batch = Batch(
        task_id=task.id,
        task_slug=task.slug,
        created_at=utc_now(),
        created_by=caller.actor,
        parallel=at_once(wanted.parallel, os.cpu_count()),
        stop_on_error=wanted.stop_on_error,
        items=tuple(dict(item) for item in wanted.items),
        payload=dict(wanted.payload),
        options=wanted.options,
    )
    entry = caller.entry(
        "batch_requested",
        task_id=task.id,
        object=f"batch {batch.id}",
        message=f"{len(batch.items)} runs of {task.deployment_name} were asked for, {batch.parallel} at once",
        metadata={"items": len(batch.items), "parallel": batch.parallel, "stopOnError": batch.stop_on_error},
    )
    batches.ask(batch, task.priority, [entry])
    return batch


def plan(center: Center, name: str, wanted: BatchRequest) -> dict[str, Any]:
    """What a batch would do, item by item, and what is wrong with it; nothing is made."""
    task = task_service.get(center, name)
    problems = _problems(center, task, wanted)
    wrong = {int(problem.path.partition("[")[2].partition("]")[0]) for problem in problems if "[" in problem.path}
    items = []
    for index, item in enumerate(wanted.items):
        told: dict[str, Any] = {"item": index + 1, "ok": index not in wrong, "summary": None, "danger": []}
        if index not in wrong and index < _MOST_PREVIEWS and isinstance(item, Mapping):
            made, _ = planning.plan_saved(center, task.slug, payload={**wanted.payload, **item}, options=wanted.options)
            notes = [step.note for step in made.steps if step.note is not None]
            single = task.task_type != "composite"
            told["summary"] = notes[0].summary if single and notes else f"{len(made.steps)} steps, hash {made.hash}"
            told["danger"] = list(dict.fromkeys(text for note in notes for text in note.danger))
        items.append(told)
    return {
        "task": task.slug,
        "total": len(wanted.items),
        "parallel": at_once(wanted.parallel, os.cpu_count()),
        "stopOnError": wanted.stop_on_error,
        "danger": task.danger,
        "problems": [problem.to_dict() for problem in problems],
        "items": items,
    }


def find(center: Center, batch_id: str) -> Batch:
    """By its id or the first characters of it, at least four."""
    batches = _batches(center)
    known = [batch_id] if len(batch_id) >= 36 else batches.ids(batch_id) if len(batch_id) >= 4 else []
    if len(known) > 1:
        raise Refused(f"more than one batch begins with {batch_id}: give more of its id")
    batch = batches.find(known[0]) if known else None
    if batch is None:
        raise NotFound(f"there is no batch {batch_id!r}")
    return batch


def details(center: Center, batch_id: str, *, results: bool = False) -> dict[str, Any]:
    """The batch with its items and what they came to. ``results``: with what each run has given."""
    batch = find(center, batch_id)
    items = _batches(center).items(batch, results=results)
    arguments = [redact(item) for item in batch.items]
    shown = [{**item.to_dict(), "arguments": given} for item, given in zip(items, arguments, strict=True)]
    return {**_view(batch, summary(items)), "items": shown}


def list_batches(center: Center, *, task: str | None = None, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
    """Newest first, each with its counts."""
    batches = _batches(center)
    task_id = task_service.get(center, task).id if task else None
    found = batches.page(task_id, limit=limit, offset=offset)
    return [_view(batch, batch.summary or summary(batches.items(batch))) for batch in found]


def cancel(center: Center, batch_id: str, caller: Caller, *, reason: str = "") -> list[Run]:
    """No further item starts, and the runs on their way are cancelled; gives those. Again changes nothing."""
    batch = find(center, batch_id)
    why = redact_text(" ".join(reason.split()))
    words = f"cancelled by {caller.actor}" + (f": {why}" if why else "")
    entry = caller.entry(
        "batch_cancel_requested", task_id=batch.task_id, object=f"batch {batch.id}", message=why,
        metadata={"items": len(batch.items)},
    )  # fmt: skip
    going = _batches(center).cancel(batch.id, words, [entry])
    return [cancelling.cancel(center, run_id, caller, reason=reason) for run_id in going or ()]


def _batches(center: Center) -> Batches:
    return center.need_schedule().batches


def _view(batch: Batch, made: Mapping[str, Any]) -> dict[str, Any]:
    counts = made["counts"]
    return {
        "id": batch.id,
        "task": batch.task_slug,
        "taskId": batch.task_id,
        "status": batch_status(batch, counts).value,
        "createdAt": iso(batch.created_at),
        "createdBy": batch.created_by,
        "closedAt": iso(batch.closed_at),
        "total": len(batch.items),
        "parallel": batch.parallel,
        "stopOnError": batch.stop_on_error,
        "stopped": batch.stopped,
        "counts": dict(counts),
        "errors": list(made["errors"]),
    }


def _check(center: Center, task: Task, wanted: BatchRequest) -> None:
    problems = _problems(center, task, wanted)
    if problems:
        raise ValidationFailed(f"the batch for {task.slug!r}", problems)


def _problems(center: Center, task: Task, wanted: BatchRequest) -> list[Problem]:
    """All there are, each with the item (counted from 0 in the path, as in JSON, from 1 in the words) and the field."""
    found: list[Problem] = []
    if not wanted.items:
        found.append(Problem("empty", "items", "is empty: give at least one set of arguments"))
    if len(wanted.items) > MOST_ITEMS:
        found.append(Problem("too_many", "items", f"has {len(wanted.items)} items; a batch takes {MOST_ITEMS}"))
        return found
    if not -1 <= wanted.parallel <= MOST_AT_ONCE:
        words = f"must be from 1 to {MOST_AT_ONCE}, or 0 (as many as there are CPUs), or -1 ({MOST_AT_ONCE})"
        found.append(Problem("range", "parallel", words))
    if wanted.options.plan_hash or wanted.options.resume:
        found.append(Problem("one_run", "options", "a plan's hash and a run to resume are of one run, not of a batch"))
        return found
    for index, item in enumerate(wanted.items):
        found += _problems_of(center, task, wanted, index, item)
        if len(found) >= _MOST_PROBLEMS:
            found.append(Problem("more", f"items[{index + 1}]", "what comes after is not looked at: mend these first"))
            break
    return found


def _problems_of(center: Center, task: Task, wanted: BatchRequest, index: int, item: Any) -> list[Problem]:
    path, place = f"items[{index}]", wanted.place(index)
    if not isinstance(item, Mapping):
        return [Problem("not_object", path, f"{place} must be an object of arguments, not {_kind(item)}")]
    try:
        run_service.check(center, task, {**wanted.payload, **item}, wanted.options)
    except ValidationFailed as error:
        return [
            Problem(problem.code, f"{path}.{problem.path}".rstrip("."), f"{place}: {problem.message}")
            for problem in error.problems
        ]
    except TaskCenterError as error:
        if isinstance(error, Refused) and index == 0:
            raise  # it is about the task and the options, and so about all of them
        return [Problem(error.code, path, f"{place}: {error.message}")]
    return []


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {list: "a list", str: "a text", bool: "true or false"}.get(type(value), "a plain value")
