"""The plan of any task: a composite's steps, or the one thing another task would do. (spec 3.8)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from composites.model import CompositeSpec, StepSpec
from composites.plan import Plan, make_plan, plan_hash
from composites.walk import Overrides
from taskcenter.context import RunContext
from taskcenter.errors import Refused, ValidationFailed
from taskcenter.redaction import redact
from taskcenter.resource_limits import in_words
from taskcenter.task_types import registry

from . import composites as composite_service

if TYPE_CHECKING:
    from taskcenter.models import Task
    from taskcenter.options import RunOptions

    from .center import Center

__all__ = ["plan_saved"]


def plan_saved(
    center: Center, name: str, *, payload: Mapping[str, Any] | None = None, options: RunOptions | None = None
) -> tuple[Plan, CompositeSpec]:
    """The plan of a saved task, or of a composite of the catalogue; nothing is executed or written."""
    from . import tasks as task_service

    task = center.store.find_task(name.partition("/")[2] or name)
    if task is None or task.task_type == "composite":
        return composite_service.plan(center, name, inputs=payload, options=options)
    task = task_service.get(center, name)
    if options is not None and (options.overridden_steps() or options.resume):
        raise Refused(f"{task.slug} has no steps: step options and resuming are for composites")
    merged = {**task.payload, **(payload or {})}
    changed = task.model_copy(update={"payload": merged, "triggers": ()})
    problems = task_service.check_task(center, changed, None)
    if problems:
        raise ValidationFailed(f"the payload for {task.slug!r}", problems)
    return _plan_of_one(task, merged)


def _plan_of_one(task: Task, payload: Mapping[str, Any]) -> tuple[Plan, CompositeSpec]:
    """A plan with one step. Only a composite's payload has templates, so this one is shown as it is."""
    from dataclasses import replace

    bare = CompositeSpec(name=task.slug, steps=(StepSpec(step_key=task.slug, task_type=task.task_type),))
    spec = bare.with_steps([replace(bare.steps[0], payload=dict(payload))])
    kind = registry.get(task.task_type)
    made = make_plan(bare, task_id=task.id, revision=task.revision)
    try:
        note, said = kind.preview(payload, RunContext(dry_run=True)), None
        limits = in_words(task.termination.limits)
        if note is not None and limits:
            note = replace(note, summary=f"{note.summary}, with at most {limits}")
    except Exception as error:  # a preview is a help: whatever is wrong with it, the plan is still shown
        note, said = None, f"no preview ({type(error).__name__}: {error})"
    step = replace(
        made.steps[0],
        resolved_payload=redact(payload),
        note=note,
        note_error=said,
        danger=task.danger or kind.danger,
        expensive=task.expensive or kind.expensive,
        connections=dict.fromkeys(note.connections if note else ()),
    )
    digest = plan_hash(spec, inputs={}, revision=task.revision, overrides=Overrides())
    return replace(made, steps=(step,), hash=digest), spec
