"""The body of the flows in ``flows/run_task.py``: one saved task that is not a composite."""

from __future__ import annotations

import threading
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from taskcenter.errors import NotFound, Refused, TaskCenterError
from taskcenter.jsonable import to_jsonable
from taskcenter.redaction import redact, redact_text
from taskcenter.status import RunPhase, RunStatus
from taskcenter.task_types import TaskType, registry
from taskcenter_adapter.mapping import SKIPPED

from .engine import run_task_in_flow
from .limit import keep_limit
from .reporter import TaskRunReporter
from .session import NotNow, Session, open_session
from .steps import call_type, flow_task_of

__all__ = ["run_saved_task"]


async def run_saved_task(
    task: str, payload: dict[str, Any] | None, dry_run: bool, options: dict[str, Any] | None, expected: str
) -> State[Any]:
    """Run (or preview) the saved task ``task`` of the type ``expected``."""
    try:
        with open_session(task, expected, dry_run=dry_run, options=options) as session:
            try:
                return await _run(session, task, payload or {}, expected)
            except Exception as error:  # the type's code may raise anything; the run ends with its sentence
                return _failed(session, error)
    except NotNow as closed:
        return Cancelled(name=SKIPPED, message=f"not started: {closed}")
    except TaskCenterError as error:  # no record can be kept: the state at least says why
        return Failed(message=redact_text(error.message))


async def _run(session: Session, slug: str, payload: dict[str, Any], expected: str) -> State[Any]:
    saved = session.task
    if saved is None:
        raise NotFound(f"there is no task {slug!r}; make it with: taskcenter task create")
    if saved.task_type != expected:
        raise Refused(f"the task {slug!r} is of the type {saved.task_type}, not {expected}: publish it again")
    if session.options.plan_hash is not None or session.options.overridden_steps():
        raise Refused("steps and plan hashes are for composites; this task has no steps")
    kind = registry.get(expected)
    merged = {**saved.payload, **payload}
    if session.dry_run:
        return _preview(session, kind, merged)
    stop = threading.Event()
    async with TaskRunReporter(session.flow_run) as reporter:
        report = reporter.report(slug, expected, [])
        ctx = session.context(None, stop.is_set)

        async def work() -> Any:
            return await call_type(kind, merged, ctx, None)

        try:
            value = await keep_limit(session, run_task_in_flow(flow_task_of(expected), work, report, session.flow_run))
        finally:
            stop.set()
    result = to_jsonable(value)
    message = ctx.summary_text or "done"
    session.finish(RunStatus.SUCCESS, message=message, result=result)
    return Completed(message=redact_text(message), data=redact(result))


def _preview(session: Session, kind: TaskType, payload: dict[str, Any]) -> State[Any]:
    problems = kind.check(payload)
    note = None if problems else kind.preview(payload, session.context())
    plan = {
        "executor": kind.key,
        "taskId": session.run.task_id,
        "dryRun": True,
        "resolvedPayload": redact(payload),
        "problems": [p.to_dict() for p in problems],
        "note": note.to_dict() if note else None,
    }
    message = note.summary if note else "; ".join(map(str, problems)) or "no preview for this task type"
    for line in (message, *(note.danger if note else ())):
        session.log(line)
    session.finish(RunStatus.SUCCESS, message=f"plan: {message}", result=plan)
    return Completed(message=redact_text(f"plan, nothing was executed: {message}"), data=plan)


def _failed(session: Session, error: Exception) -> State[Any]:
    if isinstance(error, TimeoutError):
        limit = session.task.termination.max_runtime if session.task else None
        text, phase = f"stopped after {limit:g} s (maxRuntime)" if limit else "timed out", RunPhase.TIMED_OUT
    elif isinstance(error, TaskCenterError):
        text, phase = error.message, None
    else:
        text, phase = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, None
    if asked := session.cancel_asked():
        session.log(f"{asked}; it ended meanwhile: {text}")
        session.finish(RunStatus.CANCELLED, message=asked)
        return Cancelled(message=redact_text(asked))
    session.log(text, "error")
    session.finish(RunStatus.FAILED, message=text.splitlines()[0], error=text, phase=phase)
    name = "TimedOut" if phase is RunPhase.TIMED_OUT else "Failed"
    return Failed(message=redact_text(text), name=name)
