"""Runs again: the same once more, on from where it failed, and what was different. (spec 1.4, 3.9)"""

from __future__ import annotations

from typing import Any

from taskcenter.errors import Refused
from taskcenter.models import Run, StepRun
from taskcenter.options import RunOptions
from taskcenter.status import TERMINAL_RUN, RunStatus

from . import runs as run_service
from .center import Caller, Center

__all__ = ["compare", "resume", "retry"]

_RUN_FIELDS = ("taskSlug", "taskRevision", "status", "phase", "origin", "dryRun", "planHash", "durationMs", "message",
               "error", "result")  # fmt: skip
_STEP_FIELDS = ("status", "attempts", "durationMs", "error", "reason", "execution")
_NOT_TOLD = ("durationMs",)
"""Differ between any two runs: said, and no difference by themselves when they are close."""


def retry(center: Center, run_id: str, caller: Caller, *, confirm: bool = False) -> Run:
    """The same again, with the payload and the choices of then; refused while the run is not over."""
    run = _over(center, run_id)
    parameters = _parameters(center, run)
    options = RunOptions.model_validate(parameters.get("options") or {})
    options = options.model_copy(update={"plan_hash": None})  # what changed since is meant to count
    return run_service.start(
        center,
        run.task_id or run.task_slug,
        caller,
        payload=parameters.get("payload"),
        options=options,
        dry_run=run.dry_run,
        confirm=confirm,
        again=run.id,
        attempt=run.attempt + 1,
    )


def resume(center: Center, run_id: str, caller: Caller, *, step: str | None = None, confirm: bool = False) -> Run:
    """A composite on from where it failed, or (``step``) from there."""
    run = _over(center, run_id)
    if run.task_type != "composite":
        raise Refused(f"{run.task_slug} has no steps: run it again with: taskcenter runs retry {run.id[:8]}")
    if run.status is RunStatus.SUCCESS and step is None:
        raise Refused(f"run {run.id[:8]} succeeded: name the step to begin with")
    options = RunOptions(resume=run.id)
    if step is not None:
        options = RunOptions(resume=run.id, resume_mode="from", resume_step=step)
    payload = _parameters(center, run).get("payload")
    return run_service.start(
        center, run.task_id or run.task_slug, caller, payload=payload, options=options, confirm=confirm
    )


def _over(center: Center, run_id: str) -> Run:
    run = center.store.get_run(run_id)
    if run.status not in TERMINAL_RUN:
        raise Refused(f"run {run.id[:8]} is not over: cancel it first with: taskcenter runs cancel {run.id[:8]}")
    return run


def _parameters(center: Center, run: Run) -> dict[str, Any]:
    """What the run was started with; of one that Prefect has forgotten, what is saved is all there is."""
    known = center.gateway.find_run(run.id)
    return dict((known or {}).get("parameters") or {})


def compare(center: Center, first: str, second: str) -> dict[str, Any]:
    """Both runs and every field of theirs and of their steps that differs, in the order of the steps."""
    runs = [center.store.get_run(first), center.store.get_run(second)]
    pages = [run.to_json() for run in runs]
    found = [_difference(name, *(page[name] for page in pages)) for name in _RUN_FIELDS]
    steps = [{step.step_key: step for step in center.store.list_steps(run.id)} for run in runs]
    for key in dict.fromkeys([*steps[0], *steps[1]]):
        found += _step_differences(key, steps[0].get(key), steps[1].get(key))
    return {"runs": pages, "differences": [item for item in found if item is not None]}


def _step_differences(key: str, first: StepRun | None, second: StepRun | None) -> list[dict[str, Any] | None]:
    if first is None or second is None:
        there = [step.status.value if step else None for step in (first, second)]
        return [_difference(f"steps.{key}", *there)]
    one, other = first.to_json(), second.to_json()
    return [_difference(f"steps.{key}.{name}", one[name], other[name]) for name in _STEP_FIELDS]


def _difference(what: str, first: Any, second: Any) -> dict[str, Any] | None:
    if first == second or (what.endswith(_NOT_TOLD) and _close(first, second)):
        return None
    return {"what": what, "first": first, "second": second}


def _close(first: Any, second: Any) -> bool:
    """Times within a factor of two, or within a second, are the same for a reader."""
    if first is None or second is None:
        return False
    return bool(abs(first - second) <= 1000 or max(first, second) <= 2 * min(first, second))
